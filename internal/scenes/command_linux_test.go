package scenes

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"culvert/config"
	"culvert/internal/lab"
	"culvert/setup/apply"
	"culvert/setup/journal"
	"culvert/setup/kernel"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/service"
)

// Variables that make this test binary a command of culvert's, on the file that is its argument, in which something happens to a step.
const (
	commandEnv = "CULVERT_SCENES_COMMAND" // apply, destroy
	faultEnv   = "CULVERT_SCENES_FAULT"   // what becomes of a step, as in "fail 3"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(commandEnv); name != "" {
		if err := json.NewEncoder(os.Stdout).Encode(command(name, os.Args[1], os.Getenv(faultEnv))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	parallel := flag.Lookup("test.parallel")
	before := parallel.Value.String()
	flag.Parse()
	if parallel.Value.String() == before {
		// These tests wait for timers of protocols more than they compute: more of them at once than there are cores.
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	lab.Main(m)
}

// report is what a command says.
type report struct {
	Steps  []string // those begun, as in "create link br0"
	Error  string   // "" where it worked
	Undone bool     // the error was followed by going back, which worked
}

// command carries a command out as culvert does.
func command(name, path, fault string) (r report) {
	fail := func(err error) report {
		r.Error = err.Error()
		f, ok := errors.AsType[*apply.FailedError](err)
		r.Undone = ok && f.Rollback == nil && len(f.Residue) == 0
		return r
	}
	file, err := config.Load(path)
	if err != nil {
		return fail(err)
	}
	instance := file.Instance
	dir := filepath.Join("/run/culvert", instance+"~services")
	k := kernel.New("")
	defer k.Close()
	services := service.New(dir, func() *exec.Cmd {
		return exec.Command(os.Getenv(programEnv), "supervise", dir, instance)
	})
	j, err := journal.Open(filepath.Join(journal.Dir, instance))
	if err != nil {
		return fail(err)
	}
	defer func() { // what is nothing is not remembered
		end := j.Close
		if j.State().IsEmpty() {
			end = j.Remove
		}
		if err := end(); err != nil && r.Error == "" {
			r = fail(err)
		}
	}()
	parts := &faulty{Parts: &apply.Parts{Kernel: k, Processes: services}}
	if fault != "" {
		if _, err := fmt.Sscanf(fault, "%s %d", &parts.what, &parts.at); err != nil {
			return fail(err)
		}
	}
	e := &apply.Engine{Instance: instance, Kernel: parts, Preflight: preflights{k, services}, Journal: j}
	if inGuest() {
		e.Preflight = nil // it comes before any step, and takes an emulated machine a second
	}
	var items []model.Item
	if name == "apply" {
		items = model.Expand(&file.Setup)
	}
	done, err := e.Apply(context.Background(), items)
	if done != nil {
		for _, s := range done.Steps {
			r.Steps = append(r.Steps, fmt.Sprintf("%s %s", s.Op, s.ID))
		}
	}
	if err != nil {
		return fail(err)
	}
	return r
}

// preflights are several that are asked one after the other.
type preflights []apply.Preflight

func (list preflights) Try(ctx context.Context, steps []plan.Step) (all []apply.Missing, err error) {
	for _, p := range list {
		missing, err := p.Try(ctx, steps)
		if err != nil {
			return nil, err
		}
		all = append(all, missing...)
	}
	return all, nil
}

// errInjected is a step's failure that the test wants.
var errInjected = errors.New("injected")

// faulty does something to one of its steps, counted from 1:
//
//	fail         it is not done, and fails
//	kill         the process gets SIGKILL before it
//	kill-after   and before what comes after it
type faulty struct {
	*apply.Parts
	what string
	at   int
	n    int
}

func (f *faulty) Do(ctx context.Context, step *plan.Step) (apply.Done, error) {
	f.n++
	if f.n != f.at {
		return f.Parts.Do(ctx, step)
	}
	switch f.what {
	case "fail":
		return apply.Done{}, errInjected
	case "kill":
		die()
	}
	d, err := f.Parts.Do(ctx, step)
	if f.what == "kill-after" {
		die()
	}
	return d, err
}

// DeleteLinks counts each of the steps. A failure is that of the step by itself, since all are tried one after the other then; killed,
// those before it are gone.
func (f *faulty) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	at := f.at - f.n // from 1, among these
	if at < 1 || at > len(steps) {
		err := f.Parts.DeleteLinks(ctx, steps)
		if err == nil {
			f.n += len(steps)
		}
		return err
	}
	if f.what == "fail" {
		return errInjected
	}
	if f.what == "kill" {
		at--
	}
	_ = f.Parts.DeleteLinks(ctx, steps[:at])
	die()
	return nil
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// isInjected tells from a command's error whether it was the test's.
func (r *report) isInjected() bool { return strings.Contains(r.Error, errInjected.Error()) }
