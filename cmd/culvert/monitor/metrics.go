package monitor

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"culvert/control"
	"culvert/tunnel"
)

const (
	// MaxPeerSeries is how many peers have series of their own. What a Prometheus server pays for is series: there are about 20 of each peer.
	MaxPeerSeries = 4096

	maxAllowed = 8 // of a peer's allowed IPs stand in its label
)

// collector turns a snapshot into series.
type collector struct {
	take func() (*Snapshot, time.Time)
	// peers says whether there are series of each peer.
	peers func() bool
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range families {
		out <- f.desc
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s, now := c.take()
	w := writer{out, now}
	w.instance(s)
	left := MaxPeerSeries
	if !c.peers() {
		left = 0
	}
	without := 0
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		w.tunnel(t)
		some := chosen(t.Peers, left)
		left -= len(some)
		without += len(t.Peers) - len(some)
		for _, p := range some {
			w.peer(t, p)
		}
	}
	w.put(seriesLess, float64(without))
	for i := range s.Servers {
		w.server(&s.Servers[i])
	}
	if s.Network != nil {
		w.network(s.Network)
	}
}

// chosen are the peers that have series: all, or, where there are too many, first those that were ever connected, by key, so that they
// stay the same ones.
func chosen(peers []control.Peer, most int) []*control.Peer {
	list := make([]*control.Peer, 0, min(len(peers), most))
	if most == 0 {
		return list
	}
	for i := range peers {
		list = append(list, &peers[i])
	}
	if len(list) > most {
		slices.SortStableFunc(list, func(a, b *control.Peer) int {
			if x, y := a.LatestHandshake.IsZero(), b.LatestHandshake.IsZero(); x != y {
				if x {
					return 1
				}
				return -1
			}
			return a.PublicKey.Compare(b.PublicKey)
		})
		list = list[:most]
	}
	return list
}

// writer gives out series.
type writer struct {
	out chan<- prometheus.Metric
	now time.Time
}

func (w *writer) put(f *family, v float64, labels ...string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "?")
	}
	w.out <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

func (w *writer) count(f *family, n uint64, labels ...string) { w.put(f, float64(n), labels...) }

func (w *writer) truth(f *family, is bool, labels ...string) {
	v := 0.0
	if is {
		v = 1
	}
	w.put(f, v, labels...)
}

// moment is a time; the zero time is 0.
func (w *writer) moment(f *family, at time.Time, labels ...string) {
	v := 0.0
	if !at.IsZero() {
		v = float64(at.UnixMilli()) / 1000
	}
	w.put(f, v, labels...)
}

func (w *writer) instance(s *Snapshot) {
	release, _, _ := strings.Cut(s.Version, ", ")
	w.put(buildInfo, 1, release, goVersion())
	w.put(instanceInfo, 1, s.Name)
	w.moment(startTime, s.Started)
	w.count(reloads, s.Reloads.Done-s.Reloads.Failed, "success")
	w.count(reloads, s.Reloads.Failed, "failure")
	w.truth(reloadOK, !s.Reloads.LastFailed)
	w.moment(reloadTime, s.Reloads.LastGood)
	w.put(reloadTook, s.Reloads.Took.Seconds())
}

func goVersion() string { return runtime.Version() }

// reasons are all the names that a tunnel's drops may have.
var reasons = func() (list []string) {
	for r := tunnel.DropReason(0); r.String() != "unknown"; r++ {
		list = append(list, r.String())
	}
	return list
}()

// refusedHandshakes are the drops that are handshakes, and what they are called as a result.
var refusedHandshakes = map[tunnel.DropReason]string{
	tunnel.DropInMAC1: "wrong_mac1", tunnel.DropInMAC2: "wrong_mac2", tunnel.DropInQueueFull: "queue_full", tunnel.DropInUnderLoad: "no_cookie",
	tunnel.DropInRateLimit: "rate_limited", tunnel.DropInHandshake: "unverified", tunnel.DropInUnknownPeer: "unknown_peer",
	tunnel.DropInOldInitiation: "replayed", tunnel.DropInWire: "other_wire", tunnel.DropInKEM: "incomplete", tunnel.DropInCookie: "bad_cookie",
}

func (w *writer) tunnel(t *control.Tunnel) {
	name := t.Interface
	w.truth(tunnelUp, t.Up, name, t.Mode)
	w.put(tunnelMTU, float64(t.MTU), name)
	w.put(tunnelWorkers, float64(t.Workers), name)
	w.put(tunnelPeers, float64(len(t.Peers)), name)
	w.put(tunnelSessions, float64(sessions(t)), name)
	w.truth(underLoad, t.UnderLoad, name)
	staged := 0
	for i := range t.Peers {
		staged += t.Peers[i].StagedBytes
	}
	w.put(waiting, float64(staged), name)
	for _, r := range reasons {
		direction, reason, _ := strings.Cut(r, ": ")
		w.count(drops, t.Drops[r], name, direction, reason)
	}
	w.count(handshakes, t.Handshakes.Completed, name, "completed")
	for r, result := range refusedHandshakes {
		w.count(handshakes, t.Drops[r.String()], name, result)
	}
	h := &t.Handshakes
	w.count(messages, h.InitiationsSent, name, "out", "initiation")
	w.count(messages, h.InitiationsReceived, name, "in", "initiation")
	w.count(messages, h.ResponsesSent, name, "out", "response")
	w.count(messages, h.ResponsesReceived, name, "in", "response")
	w.count(messages, h.CookiesSent, name, "out", "cookie")
	w.count(messages, h.CookiesReceived, name, "in", "cookie")
	w.underlay(name, &t.Transport)
	if t.Switch != nil {
		w.bridge(name, t.Switch)
	}
}

func (w *writer) underlay(name string, t *control.Transport) {
	w.count(datagrams, t.SentDatagrams, name, "out")
	w.count(datagrams, t.ReceivedDatagrams, name, "in")
	w.count(underlayBytes, t.SentBytes, name, "out")
	w.count(underlayBytes, t.ReceivedBytes, name, "in")
	w.count(calls, t.SentCalls, name, "out")
	w.count(calls, t.ReceivedCalls, name, "in")
	w.count(sendErrors, t.SendErrors, name)
	w.count(truncated, t.Truncated, name)
	w.count(fallbacks, t.SegmentFallbacks, name, "segment")
	w.count(fallbacks, t.SourceFallbacks, name, "source")
	w.truth(offload, t.SegmentOffload, name, "out")
	w.truth(offload, t.ReceiveOffload, name, "in")
	s := t.Streams
	if s == nil {
		return
	}
	w.count(streams, s.Open, name)
	w.count(streamsMade, s.Dialled, name, "dialled")
	w.count(streamsMade, s.Accepted, name, "accepted")
	w.count(streamsMade, s.Refused, name, "refused")
	w.count(streamsMade, s.Evicted, name, "evicted")
	w.count(streamsMade, s.Failed, name, "failed")
	w.count(streamsMade, s.Silent, name, "silent")
	w.count(streamsMade, s.Stuck, name, "stuck")
	w.count(streamDatagrams, s.SentDatagrams, name, "out")
	w.count(streamDatagrams, s.ReceivedDatagrams, name, "in")
	w.count(streamBytes, s.SentBytes, name, "out")
	w.count(streamBytes, s.ReceivedBytes, name, "in")
	w.count(streamFull, s.Full, name)
}

func (w *writer) bridge(name string, s *control.Switch) {
	w.truth(carrier, s.Carrier, name)
	w.truth(blocked, s.Blocked, name)
	w.count(loops, s.Loops, name)
	w.count(moves, s.Moves, name)
	local := 0
	for i := range s.Addresses {
		if s.Addresses[i].Local {
			local++
		}
	}
	w.put(addresses, float64(local), name, "local")
	w.put(addresses, float64(len(s.Addresses)-local), name, "peer")
}

func (w *writer) server(s *Server) {
	connected, out := 0, 0
	four, six := 0, 0
	for i := range s.Clients {
		c := &s.Clients[i]
		if c.Connected {
			connected++
		}
		if c.SignIn != nil && c.SignIn.Until.IsZero() {
			out++
		}
		for _, a := range c.Addresses {
			if a.Is4() {
				four++
			} else {
				six++
			}
		}
	}
	w.put(clients, float64(len(s.Clients)), s.Interface)
	w.put(clientsOn, float64(connected), s.Interface)
	w.put(leases, float64(four), s.Interface, "ipv4")
	w.put(leases, float64(six), s.Interface, "ipv6")
	w.put(invitations, float64(s.Invitations), s.Interface)
	w.put(signedOut, float64(out), s.Interface)
}

// differences are the ways in which a thing can differ from what is declared.
var differences = []string{"gone", "changed", "extra", "conflict"}

func (w *writer) network(n *control.Network) {
	w.put(things, float64(n.Items))
	by := make(map[string]int)
	for i := range n.Drift {
		by[n.Drift[i].Is]++
	}
	for _, is := range differences {
		w.put(drift, float64(by[is]), is)
	}
	w.moment(driftChecked, n.Checked)
	w.truth(driftUnknown, n.Error != "")
	w.truth(setupOnTrial, n.Unconfirmed > 0 || n.Abandoned)
	w.truth(setupDisorder, n.Interrupted)
}

func (w *writer) peer(t *control.Tunnel, p *control.Peer) {
	key := p.PublicKey.Base64()
	allowed := allowedLabel(p)
	w.count(wgSent, p.SentBytes, t.Interface, key, allowed, p.Name)
	w.count(wgReceived, p.ReceivedBytes, t.Interface, key, allowed, p.Name)
	// Whole seconds, as those who know the name expect.
	at := 0.0
	if !p.LatestHandshake.IsZero() {
		at = float64(p.LatestHandshake.Unix())
	}
	w.put(wgHandshake, at, t.Interface, key, allowed, p.Name)

	own := func(more ...string) []string { return append([]string{t.Interface, key, p.Name}, more...) }
	over := "udp"
	if p.TCP {
		over = "tcp"
	}
	w.put(peerInfo, 1, own(p.Wire, p.Suite, over)...)
	w.truth(peerSession, p.Connected, own()...)
	w.put(peerAttempts, float64(p.HandshakeAttempts), own()...)
	w.count(peerPackets, p.SentPackets, own("out")...)
	w.count(peerPackets, p.ReceivedPackets, own("in")...)
	w.put(peerWaiting, float64(p.StagedBytes), own()...)
	if n := p.Native; n != nil {
		if n.RTT > 0 {
			w.put(peerRTT, n.RTT, own()...)
			w.put(peerRTTMin, n.RTTMin, own()...)
			w.put(peerRTTVar, n.RTTVar, own()...)
		}
		if n.Loss != nil {
			w.put(peerLoss, *n.Loss, own()...)
		}
		w.put(peerPath, float64(n.PathMTU), own()...)
		w.put(peerInner, float64(n.InnerMTU), own()...)
	}
	if p.Port != nil {
		w.put(peerAddresses, float64(p.Port.Addresses), own()...)
	}
	if a := p.Access; a != nil {
		w.refused(own, "in", &a.FromPeer)
		w.refused(own, "out", &a.ToPeer)
		w.truth(peerShut, a.Held || a.Closed != "", own()...)
		if a.Quota != nil {
			w.count(peerQuota, a.Quota.Bytes, own()...)
			w.count(peerQuotaUsed, a.Quota.Used, own()...)
		}
	}
}

func (w *writer) refused(own func(...string) []string, direction string, d *control.AccessDrops) {
	w.count(peerRefused, d.Denied, own(direction, "denied")...)
	w.count(peerRefused, d.OverRate, own(direction, "rate")...)
	w.count(peerRefused, d.OverQuota, own(direction, "quota")...)
	w.count(peerRefused, d.ShutOut, own(direction, "shut_out")...)
}

// allowedLabel is the peer's allowed IPs, as many as a label may hold.
func allowedLabel(p *control.Peer) string {
	var list []string
	for i, a := range p.AllowedIPs {
		if i == maxAllowed {
			list = append(list, "+"+strconv.Itoa(len(p.AllowedIPs)-maxAllowed))
			break
		}
		list = append(list, a.String())
	}
	return strings.Join(list, ",")
}
