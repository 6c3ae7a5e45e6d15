package tunnel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport/transporttest"
	"culvert/tunnel/pathmtu"
)

// ledger numbers the payloads that go from one node to another and notes each that comes out. That one comes twice fails the
// test at once.
type ledger struct {
	t         *testing.T
	from, to  *node
	size      int // of a packet's payload
	sent      int
	delivered map[string]bool
}

func newLedger(t *testing.T, from, to *node, size int) *ledger {
	return &ledger{t: t, from: from, to: to, size: size, delivered: map[string]bool{}}
}

func (l *ledger) send() {
	l.sent++
	text := fmt.Sprintf("%d from %v ", l.sent, l.from.inner)
	if pad := l.size - len(text); pad > 0 {
		text += strings.Repeat("x", pad)
	}
	l.from.send(l.to, text)
}

// collect takes what has come out of the far device and returns how many packets of this ledger have arrived in all.
func (l *ledger) collect() int {
	l.t.Helper()
	for _, text := range l.to.received() {
		number, rest, _ := strings.Cut(text, " ")
		var n int
		if _, err := fmt.Sscan(number, &n); err != nil || !strings.HasPrefix(rest, "from "+l.from.inner.String()+" ") || n < 1 || n > l.sent {
			l.t.Fatalf("received %.40q, which nobody sent", text)
		}
		if l.delivered[number] {
			l.t.Fatalf("packet %d of %v delivered twice", n, l.from.inner)
		}
		l.delivered[number] = true
	}
	return len(l.delivered)
}

// allArrive sends count packets, one each interval, and fails unless every one of them arrives.
func (l *ledger) allArrive(count int, interval time.Duration) {
	l.t.Helper()
	before, sent := l.collect(), l.sent
	for range count {
		l.send()
		time.Sleep(interval)
	}
	time.Sleep(time.Second)
	if got := l.collect() - before; got != count {
		l.t.Fatalf("%d of %d packets from number %d on arrived; drops %v and %v", got, count, sent+1, l.from.Status().Drops, l.to.Status().Drops)
	}
}

// knowEachOther has both ends know the other's endpoint.
func knowEachOther(a, b *node) {
	a.addPeerNode(b, true, onNativeWire)
	b.addPeerNode(a, true, onNativeWire)
	synctest.Wait()
}

func TestNativeSessionsComeBackUnderLoss(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(seed)
				a, b := newNativePair(t, network)
				knowEachOther(a, b)
				network.SetDefaultLink(transporttest.Link{Loss: 0.3, Duplicate: 0.3, Reorder: 0.3, ReorderDelay: 30 * time.Millisecond,
					Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond})
				there, back := newLedger(t, a, b, 0), newLedger(t, b, a, 1300)
				for range 10 * 60 * 4 { // for ten minutes, through several rekeys
					there.send()
					back.send()
					time.Sleep(250 * time.Millisecond)
					there.collect()
					back.collect()
				}
				if n := a.Status().Handshakes.Completed; n < 4 {
					t.Errorf("only %d handshakes completed", n)
				}
				// Of single datagrams 70 % get through; what waits for a handshake too.
				for _, l := range []*ledger{there, back} {
					if got := l.collect(); got < l.sent*6/10 {
						t.Errorf("%d of %d packets from %v arrived", got, l.sent, l.from.inner)
					}
				}
				network.SetDefaultLink(transporttest.Link{})
				time.Sleep(20 * time.Second)
				there.collect()
				back.collect()
				there.allArrive(100, 50*time.Millisecond)
				back.allArrive(100, 50*time.Millisecond)
			})
		})
	}
}

// The response to an initiation of two parts is the third message; the data that made the handshake happen rides on the
// fourth, half a round trip after the first round trip.
func TestNativeFirstDataAfterOneRoundTrip(t *testing.T) {
	const delay = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: delay})
		a, b := newNativePair(t, network)
		l, start := watch(network, a), time.Now()
		a.send(b, "request")
		b.dev.Queue(0).Next(nil)
		request := time.Since(start)
		b.send(a, "answer")
		a.dev.Queue(0).Next(nil)
		if answer := time.Since(start); request != 3*delay || answer != 4*delay {
			t.Errorf("the request arrived after %v and the answer after %v", request, answer)
		}
		l.expectTimes(t, "a", noise.TypeHybridInitiation, 0)
		l.expectTimes(t, "a", noise.TypeKEM, 0)
		l.expectTimes(t, "b", noise.TypeHybridResponse, delay)
		if at := l.times("a", noise.TypeData); len(at) == 0 || at[0] != 2*delay {
			t.Errorf("a sent data at %v", at)
		}
	})
}

func TestNativeBlackHole(t *testing.T) {
	const (
		hole    = 1280
		largest = hole - 28 // of UDP payload over IPv4
	)
	path := func(n *node) *NativeStatus { return n.Status().Peers[0].Native }

	t.Run("from the start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			network.SetDefaultLink(transporttest.Link{MTU: hole, Delay: 10 * time.Millisecond})
			a, b := newNativePair(t, network)
			there, back := newLedger(t, a, b, testMTU-28), newLedger(t, b, a, testMTU-28)
			there.allArrive(50, 20*time.Millisecond)
			back.allArrive(50, 20*time.Millisecond)
			time.Sleep(10 * time.Second)
			for _, n := range []*node{a, b} {
				if s := path(n); !s.PathSettled || s.PathMTU <= largest-pathmtu.Granularity || s.PathMTU > largest {
					t.Errorf("native: %+v", s)
				}
			}
			there.allArrive(50, 20*time.Millisecond)
			back.allArrive(50, 20*time.Millisecond)
			for size := 1; size <= testMTU-28; size += 7 {
				text := strings.Repeat("x", size)
				a.send(b, text)
				time.Sleep(10 * time.Millisecond)
				b.expect(text)
			}
		})
	})
	t.Run("appears and goes away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			network.SetDefaultLink(transporttest.Link{MTU: 1500, Delay: 10 * time.Millisecond})
			a, b := newNativePair(t, network)
			l := newLedger(t, a, b, testMTU-28)
			l.allArrive(50, 100*time.Millisecond)
			time.Sleep(10 * time.Second)
			full := path(a).PathMTU
			if !path(a).PathSettled || path(a).InnerMTU != testMTU {
				t.Fatalf("native: %+v", path(a))
			}

			network.SetDefaultLink(transporttest.Link{MTU: hole, Delay: 10 * time.Millisecond})
			for range 15 * 10 { // a confirmation is due every 5 s, and three are asked for
				l.send()
				time.Sleep(100 * time.Millisecond)
			}
			l.collect()
			l.allArrive(200, 100*time.Millisecond)
			time.Sleep(10 * time.Second)
			if s := path(a); !s.PathSettled || s.PathMTU <= largest-pathmtu.Granularity || s.PathMTU > largest {
				t.Errorf("in the hole: %+v", s)
			}

			network.SetDefaultLink(transporttest.Link{MTU: 1500, Delay: 10 * time.Millisecond})
			l.allArrive(12*60*2, 500*time.Millisecond) // past the raise timer
			if s := path(a); !s.PathSettled || s.PathMTU != full {
				t.Errorf("after the hole: %+v", s)
			}
		})
	})
	t.Run("the interface's own", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			a, b := newNativePair(t, network)
			a.host.SetMTU(hole)
			l := newLedger(t, a, b, testMTU-28)
			l.allArrive(50, 20*time.Millisecond)
			a.host.SetMTU(1500)
			time.Sleep(time.Minute)
			l.allArrive(12*60*2, 500*time.Millisecond)
			if s := path(a); !s.PathSettled || s.InnerMTU != testMTU {
				t.Errorf("with an MTU of 1500: %+v", s)
			}
			a.host.SetMTU(hole)
			l.send() // refused, and never more than what is under way then
			time.Sleep(100 * time.Millisecond)
			l.collect()
			l.allArrive(50, 20*time.Millisecond)
		})
	})
}

// natted is a native pair of which the first is behind a NAT.
func natted(t *testing.T, network *transporttest.Network) (a, b *node, nat *transporttest.NAT) {
	nat = network.NAT(0, netip.MustParseAddr("203.0.113.1"))
	inside := netip.MustParseAddr("192.168.0.2")
	a = newNodeOn(t, nat.Host(inside), inside, 1)
	b = newNode(t, network, 2)
	a.addPeerNode(b, true, onNativeWire)
	b.addPeerNode(a, false, onNativeWire)
	synctest.Wait()
	return a, b, nat
}

func TestNativeNATRebinds(t *testing.T) {
	t.Run("within a session", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			a, b, nat := natted(t, network)
			there, back := newLedger(t, a, b, 0), newLedger(t, b, a, 1300)
			there.allArrive(5, 100*time.Millisecond)
			back.allArrive(5, 100*time.Millisecond)
			for range 10 {
				before := b.Status().Peers[0].Endpoint
				nat.Rebind()
				back.send() // lost: the NAT does not know it
				time.Sleep(100 * time.Millisecond)
				back.collect()
				there.allArrive(5, 100*time.Millisecond)
				back.allArrive(5, 100*time.Millisecond)
				if after := b.Status().Peers[0].Endpoint; after == before {
					t.Fatal("the NAT did not rebind: the test tests nothing")
				}
			}
			if n := b.Status().Handshakes.Completed; n != 1 {
				t.Errorf("%d handshakes", n)
			}
			if lost := back.sent - back.collect(); lost != 10 {
				t.Errorf("%d packets lost", lost)
			}
		})
	})
	t.Run("between the parts of an initiation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			a, b, nat := natted(t, network)
			rebinds, start := 0, time.Now()
			network.Tap(func(p *transporttest.Packet) {
				if kind, _ := noise.MessageType(p.Data); kind == noise.TypeHybridInitiation && rebinds < 3 {
					rebinds++
					nat.Rebind()
				}
			})
			a.send(b, "waits")
			b.expect()
			if b.dropped(DropInKEM) != 1 {
				t.Fatalf("drops: %v", b.Status().Drops)
			}
			time.Sleep(7*time.Second + 300*time.Millisecond - time.Since(start))
			b.expect("waits")
			if b.dropped(DropInKEM) != 3 || b.Status().Handshakes.Completed != 1 {
				t.Errorf("drops %v, handshakes %+v", b.Status().Drops, b.Status().Handshakes)
			}
			b.send(a, "answer")
			a.expect("answer")
		})
	})
	t.Run("before the response", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			a, b, nat := natted(t, network)
			once := false
			network.Tap(func(p *transporttest.Packet) {
				if kind, _ := noise.MessageType(p.Data); kind == noise.TypeHybridResponse && !once {
					once = true
					nat.Rebind()
				}
			})
			a.send(b, "waits")
			b.expect()
			time.Sleep(1100 * time.Millisecond)
			b.expect("waits")
			b.send(a, "answer")
			a.expect("answer")
		})
	})
}

func TestNativeBothEndsStartAtOnce(t *testing.T) {
	for _, delay := range []time.Duration{0, 10 * time.Millisecond, 400 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				network.SetDefaultLink(transporttest.Link{Delay: delay})
				a, b := newNativePair(t, network)
				knowEachOther(a, b)
				start := time.Now()
				there, back := newLedger(t, a, b, 0), newLedger(t, b, a, 0)
				there.send()
				back.send()
				synctest.Wait()
				time.Sleep(3 * delay)
				if there.collect() != 1 || back.collect() != 1 {
					t.Errorf("after %v the first packets are not all there; drops %v and %v", time.Since(start), a.Status().Drops, b.Status().Drops)
				}
				for range 10 * 60 { // both go on, and neither handshakes more than rekeying asks for
					there.send()
					back.send()
					time.Sleep(time.Second)
				}
				time.Sleep(3 * delay)
				if there.collect() != there.sent || back.collect() != back.sent {
					t.Errorf("%d of %d and %d of %d arrived; drops %v and %v", there.collect(), there.sent, back.collect(), back.sent, a.Status().Drops, b.Status().Drops)
				}
				if n := a.Status().Handshakes.Completed + b.Status().Handshakes.Completed; n > 2*(2+10*60/120) {
					t.Errorf("%d handshakes in ten minutes", n)
				}
			})
		})
	}
}

// Packets flow both ways without a pause through several rekeys.
func TestNativeRekeyUnderLoad(t *testing.T) {
	run := func(t *testing.T, link transporttest.Link, lossless bool) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			network.SetDefaultLink(link)
			a, b := newNativePair(t, network)
			there, back := newLedger(t, a, b, 0), newLedger(t, b, a, 1350)
			there.allArrive(1, time.Second)
			start := time.Now()
			for time.Since(start) < 4*session.RekeyAfterTime+10*time.Second {
				there.send()
				back.send()
				time.Sleep(40 * time.Millisecond)
				if there.sent%50 == 0 {
					there.collect()
					back.collect()
				}
			}
			time.Sleep(time.Second)
			if lost := there.sent - there.collect() + back.sent - back.collect(); link.Reorder == 0 && lost != 0 {
				t.Errorf("%d packets lost", lost)
			}
			if n := a.Status().Handshakes.Completed; n < 5 || n > 6 {
				t.Errorf("%d handshakes", n)
			}
			for _, n := range []*node{a, b} {
				for why, count := range n.Status().Drops {
					if lossless {
						t.Errorf("%d dropped: %s", count, why)
					}
				}
			}
		})
	}
	t.Run("clean", func(t *testing.T) { run(t, transporttest.Link{Delay: 5 * time.Millisecond}, true) })
	t.Run("without delay", func(t *testing.T) { run(t, transporttest.Link{}, true) })
	t.Run("reordering", func(t *testing.T) {
		run(t, transporttest.Link{Delay: 30 * time.Millisecond, Reorder: 0.3, ReorderDelay: 50 * time.Millisecond}, false)
	})
	t.Run("duplicating", func(t *testing.T) {
		run(t, transporttest.Link{Delay: 5 * time.Millisecond, Duplicate: 0.5}, false)
	})
}

// Each change of address is a new path, of which nothing is known.
func TestNativeRoamingKeepsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		there, back := newLedger(t, a, b, 1300), newLedger(t, b, a, 1300)
		there.allArrive(20, 100*time.Millisecond)
		back.allArrive(1, time.Second)
		for i := range byte(5) {
			a.addr = netip.AddrFrom4([4]byte{198, 51, 100, 100 + i})
			a.host.SetAddrs(a.addr)
			// Each new path is a black hole for what the one before took.
			network.SetLink(a.host, b.host, transporttest.Link{MTU: 1280 + int(i)*20, Delay: 10 * time.Millisecond})
			// The end that moved finds out by what is not confirmed any more.
			for range 15 * 10 {
				there.send()
				time.Sleep(100 * time.Millisecond)
			}
			there.collect()
			there.allArrive(20, 100*time.Millisecond)
			back.allArrive(20, 100*time.Millisecond)
			if ep := b.tunnelPeer(a).endpoint.Load(); ep.Remote != (netip.AddrPortFrom(a.addr, testPort)) {
				t.Errorf("b sends to %v", ep)
			}
		}
		if n := a.Status().Handshakes.Completed; n != 1 {
			t.Errorf("%d handshakes", n)
		}
	})
}
