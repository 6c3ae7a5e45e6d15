package config

import (
	"fmt"
	"strings"
	"testing"
)

// Each bound on the setup layer's part of a file is held: one more is refused with an error that names the bound, and the largest that is
// allowed has no such error.
func TestSetupBounds(t *testing.T) {
	joined := func(format string, n int) string { return strings.TrimSuffix(numbered(format+",", n), ",") }
	port := func(n int) string { return "links: {b: {type: bridge, ports: [" + joined("p%d", n) + "]}}" }
	for name, c := range map[string]struct {
		most int
		text func(n int) string
		part string
	}{
		"namespaces":         {MaxNetns, func(n int) string { return "netns: [" + joined("n%d", n) + "]" }, "more than 1024 "},
		"namespaces by name": {MaxNetns, func(n int) string { return "netns: {" + joined("n%d: {}", n) + "}" }, `"netns" has more than 1024 entries`},
		"links":              {MaxLinks, func(n int) string { return "links: {" + joined("l%d: {type: tap}", n) + "}" }, `"links" has more than 4096 entries`},
		"ports":              {MaxPorts, port, "more than 1024 "},
		"addresses":          {MaxAddresses, func(n int) string { return "links: {a: {type: tap, addresses: [" + joined(`"fd00::%d/64"`, n) + "]}}" }, "more than 256 elements"},
		"routes":             {MaxRoutes, func(n int) string { return "links: {a: {type: tap, routes: [" + joined(`"fd00::%d"`, n) + "]}}" }, "more than 4096 elements"},
		"other routes":       {MaxRoutes, func(n int) string { return "routes: [" + joined(`{to: "fd00::%d", type: blackhole}`, n) + "]" }, "more than 4096 elements"},
		"rules":              {MaxRules, func(n int) string { return "rules: [" + joined("{priority: 1, table: %d1}", n) + "]" }, "more than 4096 elements"},
		"sources": {MaxSources, func(n int) string {
			return "links: {a: {external: true}, b: {type: macvlan, mode: source, parent: a, macs: [" + madeMACs(0, n) + "]}}"
		}, "more than 4096 elements"},
		"targets": {MaxTargets, func(n int) string {
			return "links: {b: {type: bond, mode: active-backup, arp_interval: 1s, arp_targets: [" + joined("10.0.0.1%d", n) + "]}}"
		}, "more than 16 elements"},
		"watches": {MaxTargets, func(n int) string {
			return "links: {b: {type: team, runner: lacp, link_watch: [" + joined("{name: ethtool, delay_up: %ds}", n) + "]}}"
		}, "more than 16 elements"},
		"masquerades": {MaxNAT, func(n int) string {
			return "links: {a: {external: true}}\nnat: [" + joined("{out: a, sources: [10.0.%d.0/24]}", n) + "]"
		}, "more than 256 elements"},
		"settings":          {MaxSysctls, func(n int) string { return "sysctl: [" + joined("{name: net.ipv4.x%d, value: 1}", n) + "]" }, "more than 256 elements"},
		"shaping":           {MaxShaping, func(n int) string { return "shaping: [" + joined("{source: l%d, egress: {sfq: {}}}", n) + "]" }, "more than 4096 elements"},
		"cross-connections": {MaxXConnects, func(n int) string { return "xconnect: [" + joined("{a: x%d, b: y}", n) + "]" }, "more than 2048 elements"},
		"services":          {MaxServices, func(n int) string { return "services: [" + joined("{dnsmasq: {interface: x%d, dns: true}}", n) + "]" }, "more than 256 elements"},
		"arguments":         {MaxArguments, func(n int) string { return "services: [{dnsmasq: {interface: x, host: [" + joined("h%d", n) + "]}}]" }, "more than 1024 elements"},
		"VLANs": {maxVLAN, func(n int) string {
			return "links: {b: {type: bridge, vlan: {self: [" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]}}}"
		}, "more than 4094 elements"},
		"length of a key":              {maxLinkKey, func(n int) string { return "links: {" + strings.Repeat("k", n) + ": {type: tap, name: tap0}}" }, "cannot be the name of a link"},
		"length of a device's name":    {maxDeviceName, func(n int) string { return "links: {k: {type: tap, name: " + strings.Repeat("k", n) + "}}" }, "is 16 bytes long"},
		"length of a namespace's name": {maxNetnsName, func(n int) string { return "netns: [" + strings.Repeat("k", n) + "]" }, "cannot be the name of a namespace"},
		"length of an argument": {maxArgument, func(n int) string {
			return "services: [{dnsmasq: {interface: x, domain: x, range: " + strings.Repeat("k", n) + "}}]"
		}, "the text is 256 bytes long"},
		"length of a socket's path": {maxSocketPath, func(n int) string { return "links: {a: {type: tap, handover: /" + strings.Repeat("k", n-1) + "}}" }, "is 108 bytes long"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{c.most, c.most + 1} {
				text := "version: 1\n" + c.text(n) + "\n"
				f, r := parseYAML("x.yaml", []byte(text), fakeSecret)
				errs, _ := r.finish()
				if over := n > c.most; strings.Contains(errs.Error(), c.part) != over {
					t.Errorf("%d: %.600v; %q is expected: %v", n, errs, c.part, over)
				}
				checkErrors(t, []byte(text), errs)
				if n > c.most {
					continue
				}
				if len(f.Setup.Netns)+len(f.Setup.Links)+len(f.Setup.Shaping)+len(f.Setup.XConnects)+len(f.Setup.Services)+len(f.Setup.Routes)+len(f.Setup.Rules)+
					len(f.Setup.Sysctls) == 0 {
					t.Error("nothing was read")
				}
			}
		})
	}
}

// Hostile files: what is long or deep is refused, and what names everything wrong ends in a bounded number of errors.
func TestSetupHostile(t *testing.T) {
	for name, c := range map[string]struct{ text, part string }{
		"leaves":       {"shaping: [{source: a, egress: " + strings.Repeat("{htb: {rate: 1mbit, leaf: ", 12) + "{sfq: {}}" + strings.Repeat("}}", 12) + "}]", "nested deeper than 16"},
		"leaf in leaf": {"links: {a: {external: true}}\nshaping: [{source: a, egress: {htb: {rate: 1mbit, leaf: {htb: {rate: 1mbit}}}}}]", "cannot be an htb"},
		"cycle":        {"links: {" + numbered("b%d: {type: bond, mode: balance-rr, ports: [b", 1) + "1]}, b1: {type: bond, mode: balance-rr, ports: [b0]}}", "below itself"},
		"long cycle": {"links: {" + func() string {
			var b strings.Builder
			for i := range MaxLinks {
				fmt.Fprintf(&b, "b%d: {type: bond, mode: balance-rr, ports: [b%d]},", i, (i+1)%MaxLinks)
			}
			return strings.TrimSuffix(b.String(), ",")
		}() + "}", "below itself"},
		"all unknown": {"links: {" + numbered("b%d: {type: bridge, parent: x, ports: [y, z]},", 2000) + "c: {}}", "more errors from here on"},
		"all missing": {"xconnect: [" + numbered("{a: x%d, b: y},", MaxXConnects-1) + "{a: z, b: y}]", "and 3996 more errors from here on"},
		"long values": {"links: {a: {type: " + strings.Repeat("x", maxScalar) + "}}", "is not known here"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "version: 1\n" + c.text + "\n"
			_, r := parseYAML("x.yaml", []byte(text), fakeSecret)
			errs, _ := r.finish()
			if !strings.Contains(errs.Error(), c.part) {
				t.Fatalf("got %.600v; want %q", errs, c.part)
			}
			checkErrors(t, []byte(text), errs)
			if n := len(errs); n > MaxErrors+1 {
				t.Errorf("%d errors", n)
			}
		})
	}
}

// A network of a thousand devices is read whole.
func TestThousandDevices(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nlinks:\n  br0:\n    type: bridge\n    ports:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "      tap%d: {isolated: true, vlans: [{vid: %d, pvid: true, untagged: true}]}\n", i, i+1)
	}
	for i := range 1000 {
		fmt.Fprintf(&b, "  tap%d: {type: tap, mtu: 1400, addresses: [10.%d.%d.1/24]}\n", i, i/256, i%256)
	}
	f := parseGood(t, "x.yaml", []byte(b.String()))
	if n := len(f.Setup.Links); n != 1001 || len(f.Setup.Links[0].Ports) != 1000 {
		t.Errorf("%d links", n)
	}
	checkSetup(t, []byte(b.String()), f)
}
