package config

import (
	"slices"

	"culvert/setup/spec"
)

// The links of the setup layer: what all of them have, and what the simpler types have besides.

var (
	typeNames = func() (list []string) {
		for _, t := range spec.Types {
			if t != spec.TypeTunnel { // tunnels have a part of the file of their own
				list = append(list, string(t))
			}
		}
		return list
	}()
	linkTypes = choice(typeNames...)

	tunTap   = []spec.Type{spec.TypeTun, spec.TypeTap}
	macvlans = []spec.Type{spec.TypeMacvlan, spec.TypeMacvtap}
	ipvlans  = []spec.Type{spec.TypeIPvlan, spec.TypeIPvtap}
	stacked  = slices.Concat(macvlans, ipvlans)
	masters  = []spec.Type{spec.TypeBridge, spec.TypeBond, spec.TypeTeam}
	handed   = []spec.Type{spec.TypeTap, spec.TypeMacvtap, spec.TypeIPvtap}
	veths    = []spec.Type{spec.TypeVeth}
	vlans    = []spec.Type{spec.TypeVLAN}
	ipvtaps  = []spec.Type{spec.TypeIPvtap}
)

// maxLinkMTU is the largest MTU any device takes; the least is IPv4's (RFC 791).
const minLinkMTU, maxLinkMTU = 68, 65535

var netnsShape = &shape{name: "netns", where: "a namespace", keys: []key{
	{name: "external", field: "External", form: truth, absent: "`false`", doc: "it is there already and stays"},
}}

var addressShape = &shape{name: "address", where: "an address", short: "address", keys: []key{
	{name: "address", field: "Prefix", form: hostPrefix, doc: "the address, its host part included"},
	{name: "nodad", field: "NoDAD", form: truth, absent: "`false`", doc: "an IPv6 address is usable at once, without duplicate address detection"},
}}

// What a device has whatever it is, also the second end of a veth.
var (
	netnsKey = key{name: "netns", field: "Netns", form: netnsRef, absent: "the one culvert runs in", doc: "the namespace it is in"}
	mtuKey   = key{name: "mtu", field: "MTU", form: wholeBut(minLinkMTU, maxLinkMTU, ", of a tap to 65521").called("68 to 65535 bytes, 65521 of a tap"), absent: "the kernel's",
		doc: "the longest packet; not above the parent's, where there is one"}
	macKey      = key{name: "mac", field: "MAC", form: station, absent: "the kernel's choice", doc: "the device's address"}
	queueLenKey = key{name: "txqueuelen", field: "TxQueueLen", form: whole(0, 1<<31-1), absent: "the kernel's; 1000 of an ifb", doc: "packets of the transmit queue"}
	upKey       = key{name: "up", field: "Up", form: truth, absent: "`true`; of an external link: as it is", doc: "whether it is set up"}
	addressKey  = key{name: "addresses", field: "Addresses", absent: "none", doc: "its addresses, each text or a mapping",
		form: list{of: addressShape, most: MaxAddresses, example: `[10.0.0.1/24, "fd00::1/64"]`}}
	routesKey = key{name: "routes", field: "Routes", absent: "none", doc: "routes into it, each a network or a mapping",
		form: list{of: linkRouteShape, most: MaxRoutes, example: "[10.1.0.0/16, {to: default, gateway: 10.0.0.254}]"}}
)

var linkShape = &shape{name: "link", where: "a link", keys: slices.Concat([]key{
	{name: "type", field: "Type", form: linkTypes, absent: "an error, unless it is external", doc: "the kind of device"},
	{name: "external", field: "External", form: truth, absent: "`false`",
		doc: "it is there already: never created and never deleted; what is declared of it is set, and set back when it is declared no longer; needs no type"},
	{name: "name", field: "Name", form: named("name of at most 15 bytes", deviceName, maxDeviceName), absent: "the link's key",
		doc: "what the kernel calls the device, where two namespaces have devices of one name"},
	netnsKey, mtuKey, macKey, queueLenKey, upKey, addressKey, routesKey,

	{name: "queues", types: tunTap, field: "Tun.Queues", form: whole(1, 256), absent: "1",
		doc: "more than one makes it multi-queue; so many descriptors are handed over"},
	{name: "owner", types: tunTap, field: "Tun.Owner", form: account("user", "-u"), absent: "who may administer the network", doc: "who may open it besides"},
	{name: "group", types: tunTap, field: "Tun.Group", form: account("group", "-g"), absent: "none", doc: "which group may open it besides"},
	{name: "vnet_hdr", types: tunTap, field: "Tun.VNetHdr", form: truth, absent: "`false`", doc: "frames carry a virtio-net header (IFF_VNET_HDR), which lets them be large"},

	{name: "peer", types: veths, field: "Veth.Peer", form: peerShape, doc: "the other end: its name, or a mapping"},

	{name: "parent", types: vlans, field: "VLAN.Parent", form: linkRef, doc: "the link whose tagged frames it carries"},
	{name: "vid", types: vlans, field: "VLAN.VID", form: whole(1, maxVLAN), doc: "the VLAN (IEEE 802.1Q)"},
	{name: "protocol", types: vlans, field: "VLAN.Protocol", form: choice("802.1q", "802.1ad"), absent: "`802.1q`", doc: "the tag: that of customers or of providers"},

	{name: "parent", types: stacked, field: "Stack.Parent", form: linkRef, doc: "the link it is on top of"},
	{name: "mode", types: macvlans, field: "Stack.Mode", form: choice("bridge", "vepa", "private", "passthru", "source"), absent: "`vepa`",
		doc: "whether devices on one parent reach each other: directly, by way of the switch outside, or not at all; the only one on its parent; only frames from `macs`"},
	{name: "macs", types: macvlans, field: "Stack.MACs", absent: "none", doc: "of mode `source`: who may send to it",
		form: list{of: station, most: MaxSources, example: `["02:00:00:00:00:01"]`}},
	{name: "mode", types: ipvlans, field: "Stack.Mode", form: choice("l2", "l3", "l3s"), absent: "`l3`",
		doc: "where packets are handed over: as frames, as routed packets, or as routed packets that pass the host's netfilter; one for all on a parent"},
	{name: "flag", types: ipvlans, field: "Stack.Flag", form: choice("bridge", "private", "vepa"), absent: "`bridge`",
		doc: "whether devices on one parent reach each other; one for all on a parent"},
	{name: "guest_addresses", types: ipvtaps, field: "GuestAddresses", absent: "none",
		doc:  "the addresses its guest uses, put on the host's side too: the kernel delivers by them",
		form: list{of: addressShape, most: MaxAddresses, example: "[10.2.0.5/24]"}},

	{name: "handover", types: handed, external: true, field: "Handover", form: handoverShape, absent: "nobody gets it",
		doc: "the device's descriptors are given to a virtual machine's process"},

	{name: "ports", types: masters, external: true, field: "Ports", absent: "none", doc: "the links enslaved to it",
		form: table{of: portShape, field: "Link", check: linkKey, what: "link", long: maxLinkKey, most: MaxPorts, bare: true}},
}, bridgeKeys, bondKeys, teamKeys)}

// maxDeviceName is the longest name of a device in bytes: IFNAMSIZ without its final zero.
const maxDeviceName = 15

func deviceName(s string) *problem {
	if len(s) > maxDeviceName {
		return wrong("Linux takes at most 15", "the name %s is %d bytes long", quote(s), len(s))
	}
	return linkKey(s)
}

var peerShape = &shape{name: "veth peer", where: "a veth's peer", short: "name", keys: []key{
	{name: "name", field: "Key", form: linkRef.called("name of at most 15 bytes"), doc: "the device's name, by which it is referenced as a link"},
	netnsKey, mtuKey, macKey, queueLenKey, {name: "up", field: "Up", form: truth, absent: "`true`", doc: "whether it is set up"}, addressKey, routesKey,
}}

var handoverShape = &shape{name: "handover", where: "a hand-over", short: "socket", keys: []key{
	{name: "socket", field: "Socket", form: absolutePath(maxSocketPath), doc: "a unix socket on which the descriptors are given out (SCM_RIGHTS)"},
	{name: "mode", field: "Mode", form: permissions, absent: "`0600`", doc: "who may connect to the socket"},
	{name: "owner", field: "Owner", form: account("user", "-u"), absent: "who runs culvert", doc: "whose the socket is"},
	{name: "group", field: "Group", form: account("group", "-g"), absent: "that of who runs culvert", doc: "whose group the socket has"},
}}

// maxSocketPath is what fits into an address of a unix socket (unix(7), sun_path without its final zero).
const maxSocketPath = 107
