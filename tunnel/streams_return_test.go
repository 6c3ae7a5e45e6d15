package tunnel

import (
	"testing"
	"testing/synctest"
	"time"
)

// Handshakes that cross over a stream leave each end sending under the session it began: the far end's move back to datagrams is followed all the same.
func TestReturnsAfterHandshakesCrossedOnAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		w.expectOver(true, true)
		time.Sleep(2 * time.Second)
		for _, p := range []*peer{w.client.tunnelPeer(w.server), w.server.tunnelPeer(w.client)} {
			p.mu.Lock()
			p.lastInitiation.Store(0)
			p.mu.Unlock()
			p.wantHandshake.Store(true)
			p.tunnel.attention.add(p)
		}
		time.Sleep(time.Second)
		w.exchange(time.Second)
		c, s := w.client.tunnelPeer(w.server).current.Load(), w.server.tunnelPeer(w.client).current.Load()
		if !c.Initiator || !s.Initiator {
			t.Fatalf("they have not crossed: %v, %v", c.Initiator, s.Initiator)
		}
		w.block(false, false)
		time.Sleep(35 * time.Second)
		w.exchange(time.Second)
		w.expectOver(false, false)
	})
}

// What the far end sent over the stream just before it learned of the return does not take the end that left it back there, where it would
// stay.
func TestTrafficOnItsWayDoesNotUndoTheReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		w.block(false, false)
		for range 32_000 { // 32 s, with the return at 30
			w.client.send(w.server, "x")
			w.server.send(w.client, "x")
			time.Sleep(time.Millisecond)
			w.client.received()
			w.server.received()
		}
		w.expectOver(false, false)
	})
}
