package tunnel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// pulse tells from outside whether a worker gets on with its work: its count is odd while the worker has something in hand, even while it
// waits for something to do.
type pulse struct {
	name  string
	turns atomic.Uint64
	seen  uint64 // at the last check; guarded by the pulses' lock
}

func (p *pulse) begin() { p.turns.Add(1) }
func (p *pulse) end()   { p.turns.Add(1) }

// pulses are those of all workers there are.
type pulses struct {
	mu   sync.Mutex
	list map[*pulse]struct{}
}

// add makes the pulse of a worker that begins.
func (a *pulses) add(name string) *pulse {
	p := &pulse{name: name}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.list == nil {
		a.list = make(map[*pulse]struct{})
	}
	a.list[p] = struct{}{}
	return p
}

// remove takes away that of one that has ended.
func (a *pulses) remove(p *pulse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.list, p)
}

// stuck returns the workers that have had the same thing in hand at this check and the one before.
func (a *pulses) stuck() (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p := range a.list {
		now := p.turns.Load()
		if now%2 == 1 && now == p.seen {
			names = append(names, p.name)
		}
		p.seen = now
	}
	return names
}

// errControlStuck is of a control loop that does not come round.
var errControlStuck = errors.New("the control loop does not answer")

// Check reports whether the engine gets on: its control loop has to come round before ctx ends, and no worker may have the same packets in
// hand as at the check before. It is meant to be called every few seconds by one who watches over the process. One that was closed, or has
// ended, is in order: Done tells of that. ErrSuspended where another goes on with its work.
func (t *Tunnel) Check(ctx context.Context) error {
	if err := t.Responds(ctx); err != nil {
		select {
		case <-t.closing:
			return nil
		default:
		}
		if errors.Is(err, ErrSuspended) {
			return err
		}
		return errControlStuck
	}
	if names := t.pulses.stuck(); len(names) > 0 {
		return fmt.Errorf("stuck since the check before: %s", strings.Join(names, ", "))
	}
	return nil
}
