package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// fail goes back to what was before the first step.
func (e *Engine) fail(ctx context.Context, r *Result, scope model.Scope, err error) error {
	if len(r.Steps) == 0 {
		if r.begun {
			e.Journal.State().Return(r.Knew, r.Before, r.Before)
			err = errors.Join(err, e.Journal.End(r.Before))
		}
		return err
	}
	// What was begun is undone also where the caller has lost patience.
	f := &FailedError{Err: err}
	f.Residue, f.Rollback = e.goBack(context.WithoutCancel(ctx), scope, r)
	return f
}

// patience is how long going back waits for other instances that plan, which takes them a moment each. One that was stopped meanwhile must
// not keep the machine half-way: it is gone back without the lock then, and what others have is left to them all the same. It is waited once for
// each of the passes.
const patience = 10 * time.Second

// unlockedError says that it was gone back while another instance might have planned.
type unlockedError struct{ err error }

func (e *unlockedError) Error() string {
	return fmt.Sprintf("waited %v, and then went on without the lock: %v", patience, e.err)
}
func (e *unlockedError) Unwrap() error { return e.err }

// lockBack is the lock of other instances for the way back. Without it there is an error, and a function that does nothing.
func (e *Engine) lockBack(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if unlock, err = e.Journal.LockOthers(ctx); err != nil {
		return func() {}, &unlockedError{err}
	}
	return unlock, nil
}

// backStep plans the way back, and goes it as far as that leads; done says that nothing was left to do.
func (e *Engine) backStep(ctx context.Context, scope model.Scope, undo *plan.Undo) (done bool, err error) {
	unlock, unlocked := e.lockBack(ctx)
	defer unlock()
	if err := e.lookBack(ctx, scope, undo); err != nil {
		return false, err
	}
	p := plan.Restore(*undo)
	if len(p.Steps) == 0 {
		return undo.All, e.Journal.Record(p.Records)
	}
	var begun []plan.Step
	return false, errors.Join(unlocked, e.execute(ctx, p, undo.Now, &begun, unlock))
}

// lookBack reads what there is, and what other instances have of it.
func (e *Engine) lookBack(ctx context.Context, scope model.Scope, undo *plan.Undo) (err error) {
	undo.Known = e.Journal.State().Known()
	if undo.Now, err = e.Kernel.Read(ctx, scope); err == nil {
		undo.Others, _, err = e.Journal.Others(undo.Now)
	}
	if err != nil {
		return &blindError{err}
	}
	return nil
}

// blindError says that it cannot be seen what there is.
type blindError struct{ err error }

func (e *blindError) Error() string { return e.err.Error() }
func (e *blindError) Unwrap() error { return e.err }

// goBack undoes steps, and returns what could not be. What other instances have come to share is theirs, and stays.
func (e *Engine) goBack(ctx context.Context, scope model.Scope, r *Result) (residue []string, err error) {
	var errs []error
	undo := plan.Undo{Instance: e.Instance, Before: r.Before, Steps: r.Steps, Knew: r.Knew, Tunnels: e.Tunnels}
	if a := e.Journal.State().Applied; a != nil {
		undo.Declared = a.Items
	}
	blind := func(err error) bool { _, is := errors.AsType[*blindError](err); return is }
	for pass := range passes {
		undo.All = pass > 0
		done, err := e.backStep(ctx, scope, &undo)
		if err != nil {
			errs = append(errs, err)
		}
		if blind(err) {
			return []string{"it is not known what is left"}, errors.Join(errs...)
		}
		if done {
			break
		}
	}
	if err := e.lookBack(ctx, scope, &undo); err != nil {
		return []string{"it is not known what is left"}, errors.Join(append(errs, err)...)
	}
	e.Journal.State().Return(r.Knew, r.Before, undo.Now)
	errs = append(errs, e.Journal.End(undo.Now))
	return plan.Residue(undo), errors.Join(errs...)
}
