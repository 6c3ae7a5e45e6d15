package config

import (
	"fmt"
	"reflect"

	"github.com/goccy/go-yaml/ast"

	"culvert/setup/spec"
)

// setupShape is the part of a file that declares the network around the tunnels.
var setupShape = &shape{name: "file", where: "the file", keys: []key{
	{name: "netns", field: "Netns", absent: "none", doc: "network namespaces",
		form: table{of: netnsShape, field: "Name", check: netnsName, what: "name", long: maxNetnsName, most: MaxNetns, bare: true}},
	{name: "links", field: "Links", absent: "none", doc: "virtual devices, and devices that are referenced",
		form: table{of: linkShape, field: "Key", check: linkKey, what: "key", long: maxLinkKey, most: MaxLinks, variantOf: linkVariant}},
	{name: "shaping", field: "Shaping", absent: "nothing is shaped", doc: "limits and queues of links",
		form: list{of: shapingShape, most: MaxShaping, example: "[{source: eth0, egress: {tbf: {rate: 8mbit, burst: 10k}}}]"}},
	{name: "services", field: "Services", absent: "none", doc: "programs run for the network",
		form: list{of: serviceShape, most: MaxServices, example: "[{dnsmasq: {interface: veth-b}}]"}},
	{name: "xconnect", field: "XConnects", absent: "none", doc: "pairs of links joined frame for frame",
		form: list{of: xconnectShape, most: MaxXConnects, example: "[{a: office, b: vnet1}]"}},
	{name: "routes", field: "Routes", absent: "none", doc: "routes outside a link's own",
		form: list{of: routeShape, most: MaxRoutes, example: "[{to: 10.0.0.0/8, gateway: 192.0.2.1}]"}},
	{name: "rules", field: "Rules", absent: "none", doc: "policy rules, which choose a routing table",
		form: list{of: ruleShape, most: MaxRules, example: "[{from: 10.0.0.0/8, table: 100}]"}},
	{name: "nat", field: "NAT", absent: "none", doc: "masquerading",
		form: list{of: natShape, most: MaxNAT, example: "[{out: eth0, sources: [10.0.0.0/24]}]"}},
	{name: "sysctl", field: "Sysctls", absent: "none are set", doc: "settings of the kernel's network",
		form: list{of: sysctlShape, most: MaxSysctls, example: "[{name: net.ipv4.ip_forward, value: 1}]"}},
}}

// tunnelShape are the keys that a tunnel has as a link of the setup layer.
var tunnelShape = &shape{name: "tunnel", where: "a tunnel", keys: []key{
	{name: "netns", field: "Netns", form: netnsRef, absent: "the one culvert runs in", doc: "where its device is"},
	{name: "up", field: "Up", form: truth, absent: "`true`", doc: "whether the device is set up"},
	{name: "txqueuelen", field: "TxQueueLen", form: whole(0, 1<<31-1), absent: "the kernel's, 500 to 1000", doc: "packets of the device's transmit queue"},
	{name: "routes", field: "Routes", absent: "none but those to the allowed IPs", doc: "routes into the tunnel, whatever its allowed IPs",
		form: list{of: linkRouteShape, most: MaxRoutes, example: "[10.1.0.0/16]"}},
}}

// setupFields are the fields of the file that fill its Setup.
func (y *yamlReader) setupFields() []field {
	return y.fieldsOf(setupShape, reflect.ValueOf(&y.file.Setup).Elem(), spot{place: &spec.Place{}})
}

// fieldsOf makes fields of a shape's keys, for a mapping that has others besides.
func (y *yamlReader) fieldsOf(s *shape, part reflect.Value, at spot) []field {
	out := make([]field, len(s.keys))
	for i := range s.keys {
		k := &s.keys[i]
		out[i] = field{k.name, func(e entry) {
			y.file.declares = true
			before := len(y.errs) + y.more
			k.put(y, e, part, at, variant{})
			y.setupWrong = y.setupWrong || len(y.errs)+y.more > before
		}}
	}
	return out
}

// tunnelLink is what the setup layer knows of the tunnel e before its keys are read.
func tunnelLink(e entry) *spec.Link {
	return &spec.Link{Key: e.key, Type: spec.TypeTunnel,
		Place: spec.Place{Origin: spec.Origin(e.pos), Path: "tunnels." + e.key}}
}

// linkTunnels makes the tunnels of a file that has no setup layer links of one.
func (f *File) linkTunnels() {
	f.Setup.Instance = f.Instance
	for i := range f.Tunnels {
		t := &f.Tunnels[i]
		l := tunnelLink(entry{key: t.Name, pos: t.Pos})
		completeTunnel(l, t)
		f.CompleteMark(t)
		l.Client, l.Serves = f.client(t), f.serving(t)
		f.Setup.Links = append(f.Setup.Links, *l)
	}
}

// completeTunnel adds what the tunnel says that the setup layer has to know: other links are compared with it.
func completeTunnel(l *spec.Link, t *Tunnel) {
	l.Tun = &spec.Tun{Mode: spec.Type(t.Mode), Queues: t.Queues}
	if l.MTU = t.MTU; l.MTU != 0 {
		spot{&l.Place, "mtu"}.note(t.MTUPos)
	}
	if t.Mode == ModeTap {
		spot{&l.Place, "mode"}.note(t.ModePos)
	}
}

// linkVariant finds the type that a link says, wherever among its keys. It is not known where it is missing or wrong.
func linkVariant(y *yamlReader, e entry) (of variant, known bool) {
	m, ok := e.node.(*ast.MappingNode)
	if !ok {
		return of, true
	}
	typed := false
	for _, kv := range m.Values {
		switch v := (value{node: kv.Value, pos: y.nodePos(kv.Value), of: quote(kv.Key.GetToken().Value)}); kv.Key.GetToken().Value {
		case "type":
			x, ok := linkTypes.parse(y, v)
			if !ok {
				return of, false
			}
			of.link, typed = spec.Type(x.(string)), true
		case "external":
			b, is := kv.Value.(*ast.BoolNode)
			of.external = !is || b.Value // what is no boolean is reported when it is read
		}
	}
	if !typed && !of.external {
		y.fail(e.pos, `add "type": `+alternatives(typeNames)+`; or "external: true" for what is there already`, "the link %s has no type", quote(e.key))
		return of, false
	}
	return of, true
}

// finishSetup makes the specification whole once the file is read, and checks what holds between its parts. That is left
// for later where a part of it, or a tunnel, could not be read: what is missing would be reported a second time.
func (y *yamlReader) finishSetup() {
	s := &y.file.Setup
	s.Instance = y.file.Instance
	for i := range s.Links {
		completeLink(&s.Links[i])
	}
	for i := range y.file.Tunnels {
		t := &y.file.Tunnels[i]
		y.file.CompleteMark(t)
		y.tunnelLinks[i].Client, y.tunnelLinks[i].Serves = y.file.client(t), y.file.serving(t)
	}
	s.Links = append(y.tunnelLinks, s.Links...)
	if !y.file.DeclaresSetup() || y.setupWrong {
		return
	}
	tunnels := map[string]int{}
	for i := range y.file.Tunnels {
		tunnels[y.file.Tunnels[i].Name] = y.file.Tunnels[i].Pos.Line
	}
	for i := range s.Links[len(y.tunnelLinks):] {
		l := &s.Links[len(y.tunnelLinks)+i]
		if first, twice := tunnels[l.Key]; twice {
			y.fail(Position(l.Origin), "give one of the two another name; a tunnel is a link by itself",
				"%s is the name of a tunnel already (line %d)", quote(l.Key), first)
			y.setupWrong = true
		}
	}
	if !y.setupWrong {
		y.relateSetup(s)
	}
}

// completeLink gives a link the settings of its type, all unsaid, where none were said. An external one has none.
func completeLink(l *spec.Link) {
	switch {
	case l.External:
	case l.Type == spec.TypeTun || l.Type == spec.TypeTap:
		unsaid(&l.Tun).Mode = l.Type
	case l.Type == spec.TypeBridge:
		unsaid(&l.Bridge)
	case l.Type == spec.TypeBond:
		unsaid(&l.Bond)
	case l.Type == spec.TypeTeam:
		unsaid(&l.Team)
	}
}

// unsaid makes what p points to where there is nothing.
func unsaid[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

// relateSetup checks what holds between the parts of the specification.
func (y *yamlReader) relateSetup(s *spec.Spec) {
	for i, e := range s.Validate() {
		if rest := 0; i == spec.MaxErrors { // it sums up what is left out, which is this report's business
			if _, err := fmt.Sscanf(e.Message, "%d more", &rest); err == nil {
				y.more += rest
				break
			}
		}
		pos := Position(e.Origin)
		if pos.Line == 0 { // of the whole
			pos = Position{y.src.path, 1, 1}
		}
		y.fail(pos, cut(hideKeys(e.Hint)), "%s", cut(hideKeys(e.Message)))
	}
}

// cut bounds a text made of many names.
func cut(s string) string {
	const most = 512
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return s
}
