package apply

import (
	"context"
	"errors"
	"time"

	"culvert/setup/journal"
)

// Confirmation is a change's time of trial: unless it is confirmed before its end, it is to be undone. It reads no clock.
//
//	state      event            new state   what to do
//	waiting    Confirm in time  confirmed   Engine.Confirm
//	waiting    Due at the end   expired     Engine.Revert
//	confirmed  anything         confirmed   nothing
//	expired    anything         expired     nothing
type Confirmation struct {
	deadline time.Duration
	state    trial
}

type trial uint8

const (
	waiting trial = iota
	confirmed
	expired
)

// NewConfirmation begins the time of trial.
func NewConfirmation(now, length time.Duration) *Confirmation {
	return &Confirmation{deadline: now + length}
}

// Remaining is the time that is left, 0 where it is over or the change is confirmed.
func (c *Confirmation) Remaining(now time.Duration) time.Duration {
	if c.state != waiting {
		return 0
	}
	return max(0, c.deadline-now)
}

// Confirm ends the trial; false where it is too late.
func (c *Confirmation) Confirm(now time.Duration) bool {
	if c.state == waiting && now < c.deadline {
		c.state = confirmed
	}
	return c.state == confirmed
}

// Due reports, once, that the time is over and the change is to be undone.
func (c *Confirmation) Due(now time.Duration) bool {
	if c.state != waiting || now < c.deadline {
		return false
	}
	c.state = expired
	return true
}

// Hold remembers in the journal how to undo what was just done, so that another process can, should this one be killed while it
// waits.
func (e *Engine) Hold(r *Result) error {
	if len(r.Steps) == 0 {
		return nil
	}
	return e.Journal.Keep(&journal.Unconfirmed{Applied: r.was, Before: r.Before, Steps: r.Steps, Knew: r.Knew})
}

// Confirm forgets how to undo the last change.
func (e *Engine) Confirm() error { return e.Journal.Keep(nil) }

// ErrNothingHeld is returned by [Engine.Revert] where no change waits to be confirmed.
var ErrNothingHeld = errors.New("no change waits to be confirmed")

// Revert undoes the change that [Engine.Hold] remembered.
func (e *Engine) Revert(ctx context.Context) error {
	scope := e.scope(nil)
	unlock, err := e.lock(ctx, scope)
	if err != nil {
		return err
	}
	defer unlock()
	sys, err := e.Kernel.Read(ctx, scope)
	if err != nil {
		return err
	}
	e.Journal.Bind(sys)
	u := e.Journal.State().Unconfirmed
	if u == nil {
		return ErrNothingHeld
	}
	e.Journal.Apply(u.Applied)
	residue, err := e.goBack(ctx, scope, &Result{Before: u.Before, Steps: u.Steps, Knew: u.Knew})
	if len(residue) > 0 || err != nil {
		return &FailedError{Err: errors.New("the change was not confirmed"), Rollback: err, Residue: residue}
	}
	return e.Journal.Keep(nil)
}
