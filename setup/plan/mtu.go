package plan

import (
	"culvert/setup/model"
	"culvert/setup/spec"
)

// oversized refuses an MTU above that of the device below, as it will be. What only the file says is compared where it is read.
func (p *planner) oversized() {
	for i := range p.items {
		f := p.fates[p.items[i].ID]
		want := f.item.Fields["mtu"].Uint()
		if f.item.ID.Kind() != model.KindLink || want == 0 || f.verdict == InConflict {
			continue
		}
		parent := f.item.Fields["parent"].Link()
		if parent == "" && f.have != nil {
			parent = f.have.Fields["parent"].Link() // of one that is external
		}
		if most := p.mtuOf(parent); parent != "" && most != 0 && want > most {
			p.conflict(f, "its mtu %d is above that of its parent %s, %d, and the kernel takes no more: say mtu: %[3]d here, or mtu: %[1]d of %[2]s",
				want, parent, most)
			f.field = "mtu"
		}
	}
}

// mtuOf is the MTU that a device will have once the plan is carried out; 0 where that cannot be told.
func (p *planner) mtuOf(r model.Ref) uint64 {
	f, o := p.fates[model.LinkID(r)], p.system.Objects[model.LinkID(r)]
	if f != nil {
		if v, declared := f.item.Fields["mtu"]; declared {
			return v.Uint()
		}
		if f.item.Owner == model.OwnerCulvert {
			switch spec.Type(f.item.Type) {
			case spec.TypeBridge, spec.TypeBond, spec.TypeTeam:
				return 0 // it follows its ports
			}
			if f.verdict == WillCreate || f.verdict == WillRecreate {
				if parent := f.item.Fields["parent"].Link(); parent != "" {
					return p.mtuOf(parent) // the kernel gives it that
				}
				return 0
			}
		}
	}
	if o == nil {
		return 0
	}
	if prior, ok := p.known.Prior[o.ID]; ok && prior.is(o) {
		if c, changed := prior.Fields["mtu"]; changed && c.New == o.Fields["mtu"] && p.in.Others.holder(o, "mtu", c.Old) == "" {
			return c.Old.Uint() // it is set back
		}
	}
	return o.Fields["mtu"].Uint()
}
