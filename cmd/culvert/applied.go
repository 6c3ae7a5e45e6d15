package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"culvert/control"
	"culvert/setup/apply"
	"culvert/setup/journal"
)

// kindApplied is the kind of an instance of which no process runs: it has a network, by "apply", or left by a daemon that was killed.
const kindApplied = "applied"

// journals are the names of the instances that have a journal, sorted.
func (p *program) journals() ([]string, error) {
	entries, err := os.ReadDir(p.stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, permissionHint(fmt.Errorf("cannot list what was applied: %w", err))
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && control.ValidName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// known are the names of all instances that run or have a journal, sorted. What cannot be listed is left out.
func (p *program) known() []string {
	names, _ := p.journals()
	running, _ := control.Names(p.runDir)
	names = append(names, running...)
	if s := p.ofServices(); s != nil {
		names = append(names, s.known()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// applied compares the network of an instance of which no process runs with what was declared when it was applied; false where there is
// none.
func (p *program) applied(ctx context.Context, name string) (in control.Instance, ok bool, err error) {
	if checkInstanceName(name) != nil {
		return in, false, nil
	}
	j, err := journal.Peek(p.journalDir(name))
	if err != nil {
		return in, false, permissionHint(err)
	}
	s := *j.State() // of another boot it would be forgotten by the comparison
	if s.Applied == nil && s.IsEmpty() {
		return in, false, nil
	}
	n := &control.Network{Drift: []control.Drift{}, Abandoned: s.Unconfirmed != nil, Interrupted: s.Interrupted()}
	in = control.Instance{Name: name, Kind: kindApplied, Tunnels: []control.Tunnel{}, Network: n}
	if s.Applied == nil {
		return in, true, nil
	}
	in.File, n.Items = s.Applied.File, len(s.Applied.Items)
	e := apply.Engine{Instance: name, Kernel: p.machine(name).Kernel, Journal: j, Tunnels: true}
	made, _, err := e.Plan(ctx, s.Applied.Items)
	n.Checked = time.Now().UTC().Truncate(time.Second)
	if err != nil {
		n.Error = err.Error()
		return in, true, nil
	}
	n.Drift = append(n.Drift, driftOf(made)...)
	return in, true, nil
}

// unconfirmed says what becomes of a change that waits to be confirmed, and what to do; "" where none waits.
func (p *program) unconfirmed(name string, s *journal.State) string {
	if s.Unconfirmed == nil {
		return ""
	}
	if in, err := p.ask(name).Status(context.Background()); err == nil && in.Network != nil {
		return fmt.Sprintf("a change waits to be confirmed, and is undone in %v otherwise: culvert confirm %[2]s keeps it, culvert down %[2]s undoes it at once",
			duration(time.Duration(in.Network.Unconfirmed*float64(time.Second)).Round(time.Second)), name)
	}
	return fmt.Sprintf("a change that nobody has confirmed is in place, and the process that was to undo it is gone: %s", abandonedAdvice(name))
}

func abandonedAdvice(name string) string {
	return fmt.Sprintf("culvert confirm %[1]s keeps it, culvert down %[1]s undoes it", name)
}

// undoAbandoned undoes the change of a trial whose process was killed; false where there is none.
func (p *program) undoAbandoned(ctx context.Context, name string) (found bool, err error) {
	if checkInstanceName(name) != nil {
		return false, nil
	}
	seen, err := journal.Peek(p.journalDir(name))
	if err != nil || seen.State().Unconfirmed == nil {
		return false, permissionHint(err)
	}
	n, err := p.openNetwork(name)
	if err != nil {
		return true, err
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	return true, errors.Join(wordNetwork(nil, nil, n.engine.Revert(ctx)), n.close())
}
