package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
)

// After both ends began at once each sends under the session that it began, its goodbye as well.
func TestGoodbyeAfterCrossing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBothWays(t, Culvert, 1, transporttest.Link{Delay: 20 * time.Millisecond})
		w.send(time.Second, 5*time.Millisecond)
		w.expectNoLoss(t)
		p, q := w.a.tunnelPeer(w.b), w.b.tunnelPeer(w.a)
		if p.previous == nil || !p.previous.crossed.Load() || q.previous == nil || !q.previous.crossed.Load() {
			t.Fatal("the handshakes have not crossed: the test proves nothing")
		}
		w.b.Close()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if p.current.Load() != nil || p.previous != nil {
			t.Error("the sessions outlive the peer's goodbye")
		}
	})
}
