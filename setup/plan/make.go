package plan

import (
	"fmt"
	"maps"
	"slices"

	"culvert/setup/model"
)

// Input is what a plan is made from.
type Input struct {
	Instance string
	Items    []model.Item // what is to be, each behind those it needs; none: everything of the instance goes
	System   *model.System
	Known    Known
	Tunnels  bool // the caller can make and delete tunnels' devices
	Others   Others
}

// Make compares and plans. It depends on nothing but its input.
func Make(in Input) *Plan {
	p := newPlanner(in)
	for i := range p.items {
		p.judge(&p.items[i])
	}
	p.inheritForwarding()
	p.grounded()
	p.spreadRecreation()
	p.oversized()
	p.contested()
	p.orphans()
	p.giveBack()
	p.vanished()
	p.guard()
	p.takeDown()
	p.entries()
	if !p.plan.HasConflict() {
		p.plan.Steps = p.steps()
	}
	return p.plan
}

// fate is what becomes of one item.
type fate struct {
	item    *model.Item
	have    *model.Object // nil: not there
	verdict Verdict       // "": stays as it is
	changes []FieldChange
	reason  string
	down    bool   // the link has to be down for its change
	remark  bool   // the mark alone is out of date
	foreign bool   // not ours, and to be put back as it was
	field   string // what of the item's declaration the reason is about; "" all of it
}

type planner struct {
	ownership
	in    Input
	plan  *Plan
	items []model.Item
	fates map[model.ID]*fate
	order []*fate // of the items, then of the orphans

	deletes map[model.ID]*fate            // orphans, and what is given back, by ID
	downs   map[model.Ref]string          // links to be taken down on the way, and why
	lost    map[model.ID]bool             // what goes with that and is made again
	onLink  map[model.Ref][]*model.Object // all that is on a link, is its port, leads to it or needs it
	inNetns map[string][]*model.Object
	aliases map[model.ID]string // of a restored link: the alias it had
	restore bool
}

func newPlanner(in Input) *planner {
	p := &planner{
		ownership: ownership{in.Instance, in.System, in.Known}, in: in, items: in.Items,
		plan:    &Plan{Format: Format, Instance: in.Instance},
		fates:   make(map[model.ID]*fate, len(in.Items)),
		deletes: map[model.ID]*fate{}, downs: map[model.Ref]string{}, lost: map[model.ID]bool{},
		onLink: map[model.Ref][]*model.Object{}, inNetns: map[string][]*model.Object{},
	}
	for _, id := range slices.Sorted(maps.Keys(in.System.Objects)) {
		o := in.System.Objects[id]
		refs := []model.Ref{o.Fields["parent"].Link(), o.Fields["master"].Link(), o.Fields["redirect"].Link(), o.Fields["link"].Link()}
		if id.Kind() != model.KindLink {
			refs = append(refs, id.Link())
		}
		slices.Sort(refs)
		for _, r := range slices.Compact(refs) {
			if r != "" {
				p.onLink[r] = append(p.onLink[r], o)
			}
		}
		if n := id.Netns(); n != "" && id.Kind() != model.KindNetns {
			p.inNetns[n] = append(p.inNetns[n], o)
		}
	}
	return p
}

// judge decides about one item by itself.
func (p *planner) judge(i *model.Item) {
	f := &fate{item: i, have: p.system.Objects[i.ID]}
	p.fates[i.ID] = f
	p.order = append(p.order, f)
	if f.have == nil {
		p.absent(f)
		return
	}
	switch ours := p.ours(f.have); {
	case f.have.Taken != "" && !p.restore:
		p.conflict(f, "%s", f.have.Taken)
	case i.Owner != model.OwnerCulvert:
		p.compareForeign(f)
		if i.Owner == model.OwnerExternal {
			p.keepTogether(f)
		}
	case ours || p.restore:
		if own, ok := p.known.Own[i.ID]; ours && !p.restore && (!ok || !own.is(f.have)) {
			p.adopt(f.have)
		}
		p.compare(f)
	default:
		p.unknown(f)
	}
}

func (p *planner) adopt(o *model.Object) {
	if p.plan.Adopted == nil {
		p.plan.Adopted = map[model.ID]Where{}
	}
	p.plan.Adopted[o.ID] = Where{o.Index, o.Inode}
}

func (p *planner) conflict(f *fate, format string, args ...any) {
	f.verdict, f.reason, f.changes = InConflict, fmt.Sprintf(format, args...), nil
}

func (p *planner) absent(f *fate) {
	switch {
	case f.item.Owner == model.OwnerExternal && f.item.ID.Kind() == model.KindSysctl:
		p.conflict(f, "this kernel knows no such setting here: sysctl -a lists those there are")
	case f.item.Owner == model.OwnerExternal:
		p.conflict(f, "it is external, but it is not there")
	case f.item.Owner == model.OwnerTunnel && !p.in.Tunnels:
		p.conflict(f, "it comes with its tunnel, which is not up")
	default:
		f.verdict = WillCreate
	}
}

func (p *planner) note(format string, args ...any) {
	p.plan.Notes = append(p.plan.Notes, fmt.Sprintf(format, args...))
}
