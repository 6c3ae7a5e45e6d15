package config

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"culvert/setup/spec"
)

// What a file may hold the setup layer takes.
const _ = uint(spec.MaxExcept - MaxExcept)

// Families are those of addresses.
type Families struct{ IPv4, IPv6 bool }

// String names the families.
func (f Families) String() string {
	switch f {
	case Families{true, true}:
		return "IPv4 and IPv6"
	case Families{IPv4: true}:
		return "IPv4"
	case Families{IPv6: true}:
		return "IPv6"
	}
	return "nothing"
}

// list is the same as numbers.
func (f Families) list() (list []int) {
	if f.IPv4 {
		list = append(list, 4)
	}
	if f.IPv6 {
		list = append(list, 6)
	}
	return list
}

// has reports whether an address is of one of the families.
func (f Families) has(a netip.Addr) bool { return a.Is4() && f.IPv4 || a.Is6() && f.IPv6 }

// None reports whether there is no family.
func (f Families) None() bool { return f == Families{} }

// Takes reports whether all packets to an address go into the tunnel, by whatever route.
func (t *Tunnel) Takes(a netip.Addr) bool { return t.FullTunnel.has(a) }

// carries are the families that the tunnel has an address of and whose every address a peer is allowed.
func (t *Tunnel) carries() (f Families) {
	for _, family := range []struct {
		of    *bool
		is    func(netip.Addr) bool
		whole netip.Prefix
	}{{&f.IPv4, netip.Addr.Is4, netip.MustParsePrefix("0.0.0.0/0")}, {&f.IPv6, netip.Addr.Is6, netip.MustParsePrefix("::/0")}} {
		if !slices.ContainsFunc(t.Addresses, func(a Prefix) bool { return family.is(a.Addr()) }) {
			continue
		}
		halves := map[netip.Prefix]bool{}
		for i := range t.Peers {
			for _, a := range t.Peers[i].AllowedIPs {
				if a.Prefix == family.whole {
					*family.of = true
				}
				if a.Bits() == 1 && family.is(a.Addr()) {
					halves[a.Prefix] = true
				}
			}
		}
		*family.of = *family.of || len(halves) == 2
	}
	return f
}

// markBase is the upper half of the marks that are picked here ("cv").
const markBase = 0x6376 << 16

// CompleteMark gives a tunnel the mark its datagrams carry. One that is needed and not given is made from the names, so that it is the
// same at each start.
func (f *File) CompleteMark(t *Tunnel) {
	t.Mark = t.FwMark.Value
	if !t.FwMark.Set && (!t.FullTunnel.None() || t.KillSwitch) {
		h := fnv.New32a()
		_, _ = h.Write([]byte(f.Instance + "/" + t.Name))
		t.Mark = markBase | h.Sum32()>>16
	}
}

// client is what a tunnel does to its machine; nil for nothing.
func (f *File) client(t *Tunnel) *spec.Client {
	names := len(t.DNS.Servers)+len(t.DNS.Search)+len(t.DNS.Domains) > 0
	except := t.Except
	if t.FullTunnel.None() && !t.KillSwitch && t.pulls() {
		except = nil // until its server has all traffic sent to it there is nothing to be excepted from
	}
	if t.FullTunnel.None() && !t.KillSwitch && len(except) == 0 && !names {
		return nil
	}
	at := spec.Origin(t.Pos)
	for _, pos := range []Position{t.KillSwitchPos, t.FullTunnelPos} {
		if pos != (Position{}) {
			at = spec.Origin(pos)
		}
	}
	c := &spec.Client{Place: spec.Place{Origin: at, Path: "tunnels." + t.Name, Fields: map[string]spec.Origin{}}, Full: t.FullTunnel.list(),
		Carries: t.carries().list(), KillSwitch: t.KillSwitch, Mark: t.Mark, Table: t.Mark, Listen: t.Listen}
	for field, pos := range map[string]Position{"full_tunnel": t.FullTunnelPos, "kill_switch": t.KillSwitchPos, "fwmark": t.FwMarkPos} {
		if pos != (Position{}) {
			c.Fields[field] = spec.Origin(pos)
		}
	}
	if t.Table.Number != 0 {
		c.Table = t.Table.Number
	}
	for i, p := range except {
		c.Except = append(c.Except, p.Prefix)
		c.Fields["except["+strconv.Itoa(i)+"]"] = spec.Origin(p.Pos)
		if i == 0 {
			c.Fields["except"] = spec.Origin(p.Pos)
		}
	}
	for _, a := range t.Addresses {
		c.Addresses = append(c.Addresses, a.Addr())
	}
	for i := range t.Peers {
		p := &t.Peers[i]
		c.AnyEndpoint = c.AnyEndpoint || len(p.Endpoints) == 0
		for _, e := range p.Endpoints {
			if a, err := netip.ParseAddr(e.Host); err == nil {
				c.Endpoints = append(c.Endpoints, netip.AddrPortFrom(a, e.Port))
			} else {
				c.AnyEndpoint, c.Lookup = true, true
			}
		}
	}
	if names {
		c.DNS = &spec.DNS{Place: spec.Place{Origin: spec.Origin(t.DNS.Pos), Path: "tunnels." + t.Name + ".dns"}, Servers: t.DNS.Servers,
			Domains: t.DNS.Domains, Search: t.DNS.Search, Resolver: t.DNS.Resolver}
	}
	return c
}

// With is the file with a tunnel in place of the one of its name, to which something was added that the file does not say, as by a server.
// The file itself is not changed. Errors are of type [spec.Errors]: what does not go with the rest of the file.
func (f *File) With(t Tunnel) (*File, error) {
	out := *f
	out.Tunnels = slices.Clone(f.Tunnels)
	out.Setup.Links = slices.Clone(f.Setup.Links)
	for i := range out.Tunnels {
		if out.Tunnels[i].Name == t.Name {
			out.Tunnels[i] = t
		}
	}
	for i := range out.Setup.Links {
		if l := &out.Setup.Links[i]; l.Type == spec.TypeTunnel && l.Key == t.Name {
			l.Client, l.MTU = f.client(&t), t.MTU
		}
	}
	if !out.DeclaresSetup() {
		return &out, nil
	}
	if errs := out.Setup.Validate(); len(errs) > 0 {
		return nil, errs
	}
	return &out, nil
}

// relateClient checks what holds between what a tunnel does to its machine and the rest of it.
func (r *report) relateClient(t *Tunnel) {
	if len(t.DNS.Servers) == 0 && len(t.DNS.Search) > 0 && len(t.DNS.Domains) == 0 {
		r.warn(t.DNS.Pos, "", "search domains without name servers are told to nobody")
	}
	if t.FullTunnel.None() || t.Mode == ModeTap {
		return
	}
	if t.Table.Off {
		r.fail(t.TablePos, "take table out, or full_tunnel", "table: off sets no routes, and full_tunnel needs them")
	}
	if t.pulls() {
		return // addresses and networks are yet to come; until then it goes nowhere
	}
	carried := t.carries()
	missing := func(family string, whole string) {
		r.fail(t.FullTunnelPos, "add "+whole+" to the allowed_ips of the peer that is to take all, and an "+family+" address to the tunnel",
			"the tunnel cannot take all %s: no peer is allowed %s, or the tunnel has no %s address", family, whole, family)
	}
	switch both := (t.FullTunnel == Families{true, true}); {
	case both && carried.None():
		missing("IPv4", "0.0.0.0/0")
	case both: // what is not carried goes nowhere
	case t.FullTunnel.IPv4 && !carried.IPv4:
		missing("IPv4", "0.0.0.0/0")
	case t.FullTunnel.IPv6 && !carried.IPv6:
		missing("IPv6", "::/0")
	}
}

// fullTunnel reads true, false, or a list of families.
func (y *yamlReader) fullTunnel(v value) (f Families) {
	if b, is := v.node.(*ast.BoolNode); is {
		return Families{b.Value, b.Value}
	}
	const example = "[ipv4]"
	for _, e := range y.list(v, example, 2) {
		s, ok := y.text(e)
		switch {
		case !ok:
		case s == "ipv4":
			f.IPv4 = true
		case s == "ipv6":
			f.IPv6 = true
		default:
			y.fail(e.pos, "write true for both families, or a list of ipv4 and ipv6", "%s is no family of addresses", quote(s))
		}
	}
	return f
}

func (y *yamlReader) except(v value) (list []Prefix) {
	for _, e := range y.list(v, `[192.168.0.0/16, "fd00::/8"]`, MaxExcept) {
		s, ok := y.text(e)
		if !ok {
			continue
		}
		p, prob := parsePrefix(s, true)
		if prob == nil && p != p.Masked() {
			prob = wrong("write "+p.Masked().String(), "%s has bits set behind its prefix length", quote(s))
		}
		if y.take(e.pos, prob) {
			list = append(list, Prefix{p, e.pos})
		}
	}
	return list
}

// parseDomain reads a domain whose names are asked of a tunnel's servers: "example.net", "~example.net", "~.".
func parseDomain(s string) (string, *problem) {
	name, only := strings.CutPrefix(s, "~")
	if only && name == "." {
		return s, nil
	}
	return s, hostName(name)
}

func parseResolver(s string) (string, *problem) {
	if !slices.Contains(spec.Resolvers, s) {
		return "", wrong("write "+alternatives(spec.Resolvers), "%s resolves no names", quote(s))
	}
	return s, nil
}
