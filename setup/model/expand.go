package model

import (
	"culvert/setup/spec"
)

// Expand turns a declaration that [spec.Spec.Validate] has nothing against into items, each behind those it needs.
func Expand(s *spec.Spec) []Item {
	x := &expansion{spec: s, refs: map[string]Ref{}, types: map[Ref]spec.Type{}, at: map[ID]int{}, addresses: map[Ref][]ID{}}
	for i := range s.Links {
		l := &s.Links[i]
		r := NewRef(l.Netns, l.DeviceName())
		x.refs[l.Key] = r
		x.types[r] = typeOf(l)
		if l.Type == spec.TypeVeth && l.Veth != nil {
			p := &l.Veth.Peer
			x.refs[p.Key] = NewRef(p.Netns, p.Key)
			x.types[x.refs[p.Key]] = spec.TypeVeth
		}
	}
	for i := range s.Netns {
		n := &s.Netns[i]
		x.add(Item{ID: NetnsID(n.Name), Place: n.Place, Owner: owner(n.External)})
	}
	x.firewalls()
	for i := range s.Links {
		x.link(&s.Links[i])
	}
	for i := range s.Links {
		x.attached(&s.Links[i])
	}
	x.shaping()
	for i := range s.XConnects {
		c := &s.XConnects[i]
		a, b := x.refs[c.A], x.refs[c.B]
		x.redirect(c.Place, a, b)
		x.redirect(c.Place, b, a)
	}
	for i := range s.Links {
		x.linkRoutes(&s.Links[i])
	}
	for i := range s.Routes {
		r := &s.Routes[i]
		x.route(r, r.Netns, x.refs[r.Link])
	}
	for i := range s.Rules {
		x.rule(&s.Rules[i])
	}
	x.nat()
	x.clients()
	x.sysctls()
	x.serves()
	for i := range s.Services {
		if d := s.Services[i].Dnsmasq; d != nil {
			x.dnsmasq(s.Services[i].Place, d)
		}
	}
	return inOrder(x.items)
}

// inOrder puts items behind those they need, and otherwise leaves them in their order.
func inOrder(items []Item) []Item {
	at := make(map[ID]int, len(items))
	for i := range items {
		at[items[i].ID] = i
	}
	out := make([]Item, 0, len(items))
	done := make([]bool, len(items))
	var visit func(i int)
	visit = func(i int) {
		if done[i] {
			return
		}
		done[i] = true
		for _, need := range items[i].Needs {
			if j, ok := at[need]; ok {
				visit(j)
			}
		}
		out = append(out, items[i])
	}
	for i := range items {
		visit(i)
	}
	return out
}

func owner(external bool) Owner {
	if external {
		return OwnerExternal
	}
	return OwnerCulvert
}

// typeOf is what the kernel would say a link is.
func typeOf(l *spec.Link) spec.Type {
	if l.Type == spec.TypeTunnel && l.Tun != nil {
		return l.Tun.Mode
	}
	return l.Type
}

type expansion struct {
	spec      *spec.Spec
	refs      map[string]Ref // by key
	types     map[Ref]spec.Type
	items     []Item
	at        map[ID]int
	addresses map[Ref][]ID
}

// add appends an item; one that is there already, as an ingress qdisc may be, stays as it is.
func (x *expansion) add(i Item) {
	if _, ok := x.at[i.ID]; ok {
		return
	}
	if n := i.ID.Netns(); n != "" && i.ID.Link() == "" || i.ID.Kind() == KindLink && n != "" {
		i.Needs = append(i.Needs, NetnsID(n))
	}
	x.at[i.ID] = len(x.items)
	x.items = append(x.items, i)
}
