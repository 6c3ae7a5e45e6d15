package plan

import (
	"culvert/setup/model"
	"culvert/setup/spec"
)

// grounded refuses a vlan that is to be up above somebody else's device that is down.
func (p *planner) grounded() {
	for i := range p.items {
		f := p.fates[p.items[i].ID]
		if f.item.Type != string(spec.TypeVLAN) || f.item.Fields["up"] != "yes" || f.item.ID.Kind() != model.KindLink {
			continue
		}
		parent := p.fates[model.LinkID(f.item.Fields["parent"].Link())]
		if parent == nil || parent.item.Owner != model.OwnerExternal || parent.have == nil {
			continue
		}
		if p.known.Prior[parent.item.ID].Fields["up"].Old == "yes" {
			continue // it is down for a moment only, from an apply that was cut short
		}
		if _, declared := parent.item.Fields["up"]; !declared && parent.have.Fields["up"] == "no" && !p.joins(parent.item.ID.Link()) {
			p.conflict(f, "its parent %s is down: say up: true there", f.item.Fields["parent"])
		}
	}
}

// spreadRecreation makes anew what needs something that is made anew. Both ends of a veth go together.
func (p *planner) spreadRecreation() {
	for again := true; again; {
		again = false
		for i := range p.items {
			f := p.fates[p.items[i].ID]
			if peer := p.fates[peerID(f.item)]; peer != nil && p.pairBroken(f, peer) {
				again = true
			}
		}
		for i := range p.items {
			f := p.fates[p.items[i].ID]
			if f.have == nil || f.verdict == WillRecreate || f.verdict == InConflict || f.item.Owner != model.OwnerCulvert {
				continue
			}
			for _, need := range f.item.Needs {
				if n := p.fates[need]; n != nil && n.verdict == WillRecreate {
					f.verdict, f.reason = WillRecreate, "it needs "+need.Text()
					again = true
					break
				}
			}
		}
	}
}

func peerID(i *model.Item) model.ID {
	if r := i.Fields["peer"].Link(); r != "" && i.ID.Kind() == model.KindLink {
		return model.LinkID(r)
	}
	return ""
}

// pairBroken makes both ends anew where one has to be, and reports whether that changed anything.
func (p *planner) pairBroken(a, b *fate) bool {
	if b.have == nil || b.verdict == WillRecreate || b.verdict == InConflict || a.verdict != WillRecreate && a.verdict != WillCreate {
		return false
	}
	b.verdict, b.reason = WillRecreate, "its other end is made anew"
	return true
}
