package kerneltest

import (
	"context"
	"fmt"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
)

var _ apply.Deleter = (*Kernel)(nil)

// doomed is the group of links that are being deleted together.
var doomed = model.DoomedGroup(7)

// DeleteLinks deletes links together. Halfway, they are all there still, in a group of their own.
func (k *Kernel) DeleteLinks(_ context.Context, steps []plan.Step) error {
	first := len(k.Steps)
	k.Steps = append(k.Steps, steps...)
	interrupt := func(at When) error {
		for i := range steps {
			if err := k.interrupt(&steps[i], first+i, at); err != nil {
				return err
			}
		}
		return nil
	}
	if err := interrupt(Before); err != nil {
		return err
	}
	for i := range steps {
		s := &steps[i]
		if o := k.Objects[s.ID]; o != nil && (s.Index != 0 && o.Index != s.Index || s.Inode != 0 && o.Inode != s.Inode) {
			return fmt.Errorf("delete %s: %w: it is another one", s.ID, ErrNoDevice)
		}
	}
	mark := func(group uint32) {
		for i := range steps {
			if o := k.Objects[steps[i].ID]; o != nil {
				o.Group = group
			}
		}
	}
	mark(doomed)
	if err := interrupt(Halfway); err != nil {
		mark(model.Group)
		return err
	}
	for i := range steps {
		k.remove(steps[i].ID)
	}
	return interrupt(After)
}
