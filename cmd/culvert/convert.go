package main

import (
	"net/netip"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/tunnel"
)

// statusOf is a tunnel's status as the control protocol shows it, field by field: keys stay behind, and the form others
// rely on does not follow the engine's types. names are those peers have in the configuration file.
func statusOf(s tunnel.Status, names map[crypto.PublicKey]string) control.Tunnel {
	t := control.Tunnel{
		Interface: s.Name, Mode: "tun", Up: s.Up, ListenPort: s.ListenPort, FwMark: s.Mark, MTU: s.MTU, Workers: s.Workers, UnderLoad: s.UnderLoad,
		Peers: make([]control.Peer, 0, len(s.Peers)), Drops: s.Drops,
		Transport: control.Transport{
			SentDatagrams: s.Transport.SentDatagrams, SentBytes: s.Transport.SentBytes, SentCalls: s.Transport.SentCalls,
			ReceivedDatagrams: s.Transport.ReceivedDatagrams, ReceivedBytes: s.Transport.ReceivedBytes, ReceivedCalls: s.Transport.ReceivedCalls,
			SegmentFallbacks: s.Transport.SegmentFallbacks, SourceFallbacks: s.Transport.SourceFallbacks,
			SendErrors: s.Transport.SendErrors, Truncated: s.Transport.Truncated,
			SegmentOffload: s.Transport.SegmentOffload, ReceiveOffload: s.Transport.ReceiveOffload,
			Streams: streamsOf(s.Transport.Streams),
		},
		Handshakes: control.Handshakes(s.Handshakes), Switch: switchStatusOf(s.Switch, names),
	}
	if t.Switch != nil {
		t.Mode = "tap"
	}
	for _, r := range s.Refused {
		t.Refused = append(t.Refused, control.Refusal{
			Reason: r.Reason, Answer: r.Answer, Peer: r.Peer, From: r.From.String(), Count: r.Count, Last: r.Last.UTC(), Behind: r.Behind.Seconds(),
		})
	}
	if !s.PublicKey.IsZero() {
		t.PublicKey = s.PublicKey.Base64()
	}
	if t.Drops == nil {
		t.Drops = map[string]uint64{}
	}
	for _, p := range s.Peers {
		q := control.Peer{
			PublicKey: p.PublicKey, Name: names[p.PublicKey], PresharedKey: p.HasPresharedKey, Endpoint: p.EndpointText, TCP: p.OverTCP, Source: p.Source,
			AllowedIPs: p.AllowedIPs, Keepalive: int(p.Keepalive / time.Second), Connected: p.Session, HandshakeAttempts: p.HandshakeAttempts,
			Wire: p.Wire, Suite: p.Suite, PostQuantum: p.PostQuantum, Native: nativeOf(p.Native), ReceivedBytes: p.ReceivedBytes, SentBytes: p.SentBytes,
			ReceivedPackets: p.ReceivedPackets, SentPackets: p.SentPackets, StagedBytes: p.StagedBytes,
			Port: portStatusOf(p.Port), Access: accessStatusOf(p.Access),
		}
		if !p.LastHandshake.IsZero() {
			q.LatestHandshake = p.LastHandshake.UTC()
		}
		if !p.LastHeard.IsZero() {
			q.LastHeard = p.LastHeard.UTC()
		}
		if q.AllowedIPs == nil {
			q.AllowedIPs = []netip.Prefix{}
		}
		t.Peers = append(t.Peers, q)
	}
	return t
}

func nativeOf(n *tunnel.NativeStatus) *control.Native {
	if n == nil {
		return nil
	}
	var lanes []control.Lane
	for _, l := range n.Lanes {
		lanes = append(lanes, control.Lane{Number: l.Number, Open: l.Open, Endpoint: l.Endpoint, SentBytes: l.SentBytes,
			ReceivedBytes: l.ReceivedBytes, SentPackets: l.SentPackets, ReceivedPackets: l.ReceivedPackets})
	}
	return &control.Native{
		PathMTU: n.PathMTU, InnerMTU: n.InnerMTU, PathSettled: n.PathSettled,
		RTT: n.RTT.Seconds(), RTTMin: n.RTTMin.Seconds(), RTTVar: n.RTTDeviation.Seconds(), Loss: n.Loss,
		Agent: n.Agent, PeerMTU: n.PeerMTU, Lanes: lanes,
	}
}
