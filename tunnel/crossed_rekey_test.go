package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/session"
	"culvert/transport/transporttest"
)

// After both ends began at once each sends under its own session. The first rekeying must not discard the one under which the far end
// still sends.
func TestRekeyAfterBothStartedAtOnceLosesNothing(t *testing.T) {
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
				start := time.Now()
				for time.Since(start) < 2*session.RekeyAfterTime+20*time.Second {
					there.send()
					back.send()
					time.Sleep(5 * time.Millisecond)
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
