package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"culvert/config"
	"culvert/control"
	"culvert/setup/apply"
	"culvert/setup/journal"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// network is the setup layer's part of an instance: its journal, locked against other processes, and the engine that works with it.
type network struct {
	machine machine
	journal *journal.Journal

	mu     sync.Mutex // guards the engine, and with it the journal
	engine apply.Engine
}

func (p *program) journalDir(instance string) string { return filepath.Join(p.stateDir, instance) }

// hasJournal reports whether an instance has done anything to the machine that it may have to repair.
func (p *program) hasJournal(instance string) bool { return exists(p.journalDir(instance)) }

// openNetwork takes the journal of an instance.
func (p *program) openNetwork(instance string) (*network, error) {
	if err := checkInstanceName(instance); err != nil {
		return nil, err
	}
	j, err := journal.Open(p.journalDir(instance))
	if errors.Is(err, journal.ErrBusy) {
		return nil, p.busyError(instance)
	}
	if err != nil {
		return nil, permissionHint(err)
	}
	m := p.machine(instance)
	return &network{machine: m, journal: j, engine: apply.Engine{Instance: instance, Kernel: m.Kernel, Preflight: m.preflight, Journal: j}}, nil
}

func checkInstanceName(name string) error {
	if !control.ValidName(name) {
		return fmt.Errorf("%q cannot be the name of an instance: use 1 to 64 of a-z A-Z 0-9 _ = + . -, not a dot first", name)
	}
	return nil
}

// busyError says who is at work on an instance, and what to do instead.
func (p *program) busyError(instance string) error {
	in, err := p.ask(instance).Status(context.Background())
	switch {
	case err != nil:
		return hint(fmt.Errorf("another culvert is at work on %s", instance), "wait until it has ended")
	case in.Kind == kindTrial:
		return hint(fmt.Errorf("a change of %s waits to be confirmed", instance),
			"culvert confirm %[1]s keeps it, culvert down %[1]s undoes it at once", instance)
	}
	return hint(fmt.Errorf("%s is running (process %d), and its network is the daemon's", instance, in.PID),
		"culvert reload %[1]s applies the changed file, culvert down %[1]s takes it all away", instance)
}

// close lets the journal go, and deletes it where there is nothing left to remember.
func (n *network) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.journal.State().IsEmpty() {
		return n.journal.Remove()
	}
	return n.journal.Close()
}

// interfaces are the names of the links that the journal tells of.
func (n *network) interfaces() (names []string) {
	for _, id := range n.journal.State().IDs() {
		if id.Kind() == model.KindLink {
			names = append(names, id.Link().Name())
		}
	}
	return names
}

// itemsOf are the things a file declares. What a tunnel's own configuration says of its device is left to the tunnel.
func itemsOf(file *config.File) []model.Item {
	items := model.Expand(hereOf(&file.Setup))
	for i := range items {
		if items[i].Owner == model.OwnerTunnel {
			fields := maps.Clone(items[i].Fields)
			delete(fields, "mtu")
			items[i].Fields = fields
		}
	}
	return items
}

// hereOf leaves out of a declaration what a machine without IPv6 cannot do, and need not: nothing leaves by it.
func hereOf(s *spec.Spec) *spec.Spec {
	if exists("/proc/sys/net/ipv6") {
		return s
	}
	out := *s
	out.Links = slices.Clone(s.Links)
	for i := range out.Links {
		if c := out.Links[i].Client; c != nil && !slices.Contains(c.Carries, 6) {
			less := *c
			less.Full = slices.DeleteFunc(slices.Clone(c.Full), func(family int) bool { return family == 6 })
			out.Links[i].Client = &less
		}
	}
	return &out
}

// namespacesOf are the names of the network namespaces that items are in, with "" for the daemon's.
func namespacesOf(items []model.Item) []string {
	names := map[string]bool{"": true}
	for i := range items {
		id := items[i].ID
		names[id.Netns()] = true
		if id.Kind() == model.KindNetns {
			names[id.Rest()] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// look plans without any right to act: the journal is read whoever has it, and nothing is written.
func (p *program) look(ctx context.Context, file *config.File) (*plan.Plan, error) {
	_, made, err := p.lookWith(ctx, file)
	return made, err
}

// lookAndTry is look, and tries what the kernel and the machine have for the steps. Where that cannot be tried it is a note.
func (p *program) lookAndTry(ctx context.Context, file *config.File) (*plan.Plan, error) {
	e, made, err := p.lookWith(ctx, file)
	if err != nil {
		return nil, err
	}
	e.Preflight = p.machine(file.Instance).preflight
	if err := e.Try(ctx, made, itemsOf(file)); err != nil {
		made.Notes = append(made.Notes, fmt.Sprintf("whether the machine has all that is needed was not tried: %v", err))
	}
	return made, nil
}

func (p *program) lookWith(ctx context.Context, file *config.File) (*apply.Engine, *plan.Plan, error) {
	j, err := journal.Peek(p.journalDir(file.Instance))
	if err != nil {
		return nil, nil, permissionHint(err)
	}
	e := &apply.Engine{Instance: file.Instance, Kernel: p.machine(file.Instance).Kernel, Journal: j, Tunnels: true}
	made, _, err := e.Plan(ctx, itemsOf(file))
	if err != nil {
		return nil, nil, permissionHint(fmt.Errorf("cannot read the running system: %w", err))
	}
	if text := p.unconfirmed(file.Instance, j.State()); text != "" {
		made.Notes = append(made.Notes, text)
	}
	if pullsAny(file) && !made.IsEmpty() {
		made.Notes = append(made.Notes, "what the server says (addresses, routes, name servers) is not in the file, and so not in this plan: "+
			"\"culvert up\" and \"reload\" set it up besides, or leave it in place where it is there")
	}
	return e, made, nil
}

// ownNamespaces are the names of the network namespaces that carry the mark of an instance. All named ones are read for that; what is in
// others is nobody's business here.
func ownNamespaces(ctx context.Context, k apply.Kernel, instance string) (own []string, err error) {
	var all []string
	sys, err := k.Read(ctx, model.Scope{Netns: []string{""}})
	if err != nil {
		return nil, err
	}
	for id, o := range sys.Objects {
		if id.Kind() == model.KindNetns && o.Inode != sys.Inode {
			all = append(all, id.Rest())
		}
	}
	slices.Sort(all)
	if sys, err = k.Read(ctx, model.Scope{Netns: all}); err != nil {
		return nil, err
	}
	for _, name := range all {
		if o := sys.Objects[model.NetnsID(name)]; o != nil && o.Group == model.Group {
			if m, ok := model.ParseMark(o.Alias); ok && m.Instance == instance {
				own = append(own, name)
			}
		}
	}
	return own, nil
}
