package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/crypto/tai64n"
	"culvert/transport"
	"culvert/transport/transporttest"
)

func TestHandshakeFailingIsToldWithAndWithoutTraffic(t *testing.T) {
	for _, every := range []time.Duration{0, 10 * time.Millisecond, time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newPair(t, network)
				calls := make(chan crypto.PublicKey, 100)
				a.options.HandshakeFailing = func(k crypto.PublicKey) { calls <- k }
				network.SetLink(a.host, b.host, transporttest.Link{Loss: 1})
				l := watch(network, a)
				a.send(b, "nobody answers")
				for range 60 {
					if every == 0 {
						time.Sleep(time.Second)
						continue
					}
					for range time.Second / every {
						a.send(b, "still nobody")
						time.Sleep(every)
					}
				}
				synctest.Wait()
				if n := len(l.times("a", noise.TypeInitiation)); n < 11 || len(calls) != n-1 {
					t.Errorf("%d initiations, told of %d failures", n, len(calls))
				}
				if k := <-calls; k != b.public {
					t.Errorf("told of %v", k)
				}
			})
		})
	}
}

// Two ends that began at once are each the initiator of the session they send under; they must not begin at once for ever,
// nor lose packets each time.
func TestCrossedHandshakesUncross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNode(t, network, 1), newNode(t, network, 2)
		a.addPeerNode(b, true)
		b.addPeerNode(a, true)
		network.SetLink(a.host, b.host, transporttest.Link{Delay: 50 * time.Millisecond})
		l := watch(network, a)
		l.reset()
		rekeys := 0
		lost := 0
		for range 4 {
			start := time.Now()
			before := len(l.times("a", noise.TypeInitiation)) + len(l.times("b", noise.TypeInitiation))
			sent := 0
			for time.Since(start) < session.RekeyAfterTime+15*time.Second {
				a.send(b, "x")
				b.send(a, "y")
				sent++
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(100 * time.Millisecond)
			lost = 2*sent - len(a.received()) - len(b.received())
			rekeys = len(l.times("a", noise.TypeInitiation)) + len(l.times("b", noise.TypeInitiation)) - before
		}
		if rekeys != 1 || lost != 0 {
			t.Errorf("the last rekey took %d initiations and lost %d packets", rekeys, lost)
		}
	})
}

func TestHandshakeQueuedWhenTheInterfaceWentDownMakesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		var kept []byte
		remove := network.Tap(func(p *transporttest.Packet) {
			if kind, _ := noise.MessageType(p.Data); kind == noise.TypeInitiation && kept == nil {
				kept = append(kept, p.Data...)
				p.Drop = true
			}
		})
		a.send(b, "late")
		synctest.Wait()
		remove()
		b.dev.SetUp(false)
		synctest.Wait()
		m := handshakeMessage{size: len(kept)}
		m.endpoint.Remote = a.addrPort()
		copy(m.bytes[:], kept)
		b.handshakes <- m
		synctest.Wait()
		if b.usedIndices() != 0 || b.tunnelPeer(a).lastInitiation.Load() != 0 {
			t.Error("a session came up on an interface that is down")
		}
		b.dev.SetUp(true)
		a.received()
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		b.expect("late")
	})
}

func TestChangedMarkForgetsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, _ := established(t)
		if !b.tunnelPeer(a).endpoint.Load().Source.IsValid() {
			t.Fatal("no sticky source to forget")
		}
		mark := uint32(7)
		b.configure(Change{Mark: &mark})
		if got := b.tunnelPeer(a).endpoint.Load(); got.Source.IsValid() || got.Remote != a.addrPort() {
			t.Errorf("endpoint %+v", got)
		}
	})
}

func TestTimestampsRiseWhenTheClockIsSetBack(t *testing.T) {
	var p peer
	wall := time.Unix(1_700_000_000, 0)
	var last tai64n.Timestamp
	for _, step := range []time.Duration{0, 5 * time.Second, -time.Hour, 5 * time.Second, 2 * time.Hour, 0, 1} {
		wall = wall.Add(step)
		ts := p.nextTimestamp(wall)
		if !ts.After(last) {
			t.Fatalf("after a step of %v: %v is not later than %v", step, ts.Time(), last.Time())
		}
		last = ts
	}
	if d := last.Time().Sub(wall); d < -time.Second || d > time.Second {
		t.Errorf("%v off the wall clock", d)
	}
}

func TestSecretsOfRemovedPeersAreErased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, _ := established(t)
		psk, _ := crypto.GeneratePresharedKey()
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, PresharedKey: &psk}}})
		p := a.tunnelPeer(b)
		remote := p.remote
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Remove: true}}})
		if !p.psk.IsZero() || p.remote != nil || p.current.Load() != nil {
			t.Error("secrets are left")
		}
		if _, _, err := remote.Initiate(nil, 1, tai64n.From(time.Now()), crypto.GeneratePrivateKey); err == nil {
			t.Error("the static keys' shared secret is left")
		}
	})
}

func TestPortThatCannotBeOpenedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		back := make(chan struct{}, 10)
		a.options.LinkUp = func() { back <- struct{}{} }
		a.dev.SetUp(false)
		synctest.Wait()
		squatter, err := a.host.Open(transport.Options{Port: testPort})
		if err != nil {
			t.Fatal(err)
		}
		a.dev.SetUp(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if a.Status().Up {
			t.Fatal("up on a port that another has")
		}
		squatter.Close()
		time.Sleep(retryPortEvery)
		a.send(b, "open again")
		b.expect("open again")
		if len(back) != 1 {
			t.Errorf("told %d times that the link is back", len(back))
		}
	})
}
