package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"culvert/setup/spec"
)

func (x *expansion) linkRoutes(l *spec.Link) {
	for n := range l.Routes {
		x.route(&l.Routes[n], l.Netns, x.refs[l.Key])
	}
	if l.Veth != nil {
		p := &l.Veth.Peer
		for n := range p.Routes {
			x.route(&p.Routes[n], p.Netns, x.refs[p.Key])
		}
	}
}

func (x *expansion) route(r *spec.Route, netns string, link Ref) {
	f := fields{"type": "unicast"}
	f.text("type", r.Type)
	i := Item{ID: RouteID(netns, fmt.Sprint(r.TableNumber()), r.Prefix.Masked().String(), fmt.Sprint(r.KernelMetric())), Place: r.Place}
	if link != "" {
		f["link"] = Link(link)
		i.Needs = append(i.Needs, LinkID(link))
		i.NeedsUp = append(i.NeedsUp, LinkID(link))
		i.Needs = append(i.Needs, x.addresses[link]...)
	}
	if r.Gateway.IsValid() {
		f["gateway"] = Text(r.Gateway.String())
		if link == "" {
			// Whichever of the namespace's links leads to the gateway must be up.
			for _, l := range slices.Sorted(mapsKeys(x.addresses)) {
				if l.Netns() == netns && x.leads(l, r.Gateway) {
					i.Needs = append(i.Needs, LinkID(l))
					i.Needs = append(i.Needs, x.addresses[l]...)
					i.NeedsUp = append(i.NeedsUp, LinkID(l))
				}
			}
		}
	}
	if r.Source.IsValid() {
		f["source"] = Text(r.Source.String())
	}
	if r.MTU != 0 {
		f["mtu"] = Int(r.MTU)
	}
	if r.OnLink {
		f["onlink"] = Bool(true)
	}
	i.Fields = Fields(f)
	x.add(i)
}

// leads reports whether one of a link's declared networks has the address.
func (x *expansion) leads(l Ref, a netip.Addr) bool {
	return slices.ContainsFunc(x.addresses[l], func(id ID) bool {
		p, err := netip.ParsePrefix(id.Words()[1])
		return err == nil && p.Contains(a)
	})
}

func (x *expansion) rule(r *spec.Rule) {
	for _, family := range r.Families() {
		f := fields{"action": "lookup"}
		f.text("action", r.Action)
		if f["action"] == "lookup" {
			f["table"] = Uint(r.TableNumber())
		}
		if r.Not {
			f["not"] = Bool(true)
		}
		if r.From.IsValid() {
			f["from"] = Text(r.From.Masked().String())
		}
		if r.To.IsValid() {
			f["to"] = Text(r.To.Masked().String())
		}
		// A rule names its devices, which need not exist.
		f.text("iif", x.refs[r.IIf].Name())
		f.text("oif", x.refs[r.OIf].Name())
		if r.Mark != 0 || r.Mask != 0 {
			mask := r.Mask
			if mask == 0 {
				mask = ^uint32(0)
			}
			f["mark"] = Text(fmt.Sprintf("%#x/%#x", r.Mark, mask))
		}
		number(f, "suppress_prefixlength", r.SuppressPrefixLen)
		x.add(Item{ID: RuleID(r.Netns, strconv.Itoa(family), fmt.Sprint(r.Priority)), Place: r.Place, Fields: Fields(f)})
	}
}

// nat gives each namespace one table, which holds all that is declared for it.
func (x *expansion) nat() {
	type table struct {
		words []string
		item  Item
	}
	tables := make(map[string]*table)
	var order []string
	tableOf := func(netns string, at spec.Place) *table {
		t := tables[netns]
		if t == nil {
			t = &table{item: Item{ID: NATID(netns, NATTable(x.spec.Instance)), Place: at}}
			tables[netns] = t
			order = append(order, netns)
		}
		return t
	}
	for i := range x.spec.NAT {
		n := &x.spec.NAT[i]
		t := tableOf(n.Netns, n.Place)
		out := x.refs[n.Out]
		t.item.Needs = append(t.item.Needs, LinkID(out))
		sources := n.Sources
		if len(sources) == 0 {
			all := netip.MustParsePrefix("0.0.0.0/0")
			if n.Family == 6 {
				all = netip.MustParsePrefix("::/0")
			}
			sources = []netip.Prefix{all}
		}
		for _, p := range sources {
			t.words = append(t.words, out.Name()+","+p.Masked().String())
		}
	}
	for i := range x.spec.Links {
		l := &x.spec.Links[i]
		if l.Serves == nil || !l.Serves.NAT {
			continue
		}
		t := tableOf(l.Netns, l.Serves.Place)
		for _, p := range l.Serves.Pool {
			t.words = append(t.words, "!"+l.DeviceName()+","+p.String())
		}
	}
	for _, netns := range order {
		t := tables[netns]
		slices.Sort(t.words)
		t.item.Fields = Fields{"masquerade": List(slices.Compact(t.words))}
		x.add(t.item)
	}
}

// NATTable is the name of an instance's nftables table (family inet) in each namespace.
func NATTable(instance string) string { return "culvert-" + instance }
