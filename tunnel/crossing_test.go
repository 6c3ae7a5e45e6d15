package tunnel

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/session"
	"culvert/transport/transporttest"
)

// Both ends begin at once, so their handshakes cross: each then sends under its own session. Nothing may be lost by that, at
// once, at the next rekeying, or when it happens again.

// bothWays sends packets between two nodes that know each other's endpoints, and counts those that are lost.
type bothWays struct {
	a, b        *node
	there, back *ledger
}

func newBothWays(t *testing.T, wire Wire, seed uint64, link transporttest.Link) bothWays {
	network := transporttest.New(seed)
	network.SetDefaultLink(link)
	a, b := newPairOn(t, wire, network)
	on := func(c *PeerChange) { c.Wire = &wire }
	a.addPeerNode(b, true, on)
	b.addPeerNode(a, true, on)
	synctest.Wait()
	return bothWays{a, b, newLedger(t, a, b, 0), newLedger(t, b, a, 0)}
}

// send sends packets at a steady rate for a while.
func (w bothWays) send(d, every time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
		w.there.send()
		w.back.send()
		time.Sleep(every)
		if w.there.sent%200 == 0 {
			w.there.collect()
			w.back.collect()
		}
	}
}

// expectNoLoss fails if anything sent has not come.
func (w bothWays) expectNoLoss(t *testing.T) {
	t.Helper()
	time.Sleep(time.Second)
	if lost := w.there.sent - w.there.collect() + w.back.sent - w.back.collect(); lost != 0 {
		t.Errorf("%d packets lost; drops %v and %v", lost, w.a.Status().Drops, w.b.Status().Drops)
	}
}

const twoRekeyings = 2*session.RekeyAfterTime + 20*time.Second

// The first rekeying must not discard the session under which the far end still sends.
func TestRekeyAfterCrossing(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(wire.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBothWays(t, wire, 1, transporttest.Link{Delay: 20 * time.Millisecond})
				w.send(twoRekeyings, 5*time.Millisecond)
				w.expectNoLoss(t)
			})
		})
	}
}

// A path with jitter orders the messages of crossing handshakes in all ways.
func TestCrossingOnAPathWithJitter(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBothWays(t, Culvert, seed, transporttest.Link{Delay: 20 * time.Millisecond, Jitter: 60 * time.Millisecond})
				w.send(twoRekeyings, 10*time.Millisecond)
				w.expectNoLoss(t)
			})
		})
	}
}

// Handshakes that cross twice in a row leave both ends with sessions that the other has.
func TestCrossingTwice(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(wire.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBothWays(t, wire, 1, transporttest.Link{Delay: 20 * time.Millisecond})
				for range 3 {
					w.send(2*time.Second, 100*time.Millisecond)
					time.Sleep(5 * time.Minute) // the sessions are over
				}
				w.expectNoLoss(t)
			})
		})
	}
}
