package apply_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"culvert/setup/apply"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

const seeds = 100

// forSeeds runs a test with random numbers of many seeds. A failing seed is in the name of the subtest.
func forSeeds(t *testing.T, n int, f func(t *testing.T, r *rand.Rand)) {
	for seed := range n {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { t.Parallel(); f(t, rand.New(rand.NewPCG(uint64(seed), 1))) })
	}
}

func TestApplyTwiceThenDestroy(t *testing.T) {
	forSeeds(t, seeds, func(t *testing.T, r *rand.Rand) {
		b, s := newBench(t), randomSpec(r)
		before := b.kernel.All()
		b.apply(s)
		b.settled(s)
		b.destroy()
		b.same(before, "destroyed")
	})
}

func TestChange(t *testing.T) {
	forSeeds(t, seeds, func(t *testing.T, r *rand.Rand) {
		b := newBench(t)
		before := b.kernel.All()
		for range 4 {
			s := randomSpec(r)
			b.apply(s)
			b.settled(s)
		}
		b.destroy()
		b.same(before, "destroyed")
	})
}

// TestFailureGoesBack has every step of a change fail, at each of its points: once, which is no failure of a link that is deleted together
// with others, as it is deleted by itself then; and again where it is tried again.
func TestFailureGoesBack(t *testing.T) {
	forSeeds(t, 6, func(t *testing.T, r *rand.Rand) {
		t.Run("once", func(t *testing.T) { failureGoesBack(t, randomSpec(r), randomSpec(r), 1) })
		t.Run("twice", func(t *testing.T) { failureGoesBack(t, randomSpec(r), randomSpec(r), 2) })
	})
}

func failureGoesBack(t *testing.T, first, second *spec.Spec, times int) {
	for _, at := range []kerneltest.When{kerneltest.Before, kerneltest.Halfway, kerneltest.After} {
		for k := 0; ; k++ {
			b := newBench(t)
			foreign := b.kernel.All()
			b.apply(first)
			before, base := b.kernel.All(), len(b.kernel.Steps)
			failing, failures := model.ID(""), 0
			b.kernel.Fail = func(s *plan.Step, n int, when kerneltest.When) bool {
				first := n == base+k && failures == 0 && when == at
				again := s.ID == failing && s.Op == plan.Delete && failures < times && when == at
				if first && s.Op == plan.Delete {
					failing = s.ID
				}
				if first || again {
					failures++
				}
				return first || again
			}
			var failed error
			b.with(func(e *apply.Engine) { _, failed = e.Apply(t.Context(), model.Expand(second)) })
			if failed == nil && len(b.kernel.Steps) <= base+k {
				break
			}
			b.kernel.Fail = nil
			when := fmt.Sprintf("failed at %d of step %d", at, k)
			if failed != nil { // a step without that point does not fail
				f, ok := errors.AsType[*apply.FailedError](failed)
				if !ok && k > 0 || ok && (len(f.Residue) > 0 || f.Rollback != nil) || !errors.Is(failed, kerneltest.ErrInjected) {
					t.Fatalf("%s: %v", when, failed)
				}
				b.same(before, when)
			}
			b.apply(second)
			b.settled(second)
			b.destroy()
			b.same(foreign, when+", destroyed")
			if t.Failed() {
				return
			}
		}
	}
}

// TestKilled ends the process at each point of every step.
func TestKilled(t *testing.T) {
	forSeeds(t, 6, func(t *testing.T, r *rand.Rand) {
		first, second := randomSpec(r), randomSpec(r)
		for _, at := range []kerneltest.When{kerneltest.Before, kerneltest.Halfway, kerneltest.After} {
			for _, repair := range []string{"apply", "destroy"} {
				for k := 0; ; k++ {
					b := newBench(t)
					foreign := b.kernel.All()
					b.apply(first)
					base := len(b.kernel.Steps)
					b.kernel.Kill = func(_ *plan.Step, n int, when kerneltest.When) bool { return n == base+k && when == at }
					killed := b.with(func(e *apply.Engine) {
						if _, err := e.Apply(t.Context(), model.Expand(second)); err != nil {
							t.Fatal(err)
						}
					})
					b.kernel.Kill = nil
					if !killed && len(b.kernel.Steps) <= base+k {
						break
					}
					when := fmt.Sprintf("killed at %d of step %d, then %s", at, k, repair)
					if repair == "apply" {
						b.apply(second)
						b.settled(second)
					}
					b.destroy()
					b.same(foreign, when)
					if t.Failed() {
						return
					}
				}
			}
		}
	})
}

// TestLostJournal: what carries a mark is found without.
func TestLostJournal(t *testing.T) {
	forSeeds(t, 60, func(t *testing.T, r *rand.Rand) {
		b, s := newBench(t), randomSpec(r)
		b.apply(s)
		b.dir += "/lost/test" // beside no other
		b.settled(s)
		b.destroyAfterAdoption(s)
	})
}

func (b *bench) destroyAfterAdoption(s *spec.Spec) {
	b.Helper()
	b.apply(s)
	b.destroy()
	for id, o := range b.kernel.Objects {
		if o.Group == model.Group {
			b.Errorf("%s is left", id)
		}
	}
}

func TestStaleJournalOfAnotherBoot(t *testing.T) {
	b := newBench(t)
	s := randomSpec(rand.New(rand.NewPCG(7, 7)))
	b.apply(s)
	b.kernel = foreignWorld()
	b.kernel.Boot = "boot-2"
	before := b.kernel.All()
	b.with(func(e *apply.Engine) {
		r, err := e.Apply(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Steps) != 0 || len(r.Notes) != 1 {
			t.Errorf("steps %v, notes %q", r.Steps, r.Notes)
		}
	})
	b.same(before, "after a boot")
	b.apply(s)
	b.settled(s)
	b.destroy()
	b.same(before, "destroyed")
}

func TestConflictTouchesNothing(t *testing.T) {
	b := newBench(t)
	before := b.kernel.All()
	s := &spec.Spec{Instance: "test", Links: []spec.Link{{Key: "docker0", Type: spec.TypeBridge}, {Key: "br7", Type: spec.TypeBridge}}}
	b.with(func(e *apply.Engine) {
		_, err := e.Apply(t.Context(), model.Expand(s))
		if _, ok := errors.AsType[*apply.ConflictError](err); !ok {
			t.Errorf("error %v, want a conflict", err)
		}
	})
	b.same(before, "in conflict")
}

func TestRevertUnlessConfirmed(t *testing.T) {
	forSeeds(t, 30, func(t *testing.T, r *rand.Rand) {
		b, first, second := newBench(t), randomSpec(r), randomSpec(r)
		foreign := b.kernel.All()
		b.apply(first)
		before := b.kernel.All()
		b.with(func(e *apply.Engine) {
			res, err := e.Apply(t.Context(), model.Expand(second))
			if err == nil {
				err = e.Hold(res)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		// In another process: the first was killed.
		b.with(func(e *apply.Engine) {
			if err := e.Revert(t.Context()); err != nil && !errors.Is(err, apply.ErrNothingHeld) {
				t.Fatal(err)
			}
			if err := e.Revert(t.Context()); !errors.Is(err, apply.ErrNothingHeld) {
				t.Errorf("reverted twice: %v", err)
			}
		})
		b.same(before, "reverted")
		b.settled(first)
		b.destroy()
		b.same(foreign, "destroyed")
	})
}

func TestConfirmation(t *testing.T) {
	const start, length = 5 * time.Second, time.Minute
	c := apply.NewConfirmation(start, length)
	if c.Due(start+length-1) || c.Remaining(start) != length {
		t.Error("due before its time")
	}
	if !c.Confirm(start+length-1) || c.Due(start+2*length) {
		t.Error("due though confirmed in time")
	}
	c = apply.NewConfirmation(start, length)
	if c.Confirm(start + length) {
		t.Error("confirmed too late")
	}
	if !c.Due(start+length) || c.Due(start+length) || c.Confirm(start) {
		t.Error("due exactly once, at its time, and for good")
	}
}

// A port that is down goes up by joining a bond, though nobody declares that, and down again when it leaves, and not before.
func TestPortStaysUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before := b.kernel.All()
	s := &spec.Spec{Instance: "test", Links: []spec.Link{{Key: "eth3", External: true},
		{Key: "bond0", Type: spec.TypeBond, Bond: &spec.Bond{Mode: "active-backup"}, Ports: []spec.Port{{Link: "eth3"}}}}}
	up := func() model.Value { return b.kernel.Objects["link eth3"].Fields["up"] }
	for range 2 {
		b.apply(s)
		b.settled(s)
		if up() != "yes" {
			t.Fatal("the port is down")
		}
	}
	s.Links[1].Ports = nil
	b.apply(s)
	b.settled(s)
	if up() != "no" {
		t.Error("what is a port no longer is up")
	}
	b.destroy()
	b.same(before, "destroyed")
}
