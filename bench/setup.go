package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"culvert/internal/lab"
	"culvert/setup/apply"
	"culvert/setup/journal"
	"culvert/setup/kernel"
	"culvert/setup/model"
	setupplan "culvert/setup/plan"
	"culvert/setup/spec"
)

// SetupTrial is a declared network that is set up in a namespace of its own and taken down again, by a process of its own.
type SetupTrial struct {
	Round      int    `json:"round"` // from 1
	Devices    int    `json:"devices"`
	LoadBefore string `json:"load_before"`
	Error      string `json:"error,omitempty"`

	// A phase that was not reached is nil. Each does what a command does once it has read its file: it opens the journal and the
	// kernel anew.
	Declare *Effort `json:"declare,omitempty"`    // the declaration is checked and turned into items
	Plan    *Effort `json:"plan,omitempty"`       // the empty system is read, and a plan made
	Apply   *Effort `json:"apply,omitempty"`      // all steps, the reading before and the check afterwards
	Again   *Effort `json:"plan_again,omitempty"` // the system is read, and a plan made: there is nothing to do
	Destroy *Effort `json:"destroy,omitempty"`

	Items      int    `json:"items,omitempty"`             // things that are declared: devices, ports, addresses
	Steps      int    `json:"steps,omitempty"`             // of the apply
	PeakMemory int64  `json:"peak_memory_bytes,omitempty"` // of the process, resident
	Disk       string `json:"journal_on,omitempty"`        // the file system of the journal
}

// Effort is what something took.
type Effort struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"` // of the process, in user and kernel mode
}

// setupRun tells an agent in a fresh namespace what to set up there.
type setupRun struct {
	Devices int
	Journal string // a folder that is not there yet
}

// setupResult is how far it came.
type setupResult struct {
	Trial SetupTrial
	Error string // "" where it came to the end
}

const (
	// setupDisk is where the journals are: on a disk as a rule, and mostly on that of the real ones in /var/lib.
	setupDisk = "/var/tmp"
	// setupPatience is how long one device may take, in all phases together.
	setupPatience = 200 * time.Millisecond
)

// measure makes one trial. What could be measured is in t also when there is an error.
func (t *SetupTrial) measure(s *stage, _ *options) error {
	folder, err := os.MkdirTemp(setupDisk, "culvert-bench-")
	if err != nil {
		return err
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			s.Error(err)
		}
	})
	a, err := startAgent(s, lab.NewHost(s, "setup"))
	if err != nil {
		return err
	}
	run := setupRun{t.Devices, filepath.Join(folder, "journal")}
	got, err := call[setupResult](a, "setup-run", run, time.Duration(t.Devices)*setupPatience)
	if err != nil {
		return err
	}
	got.Trial.Round, got.Trial.Devices, got.Trial.LoadBefore = t.Round, t.Devices, t.LoadBefore
	*t = got.Trial
	if got.Error != "" {
		return errors.New(got.Error)
	}
	t.PeakMemory, err = peakMemory(a.pid)
	return err
}

// setUp is the agent's part.
func setUp(run setupRun) (r setupResult, err error) {
	if r.Trial.Disk, err = fileSystem(filepath.Dir(run.Journal)); err != nil {
		return r, err
	}
	if err := r.Trial.run(context.Background(), setupNetwork(run.Devices), run); err != nil {
		r.Error = err.Error()
	}
	return r, nil
}

// run sets a network up in the namespace of this process, and takes it down.
func (t *SetupTrial) run(ctx context.Context, network *spec.Spec, run setupRun) error {
	var items []model.Item
	var sys *model.System
	var p *setupplan.Plan
	var applied *apply.Result
	look := func(e *apply.Engine) (err error) {
		p, sys, err = e.Plan(ctx, items)
		return err
	}
	for _, phase := range []struct {
		name   string
		effort **Effort
		do     func() error
		check  func() error // that it did what it is to do; not measured
	}{
		{"declare", &t.Declare, func() error {
			if errs := network.Validate(); len(errs) > 0 {
				return errs
			}
			items = model.Expand(network)
			return nil
		}, func() error { t.Items = len(items); return nil }},
		{"plan", &t.Plan, run.peeking(network.Instance, look), func() error {
			return cmp.Or(wantDevices(sys, 0), wantEntries(p, len(items)))
		}},
		{"apply", &t.Apply, run.working(network.Instance, func(e *apply.Engine) (err error) {
			applied, err = e.Apply(ctx, items)
			return err
		}), func() error { t.Steps = len(applied.Steps); return nil }},
		{"plan again", &t.Again, run.peeking(network.Instance, look), func() error {
			return cmp.Or(wantDevices(sys, run.Devices), wantEntries(p, 0))
		}},
		{"destroy", &t.Destroy, run.working(network.Instance, func(e *apply.Engine) error {
			_, err := e.Destroy(ctx)
			return err
		}), run.peeking(network.Instance, func(e *apply.Engine) error {
			p, sys, err := e.Plan(ctx, nil)
			if err != nil {
				return err
			}
			if !e.Journal.State().IsEmpty() {
				return errors.New("the journal remembers something")
			}
			return cmp.Or(wantDevices(sys, 0), wantEntries(p, 0))
		})},
	} {
		effort, err := effortOf(phase.do)
		if err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
		*phase.effort = effort
		if err := phase.check(); err != nil {
			return fmt.Errorf("after %s: %w", phase.name, err)
		}
	}
	return nil
}

// peeking returns what a command does that only looks.
func (run setupRun) peeking(instance string, do func(*apply.Engine) error) func() error {
	return func() error {
		j, err := journal.Peek(run.Journal)
		if err != nil {
			return err
		}
		return run.onKernel(instance, j, do)
	}
}

// working returns what a command does that may act.
func (run setupRun) working(instance string, do func(*apply.Engine) error) func() error {
	return func() error {
		j, err := journal.Open(run.Journal)
		if err != nil {
			return err
		}
		return errors.Join(run.onKernel(instance, j, do), j.Close())
	}
}

func (setupRun) onKernel(instance string, j *journal.Journal, do func(*apply.Engine) error) error {
	if ignored := j.Ignored(); len(ignored) > 0 {
		return fmt.Errorf("the journal is damaged: %s", strings.Join(ignored, "; "))
	}
	k := kernel.New("")
	return errors.Join(do(&apply.Engine{Instance: instance, Kernel: k, Preflight: k, Journal: j}), k.Close())
}

// effortOf measures f. What others left to be collected is not part of it.
func effortOf(f func() error) (*Effort, error) {
	runtime.GC()
	before, err := ownCPU()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return nil, err
	}
	took := time.Since(start)
	after, err := ownCPU()
	return &Effort{took.Seconds(), (after - before).Seconds()}, err
}

// wantDevices counts culvert's devices.
func wantDevices(sys *model.System, want int) error {
	n := 0
	for id, o := range sys.Objects {
		if id.Kind() == model.KindLink && o.Group == model.Group {
			n++
		}
	}
	if n != want {
		return fmt.Errorf("culvert has %d devices, want %d", n, want)
	}
	return nil
}

// wantEntries counts what a plan would do.
func wantEntries(p *setupplan.Plan, want int) error {
	if len(p.Entries) != want || p.HasConflict() {
		return fmt.Errorf("the plan is: %s; want %d entries", p.Summary(), want)
	}
	return nil
}

func (t *SetupTrial) summary() string {
	text := fmt.Sprintf("%5d devices", t.Devices)
	for _, phase := range setupPhases {
		if e := phase.of(t); e != nil {
			text += fmt.Sprintf("  %s %s ms", phase.name, figure(e.Seconds*1e3))
		}
	}
	if t.Error != "" {
		text += "  FAILED: " + t.Error
	}
	return text
}
