//go:build !linux

package kernel

import (
	"context"
	"errors"
	"fmt"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// Kernel reads and changes nothing: the network around tunnels needs Linux.
type Kernel struct{}

var errNeedsLinux = fmt.Errorf("the network around tunnels needs Linux: %w", errors.ErrUnsupported)

// New makes a Kernel.
func New(string) *Kernel { return &Kernel{} }

// Close closes nothing.
func (*Kernel) Close() error { return nil }

// Read needs Linux.
func (*Kernel) Read(context.Context, model.Scope) (*model.System, error) { return nil, errNeedsLinux }

// Do needs Linux.
func (*Kernel) Do(context.Context, *plan.Step) (apply.Done, error) {
	return apply.Done{}, errNeedsLinux
}

// Watch needs Linux.
func (*Kernel) Watch(context.Context, []string, func()) error { return errNeedsLinux }

// Try needs Linux.
func (*Kernel) Try(context.Context, []plan.Step) ([]apply.Missing, error) { return nil, errNeedsLinux }
