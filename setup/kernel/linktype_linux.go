package kernel

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"culvert/setup/model"
	"culvert/setup/rtnl"
	"culvert/setup/spec"
)

// linkData are the attributes in IFLA_INFO_DATA by the type of a link (linux/if_link.h). What is not of that simple form is in
// readLinkData and changeLink.
var linkData = map[string][]attribute{
	"bridge": {
		{"forward_delay", 1, duration(userTick)},
		{"hello_time", 2, duration(userTick)},
		{"max_age", 3, duration(userTick)},
		{"ageing_time", 4, duration(userTick)},
		{"stp", 5, truth(4)},
		{"priority", 6, number(2)},
		{"vlan_filtering", 7, truth(1)},
		{"vlan_protocol", 8, tagProtocol()},
		{"mcast_snooping", 23, truth(1)},
		{"mcast_querier", 25, truth(1)},
		{"vlan_default_pvid", 39, number(2)},
	},
	"bond": {
		{"mode", 1, named(1, names{"balance-rr": 0, "active-backup": 1, "balance-xor": 2, "broadcast": 3, "802.3ad": 4,
			"balance-tlb": 5, "balance-alb": 6})},
		{"miimon", 3, duration(time.Millisecond)},
		{"updelay", 4, duration(time.Millisecond)},
		{"downdelay", 5, duration(time.Millisecond)},
		{"arp_interval", 7, duration(time.Millisecond)},
		{"arp_targets", 8, addresses(false)},
		{"arp_validate", 9, named(4, names{"none": 0, "active": 1, "backup": 2, "all": 3, "filter": 4, "filter_active": 5,
			"filter_backup": 6})},
		{"arp_all_targets", 10, named(4, names{"any": 0, "all": 1})},
		{"primary_reselect", 12, named(1, names{"always": 0, "better": 1, "failure": 2})},
		{"fail_over_mac", 13, named(1, names{"none": 0, "active": 1, "follow": 2})},
		{"xmit_hash_policy", 14, named(1, names{"layer2": 0, "layer3+4": 1, "layer2+3": 2, "encap2+3": 3, "encap3+4": 4,
			"vlan+srcmac": 5})},
		{"resend_igmp", 15, number(4)},
		{"num_peer_notify", 16, number(1)},
		{"all_ports_active", 17, truth(1)},
		{"min_links", 18, number(4)},
		{"packets_per_port", 20, number(4)},
		{"lacp_rate", 21, named(1, names{"slow": 0, "fast": 1})},
		{"ad_select", 22, named(1, names{"stable": 0, "bandwidth": 1, "count": 2})},
		{"lacp_active", 29, truth(1)},
		{"missed_max", 30, number(1)},
		{"ns_targets", 31, addresses(true)},
	},
	"vlan": {
		{"vid", 1, number(2)},
		{"protocol", 5, tagProtocol()},
	},
	"macvlan": macvlanData,
	"macvtap": macvlanData,
	"ipvlan":  ipvlanData,
	"ipvtap":  ipvlanData,
}

var (
	macvlanData = []attribute{{"mode", 1, named(4, names{"private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16})}}
	ipvlanData  = []attribute{
		{"mode", 1, named(2, names{"l2": 0, "l3": 1, "l3s": 2})},
		{"flag", 2, named(2, names{"bridge": 0, "private": 1, "vepa": 2})},
	}
)

// Attributes of linux/if_link.h that are not of the simple form.
const (
	bondPrimary = 11 // IFLA_BOND_PRIMARY, an index

	bridgeVLANProtocol   = 8  // IFLA_BR_VLAN_PROTOCOL
	bridgeRootID         = 10 // IFLA_BR_ROOT_ID
	bridgeID             = 11 // IFLA_BR_BRIDGE_ID
	bridgeTopologyChange = 14 // IFLA_BR_TOPOLOGY_CHANGE

	macvlanMACMode = 3 // IFLA_MACVLAN_MACADDR_MODE
	macvlanMAC     = 4 // IFLA_MACVLAN_MACADDR
	macvlanMACData = 5 // IFLA_MACVLAN_MACADDR_DATA
	macFlush       = 2 // MACVLAN_MACADDR_FLUSH
	macSet         = 3 // MACVLAN_MACADDR_SET

	vethPeer = 1 // VETH_INFO_PEER

	tunOwner      = 1
	tunGroup      = 2
	tunType       = 3
	tunVNetHdr    = 5
	tunPersist    = 6
	tunMultiQueue = 7
)

// linkFields are the attributes of every link.
var linkFields = []attribute{
	{"mtu", unix.IFLA_MTU, number(4)},
	{"mac", unix.IFLA_ADDRESS, hardwareAddress()},
	{"txqueuelen", unix.IFLA_TXQLEN, number(4)},
}

func hardwareAddress() codec {
	return codec{
		func(v model.Value) ([]byte, error) {
			m, err := spec.ParseMAC(string(v))
			return m[:], err
		},
		func(b []byte) (model.Value, bool) {
			if len(b) != len(spec.MAC{}) {
				return "", false // a tun has none, others longer ones
			}
			return model.MAC(spec.MAC(b)), true
		},
	}
}

// portData are the attributes in IFLA_INFO_SLAVE_DATA by the type of the master.
var portData = map[string][]attribute{
	"bridge": { // IFLA_BRPORT_*
		{"priority", 2, number(2)},
		{"cost", 3, number(4)},
		{"hairpin", 4, truth(1)},
		{"guard", 5, truth(1)},
		{"root_block", 6, truth(1)},
		{"fast_leave", 7, truth(1)},
		{"learning", 8, truth(1)},
		{"flood", 9, truth(1)},
		{"isolated", 33, truth(1)},
	},
	"bond": { // IFLA_BOND_SLAVE_*
		{"queue_id", 5, number(2)},
		{"prio", 9, signed()},
	},
}

// readTun sets the fields of a tun or tap and returns its type.
func readTun(data map[uint16][]byte, fields model.Fields) string {
	kind := "tun"
	if rtnl.Uint(data[tunType]) == unix.IFF_TAP {
		kind = "tap"
	}
	for field, attribute := range map[model.Field]uint16{"vnet_hdr": tunVNetHdr, "persist": tunPersist, "multi_queue": tunMultiQueue} {
		if b, ok := data[attribute]; ok {
			fields[field] = model.Bool(rtnl.Uint(b) != 0)
		}
	}
	for field, attribute := range map[model.Field]uint16{"owner": tunOwner, "group": tunGroup} {
		if b, ok := data[attribute]; ok {
			fields[field] = model.Uint(rtnl.Uint(b))
		}
	}
	return kind
}

// readMACs returns a macvlan's list of sources.
func readMACs(data map[uint16][]byte) model.Value {
	var words []string
	for _, b := range rtnl.All(data[macvlanMACData]) {
		words = append(words, net.HardwareAddr(b).String())
	}
	slices.Sort(words)
	return model.List(words)
}

// putMACs replaces the list.
func putMACs(v model.Value, to *rtnl.Attributes) error {
	words := v.List()
	if len(words) == 0 {
		to.Uint32(macvlanMACMode, macFlush)
		return nil
	}
	var inner rtnl.Attributes
	for _, word := range words {
		m, err := spec.ParseMAC(word)
		if err != nil {
			return err
		}
		inner.Put(macvlanMAC, m[:])
	}
	to.Uint32(macvlanMACMode, macSet)
	to.Nest(macvlanMACData, func(a *rtnl.Attributes) { a.Raw(inner.Bytes()) })
	return nil
}

// kindName is IFLA_INFO_KIND of a type.
func kindName(linkType string) string {
	if linkType == "tap" {
		return "tun"
	}
	return linkType
}

// cleanName cuts a text off that a device's name cannot hold.
func cleanName(b []byte) string { return strings.TrimRight(string(bytes.TrimRight(b, "\x00")), "\x00") }
