package spec

import (
	"fmt"
	"net/netip"
	"strings"
)

var routeTypes = []string{"unicast", "blackhole", "unreachable", "prohibit"}

const (
	maxRulePriority = 32765 // the kernel's own rules are at 0, 32766 and 32767
	tableLocal      = 255
)

func (v *validator) services() {
	for i := range v.spec.Services {
		s := &v.spec.Services[i]
		d := s.Dnsmasq
		if d == nil {
			v.add(s.Place, "", "a service must be named")
			v.hint("dnsmasq")
			continue
		}
		known := v.knownNetns(s.Place, "dnsmasq.netns", d.Netns)
		if n := v.find(s.Place, "dnsmasq.interface", d.Interface); n != nil {
			if known && n.netns != d.Netns {
				v.add(s.Place, "dnsmasq.interface", "%s is in %s, the service in %s", d.Interface, inNetns(n.netns), inNetns(d.Netns))
			}
			for _, o := range v.spec.Services[:i] {
				if o.Dnsmasq != nil && o.Dnsmasq.Interface == d.Interface {
					v.add(s.Place, "dnsmasq.interface", "%s has a dnsmasq already", d.Interface)
					break
				}
			}
		}
		if len(d.Ranges) == 0 && !d.DNS {
			v.add(s.Place, "dnsmasq", "it has nothing to do")
			v.hint("add range or dns: true")
		}
		for _, list := range []struct {
			field  string
			values []string
		}{{"range", d.Ranges}, {"host", d.Hosts}, {"option", d.Options}, {"domain", []string{d.Domain}}} {
			for _, value := range list.values {
				if strings.ContainsAny(value, "\x00\n\r") {
					v.add(s.Place, "dnsmasq."+list.field, "%q contains a newline or a zero byte", value)
				}
			}
		}
		if d.LeaseFile != "" {
			v.absolute(s.Place, "dnsmasq.lease_file", d.LeaseFile, 4095)
		}
	}
}

func (v *validator) routing() {
	seen := make(map[string]Origin)
	for i := range v.spec.Links {
		l := &v.spec.Links[i]
		for j := range l.Routes {
			v.route(&l.Routes[j], l.Netns, true, seen)
		}
		if l.Veth != nil {
			for j := range l.Veth.Peer.Routes {
				v.route(&l.Veth.Peer.Routes[j], l.Veth.Peer.Netns, true, seen)
			}
		}
	}
	for i := range v.spec.Routes {
		r := &v.spec.Routes[i]
		netns := r.Netns
		v.knownNetns(r.Place, "netns", netns)
		if r.Link != "" {
			if n := v.find(r.Place, "link", r.Link); n != nil && n.netns != netns {
				v.add(r.Place, "link", "%s is in %s, the route in %s", r.Link, inNetns(n.netns), inNetns(netns))
			}
		}
		v.route(r, netns, r.Link != "", seen)
	}
	v.rules()
	v.nat()
	v.sysctls()
}

func (v *validator) route(r *Route, netns string, hasLink bool, seen map[string]Origin) {
	if !r.Prefix.IsValid() || r.Prefix.Addr().Is4In6() {
		v.add(r.Place, "", "not a valid destination prefix")
		return
	}
	is4 := r.Prefix.Addr().Is4()
	if !v.oneOf(r.Place, "type", r.Type, routeTypes...) {
		return
	}
	unicast := r.Type == "" || r.Type == routeTypes[0]
	switch {
	case unicast && !hasLink && !r.Gateway.IsValid():
		v.add(r.Place, "", "the route %s leads nowhere", r.Prefix)
		v.hint("add link or gateway")
	case !unicast && (hasLink || r.Gateway.IsValid()):
		v.add(r.Place, "type", "a route of type %s has neither link nor gateway", r.Type)
	}
	for _, a := range []struct {
		field string
		addr  netip.Addr
	}{{"gateway", r.Gateway}, {"source", r.Source}} {
		if a.addr.IsValid() && a.addr.Is4() != is4 {
			v.add(r.Place, a.field, "%s is not of the family of %s", a.addr, r.Prefix)
		}
	}
	if r.OnLink && (!r.Gateway.IsValid() || !hasLink) {
		v.add(r.Place, "onlink", "it needs a gateway and a link")
	}
	if r.Table == tableLocal {
		v.add(r.Place, "table", "the table local (255) is the kernel's own")
	}
	if r.MTU != 0 && (r.MTU < minMTU || r.MTU > maxMTU) {
		v.add(r.Place, "mtu", "the MTU %d is not within %d to %d", r.MTU, minMTU, maxMTU)
	}
	key := fmt.Sprintf("%s %d %s %d", netns, r.TableNumber(), r.Prefix.Masked(), r.KernelMetric())
	if first, ok := seen[key]; ok {
		v.add(r.Place, "", "there is a route to %s in this table already", r.Prefix.Masked())
		v.hint("at %s; give one of them a metric", first)
		return
	}
	seen[key] = r.Place.Origin
}

// TableNumber is the route's table, the main one where none is said.
func (r *Route) TableNumber() uint32 { return tableNumber(r.Table) }

// TableNumber is the rule's table, the main one where none is said.
func (r *Rule) TableNumber() uint32 { return tableNumber(r.Table) }

func tableNumber(t uint32) uint32 {
	const tableMain = 254
	if t == 0 {
		return tableMain
	}
	return t
}

// KernelMetric is the metric the kernel gives the route: IPv6 takes none for 1024 (IP6_RT_PRIO_USER).
func (r *Route) KernelMetric() uint32 {
	const defaultIPv6 = 1024
	if r.Metric == 0 && r.Prefix.Addr().Is6() {
		return defaultIPv6
	}
	return r.Metric
}

// Families are those a rule is for: 4, 6 or both.
func (r *Rule) Families() []int {
	switch {
	case r.Family != 0:
		return []int{r.Family}
	case r.From.IsValid():
		return []int{familyOf(r.From)}
	case r.To.IsValid():
		return []int{familyOf(r.To)}
	}
	return []int{4, 6}
}

func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 4
	}
	return 6
}

func (v *validator) rules() {
	seen := make(map[string]Origin)
	for i := range v.spec.Rules {
		r := &v.spec.Rules[i]
		v.knownNetns(r.Place, "netns", r.Netns)
		if r.Priority < 1 || r.Priority > maxRulePriority {
			v.add(r.Place, "priority", "the priority %d is not within 1 to %d", r.Priority, maxRulePriority)
		}
		if r.Family != 0 && r.Family != 4 && r.Family != 6 {
			v.add(r.Place, "family", "%d is neither 4 nor 6", r.Family)
			continue
		}
		for _, p := range []struct {
			field  string
			prefix netip.Prefix
		}{{"from", r.From}, {"to", r.To}} {
			if p.prefix.IsValid() && familyOf(p.prefix) != r.Families()[0] {
				v.add(r.Place, p.field, "%s is not of family %d", p.prefix, r.Families()[0])
			}
		}
		for _, d := range []struct{ field, key string }{{"iif", r.IIf}, {"oif", r.OIf}} {
			if d.key == "" {
				continue
			}
			if n := v.find(r.Place, d.field, d.key); n != nil && n.netns != r.Netns {
				v.add(r.Place, d.field, "%s is in %s, the rule in %s", d.key, inNetns(n.netns), inNetns(r.Netns))
			}
		}
		v.oneOf(r.Place, "action", r.Action, "lookup", "blackhole", "unreachable", "prohibit")
		if r.Action != "" && r.Action != "lookup" && r.Table != 0 {
			v.add(r.Place, "table", "a rule with the action %s looks nothing up", r.Action)
		}
		if r.Mask != 0 && r.Mark&^r.Mask != 0 {
			v.add(r.Place, "mark", "%#x has bits outside the mask %#x: no packet matches", r.Mark, r.Mask)
		}
		for _, f := range r.Families() {
			key := fmt.Sprintf("%s %d %d", r.Netns, f, r.Priority)
			if first, ok := seen[key]; ok {
				v.add(r.Place, "priority", "there is a rule with priority %d already", r.Priority)
				v.hint("at %s", first)
				break
			}
			seen[key] = r.Place.Origin
		}
	}
}

func (v *validator) nat() {
	for i := range v.spec.NAT {
		n := &v.spec.NAT[i]
		v.knownNetns(n.Place, "netns", n.Netns)
		if out := v.find(n.Place, "out", n.Out); out != nil && out.netns != n.Netns {
			v.add(n.Place, "out", "%s is in %s, the NAT in %s", n.Out, inNetns(out.netns), inNetns(n.Netns))
		}
		if n.Family != 0 && n.Family != 4 && n.Family != 6 {
			v.add(n.Place, "family", "%d is neither 4 nor 6", n.Family)
		}
		for _, p := range n.Sources {
			switch {
			case !p.IsValid():
				v.add(n.Place, "sources", "not a valid prefix")
			case n.Family != 0 && familyOf(p) != n.Family:
				v.add(n.Place, "sources", "%s is not of family %d", p, n.Family)
			}
		}
	}
}
