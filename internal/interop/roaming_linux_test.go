package interop

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// The initiator's address changes; the responder follows it with the first authentic packet from the new one.
func TestRoamingAddress(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		forFamilies(t, func(t *testing.T, outer family) {
			a, b, wire := newTunnel(t, p, outer)
			a.reaches(innerB.v4)
			before := wire.A.V4
			if outer == ipv6 {
				before = wire.A.V6
			}
			after := netip.PrefixFrom(before.Addr().Next().Next(), before.Bits()) // b's own address lies between
			a.host.DelAddr(wire.A.Device, before.String())
			a.host.AddAddr(wire.A.Device, after.String())
			a.reaches(innerB.v4)
			if got, want := b.of(a).endpoint, netip.AddrPortFrom(after.Addr(), portA); got != want {
				t.Errorf("the responder has the endpoint %v, want %v", got, want)
			}
			b.pings(innerA.v4)
		})
	})
}

// A responder that roams is followed as well: what it sends moves the initiator's endpoint away from the configured one.
func TestRoamingResponder(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		forFamilies(t, func(t *testing.T, outer family) {
			a, b, wire := newTunnel(t, p, outer)
			a.reaches(innerB.v6)
			before := wire.B.V4
			if outer == ipv6 {
				before = wire.B.V6
			}
			after := netip.PrefixFrom(before.Addr().Next(), before.Bits())
			b.host.DelAddr(wire.B.Device, before.String())
			b.host.AddAddr(wire.B.Device, after.String())
			b.reaches(innerA.v6)
			if got, want := a.of(b).endpoint, netip.AddrPortFrom(after.Addr(), portB); got != want {
				t.Errorf("the initiator has the endpoint %v, want %v", got, want)
			}
			a.pings(innerB.v6)
		})
	})
}

// natTunnel is a tunnel whose initiator sits behind a router that masquerades.
type natTunnel struct {
	a, b    *side
	router  *lab.Host
	outside lab.Wire // router to b
}

func newNATTunnel(t *testing.T, p pair, outer family) natTunnel {
	t.Helper()
	lab.NeedNAT(t)
	inside, router, outside := lab.NewHost(t, "a"), lab.NewHost(t, "router"), lab.NewHost(t, "b")
	first, second := lab.Link(t, inside, router), lab.Link(t, router, outside)
	inside.AddRoute("default4", first.B.V4.Addr().String(), "")
	inside.AddRoute("default6", first.B.V6.Addr().String(), "")
	router.Masquerade(second.A.Device)
	n := natTunnel{
		a:       newSide(t, p.initiator, inside, portA),
		b:       newSide(t, p.responder, outside, portB),
		router:  router,
		outside: second,
	}
	join(n.a, n.b, netip.AddrPortFrom(outer.of(second.B), portB))
	return n
}

// flows counts the UDP mappings that the router has.
func (n natTunnel) flows(t *testing.T) int {
	t.Helper()
	var table []byte
	n.router.Must(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/nf_conntrack")
		return err
	})
	return strings.Count(string(table), " udp ")
}

// The router forgets the mapping and chooses another port, as NATs do when they restart.
func TestRoamingNATPort(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		forFamilies(t, func(t *testing.T, outer family) {
			n := newNATTunnel(t, p, outer)
			n.a.reaches(innerB.v4)
			before := n.b.of(n.a).endpoint
			if before.Addr() != outer.of(n.outside.A) || before.Port() == portA {
				t.Fatalf("the responder has the endpoint %v, want the router's %v and a port it mapped to", before, outer.of(n.outside.A))
			}
			n.router.ForgetFlows()
			n.a.reaches(innerB.v4)
			after := n.b.of(n.a).endpoint
			if after.Addr() != before.Addr() || after.Port() == before.Port() {
				t.Errorf("the responder has the endpoint %v, want another port than in %v", after, before)
			}
			n.b.pings(innerA.v4)
		})
	})
}

// Persistent keepalives hold a NAT's mapping open, and without them it closes.
func TestKeepaliveThroughNAT(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		n := newNATTunnel(t, p, ipv4)
		n.router.Sysctl("net/netfilter/nf_conntrack_udp_timeout", "3")
		n.router.Sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "3")
		n.a.peers[0].keepalive = 1
		n.a.apply()
		// The keepalive makes the handshake; nothing is sent through the tunnel. Seven keepalives take more than twice as long as a
		// mapping lives.
		lab.Eventually(t, patience, "seven keepalives of 32 bytes after the handshake", func() bool {
			return n.b.of(n.a).received >= 148+7*32
		})
		n.b.pings(innerA.v4)

		n.a.peers[0].keepalive = 0
		n.a.apply()
		lab.Eventually(t, patience, "the mapping closes", func() bool { return n.flows(t) == 0 })
		if err := n.b.host.Ping(innerA.v4); err == nil {
			t.Error("the host inside is reachable without a mapping: the test proves nothing")
		}
	})
}

// The configured endpoint changes between families, back and forth, with no restart in between.
func TestEndpointSwitchesFamily(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		a, b, wire := newTunnel(t, p, ipv4)
		for _, outer := range []family{ipv4, ipv6, ipv4, ipv6} {
			there, here := netip.AddrPortFrom(outer.of(wire.B), portB), netip.AddrPortFrom(outer.of(wire.A), portA)
			a.moveEndpoint(there)
			if !p.initiator.mixesFamilies && !p.responder.mixesFamilies {
				a.pings(innerB.v4)
			}
			// A keepalive from before the change that comes late moves the endpoint back: hence the retries.
			lab.Eventually(t, patience, fmt.Sprintf("both ends use %v", outer), func() bool {
				if a.of(b).endpoint != there {
					a.moveEndpoint(there)
				}
				return a.host.Ping(innerB.v4) == nil && a.of(b).endpoint == there && b.of(a).endpoint == here
			})
			b.reaches(innerA.v6)
		}
	})
}

// A host with several addresses answers from the one it was spoken to.
func TestSourceAddressSticks(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		if p.responder.wandering {
			return // nothing to see: it answers from whatever address the routing table prefers
		}
		forFamilies(t, func(t *testing.T, outer family) {
			hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			wire := lab.Link(t, hostA, hostB)
			first, second := outer.of(wire.B), outer.of(wire.B).Next()
			loopback, bits, whole := netip.MustParseAddr("10.250.0.1"), "/24", "/32"
			if outer == ipv6 {
				loopback, bits, whole = netip.MustParseAddr("fd25::1"), "/64", "/128"
			}
			hostB.AddAddr(wire.B.Device, second.String()+bits)
			hostB.AddAddr("lo", loopback.String()+whole)
			hostA.AddRoute(loopback.String()+whole, first.String(), wire.A.Device)
			a, b := newSide(t, p.initiator, hostA, portA), newSide(t, p.responder, hostB, portB)
			join(a, b, netip.AddrPortFrom(first, portB))
			for _, address := range []netip.Addr{second, loopback, first, loopback, second} {
				// An answer from another address moves the endpoint away, as does a keepalive of before that comes late: hence the retries.
				lab.Eventually(t, patience, fmt.Sprintf("b is spoken to at %v and answers from there", address), func() bool {
					a.moveEndpoint(netip.AddrPortFrom(address, portB))
					return a.host.Ping(innerB.v4) == nil && b.host.Ping(innerA.v4) == nil && a.of(b).endpoint == a.peers[0].endpoint
				})
			}
		})
	})
}

// A route to the other end changes to another interface: the source address that was right on the first one is given up.
func TestSourceAddressFollowsRoute(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		if p.responder.wandering {
			return // its answers move the initiator's endpoint to an address with another route
		}
		forFamilies(t, func(t *testing.T, outer family) {
			if p.initiator.name == kernel.name && outer == ipv6 {
				return // it keeps an IPv6 source for as long as the host has that address
			}
			hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			wires := []lab.Wire{lab.Link(t, hostA, hostB), lab.Link(t, hostA, hostB)}
			far, whole := netip.MustParseAddr("10.250.0.1"), "/32"
			if outer == ipv6 {
				far, whole = netip.MustParseAddr("fd25::1"), "/128"
			}
			hostB.AddAddr("lo", far.String()+whole)
			a, b := newSide(t, p.initiator, hostA, portA), newSide(t, p.responder, hostB, portB)
			join(a, b, netip.AddrPortFrom(far, portB))
			for i, wire := range append(wires, wires[0]) {
				a.host.AddRoute(far.String()+whole, outer.of(wire.B).String(), wire.A.Device)
				a.reaches(innerB.v4)
				lab.Eventually(t, patience, fmt.Sprintf("a speaks from its address on wire %d", i), func() bool {
					if a.of(b).endpoint.Addr() != far {
						a.moveEndpoint(netip.AddrPortFrom(far, portB)) // after a pause b may have begun a handshake of its own, from anywhere
					}
					return a.host.Ping(innerB.v4) == nil && b.of(a).endpoint == netip.AddrPortFrom(outer.of(wire.A), portA)
				})
				b.reaches(innerA.v6)
				a.host.DelRoute(far.String()+whole, outer.of(wire.B).String(), wire.A.Device)
			}
		})
	})
}
