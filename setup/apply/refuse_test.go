package apply_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"culvert/setup/apply"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// lacking is a preflight of a kernel without bonds.
type lacking struct{}

func (lacking) Try(_ context.Context, steps []plan.Step) (out []apply.Missing, _ error) {
	for _, s := range steps {
		if s.Type == "bond" && s.ID.Kind() == model.KindLink && s.Op == plan.Create {
			out = append(out, apply.Missing{Step: s, What: "bond devices", Err: errors.New("operation not supported: unknown device type"), Config: "CONFIG_BONDING", Module: "bonding"})
		}
	}
	return out, nil
}

var bonded = &spec.Spec{Instance: "test", Links: []spec.Link{{Key: "br7", Type: spec.TypeBridge},
	{Place: spec.Place{Origin: spec.Origin{File: "net.yaml", Line: 7, Column: 3}}, Key: "bond7", Type: spec.TypeBond, Bond: &spec.Bond{Mode: "802.3ad"}}}}

func TestPreflightTouchesNothing(t *testing.T) {
	b := newBench(t)
	before := b.kernel.All()
	b.with(func(e *apply.Engine) {
		e.Preflight = lacking{}
		_, err := e.Apply(t.Context(), model.Expand(bonded))
		const want = "net.yaml:7:3: link bond7 needs bond devices, which the kernel lacks: operation not supported: unknown device type (try modprobe bonding; the kernel needs CONFIG_BONDING)"
		if err == nil || err.Error() != want {
			t.Errorf("error\n%v, want\n%s", err, want)
		}
		if !e.Journal.State().IsEmpty() {
			t.Error("something is journalled")
		}
	})
	b.same(before, "refused")
}

// deaf takes a change and does not make it.
type deaf struct{ *kerneltest.Kernel }

func (d deaf) Do(ctx context.Context, s *plan.Step) (apply.Done, error) {
	out, err := d.Kernel.Do(ctx, s)
	if o := d.Objects["link br7"]; o != nil {
		o.Fields["stp"] = "no"
	}
	return out, err
}

func TestVerify(t *testing.T) {
	b := newBench(t)
	before := b.kernel.All()
	s := &spec.Spec{Instance: "test", Links: []spec.Link{{Key: "br7", Type: spec.TypeBridge, Bridge: &spec.Bridge{STP: new(true)}}}}
	b.with(func(e *apply.Engine) {
		e.Kernel = deaf{b.kernel}
		_, err := e.Apply(t.Context(), model.Expand(s))
		if _, ok := errors.AsType[*apply.VerifyError](err); !ok || !strings.Contains(err.Error(), "stp no -> yes") ||
			!strings.HasSuffix(err.Error(), "everything is as it was before") {
			t.Errorf("error %v", err)
		}
	})
	b.same(before, "not verified")
}

// TestCancelled: who loses patience finds everything as it was.
func TestCancelled(t *testing.T) {
	for n := range 4 {
		b := newBench(t)
		before := b.kernel.All()
		ctx, cancel := context.WithCancel(t.Context())
		b.with(func(e *apply.Engine) {
			e.Progress = func(s plan.Step) {
				if s.N == n {
					cancel()
				}
			}
			if n == 0 {
				cancel()
			}
			_, err := e.Apply(ctx, model.Expand(bonded))
			if n < 4 && !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled in step %d: %v", n, err)
			}
		})
		cancel()
		b.same(before, fmt.Sprint("cancelled in step ", n))
	}
}

// TestKilledOnTheWayBack has a step fail, and the process killed while it undoes.
func TestKilledOnTheWayBack(t *testing.T) {
	forSeeds(t, 20, func(t *testing.T, r *rand.Rand) {
		first, second := randomSpec(r), randomSpec(r)
		for back := 1; ; back++ {
			b := newBench(t)
			foreign := b.kernel.All()
			b.apply(first)
			base := len(b.kernel.Steps)
			failed := base + 5 + r.IntN(10)
			at := kerneltest.When(r.IntN(3))
			b.kernel.Fail = func(_ *plan.Step, n int, when kerneltest.When) bool { return n == failed && when == kerneltest.Before }
			b.kernel.Kill = func(_ *plan.Step, n int, when kerneltest.When) bool { return n == failed+back && when == at }
			killed := b.with(func(e *apply.Engine) { _, _ = e.Apply(t.Context(), model.Expand(second)) })
			b.kernel.Fail, b.kernel.Kill = nil, nil
			if !killed && back > 12 {
				return
			}
			b.apply(first)
			b.settled(first)
			b.destroy()
			b.same(foreign, fmt.Sprintf("failed in step %d, killed %d steps later", failed-base, back))
			b.with(func(e *apply.Engine) {
				if !e.Journal.State().IsEmpty() {
					t.Errorf("the journal still knows %v", e.Journal.State().IDs())
				}
			})
			if t.Failed() {
				return
			}
		}
	})
}

// TestCannotGoBack: what could not be put back is named.
func TestCannotGoBack(t *testing.T) {
	b := newBench(t)
	b.kernel.Fail = func(s *plan.Step, _ int, _ kerneltest.When) bool {
		return s.ID == "link bond7" || s.Op == plan.Delete
	}
	b.with(func(e *apply.Engine) {
		_, err := e.Apply(t.Context(), model.Expand(bonded))
		f, ok := errors.AsType[*apply.FailedError](err)
		if !ok || len(f.Residue) != 1 || f.Residue[0] != "link br7 was not there before" || f.Rollback == nil {
			t.Errorf("error %v", err)
		}
	})
	b.kernel.Fail = nil
	b.destroy()
	if b.kernel.Objects["link br7"] != nil {
		t.Error("what was left is still there")
	}
}

func TestParts(t *testing.T) {
	main, programs, tunnels := kerneltest.New(), kerneltest.New(), kerneltest.New()
	programs.AddLink("t0", "team", nil)
	p := &apply.Parts{Kernel: main, Processes: programs, Tunnels: tunnels}
	for _, s := range []plan.Step{
		{Op: plan.Create, ID: "link t0", Fields: model.Fields{"type": "team"}},
		{Op: plan.Create, ID: "process teamd:t0", Fields: model.Fields{"link": "t0"}},
		{Op: plan.Create, ID: "link office", Owner: model.OwnerTunnel, Fields: model.Fields{"type": "tap"}},
	} {
		if _, err := p.Do(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
	}
	if main.Objects["link t0"] == nil || programs.Objects["process teamd:t0"] == nil || tunnels.Objects["link office"] == nil ||
		len(main.Steps)+len(programs.Steps)+len(tunnels.Steps) != 3 {
		t.Error("a step went to another part")
	}
	sys, err := p.Read(t.Context(), model.Scope{Netns: []string{""}, Processes: []model.ID{"process teamd:t0"}})
	if err != nil || sys.Objects["process teamd:t0"] == nil || sys.Objects["link t0"] == nil {
		t.Errorf("read %v, %v", sys, err)
	}
}
