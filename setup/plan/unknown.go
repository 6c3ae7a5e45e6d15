package plan

import (
	"culvert/setup/model"
)

// unknown decides about what is there without a sign that culvert made it.
func (p *planner) unknown(f *fate) {
	kind := f.item.ID.Kind()
	differs := p.differences(f)
	switch {
	case kind == model.KindNetns:
		p.taken(f, "namespace")
	case kind == model.KindLink:
		p.taken(f, "device")
	case p.in.Others.leaver(f.have) != "":
		p.conflict(f, "the instance %s is taking it away, or was killed while it did: try again, or complete it with culvert destroy %[1]s",
			p.in.Others.leaver(f.have))
	case p.in.Others.partner(f.have) != "":
		p.share(f, p.in.Others.partner(f.have), differs)
	case p.adoptable(f.have):
		p.adopt(f.have)
		p.compare(f)
	case len(differs) == 0:
		// Just as declared. It is not culvert's, and stays when it is declared no longer.
	case kind == model.KindAttachment && f.have.Fields["master"] == f.item.Fields["master"]:
		f.verdict, f.changes = WillChange, differs
		p.keepTogether(f)
	case kind == model.KindAttachment:
		p.conflict(f, "it is a port of %s already, and culvert did not put it there", f.have.Fields["master"])
	case kind == model.KindNAT || kind == model.KindFirewall:
		p.conflict(f, "a table of nftables with the name inet %s is there, and culvert did not make it: delete it, or give the instance another name",
			f.item.ID.Words()[1])
	case kind == model.KindQdisc:
		p.conflict(f, "a queueing discipline is there, %s %s, and culvert did not make it", f.have.Fields["kind"], f.have.Fields["handle"])
	default:
		p.conflict(f, "there is one, and culvert did not make it: %s", p.describe(differs))
	}
}

// taken is the conflict with a device or namespace that has the name.
func (p *planner) taken(f *fate, what string) {
	if m, ok := model.ParseMark(f.have.Alias); ok && model.IsOwnGroup(f.have.Group) {
		p.conflict(f, "the instance %s has made a %s of that name: say external: true to use it, or choose another name", m.Instance, what)
		return
	}
	if own, ok := p.known.Own[f.item.ID]; ok && own.is(f.have) && f.item.ID.Kind() == model.KindLink {
		p.conflict(f, "culvert made it, and somebody has changed its mark since, which is now the alias %q and group %d: delete the device, "+
			"or set the alias %q and group %d again", f.have.Alias, f.have.Group, p.alias(f.item), model.Group)
		return
	}
	p.conflict(f, "a %s of that name is there, and culvert did not make it: say external: true to use it, or choose another name", what)
}
