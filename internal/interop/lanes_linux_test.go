package interop

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"culvert/internal/lab"
)

// flows has several TCP connections at once carry bytes from a to b.
func flows(t *testing.T, a, b *lab.Host, to netip.Addr, count, size int) {
	t.Helper()
	var all sync.WaitGroup
	for range count {
		all.Go(func() { transfer(t, a, b, to, size) })
	}
	all.Wait()
}

// Two ends of four queues: flows are spread over lanes, each of which has ports of its own, and several of them carry traffic each
// way.
func TestLanes(t *testing.T) {
	t.Parallel()
	forFamilies(t, func(t *testing.T, outer family) {
		hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
		wire := lab.Link(t, hostA, hostB)
		a, b := newNatives(t, hostA, hostB, outer.of(wire.B))
		for _, u := range []*upSide{a, b} {
			u.extra = "    queues: 4\n"
		}
		beforeA, beforeB := surroundings(t, hostA), surroundings(t, hostB)
		a.up()
		b.up()
		a.reaches(innerB.v4)
		ends := [][2]*upSide{{a, b}, {b, a}}
		lab.Eventually(t, patience, "the lanes are open", func() bool {
			a.pings(innerB.v6)
			for _, e := range ends {
				for _, l := range e[0].lanes(t, e[1]) {
					if !l.Open {
						return false
					}
				}
			}
			return true
		})
		const much = 1 << 20
		busy := func(e [2]*upSide) (sent, received int) {
			for _, l := range e[0].lanes(t, e[1]) {
				if l.SentBytes > much {
					sent++
				}
				if l.ReceivedBytes > much {
					received++
				}
			}
			return sent, received
		}
		rounds := 0
		for spread := 0; spread < 2; rounds++ { // the kernel hashes ports that it picks at random
			if rounds == 20 {
				t.Fatalf("not spread: %+v, %+v", a.lanes(t, b), b.lanes(t, a))
			}
			flows(t, hostA, hostB, innerB.v4, 4, 2<<20)
			flows(t, hostB, hostA, innerA.v6, 4, 2<<20)
			spread = 0
			for _, e := range ends {
				if sent, received := busy(e); sent >= 3 && received >= 3 {
					spread++
				}
			}
		}
		endpoints := map[string]bool{}
		for _, e := range ends {
			lanes := e[0].lanes(t, e[1])
			if len(lanes) != 4 {
				t.Fatalf("%d lanes", len(lanes))
			}
			for i, l := range lanes {
				endpoints[l.Endpoint] = true
				if text := e[0].mustRun("status", e[0].name()); !strings.Contains(text, fmt.Sprintf("  lane %d: ", i)) {
					t.Errorf("culvert status lacks lane %d:\n%s", i, text)
				}
			}
		}
		// From a, which called, all go to b's port; back, to one of a's each.
		if len(endpoints) != 1+4 {
			t.Errorf("lanes lead to %v", endpoints)
		}
		for _, e := range ends {
			for _, reason := range []string{"in: replayed", "in: authentication failed"} {
				if n, counted := e[0].drops(t, reason); counted && n > 0 {
					t.Errorf("%s dropped %d: %s", e[0].host.Name, n, reason)
				}
			}
		}
		a.down(beforeA)
		b.down(beforeB)
	})
}

// laneStatus is what `culvert status --json` tells of a lane.
type laneStatus struct {
	Number        int    `json:"number"`
	Open          bool   `json:"open"`
	Endpoint      string `json:"endpoint"`
	SentBytes     uint64 `json:"sent_bytes"`
	ReceivedBytes uint64 `json:"received_bytes"`
}

// lanes returns the lanes to the other end; there must be several.
func (u *upSide) lanes(t *testing.T, other *upSide) []laneStatus {
	t.Helper()
	n := u.statusOf(t, other.side).Native
	if n == nil || len(n.Lanes) < 2 {
		t.Fatalf("%s has no lanes: %+v", u.host.Name, n)
	}
	return n.Lanes
}

// One end has four queues, the other one: there is one lane, and everything passes.
func TestQueuesOfOneEnd(t *testing.T) {
	t.Parallel()
	hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	wire := lab.Link(t, hostA, hostB)
	a, b := newNatives(t, hostA, hostB, wire.B.V4.Addr())
	a.extra, b.extra = "    queues: 4\n", "    queues: 1\n"
	a.up()
	b.up()
	a.reaches(innerB.v4)
	flows(t, hostA, hostB, innerB.v4, 4, 2<<20)
	flows(t, hostB, hostA, innerA.v6, 4, 2<<20)
	for _, e := range [][2]*upSide{{a, b}, {b, a}} {
		if n := e[0].statusOf(t, e[1].side).Native; n == nil || n.Lanes != nil {
			t.Errorf("%s: %+v", e[0].host.Name, n)
		}
	}
}

// Somebody else's WireGuard over four queues, called and calling.
func TestQueuesWithWireGuard(t *testing.T) {
	t.Parallel()
	for _, calls := range []bool{true, false} {
		t.Run(fmt.Sprint("calls ", calls), func(t *testing.T) {
			t.Parallel()
			hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			wire := lab.Link(t, hostA, hostB)
			a, b := newUp(t, hostA, portA, innerA, "office.yaml"), newSide(t, wireguardGo, hostB, portB)
			innerB.addTo(b)
			a.extra = "    queues: 4\n"
			a.peers = []*peer{{publicKey: b.publicKey, allowed: innerB.allowed(), wire: "wireguard"}}
			to := netip.AddrPort{}
			if calls {
				a.peers[0].endpoint = netip.AddrPortFrom(wire.B.V4.Addr(), portB)
			} else {
				to = netip.AddrPortFrom(wire.A.V4.Addr(), portA)
			}
			b.addPeer(a.side, to, innerA.allowed()...)
			a.up()
			if calls {
				a.reaches(innerB.v4)
			} else {
				b.reaches(innerA.v4)
			}
			flows(t, hostA, hostB, innerB.v4, 4, 2<<20)
			flows(t, hostB, hostA, innerA.v6, 4, 2<<20)
			if seen := a.statusOf(t, b); seen.Wire != "wireguard" {
				t.Errorf("%+v", seen)
			}
		})
	}
}
