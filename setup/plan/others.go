package plan

import (
	"maps"
	"slices"

	"culvert/setup/model"
)

// Others is what other instances have to do with things that are not theirs alone: by the thing, a claim of each.
//
// Instances may want the same of one thing: what they declare alike they share. Each of them remembers the value from before the first
// of them ([Records.Inherited]), or that the thing is culvert's ([Records.Adopted]); one that goes leaves it to the others
// ([Records.Released]), and the last sets it back, or takes it away. What they declare differently is a conflict.
type Others map[model.ID][]Claim

// Claim is what one other instance has to do with a thing.
type Claim struct {
	Instance string
	Where                         // of the thing, as far as it is known
	Made     bool                 // the instance made the thing, or shares it with who did
	Doubtful bool                 // its journal is damaged: what it has is left to it, and nothing is built upon it
	Leaving  bool                 // and is taking it away just now, or was when the process was killed
	Fields   map[model.Field]Held // what it keeps of a thing that it did not make
}

// Held is the value that another instance keeps a field at.
type Held struct {
	Value   model.Value
	Old     model.Value // before the first instance changed it
	Changed bool        // one has: Old is known
	Leaving bool        // it is being set back just now, or was when the process was killed
}

// on are the claims on a thing that is there.
func (x Others) on(o *model.Object) []Claim {
	return slices.DeleteFunc(slices.Clone(x[o.ID]), func(c Claim) bool { return !c.is(o) })
}

// sharer names another instance that made a thing as well, or shares it; "" where none does. Devices and namespaces are always one
// instance's, by their mark.
func (x Others) sharer(o *model.Object) string {
	return x.maker(o, func(c *Claim) bool { return !c.Leaving })
}

// leaver names another instance that made a thing, and is taking it away.
func (x Others) leaver(o *model.Object) string {
	return x.maker(o, func(c *Claim) bool { return c.Leaving && !c.Doubtful })
}

// partner names another instance that made a thing, and that it can be shared with.
func (x Others) partner(o *model.Object) string {
	return x.maker(o, func(c *Claim) bool { return !c.Leaving && !c.Doubtful })
}

func (x Others) maker(o *model.Object, suits func(*Claim) bool) string {
	if k := o.ID.Kind(); k == model.KindLink || k == model.KindNetns {
		return ""
	}
	for _, c := range x.on(o) {
		if c.Made && suits(&c) {
			return c.Instance
		}
	}
	return ""
}

// holder names another instance that keeps a field from being set to a value; "" where none does. One that wants just that does not.
func (x Others) holder(o *model.Object, name model.Field, to model.Value) string {
	for _, c := range x.on(o) {
		if h, ok := c.Fields[name]; ok && !h.Leaving && h.Value != to {
			return c.Instance
		}
	}
	return ""
}

const inBothOrOne = "say the same in both files, or take it out of one"

// share decides about a thing that another instance made: it is shared where it is just as declared.
func (p *planner) share(f *fate, with string, differs []FieldChange) {
	master := slices.IndexFunc(differs, func(c FieldChange) bool { return c.Field == "master" })
	switch {
	case len(differs) == 0:
		p.adopt(f.have)
		p.note("%s is there already, made by the instance %s: both have it from now on", f.item.ID.Text(), with)
	case master >= 0:
		p.conflict(f, "the instance %s has made it a port of %s: a link can be the port of one alone", with, differs[master].Old)
	default:
		p.conflict(f, "the instance %s has made it: %s; %s", with, p.describe(differs), inBothOrOne)
	}
}

// keepTogether compares what is declared of a thing that culvert did not make with what other instances keep of it.
func (p *planner) keepTogether(f *fate) {
	if f.verdict == InConflict || p.restore {
		return
	}
	for _, c := range p.in.Others.on(f.have) {
		for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
			want, declared := f.item.Fields[name]
			held := c.Fields[name]
			switch {
			case !declared:
			case held.Leaving:
				p.conflict(f, "the instance %s is setting its %s back, or was killed while it did: try again, or complete it with culvert destroy %[1]s",
					c.Instance, name)
			case want != held.Value:
				p.conflict(f, "the instance %s keeps its %s at %s, and this file says %s: %s", c.Instance, name, shown(held.Value), shown(want), inBothOrOne)
			case held.Changed && !c.Doubtful:
				p.inherit(f.have, c.Instance, FieldChange{name, held.Old, want})
			}
			if f.verdict == InConflict {
				f.field = string(name)
				return
			}
		}
	}
}

// inherit remembers the value from before the first instance changed a field, where this one knows of none.
func (p *planner) inherit(o *model.Object, by string, c FieldChange) {
	if prior, ok := p.known.Prior[o.ID]; ok && prior.is(o) {
		if _, ok := prior.Fields[c.Field]; ok {
			return
		}
	}
	if p.plan.Inherited == nil {
		p.plan.Inherited = map[model.ID]Prior{}
	}
	prior, ok := p.plan.Inherited[o.ID]
	if !ok {
		prior = Prior{Where{o.Index, o.Inode}, map[model.Field]FieldChange{}}
		p.plan.Inherited[o.ID] = prior
	}
	if _, ok := prior.Fields[c.Field]; !ok {
		prior.Fields[c.Field] = c
		p.note("%s: its %s is set by the instance %s already: both keep it from now on", o.ID.Text(), c.Field, by)
	}
}

// release leaves a thing to another instance, or fields of it.
func (p *planner) release(id model.ID, fields ...model.Field) {
	if p.plan.Released == nil {
		p.plan.Released = map[model.ID][]model.Field{}
	}
	p.plan.Released[id] = append(p.plan.Released[id], fields...)
}

// contested refuses to change or make anew what another instance shares.
func (p *planner) contested() {
	for i := range p.items {
		f := p.fates[p.items[i].ID]
		if f.have == nil || f.verdict != WillChange && f.verdict != WillRecreate || f.item.Owner != model.OwnerCulvert {
			continue
		}
		if with := p.in.Others.sharer(f.have); with != "" {
			what := f.reason
			if len(f.changes) > 0 {
				what = p.describe(f.changes)
			}
			p.conflict(f, "the instance %s has it too, as it is: %s; %s", with, what, inBothOrOne)
		}
	}
}
