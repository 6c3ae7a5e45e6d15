package scenes

import (
	"fmt"
	"strings"
	"testing"
)

// forFaults runs f for each case and way, on a machine on which nothing of it is applied yet.
func forFaults(t *testing.T, f func(m *machine, before snapshot, w way)) {
	t.Parallel()
	n := 0
	for _, c := range faultCases {
		if c.guest != inGuest() {
			continue
		}
		n++
		for i, name := range []string{"make", "change", "destroy"} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				c.around(m)
				before := m.settledSnapshot()
				c.begin(m)
				first := m.text
				m.edit(c.change...)
				f(m, before, ways([2]string{first, m.text})[i])
			})
		}
	}
	if n == 0 {
		t.Fatal("there are no cases")
	}
}

// set makes one of a case's states the declared one.
func (m *machine) set(text string) { m.declare(strings.TrimPrefix(m.file, m.dir+"/"), text) }

// way is one of the three ways from state to state whose steps are interfered with.
type way struct {
	name    string
	prepare func(m *machine) // from nothing to where the way begins
	command string
}

func ways(states [2]string) []way {
	first := func(m *machine) {
		m.set(states[0])
		if r, _ := m.try("apply", ""); r.Error != "" {
			m.Fatal(r.Error)
		}
	}
	return []way{
		{"make", func(m *machine) { m.set(states[0]) }, "apply"},
		{"change", func(m *machine) { first(m); m.set(states[1]) }, "apply"},
		{"destroy", func(m *machine) { first(m); m.set(states[0]) }, "destroy"},
	}
}

// A failure of any step leads back to exactly what was before it all.
func TestFailureOfEveryStep(t *testing.T) {
	forFaults(t, func(m *machine, before snapshot, w way) {
		w.prepare(m)
		start := m.settledSnapshot()
		for k := 1; ; k++ {
			r, killed := m.try(w.command, fmt.Sprint("fail ", k))
			if killed {
				m.Fatal("it was killed")
			}
			if r.Error == "" {
				if k == 1 || len(r.Steps) != k-1 {
					m.Errorf("step %d of %d never came", k, len(r.Steps))
				}
				break // there are no more steps
			}
			when := fmt.Sprintf("step %d failed (%s)", k, r.Steps[len(r.Steps)-1])
			if !r.isInjected() || !r.Undone && k > 1 {
				m.Fatalf("%s: %s", when, r.Error)
			}
			m.same(start, when)
			if m.Failed() {
				return
			}
		}
		if w.command == "apply" {
			m.settled()
		}
		m.destroyed(before)
	})
}

// Killed before or after any step, what is left is repaired by the next apply, or destroyed.
func TestKilledBetweenSteps(t *testing.T) {
	forFaults(t, func(m *machine, before snapshot, w way) {
		faults := []string{"kill", "kill-after"}
		if inGuest() {
			// Emulated processes start slowly, and what differs from kind to kind is how a step is found done that the journal calls begun.
			faults = []string{"kill-after"}
		}
		for _, fault := range faults {
			for k := 1; ; k++ {
				w.prepare(m)
				_, killed := m.try(w.command, fmt.Sprint(fault, " ", k))
				if !killed && k > 1 {
					break
				}
				if !killed {
					m.Fatal("there are no steps")
				}
				when := fmt.Sprintf("%s %d", fault, k)
				if k%2 == 0 == (fault == "kill") { // each step is repaired by apply once, and once not
					m.apply()
					m.settled()
					when += ", then apply"
				}
				m.destroy()
				m.same(before, when+", then destroy")
				if m.Failed() {
					return
				}
			}
			m.destroy()
		}
	})
}
