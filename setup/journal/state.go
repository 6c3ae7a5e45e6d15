package journal

import (
	"cmp"
	"maps"
	"slices"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// State is what a journal tells.
type State struct {
	Own   map[model.ID]plan.Where `json:"own,omitempty"`
	Prior map[model.ID]plan.Prior `json:"prior,omitempty"`
	// Applied is what was declared by the last apply that came to its end.
	Applied *Applied `json:"applied,omitempty"`
	// Unconfirmed is how it was before a change that is to be undone unless somebody confirms it.
	Unconfirmed *Unconfirmed `json:"unconfirmed,omitempty"`

	// Left are things whose creation has failed, and may have left something.
	Left map[model.ID]bool `json:"left,omitempty"`

	begun []plan.Step // of a batch without end
	done  int         // how many of them are done or have failed
	// released are fields that were left to other instances since the last end, whatever is declared.
	released map[model.ID][]model.Field
}

// Applied is what was declared: for those who compare without the file, which may have changed since.
type Applied struct {
	File  string       `json:"file,omitempty"` // that declares it, with its full path; "" is not known
	Items []model.Item `json:"items"`
}

// Unconfirmed is a change that is not confirmed yet.
type Unconfirmed struct {
	Applied *Applied `json:"applied,omitempty"` // before the change

	Before *model.System `json:"before"`
	Steps  []plan.Step   `json:"steps"`
	Knew   plan.Known    `json:"knew"` // what the journal told then
}

func newState() State {
	return State{Own: map[model.ID]plan.Where{}, Prior: map[model.ID]plan.Prior{}, Left: map[model.ID]bool{}}
}

// Known is the state as a plan needs it. What it returns is its own.
func (s *State) Known() plan.Known {
	k := plan.Known{Own: maps.Clone(s.Own), Prior: make(map[model.ID]plan.Prior, len(s.Prior)), Pending: maps.Clone(s.Left)}
	for id, p := range s.Prior {
		p.Fields = maps.Clone(p.Fields)
		k.Prior[id] = p
	}
	if s.done < len(s.begun) {
		step := &s.begun[s.done]
		switch step.Op {
		case plan.Create:
			k.Pending[step.ID] = true
			sideEffect(k.Prior, k.Own, step)
			if peer := step.Fields["peer"].Link(); step.Peer != nil && peer != "" {
				k.Pending[model.LinkID(peer)] = true
			}
		case plan.Change:
			// Whether it was made or not: where the field has the new value, the old one is what it had before.
			changePrior(k.Prior, k.Own, step, true)
		}
	}
	s.takenPorts(&k)
	return k
}

// Interrupted reports whether a batch has no end: the process was killed.
func (s *State) Interrupted() bool { return s.begun != nil }

// IsEmpty reports whether there is nothing to remember: what was declared alone is nothing.
func (s *State) IsEmpty() bool {
	return len(s.Own) == 0 && len(s.Prior) == 0 && len(s.Left) == 0 && s.Unconfirmed == nil && s.begun == nil
}

// IDs are all things the journal speaks of.
func (s *State) IDs() []model.ID {
	seen := make(map[model.ID]bool)
	for id := range s.Own {
		seen[id] = true
	}
	for id := range s.Prior {
		seen[id] = true
	}
	for i := range s.begun {
		seen[s.begun[i].ID] = true
	}
	for id := range s.Left {
		seen[id] = true
	}
	out := make([]model.ID, 0, len(seen))
	for id := range seen {
		out = append(out, id)
	}
	return out
}

// Done is what is known of a step that is done.
type Done struct {
	Where     plan.Where `json:"where,omitzero"`
	PeerWhere plan.Where `json:"peer,omitzero"`
	Error     string     `json:"error,omitempty"` // it has failed, and undone what it did
}

func (s *State) finish(d Done) {
	step := &s.begun[s.done]
	s.done++
	peer := model.LinkID(step.Fields["peer"].Link())
	isPair := step.Peer != nil && peer != ""
	if d.Error != "" {
		s.begun, s.done = nil, 0 // those behind it are not begun
		// Of what has a mark the rest of a failed creation is known by it.
		if k := step.ID.Kind(); step.Op == plan.Create && (k == model.KindLink || k == model.KindNetns) {
			s.Left[step.ID] = true
			if isPair {
				s.Left[peer] = true
			}
		}
		return
	}
	switch step.Op {
	case plan.Create:
		sideEffect(s.Prior, s.Own, step)
		delete(s.Left, step.ID)
		if _, made := s.Own[step.ID]; step.Foreign && !made { // a setting has no mark: whose it was, the journal alone tells
			return
		}
		s.Own[step.ID] = d.Where
		if isPair {
			s.Own[peer] = d.PeerWhere
			delete(s.Left, peer)
		}
	case plan.Delete:
		delete(s.Own, step.ID)
		delete(s.Prior, step.ID)
	case plan.Change:
		changePrior(s.Prior, s.Own, step, false)
	}
}

// record remembers and forgets.
func (s *State) record(r plan.Records) {
	maps.Copy(s.Own, r.Adopted)
	for id, from := range r.Inherited {
		prior, ok := s.Prior[id]
		if !ok || prior.Where != from.Where {
			prior = plan.Prior{Where: from.Where}
		}
		prior.Fields = maps.Clone(prior.Fields)
		if prior.Fields == nil {
			prior.Fields = map[model.Field]plan.FieldChange{}
		}
		for name, c := range from.Fields {
			if _, known := prior.Fields[name]; !known {
				prior.Fields[name] = c
			}
		}
		s.Prior[id] = prior
	}
	for id, fields := range r.Released {
		if len(fields) == 0 {
			delete(s.Own, id)
			continue
		}
		prior := s.Prior[id]
		prior.Fields = maps.Clone(prior.Fields)
		for _, name := range fields {
			delete(prior.Fields, name)
		}
		if s.released == nil {
			s.released = make(map[model.ID][]model.Field)
		}
		s.released[id] = append(s.released[id], fields...)
		s.setPrior(id, prior)
	}
}

// setPrior remembers what was before, or forgets the thing where that is nothing.
func (s *State) setPrior(id model.ID, prior plan.Prior) {
	if len(prior.Fields) == 0 {
		delete(s.Prior, id)
		return
	}
	s.Prior[id] = prior
}

// Return makes the state what it was before steps that are undone, of all that is as it was before them: what was taken over from other
// instances is theirs alone again, and what was left to them is this one's too.
func (s *State) Return(knew plan.Known, before, now *model.System) {
	same := func(id model.ID) (was, is *model.Object) {
		was, is = before.Objects[id], now.Objects[id]
		if was == nil || is == nil || was.Index != is.Index || was.Inode != is.Inode {
			return nil, nil
		}
		return was, is
	}
	ids := make(map[model.ID]bool)
	for _, known := range []map[model.ID]plan.Where{s.Own, knew.Own} {
		for id := range known {
			ids[id] = true
		}
	}
	for id := range ids {
		if k := id.Kind(); k == model.KindLink || k == model.KindNetns {
			continue // these have a mark
		}
		if was, _ := same(id); was == nil {
			continue
		}
		if w, ok := knew.Own[id]; ok {
			s.Own[id] = w
		} else {
			delete(s.Own, id)
		}
	}
	ids = make(map[model.ID]bool)
	for _, known := range []map[model.ID]plan.Prior{s.Prior, knew.Prior} {
		for id := range known {
			ids[id] = true
		}
	}
	for id := range ids {
		was, is := same(id)
		if was == nil {
			continue
		}
		prior, then := s.Prior[id], knew.Prior[id]
		if len(prior.Fields) == 0 {
			prior.Where = then.Where
		}
		prior.Fields = maps.Clone(prior.Fields)
		if prior.Fields == nil {
			prior.Fields = map[model.Field]plan.FieldChange{}
		}
		for name, value := range was.Fields {
			if is.Fields[name] != value {
				continue
			}
			delete(prior.Fields, name)
			if c, ok := then.Fields[name]; ok {
				prior.Fields[name] = c
			}
		}
		s.setPrior(id, prior)
	}
}

// sideEffect keeps the values of fields that change by themselves.
func sideEffect(prior map[model.ID]plan.Prior, own map[model.ID]plan.Where, step *plan.Step) {
	if len(step.Side) > 0 {
		link := plan.Step{ID: model.LinkID(step.ID.Link()), Index: step.Index, Inode: step.Inode, Owner: model.OwnerExternal, Changes: step.Side}
		changePrior(prior, own, &link, true)
	}
}

// changePrior keeps the values that fields had before the first change of a thing that is not ours. Set back, they are forgotten,
// unless that is not known to have happened, or the step says that they are to be kept.
func changePrior(prior map[model.ID]plan.Prior, own map[model.ID]plan.Where, step *plan.Step, maybe bool) {
	if _, ours := own[step.ID]; ours || step.Owner == model.OwnerCulvert && step.ID.Kind() != model.KindAttachment {
		return
	}
	p, ok := prior[step.ID]
	other := func(a, b uint64) bool { return a != 0 && b != 0 && a != b }
	if !ok || other(uint64(p.Index), uint64(step.Index)) || other(p.Inode, step.Inode) {
		p = plan.Prior{Where: plan.Where{Index: step.Index, Inode: step.Inode}, Fields: map[model.Field]plan.FieldChange{}}
	}
	p.Fields = maps.Clone(p.Fields)
	for _, c := range step.Changes {
		old := c.Old
		if have, ok := p.Fields[c.Field]; ok {
			old = have.Old
		}
		if old == c.New && !step.Keep {
			if !maybe {
				delete(p.Fields, c.Field)
			}
			continue
		}
		p.Fields[c.Field] = plan.FieldChange{Field: c.Field, Old: old, New: c.New}
	}
	if len(p.Fields) == 0 {
		delete(prior, step.ID)
		return
	}
	prior[step.ID] = p
}

// Prune forgets what is not there any more, and of what was changed, what is as it was before.
func (s *State) Prune(sys *model.System) {
	for id, own := range s.Own {
		o, ok := sys.Objects[id]
		other := ok && (own.Index != 0 && own.Index != o.Index || own.Inode != 0 && own.Inode != o.Inode)
		if !ok || other && !model.IsOwnGroup(o.Group) { // what has a copied mark is left alone for as long as it is known that it is one
			delete(s.Own, id)
		}
	}
	ids := slices.SortedFunc(maps.Keys(s.Prior), func(a, b model.ID) int { return cmp.Compare(len(a.ChangedBy()), len(b.ChangedBy())) })
	for _, id := range ids { // what the kernel changes with something else, behind that
		p := s.Prior[id]
		o, ok := sys.Objects[id]
		_, kept := s.Prior[id.ChangedBy()]
		ok = ok && (p.Index == 0 || p.Index == o.Index) && (p.Inode == 0 || p.Inode == o.Inode)
		if ok {
			p.Fields = maps.Clone(p.Fields)
			maps.DeleteFunc(p.Fields, func(f model.Field, c plan.FieldChange) bool {
				have, read := o.Fields[f]
				return read && have == c.Old && !kept
			})
			s.Prior[id] = p
		}
		if !ok || len(p.Fields) == 0 {
			delete(s.Prior, id)
		}
	}
	for id := range s.Left {
		if o, ok := sys.Objects[id]; !ok || !model.IsOwnGroup(o.Group) || o.Alias != "" {
			delete(s.Left, id)
		}
	}
}
