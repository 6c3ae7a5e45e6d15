package plan

import (
	"fmt"
	"maps"
	"slices"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// Undo is what a plan to go back is made from.
type Undo struct {
	Instance string
	Before   *model.System // as it was
	Now      *model.System
	Known    Known  // as it is now
	Knew     Known  // as it was before
	Steps    []Step // those done, and the one that failed
	Tunnels  bool
	Others   Others       // what other instances have by now: it is left to them
	Declared []model.Item // by the instance, before the steps and from now on again
	// All compares every field of what the steps may have touched. Without it only what the steps did themselves is undone: much of
	// the rest comes back by itself then, as a port's address does that its bond had changed.
	All bool
}

// Restore plans the way back to what was before the steps. What other instances have come to share since stays, and is theirs.
func Restore(u Undo) *Plan {
	t := u.touched()
	items, aliases := u.items(t)
	p := newPlanner(Input{Instance: u.Instance, Items: items, System: u.Now, Known: u.Known, Tunnels: u.Tunnels, Others: u.Others})
	p.restore, p.aliases = true, aliases
	was := ownership{u.Instance, u.Before, u.Knew}
	for i := range p.items {
		p.judge(&p.items[i])
		f := p.fates[p.items[i].ID]
		k := f.item.ID.Kind()
		f.foreign = k != model.KindLink && k != model.KindNetns && !was.ours(u.Before.Objects[f.item.ID]) && f.verdict == WillCreate &&
			!t.deleted[f.item.ID]
		p.leaveTo(f, &u)
	}
	p.spreadRecreation()
	goes := func(id model.ID) bool {
		o := u.Now.Objects[id]
		return t.created[id] && o != nil && u.Before.Objects[id] == nil && (p.ours(o) || p.adoptable(o))
	}
	for _, id := range slices.Sorted(maps.Keys(t.created)) {
		switch o := u.Now.Objects[id]; {
		case !goes(id):
		case u.Others.sharer(o) != "" && !slices.ContainsFunc(hostsOf(o), goes):
			p.release(id)
		default:
			p.orphan(o, "it was not there before")
		}
	}
	p.takeDown()
	p.entries()
	p.plan.Steps = p.steps()
	return p.plan
}

// leaveTo leaves a thing that was there before as it is where another instance shares it by now, and fields that another keeps. What the
// instance had to do with before, or still declares, it has with the other; all else is released.
func (p *planner) leaveTo(f *fate, u *Undo) {
	if f.have == nil || f.verdict != WillChange && f.verdict != WillRecreate {
		return
	}
	id := f.item.ID
	if u.Others.sharer(f.have) != "" {
		f.verdict, f.changes, f.reason, f.down = "", nil, "", false
		if own, had := u.Knew.Own[id]; !had || !own.is(f.have) {
			p.release(id)
		}
		return
	}
	if k := id.Kind(); f.verdict != WillChange || (k == model.KindLink || k == model.KindNetns) && p.ours(f.have) {
		return // its own: it is for the other to come to terms with
	}
	f.changes = slices.DeleteFunc(f.changes, func(c FieldChange) bool {
		held := u.Others.holder(f.have, c.Field, c.New) != ""
		if held && !u.has(f.have, c.Field) {
			p.release(id, c.Field)
		}
		return held || u.ofPort(f.have)
	})
	if len(f.changes) == 0 && !f.remark {
		f.verdict, f.down = "", false
	}
}

// ofPort reports whether a link is a port that another instance has too: a bond or team has its ports' address, MTU and being up.
func (u *Undo) ofPort(o *model.Object) bool {
	a := u.Now.Objects[model.AttachmentID(o.ID.Link())]
	return o.ID.Kind() == model.KindLink && a != nil && needsDownPorts(a.Variant(u.Now)) && u.Others.sharer(a) != ""
}

// has reports whether the instance had changed a field before the steps, or declares it.
func (u *Undo) has(o *model.Object, name model.Field) bool {
	if prior, ok := u.Knew.Prior[o.ID]; ok && prior.is(o) {
		if _, ok := prior.Fields[name]; ok {
			return true
		}
	}
	return slices.ContainsFunc(u.Declared, func(i model.Item) bool {
		_, ok := i.Fields[name]
		return ok && i.ID == o.ID
	})
}

// touch is what steps have to do with.
type touch struct {
	created map[model.ID]bool
	deleted map[model.ID]bool
	changed map[model.ID]map[model.Field]bool
	severed map[model.ID]bool // what may have been lost with something else
}

// port notes what a step that attaches or detaches has to do with.
func (t *touch) port(s *Step, cut map[model.ID]bool) {
	if s.ID.Kind() != model.KindAttachment {
		return
	}
	port := model.LinkID(s.ID.Link())
	t.severed[port] = true
	t.severed[model.LinkID(s.Fields["master"].Link())] = true
	if needsDownPorts(s.Type) {
		cut[port] = true
	}
}

func (u *Undo) touched() *touch {
	t := &touch{map[model.ID]bool{}, map[model.ID]bool{}, map[model.ID]map[model.Field]bool{}, map[model.ID]bool{}}
	cut := make(map[model.ID]bool)
	for i := range u.Steps {
		s := &u.Steps[i]
		switch s.Op {
		case Create:
			t.created[s.ID] = true
			if s.Peer != nil {
				t.created[model.LinkID(s.Fields["peer"].Link())] = true
			}
			t.port(s, cut)
		case Delete:
			t.deleted[s.ID], cut[s.ID] = true, true
			if peer := s.Fields["peer"].Link(); peer != "" && s.ID.Kind() == model.KindLink {
				t.deleted[model.LinkID(peer)], cut[model.LinkID(peer)] = true, true
			}
			t.port(s, cut)
		case Change:
			if t.changed[s.ID] == nil {
				t.changed[s.ID] = map[model.Field]bool{}
			}
			for _, c := range s.Changes {
				t.changed[s.ID][c.Field] = true
				if c.Field == "up" && c.New != model.Bool(true) {
					cut[s.ID] = true
				}
			}
		}
	}
	// Whatever needed what was cut off, directly or not.
	state := make(map[model.ID]bool, len(u.Before.Objects))
	var severed func(id model.ID) bool
	severed = func(id model.ID) bool {
		if v, ok := state[id]; ok {
			return v
		}
		state[id] = false
		for _, need := range u.Before.Objects[id].Needs(u.Before) {
			if cut[need] || severed(need) {
				state[id] = true
				break
			}
		}
		return state[id]
	}
	if len(cut) > 0 {
		for id := range u.Before.Objects {
			if severed(id) {
				t.severed[id] = true
			}
		}
	}
	return t
}

// items are the things as they were, as far as the steps have to do with them.
func (u *Undo) items(t *touch) (items []model.Item, aliases map[model.ID]string) {
	aliases = make(map[model.ID]string)
	was := ownership{u.Instance, u.Before, u.Knew}
	ids := slices.Sorted(maps.Keys(u.Before.Objects))
	slices.SortStableFunc(ids, func(a, b model.ID) int {
		return slices.Index(model.Kinds, a.Kind()) - slices.Index(model.Kinds, b.Kind())
	})
	done := make(map[model.ID]bool)
	var visit func(id model.ID)
	visit = func(id model.ID) {
		if done[id] {
			return
		}
		done[id] = true
		if id.Kind() == model.KindLink && model.KernelMade(id.Link().Name()) {
			return
		}
		o := u.Before.Objects[id]
		needs := o.Needs(u.Before)
		for _, n := range needs {
			visit(n)
		}
		now := u.Now.Objects[id]
		whole := t.created[id] || t.deleted[id] || t.severed[id]
		only := t.changed[id]
		switch {
		case !whole && only == nil:
			return
		case now == nil && !u.canMake(&was, o):
			return // somebody else's device that is gone: nothing we could have done
		case now != nil && whole && !u.All && !t.deleted[id] && !t.created[id]: // made anew, it has to be so again
			if only == nil {
				return
			}
			whole = false
		}
		i := model.Item{ID: id, Needs: needs, Type: o.Variant(u.Before), Fields: model.Fields{}}
		for f, v := range o.Fields {
			if model.Describe(id.Kind(), i.Type, f) != nil && v != "?" && (whole || u.All || now == nil || only[f]) && !u.isTeamds(id, f) {
				i.Fields[f] = v
			}
		}
		if k := id.Kind(); (k == model.KindLink || k == model.KindNetns) && !was.ours(o) {
			i.Owner = model.OwnerExternal
		}
		if r := o.Fields["link"].Link(); r != "" && o.Fields["program"] != "teamd" {
			i.NeedsUp = append(i.NeedsUp, model.LinkID(r))
		}
		if r := o.Fields["redirect"].Link(); r != "" {
			i.NeedsUp = append(i.NeedsUp, model.LinkID(r))
		}
		aliases[id] = o.Alias
		items = append(items, i)
	}
	for _, id := range ids {
		visit(id)
	}
	return items, aliases
}

// isTeamds reports whether a field is teamd's to set: the address of a port, which it gives and takes back some time after the port has
// joined or left.
func (u *Undo) isTeamds(id model.ID, f model.Field) bool {
	if id.Kind() != model.KindLink || f != "mac" {
		return false
	}
	a := u.Before.Objects[model.AttachmentID(id.Link())]
	return a != nil && a.Variant(u.Before) == string(spec.TypeTeam)
}

func (u *Undo) canMake(was *ownership, o *model.Object) bool {
	k := o.ID.Kind()
	return k != model.KindLink && k != model.KindNetns || was.ours(o)
}

// Residue lists what is not as it was before the steps, among all they may have touched. Numbers that the kernel gives anew are not
// compared, nor is what was left to other instances.
func Residue(u Undo) (list []string) {
	t := u.touched()
	concerned := func(id model.ID) bool {
		return t.created[id] || t.deleted[id] || t.severed[id] || t.changed[id] != nil
	}
	for _, id := range slices.Sorted(maps.Keys(u.Before.Objects)) {
		if !concerned(id) || id.Kind() == model.KindLink && model.KernelMade(id.Link().Name()) {
			continue
		}
		was, now := u.Before.Objects[id], u.Now.Objects[id]
		if now == nil {
			list = append(list, id.Text()+" is missing")
			continue
		}
		if u.Others.sharer(now) != "" {
			continue
		}
		own := (&ownership{u.Instance, u.Now, u.Known}).ours(now)
		for _, f := range slices.Sorted(maps.Keys(was.Fields)) {
			if was.Fields[f] != now.Fields[f] && !u.isTeamds(id, f) && (own || u.Others.holder(now, f, was.Fields[f]) == "" && !u.ofPort(now)) {
				list = append(list, fmt.Sprintf("%s: its %s was %s and is %s", id.Text(), f, shown(was.Fields[f]), shown(now.Fields[f])))
			}
		}
		if was.Alias != now.Alias || model.IsOwnGroup(was.Group) != model.IsOwnGroup(now.Group) {
			list = append(list, fmt.Sprintf("%s: its mark was %q and is %q", id.Text(), was.Alias, now.Alias))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(t.created)) {
		if now := u.Now.Objects[id]; u.Before.Objects[id] == nil && now != nil && u.Others.sharer(now) == "" {
			list = append(list, id.Text()+" was not there before")
		}
	}
	return list
}
