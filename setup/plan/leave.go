package plan

import (
	"cmp"
	"maps"
	"slices"

	"culvert/setup/model"
)

// orphans finds what culvert made and is declared no longer.
func (p *planner) orphans() {
	for _, id := range slices.Sorted(maps.Keys(p.system.Objects)) {
		o := p.system.Objects[id]
		if p.fates[id] != nil || !p.ours(o) {
			continue
		}
		if _, pending := p.known.Pending[id]; o.Alias == "" && !pending && id.Kind() == model.KindLink && p.isTun(o) && !p.in.Tunnels {
			continue // a tunnel's, which takes it away itself
		}
		if p.contradicted(o) && (id.Kind() == model.KindLink || id.Kind() == model.KindNetns) {
			p.note("%s carries culvert's mark, but the journal knows another of that name: left alone", id.Text())
			continue
		}
		if o.Taken != "" {
			p.note("%s: %s: left alone", id.Text(), o.Taken)
		}
		if with := p.in.Others.sharer(o); with != "" && !p.goesAnyway(o) {
			p.release(id)
			p.note("%s stays: the instance %s has it too", id.Text(), with)
			continue
		}
		why := "it is not declared"
		if len(p.in.Items) == 0 {
			why = "" // all is taken away
		}
		p.orphan(o, why)
	}
}

// goesAnyway reports whether a thing is on a device of the instance's, in a namespace of it, or leads to a device, that is declared no longer.
func (p *planner) goesAnyway(o *model.Object) bool {
	return slices.ContainsFunc(hostsOf(o), func(id model.ID) bool {
		host := p.system.Objects[id]
		return host != nil && p.ours(host) && p.fates[id] == nil
	})
}

// hostsOf are the namespace and the devices that a thing goes with.
func hostsOf(o *model.Object) []model.ID {
	hosts := []model.ID{model.NetnsID(o.ID.Netns()), model.LinkID(o.ID.Link())}
	for _, f := range []model.Field{"master", "redirect", "link"} {
		hosts = append(hosts, model.LinkID(o.Fields[f].Link()))
	}
	return hosts
}

func (p *planner) orphan(o *model.Object, why string) {
	f := &fate{item: &model.Item{ID: o.ID, Type: o.Variant(p.system)}, have: o, verdict: WillDelete, reason: why}
	p.deletes[o.ID] = f
	p.order = append(p.order, f)
}

// giveBack sets fields back that are declared no longer, of things that are not culvert's.
func (p *planner) giveBack() {
	ids := slices.Sorted(maps.Keys(p.known.Prior))
	slices.SortStableFunc(ids, func(a, b model.ID) int { return cmp.Compare(len(a.ChangedBy()), len(b.ChangedBy())) }) // what changes others, first
	for _, id := range ids {
		prior := p.known.Prior[id]
		o := p.system.Objects[id]
		if o == nil || !prior.is(o) || p.deletes[id] != nil || p.goesWithForwarding(id) {
			continue
		}
		f := p.fates[id]
		if f != nil && f.verdict == InConflict {
			continue
		}
		var changes []FieldChange
		for _, name := range slices.Sorted(maps.Keys(prior.Fields)) {
			c := prior.Fields[name]
			if f != nil {
				if _, declared := f.item.Fields[name]; declared {
					continue
				}
			}
			if a := p.fates[model.AttachmentID(id.Link())]; name == "up" && a != nil && needsDownPorts(a.item.Type) {
				continue // a port that went up by joining stays so for as long as it is one
			}
			if with := p.in.Others.holder(o, name, c.Old); with != "" {
				p.release(id, name)
				p.note("%s keeps the %s %s: the instance %s has set it too", id.Text(), name, shown(o.Fields[name]), with)
				continue
			}
			switch have := o.Fields[name]; {
			case have == c.Old:
			case have == c.New || p.forwarded(o):
				changes = append(changes, FieldChange{name, have, c.Old})
			default:
				p.note("%s: its %s was set to %s and is %s now: left alone", id.Text(), name, shown(c.New), shown(o.Fields[name]))
			}
		}
		if len(changes) == 0 {
			continue
		}
		if f == nil {
			f = &fate{item: &model.Item{ID: id, Type: o.Variant(p.system), Owner: model.OwnerExternal}, have: o}
			p.order = append(p.order, f)
			p.fates[id] = f
		}
		f.verdict, f.reason = WillChange, "that is what it was before"
		f.changes = append(f.changes, changes...)
	}
}

// goes reports whether a thing is deleted, to be made anew or for good.
func (p *planner) goes(id model.ID) bool {
	if p.deletes[id] != nil {
		return true
	}
	f := p.fates[id]
	return f != nil && f.verdict == WillRecreate
}

// guard keeps what is not culvert's from going with something that is.
func (p *planner) guard() {
	for kept := true; kept; {
		kept = false
		for _, f := range p.order {
			id := f.item.ID
			if !p.goes(id) || f.verdict == InConflict {
				continue
			}
			victim := p.victim(id)
			if victim == "" {
				continue
			}
			kept = true
			if f.verdict == WillDelete {
				delete(p.deletes, id)
				f.verdict = ""
				p.note("%s is left: %s, which is not culvert's, would go with it", id.Text(), victim.Text())
			} else {
				p.conflict(f, "it has to be made anew (%s), and %s, which is not culvert's, would go with it", f.reason, victim.Text())
			}
		}
	}
}

// victim names a thing that is not culvert's, or is to be kept, and is lost if id goes.
func (p *planner) victim(id model.ID) model.ID {
	var around []*model.Object
	switch id.Kind() {
	case model.KindLink:
		for _, o := range p.onLink[id.Link()] {
			k := o.ID.Kind()
			if k == model.KindLink || k == model.KindFilter && o.ID.Link() != id.Link() {
				around = append(around, o)
			}
		}
	case model.KindNetns:
		for _, o := range p.inNetns[id.Rest()] {
			if o.ID.Kind() == model.KindLink && !model.KernelMade(o.ID.Link().Name()) {
				around = append(around, o)
			}
		}
	}
	for _, o := range around {
		if p.goes(o.ID) || p.restore {
			continue
		}
		if p.ours(o) && p.fates[o.ID] != nil && p.fates[o.ID].verdict != "" {
			continue // judged by itself
		}
		return o.ID
	}
	return ""
}
