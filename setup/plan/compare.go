package plan

import (
	"fmt"
	"maps"
	"slices"

	"culvert/setup/model"
	"culvert/setup/spec"
)

func (p *planner) describe(changes []FieldChange) string {
	text := ""
	for i, c := range changes {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("its %s is %s, not %s", c.Field, shown(c.Old), shown(c.New))
	}
	return text
}

// differences lists declared fields that have another value.
func (p *planner) differences(f *fate) (list []FieldChange) {
	borrowed := p.isPort(f)
	for _, name := range slices.Sorted(maps.Keys(f.item.Fields)) {
		want := f.item.Fields[name]
		have, ok := f.have.Fields[name]
		if want == have || !ok && !f.lacks(name) {
			continue
		}
		// A bond or team gives its ports its own address and MTU.
		if borrowed && (name == "mac" || name == "mtu") {
			continue
		}
		list = append(list, FieldChange{name, have, want})
	}
	return list
}

// lacks reports whether a thing has nothing of a declared field that is more than "no". A device or port knows nothing of it, as on a kernel
// without VLAN filtering: the step that would set it is what the kernel is asked about before anything is touched. Of a route or rule the
// kernel leaves out what it does not have, as a gateway.
func (f *fate) lacks(name model.Field) bool {
	want := f.item.Fields[name]
	return slices.Contains([]model.Kind{model.KindLink, model.KindAttachment, model.KindRoute, model.KindRule}, f.item.ID.Kind()) && want != "" && want != "no" && !slices.Contains(f.have.Unread, name)
}

// isPort reports whether a link is the port of a bond or team.
func (p *planner) isPort(f *fate) bool {
	if f.item.ID.Kind() != model.KindLink {
		return false
	}
	a := p.system.Objects[model.AttachmentID(f.item.ID.Link())]
	if a == nil {
		return false
	}
	m := p.system.Objects[model.LinkID(a.Fields["master"].Link())]
	return m != nil && needsDownPorts(string(m.Fields["type"]))
}

func needsDownPorts(typ string) bool {
	return typ == string(spec.TypeBond) || typ == string(spec.TypeTeam)
}

func (p *planner) compareForeign(f *fate) {
	for _, c := range p.differences(f) {
		if c.Field == "type" {
			p.conflict(f, "it is a %s, not a %s", c.Old, c.New)
			return
		}
		f.changes = append(f.changes, c)
	}
	if len(f.changes) > 0 {
		f.verdict = WillChange
	}
}

// compare decides about a thing that may be changed and made anew.
func (p *planner) compare(f *fate) {
	f.changes = p.differences(f)
	for _, c := range f.changes {
		if why := p.cannotChange(f, c); why != "" {
			f.verdict, f.reason = WillRecreate, why
			return
		}
		if info := model.Describe(f.item.ID.Kind(), f.item.Type, c.Field); info != nil && info.Change != model.InPlace {
			f.down = f.have.Fields["up"] == "yes"
		}
	}
	if len(f.changes) > 0 {
		f.verdict = WillChange
		return
	}
	if p.unmarked(f) {
		f.verdict, f.remark = WillChange, true
		f.reason = "its alias or group is not culvert's mark for it"
	}
}

// unmarked reports whether a thing's mark is not what it is to be: its alias, or the group, where the process was killed that was about
// to delete the link.
func (p *planner) unmarked(f *fate) bool {
	alias := p.alias(f.item)
	return alias != "" && (alias != f.have.Alias || f.have.Group != model.Group)
}

// alias is what an item's link is marked with.
func (p *planner) alias(i *model.Item) string {
	if k := i.ID.Kind(); k != model.KindLink && k != model.KindNetns || i.Owner != model.OwnerCulvert {
		return ""
	}
	if p.restore {
		return p.aliases[i.ID]
	}
	return model.Mark{Instance: p.instance, ID: i.ID, Hash: i.Hash()}.Alias()
}

// cannotChange says why a field can only be had by making the thing anew, "" where it can be changed.
func (p *planner) cannotChange(f *fate, c FieldChange) string {
	kind := f.item.ID.Kind()
	info := model.Describe(kind, f.item.Type, c.Field)
	switch {
	case info == nil || info.Change == model.Recreate:
		return fmt.Sprintf("its %s cannot be changed", c.Field)
	case info.Change == model.WhenFree && p.hasPorts(f.item.ID.Link()):
		return fmt.Sprintf("its %s cannot be changed while it has ports", c.Field)
	case c.Field == "mode" && (c.Old == "passthru" || c.New == "passthru"):
		return "mode passthru can be neither entered nor left"
	}
	return ""
}

func (p *planner) hasPorts(r model.Ref) bool {
	return slices.ContainsFunc(p.onLink[r], func(o *model.Object) bool {
		return o.ID.Kind() == model.KindAttachment && o.Fields["master"].Link() == r
	})
}
