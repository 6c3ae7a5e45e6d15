package model

import (
	"slices"

	"culvert/setup/spec"
)

// Form is what a field's text looks like.
type Form uint8

// The forms.
const (
	FormText     Form = iota
	FormBool          // yes, no
	FormUint          // decimal
	FormInt           // decimal, with a minus sign where negative
	FormDuration      // as time.Duration prints it
	FormMAC           // 02:00:00:00:00:01
	FormRate          // 8mbit
	FormSize          // bytes, 10k
	FormLink          // a Ref
	FormList          // words separated by one space, sorted unless Ordered
	FormHandle        // 6376:1
)

// Change is how a field of something that is there gets another value.
type Change uint8

const (
	InPlace  Change = iota // by one request
	WhenDown               // by one request, while the link is down
	WhenFree               // by one request, while the link is down and has no ports
	Recreate               // not at all: the thing is deleted and made anew
)

// Info describes a field.
type Info struct {
	Kind   Kind
	Types  []spec.Type // of a link, or the type of an attachment's master; nil: all
	Qdisc  string      // of a qdisc or class: its kind; "" all
	Field  Field
	Form   Form
	Change Change
	Late   bool // set by a step of its own, once all that the link needs and all of its ports are there
	Doc    string
}

var (
	tuntap  = []spec.Type{spec.TypeTun, spec.TypeTap}
	macvlan = []spec.Type{spec.TypeMacvlan, spec.TypeMacvtap}
	ipvlan  = []spec.Type{spec.TypeIPvlan, spec.TypeIPvtap}
	vlan    = []spec.Type{spec.TypeVLAN}
	bridge  = []spec.Type{spec.TypeBridge}
	bond    = []spec.Type{spec.TypeBond}
	veth    = []spec.Type{spec.TypeVeth}
)

// Schema lists every field.
var Schema = []Info{
	{KindLink, nil, "", "type", FormText, Recreate, false, "type of the link, as in spec.Type; tun and tap are told apart"},
	{KindLink, nil, "", "mtu", FormUint, InPlace, false, "bytes"},
	{KindLink, nil, "", "mac", FormMAC, InPlace, false, "address"},
	{KindLink, nil, "", "txqueuelen", FormUint, InPlace, false, "packets"},
	{KindLink, nil, "", "up", FormBool, InPlace, true, "administratively up (IFF_UP)"},
	{KindLink, nil, "", "parent", FormLink, Recreate, false, "the device this one is on top of (IFLA_LINK)"},
	{KindLink, veth, "", "peer", FormLink, Recreate, false, "the other end; creating or deleting either does both"},
	{KindLink, tuntap, "", "multi_queue", FormBool, Recreate, false, "IFF_MULTI_QUEUE"},
	{KindLink, tuntap, "", "vnet_hdr", FormBool, Recreate, false, "IFF_VNET_HDR"},
	{KindLink, tuntap, "", "persist", FormBool, InPlace, false, "outlives its descriptors"},
	{KindLink, tuntap, "", "owner", FormUint, Recreate, false, "uid that may open it"},
	{KindLink, tuntap, "", "group", FormUint, Recreate, false, "gid that may open it"},
	{KindLink, vlan, "", "vid", FormUint, Recreate, false, "VLAN identifier"},
	{KindLink, vlan, "", "protocol", FormText, Recreate, false, "802.1q or 802.1ad"},
	{KindLink, macvlan, "", "mode", FormText, InPlace, false, "bridge, vepa, private, passthru, source; passthru cannot be left or entered"},
	{KindLink, macvlan, "", "macs", FormList, InPlace, false, "sorted source addresses"},
	{KindLink, ipvlan, "", "mode", FormText, InPlace, false, "l2, l3, l3s: one for all on a parent"},
	{KindLink, ipvlan, "", "flag", FormText, InPlace, false, "bridge, private, vepa"},

	{KindLink, bridge, "", "stp", FormBool, InPlace, false, "STP by the kernel"},
	{KindLink, bridge, "", "priority", FormUint, InPlace, false, "of the bridge identifier"},
	{KindLink, bridge, "", "forward_delay", FormDuration, InPlace, false, "whole hundredths of a second"},
	{KindLink, bridge, "", "hello_time", FormDuration, InPlace, false, ""},
	{KindLink, bridge, "", "max_age", FormDuration, InPlace, false, ""},
	{KindLink, bridge, "", "ageing_time", FormDuration, InPlace, false, ""},
	{KindLink, bridge, "", "vlan_filtering", FormBool, InPlace, false, ""},
	{KindLink, bridge, "", "vlan_protocol", FormText, InPlace, false, "802.1q or 802.1ad"},
	{KindLink, bridge, "", "vlan_default_pvid", FormUint, InPlace, false, "0: none"},
	{KindLink, bridge, "", "vlans", FormList, InPlace, true, "of the bridge itself, as those of an attachment"},
	{KindLink, bridge, "", "mcast_snooping", FormBool, InPlace, false, ""},
	{KindLink, bridge, "", "mcast_querier", FormBool, InPlace, false, ""},

	{KindLink, bond, "", "mode", FormText, WhenFree, false, "balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb"},
	{KindLink, bond, "", "miimon", FormDuration, InPlace, false, "milliseconds"},
	{KindLink, bond, "", "updelay", FormDuration, InPlace, false, "needs miimon"},
	{KindLink, bond, "", "downdelay", FormDuration, InPlace, false, "needs miimon"},
	{KindLink, bond, "", "arp_interval", FormDuration, InPlace, false, ""},
	{KindLink, bond, "", "arp_targets", FormList, InPlace, false, "IPv4, sorted"},
	{KindLink, bond, "", "ns_targets", FormList, InPlace, false, "IPv6, sorted"},
	{KindLink, bond, "", "arp_validate", FormText, InPlace, false, ""},
	{KindLink, bond, "", "arp_all_targets", FormText, InPlace, false, ""},
	{KindLink, bond, "", "missed_max", FormUint, InPlace, false, ""},
	{KindLink, bond, "", "lacp_rate", FormText, WhenDown, false, "slow, fast"},
	{KindLink, bond, "", "lacp_active", FormBool, WhenDown, false, ""},
	{KindLink, bond, "", "ad_select", FormText, WhenDown, false, "stable, bandwidth, count"},
	{KindLink, bond, "", "xmit_hash_policy", FormText, InPlace, false, ""},
	{KindLink, bond, "", "primary", FormLink, InPlace, true, "a port; set once it is attached"},
	{KindLink, bond, "", "primary_reselect", FormText, InPlace, false, ""},
	{KindLink, bond, "", "fail_over_mac", FormText, WhenFree, false, ""},
	{KindLink, bond, "", "min_links", FormUint, InPlace, false, ""},
	{KindLink, bond, "", "all_ports_active", FormBool, InPlace, false, ""},
	{KindLink, bond, "", "packets_per_port", FormUint, InPlace, false, ""},
	{KindLink, bond, "", "resend_igmp", FormUint, InPlace, false, ""},
	{KindLink, bond, "", "num_peer_notify", FormUint, InPlace, false, ""},

	{KindAttachment, nil, "", "master", FormLink, Recreate, false, "the link it is a port of"},
	{KindAttachment, bridge, "", "cost", FormUint, InPlace, false, "path cost"},
	{KindAttachment, bridge, "", "priority", FormUint, InPlace, false, ""},
	{KindAttachment, bridge, "", "hairpin", FormBool, InPlace, false, ""},
	{KindAttachment, bridge, "", "isolated", FormBool, InPlace, false, ""},
	{KindAttachment, bridge, "", "learning", FormBool, InPlace, false, ""},
	{KindAttachment, bridge, "", "flood", FormBool, InPlace, false, ""},
	{KindAttachment, bridge, "", "guard", FormBool, InPlace, false, ""},
	{KindAttachment, bridge, "", "root_block", FormBool, InPlace, false, ""},
	{KindAttachment, bridge, "", "fast_leave", FormBool, InPlace, false, ""},
	{KindAttachment, bridge, "", "vlans", FormList, InPlace, false, "VID[-VID][,pvid][,untagged], by VID; ranges of equal ones are joined"},
	{KindAttachment, bond, "", "queue_id", FormUint, InPlace, false, ""},
	{KindAttachment, bond, "", "prio", FormInt, InPlace, false, ""},

	{KindAddress, nil, "", "nodad", FormBool, Recreate, false, "IPv6: IFA_F_NODAD"},

	{KindRoute, nil, "", "type", FormText, Recreate, false, "unicast, blackhole, unreachable, prohibit"},
	{KindRoute, nil, "", "link", FormLink, Recreate, false, "output device"},
	{KindRoute, nil, "", "gateway", FormText, Recreate, false, "address"},
	{KindRoute, nil, "", "source", FormText, Recreate, false, "preferred source address"},
	{KindRoute, nil, "", "mtu", FormUint, Recreate, false, "bytes"},
	{KindRoute, nil, "", "onlink", FormBool, Recreate, false, ""},

	{KindRule, nil, "", "not", FormBool, Recreate, false, ""},
	{KindRule, nil, "", "from", FormText, Recreate, false, "prefix"},
	{KindRule, nil, "", "to", FormText, Recreate, false, "prefix"},
	{KindRule, nil, "", "iif", FormText, Recreate, false, "device name"},
	{KindRule, nil, "", "oif", FormText, Recreate, false, "device name"},
	{KindRule, nil, "", "mark", FormText, Recreate, false, "0xMARK/0xMASK"},
	{KindRule, nil, "", "table", FormUint, Recreate, false, ""},
	{KindRule, nil, "", "suppress_prefixlength", FormUint, Recreate, false, ""},
	{KindRule, nil, "", "action", FormText, Recreate, false, "lookup, blackhole, unreachable, prohibit"},

	{KindNAT, nil, "", "masquerade", FormList, InPlace, false, "OUT,SOURCE or !EXCEPT,SOURCE for each, sorted: what leaves by OUT, or by any device but EXCEPT and then from ports picked at random; SOURCE 0.0.0.0/0 or ::/0 for all of a family"},

	{KindQdisc, nil, "", "kind", FormText, Recreate, false, "ingress, sfq, htb, tbf, fq_codel, cake"},
	{KindQdisc, nil, "", "handle", FormHandle, Recreate, false, ""},
	{KindQdisc, nil, "htb", "default", FormUint, Recreate, false, "minor of the class for all that no filter takes"},
	{KindQdisc, nil, "sfq", "perturb", FormDuration, Recreate, false, "whole seconds"},
	{KindQdisc, nil, "sfq", "quantum", FormSize, Recreate, false, ""},
	{KindQdisc, nil, "sfq", "limit", FormUint, Recreate, false, "packets"},
	{KindQdisc, nil, "sfq", "divisor", FormUint, Recreate, false, ""},
	{KindQdisc, nil, "tbf", "rate", FormRate, InPlace, false, ""},
	{KindQdisc, nil, "tbf", "burst", FormSize, InPlace, false, ""},
	{KindQdisc, nil, "tbf", "limit", FormSize, InPlace, false, "bytes; a latency is turned into it"},
	{KindQdisc, nil, "tbf", "peak", FormRate, InPlace, false, ""},
	{KindQdisc, nil, "tbf", "mtu", FormSize, InPlace, false, "of the peak bucket"},
	{KindQdisc, nil, "fq_codel", "limit", FormUint, InPlace, false, ""},
	{KindQdisc, nil, "fq_codel", "flows", FormUint, Recreate, false, ""},
	{KindQdisc, nil, "fq_codel", "target", FormDuration, InPlace, false, ""},
	{KindQdisc, nil, "fq_codel", "interval", FormDuration, InPlace, false, ""},
	{KindQdisc, nil, "fq_codel", "quantum", FormSize, InPlace, false, ""},
	{KindQdisc, nil, "fq_codel", "ecn", FormBool, InPlace, false, ""},
	{KindQdisc, nil, "fq_codel", "memory", FormSize, InPlace, false, ""},
	{KindQdisc, nil, "cake", "bandwidth", FormRate, InPlace, false, "0bit: unlimited"},
	{KindQdisc, nil, "cake", "rtt", FormDuration, InPlace, false, ""},
	{KindQdisc, nil, "cake", "diffserv", FormText, InPlace, false, ""},
	{KindQdisc, nil, "cake", "flow_mode", FormText, InPlace, false, ""},
	{KindQdisc, nil, "cake", "nat", FormBool, InPlace, false, ""},
	{KindQdisc, nil, "cake", "wash", FormBool, InPlace, false, ""},
	{KindQdisc, nil, "cake", "ack_filter", FormText, InPlace, false, ""},
	{KindQdisc, nil, "cake", "overhead", FormInt, InPlace, false, ""},
	{KindQdisc, nil, "cake", "mpu", FormUint, InPlace, false, ""},
	{KindQdisc, nil, "cake", "atm", FormText, InPlace, false, ""},
	{KindQdisc, nil, "cake", "memory", FormSize, InPlace, false, ""},
	{KindQdisc, nil, "cake", "ingress", FormBool, InPlace, false, ""},
	{KindQdisc, nil, "cake", "split_gso", FormBool, InPlace, false, ""},

	{KindClass, nil, "", "kind", FormText, Recreate, false, "htb"},
	{KindClass, nil, "", "parent", FormHandle, Recreate, false, "qdisc"},
	{KindClass, nil, "", "rate", FormRate, InPlace, false, ""},
	{KindClass, nil, "", "ceil", FormRate, InPlace, false, ""},
	{KindClass, nil, "", "burst", FormSize, InPlace, false, ""},
	{KindClass, nil, "", "cburst", FormSize, InPlace, false, ""},

	{KindFilter, nil, "", "kind", FormText, Recreate, false, "u32 that matches everything"},
	{KindFilter, nil, "", "redirect", FormLink, Recreate, false, "device whose egress takes the frame (mirred)"},
	{KindFilter, nil, "", "handle", FormText, Recreate, false, "fixed handle of the classifier, 800::800"},

	{KindProcess, nil, "", "program", FormText, Recreate, false, "teamd, dnsmasq"},
	{KindProcess, nil, "", "netns", FormText, Recreate, false, ""},
	{KindProcess, nil, "", "args", FormText, Recreate, false, "JSON list"},
	{KindProcess, nil, "", "config", FormText, Recreate, false, "text of the configuration file, which is the argument @config"},
	{KindProcess, nil, "", "link", FormLink, Recreate, false, "device it works on"},

	{KindHandover, nil, "", "socket", FormText, Recreate, false, "path"},
	{KindHandover, nil, "", "mode", FormText, Recreate, false, "octal"},
	{KindHandover, nil, "", "owner", FormUint, Recreate, false, ""},
	{KindHandover, nil, "", "group", FormUint, Recreate, false, ""},
	{KindHandover, nil, "", "queues", FormUint, Recreate, false, "descriptors given out"},

	{KindFirewall, nil, "", "kill_switch", FormList, InPlace, false, "devices that packets may leave and come by; none: all may"},
	{KindFirewall, nil, "", "endpoints", FormList, InPlace, false, "MARK,ADDRESS,PORT or MARK,any: where the tunnels' own datagrams may go"},
	{KindFirewall, nil, "", "lookups", FormList, InPlace, false, "marks with which names may be asked for"},
	{KindFirewall, nil, "", "listen", FormList, InPlace, false, "UDP ports at which peers may call"},
	{KindFirewall, nil, "", "except", FormList, InPlace, false, "networks that the kill switch leaves alone"},
	{KindFirewall, nil, "", "guard", FormList, InPlace, false, "DEVICE,ADDRESS: nobody but the device delivers to the address"},
	{KindFirewall, nil, "", "untracked", FormList, InPlace, false, "UDP ports of this machine that are kept out of connection tracking"},
	{KindFirewall, nil, "", "marks", FormList, InPlace, false, "marks that the answers to marked packets are given, too"},

	{KindSysctl, nil, "", "value", FormText, InPlace, false, ""},

	{KindDNS, nil, "", "servers", FormList, InPlace, false, "addresses, in order"},
	{KindDNS, nil, "", "domains", FormList, InPlace, false, "sorted; with a ~ in front they do not complete names; ~. is all"},
	{KindDNS, nil, "", "resolver", FormText, Recreate, false, "resolved, resolvconf, file"},
}

// index finds the entries of a field.
var index = func() map[Kind]map[Field][]*Info {
	m := make(map[Kind]map[Field][]*Info)
	for i := range Schema {
		e := &Schema[i]
		if m[e.Kind] == nil {
			m[e.Kind] = make(map[Field][]*Info)
		}
		m[e.Kind][e.Field] = append(m[e.Kind][e.Field], e)
	}
	return m
}()

// Describe returns the description of a field of a thing; variant is the type of a link, that of an attachment's master, or the kind
// of a qdisc. Nil where there is no such field.
func Describe(kind Kind, variant string, f Field) *Info {
	for _, e := range index[kind][f] {
		if (e.Types == nil || slices.Contains(e.Types, spec.Type(variant))) && (e.Qdisc == "" || e.Qdisc == variant) {
			return e
		}
	}
	return nil
}
