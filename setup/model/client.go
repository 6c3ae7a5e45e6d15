package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"culvert/setup/spec"
)

// Priorities of the rules of a tunnel that takes everything. A namespace has one such tunnel for each family, so that they need not differ.
const (
	priorityExcept = spec.FirstPriority    // this and the next, one for each network
	priorityLinks  = spec.LastPriority - 1 // to link-local addresses
	priorityTunnel = spec.LastPriority     // what is not the tunnel's own
)

// FirewallFields are the fields of a firewall, in the order of their rules within a chain.
var FirewallFields = []Field{"kill_switch", "guard", "marks", "endpoints", "lookups", "listen", "except", "untracked"}

// FirewallTable is the name of an instance's nftables table (family inet) for its tunnels. No instance's name has a slash.
func FirewallTable(instance string) string { return "culvert/" + instance }

// firewalls adds one table of nftables for each namespace that tunnels have something to say of.
func (x *expansion) firewalls() {
	at := make(map[string]*Item)
	var order []*Item
	for i := range x.spec.Links {
		l := &x.spec.Links[i]
		c := l.Client
		diverts := c != nil && (c.KillSwitch || len(c.Full) > 0)
		untracked := l.Serves != nil && l.Serves.NAT && l.Serves.Listen != 0 && l.Netns == "" // its socket is in no other
		if !diverts && !untracked {
			continue
		}
		t := at[l.Netns]
		if t == nil {
			t = &Item{ID: FirewallID(l.Netns, FirewallTable(x.spec.Instance)), Fields: Fields{}}
			if t.Place = l.Place; diverts {
				t.Place = c.Place
			}
			at[l.Netns] = t
			order = append(order, t)
		}
		// What an earlier plan may have had and this one has not is said to be empty, so that it is taken out.
		for _, field := range FirewallFields {
			t.Fields[field] += ""
		}
		if diverts {
			firewallFields(t.Fields, l)
		}
		if untracked {
			t.Fields["untracked"] += Value(fmt.Sprintf(" %d", l.Serves.Listen))
		}
	}
	for _, t := range order {
		for f, v := range t.Fields {
			words := v.List()
			slices.Sort(words)
			t.Fields[f] = List(slices.Compact(words))
		}
		x.add(*t)
	}
}

// clients adds what else tunnels do to their machine: policy for full tunnels, and name servers.
func (x *expansion) clients() {
	for i := range x.spec.Links {
		l := &x.spec.Links[i]
		c := l.Client
		if c == nil {
			continue
		}
		for _, family := range c.Full {
			x.fullTunnel(l, family)
		}
		if d := c.DNS; d != nil && len(d.Servers) > 0 && d.Resolver != "off" {
			x.dns(l, d)
		}
	}
}

// firewallFields adds a tunnel's part to the table of its namespace.
func firewallFields(f Fields, l *spec.Link) {
	c, device := l.Client, l.DeviceName()
	mark := fmt.Sprintf("%#x", c.Mark)
	add := func(field Field, format string, args ...any) {
		f[field] += Value(" " + fmt.Sprintf(format, args...))
	}
	if c.IsFull(4) {
		add("marks", "%s", mark)
	}
	for _, a := range c.Addresses {
		if c.IsFull(4) && a.Is4() || c.IsFull(6) && a.Is6() {
			add("guard", "%s,%s", device, a)
		}
	}
	if !c.KillSwitch {
		return
	}
	add("kill_switch", "%s", device)
	if c.AnyEndpoint || len(c.Endpoints) > spec.MaxEndpoints {
		add("endpoints", "%s,any", mark)
	} else {
		for _, e := range c.Endpoints {
			add("endpoints", "%s,%s,%d", mark, e.Addr().WithZone(""), e.Port())
		}
	}
	if c.Lookup {
		add("lookups", "%s", mark)
	}
	if c.Listen != 0 {
		add("listen", "%d", c.Listen)
	}
	for _, p := range c.Except {
		add("except", "%s", p.Masked())
	}
}

// fullTunnel adds the policy that leads all of a family into a tunnel, but for its own datagrams. Unlike wg-quick's it comes before the
// main table, so that no route there, whoever put it, leads past the tunnel.
func (x *expansion) fullTunnel(l *spec.Link, family int) {
	c := l.Client
	rule := func(priority uint32, r spec.Rule, needs ...ID) {
		r.Place, r.Netns, r.Family, r.Priority = c.Place, l.Netns, family, priority
		x.rule(&r)
		if at, ok := x.at[RuleID(l.Netns, strconv.Itoa(family), fmt.Sprint(priority))]; ok {
			x.items[at].Needs = append(x.items[at].Needs, needs...)
		}
	}
	for i, p := range c.Except {
		if p.Addr().Is4() == (family == 4) {
			rule(priorityExcept+uint32(i), spec.Rule{To: p.Masked()})
		}
	}
	if family == 6 {
		// Neighbours, routers and DHCPv6 servers are there whatever the tunnel does.
		rule(priorityLinks, spec.Rule{To: netip.MustParsePrefix("fe80::/10")})
	}
	if !slices.Contains(c.Carries, family) {
		rule(priorityTunnel, spec.Rule{Not: true, Mark: c.Mark, Action: "unreachable"})
		return
	}
	if family == 4 {
		// Answers to the tunnel's datagrams come by another device than what is not marked would leave by.
		x.sysctl(c.Place, l.Netns, spec.ValidMark, "1")
	}
	everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == 6 {
		everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	r := spec.Route{Place: c.Place, Prefix: everything, Table: c.Table}
	x.route(&r, l.Netns, x.refs[l.Key])
	rule(priorityTunnel, spec.Rule{Not: true, Mark: c.Mark, Table: c.Table},
		RouteID(l.Netns, fmt.Sprint(r.TableNumber()), everything.String(), fmt.Sprint(r.KernelMetric())))
}

func (x *expansion) dns(l *spec.Link, d *spec.DNS) {
	r := x.refs[l.Key]
	servers := make([]string, len(d.Servers))
	for i, a := range d.Servers {
		servers[i] = a.String()
	}
	f := fields{"servers": List(servers), "domains": List(d.Routes(len(l.Client.Full) > 0))}
	if d.Resolver != "auto" {
		f.text("resolver", d.Resolver)
	}
	x.add(Item{ID: DNSID(r), Place: d.Place, Fields: Fields(f), Needs: []ID{LinkID(r)}, NeedsUp: []ID{LinkID(r)}})
}
