package tunnel

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport/transporttest"
)

// laptop is a machine that is suspended now and then.
type laptop struct {
	*node
	wakes chan time.Duration
}

func newLaptop(t *testing.T, network *transporttest.Network, more ...func(*Options)) *laptop {
	t.Helper()
	l := &laptop{wakes: make(chan time.Duration)}
	addr := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	l.node = newNodeOn(t, network.Host(addr), addr, 1, append(more, func(o *Options) {
		o.Sleep = func(stop <-chan struct{}, woke func(time.Duration)) {
			for {
				select {
				case d := <-l.wakes:
					woke(d)
				case <-stop:
					return
				}
			}
		}
	})...)
	return l
}

// suspend has time pass everywhere else, in whole seconds.
func (l *laptop) suspend(d time.Duration) {
	for ; d > 0; d -= time.Second {
		time.Sleep(time.Second)
		l.clock.advance(-time.Second) // its clock stands still
	}
}

func greets(o *Options) { o.Greet = true }

// A machine that was suspended for longer than a session lasts does not use it any more. On the native wire it calls its peers at once; a
// peer on WireGuard's wire that is kept in touch with is called as well.
func TestWakingFromALongSleep(t *testing.T) {
	keepalive := 25 * time.Second
	for _, c := range []struct {
		name   string
		change func(*PeerChange)
		told   bool // that it was suspended
		calls  int
	}{
		{"native, told", onNativeWire, true, 1},
		{"native, not told", onNativeWire, false, 0},
		{"WireGuard", func(*PeerChange) {}, true, 0},
		{"WireGuard with a keepalive", func(p *PeerChange) { p.Keepalive = &keepalive }, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newLaptop(t, network, greets), newNode(t, network, 2)
				b.addPeerNode(a.node, false, func(p *PeerChange) { c.change(p); p.Keepalive = nil })
				a.addPeerNode(b, true, c.change)
				a.send(b, "first")
				b.expect("first")
				time.Sleep(20 * time.Second)
				l := watch(network, a.node)
				a.suspend(session.EraseAfter + time.Minute)
				if !a.tunnelPeer(b).current.Load().maySend(a.clock.now()) || len(l.all()) != 0 {
					t.Fatal("it was not suspended: the test proves nothing")
				}
				if c.told {
					a.wakes <- session.EraseAfter + time.Minute
				}
				time.Sleep(100 * time.Millisecond)
				if n := len(l.times("a", noise.TypeInitiation)) + len(l.times("a", noise.TypeHybridInitiation)); n != c.calls {
					t.Errorf("it calls %d times, want %d", n, c.calls)
				}
				a.send(b, "from it")
				time.Sleep(100 * time.Millisecond)
				if c.told {
					b.expect("from it")
				} else {
					b.expect() // not before 15 s of silence have passed
				}
			})
		})
	}
}

// After a short sleep the session goes on, and the peer is told at once where this end is now.
func TestWakingFromAShortSleep(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(wire.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newLaptop(t, network, greets), newNode(t, network, 2)
				on := func(p *PeerChange) { p.Wire = &wire }
				b.addPeerNode(a.node, false, on)
				a.addPeerNode(b, true, on)
				a.send(b, "first")
				b.expect("first")
				time.Sleep(20 * time.Second)
				a.suspend(time.Minute)
				l := watch(network, a.node)
				a.wakes <- time.Minute
				synctest.Wait()
				if n := len(l.times("a", noise.TypeData)); n == 0 {
					t.Error("it says nothing")
				}
				if n := len(l.times("a", noise.TypeInitiation)) + len(l.times("a", noise.TypeHybridInitiation)); n != 0 {
					t.Error("it makes another session")
				}
				// What is left of the session's time is less by what it slept through.
				if age := a.clock.now() - a.tunnelPeer(b).current.Load().Created; age < 80*time.Second {
					t.Errorf("the session is %v old", age)
				}
			})
		})
	}
}

// A stream is not waited for that the far end has given up.
func TestWakingOverTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		time.Sleep(2 * time.Second)
		w.client.woke(time.Hour)
		w.client.send(w.server, "again")
		time.Sleep(time.Second)
		w.server.expect("again")
		w.expectOver(true, true)
		if n := len(w.tcp.Dials()); n != 2 {
			t.Errorf("dialled %d times", n)
		}
	})
}

// Ten thousand peers that are added at once are called one after the other.
func TestManyPeersAreGreetedBySpreading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 640 // 64 in 333 ms
		network := transporttest.New(1)
		a := newLaptop(t, network, greets).node
		random := rand.New(rand.NewPCG(1, 2))
		a.jitter = func() time.Duration { return time.Duration(random.Int64N(int64(session.MaxRetryJitter))) }
		change := manyPeers(Culvert, 0, peers)
		keepalive := 25 * time.Second
		for i := range change.Peers {
			change.Peers[i].Keepalive = &keepalive
		}
		l := watch(network, a)
		a.configure(change)
		time.Sleep(900 * time.Millisecond) // before the first are called again
		if n := len(l.times("a", noise.TypeHybridInitiation)); n < 100 || n > 300 {
			t.Errorf("%d of %d are called in 0.9 s, which should be about 173", n, peers)
		}
		time.Sleep(4 * time.Second)
		called := 0
		for _, p := range a.snapshotPeers() {
			if p.lastInitiation.Load() != 0 {
				called++
			}
		}
		if called != peers {
			t.Errorf("%d of %d are called", called, peers)
		}
	})
}

// Peers on WireGuard's wire do not answer when they are told where this end is now: it is repeated.
func TestAnnouncementIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPairOn(t, WireGuard, network)
		a.send(b, "first")
		b.expect("first")
		b.send(a, "answer")
		a.expect("answer")
		time.Sleep(time.Minute)
		b.host.SetAddrs()
		synctest.Wait()
		network.SetDefaultLink(transporttest.Link{Loss: 1})
		b.host.SetAddrs(netip.MustParseAddr("192.0.2.77"))
		time.Sleep(time.Second)
		network.SetDefaultLink(transporttest.Link{})
		time.Sleep(announceAgain)
		a.send(b, "it has followed")
		b.expect("it has followed")
	})
}
