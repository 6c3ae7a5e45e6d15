package tunnel

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
)

// newLanedPair makes two nodes on the native wire with so many queues, which have spoken, and whose lanes are open.
func newLanedPair(t *testing.T, network *transporttest.Network, queuesA, queuesB int) (a, b *node) {
	t.Helper()
	a, b = newQueues(t, network, 1, queuesA), newQueues(t, network, 2, queuesB)
	a.addPeerNode(b, true, onNativeWire)
	b.addPeerNode(a, false, onNativeWire)
	synctest.Wait()
	a.send(b, "one")
	b.expect("one")
	b.send(a, "two")
	a.expect("two")
	time.Sleep(3 * time.Second)
	return a, b
}

// lanes returns the state of a's lanes to b.
func (a *node) lanes(b *node) []LaneStatus {
	for _, p := range a.Status().Peers {
		if p.PublicKey == b.public && p.Native != nil {
			return p.Native.Lanes
		}
	}
	return nil
}

// expectLanes fails unless a has so many lanes to b, and as many of them open; 1 stands for none but the session itself.
func (a *node) expectLanes(b *node, want, open int) {
	a.t.Helper()
	got := a.lanes(b)
	opened := 0
	for _, l := range got {
		if l.Open {
			opened++
		}
	}
	if max(1, len(got)) != want || max(1, opened) != open {
		a.t.Fatalf("%d lanes, %d of them open; want %d and %d: %+v", max(1, len(got)), max(1, opened), want, open, got)
	}
}

// keepsUsing sends a packet each way on every queue each second, for so long, and fails unless all arrive.
func keepsUsing(t *testing.T, a, b *node, seconds int) {
	t.Helper()
	for s := range seconds {
		for i := range max(len(a.queues), len(b.queues)) {
			a.send(b, fmt.Sprint("there ", s, i))
			b.send(a, fmt.Sprint("back ", s, i))
		}
		time.Sleep(time.Second)
		if n := max(len(a.queues), len(b.queues)); len(a.received()) != n || len(b.received()) != n {
			t.Fatalf("packets got lost in second %d; drops %v and %v", s, a.Status().Drops, b.Status().Drops)
		}
	}
}

// ways are the ports that data messages left from and went to, by receiver index.
func ways(network *transporttest.Network) (seen map[uint32]map[string]bool, remove func()) {
	seen = map[uint32]map[string]bool{}
	return seen, network.Tap(func(p *transporttest.Packet) {
		if kind, _ := noise.MessageType(p.Data); kind == noise.TypeData {
			index := noise.ReceiverIndex(p.Data)
			if seen[index] == nil {
				seen[index] = map[string]bool{}
			}
			seen[index][fmt.Sprint(p.From, " ", p.To)] = true
		}
	})
}

func TestLanesOpen(t *testing.T) {
	for _, queues := range [][2]int{{2, 2}, {4, 4}, {4, 2}, {3, 16}, {16, 16}} {
		t.Run(fmt.Sprint(queues), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newLanedPair(t, network, queues[0], queues[1])
				lanes := min(queues[0], queues[1])
				a.expectLanes(b, lanes, lanes)
				b.expectLanes(a, lanes, lanes)
				before := a.lanes(b)
				seen, remove := ways(network)
				defer remove()
				for i := range queues[0] {
					a.dev.Queue(i).Push(udpPacket(a.inner, b.inner, fmt.Append(nil, "there ", i)), noOffload)
				}
				for i := range queues[1] {
					b.dev.Queue(i).Push(udpPacket(b.inner, a.inner, fmt.Append(nil, "back ", i)), noOffload)
				}
				if len(b.received()) != queues[0] || len(a.received()) != queues[1] {
					t.Fatalf("not all arrived; drops %v and %v", a.Status().Drops, b.Status().Drops)
				}
				ka, kb := a.tunnelPeer(b).current.Load(), b.tunnelPeer(a).current.Load()
				ports := map[string]bool{}
				for k := range lanes {
					there, back := seen[laneIndex(ka.RemoteIndex, k)], seen[laneIndex(kb.RemoteIndex, k)]
					if len(there) != 1 || len(back) != 1 {
						t.Fatalf("lane %d went the ways %v and %v", k, there, back)
					}
					for way := range there {
						from, to, _ := strings.Cut(way, " ")
						if to != b.addrPort().String() || (from == a.addrPort().String()) != (k == 0) || ports[from] {
							t.Errorf("lane %d goes from %v to %v", k, from, to)
						}
						if !back[to+" "+from] {
							t.Errorf("lane %d goes from %v and comes back %v", k, from, back)
						}
						ports[from] = true
					}
				}
				for k, l := range a.lanes(b) {
					if l.SentPackets == before[k].SentPackets || l.ReceivedPackets == before[k].ReceivedPackets {
						t.Errorf("lane %d has carried nothing: %+v", k, l)
					}
				}
				if s := a.Status(); len(s.Drops) != 0 || s.Workers != queues[0] {
					t.Errorf("%d workers, drops %v", s.Workers, s.Drops)
				}
			})
		})
	}
}

// The kernel has a flow leave by the queue its answers were written to. Then it is to stay where it is, at both ends.
func TestFlowStaysOnItsLane(t *testing.T) {
	for _, queues := range [][2]int{{2, 2}, {4, 4}, {4, 2}, {2, 3}, {5, 3}, {16, 7}} {
		for session := range 5 { // whose first worker differs
			t.Run(fmt.Sprint(queues, session), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network := transporttest.New(1)
					a, b := newQueues(t, network, 1, queues[0]), newQueues(t, network, 2, queues[1])
					for range session { // takes turns
						index, _ := a.indices.reserve(nil)
						a.indices.release(index)
					}
					knowEachOther(a, b)
					a.send(b, "one")
					b.expect("one")
					time.Sleep(3 * time.Second)
					a.expectLanes(b, min(queues[0], queues[1]), min(queues[0], queues[1]))
					used := map[int]bool{}
					for from := range queues[0] {
						at := from
						for round := range 4 {
							a.dev.Queue(at).Push(udpPacket(a.inner, b.inner, []byte("there")), noOffload)
							there := b.came()
							b.dev.Queue(there).Push(udpPacket(b.inner, a.inner, []byte("back")), noOffload)
							back := a.came()
							if round > 0 && back != at {
								t.Fatalf("a flow from queue %d moves from %d to %d in round %d", from, at, back, round)
							}
							at = back
							used[there] = true
						}
					}
					if len(used) != min(queues[0], queues[1]) {
						t.Errorf("%d of %d workers of the far end have something to do", len(used), min(queues[0], queues[1]))
					}
				})
			})
		}
	}
}

// came returns the queue that the one packet came to.
func (a *node) came() int {
	a.t.Helper()
	synctest.Wait()
	at := -1
	for i := range a.queues {
		for _, _, ok := a.dev.Queue(i).TryNext(nil); ok; _, _, ok = a.dev.Queue(i).TryNext(nil) {
			if at >= 0 {
				a.t.Fatal("two packets came")
			}
			at = i
		}
	}
	if at < 0 {
		a.t.Fatalf("nothing came; drops %v", a.Status().Drops)
	}
	return at
}

// actorsLane is a lane of an actor's session.
type actorsLane struct {
	*nativeActor
	session *session.Session
}

// connectLanes has the actor establish a session that has so many lanes, and confirm it.
func (a *nativeActor) connectLanes(count int) []actorsLane {
	a.t.Helper()
	first, second, pending := a.parts(time.Now())
	a.inject(first)
	a.inject(second)
	response := a.one(noise.TypeHybridResponse)
	keys, chosen, remote, err := pending.Consume(response, a.psk)
	if err != nil || a.offer.LanesWith(chosen) != count {
		a.t.Fatalf("the node chose %+v, %v", chosen, err)
	}
	all := make([]actorsLane, count)
	for k := range count {
		of := keys.Lane(uint8(k), true)
		if k == 0 {
			of = keys
		}
		a.derive(&of, true, laneIndex(pending.LocalIndex(), k), laneIndex(remote, k))
		all[k] = actorsLane{a, a.actor.session}
	}
	a.inject(all[0].seal(nil))
	a.got()
	return all
}

// seal makes a data message of the lane.
func (l actorsLane) seal(plaintext []byte) []byte {
	l.actor.session = l.session
	return l.actor.seal(plaintext)
}

// sealed makes a data message of a content.
func (l actorsLane) sealed(kind payload.Kind, content []byte) []byte {
	return l.seal(append(bytes.Clone(content), payload.Trailer(kind, 0)))
}

func TestLanesOnlyWhereBothWantThem(t *testing.T) {
	for _, queues := range [][2]int{{1, 1}, {4, 1}, {1, 4}} {
		t.Run(fmt.Sprint(queues), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newLanedPair(t, transporttest.New(1), queues[0], queues[1])
				keepsUsing(t, a, b, 10)
				if a.lanes(b) != nil || b.lanes(a) != nil || a.lanePorts.Load() != nil || b.lanePorts.Load() != nil {
					t.Error("there are lanes")
				}
				if len(a.Status().Drops) != 0 || len(b.Status().Drops) != 0 {
					t.Errorf("drops %v and %v", a.Status().Drops, b.Status().Drops)
				}
			})
		})
	}
}

// An end that was made before there were lanes says nothing of them, in offer or choice.
func TestLanesWithAnOldEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		n := newQueues(t, network, 1, 4)
		a := newNativeActor(n, network, 1)
		synctest.Wait()
		a.connect() // the node answers
		a.says("to the node")
		if got := n.received(); !slices.Equal(got, []string{"to the node"}) {
			t.Fatalf("received %q; drops %v", got, n.Status().Drops)
		}
		if kp := a.peer().current.Load(); kp == nil || kp.lanes != nil || kp.first != workerOf(kp.LocalIndex, 4) {
			t.Errorf("keypair %+v", kp)
		}
		// Nor does a message to what would be the index of a lane find anything.
		msg := a.sealed(payload.IP, udpPacket(a.inner, n.inner, []byte("nowhere")))
		msg[7] += 1 << 3
		a.inject(msg)
		n.expect()
		if n.dropped(DropInIndex) != 1 {
			t.Errorf("drops %v", n.Status().Drops)
		}
	})
}

func TestWireGuardOverQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newQueues(t, network, 1, 4), newQueues(t, network, 2, 4)
		a.addPeerNode(b, true)
		b.addPeerNode(a, true)
		synctest.Wait()
		a.send(b, "first")
		b.expect("first")
		keepsUsing(t, a, b, 130) // a rekey is in it
		if a.lanePorts.Load() != nil || b.lanePorts.Load() != nil {
			t.Error("there are lanes")
		}
		if got := a.Status().Handshakes.Completed; got != 2 {
			t.Errorf("%d handshakes", got)
		}
	})
}

func TestLanesUnderLossAndReordering(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(seed)
			a, b := newLanedPair(t, network, 4, 4)
			network.SetDefaultLink(transporttest.Link{Loss: 0.2, Duplicate: 0.2, Reorder: 0.2, ReorderDelay: 30 * time.Millisecond,
				Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond})
			there, back := newLedger(t, a, b, 0), newLedger(t, b, a, 1300)
			for range 3000 { // over five minutes, and so two rekeys
				there.send()
				back.send()
				time.Sleep(100 * time.Millisecond)
			}
			network.SetDefaultLink(transporttest.Link{})
			time.Sleep(10 * time.Second)
			if n := there.collect(); n < 2200 || n > 2700 {
				t.Errorf("%d of 3000 arrived", n)
			}
			if n := back.collect(); n < 2200 || n > 2700 {
				t.Errorf("%d of 3000 came back", n)
			}
			there.allArrive(40, 100*time.Millisecond)
			back.allArrive(40, 100*time.Millisecond)
			a.expectLanes(b, 4, 4)
			b.expectLanes(a, 4, 4)
		})
	}
}

// A lane whose way is gone is noticed; what it carried goes on lane 0 until the way is back.
func TestLaneThatIsCutOff(t *testing.T) {
	for _, which := range []string{"there", "back", "both"} {
		t.Run(which, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newLanedPair(t, network, 4, 4)
				keepsUsing(t, a, b, 10)
				port := a.lanePorts.Load().sockets[(a.tunnelPeer(b).current.Load().first+2)%4].Port()
				remove := network.Tap(func(p *transporttest.Packet) {
					p.Drop = which != "back" && p.From.Port() == port || which != "there" && p.To.Port() == port
				})
				lost := 0
				for s := range int((laneLifetime + laneProbeEvery) / time.Second) {
					for range 4 {
						a.send(b, fmt.Sprint(s))
						b.send(a, fmt.Sprint(s))
					}
					time.Sleep(time.Second)
					lost += 8 - len(a.received()) - len(b.received())
				}
				if lost == 0 {
					t.Fatal("nothing was cut off")
				}
				a.expectLanes(b, 4, 3)
				b.expectLanes(a, 4, 3)
				keepsUsing(t, a, b, 60)
				remove()
				keepsUsing(t, a, b, int(2*laneProbeEvery/time.Second))
				a.expectLanes(b, 4, 4)
				b.expectLanes(a, 4, 4)
			})
		})
	}
}

// Firewalls that let only the tunnel's port through leave lane 0.
func TestLanesThatNeverArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.Tap(func(p *transporttest.Packet) { p.Drop = p.From.Port() != testPort || p.To.Port() != testPort })
		a, b := newLanedPair(t, network, 4, 4)
		probes := 0
		network.Tap(func(p *transporttest.Packet) { probes++ })
		keepsUsing(t, a, b, 130)
		a.expectLanes(b, 4, 1)
		b.expectLanes(a, 4, 1)
		if l := a.lanes(b)[1]; l.SentPackets > 3*(laneTries+130/5+3) {
			t.Errorf("%d probes", l.SentPackets)
		}
	})
}

// A lane's path takes less than lane 0's: the lane is left alone, as its probes are as large as what it is to carry.
func TestLaneOverANarrowPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		var narrow uint16
		network.Tap(func(p *transporttest.Packet) {
			if narrow == 0 && p.From.Port() != testPort {
				narrow = p.From.Port()
			}
			p.Drop = len(p.Data) > 1300 && narrow != 0 && (p.From.Port() == narrow || p.To.Port() == narrow)
		})
		a, b := newLanedPair(t, network, 4, 4)
		a.expectLanes(b, 4, 3)
		l := newLedger(t, a, b, 1390)
		l.allArrive(40, 100*time.Millisecond)
	})
}

// The initiator's NAT gives all its ports new addresses; each lane follows what comes on it.
func TestLanesBehindANATThatForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		nat := network.NAT(0, netip.MustParseAddr("198.51.100.1"))
		inside := netip.MustParseAddr("10.9.0.2")
		a := newQueuesOn(t, nat.Host(inside), inside, 1, 4)
		b := newQueues(t, network, 2, 4)
		a.addPeerNode(b, true, onNativeWire)
		b.addPeerNode(a, false, onNativeWire)
		a.send(b, "one")
		b.expect("one")
		time.Sleep(3 * time.Second)
		a.expectLanes(b, 4, 4)
		b.expectLanes(a, 4, 4)
		before := b.lanes(a)
		nat.Rebind()
		for s := range 5 {
			for range 4 {
				a.send(b, fmt.Sprint(s))
			}
			time.Sleep(time.Second)
			if got := b.received(); len(got) != 4 {
				t.Fatalf("received %q", got)
			}
		}
		keepsUsing(t, a, b, 10)
		b.expectLanes(a, 4, 4)
		for i, l := range b.lanes(a) {
			if l.Endpoint == before[i].Endpoint {
				t.Errorf("lane %d is still sent to %v", i, l.Endpoint)
			}
		}
	})
}

// One lane alone comes from elsewhere: it goes there only when somebody there has answered, and nothing else moves.
func TestOneLaneRoams(t *testing.T) {
	for _, answers := range []bool{false, true} {
		t.Run(fmt.Sprint("answers ", answers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newLanedPair(t, network, 4, 4)
				keepsUsing(t, a, b, 3)
				ka := a.tunnelPeer(b).current.Load()
				elsewhere := netip.MustParseAddrPort("198.51.100.66:6666")
				lane2 := laneIndex(ka.RemoteIndex, 2)
				var home netip.AddrPort
				sentThere, largest := 0, 0
				stolen := false
				network.Tap(func(p *transporttest.Packet) {
					switch kind, _ := noise.MessageType(p.Data); {
					case kind == noise.TypeData && noise.ReceiverIndex(p.Data) == lane2 && (answers || !stolen):
						stolen = true
						home = p.From
						network.Inject(elsewhere, p.To, bytes.Clone(p.Data))
						p.Drop = true
					case p.To == elsewhere:
						sentThere++
						largest = max(largest, len(p.Data))
						if answers {
							network.Inject(p.From, home, bytes.Clone(p.Data))
						}
					}
				})
				for range 4 {
					a.send(b, "x")
				}
				if got := b.received(); len(got) != 4 {
					t.Fatalf("received %q", got)
				}
				if answers {
					keepsUsing(t, a, b, 10)
					if l := b.lanes(a)[2]; l.Endpoint != elsewhere.String() || !l.Open {
						t.Errorf("%+v", l)
					}
				} else {
					time.Sleep(500 * time.Millisecond)
					b.expectLanes(a, 4, 3)
					if sentThere > 1 || largest > 100 {
						t.Errorf("%d messages of up to %d bytes went to where nobody has answered from", sentThere, largest)
					}
					for range 10 { // whatever b sends arrives
						for range 4 {
							b.send(a, "y")
						}
						time.Sleep(time.Second)
						if got := a.received(); len(got) != 4 {
							t.Fatalf("received %q", got)
						}
					}
				}
				for _, n := range []*node{a, b} {
					for i, l := range n.lanes(map[*node]*node{a: b, b: a}[n]) {
						if i != 2 && (!l.Open || l.Endpoint == elsewhere.String()) {
							t.Errorf("lane %d: %+v", i, l)
						}
					}
				}
				if got := b.tunnelPeer(a).endpoint.Load().Remote; got != a.addrPort() {
					t.Errorf("the peer moved to %v", got)
				}
			})
		})
	}
}

// The far end, to whose port all lanes go, gets another address.
func TestLanesFollowTheResponder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newLanedPair(t, network, 4, 4)
		keepsUsing(t, a, b, 3)
		b.addr = netip.MustParseAddr("198.51.100.2")
		b.host.SetAddrs(b.addr)
		for range 12 { // something goes on lane 0
			b.send(a, "moved")
			time.Sleep(100 * time.Millisecond)
		}
		a.received()
		keepsUsing(t, a, b, 10)
		a.expectLanes(b, 4, 4)
		for i, l := range a.lanes(b) {
			if l.Endpoint != b.addrPort().String() {
				t.Errorf("lane %d goes to %v", i, l.Endpoint)
			}
		}
	})
}

func TestLanesAreRekeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newLanedPair(t, network, 4, 4)
		first := a.tunnelPeer(b).current.Load()
		keepsUsing(t, a, b, int(session.RekeyAfterTime/time.Second)+20)
		second := a.tunnelPeer(b).current.Load()
		if first == second || a.Status().Handshakes.Completed != 2 || a.usedIndices() != 2 || b.usedIndices() != 2 {
			t.Fatalf("no rekey: %+v", a.Status().Handshakes)
		}
		a.expectLanes(b, 4, 4)
		b.expectLanes(a, 4, 4)
		for i, l := range second.lanes {
			if l.Sent() == 0 || l.Session == first.lanes[i].Session {
				t.Errorf("lane %d of the second session has carried nothing", i+1)
			}
		}
		keepsUsing(t, a, b, int(session.RekeyAfterTime/time.Second)+20)
		if counter, ok := first.lanes[0].Reserve(1, 0); ok {
			t.Errorf("a lane of the first session still gives counters: %d", counter)
		}
	})
}

// Each lane's key has its own limit of bytes; the first to reach it ends the session.
func TestLaneThatIsUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newLanedPair(t, transporttest.New(1), 4, 4)
		keepsUsing(t, a, b, 2)
		kp := a.tunnelPeer(b).current.Load()
		if _, ok := kp.lanes[1].Reserve(1, session.RekeyAfterBytes+1); !ok {
			t.Fatal("no room in a new session")
		}
		keepsUsing(t, a, b, 5)
		if a.tunnelPeer(b).current.Load() == kp {
			t.Fatal("no rekey")
		}
		kp = a.tunnelPeer(b).current.Load()
		a.expectLanes(b, 4, 4)
		for some := 1 << 37; some > 0; some /= 2 { // all there is, though that alone would bring a new session
			kp.lanes[2].Reserve(1, some)
		}
		if _, ok := kp.lanes[2].Reserve(1, 1); ok {
			t.Fatal("something is left")
		}
		keepsUsing(t, a, b, 5)
		if a.tunnelPeer(b).current.Load() == kp {
			t.Fatal("no new session")
		}
	})
}

func TestEndOfLanesRestarts(t *testing.T) {
	for _, goodbye := range []bool{true, false} {
		t.Run(fmt.Sprint("goodbye ", goodbye), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newLanedPair(t, network, 4, 4)
				knowEachOther(a, b)
				keepsUsing(t, a, b, 5)
				if !goodbye {
					network.SetDefaultLink(transporttest.Link{Loss: 1})
				}
				b.Close()
				network.SetDefaultLink(transporttest.Link{})
				time.Sleep(time.Second)
				c := newQueuesOn(t, b.host, b.addr, 2, 2)
				c.configure(Change{PrivateKey: &b.key})
				c.public, c.inner = b.public, b.inner
				c.addPeerNode(a, false, onNativeWire)
				for range 40 {
					a.send(c, "x")
					time.Sleep(time.Second)
				}
				c.received()
				keepsUsing(t, a, c, 10)
				a.expectLanes(c, 2, 2)
				c.expectLanes(a, 2, 2)
			})
		})
	}
}

func TestGoodbyeEndsLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newLanedPair(t, network, 4, 4)
		keepsUsing(t, a, b, 3)
		kp := b.tunnelPeer(a).current.Load()
		a.dev.SetUp(false)
		synctest.Wait()
		if b.tunnelPeer(a).current.Load() != nil || b.usedIndices() != 0 || a.usedIndices() != 0 {
			t.Error("a session is left")
		}
		for _, l := range kp.lanes {
			if _, ok := l.Reserve(1, 0); ok {
				t.Error("a lane's keys are left")
			}
		}
		if a.lanePorts.Load() != nil {
			t.Error("ports of lanes are open while the interface is down")
		}
		a.dev.SetUp(true)
		synctest.Wait()
		a.send(b, "again")
		b.expect("again")
		time.Sleep(3 * time.Second)
		a.expectLanes(b, 4, 4)
	})
}

func TestIdleLanesAreSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newLanedPair(t, network, 4, 4)
		keepsUsing(t, a, b, 3)
		time.Sleep(30 * time.Second)
		a.expectLanes(b, 4, 1)
		l := watch(network, a)
		time.Sleep(session.EraseAfter)
		if got := l.all(); len(got) != 0 {
			t.Errorf("an idle tunnel sends: %v", got)
		}
	})
}

// After a pause the lanes are there again soon after there is traffic.
func TestLanesComeBackAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newLanedPair(t, transporttest.New(1), 4, 4)
		for range 5 {
			time.Sleep(40 * time.Second)
			keepsUsing(t, a, b, 3)
			a.expectLanes(b, 4, 4)
			b.expectLanes(a, 4, 4)
		}
	})
}

// Both ends begin at once: each sends on the lanes of the session that it began.
func TestCrossedLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: 50 * time.Millisecond})
		a, b := newQueues(t, network, 1, 4), newQueues(t, network, 2, 4)
		knowEachOther(a, b)
		a.send(b, "x")
		b.send(a, "y")
		time.Sleep(3 * time.Second)
		a.received()
		b.received()
		if !a.tunnelPeer(b).current.Load().Initiator || !b.tunnelPeer(a).current.Load().Initiator {
			t.Fatal("they did not cross")
		}
		keepsUsing(t, a, b, 10)
		a.expectLanes(b, 4, 4)
		b.expectLanes(a, 4, 4)
		keepsUsing(t, a, b, 200)
		a.expectLanes(b, 4, 4)
		b.expectLanes(a, 4, 4)
	})
}

func TestHandshakesAreNotTakenOnPortsOfLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newLanedPair(t, network, 2, 2)
		port := a.lanePorts.Load().sockets[0].Port()
		stranger := newActor(a, network, 9)
		msg, _ := stranger.initiation(time.Now())
		network.Inject(stranger.addr, netip.AddrPortFrom(a.addr, port), msg)
		synctest.Wait()
		if a.dropped(DropInMessage) != 1 || a.Status().Handshakes.InitiationsReceived != 0 {
			t.Errorf("drops %v", a.Status().Drops)
		}
		keepsUsing(t, a, b, 2)
	})
}

// With many peers nobody gets lanes, whose memory is not needed then: sessions take turns among the workers.
func TestManyPeersHaveNoLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newQueues(t, network, 1, 4), newQueues(t, network, 2, 4)
		var change Change
		for _, key := range publicKeys(maxLanedPeers) {
			change.Peers = append(change.Peers, PeerChange{PublicKey: key})
		}
		a.configure(change)
		knowEachOther(a, b)
		keepsUsing(t, a, b, 5)
		a.expectLanes(b, 1, 1)
		b.expectLanes(a, 1, 1)
		first := map[int]int{}
		for range 40 {
			index, err := a.indices.reserve(nil)
			if err != nil {
				t.Fatal(err)
			}
			first[workerOf(index, 4)]++
		}
		if !maps.Equal(first, map[int]int{0: 10, 1: 10, 2: 10, 3: 10}) {
			t.Errorf("workers of 40 sessions: %v", first)
		}
	})
}

// recordingNetwork notes what sockets are told.
type recordingNetwork struct {
	*transporttest.Host
	sockets *[]*recordingSocket
	refuse  *bool
}

type recordingSocket struct {
	transport.Socket
	options transport.Options
	closed  bool
}

func (n recordingNetwork) Open(o transport.Options) (transport.Socket, error) {
	if *n.refuse && o.Port == 0 {
		return nil, fmt.Errorf("no descriptors")
	}
	s, err := n.Host.Open(o)
	if err != nil {
		return nil, err
	}
	r := &recordingSocket{Socket: s, options: o}
	*n.sockets = append(*n.sockets, r)
	return r, nil
}

func (s *recordingSocket) SetMark(mark uint32) error {
	s.options.Mark = mark
	return s.Socket.SetMark(mark)
}

func (s *recordingSocket) SetDontFragment(on bool) error {
	s.options.DontFragment = on
	return s.Socket.SetDontFragment(on)
}

func (s *recordingSocket) Close() error {
	s.closed = true
	return s.Socket.Close()
}

// What is configured of the tunnel's socket holds for the ports of lanes, and they are closed with it.
func TestPortsOfLanesAreSetAsTheTunnelsIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newQueues(t, network, 1, 3), newQueues(t, network, 2, 3)
		var sockets []*recordingSocket
		a.network = recordingNetwork{a.host, &sockets, new(bool)}
		a.dev.SetUp(false)
		synctest.Wait()
		a.dev.SetUp(true)
		synctest.Wait()
		knowEachOther(a, b)
		mark, port := uint32(7), uint16(777)
		a.configure(Change{Mark: &mark})
		a.send(b, "one")
		b.expect("one")
		time.Sleep(3 * time.Second)
		a.expectLanes(b, 3, 3)
		check := func(when string, mark uint32, whole bool) {
			t.Helper()
			open := 0
			for _, s := range sockets {
				if s.closed {
					continue
				}
				if open++; s.options.Mark != mark || s.options.DontFragment != whole {
					t.Errorf("%s: %+v", when, s.options)
				}
			}
			if open != 4 {
				t.Errorf("%s: %d sockets are open", when, open)
			}
		}
		check("opened", 7, true)
		mark = 8
		a.configure(Change{Mark: &mark})
		check("another mark", 8, true)
		a.configure(Change{Peers: []PeerChange{{PublicKey: publicKeys(1)[0]}}})
		check("a WireGuard peer", 8, false)
		mark = 9
		a.configure(Change{Mark: &mark, ListenPort: &port})
		check("another port", 9, false)
		synctest.Wait()
		keepsUsing(t, a, b, 10)
		a.expectLanes(b, 3, 3)
		a.Close()
		for _, s := range sockets {
			if !s.closed {
				t.Errorf("%+v is open", s.options)
			}
		}
	})
}

// Where there are no descriptors for them, there are no lanes, and it is said once.
func TestPortsOfLanesCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		addr := netip.MustParseAddr("192.0.2.1")
		said := 0
		a := newQueuesOn(t, network.Host(addr), addr, 1, 3, func(o *Options) {
			o.Logf = func(format string, args ...any) {
				if strings.Contains(format, "no ports for lanes") {
					said++
				}
			}
		})
		b := newQueues(t, network, 2, 3)
		refuse := true
		a.network = recordingNetwork{a.host, new([]*recordingSocket), &refuse}
		a.addPeerNode(b, true, onNativeWire)
		b.addPeerNode(a, false, onNativeWire)
		a.send(b, "first")
		b.expect("first")
		keepsUsing(t, a, b, 100)
		a.expectLanes(b, 3, 1)
		if said != 1 {
			t.Errorf("said %d times", said)
		}
		refuse = false
		keepsUsing(t, a, b, int(lanePortsRetry/time.Second)+5)
		a.expectLanes(b, 3, 3)
	})
}

// Every index finds its session and no other, and steering brings it to its worker.
func TestIndicesOfLanes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, workers := range []int{1, 2, 3, 4, 7, 16} {
		table := newIndexTable(workers)
		lanes := map[uint32]*keypair{}
		for i := range 500 {
			p := &peer{}
			index, err := table.reserve(p)
			if err != nil {
				t.Fatal(err)
			}
			kp := &keypair{peer: p, lanes: make([]*lane, r.IntN(workers))}
			if e, _ := table.lookupLane(laneIndex(index, 1)); e != nil && e.peer == p {
				t.Fatal("a handshake that waits has lanes")
			}
			table.establish(index, kp)
			if i%5 == 0 {
				table.release(index)
				continue
			}
			first := workerOf(index, workers)
			for k := range 1 + len(kp.lanes) {
				at := laneIndex(index, k)
				lanes[at] = kp
				var msg [16]byte
				msg[0] = noise.TypeData
				msg[4], msg[5], msg[6], msg[7] = byte(at), byte(at>>8), byte(at>>16), byte(at>>24)
				if got := steering.Worker(msg[:], workers); got != (first+k)%workers || got != workerOf(at, workers) {
					t.Fatalf("lane %d of a session of worker %d comes to worker %d of %d", k, first, got, workers)
				}
				if workers > 1 && at>>laneShift < index>>laneShift {
					t.Fatal("the bits of a lane wrap around")
				}
			}
		}
		for at, kp := range lanes {
			for k := range 1 << (32 - laneShift) {
				other := laneIndex(at, k)
				e, lane := table.lookupLane(other)
				if want := lanes[other]; want == nil && e != nil || want != nil && (e == nil || e.keypair != want || lane > len(want.lanes)) {
					t.Fatalf("index %#x: %v, lane %d", other, e, lane)
				}
			}
			if e, _ := table.lookupLane(at); e.keypair != kp {
				t.Fatal("another session")
			}
		}
		for range 1000 {
			at := r.Uint32()
			if e, lane := table.lookupLane(at); (e != nil) != (lanes[at] != nil) {
				t.Fatalf("index %#x: %v, lane %d", at, e, lane)
			}
		}
	}
}

// A peer says whatever it likes on its lanes.
func TestLaneTakesOnlyProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		n := newQueues(t, network, 1, 4)
		a := newNativeActor(n, network, 1)
		a.offer.Lanes = 255 // as many as there are
		synctest.Wait()
		lanes := a.connectLanes(4)
		for _, m := range []struct {
			number uint64
			m      message.Message
		}{
			{1, message.Hello{Agent: "x", MTU: 1420, Layer: 3}}, {0, message.Ack{Number: 1}}, {0, message.Echo{ID: 1, Sent: 5}},
			{0, message.Reply{ID: 1, Received: 5}}, {1, message.Push{Subject: "s", Document: []byte("d")}},
			{0, message.Goodbye{Reason: 1}}, {0, message.Moved{Hops: 1}},
		} {
			before := n.dropped(DropInControl)
			content, err := message.Encode(nil, m.number, m.m)
			if err != nil {
				t.Fatal(err)
			}
			a.inject(lanes[1].sealed(payload.Control, content))
			synctest.Wait()
			time.Sleep(50 * time.Millisecond)
			if n.dropped(DropInControl) != before+1 {
				t.Errorf("%T was taken on a lane", m.m)
			}
		}
		if a.peer().current.Load() == nil {
			t.Fatal("a goodbye on a lane ended the session")
		}
		// False answers open nothing.
		for id := range uint64(100) {
			content, _ := message.Encode(nil, 0, message.Probed{ID: 1<<40 + id})
			a.inject(lanes[2].sealed(payload.Control, content))
			time.Sleep(20 * time.Millisecond)
		}
		if l := a.peer().current.Load().lanes[1]; l.until.Load() != 0 {
			t.Error("a false answer opened a lane")
		}
		// Packets are taken on any lane, and each counter of each lane once.
		for k, l := range lanes {
			text := fmt.Sprint("on lane ", k)
			msg := l.sealed(payload.IP, udpPacket(a.inner, n.inner, []byte(text)))
			a.inject(msg)
			a.inject(msg)
			n.expect(text)
			msg[20] ^= 1
			a.inject(msg)
			n.expect()
		}
	})
}

// FuzzLaneMessage gives a lane arbitrary plaintexts and arbitrary indices: nothing panics, and only the peer's packets come out.
func FuzzLaneMessage(f *testing.F) {
	probe, _ := message.EncodeProbe(nil, 3, 100)
	probed, _ := message.Encode(nil, 0, message.Probed{ID: 1})
	goodbye, _ := message.Encode(nil, 0, message.Goodbye{})
	ip := udpPacket(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.0.0.1"), []byte("x"))
	for _, seed := range [][]byte{
		append(probe, payload.Trailer(payload.Control, 0)), append(probed, payload.Trailer(payload.Control, 0)),
		append(goodbye, payload.Trailer(payload.Control, 0)), append(bytes.Clone(ip), payload.Trailer(payload.IP, 0)), nil, {0xff},
	} {
		for k := range byte(4) {
			f.Add(k, uint8(0), seed)
		}
	}
	f.Add(byte(1), uint8(9), []byte{1})
	f.Fuzz(func(t *testing.T, k, shift uint8, plaintext []byte) {
		if len(plaintext) > 2000 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			n := newQueues(t, network, 1, 4)
			a := newNativeActor(n, network, 1)
			a.offer.Lanes = 4
			synctest.Wait()
			lanes := a.connectLanes(4)
			msg := lanes[k%4].seal(plaintext)
			msg[7] += shift << 3
			a.inject(msg)
			for _, p := range n.written() {
				if !bytes.Equal(p[12:16], a.inner.AsSlice()) {
					t.Errorf("delivered %x", p)
				}
			}
			time.Sleep(time.Minute)
		})
	})
}
