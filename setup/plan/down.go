package plan

import (
	"maps"
	"slices"

	"culvert/setup/model"
)

// takeDown finds the links that have to go down on the way, or are taken down by the kernel, and what is lost by that.
func (p *planner) takeDown() {
	for _, f := range slices.Clone(p.order) {
		switch {
		case f.item.ID.Kind() == model.KindLink && f.verdict == WillChange && f.down:
			p.down(f, f.item.ID.Link(), "to be changed")
		case f.item.ID.Kind() == model.KindAttachment && (f.verdict == WillCreate || f.verdict == WillRecreate) &&
			needsDownPorts(f.item.Type):
			p.down(f, f.item.ID.Link(), "to join "+string(f.item.Fields["master"]))
		}
	}
	// The kernel closes a port that leaves a bond or team.
	for _, id := range slices.Sorted(maps.Keys(p.system.Objects)) {
		o := p.system.Objects[id]
		master := model.LinkID(o.Fields["master"].Link())
		if id.Kind() != model.KindAttachment || !needsDownPorts(o.Variant(p.system)) || !p.goes(id) && !p.goes(master) {
			continue
		}
		f := p.fates[id]
		if f == nil || !p.goes(id) {
			f = p.deletes[id]
		}
		p.down(f, id.Link(), "to leave "+string(o.Fields["master"]))
	}
}

// down takes a link down, where it is up and stays. The kernel drops its IPv6 addresses and its routes then: what is declared is made
// again, and for what is not f must not be done; but nothing keeps a thing from being deleted.
func (p *planner) down(f *fate, r model.Ref, why string) {
	o := p.system.Objects[model.LinkID(r)]
	if o == nil || o.Fields["up"] != "yes" || p.goes(o.ID) {
		return
	}
	for _, x := range p.onLink[r] {
		if !lostWhenDown(x, r) || p.goes(x.ID) {
			continue
		}
		switch mine := p.fates[x.ID]; {
		case mine != nil:
			p.lost[x.ID] = true
		case p.restore:
		case f == nil || f.verdict == WillDelete:
			p.note("%s goes down %s and loses %s, which is not culvert's", r, why, x.ID.Text())
		default:
			p.conflict(f, "%s has to go down %s, and would lose %s, which is not culvert's: take it away, or declare it", r, why, x.ID.Text())
			return
		}
	}
	if p.downs[r] == "" {
		p.downs[r] = why
	}
	if p.fates[o.ID] == nil {
		l := &fate{item: &model.Item{ID: o.ID, Type: string(o.Fields["type"]), Owner: model.OwnerExternal}, have: o}
		p.fates[o.ID] = l
		p.order = append(p.order, l)
	}
}

func lostWhenDown(o *model.Object, r model.Ref) bool {
	switch o.ID.Kind() {
	case model.KindAddress:
		return o.ID.Link() == r && isIPv6(o.ID.Words()[1])
	case model.KindRoute:
		return o.Fields["link"].Link() == r
	}
	return false
}

func isIPv6(prefix string) bool { return slices.Contains([]byte(prefix), ':') }
