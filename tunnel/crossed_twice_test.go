package tunnel

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/session"
	"culvert/transport/transporttest"
)

// A path with jitter orders the messages of crossing handshakes in all ways; nothing is lost on it, then or at the rekeyings.
func TestCrossingOnAPathWithJitter(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(seed)
				network.SetDefaultLink(transporttest.Link{Delay: 20 * time.Millisecond, Jitter: 60 * time.Millisecond})
				a, b := newNativePair(t, network)
				knowEachOther(a, b)
				there, back := newLedger(t, a, b, 0), newLedger(t, b, a, 0)
				start := time.Now()
				for time.Since(start) < 2*session.RekeyAfterTime+20*time.Second {
					there.send()
					back.send()
					time.Sleep(10 * time.Millisecond)
					if there.sent%200 == 0 {
						there.collect()
						back.collect()
					}
				}
				time.Sleep(time.Second)
				if lost := there.sent - there.collect() + back.sent - back.collect(); lost != 0 {
					t.Errorf("%d packets lost; drops %v and %v", lost, a.Status().Drops, b.Status().Drops)
				}
			})
		})
	}
}

// Handshakes that cross twice in a row leave both ends with sessions that the other has.
func TestCrossingTwice(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(wire.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				network.SetDefaultLink(transporttest.Link{Delay: 20 * time.Millisecond})
				a, b := newPairOn(t, wire, network)
				a.addPeerNode(b, true, func(c *PeerChange) { c.Wire = &wire })
				b.addPeerNode(a, true, func(c *PeerChange) { c.Wire = &wire })
				synctest.Wait()
				there, back := newLedger(t, a, b, 0), newLedger(t, b, a, 0)
				for range 3 {
					for range 20 {
						there.send()
						back.send()
						time.Sleep(100 * time.Millisecond)
					}
					time.Sleep(5 * time.Minute) // the sessions are over
				}
				if lost := there.sent - there.collect() + back.sent - back.collect(); lost != 0 {
					t.Errorf("%d packets lost; drops %v and %v", lost, a.Status().Drops, b.Status().Drops)
				}
			})
		})
	}
}
