package exchange

import (
	"testing"
	"time"
)

func accept(t *testing.T, r *Receiver, session, number uint64, now time.Duration, act, ack bool) {
	t.Helper()
	if a, b := r.Accept(session, number, now); a != act || b != ack {
		t.Fatalf("session %d number %d at %v: act %v ack %v, want %v %v", session, number, now, a, b, act, ack)
	}
}

func TestAccept(t *testing.T) {
	var r Receiver
	accept(t, &r, 0, 1, 1, false, false)
	r.Restart(1)
	accept(t, &r, 1, 0, 1, false, false)
	accept(t, &r, 1, 2, 1, false, false)
	accept(t, &r, 1, 1, 1, true, true)
	accept(t, &r, 1, 1, 1, false, true)
	r.Restart(1)
	accept(t, &r, 1, 1, 1, false, true)
	accept(t, &r, 1, 3, 1, false, false)
	accept(t, &r, 1, 1<<64-1, 1, false, false)
	accept(t, &r, 1, 2, 1, true, true)
	accept(t, &r, 1, 1, 1, false, false)
	accept(t, &r, 2, 1, 1, false, false)
}

func TestSessionLeft(t *testing.T) {
	var r Receiver
	r.Restart(1)
	accept(t, &r, 1, 1, 1, true, true)
	r.Restart(2)
	accept(t, &r, 1, 2, 2, true, true) // the peer has not gone over yet
	accept(t, &r, 2, 1, 3, true, true)
	accept(t, &r, 1, 3, 4, false, false)
	accept(t, &r, 1, 2, 4, false, false)
	r.Restart(1) // known and left
	accept(t, &r, 1, 1, time.Hour, false, false)
	accept(t, &r, 2, 2, time.Hour, true, true)
}

// TestSessionsOrderedDifferently: both ends made a session at once. The peer uses 2 and then 1.
func TestSessionsOrderedDifferently(t *testing.T) {
	var r Receiver
	r.Restart(1)
	r.Restart(2)
	accept(t, &r, 2, 1, 1, true, true)
	accept(t, &r, 1, 1, lateMax, false, false) // might be late, and is sent again
	accept(t, &r, 1, 1, lateMax+1, true, true)
	accept(t, &r, 2, 2, lateMax+2, false, false)
	accept(t, &r, 1, 2, lateMax+2, true, true)
}

func TestOldestSessionIsForgotten(t *testing.T) {
	var r Receiver
	for s := range uint64(sessions + 1) {
		r.Restart(s)
		if s == 0 {
			accept(t, &r, 0, 1, 1, true, true)
		}
	}
	accept(t, &r, 0, 1, 2, false, false)
	accept(t, &r, 0, 2, 2, false, false)
	accept(t, &r, 1, 1, 2, true, true)
}
