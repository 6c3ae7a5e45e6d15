package config

import (
	"reflect"
	"time"

	"culvert/setup/spec"
)

// Bridges (ip-link(8), IEEE 802.1D and 802.1Q) and what their ports have.

var bridges = []spec.Type{spec.TypeBridge}

// centisecond is the kernel's unit for a bridge's times.
const centisecond = 10 * time.Millisecond

var bridgeKeys = []key{
	{name: "stp", types: bridges, form: stpShape, absent: "see below", doc: "spanning tree"},
	{name: "ageing_time", types: bridges, field: "Bridge.AgeingTime", form: span(0, 1_000_000*time.Second, centisecond), absent: "`300s`",
		doc: "after which a silent address is forgotten"},
	{name: "vlan", types: bridges, field: "Bridge.VLAN", form: bridgeVLANShape, absent: "see below", doc: "VLAN filtering"},
	{name: "multicast", types: bridges, field: "Bridge.Multicast", form: bridgeMulticastShape, absent: "see below", doc: "IGMP and MLD snooping"},
}

var stpShape = &shape{name: "bridge stp", where: "a bridge's stp", keys: []key{
	{name: "enabled", field: "Bridge.STP", form: truth, absent: "`false`", doc: "the kernel's STP runs"},
	{name: "priority", field: "Bridge.Priority", form: whole(0, 65535), absent: "32768", doc: "of the bridge identifier: the least becomes the root"},
	{name: "forward_delay", field: "Bridge.ForwardDelay", form: span(2*time.Second, 30*time.Second, centisecond), absent: "`15s`",
		doc: "how long a port listens, and then learns, before it forwards"},
	{name: "hello_time", field: "Bridge.HelloTime", form: span(time.Second, 10*time.Second, centisecond), absent: "`2s`", doc: "between the root's messages"},
	{name: "max_age", field: "Bridge.MaxAge", form: span(6*time.Second, 40*time.Second, centisecond), absent: "`20s`",
		doc: "after which the root's silence changes the tree"},
}}

var bridgeVLANShape = &shape{name: "bridge vlan", where: "a bridge's vlan", keys: []key{
	{name: "filtering", field: "Filtering", form: truth, absent: "`false`", doc: "frames are forwarded within their VLAN alone"},
	{name: "default_pvid", field: "DefaultPVID", form: whole(0, maxVLAN), absent: "1", doc: "the VLAN of untagged frames on ports that say none; 0 is none"},
	{name: "protocol", field: "Protocol", form: choice("802.1q", "802.1ad"), absent: "`802.1q`", doc: "the tag that is looked at"},
	{name: "self", field: "Self", absent: "the default VLAN", doc: "VLANs of the bridge's own device, each a number, a range or a mapping",
		form: list{of: portVLANShape, most: maxVLAN, example: "[10, {vid: 20, untagged: true}]"}},
}}

var bridgeMulticastShape = &shape{name: "bridge multicast", where: "a bridge's multicast", keys: []key{
	{name: "snooping", field: "Snooping", form: truth, absent: "`true`", doc: "multicast goes only to ports that asked for it"},
	{name: "querier", field: "Querier", form: truth, absent: "`false`", doc: "the bridge asks who wants what, for want of a router that does"},
}}

// vlanIDs are one VLAN or a range of them. They fill two fields of [spec.PortVLAN].
var vlanIDs = scalar{text: "1 to 4094, or a range such as `\"100-110\"`", schema: map[string]any{"anyOf": []any{
	map[string]any{"type": "integer", "minimum": 1, "maximum": maxVLAN}, pattern(`^[1-9][0-9]{0,3}(-[1-9][0-9]{0,3})?$`)}},
	parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.numberOrText(v)
		if !ok {
			return nil, false
		}
		ids, p := parseVLANs(s)
		return ids, y.take(v.pos, p)
	},
	store: func(part reflect.Value, x any) {
		ids := x.([2]uint16)
		vlan := part.Addr().Interface().(*spec.PortVLAN)
		if vlan.VID = ids[0]; ids[1] != ids[0] {
			vlan.To = ids[1]
		}
	}}

var portVLANShape = &shape{name: "port vlan", where: "a port's VLAN", short: "vid", keys: []key{
	{name: "vid", form: vlanIDs, doc: "the VLAN, or the first and last of several"},
	{name: "pvid", field: "PVID", form: truth, absent: "`false`", doc: "untagged frames that come in belong to it"},
	{name: "untagged", field: "Untagged", form: truth, absent: "`false`", doc: "its frames leave without a tag"},
}}

// bonded are the links whose ports take turns.
var bonded = []spec.Type{spec.TypeBond, spec.TypeTeam}

var portShape = &shape{name: "port", where: "a port", keys: []key{
	{name: "cost", master: bridges, field: "Cost", form: whole(1, 65535), absent: "by the speed; 100 where it is not known", doc: "path cost of STP"},
	{name: "priority", master: bridges, field: "Priority", form: whole(0, 63), absent: "32", doc: "of the port identifier of STP"},
	{name: "hairpin", master: bridges, field: "Hairpin", form: truth, absent: "`false`", doc: "frames may leave by the port they came in by"},
	{name: "isolated", master: bridges, field: "Isolated", form: truth, absent: "`false`", doc: "no frames cross between it and other isolated ports"},
	{name: "learning", master: bridges, field: "Learning", form: truth, absent: "`true`", doc: "source addresses are learned"},
	{name: "flood", master: bridges, field: "Flood", form: truth, absent: "`true`", doc: "frames to unknown addresses leave by it"},
	{name: "guard", master: bridges, field: "Guard", form: truth, absent: "`false`", doc: "it goes down when an STP message comes in (BPDU guard)"},
	{name: "root_block", master: bridges, field: "RootBlock", form: truth, absent: "`false`", doc: "the root is not accepted behind it"},
	{name: "fast_leave", master: bridges, field: "FastLeave", form: truth, absent: "`false`", doc: "a multicast group ends with its first leave message"},
	{name: "vlans", master: bridges, field: "VLANs", absent: "the bridge's default VLAN", doc: "all VLANs it is in, each a number, a range or a mapping",
		form: list{of: portVLANShape, most: maxVLAN, example: "[10, {vid: 20, pvid: true, untagged: true}]"}},

	{name: "prio", master: bonded, field: "Prio", form: whole(-1<<31, 1<<31-1), absent: "0", doc: "the port preferred has the greatest"},
	{name: "queue_id", master: bonded, field: "QueueID", form: whole(0, 65535), absent: "0", doc: "the transmit queue whose packets leave by it"},
	{name: "sticky", master: teams, field: "Sticky", form: truth, absent: "`false`", doc: "it stays active when a better one comes back"},
	{name: "key", master: teams, field: "Key", form: whole(0, 65535), absent: "0", doc: "LACP: ports of one key can be aggregated"},
}}
