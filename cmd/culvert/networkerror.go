package main

import (
	"errors"
	"fmt"
	"strings"

	"culvert/config"
	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// networkError is a failure of the setup layer, worded with the lines of the file it is about. It is no error of the file: where
// it is a refusal, the machine is why.
type networkError struct {
	text  string
	cause error
}

func (e *networkError) Error() string { return e.text }
func (e *networkError) Unwrap() error { return e.cause }

// wordNetwork words an error of [apply.Engine]. file and items are what was applied; a nil file is nothing.
func wordNetwork(file *config.File, items []model.Item, err error) error {
	if err == nil {
		return nil
	}
	w := wording{file, items}
	var text string
	failed, isFailed := errors.AsType[*apply.FailedError](err)
	inner := err
	if isFailed {
		inner = failed.Err
	}
	if c, ok := errors.AsType[*apply.ConflictError](inner); ok {
		text = w.conflicts(c.Plan)
	} else if m, ok := errors.AsType[*apply.MissingError](inner); ok {
		text = w.missing(m)
	} else if s, ok := errors.AsType[*apply.StepError](inner); ok {
		text = w.step(s)
	} else {
		text = inner.Error()
	}
	if isFailed {
		// What became of going back is told by the error behind the failure's own text.
		text += strings.TrimPrefix(failed.Error(), failed.Err.Error())
	}
	return permissionHint(&networkError{text, err})
}

type wording struct {
	file  *config.File
	items []model.Item
}

// at puts a message beside its line of the file, where there is one.
func (w wording) at(o spec.Origin, message, hint string) string {
	switch {
	case w.file != nil && o != (spec.Origin{}):
		return w.file.ErrorAt(config.Position(o), message, hint, nil).Error()
	case hint != "":
		return message + "\n  hint: " + hint
	}
	return message
}

func (w wording) origin(id model.ID) spec.Origin {
	for i := range w.items {
		if w.items[i].ID == id {
			return w.items[i].Place.Origin
		}
	}
	return spec.Origin{}
}

func (w wording) conflicts(p *plan.Plan) string {
	var list []string
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Verdict != plan.InConflict {
			continue
		}
		advice := ""
		if strings.Contains(e.Reason, "comes with its tunnel") && w.file != nil {
			advice = "culvert up " + w.file.Path + " brings up tunnels and network together"
		}
		list = append(list, w.at(e.Origin, fmt.Sprintf("conflict: %s: %s", e.ID.Text(), e.Reason), advice))
	}
	return strings.Join(append(list, "nothing was touched"), "\n")
}

func (w wording) missing(m *apply.MissingError) string {
	var list []string
	for i := range m.Missing {
		x := m.Missing[i].At(m.Origins[i])
		list = append(list, w.at(x.Origin, x.Message(), x.Hint()))
	}
	return strings.Join(append(list, "nothing was touched"), "\n")
}

func (w wording) step(s *apply.StepError) string {
	if errors.Is(s.Err, errAskedToStop) {
		return "interrupted"
	}
	return w.at(w.origin(s.Step.ID), "cannot "+s.Error(), "")
}
