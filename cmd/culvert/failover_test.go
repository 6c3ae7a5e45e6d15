package main

import (
	"slices"
	"testing"
	"time"

	"culvert/crypto"
)

// The first server is used while it answers, the next that does where it is silent, and a better one again once it answers; asking costs one
// message every two seconds, and nothing where there is one server.
func TestServerOrder(t *testing.T) {
	a, b, c := crypto.PublicKey{1}, crypto.PublicKey{2}, crypto.PublicKey{3}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var o serverOrder
	// run lets seconds pass in which some answer; it returns who was asked, in all.
	run := func(seconds int, alive ...crypto.PublicKey) map[crypto.PublicKey]int {
		asked := map[crypto.PublicKey]int{}
		for end := now.Add(time.Duration(seconds) * time.Second); now.Before(end); now = now.Add(100 * time.Millisecond) {
			list := slices.Clone(o.due(now))
			for _, key := range list {
				asked[key]++
			}
			slices.Reverse(list) // whoever answers first
			for _, key := range list {
				if slices.Contains(alive, key) {
					o.answered(key, now)
				}
			}
		}
		return asked
	}
	uses := func(what string, want crypto.PublicKey) {
		t.Helper()
		if got, ok := o.use(); !ok || got != want {
			t.Errorf("%s: %v is used, %v", what, got[:1], ok)
		}
	}
	if _, ok := o.use(); ok || !o.next().IsZero() {
		t.Error("a server of none is used")
	}
	o.set([]crypto.PublicKey{a}, now)
	if asked := run(60, a); len(asked) != 0 || !o.next().IsZero() {
		t.Errorf("one server alone is asked: %v", asked)
	}
	uses("alone", a)
	if o.answered(b, now) {
		t.Error("a stranger's answer counts")
	}
	now = now.Add(time.Hour)
	o = serverOrder{}
	o.set([]crypto.PublicKey{a, b, c}, now)
	if asked := run(60, a, b, c); asked[a] != 30 || asked[b] != 0 || asked[c] != 0 {
		t.Errorf("all answer: asked %v", asked)
	}
	uses("all answer", a)
	if o.answered(c, now) {
		t.Error("one that was not asked takes over")
	}
	run(4)
	uses("silent for 4 s", a)
	run(5, b, c)
	if got, _ := o.use(); got == a {
		t.Error("silent for 9 s, and still used")
	}
	run(31, c)
	uses("the third alone answers", c)
	run(31, b, c)
	uses("the second answers again", b)
	asked := run(120, b, c)
	if asked[b] < 59 || asked[a] < 3 || asked[a] > 5 || asked[c] != 0 {
		t.Errorf("asked %v", asked)
	}
	run(31, a, b, c)
	uses("the first answers again", a)
	// Another file: who is used stays, if it is in it.
	run(9, b)
	o.set([]crypto.PublicKey{c, b}, now)
	uses("another order", b)
	o.set([]crypto.PublicKey{c, a}, now)
	uses("taken out", c)
}
