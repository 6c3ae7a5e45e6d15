package plan

import (
	"culvert/setup/model"
)

// Known is what the journal tells of the things on the machine.
type Known struct {
	// Own are things culvert made, with the link and the namespace they were made in.
	Own map[model.ID]Where `json:"own,omitempty"`
	// Prior are values that fields of things had which culvert did not make, before it changed them.
	Prior map[model.ID]Prior `json:"prior,omitempty"`
	// Pending are things whose creation was begun, and may or may not have happened.
	Pending map[model.ID]bool `json:"pending,omitempty"`
}

// Where tells a thing from a later one of its name: the index of the link it is or is on, and the inode of its namespace (of a netns,
// its own). 0 is not known.
type Where struct {
	Index int    `json:"index,omitempty"`
	Inode uint64 `json:"inode,omitempty"`
}

// Prior is what culvert changed of a thing it did not make: by field, the value before (Old) and the one it set (New).
type Prior struct {
	Where
	Fields map[model.Field]FieldChange `json:"fields"`
}

func (w Where) is(o *model.Object) bool {
	return (w.Index == 0 || w.Index == o.Index) && (w.Inode == 0 || w.Inode == o.Inode)
}

// ownership decides whose the things of a system are.
type ownership struct {
	instance string
	system   *model.System
	known    Known
}

// ours reports whether culvert made a thing, and may take it away.
func (w *ownership) ours(o *model.Object) bool {
	own, recorded := w.known.Own[o.ID]
	recorded = recorded && own.is(o)
	pending := w.known.Pending[o.ID]
	switch o.ID.Kind() {
	case model.KindLink, model.KindNetns:
		if !model.IsOwnGroup(o.Group) {
			return recorded && o.Alias == "" && o.ID.Kind() == model.KindLink && own.Index != 0 && w.isTun(o)
		}
		m, ok := model.ParseMark(o.Alias)
		return ok && m.Instance == w.instance || o.Alias == "" && (pending || recorded)
	case model.KindNAT:
		return o.ID.Words()[1] == model.NATTable(w.instance) && (o.Ours || recorded || pending)
	case model.KindFirewall:
		return o.ID.Words()[1] == model.FirewallTable(w.instance) && (o.Ours || recorded || pending)
	case model.KindProcess, model.KindHandover, model.KindDNS:
		return o.Ours
	case model.KindQdisc:
		if o.ID.Words()[1] == "ingress" { // it has no room for a mark
			return recorded || pending
		}
	case model.KindAttachment, model.KindAddress:
		return recorded || pending
	}
	return o.Ours && (recorded || pending)
}

// isTun reports whether a link is a tun or tap that goes with the descriptors of its daemon, which need not mark it.
func (w *ownership) isTun(o *model.Object) bool {
	t := o.Fields["type"]
	return (t == "tun" || t == "tap") && o.Fields["persist"] != "yes"
}

// contradicted reports whether the journal speaks of another link of that name: a mark may have been copied.
func (w *ownership) contradicted(o *model.Object) bool {
	own, ok := w.known.Own[o.ID]
	return ok && !own.is(o) && !w.known.Pending[o.ID]
}

// within reports whether a thing is on a link of ours, or in a namespace of ours: what is declared of it may be set, whoever made it.
func (w *ownership) within(id model.ID) bool {
	if r := id.Link(); r != "" && id.Kind() != model.KindLink {
		o := w.system.Objects[model.LinkID(r)]
		return o != nil && w.ours(o)
	}
	if r := id.SettingOf(); r != "" {
		if o := w.system.Objects[model.LinkID(r)]; o != nil && w.ours(o) {
			return true
		}
	}
	if n := id.Netns(); n != "" && id.Kind() != model.KindLink {
		o := w.system.Objects[model.NetnsID(n)]
		return o != nil && w.ours(o)
	}
	return false
}

// adoptable reports whether a declared thing that no journal knows is culvert's by its mark alone.
func (w *ownership) adoptable(o *model.Object) bool {
	switch o.ID.Kind() {
	case model.KindQdisc, model.KindClass, model.KindFilter:
		return o.Ours
	}
	return w.within(o.ID)
}
