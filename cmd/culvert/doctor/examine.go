package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"culvert/control"
	"culvert/server/terminal"
)

// examination collects findings.
type examination struct {
	*Facts
	list    []Finding
	blocked []string // families of which this machine drops what comes to the tunnel at hand
}

// Examine makes findings of facts, the worst first.
func Examine(f *Facts) []Finding {
	x := &examination{Facts: f}
	x.daemon()
	x.machine()
	x.network()
	if f.Second != nil {
		for i := range f.Second.Tunnels {
			x.tunnel(&f.Second.Tunnels[i])
		}
		x.overlaps()
	}
	rank := map[Severity]int{Error: 0, Warning: 1, Note: 2}
	slices.SortStableFunc(x.list, func(a, b Finding) int { return cmp.Compare(rank[a.Severity], rank[b.Severity]) })
	return x.list
}

func (x *examination) add(s Severity, code, where, what, evidence, do string) {
	x.list = append(x.list, Finding{code, s, masked(where), masked(what), masked(evidence), masked(do)})
}

// masked is text without what a terminal would obey: a log, a kernel's or a daemon's words may hold anything.
func masked(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || terminal.Printable(string(r)) {
			return r
		}
		return '\uFFFD'
	}, text)
}

func (x *examination) daemon() {
	if x.FileError != "" {
		x.add(Error, "file", "", "the file is wrong", x.FileError, "mend it; culvert check "+x.File+" shows all of it")
	}
	if u := x.Unit; u != nil && u.Active == "failed" {
		x.add(Error, "unit-failed", "", "the systemd unit "+u.Name+" has failed", "result: "+u.Result, "journalctl -u "+u.Name+" shows why; systemctl restart "+u.Name)
	}
	switch {
	case x.NotRunning:
		do := "culvert up FILE"
		if x.File != "" {
			do = "culvert up " + x.File
		}
		x.add(Error, "not-running", "", "nothing called "+x.Name+" is running", strings.Join(x.LogTail, " | "), do)
	case x.DaemonError != "":
		x.add(Error, "no-answer", "", "the daemon does not answer", x.DaemonError, "run as root; if it hangs, end it with culvert down "+x.Name+" or kill it, and start it again")
	}
	if x.Second != nil && x.Second.Version != "" && x.Second.Version != x.Version {
		x.add(Warning, "version", "", "the daemon is of another version than this program", fmt.Sprintf("%s runs, this is %s", terminal.Safe(x.Second.Version), x.Version),
			"start the daemon again, so that both are the same")
	}
	if !x.Root {
		x.add(Note, "rights", "", "not all could be looked at", "this does not run as root", "run it as root")
	}
	if x.Elsewhere {
		x.add(Note, "elsewhere", "", "routes, firewall and settings were not looked at", "the daemon runs in another network namespace", fmt.Sprintf("nsenter -n -t %d culvert doctor %s", x.Second.PID, x.Name))
	}
}

func (x *examination) machine() {
	if x.NoTun != "" && x.NotRunning {
		x.add(Error, "no-tun", "", "the kernel's tun driver cannot be used", x.NoTun, "run as root, modprobe tun; in a container let it have /dev/net/tun and CAP_NET_ADMIN")
	}
	for _, p := range x.Ports {
		x.add(Error, "port-taken", "", fmt.Sprintf("UDP port %d cannot be opened", p.Port), p.Error, fmt.Sprintf("ss -ulnp 'sport = :%d' shows who has it; end that, or choose another port in listen", p.Port))
	}
	for _, r := range x.Names {
		if r.Error != "" {
			x.add(Error, "dns", "", "the name "+terminal.Safe(r.Host)+" of an endpoint cannot be looked up", terminal.Safe(r.Error), "mend the name, or the machine's name servers (/etc/resolv.conf); an address in its place always works")
		}
	}
	if x.Unsynced {
		x.add(Note, "clock-unsynced", "", "nothing keeps this machine's clock right", "the kernel's clock is not synchronised", "turn on systemd-timesyncd or chrony: peers refuse whoever's clock goes back")
	}
	forwards := false
	for _, t := range x.Tunnels {
		if t.Server {
			forwards = true
			x.pool(&t)
		}
		if t.FullTunnel && max(x.Sysctls["net.ipv4.conf.all.rp_filter"], x.Sysctls["net.ipv4.conf."+t.Name+".rp_filter"]) == 1 && x.Sysctls["net.ipv4.conf.all.src_valid_mark"] == 0 {
			x.add(Warning, "rp-filter", t.Name, "strict reverse path filtering drops what comes back outside the tunnel", "rp_filter is 1, src_valid_mark is 0",
				"sysctl -w net.ipv4.conf.all.src_valid_mark=1")
		}
	}
	if v, known := x.Sysctls["net.ipv4.ip_forward"]; forwards && known && v == 0 {
		x.add(Warning, "forwarding", "", "clients reach this machine, but nothing behind it", "net.ipv4.ip_forward is 0", "forward: true under server: in the file, or sysctl -w net.ipv4.ip_forward=1; leave it where they shall not")
	}
}

// poolLeft is the share of a pool that should be free.
const poolLeft = 0.1

func (x *examination) pool(t *Configured) {
	for _, p := range t.Pool {
		if !p.Addr().Is4() {
			continue // there is no end to others
		}
		size := 1<<(32-p.Bits()) - 3 // network, broadcast, the server
		if size > 0 && float64(size-t.Clients) < poolLeft*float64(size) {
			x.add(Warning, "pool", t.Name, "there are few addresses left for clients", fmt.Sprintf("%d clients, about %d addresses in %v", t.Clients, size, p), "revoke clients that are gone, or make pool larger")
		}
	}
}

func (x *examination) network() {
	if x.Second == nil || x.Second.Network == nil {
		return
	}
	for _, d := range x.Second.Network.Drift {
		x.add(Warning, "drift", "", "the network is not as declared", terminal.Safe(d.Text), "culvert reload "+x.Name)
	}
	if e := x.Second.Network.Error; e != "" {
		x.add(Warning, "not-compared", "", "the network cannot be compared with what is declared", terminal.Safe(e), "")
	}
	if x.Second.Network.Interrupted {
		x.add(Warning, "interrupted", "", "a change of the network is half-way", "", "culvert reload "+x.Name)
	}
}

func (x *examination) tunnel(t *control.Tunnel) {
	if !t.Up {
		x.add(Error, "down", t.Interface, "the interface is down, or its UDP port cannot be opened", "", "ip link set "+t.Interface+" up; the daemon's log says more")
		return
	}
	if t.Switch != nil && t.Switch.Blocked {
		x.add(Warning, "loop", t.Interface, "no frames cross, because of a loop between sites", fmt.Sprintf("%d found", t.Switch.Loops), "take one of the ways between the sites away, or turn spanning tree on in the bridges")
	}
	x.input(t)
	if t.UnderLoad {
		x.add(Note, "under-load", t.Interface, "more handshakes come than are answered at once; callers have to show that they receive", "", "")
	}
	x.drops(t)
	for i := range t.Peers {
		x.peer(t, &t.Peers[i])
	}
	for i := range t.Refused {
		x.refused(t, &t.Refused[i])
	}
}

func evidenceOf(where string, packets uint64) string {
	if packets > 0 {
		where += fmt.Sprintf(", %d packets so far", packets)
	}
	return where
}

// drops are of a tunnel, where they say something by themselves.
func (x *examination) drops(t *control.Tunnel) {
	for _, d := range []struct{ reason, code, what, do string }{
		{"in: source not in allowed IPs", "source", "a peer sends from addresses that its allowed_ips do not have", "add them to allowed_ips of that peer here, or let it send from its own address"},
		{"in: wrong mac1", "wrong-own-key", "somebody calls who has another public key for this tunnel", "compare public_key at the far end with this one: culvert status shows it"},
		{"out: no private key", "no-key", "the tunnel has no private key", "set private_key_file"},
		{"out: routing loop", "route-loop", "the tunnel's own datagrams are routed into it", "except the endpoint from allowed_ips, or give it a route of its own"},
		{"out: too large for the underlay's interface", "mtu-underlay", "datagrams are larger than the interface to the peer takes", "leave mtu out, so that it is found"},
		{"in: content of another mode", "mode", "one end carries Ethernet frames, the other IP packets", "give both the same mode"},
	} {
		now := t.Drops[d.reason]
		if now == 0 {
			continue
		}
		s, evidence := Note, fmt.Sprintf("%q %d times since the start", d.reason, now)
		if before := x.before(t); before != nil && now > before.Drops[d.reason] {
			s, evidence = Warning, evidence+fmt.Sprintf(", %d just now", now-before.Drops[d.reason])
		}
		x.add(s, d.code, t.Interface, d.what, evidence, d.do)
	}
}

// before is the tunnel in the first status.
func (x *examination) before(t *control.Tunnel) *control.Tunnel {
	if x.First == nil || x.First.PID != x.Second.PID {
		return nil
	}
	for i := range x.First.Tunnels {
		if x.First.Tunnels[i].Interface == t.Interface {
			return &x.First.Tunnels[i]
		}
	}
	return nil
}

// recent is how long ago a refusal may be to say something of how it is now.
const recent = 180 * time.Second

func inContact(p *control.Peer) bool { return p.Connected && !p.Silent() }

// anyReached reports whether a peer of the tunnel is: then its port is open to somebody, and what a firewall seems to do, it does not.
func anyReached(t *control.Tunnel) bool {
	return slices.ContainsFunc(t.Peers, func(p control.Peer) bool { return inContact(&p) })
}

// input looks whether the firewall drops what comes to the tunnel's port. Where that is so of one family of addresses, it is said of that
// family, if somebody may call by it.
func (x *examination) input(t *control.Tunnel) {
	x.blocked = nil
	if anyReached(t) {
		return
	}
	var evidence, commands []string
	for _, family := range []string{ipv4, ipv6} {
		where, packets := x.Firewall.stops(t.ListenPort, family, "input", "prerouting")
		if where == "" {
			continue
		}
		x.blocked = append(x.blocked, family)
		if e := evidenceOf(where, packets); !slices.Contains(evidence, e) {
			evidence = append(evidence, e)
		}
		if c := x.Firewall.letThrough(where, t.ListenPort); !slices.Contains(commands, c) {
			commands = append(commands, c)
		}
	}
	over := ""
	switch {
	case len(x.blocked) == 0:
		return
	case len(x.blocked) == 1 && !mayCall(t, x.blocked[0]):
		return
	case len(x.blocked) == 1:
		over = " over " + map[string]string{ipv4: "IPv4", ipv6: "IPv6"}[x.blocked[0]]
	}
	x.add(Error, "firewall", t.Interface, fmt.Sprintf("this machine's firewall drops what comes to UDP port %d%s", t.ListenPort, over),
		strings.Join(evidence, "; "), "let it in: "+strings.Join(commands, " && "))
}

// mayCall reports whether a peer may call by addresses of a family: one that has such an endpoint, or none yet.
func mayCall(t *control.Tunnel, family string) bool {
	return len(t.Peers) == 0 || slices.ContainsFunc(t.Peers, func(p control.Peer) bool {
		f := familyOf(p.Endpoint)
		return f == family || f == ""
	})
}

func nameOf(t *control.Tunnel, p *control.Peer) string {
	if p.Name != "" {
		return t.Interface + " peer " + terminal.Safe(p.Name)
	}
	return t.Interface + " peer " + p.PublicKey.Base64()
}

func (x *examination) configured(t *control.Tunnel, p *control.Peer) *ConfiguredPeer {
	for i := range x.Tunnels {
		if x.Tunnels[i].Name != t.Interface {
			continue
		}
		for j := range x.Tunnels[i].Peers {
			if c := &x.Tunnels[i].Peers[j]; c.Key == p.PublicKey.Base64() {
				return c
			}
		}
	}
	return nil
}

func (x *examination) peer(t *control.Tunnel, p *control.Peer) {
	where := nameOf(t, p)
	if p.Access != nil {
		if p.Access.Closed != "" {
			x.add(Note, "closed", where, "it has no session: "+terminal.Safe(p.Access.Closed), "", "change expires or schedule in its access")
			return
		}
		if q := p.Access.Quota; q != nil && q.Used >= q.Bytes {
			x.add(Warning, "quota", where, "its quota is used up", fmt.Sprintf("%d of %d bytes", q.Used, q.Bytes), "wait for the next period, or raise the quota")
		}
	}
	if inContact(p) {
		x.reachedPeer(where, t, p)
		return
	}
	family := familyOf(p.Endpoint)
	explained := slices.Contains(x.blocked, family)
	for _, r := range x.Routes {
		if r.Tunnel != t.Interface || r.Peer != p.PublicKey.Base64() {
			continue
		}
		switch {
		case r.Error != "":
			explained = true
			x.add(Error, "no-route", where, fmt.Sprintf("there is no way to %v", r.To), r.Error, fmt.Sprintf("ip route get %v shows it; set a route or a default route", r.To))
		case r.Link == t.Interface:
			explained = true
			x.add(Error, "route-loop", where, fmt.Sprintf("the route to its endpoint %v leads into the tunnel itself", r.To), "by "+r.Link, "leave the endpoint's network out of allowed_ips, or give the endpoint a route of its own")
		case r.MTU > 0 && r.MTU < 1280:
			explained = true // in part at least
			x.add(Warning, "mtu", where, fmt.Sprintf("the way to %v takes packets of %d bytes only", r.To, r.MTU), "by "+r.Link, "culvert needs an underlay of 1280 bytes: raise the MTU of "+r.Link)
		}
	}
	for _, r := range t.Refused {
		explained = explained || (r.Peer == p.PublicKey || calls(&r, p)) && x.Now.Sub(r.Last) < recent
	}
	port := uint16(0)
	if ap, err := netip.ParseAddrPort(p.Endpoint); err == nil {
		port = ap.Port()
	}
	if stop, packets := x.Firewall.stops(port, family, "output"); port != 0 && stop != "" {
		explained = true
		x.add(Error, "firewall", where, fmt.Sprintf("this machine's firewall drops what goes to UDP port %d", port), evidenceOf(stop, packets), "let it out: "+x.Firewall.letThrough(stop, port))
	}
	c := x.configured(t, p)
	switch {
	case p.Silent() && !explained:
		x.silent(where, t, p, c)
	case p.Silent():
	case p.Endpoint == "" && c != nil && len(c.Endpoints) > 0:
		// Its name cannot be looked up, which is a finding of its own, or not yet.
	case p.Endpoint == "":
		x.add(Note, "waits", where, "it has no endpoint here, so it has to call first, and has not", "", "have it call: it needs this end's address as its endpoint, and keepalive")
	case p.LatestHandshake.IsZero():
		x.add(Note, "idle", where, "nothing was sent to it yet, so there is no session", "", "send something, as a ping to one of its allowed_ips, or set keepalive")
	}
}

// silent is a peer that does not answer, nobody at this end knows why.
func (x *examination) silent(where string, t *control.Tunnel, p *control.Peer, c *ConfiguredPeer) {
	evidence := fmt.Sprintf("%d handshakes without an answer; %d datagrams sent, %d received", p.HandshakeAttempts, p.SentPackets, p.ReceivedPackets)
	do := "at the far end: does it run, is UDP port " + portOf(p.Endpoint) + " let in, is this tunnel's public key " + t.PublicKey + " among its peers, and its own the one named here? culvert doctor there sees more"
	if x.Unsynced {
		do += "; this machine's clock may be behind what the far end saw before: set it"
	}
	if c != nil && !c.TCP {
		do += "; where a network on the way blocks UDP, set tcp at both ends"
	}
	x.add(Error, "silent", where, "it does not answer at "+terminal.Safe(p.Endpoint), evidence, do)
}

// calls reports whether somebody without a key known here calls from where the peer is to be.
func calls(r *control.Refusal, p *control.Peer) bool {
	return r.Reason == "in: unknown peer" && r.From != "" && r.From == p.Endpoint
}

func portOf(endpoint string) string {
	if ap, err := netip.ParseAddrPort(endpoint); err == nil {
		return strconv.Itoa(int(ap.Port()))
	}
	return "?"
}

// baseMTU is the UDP payload in an underlay of 1280 bytes: the least there is.
const baseMTU = 1232

func (x *examination) reachedPeer(where string, t *control.Tunnel, p *control.Peer) {
	if p.TCP {
		x.add(Note, "tcp", where, "it is reached over TCP, since UDP does not get through", terminal.Safe(p.Endpoint), "let UDP through on the way: it is faster")
	}
	if n := p.Native; n != nil && !p.TCP {
		if n.PathSettled && n.PathMTU <= baseMTU {
			x.add(Warning, "mtu", where, "the path takes only the smallest packets there are", fmt.Sprintf("%d bytes of UDP, after a search", n.PathMTU),
				"something on the way drops larger datagrams: look at MTUs, and at tunnels and PPP under it")
		}
		if n.Loss != nil && *n.Loss >= 0.05 {
			x.add(Warning, "loss", where, "packets are lost on the way to it", fmt.Sprintf("%.1f %%", 100**n.Loss), "look for an overloaded link or bad radio on the way; what is lost is lost outside of this machine")
		}
	}
	c := x.configured(t, p)
	ap, err := netip.ParseAddrPort(p.Endpoint)
	src, srcErr := netip.ParseAddr(p.Source)
	if err == nil && srcErr == nil && c != nil && len(c.Endpoints) > 0 && p.Keepalive == 0 && src.IsPrivate() && !ap.Addr().Unmap().IsPrivate() {
		x.add(Warning, "nat", where, "this end is behind a NAT, which forgets it when nothing is sent; then the peer cannot call",
			fmt.Sprintf("from %v to %v, no keepalive", src, ap.Addr()), "keepalive: 25s at this peer, unless only this end ever begins")
	}
}

func (x *examination) refused(t *control.Tunnel, r *control.Refusal) {
	if x.Now.Sub(r.Last) > 10*time.Minute {
		return
	}
	where := t.Interface
	for i := range t.Peers {
		if t.Peers[i].PublicKey == r.Peer {
			if t.Peers[i].LatestHandshake.After(r.Last) {
				return // it has got through since
			}
			where = nameOf(t, &t.Peers[i])
		}
	}
	evidence := fmt.Sprintf("%d times, the last from %s %s ago", r.Count, terminal.Safe(r.From), max(0, x.Now.Sub(r.Last)).Truncate(time.Second))
	switch {
	case r.Reason == "in: handshake failed" && r.Answer:
		x.add(Error, "preshared-key", where, "it answers, and its answer does not fit: the preshared keys differ", evidence, "give both ends the same preshared key, or neither one")
	case r.Reason == "in: unknown peer" && slices.ContainsFunc(t.Peers, func(p control.Peer) bool { return calls(r, &p) && !inContact(&p) }):
		x.add(Error, "peer-key", where, "the peer at "+terminal.Safe(r.From)+" has another public key than the one named here", "it calls with "+r.Peer.Base64()+", "+evidence, "compare with culvert status at the far end, and set public_key here")
	case r.Reason == "in: unknown peer":
		x.add(Warning, "unknown-peer", where, "somebody calls whose key is no peer's here", "public key "+r.Peer.Base64()+", "+evidence, "add it as a peer if you know it; if not, nothing is answered and nothing is to be done")
	case r.Reason == "in: handshake of another wire":
		x.add(Error, "wire", where, "it speaks the other wire", evidence, "give it the same wire at both ends: wire: wireguard here, or leave it out at both")
	case r.Reason == "in: old or hurried initiation" && r.Behind > 0:
		x.add(Error, "clock", where, "its clock has been set back, and what it sends is taken for a repetition", fmt.Sprintf("%s behind; %s", time.Duration(r.Behind*float64(time.Second)).Round(time.Second), evidence),
			"set its clock; or remove the peer here, reload, and add it again")
	case r.Reason == "in: peer shut out":
		x.add(Note, "shut-out", where, "it calls, and its access does not let it have a session", evidence, "")
	}
}

func (x *examination) overlaps() {
	all := slices.Clone(x.Others)
	for i := range x.Second.Tunnels {
		t := &x.Second.Tunnels[i]
		p := Prefixes{Instance: x.Name, Tunnel: t.Interface}
		for j := range t.Peers {
			p.List = append(p.List, t.Peers[j].AllowedIPs...)
		}
		all = append(all, p)
	}
	owners := make(map[netip.Prefix]*Prefixes)
	for i := range all {
		for _, prefix := range all[i].List {
			first, taken := owners[prefix]
			switch {
			case !taken:
				owners[prefix] = &all[i]
			case (first.Instance != all[i].Instance || first.Tunnel != all[i].Tunnel) && (first.Instance == x.Name || all[i].Instance == x.Name):
				x.add(Warning, "overlap", "", fmt.Sprintf("two tunnels have %v in allowed_ips; the kernel sends it into one of them", prefix),
					fmt.Sprintf("%s of %s, %s of %s", first.Tunnel, first.Instance, all[i].Tunnel, all[i].Instance), "take it away from one")
			}
		}
	}
}
