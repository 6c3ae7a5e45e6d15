package graph

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"culvert/setup/model"
)

// thing is what is known of one ID: what is declared, what is there, or both.
type thing struct {
	id    model.ID
	item  *model.Item   // nil: not declared
	found *model.Object // nil: not there
}

// gather joins what is declared with what is there, in a fixed order.
func gather(s Source) []*thing {
	byID := make(map[model.ID]*thing)
	get := func(id model.ID) *thing {
		if byID[id] == nil {
			byID[id] = &thing{id: id}
		}
		return byID[id]
	}
	for i := range s.Items {
		get(s.Items[i].ID).item = &s.Items[i]
	}
	if s.System != nil {
		for id, o := range s.System.Objects {
			get(id).found = o
		}
	}
	return slices.SortedFunc(maps.Values(byID), func(a, b *thing) int { return natural(string(a.id), string(b.id)) })
}

func (t *thing) want(f model.Field) model.Value {
	if t.item == nil {
		return ""
	}
	return t.item.Fields[f]
}

func (t *thing) have(f model.Field) model.Value {
	if t.found == nil {
		return ""
	}
	return t.found.Fields[f]
}

// field is the value there, or else the declared one.
func (t *thing) field(f model.Field) model.Value { return cmp.Or(t.have(f), t.want(f)) }

// fields are all values: those there, and those declared of what is not there.
func (t *thing) fields() model.Fields {
	if t.found != nil {
		return t.found.Fields
	}
	return t.item.Fields
}

// owned reports whether what is there carries culvert's mark.
func (t *thing) owned() bool {
	if t.found == nil {
		return false
	}
	if t.id.Kind() == model.KindLink {
		return model.IsOwnGroup(t.found.Group)
	}
	return t.found.Ours
}

// status is what a comparison says of the thing in itself.
func (t *thing) status() Status {
	switch {
	case t.found == nil:
		return Missing
	case t.item == nil && t.owned():
		return Extra
	case t.item == nil:
		return Foreign
	case len(t.changes("")) > 0 || t.foreignName():
		return Differs
	}
	return Same
}

// foreignName reports whether what is there is a link of somebody else's by a name that is declared as culvert's own. A plan refuses to
// touch it.
func (t *thing) foreignName() bool {
	return t.id.Kind() == model.KindLink && t.item != nil && t.item.Owner == model.OwnerCulvert && t.found != nil && !t.owned()
}

// changes says which declared fields have another value, each line behind a prefix.
func (t *thing) changes(prefix string) (list []string) {
	if t.item == nil || t.found == nil {
		return nil
	}
	for _, f := range slices.Sorted(maps.Keys(t.item.Fields)) {
		want, have := t.item.Fields[f], t.found.Fields[f]
		if want != have {
			list = append(list, prefix+words(f)+" "+shown(have)+", declared "+shown(want))
		}
	}
	return list
}

func shown(v model.Value) string {
	if v == "" {
		return "none"
	}
	return cut(clean(string(v)), 60)
}

func words(f model.Field) string { return strings.ReplaceAll(string(f), "_", " ") }

// phrase says in a line what the thing is.
func (t *thing) phrase() string {
	w := t.id.Words()
	var head string
	fields := t.fields()
	leave := map[model.Field]bool{}
	switch t.id.Kind() {
	case model.KindAddress:
		head = "address " + w[len(w)-1]
	case model.KindAttachment:
		head = "port of " + string(fields["master"])
		leave["master"] = true
	case model.KindQdisc:
		head = "qdisc " + string(fields["kind"]) + " at " + w[len(w)-1]
		leave["kind"] = true
		leave["handle"] = true
	case model.KindClass:
		head = "class " + string(fields["kind"]) + " " + w[len(w)-1]
		leave["kind"] = true
		leave["parent"] = true
	case model.KindFilter:
		head = "filter at " + strings.Join(w[1:], " ")
		if to := fields["redirect"]; to != "" {
			head += " into " + string(to)
		}
		leave["kind"] = true
		leave["handle"] = true
		leave["redirect"] = true
	case model.KindRoute:
		head = "route"
		if kind := fields["type"]; kind != "" && kind != "unicast" {
			head += " " + string(kind)
		}
		leave["type"] = true
		if len(w) == 4 {
			head += " " + w[2]
			if w[1] != "254" && w[1] != "main" {
				head += " table " + w[1]
			}
			if w[3] != "0" {
				head += " metric " + w[3]
			}
		}
	case model.KindRule:
		head = "rule " + strings.Join(w[1:], " ")
	case model.KindNAT:
		head = "NAT " + strings.Join(w[1:], " ")
	case model.KindFirewall:
		head = "firewall " + w[1]
	case model.KindSysctl:
		head = "sysctl " + w[1]
	case model.KindHandover:
		head = "handed over at " + string(fields["socket"])
		leave["socket"] = true
	default:
		head = string(t.id)
	}
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		if v := fields[f]; v != "" && !leave[f] {
			head += ", " + words(f) + " " + cut(string(v), 120)
		}
	}
	return clean(head)
}
