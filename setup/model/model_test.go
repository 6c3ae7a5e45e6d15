package model

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/internal/golden"
	"culvert/setup/spec"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// everything has each kind of device, and all that hangs on them.
func everything() *spec.Spec {
	veth := &spec.Veth{Peer: spec.Peer{Key: "veth-b", Netns: "dhcp", Addresses: []spec.Address{{Prefix: prefix("10.0.0.2/24")}},
		Routes: []spec.Route{{Prefix: prefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.0.0.1")}}}}
	return &spec.Spec{
		Instance: "net",
		Netns:    []spec.Netns{{Name: "dhcp"}, {Name: "lab0", External: true}},
		Links: []spec.Link{
			{Key: "br0", Type: spec.TypeBridge, MTU: 1500,
				Bridge: &spec.Bridge{STP: new(true), Priority: new(uint16(4096)), ForwardDelay: new(4 * time.Second), HelloTime: new(2 * time.Second),
					MaxAge: new(20 * time.Second), AgeingTime: new(5 * time.Minute), Multicast: spec.BridgeMulticast{Snooping: new(true), Querier: new(true)},
					VLAN: spec.BridgeVLAN{Filtering: new(true), DefaultPVID: new(uint16(1)), Protocol: "802.1q", Self: []spec.PortVLAN{{VID: 10}}}},
				Ports: []spec.Port{{Link: "eth0"}, {Link: "vnet1", VLANs: []spec.PortVLAN{{VID: 10, PVID: true, Untagged: true}, {VID: 12, To: 13}, {VID: 11}}},
					{Link: "veth-a", Cost: new(uint32(100)), Priority: new(uint16(3)), Hairpin: new(false), Isolated: new(true), Learning: new(true), Flood: new(true),
						Guard: new(true), RootBlock: new(true), FastLeave: new(true)}, {Link: "office"}}},
			{Key: "eth0", External: true, MTU: 1500},
			{Key: "vnet1", Type: spec.TypeTap, Tun: &spec.Tun{Queues: 2, VNetHdr: new(true), Owner: new(uint32(64055)), Group: new(uint32(108))},
				Handover: &spec.Handover{Socket: "/run/culvert/vm1.sock", Owner: new(uint32(64055)), Group: new(uint32(108))}},
			{Key: "tun0", Type: spec.TypeTun},
			{Key: "vpn", Type: spec.TypeTunnel, Tun: &spec.Tun{Mode: spec.TypeTun}, Client: &spec.Client{Full: []int{4, 6}, Carries: []int{4}, KillSwitch: true,
				Except: []netip.Prefix{prefix("192.168.0.0/16"), prefix("fd00::/8")}, Mark: 51820, Table: 51820, Addresses: []netip.Addr{netip.MustParseAddr("10.8.0.2")},
				Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:51820")}, Lookup: true, Listen: 51820,
				DNS: &spec.DNS{Servers: []netip.Addr{netip.MustParseAddr("10.8.0.53"), netip.MustParseAddr("10.8.0.1")}, Domains: []string{"corp.example"}, Search: []string{"lab"}, Resolver: "file"}}},
			{Key: "gate", Type: spec.TypeTunnel, Tun: &spec.Tun{Mode: spec.TypeTun}, Serves: &spec.Serves{
				Pool: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24"), netip.MustParsePrefix("fd20::/64")}, NAT: true, Listen: 51820}},
			{Key: "hidden", Type: spec.TypeTunnel, Tun: &spec.Tun{Mode: spec.TypeTun}, Netns: "dhcp", Serves: &spec.Serves{
				Pool: []netip.Prefix{netip.MustParsePrefix("10.21.0.0/24")}, NAT: true, Listen: 51821}},
			{Key: "inner", Type: spec.TypeTunnel, Tun: &spec.Tun{Mode: spec.TypeTun}, Netns: "dhcp", Client: &spec.Client{Full: []int{4}, Carries: []int{4}, AnyEndpoint: true,
				Mark: 51822, Table: 51822, Addresses: []netip.Addr{netip.MustParseAddr("10.22.0.2")}}},
			{Key: "split", Type: spec.TypeTunnel, Tun: &spec.Tun{Mode: spec.TypeTun}, Netns: "dhcp", Client: &spec.Client{Full: []int{6}, Carries: []int{6}, AnyEndpoint: true,
				Mark: 51821, Table: 51821, Addresses: []netip.Addr{netip.MustParseAddr("fd08::2")},
				DNS: &spec.DNS{Servers: []netip.Addr{netip.MustParseAddr("fd08::53")}}}},
			{Key: "office", Type: spec.TypeTunnel, Tun: &spec.Tun{Mode: spec.TypeTap}},
			{Key: "veth-a", Type: spec.TypeVeth, Veth: veth},
			{Key: "p1", External: true}, {Key: "p2", External: true}, {Key: "p3", External: true},
			{Key: "bond0", Type: spec.TypeBond, Ports: []spec.Port{{Link: "p1", QueueID: new(uint16(1)), Prio: new(int32(-5))}, {Link: "p2"}},
				Bond: &spec.Bond{Mode: "active-backup", ARPInterval: new(time.Second), ARPTargets: []netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.10")},
					NSTargets: []netip.Addr{netip.MustParseAddr("fe80::1")}, MissedMax: new(uint8(3)), Primary: "p1", PrimaryReselect: "better", FailOverMAC: "active",
					MIIMon: new(time.Duration(0)), UpDelay: new(time.Duration(0)), DownDelay: new(time.Duration(0)), ARPValidate: "all", ARPAllTargets: "any", LACPRate: "fast",
					LACPActive: new(true), ADSelect: "count", XmitHashPolicy: "layer3+4", MinLinks: new(uint32(1)), AllPortsActive: new(false), PacketsPerPort: new(uint32(1)),
					ResendIGMP: new(uint32(2)), NumPeerNotify: new(uint8(2))}},
			{Key: "team0", Type: spec.TypeTeam, Ports: []spec.Port{{Link: "p3", Prio: new(int32(10)), Sticky: new(true), Key: new(uint16(4))}},
				Team: &spec.Team{Runner: spec.Runner{Name: "lacp", FastRate: new(true), TxHash: []string{"eth", "ipv4", "ipv6"}},
					LinkWatch: []spec.LinkWatch{{Name: "nsna_ping", TargetHost: netip.MustParseAddr("fe80::1"), Interval: 200 * time.Millisecond, MissedMax: 3}}}},
			{Key: "macvlan1", Type: spec.TypeMacvlan, Netns: "lab0", Stack: &spec.Stack{Parent: "bond0", Mode: "source", MACs: []spec.MAC{{2, 0, 0, 0, 0, 9}, {2, 0, 0, 0, 0, 1}}},
				Addresses: []spec.Address{{Prefix: prefix("10.1.0.1/24")}, {Prefix: prefix("fd00::1/64"), NoDAD: true}}},
			{Key: "macvtap0", Type: spec.TypeMacvtap, Stack: &spec.Stack{Parent: "bond0", Mode: "bridge"}, MAC: &spec.MAC{0x52, 0x54, 0, 0, 0, 10},
				Handover: &spec.Handover{Socket: "/run/culvert/vm2.sock", Mode: new(uint32(0o660))}},
			{Key: "ipvl0", Type: spec.TypeIPvlan, Stack: &spec.Stack{Parent: "team0", Mode: "l2", Flag: "bridge"}, Netns: "dhcp"},
			{Key: "ipvtap0", Type: spec.TypeIPvtap, Stack: &spec.Stack{Parent: "team0", Mode: "l2"}, GuestAddresses: []spec.Address{{Prefix: prefix("10.2.0.5/24")}}},
			{Key: "vlan5", Type: spec.TypeVLAN, VLAN: &spec.VLAN{Parent: "br0", VID: 5}, Up: new(false), TxQueueLen: new(uint32(100))},
			{Key: "ifb0x", Type: spec.TypeIfb}, {Key: "ifb1x", Type: spec.TypeIfb},
		},
		Shaping: []spec.Shaping{
			{Source: "eth0", IngressTo: "ifb0x", Qdisc: &spec.Qdisc{SFQ: &spec.SFQ{Perturb: new(10 * time.Second), Quantum: new(spec.Size(1514)), Limit: new(uint32(127)), Divisor: new(uint32(1024))}},
				Egress: &spec.Qdisc{Cake: &spec.Cake{Bandwidth: new(spec.BitRate(8e6)), RTT: new(100 * time.Millisecond), Diffserv: "diffserv3", FlowMode: "flows", NAT: new(true),
					Wash: new(false), AckFilter: "ack-filter", Overhead: new(-4), MPU: new(uint32(64)), ATM: "atm", Memory: new(spec.Size(4096)), Ingress: new(true), SplitGSO: new(true)}}},
			{Source: "office", IngressTo: "ifb1x", Qdisc: &spec.Qdisc{HTB: &spec.HTB{Rate: 8e6, Ceil: new(spec.BitRate(9e6)), Burst: new(spec.Size(15 << 10)), CBurst: new(spec.Size(1600)),
				Leaf: &spec.Qdisc{FQCodel: &spec.FQCodel{Limit: new(uint32(1000)), Flows: new(uint32(64)), Target: new(5 * time.Millisecond), Interval: new(100 * time.Millisecond),
					Quantum: new(spec.Size(300)), ECN: new(true), Memory: new(spec.Size(1 << 20))}}}},
				Egress: &spec.Qdisc{TBF: &spec.TBF{Rate: 8e6, Burst: 10 << 10, Peak: new(spec.BitRate(16e6)), MTU: new(spec.Size(1514))}}},
		},
		XConnects: []spec.XConnect{{A: "vnet1", B: "macvtap0"}},
		Services: []spec.Service{{Dnsmasq: &spec.Dnsmasq{Netns: "dhcp", Interface: "veth-b", Ranges: []string{"10.0.0.10,10.0.0.50,255.255.255.0"}, Hosts: []string{"02:00:00:00:00:01,10.0.0.11"},
			Options: []string{"3,10.0.0.1"}, Domain: "lab", Servers: []netip.Addr{netip.MustParseAddr("9.9.9.9")}}}},
		Routes: []spec.Route{{Prefix: prefix("10.9.0.0/16"), Type: "blackhole", Table: 100}, {Netns: "dhcp", Prefix: prefix("10.8.0.0/16"), Gateway: netip.MustParseAddr("10.0.0.7"),
			Source: netip.MustParseAddr("10.0.0.2"), Metric: 50, MTU: 1400},
			{Netns: "dhcp", Link: "veth-b", Prefix: prefix("10.7.0.0/16"), Gateway: netip.MustParseAddr("192.0.2.1"), OnLink: true}},
		Rules: []spec.Rule{{Priority: 500, From: prefix("10.1.2.3/16"), To: prefix("10.0.0.0/8"), IIf: "eth0", OIf: "veth-a", Mark: 5, Table: 100},
			{Priority: 501, Not: true, Mark: 1, Mask: 3, SuppressPrefixLen: new(uint32(0))}, {Priority: 502, Family: 6, Action: "prohibit"}},
		NAT: []spec.NAT{{Out: "eth0", Sources: []netip.Prefix{prefix("10.0.0.0/8")}}, {Out: "p1"}, {Out: "p1", Family: 6}},
	}
}

func itemText(i *Item) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s [%s %s] %s\n", i.ID, i.Owner, i.Type, i.Label)
	for _, f := range slices.Sorted(maps.Keys(i.Fields)) {
		fmt.Fprintf(&b, "    %s %s\n", f, i.Fields[f])
	}
	fmt.Fprintf(&b, "    needs %v, up %v\n", i.Needs, i.NeedsUp)
	return b.String()
}

func TestExpand(t *testing.T) {
	s := everything()
	var got strings.Builder
	seen := make(map[ID]bool)
	used := make(map[string]bool)
	for _, i := range Expand(s) {
		got.WriteString(itemText(&i))
		if seen[i.ID] {
			t.Errorf("%s is there twice", i.ID)
		}
		seen[i.ID] = true
		for _, n := range i.Needs {
			if !seen[n] {
				t.Errorf("%s stands before %s, which it needs", i.ID, n)
			}
		}
		for f, v := range i.Fields {
			info := Describe(i.ID.Kind(), i.Type, f)
			if info == nil {
				t.Errorf("%s: the schema has no field %s of type %q", i.ID, f, i.Type)
				continue
			}
			used[string(info.Kind)+" "+fmt.Sprint(info.Types)+info.Qdisc+" "+string(f)] = true
			if !isCanonical(info.Form, v) {
				t.Errorf("%s: %s %q is not in its form", i.ID, f, v)
			}
		}
	}
	for _, info := range Schema {
		if !used[string(info.Kind)+" "+fmt.Sprint(info.Types)+info.Qdisc+" "+string(info.Field)] {
			t.Errorf("no declaration leads to the field %s of %s %v%s", info.Field, info.Kind, info.Types, info.Qdisc)
		}
	}
	golden.Check(t, "testdata/expand.txt", got.String())
}

// isCanonical reports whether a value is what the constructor of its form makes of what its method reads.
func isCanonical(form Form, v Value) bool {
	switch form {
	case FormBool:
		return v == Bool(v.Bool())
	case FormUint:
		return v == Uint(v.Uint())
	case FormInt:
		return v == Int(v.Int())
	case FormDuration:
		return v == Duration(v.Duration())
	case FormMAC:
		return v == MAC(v.MAC())
	case FormRate:
		return v == Rate(v.Rate())
	case FormSize:
		return v == Bytes(v.Bytes())
	case FormHandle:
		h, err := spec.ParseHandle(string(v))
		return err == nil && v == Text(h.String())
	case FormList:
		return v == List(v.List())
	}
	return true
}

// TestHash: the same in every process, and another for another field.
func TestHash(t *testing.T) {
	i := Item{ID: LinkID("br0"), Fields: Fields{"type": "bridge", "mtu": "1500"}}
	if got, want := i.Hash(), "3fb4c7cc41bdb1cb"; got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
	for _, other := range []Item{
		{ID: LinkID("br1"), Fields: i.Fields}, {ID: i.ID, Fields: Fields{"type": "bridge"}},
		{ID: i.ID, Fields: Fields{"type": "bridge", "mtu": "15001"}}, {ID: i.ID, Fields: Fields{"typeb": "ridge", "mtu": "1500"}},
	} {
		if other.Hash() == i.Hash() {
			t.Errorf("%v has the same hash", other)
		}
	}
}

func TestMark(t *testing.T) {
	longest := Mark{strings.Repeat("i", 64), LinkID(NewRef(strings.Repeat("n", 128), "fifteen-letters")), "0123456789abcdef"}
	for _, m := range []Mark{longest, {"net", LinkID("br0"), "0123456789abcdef"}, {"net", NetnsID("a:b"), "0123456789abcdef"}} {
		alias := m.Alias()
		if len(alias) > 255 {
			t.Errorf("the alias has %d bytes", len(alias))
		}
		if got, ok := ParseMark(alias); !ok || got != m {
			t.Errorf("%q is read as %v, %v", alias, got, ok)
		}
	}
	for _, alias := range []string{"", "culvert:", "culvert:net", "culvert:net:link br0", "culvert::link br0:0123456789abcdef", "culvert:net:link br0:0123",
		"culvert:net:qdisc br0 root:0123456789abcdef", "culvert-vm:12:34", "xculvert:net:link br0:0123456789abcdef", "culvert:net:link :0123456789abcdef"} {
		if m, ok := ParseMark(alias); ok {
			t.Errorf("%q is read as %v", alias, m)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, c := range []struct {
		id    ID
		kind  Kind
		netns string
		link  Ref
	}{
		{NetnsID("a"), KindNetns, "", ""}, {LinkID("a/br0"), KindLink, "a", "a/br0"}, {LinkID("br0"), KindLink, "", "br0"},
		{AddressID("a/br0", "10.0.0.1/24"), KindAddress, "a", "a/br0"}, {RouteID("", "254", "10.0.0.0/8", "0"), KindRoute, "", ""},
		{RouteID("a", "254", "10.0.0.0/8", "0"), KindRoute, "a", ""}, {RuleID("a", "4", "5"), KindRule, "a", ""}, {NATID("", "x"), KindNAT, "", ""},
		{ProcessID("teamd:a/t0"), KindProcess, "", ""}, {FilterID("a/e", "ingress", "1"), KindFilter, "a", "a/e"},
	} {
		if c.id.Kind() != c.kind || c.id.Netns() != c.netns || c.id.Link() != c.link {
			t.Errorf("%s: kind %s, netns %q, link %q", c.id, c.id.Kind(), c.id.Netns(), c.id.Link())
		}
	}
}
