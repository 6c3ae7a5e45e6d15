package graph

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// scenes are the networks that are drawn in tests.
var scenes = []struct {
	name string
	make func() Source
}{
	{"vm-tap", vmTap},
	{"dhcp", dhcp},
	{"bond", bonded},
	{"macvlan", macvlans},
	{"shaping", shaped},
	{"bond-over-tunnels", bondOverTunnels},
	{"cross-connect", crossConnected},
	{"many", many},
	{"difference", difference},
	{"hostile", hostile},
	{"empty", func() Source { return Source{Title: "nothing.yaml", Items: []model.Item{}} }},
}

func p[T any](v T) *T { return &v }

func mac(s string) *spec.MAC {
	m, err := spec.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return &m
}

func addresses(list ...string) (out []spec.Address) {
	for _, a := range list {
		out = append(out, spec.Address{Prefix: netip.MustParsePrefix(a)})
	}
	return out
}

func at(line int, path string) spec.Place {
	return spec.Place{Origin: spec.Origin{File: "site.yaml", Line: line, Column: 3}, Path: path}
}

func link(line int, key string, t spec.Type, with ...func(*spec.Link)) spec.Link {
	l := spec.Link{Place: at(line, "links."+key), Key: key, Type: t}
	for _, w := range with {
		w(&l)
	}
	return l
}

func external(key string, with ...func(*spec.Link)) spec.Link {
	return link(2, key, spec.TypeExternal, append(with, func(l *spec.Link) { l.External = true })...)
}

func ports(keys ...string) func(*spec.Link) {
	return func(l *spec.Link) {
		for _, k := range keys {
			l.Ports = append(l.Ports, spec.Port{Place: at(9, l.Path+".ports."+k), Link: k})
		}
	}
}

func stack(parent, mode string) func(*spec.Link) {
	return func(l *spec.Link) { l.Stack = &spec.Stack{Parent: parent, Mode: mode} }
}

func in(netns string) func(*spec.Link) { return func(l *spec.Link) { l.Netns = netns } }

func having(list ...string) func(*spec.Link) {
	return func(l *spec.Link) { l.Addresses = addresses(list...) }
}

func vethTo(peer, netns string, list ...string) func(*spec.Link) {
	return func(l *spec.Link) {
		l.Veth = &spec.Veth{Peer: spec.Peer{Place: at(12, l.Path+".peer"), Key: peer, Netns: netns, Addresses: addresses(list...)}}
	}
}

func bridge(l *spec.Link) { l.Bridge = &spec.Bridge{STP: p(true)} }

func tunnel(l *spec.Link) { l.Tun = &spec.Tun{Mode: spec.TypeTap} }

func vmTapSpec() *spec.Spec {
	return &spec.Spec{Instance: "site", Links: []spec.Link{
		external("eth0"),
		link(4, "br0", spec.TypeBridge, bridge, ports("eth0", "vnet1"), having("192.0.2.1/24", "2001:db8::1/64")),
		link(7, "vnet1", spec.TypeTap, func(l *spec.Link) {
			l.MTU = 1500
			l.Handover = &spec.Handover{Socket: "/run/culvert/vm1.sock"}
			l.Tun = &spec.Tun{VNetHdr: p(true)}
		}),
	}}
}

func vmTap() Source { return Source{Title: "vm.yaml", Items: model.Expand(vmTapSpec())} }

func dhcpSpec() *spec.Spec {
	return &spec.Spec{Instance: "site",
		Netns: []spec.Netns{{Place: at(1, "netns.qdhcp-ba48a3fc"), Name: "qdhcp-ba48a3fc"}},
		Links: []spec.Link{
			external("eth0"),
			link(4, "br0", spec.TypeBridge, bridge, ports("eth0", "tap1", "tap2", "veth-a")),
			link(7, "tap1", spec.TypeTap), link(8, "tap2", spec.TypeTap),
			link(9, "veth-a", spec.TypeVeth, vethTo("veth-b", "qdhcp-ba48a3fc", "10.0.0.2/24")),
		},
		Services: []spec.Service{{Place: at(20, "services[0]"), Dnsmasq: &spec.Dnsmasq{Netns: "qdhcp-ba48a3fc", Interface: "veth-b",
			Ranges: []string{"10.0.0.10,10.0.0.50,255.255.255.0"}}}},
	}
}

func dhcp() Source { return Source{Title: "dhcp.yaml", Items: model.Expand(dhcpSpec())} }

func bonded() Source {
	return Source{Title: "bond.yaml", Items: model.Expand(&spec.Spec{Instance: "site", Links: []spec.Link{
		external("p1"), external("p2"), external("p3"), external("p4"),
		link(5, "bond0", spec.TypeBond, ports("p1", "p2"), func(l *spec.Link) {
			l.Bond = &spec.Bond{Mode: "802.3ad", MIIMon: p(100 * time.Millisecond), LACPRate: "fast"}
		}),
		link(8, "team0", spec.TypeTeam, ports("p3", "p4"), having("198.51.100.7/24"), func(l *spec.Link) {
			l.Team = &spec.Team{Runner: spec.Runner{Name: "lacp"}}
		}),
		link(10, "bond0.10", spec.TypeVLAN, func(l *spec.Link) { l.VLAN = &spec.VLAN{Parent: "bond0", VID: 10} }),
		link(11, "bond0.20", spec.TypeVLAN, having("203.0.113.1/24"), func(l *spec.Link) { l.VLAN = &spec.VLAN{Parent: "bond0", VID: 20} }),
		link(12, "br10", spec.TypeBridge, bridge, ports("bond0.10", "vnet3"), having("192.0.2.9/24")),
		link(13, "vnet3", spec.TypeTap),
	}})}
}

func macvlans() Source {
	return Source{Title: "macvlan.yaml", Items: model.Expand(&spec.Spec{Instance: "site",
		Netns: []spec.Netns{{Name: "net1"}, {Name: "net2"}, {Name: "lab0", External: true}},
		Links: []spec.Link{
			external("eth1"), external("eth2"),
			link(5, "macvlan1", spec.TypeMacvlan, stack("eth1", "bridge"), in("net1"), having("10.1.0.1/24")),
			link(6, "macvlan2", spec.TypeMacvlan, stack("eth1", "bridge"), in("net2"), having("10.1.0.2/24")),
			link(7, "macvlan3", spec.TypeMacvlan, stack("eth1", "source"), func(l *spec.Link) { l.Stack.MACs = []spec.MAC{*mac("02:00:00:00:00:01")} }),
			link(8, "ipvl0", spec.TypeIPvlan, stack("eth2", "l2"), in("net1"), func(l *spec.Link) { l.Stack.Flag = "bridge" }),
			link(9, "macvtap0", spec.TypeMacvtap, stack("eth1", "bridge"), func(l *spec.Link) {
				l.MAC = mac("52:54:00:00:00:0a")
				l.Handover = &spec.Handover{Socket: "/run/culvert/vm2.sock"}
			}),
		}})}
}

func shaped() Source {
	rate := func(s string) spec.BitRate {
		r, err := spec.ParseBitRate(s)
		if err != nil {
			panic(err)
		}
		return r
	}
	return Source{Title: "shaping.yaml", Peers: map[model.Ref][]string{"office": {"branch", "home"}},
		Items: model.Expand(&spec.Spec{Instance: "site",
			Links: []spec.Link{
				external("eth3"), external("eth4"),
				link(4, "office", spec.TypeTunnel, tunnel),
				link(5, "ifb0", spec.TypeIfb), link(6, "ifb-wan", spec.TypeIfb),
			},
			Shaping: []spec.Shaping{
				{Source: "eth3", IngressTo: "ifb0", Qdisc: &spec.Qdisc{SFQ: &spec.SFQ{Perturb: p(10 * time.Second)}}},
				{Source: "office", IngressTo: "ifb-wan",
					Qdisc:  &spec.Qdisc{HTB: &spec.HTB{Rate: rate("8mbit"), Leaf: &spec.Qdisc{SFQ: &spec.SFQ{}}}},
					Egress: &spec.Qdisc{TBF: &spec.TBF{Rate: rate("8mbit"), Burst: 10 << 10}}},
			},
			Routes: []spec.Route{{Link: "eth3", Prefix: netip.MustParsePrefix("203.0.113.0/24")}, {Link: "eth3", Prefix: netip.MustParsePrefix("198.51.100.0/24")}},
			NAT:    []spec.NAT{{Out: "eth3", Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		})}
}

func bondOverTunnels() Source {
	return Source{Title: "failover.yaml", Peers: map[model.Ref][]string{"tun-a": {"site-b by fibre"}, "tun-b": {"site-b by LTE"}},
		Items: model.Expand(&spec.Spec{Instance: "site", Links: []spec.Link{
			link(4, "tun-a", spec.TypeTunnel, tunnel), link(5, "tun-b", spec.TypeTunnel, tunnel),
			link(6, "bond1", spec.TypeBond, ports("tun-a", "tun-b"), having("10.9.0.1/24"), func(l *spec.Link) {
				l.Bond = &spec.Bond{Mode: "active-backup", MIIMon: p(100 * time.Millisecond)}
			}),
			external("eth0"),
		}})}
}

func crossConnected() Source {
	return Source{Title: "cross.yaml", Peers: map[model.Ref][]string{"vnet2": {"datacentre"}}, Items: model.Expand(&spec.Spec{Instance: "site",
		Links: []spec.Link{
			link(4, "vnet2", spec.TypeTunnel, tunnel),
			link(5, "tap-vm2", spec.TypeTap, func(l *spec.Link) { l.Handover = &spec.Handover{Socket: "/run/culvert/vm2.sock"} }),
		},
		XConnects: []spec.XConnect{{Place: at(9, "xconnect[0]"), A: "vnet2", B: "tap-vm2"}},
	})}
}

// many is a host with 60 devices.
func many() Source {
	s := &spec.Spec{Instance: "site"}
	add := func(l spec.Link) { s.Links = append(s.Links, l) }
	for i := range 6 {
		add(external(fmt.Sprintf("eth%d", i)))
	}
	bond := func(name string, mode string, list ...string) {
		add(link(20, name, spec.TypeBond, ports(list...), func(l *spec.Link) { l.Bond = &spec.Bond{Mode: mode} }))
	}
	bond("bond0", "802.3ad", "eth0", "eth1")
	bond("bond1", "active-backup", "office-a", "office-b")
	add(link(22, "office-a", spec.TypeTunnel, tunnel))
	add(link(23, "office-b", spec.TypeTunnel, tunnel))
	var public, private []string
	for i := range 14 {
		name := fmt.Sprintf("vnet%d", i)
		add(link(30+i, name, spec.TypeTap, func(l *spec.Link) {
			l.Handover = &spec.Handover{Socket: fmt.Sprintf("/run/culvert/vm%d.sock", i)}
		}))
		public = append(public, name)
	}
	for i := range 9 {
		name := fmt.Sprintf("priv%d", i)
		add(link(50+i, name, spec.TypeTap))
		private = append(private, name)
	}
	for i := range 5 {
		netns := fmt.Sprintf("qdhcp-%d", i)
		s.Netns = append(s.Netns, spec.Netns{Name: netns})
		name := fmt.Sprintf("dhcp%d-a", i)
		add(link(60+i, name, spec.TypeVeth, vethTo(fmt.Sprintf("dhcp%d-b", i), netns, fmt.Sprintf("10.0.%d.2/24", i))))
		s.Services = append(s.Services, spec.Service{Dnsmasq: &spec.Dnsmasq{Netns: netns, Interface: fmt.Sprintf("dhcp%d-b", i),
			Ranges: []string{fmt.Sprintf("10.0.%d.10,10.0.%d.50", i, i)}}})
		if i < 3 {
			public = append(public, name)
		} else {
			private = append(private, name)
		}
	}
	add(link(70, "br-public", spec.TypeBridge, bridge, ports(append(public, "bond0")...), having("192.0.2.1/24")))
	add(link(71, "br-private", spec.TypeBridge, bridge, ports(append(private, "bond1")...), having("10.0.0.1/16")))
	for i := range 6 {
		netns := fmt.Sprintf("net%d", i/2+1)
		if i%2 == 0 {
			s.Netns = append(s.Netns, spec.Netns{Name: netns})
		}
		add(link(80+i, fmt.Sprintf("macvlan%d", i), spec.TypeMacvlan, stack("eth2", "bridge"), in(netns), having(fmt.Sprintf("10.1.0.%d/24", i+1))))
	}
	for i := range 3 {
		add(link(90+i, fmt.Sprintf("macvtap%d", i), spec.TypeMacvtap, stack("eth2", "vepa")))
		add(link(95+i, fmt.Sprintf("br-public.%d", 10*(i+1)), spec.TypeVLAN, func(l *spec.Link) {
			l.VLAN = &spec.VLAN{Parent: "br-public", VID: uint16(10 * (i + 1))}
		}))
	}
	for i := range 3 {
		add(link(100+i, fmt.Sprintf("ifb%d", i), spec.TypeIfb))
		s.Shaping = append(s.Shaping, spec.Shaping{Source: fmt.Sprintf("eth%d", i+3), IngressTo: fmt.Sprintf("ifb%d", i),
			Qdisc: &spec.Qdisc{SFQ: &spec.SFQ{Perturb: p(10 * time.Second)}}})
	}
	return Source{Title: "host.yaml: 60 devices", Items: model.Expand(s),
		Peers: map[model.Ref][]string{"office-a": {"branch", "home"}, "office-b": {"branch", "home"}}}
}

// system is what would be there were all of a declaration applied.
func system(items []model.Item) *model.System {
	s := &model.System{Objects: make(map[model.ID]*model.Object)}
	for _, i := range items {
		o := &model.Object{ID: i.ID, Fields: maps.Clone(i.Fields), Ours: true}
		if i.ID.Kind() == model.KindLink {
			o.Index = len(s.Objects) + 1
			if i.Owner == model.OwnerCulvert {
				o.Group = model.Group
			}
			for f, v := range map[model.Field]model.Value{"mtu": "1500", "mac": "02:00:5e:00:53:01", "up": "yes"} {
				if o.Fields[f] == "" {
					o.Fields[f] = v
				}
			}
		}
		s.Objects[i.ID] = o
	}
	return s
}

// difference has every status in it.
func difference() Source {
	items := model.Expand(dhcpSpec())
	s := system(items)
	delete(s.Objects, model.LinkID("tap2"))
	delete(s.Objects, model.AttachmentID("tap2"))
	delete(s.Objects, model.AddressID("qdhcp-ba48a3fc/veth-b", "10.0.0.2/24"))
	for id := range s.Objects {
		if id.Kind() == model.KindProcess {
			delete(s.Objects, id)
		}
	}
	br := s.Objects[model.LinkID("br0")]
	br.Fields["stp"], br.Fields["up"] = "no", "no"
	object := func(id model.ID, ours bool, f model.Fields) {
		o := &model.Object{ID: id, Fields: f, Ours: ours}
		if ours {
			o.Group = model.Group
		}
		s.Objects[id] = o
	}
	object(model.LinkID("tap9"), true, model.Fields{"type": "tap", "up": "no", "mtu": "1500"})
	object(model.AttachmentID("tap9"), false, model.Fields{"master": "br0"})
	object(model.LinkID("docker0"), false, model.Fields{"type": "bridge", "up": "yes", "mtu": "1500"})
	object(model.LinkID("veth17"), false, model.Fields{"type": "veth", "up": "yes", "mtu": "1500", "peer": "?"})
	object(model.AttachmentID("veth17"), false, model.Fields{"master": "docker0"})
	object(model.LinkID("lo"), false, model.Fields{"type": "loopback", "up": "yes"})
	object(model.NetnsID("elsewhere"), false, nil)
	return Source{Title: "dhcp.yaml and what runs", Items: items, System: s}
}

// hostileName has what must not get into a picture as it is.
const hostileName = "<b>&\"'\\N\x1b\u202e\xff]]>"

func hostile() Source {
	ref := model.NewRef("ns<svg>&", hostileName)
	return Source{Title: "a & b <script>alert(1)</script>", Peers: map[model.Ref][]string{ref: {"--><script>", strings200}},
		Items: []model.Item{
			{ID: model.LinkID(ref), Fields: model.Fields{"type": "tap", "parent": model.Value("ns<svg>&/" + strings200), "up": "yes"}},
			{ID: model.AttachmentID(ref), Fields: model.Fields{"master": model.Link(ref)}}, // a circle
			{ID: model.ProcessID("x\ny"), Fields: model.Fields{"program": "\"; n0 -> n1", "link": model.Link(ref), "args": "]]>"}},
			{ID: model.HandoverID(ref), Fields: model.Fields{"socket": "/tmp/<\"&>"}},
		}}
}

var strings200 = string(slices.Repeat([]rune{'漢'}, 200))
