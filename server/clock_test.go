package server

import (
	"testing"
	"time"
)

// A clock that goes far ahead and comes back, over a restart too: clients keep their addresses; an invitation that ended in the wrong
// future has ended.
func TestClockOfAServer(t *testing.T) {
	w := newWorld(t)
	alice := w.add("alice")
	invitation := w.invited("bob", "")
	tick := func(to time.Time) {
		t.Helper()
		w.now = to
		if _, err := w.server.Expire(w.now); err != nil {
			t.Fatal(err)
		}
		w.open()
		if got := w.addresses("alice"); got != alice {
			t.Fatalf("at %v alice has %s, not %s", w.now, got, alice)
		}
	}
	tick(start.Add(-50 * 365 * 24 * time.Hour))
	if n := len(w.server.Invitations(w.now)); n != 1 {
		t.Errorf("%d invitations before they were made", n)
	}
	tick(start)
	if a, ok := w.enrol(invitation, newKey(t)); !ok || !a.Accepted {
		t.Errorf("with the clock right again: %+v", a)
	}
	bob := w.addresses("bob")
	again := w.invited("carol", "")
	tick(start.Add(30 * 365 * 24 * time.Hour))
	tick(start)
	if w.addresses("bob") != bob {
		t.Errorf("bob has %s, not %s", w.addresses("bob"), bob)
	}
	if a, ok := w.enrol(again, newKey(t)); ok && a.Accepted {
		t.Error("an invitation that had ended is taken")
	}
	if w.add("dave") == "" {
		t.Error("no addresses for the next")
	}
}
