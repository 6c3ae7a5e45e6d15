package main

import (
	"errors"
	"fmt"
)

// undo holds how to take back what was done so far, the last step first. The zero value is ready.
type undo struct {
	steps []undoStep
}

type undoStep struct {
	what string // completes "cannot ..."
	f    func() error
}

// add says how to take back a step that has just succeeded.
func (u *undo) add(what string, f func() error) {
	u.steps = append(u.steps, undoStep{what, f})
}

// run takes everything back, whatever fails in between, and returns all failures. A second run does nothing.
func (u *undo) run() error {
	var errs []error
	for len(u.steps) > 0 {
		s := u.steps[len(u.steps)-1]
		u.steps = u.steps[:len(u.steps)-1]
		if err := s.f(); err != nil {
			errs = append(errs, fmt.Errorf("cannot %s: %w", s.what, err))
		}
	}
	return errors.Join(errs...)
}
