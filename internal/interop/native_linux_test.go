package interop

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// newNatives makes two ends from files, on one underlay, with each other as peers on the native wire. Only a knows where b is.
// Nothing is started yet.
func newNatives(t *testing.T, hostA, hostB *lab.Host, endpoint netip.Addr) (a, b *upSide) {
	t.Helper()
	a, b = newUp(t, hostA, portA, innerA, "office.yaml"), newUp(t, hostB, portB, innerB, "branch.yaml")
	a.peers = []*peer{{publicKey: b.publicKey, endpoint: netip.AddrPortFrom(endpoint, portB), allowed: innerB.allowed(), wire: "culvert"}}
	b.peers = []*peer{{publicKey: a.publicKey, allowed: innerA.allowed(), wire: "culvert"}}
	return a, b
}

// Two ends on the native wire, and what status tells of it.
func TestNativeWire(t *testing.T) {
	t.Parallel()
	forFamilies(t, func(t *testing.T, outer family) {
		hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
		wire := lab.Link(t, hostA, hostB)
		a, b := newNatives(t, hostA, hostB, outer.of(wire.B))
		beforeA, beforeB := surroundings(t, hostA), surroundings(t, hostB)
		a.up()
		b.up()
		a.reaches(innerB.v4)
		a.pings(innerB.v6)
		b.pings(innerA.v4)
		transfer(t, hostA, hostB, innerB.v6, 4<<20)
		for _, ends := range [][2]*upSide{{a, b}, {b, a}} {
			const mtu = 1500 - 84
			var seen peerStatus
			lab.Eventually(t, patience, "the path is known and measured", func() bool {
				ends[0].pings(ends[1].address())
				seen = ends[0].statusOf(t, ends[1].side)
				n := seen.Native
				return n != nil && n.PathSettled && n.InnerMTU == mtu && n.RTT > 0 && n.Agent != ""
			})
			if n := seen.Native; seen.Wire != "culvert" || !seen.PostQuantum || seen.Suite == "" || n.PathMTU != mtu+33 || n.InnerMTU != mtu ||
				!strings.HasPrefix(n.Agent, "culvert") {
				t.Errorf("%s tells %+v, %+v", ends[0].host.Name, seen, *n)
			}
			text := ends[0].mustRun("status", ends[0].name())
			for _, want := range []string{
				"  name: peer0\n", "  wire: culvert (X25519 + ML-KEM-768, " + seen.Suite + ")\n", "  path mtu: 1449 bytes of UDP, 1416 in the tunnel\n",
				"  round trip: ", "  peer's program: \"culvert",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("culvert status lacks %q:\n%s", want, text)
				}
			}
			if got := ends[0].culvertStatus(t).MTU; got != mtu {
				t.Errorf("the MTU of %s is %d, want %d", ends[0].host.Name, got, mtu)
			}
		}
		a.down(beforeA)
		b.down(beforeB)
	})
}

// address is the end's own, within the tunnel.
func (u *upSide) address() netip.Addr { return netip.MustParsePrefix(u.addresses[0]).Addr() }

// One tunnel holds peers on both wires, and one of them goes from the one to the other and back while a session with the other
// peer goes on.
func TestWiresSideBySide(t *testing.T) {
	t.Parallel()
	hostA, hostB, hostC := lab.NewHost(t, "a"), lab.NewHost(t, "b"), lab.NewHost(t, "c")
	wireB, wireC := lab.Link(t, hostA, hostB), lab.Link(t, hostA, hostC)
	a, b := newNatives(t, hostA, hostB, wireB.B.V4.Addr())
	c := newSide(t, wireguardGo, hostC, portB)
	innerC := inner{netip.MustParseAddr("10.9.0.3"), netip.MustParseAddr("fd09::3")}
	innerC.addTo(c)
	c.addPeer(a.side, netip.AddrPort{}, innerA.allowed()...)
	a.peers = append(a.peers, &peer{
		publicKey: c.publicKey, endpoint: netip.AddrPortFrom(wireC.B.V4.Addr(), portB), allowed: innerC.allowed(), wire: "wireguard",
	})
	a.up()
	b.up()
	a.reaches(innerC.v4)
	session := a.of(c)
	for round, wire := range []string{"culvert", "wireguard", "culvert"} {
		if round > 0 {
			a.peers[0].wire, b.peers[0].wire = wire, wire
			for _, u := range []*upSide{b, a} {
				u.write()
				u.mustRun("reload", u.name())
			}
		}
		a.reaches(innerB.v4)
		b.pings(innerA.v6)
		if seen := a.statusOf(t, b.side); seen.Wire != wire || seen.PostQuantum != (wire == "culvert") || (seen.Native != nil) != seen.PostQuantum {
			t.Errorf("round %d, on the %s wire: %+v", round, wire, seen)
		}
		transfer(t, hostA, hostB, innerB.v4, 1<<20)
		transfer(t, hostA, hostC, innerC.v6, 1<<20)
		a.pings(innerC.v4)
		if after := a.of(c); after.handshake != session.handshake {
			t.Errorf("round %d: the session with c was made at %d, before the reload at %d", round, after.handshake, session.handshake)
		}
	}
}

// Ends that name different wires have no session; who is called says why, and nothing to the caller.
func TestWireMismatch(t *testing.T) {
	t.Parallel()
	for _, callers := range []string{"culvert", "wireguard"} {
		t.Run(callers, func(t *testing.T) {
			t.Parallel()
			hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			wire := lab.Link(t, hostA, hostB)
			a, b := newNatives(t, hostA, hostB, wire.B.V4.Addr())
			a.peers[0].wire = callers
			if callers == "culvert" {
				b.peers[0].wire = "wireguard"
			}
			b.up()
			a.up()
			lab.Eventually(t, patience, "b counts the handshake of another wire, more than once", func() bool {
				if hostA.Ping(innerB.v4) == nil {
					t.Fatal("a ping was answered")
				}
				dropped, _ := b.drops(t, "in: handshake of another wire")
				return dropped >= 2
			})
			if sent := b.culvertStatus(t).Transport.SentDatagrams; sent != 0 {
				t.Errorf("the called end sent %d datagrams", sent)
			}
			for _, u := range []*upSide{a, b} {
				if seen := u.culvertStatus(t); !seen.Peers[0].LatestHandshake.IsZero() {
					t.Errorf("%s tells of a handshake: %+v", u.host.Name, seen)
				}
			}
			t.Logf("b's drops: %v", b.culvertStatus(t).Drops)
		})
	}
}

// mutePath joins two hosts by two routers that tell nobody of what is too large for the wire between them. It returns b's
// end and that wire.
func mutePath(t *testing.T, a, b *lab.Host) (far lab.End, middle lab.Wire) {
	t.Helper()
	lab.NeedProgram(t, "nft")
	r, s := lab.NewHost(t, "r"), lab.NewHost(t, "s")
	wireA, middle, wireB := lab.Link(t, a, r), lab.Link(t, r, s), lab.Link(t, s, b)
	for _, router := range []*lab.Host{r, s} {
		router.Forward()
		router.Shell("nft", "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; "+
			"add rule inet mute out icmp type destination-unreachable drop; add rule inet mute out icmpv6 type packet-too-big drop")
	}
	for _, way := range []struct {
		host *lab.Host
		via  lab.End
	}{{a, wireA.B}, {r, middle.B}, {s, middle.A}, {b, wireB.A}} {
		way.host.AddRoute("default4", way.via.V4.Addr().String(), "")
		way.host.AddRoute("default6", way.via.V6.Addr().String(), "")
	}
	for _, to := range []netip.Addr{wireB.B.V4.Addr(), wireB.B.V6.Addr()} {
		lab.Eventually(t, patience, "the routers forward", func() bool { return a.Ping(to) == nil })
	}
	return wireB.B, middle
}

// shrink has the wire between the routers take no more than 1280 bytes, and looks that this makes a black hole of the path from a.
func shrink(t *testing.T, middle lab.Wire, a *lab.Host, far lab.End) {
	t.Helper()
	for _, end := range []lab.End{middle.A, middle.B} {
		end.Host.SetMTU(end.Device, 1280)
	}
	for _, to := range []netip.Addr{far.V4.Addr(), far.V6.Addr()} {
		out, code := output(t, a, a.Command(t.Context(), "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", "1400", to.String()))
		if code == 0 || strings.Contains(out, "mtu") || strings.Contains(out, "needed") {
			t.Fatalf("this is no black hole: a ping of 1400 bytes ended with %d:\n%s", code, out)
		}
	}
}

// largestThrough is the most bytes of UDP that go through 1280 bytes of an IP version.
func (f family) largestThrough() int {
	if f == ipv4 {
		return 1280 - 20 - 8
	}
	return 1280 - 40 - 8
}

// settles waits until both ends, which send packets as large as their interface takes, have found out that the path takes at
// least least and at most largest bytes of UDP.
func settles(t *testing.T, a, b *upSide, least, largest int) {
	t.Helper()
	for _, ends := range [][2]*upSide{{a, b}, {b, a}} {
		from, to := ends[0], ends[1]
		lab.Eventually(t, patience, fmt.Sprintf("%s knows that the path takes %d to %d bytes", from.host.Name, least, largest), func() bool {
			size := from.culvertStatus(t).MTU - 28
			// With probe it goes out whole whatever the kernel has been told of the path in the tunnel. Whether it is answered is no matter.
			output(t, from.host, from.host.Command(t.Context(), "ping", "-n", "-c", "1", "-W", "1", "-M", "probe", "-s", strconv.Itoa(size),
				to.address().String()))
			n := from.statusOf(t, to.side).Native
			return n.PathSettled && n.PathMTU >= least && n.PathMTU <= largest
		})
	}
}

// whole pings with packets that may be cut on the way, so that nobody complains of their size, and waits for the one reply.
func (s *side) whole(to netip.Addr, size int) {
	s.t.Helper()
	out, code := output(s.t, s.host, s.host.Command(s.t.Context(), "ping", "-n", "-c", "1", "-M", "dont", "-s", strconv.Itoa(size),
		"-W", strconv.Itoa(int(patience.Seconds())), to.String()))
	if code != 0 {
		s.t.Errorf("%s: ping of %d bytes ended with %d:\n%s", s.host.Name, size, code, out)
	}
}

// A path that swallows what is too large, and the usual MTU in the tunnel: everything passes, both ways.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	forFamilies(t, func(t *testing.T, outer family) {
		hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
		a, b := newNatives(t, hostA, hostB, netip.Addr{})
		far, middle := mutePath(t, hostA, hostB)
		shrink(t, middle, hostA, far)
		a.peers[0].endpoint = netip.AddrPortFrom(outer.of(far), portB)
		const mtu = 1420
		a.extra, b.extra = fmt.Sprintf("    mtu: %d\n", mtu), fmt.Sprintf("    mtu: %d\n", mtu)
		a.up()
		b.up()
		a.reaches(innerB.v4)
		ways := []struct {
			from *upSide
			to   inner
		}{{a, innerB}, {b, innerA}}
		for _, way := range ways { // in fragments of the tunnel: neither kernel knows of a smaller MTU yet
			way.from.whole(way.to.v4, mtu-28)
		}
		for _, to := range []netip.Addr{innerB.v4, innerB.v6} {
			transfer(t, hostA, hostB, to, 4<<20) // the path may still be searched
		}
		settles(t, a, b, 1232, outer.largestThrough())
		for _, to := range []netip.Addr{innerB.v4, innerB.v6} {
			transfer(t, hostA, hostB, to, 4<<20)
		}
		for _, way := range ways {
			for _, size := range []int{1200, mtu - 48, mtu - 28, 4000, 20000} {
				way.from.whole(way.to.v4, size)
				// IPv6 has nobody cut its packets but their senders, who are told.
				lab.Eventually(t, patience, "a ping over IPv6", func() bool { return way.from.host.PingSize(way.to.v6, size) == nil })
			}
			for reason, count := range way.from.culvertStatus(t).Drops {
				if strings.HasPrefix(reason, "in: ") {
					t.Errorf("%s dropped %d: %s", way.from.host.Name, count, reason)
				}
			}
		}
	})
}

// A path that comes to swallow what it took before, without a word, holds traffic up but does not stop it.
func TestPathBecomesBlackHole(t *testing.T) {
	t.Parallel()
	forFamilies(t, func(t *testing.T, outer family) {
		hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
		a, b := newNatives(t, hostA, hostB, netip.Addr{})
		far, middle := mutePath(t, hostA, hostB)
		a.peers[0].endpoint = netip.AddrPortFrom(outer.of(far), portB)
		a.up()
		b.up()
		a.reaches(innerB.v4)
		const full = 1416 + 33
		settles(t, a, b, full, full)
		transfer(t, hostA, hostB, innerB.v4, 1<<20)
		shrink(t, middle, hostA, far)
		transfer(t, hostA, hostB, innerB.v4, 4<<20)
		settles(t, a, b, 1232, outer.largestThrough())
		transfer(t, hostA, hostB, innerB.v6, 1<<20)
	})
}
