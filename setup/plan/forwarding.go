package plan

import (
	"maps"
	"slices"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// changesForwarding reports whether a step changes a setting with which the kernel changes others; declared, whether it is to stay so.
func (p *planner) changesForwarding(s *Step) (yes, declared bool) {
	if s.ID.Kind() != model.KindSysctl || s.Op != Change || s.Owner != model.OwnerExternal || len(s.Changes) != 1 {
		return false, false
	}
	if len(spec.ForwardingSettings(s.ID.Words()[1], nil)) == 0 {
		return false, false
	}
	return true, p.declares(s.ID)
}

// declares reports whether the value of a setting is declared.
func (p *planner) declares(id model.ID) bool {
	f := p.fates[id]
	if f == nil {
		return false
	}
	_, ok := f.item.Fields["value"]
	return ok
}

// withForwarding adds steps for what the kernel changes with others. On the way back there are none: what those before have remembered is
// compared by itself then.
func (p *planner) withForwarding(steps []Step) (out []Step) {
	mains := make(map[model.ID]bool)
	for i := range steps {
		if yes, _ := p.changesForwarding(&steps[i]); yes {
			mains[steps[i].ID] = true
		}
	}
	if p.restore || len(mains) == 0 {
		return steps
	}
	after := make(map[model.ID][]Step)
	for i := range steps {
		if main := steps[i].ID.ChangedBy(); mains[main] {
			after[main] = append(after[main], steps[i]) // or the kernel would change it again
		}
	}
	for i := range steps {
		s := &steps[i]
		if mains[s.ID.ChangedBy()] {
			continue
		}
		if !mains[s.ID] {
			out = append(out, *s)
			continue
		}
		_, declared := p.changesForwarding(s)
		if declared {
			out = append(out, p.remembered(s)...)
		}
		out = append(append(out, *s), after[s.ID]...)
		if !declared {
			out = append(out, p.returned(s)...)
		}
	}
	return out
}

// remembered are steps that have the journal remember what the kernel is about to change. What is of a device or in a namespace of the
// instance goes with it.
func (p *planner) remembered(main *Step) (steps []Step) {
	for _, id := range slices.Sorted(maps.Keys(p.system.Objects)) {
		o := p.system.Objects[id]
		have, ok := o.Fields["value"]
		if id.ChangedBy() != main.ID || p.within(id) || !ok {
			continue
		}
		to := model.Text(spec.Forwarded(id.Words()[1], string(main.Changes[0].New)))
		if p.declares(id) {
			to = have // its own step says what it is to be
		}
		steps = append(steps, setting(o, have, to, true))
	}
	return steps
}

// returned are steps that set back what the kernel has changed and what it changes in this moment.
func (p *planner) returned(main *Step) (steps []Step) {
	for _, id := range slices.Sorted(maps.Keys(p.known.Prior)) {
		prior, o := p.known.Prior[id], p.system.Objects[id]
		c, ok := prior.Fields["value"]
		if id.ChangedBy() != main.ID || o == nil || !prior.is(o) || !ok || p.declares(id) {
			continue
		}
		have, to := o.Fields["value"], c.Old
		if with := p.in.Others.holder(o, "value", c.Old); with != "" {
			p.release(id, "value")
			to = have
		} else if have != c.Old && have != c.New && !p.forwarded(o) {
			p.note("%s: its value was set to %s and is %s now: left alone", id.Text(), shown(c.New), shown(have))
			continue
		}
		steps = append(steps, setting(o, have, to, false))
	}
	for i := range p.items {
		// What is declared is set once more.
		id := p.items[i].ID
		if o := p.system.Objects[id]; id.ChangedBy() == main.ID && o != nil && p.fates[id].verdict == "" && !p.within(id) {
			steps = append(steps, setting(o, o.Fields["value"], p.items[i].Fields["value"], false))
		}
	}
	return steps
}

func setting(o *model.Object, from, to model.Value, keep bool) Step {
	return Step{Op: Change, ID: o.ID, Owner: model.OwnerExternal, Index: o.Index, Inode: o.Inode, Keep: keep,
		Changes: []FieldChange{{"value", from, to}}}
}

// forwarded reports whether a setting has the value that the kernel gives it with another.
func (p *planner) forwarded(o *model.Object) bool {
	main := p.system.Objects[o.ID.ChangedBy()]
	return main != nil && string(o.Fields["value"]) == spec.Forwarded(o.ID.Words()[1], string(main.Fields["value"]))
}

// goesWithForwarding reports whether a setting is not to be given back by itself: that with which the kernel changed it stays as it is
// declared, is left to another instance, which this one is left to as well, or has steps that give back both.
func (p *planner) goesWithForwarding(id model.ID) bool {
	main := id.ChangedBy()
	if main == "" {
		return false
	}
	if _, released := p.plan.Released[main]; released {
		p.release(id, "value")
		return true
	}
	f := p.fates[main]
	return f != nil && (f.verdict != "" || p.declares(main))
}

// inheritForwarding remembers, beside the value from before the first instance of a setting, those of what the kernel has changed with it.
func (p *planner) inheritForwarding() {
	for _, id := range slices.Sorted(maps.Keys(p.system.Objects)) {
		o := p.system.Objects[id]
		if _, ok := p.plan.Inherited[id.ChangedBy()]; !ok {
			continue
		}
		if prior, ok := p.known.Prior[id]; ok && prior.is(o) {
			continue
		}
		for _, c := range p.in.Others.on(o) {
			if h, ok := c.Fields["value"]; ok && h.Changed && !h.Leaving {
				p.plan.Inherited[id] = Prior{Where{o.Index, o.Inode}, map[model.Field]FieldChange{"value": {"value", h.Old, h.Value}}}
				break
			}
		}
	}
}
