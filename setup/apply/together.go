package apply

import (
	"context"

	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// While links are deleted nobody else can change a link on the machine: a batch is to take half a second at most, however many there are
// to delete. Measured on Linux 6.18 with 250 ticks a second: 20 to 40 ms for a batch, 0.3 to 0.5 ms more for each link of most kinds, and
// 18 ms for each bridge, since the kernel waits for each by itself (rcu_barrier in br_multicast_dev_del).
const (
	batchCost  = 1000 // in halves of a millisecond
	linkCost   = 1
	bridgeCost = 40
)

// together returns how many of the steps, from the first on, may be done at once: deletions of links, or one step of any kind.
func together(steps []plan.Step) int {
	n, cost := 0, 0
	for n < len(steps) && steps[n].Op == plan.Delete && steps[n].ID.Kind() == model.KindLink {
		switch steps[n].Fields["type"] {
		case model.Value(spec.TypeBridge):
			cost += bridgeCost
		case model.Value(spec.TypeVeth):
			cost += 2 * linkCost
		default:
			cost += linkCost
		}
		if n > 0 && cost > batchCost {
			break
		}
		n++
	}
	return max(1, n)
}

// deleteTogether does several steps that delete links at once. Where that fails they are done one after the other: what is gone already
// is no error then, and what cannot be deleted is known by its own step.
//
// All of them are begun before, for whoever has to go back: a batch that failed may have deleted any. Killed meanwhile, some of them
// are gone and the others are not, as if it had been one after the other.
func (e *Engine) deleteTogether(ctx context.Context, d Deleter, steps []plan.Step, at *place, done *[]plan.Step) error {
	for i := range steps {
		e.begin(&steps[i], at, done)
	}
	if err := d.DeleteLinks(ctx, steps); err != nil {
		for i := range steps {
			if err := e.do(ctx, &steps[i], at); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range steps {
		if err := e.Journal.Done(at.note(&steps[i], Done{})); err != nil {
			return err
		}
	}
	return nil
}
