package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/control"
	"culvert/setup/apply"
	"culvert/setup/journal"
)

// kindTrial is the kind of a process that waits for a change to be confirmed.
const kindTrial = "apply"

// Reasons for a trial to end.
var (
	errConfirmed    = errors.New("confirmed")
	errNotConfirmed = errors.New("the change was not confirmed in time, and is undone")
)

// trialBody is the body of "apply --confirm": it applies, and undoes that at its end unless it was confirmed.
type trialBody struct {
	d      *daemon
	file   *config.File
	length time.Duration

	net  *network
	held bool // something was done and waits

	mu    sync.Mutex // guards trial
	trial *apply.Confirmation
}

func (b *trialBody) start(ctx context.Context, _ func(error)) (err error) {
	if b.net, err = b.d.p.openNetwork(b.file.Instance); err != nil {
		return err
	}
	b.net.engine.File = b.file.Path
	items := itemsOf(b.file)
	r, err := b.net.engine.Apply(ctx, items)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return wordNetwork(b.file, items, err)
	}
	b.held = true
	if err := b.net.engine.Hold(r); err != nil {
		return err
	}
	b.mu.Lock()
	b.trial = apply.NewConfirmation(time.Since(b.d.started), b.length)
	b.mu.Unlock()
	time.AfterFunc(b.length, b.over)
	return nil
}

// over ends a trial whose time is over.
func (b *trialBody) over() {
	b.mu.Lock()
	due := b.trial.Due(time.Since(b.d.started))
	left := b.trial.Remaining(time.Since(b.d.started))
	b.mu.Unlock()
	switch {
	case due:
		b.d.stop(errNotConfirmed)
	case left > 0:
		time.AfterFunc(left, b.over)
	}
}

// confirm keeps the change.
func (b *trialBody) confirm() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.trial == nil || !b.trial.Confirm(time.Since(b.d.started)) {
		return errors.New("it is too late: the change is being undone")
	}
	b.net.mu.Lock()
	err := b.net.engine.Confirm()
	b.net.mu.Unlock()
	if err != nil {
		return fmt.Errorf("the change is kept, but the journal cannot be written: %w", err)
	}
	b.d.stop(errConfirmed)
	return nil
}

func (b *trialBody) status() []control.Tunnel { return []control.Tunnel{} }
func (b *trialBody) engines() []namedEngine   { return nil }

func (b *trialBody) network() *control.Network {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := &control.Network{Items: len(itemsOf(b.file)), Drift: []control.Drift{}}
	if b.trial != nil {
		n.Unconfirmed = b.trial.Remaining(time.Since(b.d.started)).Seconds()
	}
	return n
}

func (b *trialBody) capturable() []capturable { return nil }

func (b *trialBody) reload(context.Context) ([]string, error) {
	return nil, fmt.Errorf("a change of %s waits to be confirmed", b.file.Instance)
}

func (b *trialBody) teardown() (err error) {
	if b.net == nil {
		return nil
	}
	b.mu.Lock()
	keep := !b.held || b.trial != nil && b.trial.Remaining(time.Since(b.d.started)) == 0 && b.trial.Confirm(time.Since(b.d.started))
	b.mu.Unlock()
	if !keep {
		b.net.mu.Lock()
		err = b.net.engine.Revert(context.Background())
		b.net.mu.Unlock()
		if errors.Is(err, apply.ErrNothingHeld) {
			err = nil
		}
	}
	return errors.Join(err, b.net.close())
}

func (p *program) confirm() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm NAME",
		Short: "keep what \"apply --confirm\" did",
		Long: `Usage: culvert confirm NAME|FILE

Keeps the change that "culvert apply FILE --confirm TIME" made, which would be undone when the time is over. "culvert down NAME" undoes it
at once instead.
`,
		Args: needArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := p.instanceName(args[0])
			err := p.ask(name).Confirm(cmd.Context())
			if errors.Is(err, control.ErrNotRunning) {
				return p.confirmLeft(name)
			}
			if err != nil {
				return p.callError(name, err)
			}
			return nil
		},
	}
}

// confirmLeft keeps the change of a trial whose process was killed.
func (p *program) confirmLeft(name string) error {
	if err := checkInstanceName(name); err != nil {
		return err
	}
	nothing := fmt.Errorf("no change of %s waits to be confirmed", name)
	seen, err := journal.Peek(p.journalDir(name))
	if err != nil {
		return permissionHint(err)
	}
	if seen.State().Unconfirmed == nil {
		return nothing
	}
	n, err := p.openNetwork(name)
	if err != nil {
		return err
	}
	if n.journal.State().Unconfirmed == nil {
		err = nothing
	} else {
		err = n.engine.Confirm()
	}
	return errors.Join(err, n.close())
}
