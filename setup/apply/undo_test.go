package apply_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"culvert/setup/apply"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// hold applies on trial.
func (p *pair) hold(instance string, s *spec.Spec) {
	p.Helper()
	c := *s
	c.Instance = instance
	p.as(instance, func(e *apply.Engine) {
		r, err := e.Apply(p.Context(), model.Expand(&c))
		if err == nil {
			err = e.Hold(r)
		}
		if err != nil {
			p.Fatal(err)
		}
	})
}

func (p *pair) revert(instance string) {
	p.Helper()
	p.as(instance, func(e *apply.Engine) {
		if err := e.Revert(p.Context()); err != nil && !errors.Is(err, apply.ErrNothingHeld) {
			p.Fatalf("%s: %v", instance, err)
		}
	})
}

// trials are what a has before a change on trial; nil is nothing.
var trials = map[string]*spec.Spec{
	"nothing before":  nil,
	"less before":     {Links: []spec.Link{{Key: "eth2", External: true, TxQueueLen: new(uint32(500))}}},
	"other before":    onPort(1300, 9e6),
	"as found before": {Links: []spec.Link{{Key: "eth2", External: true, MTU: 1500, TxQueueLen: new(uint32(500))}}},
}

// TestRevertLeavesShared undoes a change of a, which b has come to share meanwhile, killed at each point of the way back: b keeps all of it,
// and the last to go sets it back to what it was before the first.
func TestRevertLeavesShared(t *testing.T) {
	s := onPort(1400, 8e6)
	for name, first := range trials {
		t.Run(name, func(t *testing.T) {
			for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
				for n := 0; ; n++ {
					p := newPair(t)
					before := p.bench.kernel.All()
					if first != nil {
						p.apply("a", first)
					}
					p.hold("a", s)
					p.apply("b", s)
					with := p.bench.kernel.All()
					base, when := len(p.bench.kernel.Steps), kerneltest.When(n%3)
					p.bench.kernel.Kill = func(_ *plan.Step, at int, w kerneltest.When) bool { return at == base+n/3 && w == when }
					killed := p.as("a", func(e *apply.Engine) {
						if err := e.Revert(t.Context()); err != nil {
							t.Fatal(err)
						}
					})
					p.bench.kernel.Kill = nil
					p.revert("a")
					p.bench.same(with, "undone")
					p.settled("b", s)
					if first == nil {
						p.as("a", func(e *apply.Engine) {
							if !e.Journal.State().IsEmpty() {
								t.Errorf("a still knows %v", e.Journal.State().IDs())
							}
						})
					}
					for i, instance := range order {
						p.apply(instance, nil)
						if i == 0 && instance == "a" {
							p.settled("b", s)
						}
					}
					p.bench.same(before, "both are destroyed")
					p.nothingLeft("both are destroyed")
					if t.Failed() {
						t.Fatalf("%v, killed at %d", order, n)
					}
					if !killed && n%3 == 0 {
						break
					}
				}
			}
		})
	}
}

// TestRevertTakesItsOwn: what nobody shares goes, and what is on a device that goes.
func TestRevertTakesItsOwn(t *testing.T) {
	p := newPair(t)
	before := p.bench.kernel.All()
	s := onPort(1400, 8e6)
	s.Links = append(s.Links, spec.Link{Key: "br7", Type: spec.TypeBridge, Addresses: []spec.Address{{Prefix: netip.MustParsePrefix("10.8.0.1/24")}}},
		spec.Link{Key: "ifb7", Type: spec.TypeIfb})
	redirect := spec.Shaping{Source: "eth1", IngressTo: "ifb7"}
	s.Shaping = append(s.Shaping, redirect)
	less := onPort(1400, 8e6)
	less.Rules = nil
	less.Links = append(less.Links, spec.Link{Key: "br7", External: true, Addresses: []spec.Address{{Prefix: netip.MustParsePrefix("10.8.0.1/24")}}},
		spec.Link{Key: "ifb7", External: true})
	less.Shaping = append(less.Shaping, redirect)
	p.hold("a", s)
	p.apply("b", less)
	p.revert("a")
	for _, id := range []model.ID{"link br7", "link ifb7", model.FilterID("eth1", "ingress", "1"), "address br7 10.8.0.1/24", model.RuleID("", "4", "1000")} {
		if p.bench.kernel.Objects[id] != nil {
			t.Errorf("%s is left", id)
		}
	}
	p.apply("b", onPortWithoutRule())
	p.apply("b", nil)
	p.bench.same(before, "destroyed")
	p.nothingLeft("destroyed")
}

func onPortWithoutRule() *spec.Spec {
	s := onPort(1400, 8e6)
	s.Rules = nil
	return s
}

// TestFailureLeavesShared has each step of a fail just after b has applied the same.
func TestFailureLeavesShared(t *testing.T) {
	s := onPort(1400, 8e6)
	for name, first := range trials {
		t.Run(name, func(t *testing.T) {
			for k := 0; ; k++ {
				p := newPair(t)
				before := p.bench.kernel.All()
				if first != nil {
					p.apply("a", first)
				}
				base, came := len(p.bench.kernel.Steps), false
				var refused error
				p.bench.kernel.Fail = func(_ *plan.Step, n int, when kerneltest.When) bool {
					if came || n != base+k || when != kerneltest.Before {
						return false
					}
					came = true
					refused = p.try("b", s)
					return true
				}
				err := p.try("a", s)
				p.bench.kernel.Fail = nil
				if !came {
					if err != nil || k == 0 {
						t.Fatalf("after %d steps: %v", k, err)
					}
					break
				}
				if f, ok := errors.AsType[*apply.FailedError](err); !ok || len(f.Residue) > 0 || f.Rollback != nil {
					t.Fatalf("step %d: %v", k, err)
				}
				if _, conflict := errors.AsType[*apply.ConflictError](refused); refused != nil && (!conflict || first == nil) {
					t.Fatalf("step %d: b: %v", k, refused)
				}
				if refused == nil && name != "as found before" { // where a, undone, says another MTU than b again: a conflict of both
					p.settled("b", s)
				}
				if mtu := p.bench.kernel.Objects["link eth2"].Fields["mtu"]; refused == nil && mtu != "1400" {
					t.Errorf("the MTU is %s", mtu)
				}
				p.apply("b", nil)
				p.apply("a", nil)
				p.bench.same(before, fmt.Sprintf("step %d failed, both are destroyed", k))
				p.nothingLeft("both are destroyed")
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestRevertAtOnce: one that comes while the other is undone either shares, or waits its turn.
func TestRevertAtOnce(t *testing.T) {
	s := onPort(1400, 8e6)
	for range 50 {
		p := newPair(t)
		before := p.bench.kernel.All()
		p.hold("a", s)
		var mu sync.Mutex
		var both sync.WaitGroup
		both.Go(func() {
			p.as("a", func(e *apply.Engine) {
				e.Kernel = oneAtATime{p.bench.kernel, &mu}
				if err := e.Revert(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
		var refused error
		both.Go(func() {
			c := *s
			c.Instance = "b"
			p.as("b", func(e *apply.Engine) {
				e.Kernel = oneAtATime{p.bench.kernel, &mu}
				_, refused = e.Apply(t.Context(), model.Expand(&c))
			})
		})
		both.Wait()
		if refused == nil {
			p.settled("b", s)
		}
		p.apply("b", s)
		p.settled("b", s)
		p.apply("b", nil)
		p.bench.same(before, "destroyed")
		p.nothingLeft("destroyed")
		if t.Failed() {
			return
		}
	}
}

// during is a preflight in which something else happens.
type during func()

func (f during) Try(context.Context, []plan.Step) ([]apply.Missing, error) {
	f()
	return nil, nil
}

// TestPreflightLocksNobodyOut: while the machine is asked, which takes long, other instances apply; the plan is made anew after that.
func TestPreflightLocksNobodyOut(t *testing.T) {
	for _, mtu := range []int{1400, 1300} {
		p := newPair(t)
		before := p.bench.kernel.All()
		mine, others := onPort(1400, 8e6), onPort(mtu, 8e6)
		asked := 0
		c := *mine
		c.Instance = "a"
		p.as("a", func(e *apply.Engine) {
			e.Preflight = during(func() {
				if asked++; asked == 1 {
					p.apply("b", others)
				}
			})
			steps := len(p.bench.kernel.Steps)
			r, err := e.Apply(t.Context(), model.Expand(&c))
			_, conflict := errors.AsType[*apply.ConflictError](err)
			if conflict != (mtu != 1400) || !conflict && err != nil {
				t.Errorf("MTU %d: %v", mtu, err)
			}
			if len(r.Steps) > 0 || steps > 0 {
				t.Errorf("done again: %v", r.Steps)
			}
		})
		p.settled("b", others)
		if mtu == 1400 {
			p.settled("a", mine)
		}
		p.apply("b", nil)
		p.apply("a", nil)
		p.bench.same(before, "destroyed")
		p.nothingLeft("destroyed")
	}
}

// TestPreflightEnds: where others never come to rest, it is tried with the lock at last.
func TestPreflightEnds(t *testing.T) {
	p := newPair(t)
	asked := 0
	s := onPort(1400, 8e6)
	s.Instance = "a"
	p.as("a", func(e *apply.Engine) {
		e.Preflight = during(func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			unlock, err := e.Journal.LockOthers(ctx)
			if asked++; err == nil {
				unlock()
				p.apply("b", &spec.Spec{Rules: []spec.Rule{{Priority: uint32(2000 + asked), Family: 4, Table: 77}}})
			} else if asked != 3 {
				t.Errorf("locked at %d: %v", asked, err)
			}
		})
		if _, err := e.Apply(t.Context(), model.Expand(s)); err != nil || asked != 3 {
			t.Errorf("asked %d times: %v", asked, err)
		}
	})
	p.settled("a", s)
}

// TestDamagedJournalKeeps: what a damaged journal still tells of is not taken away, and what it does not is told of.
func TestDamagedJournalKeeps(t *testing.T) {
	for name, damage := range map[string]func(string) string{
		"checksum": func(s string) string { return "00000000" + s[8:] },
		"text":     func(s string) string { return s[:20] + "\x00" + s[21:] },
		"cut":      func(s string) string { return s[:len(s)/2] },
	} {
		p := newPair(t)
		s := onPort(1400, 8e6)
		p.apply("a", s)
		p.apply("b", s)
		with := p.bench.kernel.All()
		path := filepath.Join(filepath.Dir(p.bench.dir), "b", "journal")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(damage(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		p.as("a", func(e *apply.Engine) {
			r, err := e.Destroy(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if told := strings.Join(r.Notes, "\n"); !strings.Contains(told, "what the instance b has is not known in full: the journal "+path+": line 1") {
				t.Errorf("%s: told is\n%s", name, told)
			}
		})
		if name == "checksum" {
			p.bench.same(with, name)
		}
	}
}

// TestNothingBuiltOnDoubt: what a damaged journal says is not inherited, and not gone against.
func TestNothingBuiltOnDoubt(t *testing.T) {
	p := newPair(t)
	s := onPort(1400, 8e6)
	p.apply("b", s)
	with := p.bench.kernel.All()
	path := filepath.Join(filepath.Dir(p.bench.dir), "b", "journal")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), `"old":"1500"`, `"old":"1501"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.try("a", onPort(1300, 8e6)); err == nil || !strings.Contains(err.Error(), "the instance b keeps its mtu at 1400") {
		t.Errorf("error %v", err)
	}
	p.apply("a", s)
	p.as("a", func(e *apply.Engine) {
		if prior := e.Journal.State().Prior; len(prior) > 0 {
			t.Errorf("inherited %v", prior)
		}
	})
	p.apply("a", nil)
	p.bench.same(with, "a is destroyed")
}

// TestApplyGivesUpWaiting: an apply waits for another that was stopped while it planned no longer than its user.
func TestApplyGivesUpWaiting(t *testing.T) {
	p := newPair(t)
	before := p.bench.kernel.All()
	p.as("b", func(e *apply.Engine) {
		unlock, err := e.Journal.LockOthers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := onPort(1400, 8e6)
		s.Instance = "a"
		p.as("a", func(e *apply.Engine) {
			_, err := e.Apply(ctx, model.Expand(s))
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), filepath.Dir(p.bench.dir)+" is locked by a culvert apply") {
				t.Errorf("error %v", err)
			}
		})
	})
	p.bench.same(before, "given up")
	p.nothingLeft("given up")
}

// TestGoesBackWithoutLock: another instance that was stopped while it planned does not keep the machine half-way.
func TestGoesBackWithoutLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		before := p.bench.kernel.All()
		p.as("b", func(stopped *apply.Engine) {
			p.bench.kernel.Fail = func(_ *plan.Step, n int, when kerneltest.When) bool {
				if n != 2 || when != kerneltest.Before {
					return false
				}
				unlock, err := stopped.Journal.LockOthers(t.Context())
				if err != nil {
					t.Error(err)
				} else {
					t.Cleanup(unlock)
				}
				return true
			}
			err := p.try("a", onPort(1400, 8e6))
			f, ok := errors.AsType[*apply.FailedError](err)
			if !ok || len(f.Residue) > 0 || f.Rollback == nil || !strings.Contains(f.Rollback.Error(), "went on without the lock") {
				t.Errorf("error %v", err)
			}
		})
		p.bench.same(before, "undone")
		p.nothingLeft("undone")
	})
}
