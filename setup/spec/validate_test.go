package spec

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/internal/golden"
)

// at is a place with a line of its own and the key path as a reader would give it.
func at(line int, path string) Place { return Place{Origin: Origin{"net.yaml", line, 3}, Path: path} }

func external(line int, key string) Link {
	return Link{Place: at(line, "links."+key), Key: key, External: true}
}

func veth(line int, a, b string) Link {
	return Link{Place: at(line, "links."+a), Key: a, Type: TypeVeth, Veth: &Veth{Peer: Peer{Place: at(line, "links."+a+".peer"), Key: b}}}
}

func link(line int, key string, typ Type, change ...func(*Link)) Link {
	l := Link{Place: at(line, "links."+key), Key: key, Type: typ}
	for _, f := range change {
		f(&l)
	}
	return l
}

func ports(keys ...string) func(*Link) {
	return func(l *Link) {
		for i, k := range keys {
			l.Ports = append(l.Ports, Port{Place: at(l.Origin.Line+1+i, l.Path+".ports."+k), Link: k})
		}
	}
}

func on(parent, mode string) func(*Link) {
	return func(l *Link) { l.Stack = &Stack{Parent: parent, Mode: mode} }
}

func vlanOf(parent string, vid uint16) func(*Link) {
	return func(l *Link) { l.VLAN = &VLAN{Parent: parent, VID: vid} }
}

func mtu(n int) func(*Link) { return func(l *Link) { l.MTU = n } }

func bond(b Bond) func(*Link) { return func(l *Link) { l.Bond = &b } }

func links(l ...Link) *Spec { return &Spec{Instance: "net", Links: l} }

// refusals has a declaration for each reason to refuse one, by the name of its golden file.
var refusals = map[string]*Spec{
	"instance":      {Instance: "a/b"},
	"instance-len":  {Instance: strings.Repeat("x", 65)},
	"netns-name":    {Instance: "net", Netns: []Netns{{Place: at(2, "netns.a"), Name: "a/b"}, {Place: at(3, "netns.b"), Name: strings.Repeat("n", 129)}}},
	"netns-twice":   {Instance: "net", Netns: []Netns{{Place: at(2, "netns.a"), Name: "a"}, {Place: at(3, "netns.a"), Name: "a"}}},
	"netns-unknown": links(link(2, "br0", TypeBridge, func(l *Link) { l.Netns = "nowhere" })),
	"name-long":     links(link(2, "a-name-of-16-byt", TypeBridge), link(3, "exactly-15-byte", TypeBridge)),
	"name-chars":    links(link(2, "a/b", TypeBridge), link(3, "a b", TypeBridge), link(4, "..", TypeBridge), link(5, "a:b", TypeBridge)),
	"name-lo":       links(link(2, "lo", TypeBridge)),
	"key-twice":     links(link(2, "br0", TypeBridge), veth(3, "va", "br0")),
	"device-twice":  links(link(2, "br0", TypeBridge), link(3, "br1", TypeBridge, func(l *Link) { l.Name = "br0" })),
	"type":          links(link(2, "x", "wormhole"), link(3, "y", "")),
	"tunnel": links(link(2, "office", TypeTunnel, func(l *Link) { l.External = true; l.Tun = &Tun{Mode: TypeTap} }),
		link(3, "home", TypeTunnel)),
	"type-part": links(link(2, "br0", TypeBridge, bond(Bond{Mode: "802.3ad"}), on("eth0", "bridge")), external(3, "eth0"),
		link(4, "br1", TypeBridge, func(l *Link) { l.External = true; l.Bridge = &Bridge{} })),
	"needs": links(link(2, "v", TypeVeth), link(3, "vl", TypeVLAN), link(4, "mv", TypeMacvlan), link(5, "iv", TypeIPvtap), link(6, "t", TypeTeam)),
	"mtu": links(link(2, "br0", TypeBridge, mtu(67)), link(3, "br1", TypeBridge, mtu(65536)), link(4, "br2", TypeBridge, mtu(1279), addresses("fd00::1/64")),
		link(5, "tap0", TypeTap, mtu(65522))),
	"mtu-parent": links(external(2, "eth0"), link(3, "tap0", TypeTap), link(4, "mv0", TypeMacvlan, on("tap0", "bridge"), mtu(1501)),
		link(5, "mv1", TypeMacvlan, on("eth0", "bridge"), mtu(9000)), link(6, "tap1", TypeTap, mtu(1400)), link(7, "vl0", TypeVLAN, vlanOf("tap1", 5), mtu(1401))),
	"mac": links(link(2, "tun0", TypeTun, mac(2)), external(3, "eth0"), link(4, "iv0", TypeIPvlan, on("eth0", "l2"), mac(2)),
		link(5, "br0", TypeBridge, mac(1)), link(6, "br1", TypeBridge, func(l *Link) { l.MAC = &MAC{} })),
	"addresses": links(link(2, "br0", TypeBridge, addresses("0.0.0.0/8", "224.0.0.1/24", "10.0.0.1/24", "10.0.0.1/24", "::ffff:1.2.3.4/120"),
		func(l *Link) { l.Addresses = append(l.Addresses, Address{Place: at(9, "links.br0.addresses[5]")}) })),
	"guest-addresses": links(link(2, "br0", TypeBridge, func(l *Link) {
		l.GuestAddresses = []Address{{Place: at(3, "g"), Prefix: netip.MustParsePrefix("10.0.0.1/24")}}
	})),
	"queues": links(link(2, "tap0", TypeTap, func(l *Link) { l.Tun = &Tun{Queues: 257} })),
	"handover": links(link(2, "br0", TypeBridge, handover("/run/a.sock")), link(3, "tap0", TypeTap, handover("a.sock")),
		link(4, "tap1", TypeTap, handover("/run/a.sock")), link(5, "tap2", TypeTap, handover("/"+strings.Repeat("x", 107))),
		link(6, "tap3", TypeTap, handover("/b"), func(l *Link) { l.Handover.Mode = new(uint32(0o1777)) })),
	"bridge": links(link(2, "br0", TypeBridge, func(l *Link) {
		l.Bridge = &Bridge{ForwardDelay: new(time.Second), HelloTime: new(11 * time.Second), MaxAge: new(6005 * time.Millisecond),
			VLAN: BridgeVLAN{Protocol: "802.1x", DefaultPVID: new(uint16(4095)), Self: []PortVLAN{{VID: 5, To: 4}}}}
	})),
	"vlans": links(external(2, "eth0"), link(3, "br0", TypeBridge, ports("eth0"), func(l *Link) {
		l.Ports[0].VLANs = []PortVLAN{{VID: 1, PVID: true}, {VID: 1, To: 3, PVID: true}}
	}), external(6, "eth1"), link(7, "br1", TypeBridge, ports("eth1"), func(l *Link) { l.Ports[0].VLANs = []PortVLAN{{VID: 4095}} })),
	"port-unknown": links(link(2, "br0", TypeBridge, ports("eth9"))),
	"port-twice":   links(external(2, "eth0"), link(3, "br0", TypeBridge, ports("eth0")), link(6, "br1", TypeBridge, ports("eth0"))),
	"port-netns": {Instance: "net", Netns: []Netns{{Place: at(1, "netns.a"), Name: "a"}}, Links: []Link{external(2, "eth0"),
		link(3, "br0", TypeBridge, ports("eth0"), func(l *Link) { l.Netns = "a" })}},
	"port-none":     links(external(2, "eth0"), link(3, "tap0", TypeTap, ports("eth0")), link(5, "x", "", ports("eth0"), func(l *Link) { l.External = true })),
	"port-settings": links(external(2, "eth0"), link(3, "b0", TypeBond, bond(Bond{Mode: "802.3ad"}), ports("eth0"), func(l *Link) { l.Ports[0].Cost = new(uint32(5)); l.Ports[0].Sticky = new(true) })),
	"port-range": links(external(2, "eth0"), link(3, "br0", TypeBridge, ports("eth0"), func(l *Link) {
		l.Ports[0].Cost = new(uint32(0))
		l.Ports[0].Priority = new(uint16(64))
	})),
	"port-lo": links(external(2, "lo"), link(3, "br0", TypeBridge, ports("lo"))),
	"tun-in-bridge": links(link(2, "tun0", TypeTun), link(3, "br0", TypeBridge, ports("tun0")),
		link(6, "office", TypeTunnel, func(l *Link) { l.Tun = &Tun{Mode: TypeTun} }), link(7, "br1", TypeBridge, ports("office"))),
	"tun-in-bond": links(link(2, "tun0", TypeTun), link(3, "b0", TypeBond, bond(Bond{Mode: "802.3ad"}), ports("tun0")),
		link(6, "tun1", TypeTun), link(7, "b1", TypeBond, bond(Bond{Mode: "active-backup"}), ports("tun1"))),
	"tun-in-team":       links(link(2, "tun0", TypeTun), link(3, "t0", TypeTeam, team("lacp"), ports("tun0"))),
	"tun-under-macvlan": links(link(2, "tun0", TypeTun), link(3, "mv0", TypeMacvlan, on("tun0", "bridge")), link(4, "iv0", TypeIPvlan, on("tun0", "l2"))),
	"macvlan-ipvlan": links(external(2, "eth0"), link(3, "mv0", TypeMacvlan, on("eth0", "bridge")), link(4, "iv0", TypeIPvlan, on("eth0", "l2")),
		external(5, "eth1"), link(6, "iv1", TypeIPvtap, on("eth1", "l2")), link(7, "mv1", TypeMacvtap, on("eth1", "bridge"))),
	"ipvlan-modes": links(external(2, "eth0"), link(3, "iv0", TypeIPvlan, on("eth0", "l2")), link(4, "iv1", TypeIPvlan, on("eth0", "l3s")), link(5, "iv2", TypeIPvlan, on("eth0", ""))),
	"passthru": links(external(2, "eth0"), link(3, "mv0", TypeMacvlan, on("eth0", "passthru")), link(4, "mv1", TypeMacvtap, on("eth0", "bridge")),
		external(5, "eth1"), link(6, "mv2", TypeMacvlan, on("eth1", "bridge")), link(7, "mv3", TypeMacvtap, on("eth1", "passthru"))),
	"port-as-parent":   links(external(2, "eth0"), link(3, "br0", TypeBridge, ports("eth0")), link(6, "mv0", TypeMacvlan, on("eth0", "bridge"))),
	"bridge-in-bridge": links(link(2, "br0", TypeBridge), link(3, "br1", TypeBridge, ports("br0"))),
	"team-in-team":     links(link(2, "t0", TypeTeam, team("lacp")), link(3, "t1", TypeTeam, team("lacp"), ports("t0"))),
	"ipvlan-in-bridge": links(external(2, "eth0"), link(3, "iv0", TypeIPvlan, on("eth0", "l2")), link(4, "br0", TypeBridge, ports("iv0"))),
	"cycle": links(link(2, "br0", TypeBridge, ports("vl0")), link(5, "vl0", TypeVLAN, vlanOf("br0", 5)), link(6, "mv0", TypeMacvlan, on("mv0", "bridge")),
		link(7, "b0", TypeBond, bond(Bond{Mode: "802.3ad"}), ports("b0"))),
	"parent-unknown": links(link(2, "mv0", TypeMacvlan, on("eth9", "bridge")), link(3, "vl0", TypeVLAN, vlanOf("", 5))),
	"parent-down":    links(link(2, "tap0", TypeTap, func(l *Link) { l.Up = new(false) }), link(3, "vl0", TypeVLAN, vlanOf("tap0", 5))),
	"stack-modes": links(external(2, "eth0"), link(3, "mv0", TypeMacvlan, on("eth0", "l2"), func(l *Link) { l.Stack.Flag = "private"; l.Stack.MACs = []MAC{{1}, {2}, {2}} }),
		external(4, "eth1"), link(5, "iv0", TypeIPvlan, on("eth1", "bridge"), func(l *Link) { l.Stack.Flag = "loud"; l.Stack.MACs = []MAC{{2}} })),
	"vlan": links(external(2, "eth0"), link(3, "vl0", TypeVLAN, vlanOf("eth0", 5)), link(4, "vl1", TypeVLAN, vlanOf("eth0", 5)),
		link(5, "vl2", TypeVLAN, vlanOf("eth0", 4095)), link(6, "vl3", TypeVLAN, vlanOf("eth0", 6), func(l *Link) { l.VLAN.Protocol = "802.1x" })),
	"bond-mode": links(link(2, "b0", TypeBond, bond(Bond{})), link(3, "b1", TypeBond, bond(Bond{Mode: "fast"}))),
	"bond-watch": links(link(2, "b0", TypeBond, bond(Bond{Mode: "active-backup", MIIMon: new(100 * time.Millisecond), ARPInterval: new(time.Second)})),
		link(3, "b1", TypeBond, bond(Bond{Mode: "802.3ad", ARPInterval: new(time.Second), ARPTargets: addrs("10.0.0.1", "10.0.0.1", "fe80::1")})),
		link(4, "b2", TypeBond, bond(Bond{Mode: "active-backup", NSTargets: addrs("fe80::1", "10.0.0.1")})),
		link(5, "b3", TypeBond, bond(Bond{Mode: "active-backup", UpDelay: new(time.Second)})),
		link(6, "b4", TypeBond, bond(Bond{Mode: "active-backup", MIIMon: new(100 * time.Millisecond), DownDelay: new(150 * time.Millisecond)})),
		link(7, "b5", TypeBond, bond(Bond{Mode: "active-backup", MIIMon: new(100 * time.Microsecond)}))),
	"bond-targets": links(link(2, "b0", TypeBond, bond(Bond{Mode: "active-backup", ARPInterval: new(time.Second),
		ARPTargets: addrs(strings.Fields(strings.Repeat("10.0.0.1 ", 17))...)[:17]}))),
	"bond-only":    links(link(2, "b0", TypeBond, bond(Bond{Mode: "active-backup", LACPRate: "fast", LACPActive: new(true), ADSelect: "count"}))),
	"bond-choices": links(link(2, "b0", TypeBond, bond(Bond{Mode: "802.3ad", LACPRate: "x", ADSelect: "x", ARPValidate: "x", ARPAllTargets: "x", XmitHashPolicy: "x", PrimaryReselect: "x", FailOverMAC: "x"}))),
	"bond-primary": links(external(2, "eth0"), link(3, "b0", TypeBond, bond(Bond{Mode: "802.3ad", Primary: "eth9"}), ports("eth0"))),
	"team": links(link(2, "t0", TypeTeam, team("")), link(3, "t1", TypeTeam, team("spin")),
		link(4, "t2", TypeTeam, team("random"), func(l *Link) {
			r := &l.Team.Runner
			r.TxHash, r.TxBalancer, r.FastRate, r.Active, r.SysPrio, r.MinPorts = []string{"eth", "x"}, "x", new(true), new(true), new(uint16(1)), new(0)
			r.AggSelect, r.HWAddrPolicy = "x", "x"
		})),
	"link-watch": links(link(2, "t0", TypeTeam, team("lacp"), func(l *Link) {
		for i, w := range []LinkWatch{{}, {Name: "smell"}, {Name: "ethtool", TargetHost: addrs("10.0.0.1")[0]}, {Name: "arp_ping", TargetHost: addrs("fe80::1")[0], SourceHost: addrs("fe80::2")[0]},
			{Name: "nsna_ping", TargetHost: addrs("10.0.0.1")[0], SourceHost: addrs("10.0.0.1")[0], DelayUp: time.Second, MissedMax: -1, Interval: time.Microsecond}} {
			w.Place = at(3+i, fmt.Sprintf("links.t0.link_watch[%d]", i))
			l.Team.LinkWatch = append(l.Team.LinkWatch, w)
		}
	})),
	"shaping": {Instance: "net", Links: []Link{external(2, "eth0"), external(3, "eth1"), link(4, "ifb8", TypeIfb), link(5, "ifb9", TypeIfb)}, Shaping: []Shaping{
		{Place: at(10, "shaping[0]"), Source: "eth0"},
		{Place: at(11, "shaping[1]"), Source: "eth0", Qdisc: sfq(11)},
		{Place: at(12, "shaping[2]"), Source: "eth1", IngressTo: "eth0", Qdisc: sfq(12)},
		{Place: at(13, "shaping[3]"), Source: "ifb8", IngressTo: "ifb9", Qdisc: sfq(13)},
		{Place: at(14, "shaping[4]"), Source: "nobody", IngressTo: "ifb9", Qdisc: sfq(14)},
		{Place: at(15, "shaping[5]"), Source: "eth1", IngressTo: "nothing"},
	}},
	"shaping-empty": {Instance: "net", Links: []Link{external(2, "eth0"), link(4, "ifb8", TypeIfb)}, Shaping: []Shaping{{Place: at(10, "shaping[0]"), Source: "eth0", IngressTo: "ifb8"}}},
	"shaping-netns": {Instance: "net", Netns: []Netns{{Place: at(1, "netns.a"), Name: "a"}}, Links: []Link{external(2, "eth0"), link(4, "ifb8", TypeIfb, func(l *Link) { l.Netns = "a" })},
		Shaping: []Shaping{{Place: at(10, "shaping[0]"), Source: "eth0", IngressTo: "ifb8", Qdisc: sfq(10)}}},
	"qdisc": {Instance: "net", Links: []Link{external(2, "e0"), external(2, "e1"), external(2, "e2"), external(2, "e3"), external(2, "e4"), external(2, "e5"), external(2, "e6"), external(2, "e7")}, Shaping: []Shaping{
		egress(10, "e0", Qdisc{}),
		egress(11, "e1", Qdisc{SFQ: &SFQ{}, HTB: &HTB{}}),
		egress(12, "e2", Qdisc{SFQ: &SFQ{Perturb: new(1500 * time.Millisecond), Divisor: new(uint32(3)), Limit: new(uint32(0))}}),
		egress(13, "e3", Qdisc{HTB: &HTB{Rate: 7, Ceil: new(BitRate(6)), Leaf: &Qdisc{Place: at(14, "shaping[3].egress.htb.leaf"), HTB: &HTB{Rate: 8}}}}),
		egress(15, "e4", Qdisc{TBF: &TBF{Limit: new(Size(0)), Latency: new(time.Second), Peak: new(BitRate(0))}}),
		egress(16, "e5", Qdisc{TBF: &TBF{Rate: 8e6, Burst: 10, MTU: new(Size(5)), Latency: new(time.Hour)}}),
		egress(17, "e6", Qdisc{FQCodel: &FQCodel{Target: new(time.Hour), Interval: new(time.Nanosecond), Flows: new(uint32(0))}}),
		egress(18, "e7", Qdisc{Cake: &Cake{Bandwidth: new(BitRate(1)), RTT: new(2 * time.Hour), Diffserv: "x", FlowMode: "x", AckFilter: "x", ATM: "x", Overhead: new(-65), MPU: new(uint32(257))}}),
	}},
	"xconnect": {Instance: "net", Netns: []Netns{{Place: at(1, "netns.a"), Name: "a"}}, Links: []Link{link(2, "tap0", TypeTap), link(3, "tap1", TypeTap), link(4, "tun0", TypeTun),
		link(5, "tap2", TypeTap, func(l *Link) { l.Netns = "a" }), link(6, "br0", TypeBridge, ports("tap1")), link(8, "ifb8", TypeIfb), link(9, "tap3", TypeTap)},
		Shaping: []Shaping{{Place: at(10, "shaping[0]"), Source: "tap3", IngressTo: "ifb8", Qdisc: sfq(10)}},
		XConnects: []XConnect{{at(20, "xconnect[0]"), "tap0", "tap0"}, {at(21, "xconnect[1]"), "tap0", "tap1"}, {at(22, "xconnect[2]"), "tun0", "tap2"},
			{at(23, "xconnect[3]"), "tap3", "tap9"}}},
	"path-chars": {Instance: "net", Links: []Link{external(2, "eth0"), link(3, "tap0", TypeTap, handover("/run/a\nb.sock")),
		link(4, "tap1", TypeTap, handover("/run/a\x00b.sock"))}, Services: []Service{
		{Place: at(10, "services[0]"), Dnsmasq: &Dnsmasq{Interface: "eth0", LeaseFile: "/var/lib/a\n"}}}},
	"service": {Instance: "net", Netns: []Netns{{Place: at(1, "netns.a"), Name: "a"}}, Links: []Link{external(2, "eth0")}, Services: []Service{
		{Place: at(10, "services[0]")}, {Place: at(11, "services[1]"), Dnsmasq: &Dnsmasq{Netns: "a", Interface: "eth0", Domain: "a\nb", LeaseFile: "x"}},
		{Place: at(12, "services[2]"), Dnsmasq: &Dnsmasq{Interface: "eth0", Ranges: []string{"10.0.0.1,10.0.0.2\n"}}},
		{Place: at(13, "services[3]"), Dnsmasq: &Dnsmasq{Interface: "eth0", DNS: true, Netns: "b"}}}},
	"route": {Instance: "net", Netns: []Netns{{Place: at(1, "netns.a"), Name: "a"}}, Links: []Link{external(2, "eth0")}, Routes: []Route{
		{Place: at(10, "routes[0]")}, {Place: at(11, "routes[1]"), Prefix: prefix("10.0.0.0/8")},
		{Place: at(12, "routes[2]"), Prefix: prefix("10.0.0.0/9"), Gateway: addrs("fe80::1")[0], Source: addrs("fe80::1")[0], OnLink: true},
		{Place: at(13, "routes[3]"), Prefix: prefix("10.0.0.0/10"), Type: "blackhole", Link: "eth0"},
		{Place: at(14, "routes[4]"), Prefix: prefix("10.0.0.0/11"), Type: "x"},
		{Place: at(15, "routes[5]"), Prefix: prefix("10.0.0.0/12"), Link: "eth0", Table: 255, MTU: 67},
		{Place: at(16, "routes[6]"), Prefix: prefix("10.0.0.0/13"), Link: "eth0", Netns: "a"},
		{Place: at(17, "routes[7]"), Prefix: prefix("10.9.0.0/16"), Link: "eth0"}, {Place: at(18, "routes[8]"), Prefix: prefix("10.9.1.0/16"), Link: "eth0", Table: 254},
		{Place: at(19, "routes[9]"), Prefix: prefix("fd00::/64"), Link: "eth0"}, {Place: at(20, "routes[10]"), Prefix: prefix("fd00::/64"), Link: "eth0", Metric: 1024}}},
	"route-of-link": links(link(2, "br0", TypeBridge, func(l *Link) {
		l.Routes = []Route{{Place: at(3, "links.br0.routes[0]"), Link: "br0", Prefix: prefix("10.0.0.0/8")}}
	})),
	"client": {Instance: "net", Netns: []Netns{{Place: at(1, "netns.a"), Name: "a"}}, Links: []Link{
		link(2, "eth0", TypeTap, func(l *Link) { l.Client = &Client{Place: at(2, "links.eth0")} }),
		link(3, "one", TypeTunnel, func(l *Link) {
			l.Tun = &Tun{Mode: TypeTun}
			l.Client = &Client{Place: at(4, "tunnels.one"), Full: []int{4, 6}, Mark: 0, Table: 255, Except: []netip.Prefix{prefix("::/0"), prefix("10.0.0.1/8"), prefix("10.0.0.0/8"), {}}}
		}),
		link(5, "two", TypeTunnel, func(l *Link) {
			l.Tun = &Tun{Mode: TypeTun}
			l.Client = &Client{Place: at(6, "tunnels.two"), Full: []int{6}, Mark: 1, Table: 1, DNS: &DNS{Place: at(7, "tunnels.two.dns"), Resolver: "bind", Domains: []string{"x"}}}
		}),
		link(8, "tap", TypeTunnel, func(l *Link) {
			l.Tun, l.Netns = &Tun{Mode: TypeTap}, "a"
			l.Client = &Client{Place: at(9, "tunnels.tap"), Full: []int{4}, Mark: 1, Table: 1, DNS: &DNS{Place: at(10, "tunnels.tap.dns"), Resolver: "resolvconf"}}
		}),
		link(11, "split", TypeTunnel, func(l *Link) {
			l.Tun = &Tun{Mode: TypeTun}
			l.Client = &Client{Place: at(12, "tunnels.split"), Except: []netip.Prefix{prefix("10.0.0.0/8")}}
		}),
	}, Rules: []Rule{{Place: at(13, "rules[0]"), Family: 4, Priority: 6350, Table: 9}, {Place: at(14, "rules[1]"), Netns: "a", Family: 6, Priority: 6350, Table: 9}},
		Routes: []Route{{Place: at(15, "routes[0]"), Prefix: prefix("::/0"), Table: 1, Type: "unreachable"}}},
	"rule": {Instance: "net", Netns: []Netns{{Place: at(1, "netns.a"), Name: "a"}}, Links: []Link{external(2, "eth0")}, Rules: []Rule{
		{Place: at(10, "rules[0]")}, {Place: at(11, "rules[1]"), Priority: 32766}, {Place: at(12, "rules[2]"), Priority: 5, Family: 5},
		{Place: at(13, "rules[3]"), Priority: 6, Family: 4, From: prefix("fd00::/64")}, {Place: at(14, "rules[4]"), Priority: 7, From: prefix("10.0.0.0/8"), To: prefix("fd00::/64")},
		{Place: at(15, "rules[5]"), Priority: 8, IIf: "eth0", OIf: "eth9", Netns: "a"}, {Place: at(16, "rules[6]"), Priority: 9, Action: "x"},
		{Place: at(17, "rules[7]"), Priority: 10, Action: "blackhole", Table: 5}, {Place: at(18, "rules[8]"), Priority: 11, Mark: 3, Mask: 1}, {Place: at(19, "rules[9]"), Priority: 11, Family: 6}}},
	"nat": {Instance: "net", Netns: []Netns{{Place: at(1, "netns.a"), Name: "a"}}, Links: []Link{external(2, "eth0")}, NAT: []NAT{
		{Place: at(10, "nat[0]"), Out: "eth0", Netns: "a"}, {Place: at(11, "nat[1]"), Out: "eth0", Family: 5}, {Place: at(12, "nat[2]"), Out: "eth0", Family: 4, Sources: []netip.Prefix{prefix("fd00::/64"), {}}}}},
	"many": func() *Spec {
		s := links()
		for i := range MaxErrors + 5 {
			s.Links = append(s.Links, link(i+1, fmt.Sprint("x", i), ""))
		}
		return s
	}(),
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func addresses(list ...string) func(*Link) {
	return func(l *Link) {
		for i, s := range list {
			l.Addresses = append(l.Addresses, Address{Place: at(l.Origin.Line, fmt.Sprintf("%s.addresses[%d]", l.Path, i)), Prefix: prefix(s)})
		}
	}
}

func mac(first byte) func(*Link) { return func(l *Link) { l.MAC = &MAC{first, 0, 0, 0, 0, 1} } }

func team(runner string) func(*Link) {
	return func(l *Link) {
		l.Team = &Team{Runner: Runner{Place: at(l.Origin.Line, l.Path+".runner"), Name: runner}}
	}
}

func handover(socket string) func(*Link) {
	return func(l *Link) { l.Handover = &Handover{Place: at(l.Origin.Line, l.Path+".handover"), Socket: socket} }
}

func sfq(line int) *Qdisc {
	return &Qdisc{Place: at(line, fmt.Sprintf("shaping[%d].qdisc", line-10)), SFQ: &SFQ{}}
}

func egress(line int, source string, q Qdisc) Shaping {
	p := fmt.Sprintf("shaping[%s]", source[1:])
	q.Place = at(line, p+".egress")
	return Shaping{Place: at(line, p), Source: source, Egress: &q}
}

// TestRefusals compares all that is said of each declaration with its golden file.
func TestRefusals(t *testing.T) {
	for name, s := range refusals {
		t.Run(name, func(t *testing.T) {
			errs := s.Validate()
			if len(errs) == 0 {
				t.Fatal("nothing is refused")
			}
			golden.Check(t, filepath.Join("testdata", "refusals", name+".txt"), errs.Error()+"\n")
		})
	}
	files, err := filepath.Glob("testdata/refusals/*.txt")
	if err != nil || len(files) != len(refusals) {
		t.Errorf("%d golden files (%v), %d declarations", len(files), err, len(refusals))
	}
}

// TestAccepted has declarations that come near a refusal and work.
func TestAccepted(t *testing.T) {
	for name, s := range map[string]*Spec{
		"empty":           {Instance: "net"},
		"tun in a backup": links(link(1, "tun0", TypeTun), link(2, "b0", TypeBond, bond(Bond{Mode: "active-backup"}), ports("tun0"))),
		"vlan on a port":  links(external(1, "eth0"), link(2, "br0", TypeBridge, ports("eth0")), link(4, "vl0", TypeVLAN, vlanOf("eth0", 5))),
		"bond in bridge":  links(external(1, "eth0"), link(2, "b0", TypeBond, bond(Bond{Mode: "802.3ad", LACPRate: "fast"}), ports("eth0")), link(4, "br0", TypeBridge, ports("b0"))),
		"macvlan on bond": links(link(1, "b0", TypeBond, bond(Bond{Mode: "balance-alb"})), link(2, "mv0", TypeMacvlan, on("b0", "source"), func(l *Link) { l.Stack.MACs = []MAC{{2}} })),
		"same name in two namespaces": {Instance: "net", Netns: []Netns{{Name: "a"}}, Links: []Link{link(1, "br0", TypeBridge),
			link(2, "other", TypeBridge, func(l *Link) { l.Name = "br0"; l.Netns = "a" })}},
		"vlan and macvlan on one":   links(external(1, "eth0"), link(2, "vl0", TypeVLAN, vlanOf("eth0", 5)), link(3, "mv0", TypeMacvlan, on("eth0", "passthru"))),
		"two sources into one ifb":  {Instance: "net", Links: []Link{external(1, "e0"), external(2, "e1"), link(3, "ifb8", TypeIfb)}, Shaping: []Shaping{{Source: "e0", IngressTo: "ifb8", Qdisc: sfq(10)}, {Source: "e1", IngressTo: "ifb8"}}},
		"address of lo":             links(Link{Key: "lo", External: true, Addresses: []Address{{Prefix: prefix("10.0.0.1/32")}}}),
		"same route, other metrics": {Instance: "net", Links: []Link{external(1, "e0")}, Routes: []Route{{Prefix: prefix("10.0.0.0/8"), Link: "e0"}, {Prefix: prefix("10.0.0.0/8"), Link: "e0", Metric: 5}}},
	} {
		if errs := s.Validate(); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]BitRate{"8mbit": 8e6, "1.5gbit": 1.5e9, "64kibit": 65536, "10bit": 10, "1mbps": 8e6, "8MBIT": 8e6, " 3kbit ": 3000, "2tbit": 2e12} {
		if got, err := ParseBitRate(text); err != nil || got != want {
			t.Errorf("rate %q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "8", "mbit", "-1mbit", "1e3bit", "8 mbitx", "99999999tbit", "0x8bit", "+1bit", "1..2bit"} {
		if got, err := ParseBitRate(text); err == nil {
			t.Errorf("rate %q is taken for %v", text, got)
		}
	}
	for text, want := range map[string]Size{"10k": 10240, "1600": 1600, "2m": 2 << 20, "1g": 1 << 30, "10kb": 10240, "1.5k": 1536, "100b": 100} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("size %q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "k", "-1", "10x", "99999999g"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("size %q is taken for %v", text, got)
		}
	}
	for _, text := range []string{"1:", "6376:1", "ffff:ffff"} {
		if h, err := ParseHandle(text); err != nil || h.String() != text {
			t.Errorf("handle %q: %v, %v", text, h, err)
		}
	}
	for _, text := range []string{"", "1", ":1", "x:1", "10000:1", "1:10000", "1:x"} {
		if h, err := ParseHandle(text); err == nil {
			t.Errorf("handle %q is taken for %v", text, h)
		}
	}
	if m, err := ParseMAC("02-00-00-00-00-AB"); err != nil || m.String() != "02:00:00:00:00:ab" {
		t.Errorf("MAC %v, %v", m, err)
	}
	for _, text := range []string{"", "02:00:00:00:00", "0200.0000.0001", "02:00:00:00:00:01:02:03"} {
		if m, err := ParseMAC(text); err == nil {
			t.Errorf("MAC %q is taken for %v", text, m)
		}
	}
}

func FuzzUnits(f *testing.F) {
	for _, s := range []string{"8mbit", "1.5k", "10", "1gbps", "6376:1", "99999999999999999999bit"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := ParseBitRate(s); err == nil {
			if back, err := ParseBitRate(r.String()); err != nil || back != r {
				t.Errorf("rate %q is written %q and read %d, %v", s, r, back, err)
			}
		}
		if v, err := ParseSize(s); err == nil {
			if back, err := ParseSize(v.String()); err != nil || back != v {
				t.Errorf("size %q is written %q and read %d, %v", s, v, back, err)
			}
		}
		if h, err := ParseHandle(s); err == nil {
			if back, err := ParseHandle(h.String()); err != nil || back != h {
				t.Errorf("handle %q is written %q and read %v, %v", s, h, back, err)
			}
		}
	})
}

func TestPlace(t *testing.T) {
	p := Place{Origin{"f", 1, 2}, "links.br0", map[string]Origin{"mtu": {"f", 3, 4}}}
	if p.At("mtu").String() != "f:3:4" || p.At("mac").String() != "f:1:2" || p.Key("mtu") != "links.br0.mtu" || p.Key("") != "links.br0" {
		t.Error(p.At("mtu"), p.At("mac"), p.Key("mtu"))
	}
	if !reflect.DeepEqual(Place{}.At("x"), Origin{}) || (Origin{File: "f"}).String() != "f" {
		t.Error("places without a line")
	}
}
