//go:build !linux

package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"time"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
)

var errNeedsLinux = fmt.Errorf("services need Linux: %w", errors.ErrUnsupported)

// Kernel keeps no services: they need Linux.
type Kernel struct{}

// New makes a Kernel.
func New(string, func() *exec.Cmd) *Kernel { return &Kernel{} }

// Status tells of none.
func (*Kernel) Status(context.Context) ([]Status, error) { return nil, nil }

// Read finds none.
func (*Kernel) Read(context.Context, model.Scope) (*model.System, error) {
	return &model.System{Objects: make(map[model.ID]*model.Object)}, nil
}

// Do needs Linux.
func (*Kernel) Do(context.Context, *plan.Step) (apply.Done, error) {
	return apply.Done{}, errNeedsLinux
}

// Try misses nothing: there is nothing that could be done.
func (*Kernel) Try(context.Context, []plan.Step) ([]apply.Missing, error) { return nil, nil }

// Recover has nothing to recover.
func (*Kernel) Recover(context.Context) error { return nil }

// Options of a supervisor.
type Options struct {
	Dir   string
	Now   func() time.Duration
	Log   *slog.Logger
	Ended func() error
}

// CheckStarted needs Linux.
func CheckStarted(string) error { return errNeedsLinux }

// Supervise needs Linux.
func Supervise(context.Context, Options) error { return errNeedsLinux }
