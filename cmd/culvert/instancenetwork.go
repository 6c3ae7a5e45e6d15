package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"culvert/config"
	"culvert/control"
	"culvert/setup"
	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// hasNetwork reports whether the setup layer has anything to do for a file: it declares something, or an earlier process did and was
// killed.
func (in *instance) hasNetwork(file *config.File) bool {
	return file.DeclaresSetup() || in.d.p.hasJournal(file.Instance)
}

// openNetwork takes the instance's journal. Tunnels that are up already become the plan's.
func (in *instance) openNetwork(ctx context.Context) error {
	n, err := in.d.p.openNetwork(in.file.Instance)
	if err != nil {
		return err
	}
	n.engine.Tunnels = true
	n.engine.File = in.file.Path
	n.engine.Kernel = &around{Kernel: n.machine.Kernel, in: in}
	if live := in.live(); len(live) > 0 {
		err := adoptTunnels(ctx, n, live)
		if err != nil {
			return errors.Join(err, n.close())
		}
	}
	in.net = n
	return nil
}

func adoptTunnels(ctx context.Context, n *network, live []*liveTunnel) error {
	var names []string
	for _, t := range live {
		names = append(names, t.netns)
	}
	sys, err := n.machine.Read(ctx, model.Scope{Netns: names})
	if err != nil {
		return err
	}
	n.journal.Bind(sys)
	theirs := make(map[model.ID]plan.Where)
	for _, t := range live {
		id := model.LinkID(t.ref())
		if o := sys.Objects[id]; o != nil {
			theirs[id] = plan.Where{Index: o.Index, Inode: o.Inode}
		}
	}
	return n.journal.Record(plan.Records{Adopted: theirs})
}

// ref is the tunnel's device.
func (t *liveTunnel) ref() model.Ref { return model.NewRef(t.netns, t.hooks.ifname) }

// applyNetwork makes the network what a file declares, with its tunnels. Where that fails everything is as it was before.
func (in *instance) applyNetwork(ctx context.Context, file *config.File) (*apply.Result, error) {
	if err := in.freeNames(file); err != nil {
		return nil, err
	}
	whole, err := in.wholeFile(file)
	if err != nil {
		return nil, err
	}
	items := itemsOf(whole)
	k := in.net.engine.Kernel.(*around)
	k.configure(in, file, items)
	in.net.mu.Lock()
	r, err := in.net.engine.Apply(ctx, items)
	in.net.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, context.Cause(ctx))
		}
		return r, wordNetwork(file, items, err)
	}
	in.watched.set(items)
	return r, nil
}

// wholeFile is a file with what servers have pushed to its tunnels.
func (in *instance) wholeFile(file *config.File) (_ *config.File, err error) {
	for _, t := range in.live() {
		t.linkMu.Lock()
		whole := t.whole.Tunnel
		t.linkMu.Unlock()
		if pulledFrom(&whole) < 0 || t.netns != netnsOf(file, whole.Name) {
			continue
		}
		if file, err = file.With(whole); err != nil {
			return nil, fmt.Errorf("tunnel %s, with what its server says: %w", whole.Name, err)
		}
	}
	return file, nil
}

// pulledNetwork makes the network what the tunnels need with what servers have pushed to them.
func (in *instance) pulledNetwork(ctx context.Context) error {
	if in.net == nil {
		whole, err := in.wholeFile(in.file)
		if err != nil || !in.hasNetwork(whole) {
			return err
		}
		if err := in.openNetwork(ctx); err != nil {
			return err
		}
	}
	_, err := in.reloadNetwork(ctx, in.file)
	return err
}

// freeNames refuses tunnels that are to be started and have the name of a device that is there: the plan would take it for theirs.
func (in *instance) freeNames(file *config.File) error {
	up := make(map[model.Ref]bool)
	for _, t := range in.live() {
		up[t.ref()] = true
	}
	var taken []string
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		netns := netnsOf(file, t.Name)
		if up[model.NewRef(netns, t.Name)] {
			continue
		}
		if _, err := in.kernel.linkIndex(setup.NamespacePath(netns), t.Name); err != nil {
			continue // there is none, or no namespace yet
		}
		taken = append(taken, file.ErrorAt(t.Pos, fmt.Sprintf("conflict: a device called %s is there, and it is not this tunnel's", t.Name),
			"look with ip link show "+t.Name+", or choose another name", nil).Error())
	}
	if len(taken) == 0 {
		return nil
	}
	text := strings.Join(append(taken, "nothing was touched"), "\n")
	return &networkError{text, errors.New(text)}
}

// noteNetwork writes what was done into the log.
func (in *instance) noteNetwork(r *apply.Result) {
	for _, line := range describe(r.Plan) {
		in.d.log.Info("network", "did", line)
	}
	for _, note := range r.Notes {
		in.d.log.Info("network", "note", note)
	}
}

// reloadNetwork is applyNetwork for a network that is watched.
func (in *instance) reloadNetwork(ctx context.Context, file *config.File) (remarks []string, err error) {
	in.watched.stop()
	defer in.watchNetwork()
	r, err := in.applyNetwork(ctx, file)
	if err != nil {
		return nil, err
	}
	in.noteNetwork(r)
	return append(describe(r.Plan), r.Notes...), nil
}

// destroyNetwork takes the network away, with the tunnels that are in it.
func (in *instance) destroyNetwork() error {
	in.net.mu.Lock()
	defer in.net.mu.Unlock()
	r, err := in.net.engine.Destroy(context.Background())
	if r != nil {
		for _, note := range r.Notes {
			in.d.log.Info("network", "note", note)
		}
	}
	if f, ok := errors.AsType[*apply.FailedError](err); ok {
		// The engine has gone back as far as that goes without tunnels, which end in any case: nothing is as it was before.
		err = fmt.Errorf("%w\nthe tunnels are down; what was around them may be there still", wordNetwork(nil, nil, f.Err))
	} else {
		err = wordNetwork(nil, nil, err)
	}
	if err != nil {
		return hint(err, "culvert destroy %s tries again", in.file.Instance)
	}
	return nil
}

func (in *instance) network() *control.Network { return in.watched.status() }

// around is the kernel of a plan that has the daemon's tunnels in it: it makes and deletes their devices by starting and stopping
// them, and leaves everything else to the machine.
type around struct {
	apply.Kernel
	in     *instance
	starts map[model.Ref]start
	down   map[model.Ref]bool // ports of bonds and teams, which must be down when they join
}

// start is what a tunnel is started from.
type start struct {
	file *config.File
	conf config.Tunnel
}

// configure says which tunnels may be started: those of a file, and, to go back, those that are up.
func (k *around) configure(in *instance, file *config.File, items []model.Item) {
	k.starts, k.down = make(map[model.Ref]start), make(map[model.Ref]bool)
	for _, t := range in.live() {
		k.starts[t.ref()] = start{t.file, t.conf}
	}
	for _, conf := range file.Tunnels {
		k.starts[model.NewRef(netnsOf(file, conf.Name), conf.Name)] = start{file, conf}
	}
	for i := range items {
		if t := items[i].Type; items[i].ID.Kind() == model.KindAttachment && (t == string(spec.TypeBond) || t == string(spec.TypeTeam)) {
			k.down[items[i].ID.Link()] = true
		}
	}
}

// Lock implements [apply.Locker].
func (k *around) Lock(ctx context.Context, scope model.Scope) (unlock func(), err error) {
	if l, ok := k.Kernel.(apply.Locker); ok {
		return l.Lock(ctx, scope)
	}
	return func() {}, nil
}

// Do implements [apply.Kernel].
func (k *around) Do(ctx context.Context, step *plan.Step) (apply.Done, error) {
	if step.ID.Kind() == model.KindLink && step.Op != plan.Change {
		ref := step.ID.Link()
		if s, ok := k.starts[ref]; ok && step.Op == plan.Create {
			return k.startTunnel(ctx, ref, s)
		}
		for _, t := range k.in.live() {
			if t.ref() == ref && step.Op == plan.Delete {
				return apply.Done{}, k.in.drop(t.hooks.ifname)
			}
		}
	}
	return k.Kernel.Do(ctx, step)
}

// DeleteLinks implements [apply.Deleter]: tunnels are stopped one by one, what lies between them goes together.
func (k *around) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	d, ok := k.Kernel.(apply.Deleter)
	if !ok {
		return errors.ErrUnsupported
	}
	isTunnel := func(s plan.Step) bool {
		return slices.ContainsFunc(k.in.live(), func(t *liveTunnel) bool { return t.ref() == s.ID.Link() })
	}
	for len(steps) > 0 {
		n := slices.IndexFunc(steps, isTunnel)
		if n == 0 {
			if _, err := k.Do(ctx, &steps[0]); err != nil {
				return err
			}
			steps = steps[1:]
			continue
		}
		if n < 0 {
			n = len(steps)
		}
		if err := d.DeleteLinks(ctx, steps[:n]); err != nil {
			return err
		}
		steps = steps[n:]
	}
	return nil
}

func (k *around) startTunnel(ctx context.Context, ref model.Ref, s start) (done apply.Done, err error) {
	if k.in.ending {
		return done, errors.New("the daemon is ending")
	}
	if k.in.isLive(ref.Name()) {
		return done, fmt.Errorf("the tunnel is up already, and its device is not there: %w", errors.ErrUnsupported)
	}
	if err := k.in.add(ctx, s.file, s.conf); err != nil {
		return done, err
	}
	namespace := setup.NamespacePath(ref.Netns())
	done.Index, err = k.in.kernel.linkIndex(namespace, ref.Name())
	if err == nil && k.down[ref] {
		// Joining a bond takes it up again, and the engine follows.
		_, err = k.Kernel.Do(ctx, &plan.Step{Op: plan.Change, ID: model.LinkID(ref), Type: string(s.conf.Mode), Index: done.Index,
			Owner: model.OwnerTunnel, Changes: []plan.FieldChange{{Field: "up", Old: model.Bool(true), New: model.Bool(false)}}})
	}
	if err != nil {
		return apply.Done{}, errors.Join(err, k.in.drop(ref.Name()))
	}
	return done, nil
}
