package apply

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"

	"culvert/setup/journal"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// Engine carries out the plans of one instance. Its methods are not to be called concurrently.
type Engine struct {
	Instance  string
	File      string // that declares what is applied, for the journal; may be empty
	Kernel    Kernel
	Preflight Preflight        // nil: nothing is tried before
	Journal   *journal.Journal // open
	Tunnels   bool             // Kernel makes the devices of tunnels
	Netns     []string         // namespaces to look at besides those of the items and of the journal
	Progress  func(plan.Step)  // called before each step; may be nil
}

// Result is what an apply has done.
type Result struct {
	Plan   *plan.Plan    // that of the first pass, which is all but always the only one
	Before *model.System // as it was
	Steps  []plan.Step   // all steps done
	Notes  []string      // of the plan and the journal
	Knew   plan.Known    // what the journal told before

	was   *journal.Applied // what was declared before
	begun bool             // something is in the journal
}

// passes bounds how often is planned again because something came out otherwise: the kernel changes things by itself.
const passes = 3

// Plan says what [Engine.Apply] would do. While nothing is declared otherwise since the last apply, its entries are the drift.
func (e *Engine) Plan(ctx context.Context, items []model.Item) (*plan.Plan, *model.System, error) {
	p, sys, _, err := e.look(ctx, items)
	return p, sys, err
}

func (e *Engine) look(ctx context.Context, items []model.Item) (*plan.Plan, *model.System, plan.Others, error) {
	sys, err := e.Kernel.Read(ctx, e.scope(items))
	if err != nil {
		return nil, nil, nil, err
	}
	e.Journal.Bind(sys)
	others, notes, err := e.Journal.Others(sys)
	if err != nil {
		return nil, nil, nil, err
	}
	p := plan.Make(plan.Input{Instance: e.Instance, Items: items, System: sys, Known: e.Journal.State().Known(), Tunnels: e.Tunnels,
		Others: others})
	p.Notes = append(p.Notes, notes...)
	return p, sys, others, nil
}

// scope is everything declared, and all that the journal speaks of.
func (e *Engine) scope(items []model.Item) model.Scope {
	netns := map[string]bool{"": true}
	processes, settings := make(map[model.ID]bool), make(map[model.ID]bool)
	add := func(id model.ID) {
		switch id.Kind() {
		case model.KindNetns:
			netns[id.Rest()] = true
		case model.KindProcess, model.KindHandover:
			processes[id] = true
		case model.KindSysctl, model.KindDNS:
			settings[id] = true
		}
		netns[id.Netns()] = true
	}
	for i := range items {
		add(items[i].ID)
	}
	for _, name := range e.Netns {
		netns[name] = true
	}
	s := e.Journal.State()
	for _, id := range s.IDs() {
		add(id)
	}
	if u := s.Unconfirmed; u != nil {
		for id := range u.Before.Objects {
			if id.Kind() != model.KindNetns { // all there are were seen, but not looked into
				add(id)
			}
		}
		for i := range u.Steps {
			add(u.Steps[i].ID)
		}
	}
	return model.Scope{Netns: slices.Sorted(maps.Keys(netns)), Processes: slices.Sorted(maps.Keys(processes)),
		Settings: slices.Sorted(maps.Keys(settings))}
}

func (e *Engine) lock(ctx context.Context, scope model.Scope) (unlock func(), err error) {
	if l, ok := e.Kernel.(Locker); ok {
		return l.Lock(ctx, scope)
	}
	return func() {}, nil
}

// Apply makes the machine what the items say, and what an earlier apply left that they do not say, goes. A failure is undone: the
// error is a [FailedError] then. A [ConflictError] or [MissingError] comes before anything is touched.
func (e *Engine) Apply(ctx context.Context, items []model.Item) (*Result, error) {
	scope := e.scope(items)
	unlock, err := e.lock(ctx, scope)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r := &Result{}
	if e.Journal.State().Unconfirmed != nil {
		r.Notes = append(r.Notes, "a change that nobody had confirmed, and whose process is gone, is kept")
		if err := e.Journal.Keep(nil); err != nil {
			return r, err
		}
	}
	for pass := 1; ; pass++ {
		done, err := e.pass(ctx, items, r, pass)
		if err != nil {
			return r, e.fail(ctx, r, scope, err)
		}
		if done {
			return r, nil
		}
	}
}

// pass plans once and carries that out; done says that nothing was left to do. Between the look at what other instances have and the note of
// what this one wants, no other instance plans.
func (e *Engine) pass(ctx context.Context, items []model.Item, r *Result, n int) (done bool, err error) {
	p, sys, unlock, err := e.planLocked(ctx, items, n == 1)
	if n == 1 && p != nil {
		r.Plan, r.Before, r.Knew, r.was = p, sys, e.Journal.State().Known(), e.Journal.State().Applied
		r.Notes = slices.Concat(r.Notes, e.Journal.Ignored(), p.Notes)
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	switch {
	case p.IsEmpty():
		return true, e.settle(p, sys, items, len(r.Steps) > 0)
	case p.HasConflict():
		return false, &ConflictError{p}
	case n > passes:
		return false, &VerifyError{p}
	}
	return false, e.execute(ctx, p, sys, &r.Steps, func() {
		r.begun = true
		unlock()
	})
}

// planLocked plans while no other instance does, until unlock is called. Where try is set the machine is asked for what the steps need: that
// can take seconds, and is done without the lock. The plan stands afterwards where the other instances have what they had; else it is made
// anew. With an error the lock is not held, and the plan is the one refused, or nil.
func (e *Engine) planLocked(ctx context.Context, items []model.Item, try bool) (p *plan.Plan, sys *model.System, unlock func(), err error) {
	for n := 1; ; n++ {
		if unlock, err = e.Journal.LockOthers(ctx); err != nil {
			return nil, nil, nil, err
		}
		var others plan.Others
		if p, sys, others, err = e.look(ctx, items); err != nil {
			unlock()
			return nil, nil, nil, err
		}
		if !try {
			return p, sys, unlock, nil
		}
		held := e.Preflight == nil || len(p.Steps) == 0 || n == passes // they change all the time: it is tried with the lock
		if !held {
			unlock()
		}
		if err = e.refuse(ctx, p, items); err != nil || held {
			if err != nil {
				unlock()
			}
			return p, sys, unlock, err
		}
		if unlock, err = e.Journal.LockOthers(ctx); err != nil {
			return p, sys, nil, err
		}
		now, _, err := e.Journal.Others(sys)
		if err == nil && reflect.DeepEqual(others, now) {
			return p, sys, unlock, nil
		}
		unlock()
		if err != nil {
			return p, sys, nil, err
		}
	}
}

// settle writes down that everything is as declared.
func (e *Engine) settle(p *plan.Plan, sys *model.System, items []model.Item, happened bool) error {
	if err := e.Journal.Record(p.Records); err != nil {
		return err
	}
	var declared *journal.Applied
	if len(items) > 0 {
		declared = &journal.Applied{File: e.File, Items: items}
	}
	s := e.Journal.State()
	happened = happened || !p.Records.IsEmpty() || s.Interrupted()
	stale := len(items) == 0 && !s.IsEmpty() // what it tells of is gone
	if !e.Journal.Apply(declared) && !happened && !stale {
		return nil // nothing is written
	}
	return e.Journal.End(sys)
}

// refuse says why a plan is not begun.
func (e *Engine) refuse(ctx context.Context, p *plan.Plan, items []model.Item) error {
	if p.HasConflict() {
		return &ConflictError{p}
	}
	m, err := e.missing(ctx, p, items)
	if err != nil || m == nil {
		return err
	}
	return m
}

// Try adds to a plan what its steps need and the machine has not. Nothing is changed by it, but that the kernel loads its modules.
func (e *Engine) Try(ctx context.Context, p *plan.Plan, items []model.Item) error {
	m, err := e.missing(ctx, p, items)
	if err != nil || m == nil {
		return err
	}
	for i := range m.Missing {
		p.Missing = append(p.Missing, *m.Missing[i].At(m.Origins[i]))
	}
	return nil
}

// missing tries the steps of a plan; nil where nothing is missing.
func (e *Engine) missing(ctx context.Context, p *plan.Plan, items []model.Item) (*MissingError, error) {
	if e.Preflight == nil || len(p.Steps) == 0 {
		return nil, nil
	}
	missing, err := e.Preflight.Try(ctx, p.Steps)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	m := &MissingError{Missing: missing, Origins: make([]spec.Origin, len(missing))}
	for i := range missing {
		if at := slices.IndexFunc(items, func(x model.Item) bool { return x.ID == missing[i].Step.ID }); at >= 0 {
			m.Origins[i] = items[at].Place.Origin
		}
	}
	return m, nil
}

// execute does the steps of a plan, and appends each that is begun to done. It calls begun once they are written down.
func (e *Engine) execute(ctx context.Context, p *plan.Plan, sys *model.System, done *[]plan.Step, begun func()) error {
	if len(p.Steps) == 0 {
		return nil
	}
	if err := e.Journal.Begin(p.Steps, p.Records); err != nil {
		return err
	}
	begun()
	at := whereabouts(sys)
	for rest := slices.Clone(p.Steps); len(rest) > 0; {
		n := 1
		d, can := e.Kernel.(Deleter)
		if can {
			n = together(rest)
		}
		var err error
		switch {
		case ctx.Err() != nil:
			err = e.failed(&rest[0], ctx.Err())
		case n > 1:
			err = e.deleteTogether(ctx, d, rest[:n], at, done)
		default:
			e.begin(&rest[0], at, done)
			err = e.do(ctx, &rest[0], at)
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// do does a step that is begun.
func (e *Engine) do(ctx context.Context, s *plan.Step, at *place) error {
	d, err := e.Kernel.Do(ctx, s)
	if err != nil {
		return e.failed(s, err)
	}
	return e.Journal.Done(at.note(s, d))
}

// failed ends the batch in the journal with a step that was not done.
func (e *Engine) failed(s *plan.Step, err error) error {
	return errors.Join(&StepError{*s, err}, e.Journal.Done(journal.Done{Error: err.Error()}))
}

// begin makes a step complete, and tells of it.
func (e *Engine) begin(s *plan.Step, at *place, done *[]plan.Step) {
	at.locate(s)
	if e.Progress != nil {
		e.Progress(*s)
	}
	*done = append(*done, *s)
}

// place knows where links and namespaces are while steps are done.
type place struct {
	index map[model.Ref]int
	inode map[string]uint64
}

func whereabouts(sys *model.System) *place {
	w := &place{map[model.Ref]int{}, map[string]uint64{"": sys.Inode}}
	for id, o := range sys.Objects {
		switch id.Kind() {
		case model.KindLink:
			w.index[id.Link()] = o.Index
		case model.KindNetns:
			w.inode[id.Rest()] = o.Inode
		}
	}
	return w
}

// locate says where a step's thing is, as far as that was not known when it was planned.
func (w *place) locate(s *plan.Step) {
	if s.Index == 0 && (s.Op != plan.Create || s.ID.Kind() != model.KindLink) {
		s.Index = w.index[s.ID.Link()]
	}
	if s.Inode == 0 && s.ID.Kind() != model.KindNetns && s.ID.Kind() != model.KindProcess {
		s.Inode = w.inode[s.ID.Netns()]
	}
}

// note remembers what a step has made, and returns it for the journal.
func (w *place) note(s *plan.Step, d Done) (out journal.Done) {
	id := s.ID
	switch {
	case s.Op == plan.Create && id.Kind() == model.KindNetns:
		w.inode[id.Rest()] = d.Inode
		out.Where = plan.Where{Inode: d.Inode}
	case s.Op == plan.Create && id.Kind() == model.KindLink:
		w.index[id.Link()] = d.Index
		out.Where = plan.Where{Index: d.Index, Inode: w.inode[id.Netns()]}
		if peer := s.Fields["peer"].Link(); s.Peer != nil && peer != "" {
			w.index[peer] = d.PeerIndex
			out.PeerWhere = plan.Where{Index: d.PeerIndex, Inode: w.inode[peer.Netns()]}
		}
	case s.Op == plan.Create:
		out.Where = plan.Where{Index: s.Index, Inode: s.Inode}
	case s.Op == plan.Delete && id.Kind() == model.KindLink:
		delete(w.index, id.Link())
	case s.Op == plan.Delete && id.Kind() == model.KindNetns:
		delete(w.inode, id.Rest())
	}
	return out
}

// Destroy takes down all that is the instance's, and gives back what it had changed of other things. Where nothing is left, the
// journal is empty afterwards.
func (e *Engine) Destroy(ctx context.Context) (*Result, error) { return e.Apply(ctx, nil) }
