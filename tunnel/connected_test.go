package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
)

// hasSession is what the node's status says of its session with its one peer.
func (a *node) hasSession() bool {
	a.t.Helper()
	synctest.Wait()
	peers := a.Status().Peers
	if len(peers) != 1 {
		a.t.Fatalf("%d peers", len(peers))
	}
	return peers[0].Session
}

// A status tells of a session for as long as there is one to send under, also where the wall clock has been set meanwhile.
func TestStatusTellsOfSessions(t *testing.T) {
	for _, step := range []time.Duration{0, -time.Hour, time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newNativePair(t, transporttest.New(1))
				if a.hasSession() || b.hasSession() {
					t.Error("a session before the first handshake")
				}
				skew := a.setClock()
				a.send(b, "one")
				b.expect("one")
				skew.Store(int64(step))
				if !a.hasSession() || !b.hasSession() {
					t.Error("no session after a handshake")
				}
				time.Sleep(170 * time.Second)
				if !a.hasSession() {
					t.Error("no session after 170 s")
				}
				time.Sleep(11 * time.Second)
				if a.hasSession() {
					t.Error("a session after 181 s")
				}
			})
		})
	}
}

// After a goodbye there is no session, whatever the latest handshake was.
func TestStatusAfterAGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNativePair(t, transporttest.New(1))
		a.send(b, "one")
		b.expect("one")
		a.Close()
		if b.hasSession() || b.Status().Peers[0].LastHandshake.IsZero() {
			t.Errorf("after a goodbye: %+v", b.Status().Peers[0])
		}
	})
}
