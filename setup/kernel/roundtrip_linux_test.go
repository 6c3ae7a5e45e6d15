package kernel_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// A trip is one thing that is created, read back, changed field by field and back, and deleted. What is left then must be what was there
// before.
type trip struct {
	name    string
	id      string // with "other" for the second namespace
	typ     string
	fields  model.Fields
	peer    model.Fields
	changes model.Fields   // each made by itself, and taken back
	more    []model.Fields // sets that only work together
	prepare func(*machine)
	guest   bool // needs what not every host has: runs in the guest
}

// trips cover every field of the schema (TestEveryFieldIsTried).
var trips = []trip{
	{name: "tun", id: "link t0", typ: "tun", fields: model.Fields{"type": "tun", "mtu": "1420", "txqueuelen": "300", "owner": "12", "group": "34",
		"persist": "yes", "multi_queue": "no", "vnet_hdr": "no"},
		changes: model.Fields{"mtu": "1300", "txqueuelen": "20", "up": "yes"}},
	{name: "tap", id: "link t0", typ: "tap", fields: model.Fields{"type": "tap", "mtu": "9000", "mac": "02:00:00:00:00:07", "multi_queue": "yes",
		"vnet_hdr": "yes", "persist": "yes"},
		changes: model.Fields{"mtu": "1500", "mac": "02:00:00:00:00:08", "txqueuelen": "20", "up": "yes"}},
	{name: "veth", id: "link v0", typ: "veth", fields: model.Fields{"type": "veth", "peer": "v1", "mtu": "1400", "mac": "02:00:00:00:00:01",
		"txqueuelen": "50"}, peer: model.Fields{"mtu": "1400", "mac": "02:00:00:00:00:02", "txqueuelen": "60"},
		changes: model.Fields{"mtu": "1500", "mac": "02:00:00:00:00:03", "up": "yes"}},
	{name: "veth to a namespace", id: "link v0", typ: "veth", fields: model.Fields{"type": "veth", "peer": "other/v0"},
		peer: model.Fields{"mtu": "1444"}},
	{name: "veth from a namespace", id: "link other/v0", typ: "veth", fields: model.Fields{"type": "veth", "peer": "v1"}},
	{name: "bridge", id: "link br0", typ: "bridge", fields: model.Fields{"type": "bridge", "mac": "02:00:00:00:00:01", "stp": "yes",
		"priority": "4096", "forward_delay": "4s", "hello_time": "1s", "max_age": "6s", "ageing_time": "1m40s", "mcast_snooping": "no",
		"mcast_querier": "yes"},
		changes: model.Fields{"stp": "no", "priority": "8192", "forward_delay": "7.2s", "hello_time": "2s", "max_age": "10s", "ageing_time": "0s",
			"mcast_snooping": "yes", "mcast_querier": "no", "mtu": "1400", "up": "yes", "mac": "02:00:00:00:00:09"}},
	{name: "bridge with VLANs", id: "link br0", typ: "bridge", guest: true, fields: model.Fields{"type": "bridge", "vlan_filtering": "yes",
		"vlan_protocol": "802.1ad", "vlan_default_pvid": "7", "vlans": "1-3 7,pvid,untagged 9,untagged 4000-4094"},
		changes: model.Fields{"vlan_filtering": "no", "vlan_protocol": "802.1q", "vlan_default_pvid": "8",
			"vlans": "2 3,pvid 10-20,untagged"}},
	{name: "bridge port", id: "attachment p0", typ: "bridge", fields: model.Fields{"master": "br0", "cost": "7", "priority": "9", "hairpin": "yes",
		"isolated": "yes", "learning": "no", "flood": "no", "guard": "yes", "root_block": "yes", "fast_leave": "yes"},
		changes: model.Fields{"cost": "8", "priority": "63", "hairpin": "no", "isolated": "no", "learning": "yes", "flood": "yes", "guard": "no",
			"root_block": "no", "fast_leave": "no"}, prepare: func(m *machine) {
			m.link("br0", "bridge", model.Fields{"mac": "02:00:00:00:00:01"})
			m.link("p0", "tap", nil)
			m.up("br0", "p0")
		}},
	{name: "bridge port with VLANs", id: "attachment p0", typ: "bridge", guest: true,
		fields:  model.Fields{"master": "br0", "vlans": "5,pvid,untagged 6-8 100-1000,untagged"},
		changes: model.Fields{"vlans": "5 6,pvid,untagged 200-300,untagged 4094"}, prepare: func(m *machine) {
			m.link("br0", "bridge", model.Fields{"mac": "02:00:00:00:00:01", "vlan_filtering": "yes"})
			m.link("p0", "tap", nil)
		}},
	{name: "macvlan", id: "link m0", typ: "macvlan", fields: model.Fields{"type": "macvlan", "parent": "eth0", "mode": "bridge", "mtu": "1400",
		"mac": "02:00:00:00:00:10", "txqueuelen": "77"}, prepare: withParent,
		changes: model.Fields{"mode": "vepa", "mac": "02:00:00:00:00:11", "up": "yes"}, more: []model.Fields{{"mode": "private"}}},
	{name: "macvlan elsewhere", id: "link other/m0", typ: "macvlan", fields: model.Fields{"type": "macvlan", "parent": "eth0", "mode": "private"},
		prepare: withParent},
	{name: "macvlan called as its parent", id: "link other/eth0", typ: "macvlan", fields: model.Fields{"type": "macvlan", "parent": "eth0",
		"mode": "private", "mtu": "1300"}, prepare: withParent},
	{name: "macvlan passthru", id: "link m0", typ: "macvlan", fields: model.Fields{"type": "macvlan", "parent": "eth0", "mode": "passthru"},
		prepare: withParent},
	{name: "macvlan source", id: "link m0", typ: "macvlan", fields: model.Fields{"type": "macvlan", "parent": "eth0", "mode": "source",
		"macs": "02:00:00:00:00:21 02:00:00:00:00:22"}, changes: model.Fields{"macs": "02:00:00:00:00:23"}, prepare: withParent,
		more: []model.Fields{{"macs": ""}}},
	{name: "macvlan to source", id: "link m0", typ: "macvlan", fields: model.Fields{"type": "macvlan", "parent": "eth0", "mode": "private"},
		more: []model.Fields{{"mode": "source", "macs": "02:00:00:00:00:21"}}, prepare: withParent},
	{name: "macvtap", id: "link m0", typ: "macvtap", fields: model.Fields{"type": "macvtap", "parent": "eth0", "mode": "vepa",
		"mac": "52:54:00:00:00:0a"}, prepare: withParent, changes: model.Fields{"mode": "bridge", "up": "yes"}},
	{name: "macvtap elsewhere", id: "link other/m0", typ: "macvtap", fields: model.Fields{"type": "macvtap", "parent": "eth0", "mode": "bridge"},
		prepare: withParent},
	{name: "ifb", id: "link ifb-a", typ: "ifb", fields: model.Fields{"type": "ifb", "txqueuelen": "1000", "mac": "02:00:00:00:00:31"},
		changes: model.Fields{"txqueuelen": "32", "mtu": "1400", "up": "yes"}},
	{name: "vlan", id: "link vl0", typ: "vlan", guest: true, fields: model.Fields{"type": "vlan", "parent": "eth0", "vid": "100", "protocol": "802.1ad",
		"mtu": "1400"}, changes: model.Fields{"mtu": "1300", "up": "yes"}, prepare: withParent},
	{name: "vlan elsewhere", id: "link other/vl0", typ: "vlan", guest: true, fields: model.Fields{"type": "vlan", "parent": "eth0", "vid": "4094",
		"protocol": "802.1q"}, prepare: withParent},
	{name: "ipvlan", id: "link i0", typ: "ipvlan", guest: true, fields: model.Fields{"type": "ipvlan", "parent": "eth0", "mode": "l2", "flag": "bridge"},
		changes: model.Fields{"mode": "l3", "flag": "private", "mtu": "1400", "up": "yes"}, more: []model.Fields{{"mode": "l3s"}, {"flag": "vepa"}},
		prepare: withParent},
	{name: "ipvlan elsewhere", id: "link other/i0", typ: "ipvlan", guest: true, fields: model.Fields{"type": "ipvlan", "parent": "eth0", "mode": "l3s",
		"flag": "vepa"}, prepare: withParent},
	{name: "ipvtap", id: "link i0", typ: "ipvtap", guest: true, fields: model.Fields{"type": "ipvtap", "parent": "eth0", "mode": "l3",
		"flag": "private"}, changes: model.Fields{"mode": "l2", "flag": "bridge"}, prepare: withParent},
	{name: "team", id: "link team0", typ: "team", guest: true, fields: model.Fields{"type": "team", "mtu": "1400", "mac": "02:00:00:00:00:61"},
		changes: model.Fields{"mtu": "1500", "up": "yes"}},
	{name: "team port", id: "attachment p0", typ: "team", guest: true, fields: model.Fields{"master": "team0"}, prepare: func(m *machine) {
		m.link("team0", "team", nil)
		m.link("p0", "veth", model.Fields{"peer": "p1"})
		m.up("p0")
	}},

	{name: "bond balance-rr", id: "link b0", typ: "bond", guest: true, fields: model.Fields{"type": "bond", "mode": "balance-rr", "miimon": "100ms",
		"updelay": "200ms", "downdelay": "300ms", "packets_per_port": "3", "resend_igmp": "5", "min_links": "1", "all_ports_active": "yes",
		"num_peer_notify": "4", "fail_over_mac": "none", "mac": "02:00:00:00:00:71"},
		more: []model.Fields{{"miimon": "50ms", "updelay": "150ms", "downdelay": "250ms"}},
		changes: model.Fields{"miimon": "50ms", "updelay": "100ms", "downdelay": "0s", "packets_per_port": "1", "resend_igmp": "0", "min_links": "0",
			"all_ports_active": "no", "num_peer_notify": "1", "mode": "802.3ad", "mtu": "1400", "up": "yes", "fail_over_mac": "active"}},
	{name: "bond active-backup", id: "link b0", typ: "bond", guest: true, fields: model.Fields{"type": "bond", "mode": "active-backup",
		"arp_interval": "200ms", "arp_targets": "10.0.0.1 10.0.0.20", "ns_targets": "2001:db8::1 2001:db8::a", "arp_validate": "all",
		"arp_all_targets": "all", "missed_max": "5", "primary_reselect": "better", "fail_over_mac": "active"},
		changes: model.Fields{"arp_interval": "100ms", "arp_targets": "10.0.0.3", "ns_targets": "", "arp_validate": "backup", "arp_all_targets": "any",
			"missed_max": "2", "primary_reselect": "failure", "fail_over_mac": "follow"}},
	{name: "bond balance-xor", id: "link b0", typ: "bond", guest: true, fields: model.Fields{"type": "bond", "mode": "balance-xor",
		"xmit_hash_policy": "layer3+4"}, changes: model.Fields{"xmit_hash_policy": "vlan+srcmac"}},
	{name: "bond broadcast", id: "link b0", typ: "bond", guest: true, fields: model.Fields{"type": "bond", "mode": "broadcast"}},
	{name: "bond 802.3ad", id: "link b0", typ: "bond", guest: true, fields: model.Fields{"type": "bond", "mode": "802.3ad", "miimon": "100ms",
		"lacp_rate": "fast", "lacp_active": "no", "ad_select": "bandwidth", "xmit_hash_policy": "encap3+4"},
		changes: model.Fields{"lacp_rate": "slow", "lacp_active": "yes", "ad_select": "count", "xmit_hash_policy": "layer2+3"}},
	{name: "bond balance-tlb", id: "link b0", typ: "bond", guest: true, fields: model.Fields{"type": "bond", "mode": "balance-tlb"}},
	{name: "bond balance-alb", id: "link b0", typ: "bond", guest: true, fields: model.Fields{"type": "bond", "mode": "balance-alb"}},
	{name: "bond port", id: "attachment p0", typ: "bond", guest: true, fields: model.Fields{"master": "b0", "queue_id": "3", "prio": "-7"},
		changes: model.Fields{"queue_id": "4", "prio": "12"}, prepare: func(m *machine) {
			m.link("b0", "bond", model.Fields{"mode": "active-backup", "miimon": "100ms", "mac": "02:00:00:00:00:71"})
			m.link("p0", "veth", model.Fields{"peer": "p1"})
			m.up("b0", "p0", "p1")
		}},

	{name: "IPv4 address", id: "address a0 10.1.2.3/24", fields: model.Fields{}, prepare: withVeth},
	{name: "IPv6 address", id: "address a0 2001:db8::5/64", fields: model.Fields{"nodad": "yes"}, prepare: withVeth},
	{name: "IPv6 address with detection", id: "address other/b0 2001:db8::6/64", fields: model.Fields{"nodad": "no"}, prepare: withVeth},

	{name: "route", id: "route - 254 10.9.0.0/16 0", fields: model.Fields{"type": "unicast", "link": "a0", "gateway": "10.1.2.1",
		"source": "10.1.2.3", "mtu": "1300", "onlink": "no"}, prepare: withAddress},
	{name: "route to a link", id: "route - 1000 10.9.0.0/16 7", fields: model.Fields{"type": "unicast", "link": "a0"}, prepare: withAddress},
	{name: "route onlink", id: "route - 254 0.0.0.0/0 100", fields: model.Fields{"type": "unicast", "link": "a0", "gateway": "192.0.2.1",
		"onlink": "yes"}, prepare: withAddress},
	{name: "route by its gateway", id: "route - 254 10.9.0.0/16 5", fields: model.Fields{"type": "unicast", "gateway": "10.1.2.1"}, prepare: withAddress},
	{name: "IPv4 by IPv6", id: "route - 254 10.9.0.0/16 5", fields: model.Fields{"type": "unicast", "link": "a0", "gateway": "2001:db8::1"},
		prepare: withAddress},
	{name: "blackhole", id: "route other 254 10.9.0.0/16 9", fields: model.Fields{"type": "blackhole"}},
	{name: "prohibit", id: "route - 70000 2001:db8:9::/48 1024", fields: model.Fields{"type": "prohibit"}},
	{name: "unreachable", id: "route - 254 10.9.9.9/32 0", fields: model.Fields{"type": "unreachable"}},
	{name: "IPv6 route", id: "route - 254 2001:db8:9::/48 1024", fields: model.Fields{"type": "unicast", "link": "a0", "gateway": "2001:db8::1",
		"source": "2001:db8::5", "mtu": "1400"}, prepare: withAddress},
	{name: "IPv6 default route", id: "route - 51820 ::/0 1024", fields: model.Fields{"type": "unicast", "link": "a0"}, prepare: withAddress},

	{name: "rule", id: "rule - 4 100", fields: model.Fields{"not": "yes", "from": "10.0.0.0/8", "to": "192.0.2.0/24", "iif": "lo", "oif": "a0",
		"mark": "0xca6c/0xffffffff", "table": "51820", "action": "lookup"}},
	{name: "rule that suppresses", id: "rule other 6 101", fields: model.Fields{"table": "254", "suppress_prefixlength": "0", "action": "lookup",
		"not": "no"}},
	{name: "rule for some bits", id: "rule - 6 102", fields: model.Fields{"from": "2001:db8::/32", "mark": "0x0/0xff", "action": "prohibit"}},
	{name: "rule blackhole", id: "rule - 4 103", fields: model.Fields{"to": "10.3.0.0/16", "action": "blackhole"}},
	{name: "rule unreachable", id: "rule - 4 104", fields: model.Fields{"action": "unreachable", "to": "10.4.0.0/16"}},

	{name: "NAT", id: "nat - culvert-test", fields: model.Fields{"masquerade": "eth0,0.0.0.0/0 eth0,10.1.0.0/16 wan,2001:db8::/32"},
		changes: model.Fields{"masquerade": "eth0,10.2.3.4/32 eth1,::/0"}},
	{name: "NAT for clients", id: "nat other culvert-test", fields: model.Fields{"masquerade": "!wg0,10.20.0.0/24 !wg0,fd20::/64 a,b,10.0.0.0/9"},
		changes: model.Fields{"masquerade": "!wg0,0.0.0.0/0 wan,10.20.0.0/24"}},
	{name: "firewall", id: "firewall - culvert/test", fields: model.Fields{"kill_switch": "office vpn0", "endpoints": "0x6376abcd,2001:db8::1,443 0xca6c,192.0.2.1,51820 0xca6d,any",
		"lookups": "0xca6c", "listen": "51820", "except": "192.168.0.0/16 2001:db8::/32 fd00::1/128", "guard": "vpn0,10.8.0.2 vpn0,fd08::2", "marks": "0xca6c", "untracked": "2000 51820"},
		changes: model.Fields{"kill_switch": "vpn1", "endpoints": "0xca6c,any", "lookups": "", "listen": "1 2", "except": "", "guard": "", "marks": "0x1 0x2", "untracked": "1"}},
	{name: "firewall without a kill switch", id: "firewall other culvert/test", fields: model.Fields{"kill_switch": "", "endpoints": "", "lookups": "",
		"listen": "", "except": "", "guard": "vpn0,10.8.0.2", "marks": "", "untracked": ""}},
	{name: "NAT elsewhere", id: "nat other culvert-test", fields: model.Fields{"masquerade": "a-long-name-15b,10.0.0.0/9"}},

	{name: "tbf", id: "qdisc a0 root", typ: "tbf", fields: model.Fields{"kind": "tbf", "handle": "6376:", "rate": "8mbit", "burst": "10k",
		"limit": "60240", "peak": "20mbit", "mtu": "1540"}, prepare: withVeth,
		changes: model.Fields{"rate": "12mbit", "burst": "100k", "limit": "1m", "mtu": "2k", "peak": "10mbit"}},
	{name: "tbf without a peak", id: "qdisc a0 root", typ: "tbf", fields: model.Fields{"kind": "tbf", "handle": "6376:", "rate": "40gbit",
		"burst": "1m", "limit": "10m"}, prepare: withVeth, changes: model.Fields{"rate": "500kbit", "burst": "20k"}},
	{name: "htb", id: "qdisc a0 root", typ: "htb", fields: model.Fields{"kind": "htb", "handle": "6376:", "default": "1"}, prepare: withVeth},
	{name: "htb class", id: "class a0 6376:1", typ: "htb", fields: model.Fields{"kind": "htb", "parent": "6376:", "rate": "8mbit", "ceil": "16mbit",
		"burst": "15k", "cburst": "20k"}, prepare: withHTB,
		changes: model.Fields{"rate": "100kbit", "ceil": "1gbit", "burst": "1500", "cburst": "30k"}, more: []model.Fields{
			{"rate": "50gbit", "ceil": "50gbit", "burst": "64k", "cburst": "64k"}}},
	{name: "leaf", id: "qdisc a0 6376:1", typ: "tbf", fields: model.Fields{"kind": "tbf", "handle": "6377:", "rate": "8mbit", "burst": "10k",
		"limit": "60240"}, prepare: withHTBClass},
	{name: "sfq", id: "qdisc a0 root", typ: "sfq", guest: true, fields: model.Fields{"kind": "sfq", "handle": "6376:", "perturb": "10s",
		"quantum": "3000", "limit": "100", "divisor": "512"}, prepare: withVeth},
	{name: "sfq leaf", id: "qdisc a0 6376:1", typ: "sfq", guest: true, fields: model.Fields{"kind": "sfq", "handle": "6377:"}, prepare: withHTBClass},
	{name: "fq_codel", id: "qdisc a0 root", typ: "fq_codel", guest: true, fields: model.Fields{"kind": "fq_codel", "handle": "6376:", "limit": "1000",
		"flows": "512", "target": "5ms", "interval": "100ms", "quantum": "3000", "ecn": "no", "memory": "16m"}, prepare: withVeth,
		changes: model.Fields{"limit": "2000", "target": "2.5ms", "interval": "50ms", "quantum": "1514", "ecn": "yes", "memory": "32m"}},
	{name: "cake", id: "qdisc a0 root", typ: "cake", guest: true, fields: model.Fields{"kind": "cake", "handle": "6376:", "bandwidth": "100mbit",
		"rtt": "50ms", "diffserv": "diffserv4", "flow_mode": "dual-srchost", "nat": "yes", "wash": "yes", "ack_filter": "ack-filter",
		"overhead": "-4", "mpu": "64", "atm": "ptm", "memory": "4m", "ingress": "yes", "split_gso": "no"}, prepare: withVeth,
		changes: model.Fields{"bandwidth": "0bit", "rtt": "100ms", "diffserv": "besteffort", "flow_mode": "triple-isolate", "nat": "no", "wash": "no",
			"ack_filter": "no-ack-filter", "overhead": "18", "mpu": "0", "atm": "noatm", "memory": "8m", "ingress": "no", "split_gso": "yes"}},
	{name: "ingress", id: "qdisc a0 ingress", typ: "ingress", fields: model.Fields{"kind": "ingress", "handle": "ffff:"}, prepare: withVeth},
	{name: "redirect", id: "filter a0 ingress 25462", fields: model.Fields{"kind": "u32", "redirect": "ifb-a", "handle": "800::800"},
		prepare: func(m *machine) {
			withVeth(m)
			m.link("ifb-a", "ifb", nil)
			m.up("ifb-a")
			m.create(model.QdiscID("a0", "ingress"), "ingress", model.Fields{"kind": "ingress"})
		}},
}

func withParent(m *machine) {
	m.t.Helper()
	m.link("eth0", "veth", model.Fields{"peer": "eth1"})
	m.up("eth0", "eth1")
}

func withVeth(m *machine) {
	m.t.Helper()
	m.link("a0", "veth", model.Fields{"peer": model.Link(m.ref("other/b0"))})
	m.up("a0", "other/b0")
}

func withAddress(m *machine) {
	m.t.Helper()
	withVeth(m)
	m.create(model.AddressID("a0", "10.1.2.3/24"), "", nil)
	m.create(model.AddressID("a0", "2001:db8::5/64"), "", model.Fields{"nodad": "yes"})
}

func withHTB(m *machine) {
	m.t.Helper()
	withVeth(m)
	m.create(model.QdiscID("a0", "root"), "htb", model.Fields{"kind": "htb", "handle": "6376:", "default": "1"})
}

func withHTBClass(m *machine) {
	m.t.Helper()
	withHTB(m)
	m.create(model.ClassID("a0", "6376:1"), "htb", model.Fields{"kind": "htb", "parent": "6376:", "rate": "8mbit", "ceil": "8mbit"})
}

// in turns the table's text into that of a machine.
func (tr trip) in(m *machine) (model.ID, model.Fields) {
	id := tr.id
	fields := maps.Clone(tr.fields)
	for _, f := range []model.Field{"peer", "parent", "master", "link", "redirect"} {
		if v, ok := fields[f]; ok {
			fields[f] = model.Link(m.ref(string(v)))
		}
	}
	words := strings.Split(id, " ")
	words[1] = string(m.ref(words[1]))
	if words[1] == "other" {
		words[1] = m.netns()
	}
	return model.ID(strings.Join(words, " ")), fields
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, tr := range trips {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			if tr.guest && !isGuest() {
				t.Skip("runs in the guest of TestOnDebianKernel")
			}
			m := newMachine(t)
			if tr.prepare != nil {
				tr.prepare(m)
			}
			tr.run(m)
		})
	}
}

func (tr trip) run(m *machine) {
	t := m.t
	t.Helper()
	id, fields := tr.in(m)
	before := m.read()
	step := plan.Step{Op: plan.Create, ID: id, Type: tr.typ, Fields: fields, Peer: tr.peer}
	if id.Kind() == model.KindLink {
		step.Alias = mark(id)
		if tr.typ == "veth" {
			step.PeerAlias = mark(model.LinkID(fields["peer"].Link()))
		}
	}
	done := m.do(step)
	o := m.want(id, fields)
	isLink := id.Kind() == model.KindLink
	if isLink && (o.Group != model.Group || o.Alias != step.Alias || o.Index != done.Index || o.Fields["up"] != "no") {
		t.Errorf("group %d alias %q index %d (told: %d) up %s", o.Group, o.Alias, o.Index, done.Index, o.Fields["up"])
	}
	if !isLink && id.Kind() != model.KindAttachment && !o.Ours && fields["kind"] != "ingress" {
		t.Errorf("%s carries no mark", id)
	}
	if tr.typ == "veth" {
		peer := m.want(model.LinkID(fields["peer"].Link()), tr.peer)
		if peer.Group != model.Group || peer.Alias != step.PeerAlias || peer.Index != done.PeerIndex || peer.Fields["peer"].Link() != id.Link() {
			t.Errorf("peer: group %d alias %q index %d (told: %d) peer %s", peer.Group, peer.Alias, peer.Index, done.PeerIndex, peer.Fields["peer"])
		}
	}
	// teamd may have been quicker with a team's port.
	if _, err := m.try(step); err == nil && (id.Kind() != model.KindAttachment || tr.typ != "team") {
		t.Errorf("%s can be created twice", id)
	}
	whole := m.read()
	each := tr.more
	for _, f := range slices.Sorted(maps.Keys(tr.changes)) {
		each = append(each, model.Fields{f: tr.changes[f]})
	}
	for _, change := range each {
		tr.change(m, id, whole, change)
	}
	m.remove(m.object(id))
	m.same("after deletion", before, m.read())
	m.remove(o) // what is gone is no error
}

// change sets fields and sets them back: nothing else may change with them.
func (tr trip) change(m *machine, id model.ID, whole *model.System, new model.Fields) {
	t := m.t
	t.Helper()
	old := whole.Objects[id].Fields
	if err := m.trySet(id, tr.typ, old, new); err != nil {
		t.Error(err)
		return
	}
	have := m.want(id, new)
	for f, v := range old {
		if _, changed := new[f]; !changed && have.Fields[f] != v && !follows(tr.typ, f, new) {
			t.Errorf("with %v %s became %q, was %q", new, f, have.Fields[f], v)
		}
	}
	back := model.Fields{}
	for f := range new {
		back[f] = old[f]
	}
	if err := m.trySet(id, tr.typ, new, back); err != nil {
		t.Error(err)
		return
	}
	m.same("after setting back "+strings.Join(fieldNames(new), ", "), whole, m.read())
}

func fieldNames(fields model.Fields) (list []string) {
	for f := range fields {
		list = append(list, string(f))
	}
	slices.Sort(list)
	return list
}

// follows names fields that the kernel changes along with others.
func follows(typ string, f model.Field, new model.Fields) bool {
	_, interval := new["miimon"]
	_, pvid := new["vlan_default_pvid"]
	return typ == "bond" && new["mode"] != "" || interval && (f == "updelay" || f == "downdelay") || pvid && f == "vlans"
}

// TestEveryFieldIsTried holds the table against the schema.
func TestEveryFieldIsTried(t *testing.T) {
	elsewhere := map[model.Field]string{"primary": "TestBondPrimary"}
	for _, info := range model.Schema {
		if info.Kind == model.KindProcess || info.Kind == model.KindHandover || info.Kind == model.KindDNS || info.Kind == model.KindSysctl || elsewhere[info.Field] != "" {
			continue
		}
		variants := []string{info.Qdisc}
		if len(info.Types) > 0 {
			variants = nil
			for _, typ := range info.Types {
				variants = append(variants, string(typ))
			}
		}
		set, changed := false, false
		for _, tr := range trips {
			if model.ID(tr.id).Kind() != info.Kind || variants[0] != "" && !slices.Contains(variants, tr.typ) {
				continue
			}
			_, ok := tr.fields[info.Field]
			_, again := tr.changes[info.Field]
			set = set || ok || again && info.Field == "up"
			changed = changed || again
		}
		if !set {
			t.Errorf("no test sets %s %v %s", info.Kind, variants, info.Field)
		}
		if !changed && info.Change != model.Recreate && info.Field != "persist" {
			t.Errorf("no test changes %s %v %s", info.Kind, variants, info.Field)
		}
	}
}
