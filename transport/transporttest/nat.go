package transporttest

import (
	"net/netip"
	"slices"
	"time"
)

// firstPublicPort is where a NAT starts to hand out ports.
const firstPublicPort = 20001

// NAT translates the addresses of the hosts behind it: one public port for each of their addresses and ports, wherever
// they send to (endpoint-independent mapping, RFC 4787), and only answers let in from the addresses and ports they
// have sent to (address and port-dependent filtering: "port-restricted cone").
type NAT struct {
	network *Network
	public  []netip.Addr
	inside  realm
	timeout time.Duration
	next    uint16
	// mappings by their inside and by their public address and port.
	out map[netip.AddrPort]*mapping
	in  map[netip.AddrPort]*mapping
}

// mapping is one inside address and port and its public one.
type mapping struct {
	inside, public netip.AddrPort
	sent           map[netip.AddrPort]time.Duration // when something was last sent to a remote
	last           time.Duration                    // the latest of these
}

// NAT adds a NAT with public addresses, at most one of either family; it translates no family it has no address
// of. Mappings live for timeout after the last datagram sent out through them, for ever where it is 0. What comes
// in does not keep them alive: that is all a host may rely on (RFC 4787, REQ-6).
func (n *Network) NAT(timeout time.Duration, public ...netip.Addr) *NAT {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &NAT{network: n, inside: realm{}, timeout: timeout, next: firstPublicPort}
	t.forget()
	t.public = slices.Clone(public)
	n.realm.claim(t, t.public)
	return t
}

// Host adds a host behind the NAT.
func (t *NAT) Host(addrs ...netip.Addr) *Host {
	return t.network.addHost(t, addrs)
}

// Rebind forgets all mappings. What is sent next gets new public ports; what comes to the old ones is dropped.
func (t *NAT) Rebind() {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	t.forget()
}

// SetPublic changes the public addresses, and with them all mappings.
func (t *NAT) SetPublic(public ...netip.Addr) {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	t.network.realm.drop(t.public)
	t.public = slices.Clone(public)
	t.network.realm.claim(t, t.public)
	t.forget()
}

func (t *NAT) forget() {
	t.out, t.in = map[netip.AddrPort]*mapping{}, map[netip.AddrPort]*mapping{}
}

// alive tells whether a remote may answer through m.
func (t *NAT) alive(m *mapping, remote netip.AddrPort) bool {
	last, ok := m.sent[remote]
	return ok && !t.expired(last)
}

// outward translates d on its way out; false where the NAT has no address of the family.
func (t *NAT) outward(d *datagram) bool {
	m := t.out[d.from]
	if m != nil && t.expired(m.last) {
		delete(t.out, m.inside)
		delete(t.in, m.public)
		m = nil
	}
	if m == nil {
		public, ok := pickFamily(t.public, d.to.Addr())
		if !ok {
			return false
		}
		m = &mapping{
			inside: d.from,
			public: netip.AddrPortFrom(public, t.next),
			sent:   map[netip.AddrPort]time.Duration{},
		}
		if t.next++; t.next == 0 {
			t.next = firstPublicPort
		}
		if old := t.in[m.public]; old != nil { // after 45,000 mappings the oldest give way
			delete(t.out, old.inside)
		}
		t.out[m.inside], t.in[m.public] = m, m
	}
	m.last = t.network.now()
	m.sent[d.to] = m.last
	d.from = m.public
	return true
}

func (t *NAT) expired(last time.Duration) bool {
	return t.timeout != 0 && t.network.now()-last >= t.timeout
}

// inward translates d on its way in; false where it is not let in.
func (t *NAT) inward(d *datagram) bool {
	m := t.in[d.to]
	if m == nil || !t.alive(m, d.from) {
		return false
	}
	d.to = m.inside
	return true
}

// claim makes addresses belong to who. That somebody has one already is a mistake in the test.
func (r realm) claim(who node, addrs []netip.Addr) {
	for _, a := range addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			panic("transporttest: unusable address " + a.String())
		}
		if r[a] != nil {
			panic("transporttest: address " + a.String() + " is taken")
		}
		r[a] = who
	}
}

func (r realm) drop(addrs []netip.Addr) {
	for _, a := range addrs {
		delete(r, a)
	}
}

// pickFamily returns the first address of the same family as like.
func pickFamily(addrs []netip.Addr, like netip.Addr) (netip.Addr, bool) {
	for _, a := range addrs {
		if a.Is4() == like.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// target is the number of the host that to leads to now, which decides the link a datagram takes.
func (n *Network) target(r realm, to netip.AddrPort) int {
	switch who := r[to.Addr()].(type) {
	case *Host:
		return who.number
	case *NAT:
		if m := who.in[to]; m != nil {
			return n.target(who.inside, m.inside)
		}
	}
	return nobody
}

// arrive hands d to whoever has its address now.
func (n *Network) arrive(d *datagram, r realm) {
	switch who := r[d.to.Addr()].(type) {
	case *Host:
		who.receive(d)
	case *NAT:
		if !who.inward(d) {
			n.counters.Filtered++
			n.release(d)
			return
		}
		n.arrive(d, who.inside)
	default:
		n.counters.NoHost++
		n.release(d)
	}
}
