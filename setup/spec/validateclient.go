package spec

import (
	"fmt"
	"net/netip"
	"slices"
)

// tableDefault is the first of the tables that the kernel has names for.
const tableDefault = 253

// clients checks what tunnels do to their machine.
func (v *validator) clients() {
	full := make(map[string]*Link) // by namespace and family
	for i := range v.spec.Links {
		l := &v.spec.Links[i]
		c := l.Client
		if c == nil {
			continue
		}
		if l.Type != TypeTunnel {
			v.add(c.Place, "", "only a tunnel has it")
			continue
		}
		if tap := l.Tun != nil && l.Tun.Mode == TypeTap; tap && len(c.Full) > 0 {
			v.add(c.Place, "full_tunnel", "a tunnel of Ethernet frames has no far end that takes all packets")
			v.hint("add a default route with its gateway under routes, or take full_tunnel out")
		}
		for _, f := range c.Full {
			key := fmt.Sprintf("%s %d", l.Netns, f)
			if first := full[key]; first != nil {
				v.add(c.Place, "full_tunnel", "all IPv%d goes into %s already", f, first.Key)
				v.hint("only one of the two can have it; the other is at %s", first.Client.At("full_tunnel"))
			} else {
				full[key] = l
			}
		}
		if c.Mark == 0 && (len(c.Full) > 0 || c.KillSwitch) {
			v.add(c.Place, "fwmark", "the tunnel's own datagrams need a mark to be told from the rest")
			v.hint("take fwmark out, or give it a number")
		}
		if len(c.Full) > 0 && c.Table >= tableDefault && c.Table <= tableLocal {
			v.add(c.Place, "fwmark", "%d is the number of a table of the kernel's own", c.Table)
			v.hint("choose another number")
		}
		if len(c.Except) > 0 && len(c.Full) == 0 && !c.KillSwitch {
			v.add(c.Place, "except", "there is nothing to be excepted from")
			v.hint("it goes with full_tunnel or kill_switch")
		}
		v.excepted(c)
		v.ownRouting(l)
		if c.DNS != nil {
			v.dns(l, c.DNS)
		}
	}
}

// ownRouting refuses rules and routes that would stand where a full tunnel's have to.
func (v *validator) ownRouting(l *Link) {
	c := l.Client
	for i := range v.spec.Rules {
		r := &v.spec.Rules[i]
		if r.Netns == l.Netns && r.Priority >= FirstPriority && r.Priority <= LastPriority && slices.ContainsFunc(r.Families(), c.IsFull) {
			v.add(r.Place, "priority", "the priorities %d to %d are those of the full tunnel %s", FirstPriority, LastPriority, l.Key)
			v.hint("one below comes before it, one above is not asked for what it takes")
		}
	}
	check := func(r *Route, netns string) {
		if netns == l.Netns && r.Table == c.Table && r.Prefix.IsValid() && r.Prefix.Bits() == 0 && c.IsFull(familyOf(r.Prefix)) {
			v.add(r.Place, "table", "the default route of table %d is that into the full tunnel %s", c.Table, l.Key)
		}
	}
	for i := range v.spec.Routes {
		check(&v.spec.Routes[i], v.spec.Routes[i].Netns)
	}
	for i := range v.spec.Links {
		for j := range v.spec.Links[i].Routes {
			check(&v.spec.Links[i].Routes[j], v.spec.Links[i].Netns)
		}
	}
}

func (v *validator) excepted(c *Client) {
	if len(c.Except) > MaxExcept {
		v.add(c.Place, "except", "more than %d networks are excepted", MaxExcept)
	}
	seen := make(map[netip.Prefix]bool)
	for i, p := range c.Except {
		field := fmt.Sprintf("except[%d]", i)
		switch {
		case !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "":
			v.add(c.Place, field, "not a valid network")
		case p.Bits() == 0:
			v.add(c.Place, field, "%s is everything", p)
			v.hint("full_tunnel: [ipv4] or [ipv6] leaves the other family alone")
		case seen[p.Masked()]:
			v.add(c.Place, field, "%s is there twice", p)
		}
		seen[p.Masked()] = true
	}
}

func (v *validator) dns(l *Link, d *DNS) {
	v.oneOf(d.Place, "resolver", d.Resolver, Resolvers...)
	if l.Netns != "" && (d.Resolver == "resolved" || d.Resolver == "resolvconf") {
		v.add(d.Place, "resolver", "%s does not resolve for the namespace %s", d.Resolver, l.Netns)
		v.hint("there /etc/netns/%s/resolv.conf counts: write file, or leave it out", l.Netns)
	}
	if len(d.Servers) == 0 && len(d.Domains) > 0 && d.Resolver != "off" {
		v.add(d.Place, "", "there is no server that could be asked for the domains")
		v.hint("add servers")
	}
}
