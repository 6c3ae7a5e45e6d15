package apply

import (
	"context"
	"errors"
	"maps"
	"strings"

	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// Kernel is where plans are carried out. Several may share the work ([Parts]).
//
// Its implementations keep nothing in memory that a later process would need.
type Kernel interface {
	// Read returns what is there. A namespace of the scope that is missing is no error.
	Read(ctx context.Context, scope model.Scope) (*model.System, error)
	// Do carries out one step, or, where it returns an error, has undone what it did of it as far as it could. Creating what is there
	// already fails; deleting what is gone succeeds. It acts on nothing but the thing of the step's ID, Index and Inode.
	Do(ctx context.Context, step *plan.Step) (Done, error)
}

// Done is what is known once a step is done.
type Done struct {
	Index     int    // of a link created
	PeerIndex int    // of the other end, where that was created too
	Inode     uint64 // of a netns created
}

// Locker is a [Kernel] that can keep other processes from changing what culvert is at work on.
type Locker interface {
	Lock(ctx context.Context, scope model.Scope) (unlock func(), err error)
}

// Deleter is a [Kernel] that deletes links together. Linux waits for all processors to be done with a link that goes, and for several that
// go together hardly longer than for one.
type Deleter interface {
	// DeleteLinks carries out steps that delete links, each of which comes before what it needs. Where it returns an error some may be
	// gone; the others are as they were.
	DeleteLinks(ctx context.Context, steps []plan.Step) error
}

// Preflight tries whether the kernel has what steps need, in a place where nothing is harmed.
type Preflight interface {
	// Try returns what is missing, each with the first step that needs it.
	Try(ctx context.Context, steps []plan.Step) ([]Missing, error)
}

// Missing is something the kernel lacks, or a program that is not there.
type Missing struct {
	Step   plan.Step
	What   string // as in "bond devices"
	Err    error  // the kernel's answer
	Config string // as in CONFIG_BONDING, several separated by a space
	Module string // as in bonding: what to give to modprobe, several separated by a space
	Advice string // what to do beside that, or instead
}

// At is the same as a plan tells it, with the place where what needs it is declared.
func (m *Missing) At(o spec.Origin) *plan.Missing {
	x := &plan.Missing{ID: m.Step.ID, What: m.What, Config: m.Config, Modules: strings.Fields(m.Module), Advice: m.Advice, Origin: o}
	if m.Err != nil {
		x.Error = m.Err.Error()
	}
	return x
}

// Parts share the work by kinds of things. Those that are nil do nothing, and their things are not there.
type Parts struct {
	Kernel    Kernel // all but what the others do
	Processes Kernel // processes and hand-overs
	Names     Kernel // name servers
	Tunnels   Kernel // creates and deletes the devices of tunnels
}

var (
	_ Kernel  = (*Parts)(nil)
	_ Deleter = (*Parts)(nil)
	_ Locker  = (*Parts)(nil)
)

// Read returns what all the parts see. The tunnels' devices are seen by Kernel.
func (p *Parts) Read(ctx context.Context, scope model.Scope) (*model.System, error) {
	s, err := p.Kernel.Read(ctx, scope)
	if err != nil {
		return nil, err
	}
	for _, part := range []Kernel{p.Processes, p.Names} {
		if part == nil {
			continue
		}
		more, err := part.Read(ctx, scope)
		if err != nil {
			return nil, err
		}
		maps.Copy(s.Objects, more.Objects)
	}
	return s, nil
}

// Do hands a step to the part whose work it is.
func (p *Parts) Do(ctx context.Context, step *plan.Step) (Done, error) {
	switch k := step.ID.Kind(); {
	case (k == model.KindProcess || k == model.KindHandover) && p.Processes != nil:
		return p.Processes.Do(ctx, step)
	case k == model.KindDNS && p.Names != nil:
		return p.Names.Do(ctx, step)
	case step.Owner == model.OwnerTunnel && step.Op != plan.Change && p.Tunnels != nil:
		return p.Tunnels.Do(ctx, step)
	}
	return p.Kernel.Do(ctx, step)
}

// DeleteLinks has Kernel delete links. Where there are tunnels, or Kernel knows no way, it is not supported: one goes after the other then.
func (p *Parts) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	d, ok := p.Kernel.(Deleter)
	if !ok || p.Tunnels != nil {
		return errors.ErrUnsupported
	}
	return d.DeleteLinks(ctx, steps)
}

// Lock takes the locks of the parts that have one.
func (p *Parts) Lock(ctx context.Context, scope model.Scope) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for i := len(unlocks) - 1; i >= 0; i-- {
			unlocks[i]()
		}
	}
	for _, part := range []Kernel{p.Kernel, p.Processes, p.Names, p.Tunnels} {
		l, ok := part.(Locker)
		if !ok {
			continue
		}
		u, err := l.Lock(ctx, scope)
		if err != nil {
			unlock()
			return nil, err
		}
		unlocks = append(unlocks, u)
	}
	return unlock, nil
}
