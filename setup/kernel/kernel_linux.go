package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"culvert/setup"
	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// Kernel is the running kernel. Between calls it holds at most a socket in each namespace the last steps were in, which the next
// Read lets go of. Its methods may be called concurrently; one works at a time.
type Kernel struct {
	home string

	mu    sync.Mutex
	conns map[string]*namespace // by name
}

var (
	_ apply.Kernel    = (*Kernel)(nil)
	_ apply.Preflight = (*Kernel)(nil)
)

// New returns the kernel as seen from a network namespace, which is what the empty name stands for in IDs: a file to open, or "" for
// the namespace of the calling thread, which is that of the process for all goroutines that have not made a thread their own.
func New(home string) *Kernel {
	if home == "" {
		home = "/proc/thread-self/ns/net"
	}
	return &Kernel{home: home, conns: make(map[string]*namespace)}
}

// Close lets go of every namespace. The Kernel may be used afterwards.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.release()
	return nil
}

func (k *Kernel) release() {
	for name, n := range k.conns {
		n.close()
		delete(k.conns, name)
	}
}

// work is a step under way.
type work struct {
	k    *Kernel
	step *plan.Step
	ns   *namespace // the step's; nil for a netns
}

// operation carries one kind of step out.
type operation func(*work) (apply.Done, error)

// operations are all there are.
var operations = map[model.Kind]map[plan.Op]operation{
	model.KindNetns:      {plan.Create: createNetns, plan.Delete: deleteNetns},
	model.KindLink:       {plan.Create: createLink, plan.Change: changeLink, plan.Delete: deleteLink},
	model.KindAttachment: {plan.Create: createAttachment, plan.Change: changeAttachment, plan.Delete: deleteAttachment},
	model.KindAddress:    {plan.Create: createAddress, plan.Delete: deleteAddress},
	model.KindRoute:      {plan.Create: createRoute, plan.Delete: deleteRoute},
	model.KindRule:       {plan.Create: createRule, plan.Delete: deleteRule},
	model.KindNAT:        {plan.Create: createNAT, plan.Change: changeNAT, plan.Delete: deleteNAT},
	model.KindFirewall:   {plan.Create: createFirewall, plan.Change: changeFirewall, plan.Delete: deleteNAT},
	model.KindSysctl:     {plan.Create: createSysctl, plan.Change: changeSysctl, plan.Delete: leaveSysctl},
	model.KindQdisc:      {plan.Create: createQdisc, plan.Change: changeQdisc, plan.Delete: deleteQdisc},
	model.KindClass:      {plan.Create: createClass, plan.Change: changeClass, plan.Delete: deleteClass},
	model.KindFilter:     {plan.Create: createFilter, plan.Delete: deleteFilter},
}

// Do carries out one step (see [apply.Kernel]). Errors are of type [*setup.OpError].
func (k *Kernel) Do(ctx context.Context, step *plan.Step) (apply.Done, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return apply.Done{}, stepError(step, err)
	}
	return k.do(step)
}

func (k *Kernel) do(step *plan.Step) (apply.Done, error) {
	do := operations[step.ID.Kind()][step.Op]
	if do == nil {
		return apply.Done{}, stepError(step, errors.ErrUnsupported)
	}
	w := &work{k: k, step: step}
	if step.ID.Kind() != model.KindNetns {
		ns, err := k.namespaceOf(step)
		if err != nil {
			return apply.Done{}, stepError(step, err)
		}
		if ns == nil {
			return apply.Done{}, nil
		}
		w.ns = ns
	}
	done, err := do(w)
	if err != nil {
		return apply.Done{}, stepError(step, err)
	}
	return done, nil
}

// namespaceOf opens the namespace of a step, which has to be the one meant; nil where what is to be deleted is gone with it.
func (k *Kernel) namespaceOf(step *plan.Step) (*namespace, error) {
	ns, err := k.namespace(step.ID.Netns())
	if errors.Is(err, unix.ENOENT) && step.Op == plan.Delete {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if step.Inode != 0 && step.Inode != ns.inode {
		return nil, fmt.Errorf("the namespace %q is another one than before: %w", ns.name, unix.ESTALE)
	}
	return ns, nil
}

// stepError says which step failed. What is an OpError already keeps its words, with the step in front.
func stepError(step *plan.Step, err error) error {
	item := strings.TrimPrefix(step.ID.Text(), string(step.ID.Kind())+" ")
	if changed, ok := errors.AsType[*fieldError](err); ok {
		item += " " + changed.Error()
		err = changed.err
	}
	return &setup.OpError{Op: string(step.Op) + " " + string(step.ID.Kind()), Item: item, Err: err, Hint: hint(step, err)}
}

// fieldError is the refusal of one field's new value.
type fieldError struct {
	change plan.FieldChange
	err    error
}

func (e *fieldError) Error() string {
	return fmt.Sprintf("%s from %s to %s", e.change.Field, quoted(e.change.Old), quoted(e.change.New))
}
func (e *fieldError) Unwrap() error { return e.err }

func quoted(v model.Value) string {
	if v == "" {
		return "nothing"
	}
	return string(v)
}

// another is the refusal to act on a thing that is not the one meant.
func another(what string, have, want int) error {
	return fmt.Errorf("%s has index %d and not %d: it is another one by now: %w", what, have, want, unix.ESTALE)
}

// changeEach makes the changes one after the other by set, and takes back those made where one fails.
func changeEach(changes []plan.FieldChange, set func(plan.FieldChange) error) error {
	var made []plan.FieldChange
	for _, c := range inKernelOrder(changes) {
		err := set(c)
		if err == nil {
			made = append(made, c)
			continue
		}
		err = &fieldError{c, err}
		return errors.Join(err, takeBack(made, set))
	}
	return nil
}

// takeBack makes changes undone.
func takeBack(made []plan.FieldChange, set func(plan.FieldChange) error) (err error) {
	for i, c := range made {
		made[i] = plan.FieldChange{Field: c.Field, Old: c.New, New: c.Old}
	}
	for _, c := range inKernelOrder(made) {
		if undo := set(c); undo != nil {
			err = errors.Join(err, fmt.Errorf("taking back %s: %w", c.Field, undo))
		}
	}
	return err
}

// inKernelOrder puts first what others depend on: a bond counts its delays in steps of miimon, and has none without; a macvlan has a list of
// sources in its mode source only; much is set while a link is down.
func inKernelOrder(changes []plan.FieldChange) []plan.FieldChange {
	rank := func(c plan.FieldChange) int {
		switch {
		case c.Field == "up" && !c.New.Bool():
			return 0
		case c.Field == "mode":
			return 1
		case c.Field == "miimon" && c.New != "0s":
			return 2
		case c.Field == "miimon", c.Field == "arp_interval" && c.New != "0s": // which ends miimon
			return 4
		case c.Field == "up":
			return 5
		}
		return 3
	}
	return slices.SortedStableFunc(slices.Values(changes), func(a, b plan.FieldChange) int { return cmp.Compare(rank(a), rank(b)) })
}
