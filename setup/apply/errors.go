package apply

import (
	"fmt"
	"strings"

	"culvert/setup/plan"
	"culvert/setup/spec"
)

// ConflictError says that a plan cannot be carried out. Nothing has been touched.
type ConflictError struct{ Plan *plan.Plan }

// Error returns one line for each conflict.
func (e *ConflictError) Error() string {
	var lines []string
	for i := range e.Plan.Entries {
		if c := &e.Plan.Entries[i]; c.Verdict == plan.InConflict {
			line := fmt.Sprintf("%s: %s", c.ID.Text(), c.Reason)
			if o := c.Origin.String(); o != "" {
				line = o + ": " + line
			}
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// MissingError says what the kernel lacks. Nothing has been touched.
type MissingError struct {
	Missing []Missing
	Origins []spec.Origin // of each, where what needs it is declared
}

// Error returns one line for each: where it is needed, what, the kernel's answer, its option and what to do.
func (e *MissingError) Error() string {
	lines := make([]string, len(e.Missing))
	for i := range e.Missing {
		m := e.Missing[i].At(e.Origins[i])
		line := m.Message()
		if o := m.Origin.String(); o != "" {
			line = o + ": " + line
		}
		if hint := m.Hint(); hint != "" {
			line += " (" + hint + ")"
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

// StepError says which step failed.
type StepError struct {
	Step plan.Step
	Err  error
}

// Error returns "create link br0: the kernel's answer".
func (e *StepError) Error() string {
	what := fmt.Sprintf("%s %s", e.Step.Op, e.Step.ID.Text())
	text := e.Err.Error()
	if strings.HasPrefix(text, what) { // it says so itself
		return text
	}
	return what + ": " + text
}

// Unwrap returns the kernel's answer.
func (e *StepError) Unwrap() error { return e.Err }

// VerifyError says that everything was done, and the machine is not as declared all the same.
type VerifyError struct{ Plan *plan.Plan }

// Error lists what differs.
func (e *VerifyError) Error() string {
	lines := []string{"the kernel took every step, but what it reads back is not what was set:"}
	for i := range e.Plan.Entries {
		lines = append(lines, e.Plan.Entries[i].String())
	}
	return strings.Join(lines, "\n")
}

// FailedError is a failure, and what became of going back.
type FailedError struct {
	Err      error    // what failed
	Rollback error    // what failed on the way back; nil
	Residue  []string // what is not as it was before; none: everything is
}

// Error says both.
func (e *FailedError) Error() string {
	switch {
	case len(e.Residue) > 0:
		text := e.Err.Error() + "\nnot everything could be put back:"
		for _, r := range e.Residue {
			text += "\n" + r
		}
		if e.Rollback != nil {
			text += "\n" + e.Rollback.Error()
		}
		return text
	case e.Rollback != nil:
		return e.Err.Error() + "\neverything is as it was before, after trouble on the way back: " + e.Rollback.Error()
	}
	return e.Err.Error() + "\neverything is as it was before"
}

// Unwrap returns what failed.
func (e *FailedError) Unwrap() error { return e.Err }
