package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"culvert/setup/model"
	"culvert/setup/rtnl"
)

// link is a device as the kernel shows it.
type link struct {
	index  int
	name   string
	flags  uint32
	group  uint32
	alias  string
	master int
	// parent is IFLA_LINK, in the namespace parentNetns if that is not negative (an id of the namespace the link is in), 0 for none.
	parent      int
	parentNetns int32
	kind        string // spec.Type, or IFLA_INFO_KIND where that is no such type
	portKind    string // IFLA_INFO_SLAVE_KIND
	fields      model.Fields
	unread      []model.Field // of fields
	port        model.Fields
	primary     int // of a bond
}

// The length of struct ifinfomsg, and what a listing leaves out.
const (
	infoLength = 16
	skipStats  = 8 // RTEXT_FILTER_SKIP_STATS
	vlanRanges = 4 // RTEXT_FILTER_BRVLAN_COMPRESSED
)

// linkHead returns the head of a message about a link (struct ifinfomsg); the bits of mask in its flags are to be changed.
func linkHead(family uint8, index int, flags, mask uint32) *rtnl.Attributes {
	b := make([]byte, infoLength)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], mask)
	a := &rtnl.Attributes{}
	a.Raw(b)
	return a
}

// parseLink reads a message about a link; nil where it is cut off.
func parseLink(b []byte) *link {
	if len(b) < infoLength {
		return nil
	}
	l := &link{index: int(int32(binary.NativeEndian.Uint32(b[4:]))), flags: binary.NativeEndian.Uint32(b[8:]), parentNetns: -1,
		fields: make(model.Fields, 12)}
	var attributes [unix.IFLA_EXT_MASK + 32][]byte
	for kind, value := range rtnl.All(b[infoLength:]) {
		if int(kind) < len(attributes) {
			attributes[kind] = value
		}
	}
	l.name = cleanName(attributes[unix.IFLA_IFNAME])
	l.group = uint32(rtnl.Uint(attributes[unix.IFLA_GROUP]))
	l.alias = rtnl.Text(attributes[unix.IFLA_IFALIAS])
	l.master = int(rtnl.Uint(attributes[unix.IFLA_MASTER]))
	l.parent = int(rtnl.Uint(attributes[unix.IFLA_LINK]))
	if id := attributes[unix.IFLA_LINK_NETNSID]; id != nil {
		l.parentNetns = int32(rtnl.Uint(id))
	}
	for _, a := range linkFields {
		if v, ok := a.codec.decode(attributes[a.kind]); ok && attributes[a.kind] != nil {
			l.fields[a.field] = v
		}
	}
	l.fields["up"] = model.Bool(l.flags&unix.IFF_UP != 0)
	l.parseInfo(attributes[unix.IFLA_LINKINFO])
	if l.kind != "" {
		l.fields["type"] = model.Text(l.kind)
	}
	return l
}

// parseInfo reads IFLA_LINKINFO.
func (l *link) parseInfo(b []byte) {
	var kind, portKind string
	var data, portData_ []byte
	for attribute, value := range rtnl.All(b) {
		switch attribute {
		case unix.IFLA_INFO_KIND:
			kind = rtnl.Text(value)
		case unix.IFLA_INFO_DATA:
			data = value
		case unix.IFLA_INFO_SLAVE_KIND:
			portKind = rtnl.Text(value)
		case unix.IFLA_INFO_SLAVE_DATA:
			portData_ = value
		}
	}
	l.kind, l.portKind = kind, portKind
	if table := linkData[kind]; table != nil || kind == "tun" {
		attributes := rtnl.Parse(data)
		decodeFields(table, attributes, l.fields)
		switch kind {
		case "bridge":
			if attributes[bridgeVLANProtocol] == nil {
				delete(l.fields, "vlan_filtering") // a kernel without shows it all the same, and cannot set it to anything
			}
			l.leaveOutBorrowed(attributes)
		case "tun":
			l.kind = readTun(attributes, l.fields)
		case "macvlan", "macvtap":
			if l.fields["mode"] == "source" {
				l.fields["macs"] = readMACs(attributes)
			}
		case "bond":
			l.primary = int(rtnl.Uint(attributes[bondPrimary]))
			for _, f := range []model.Field{"arp_targets", "ns_targets"} {
				if _, ok := l.fields[f]; !ok {
					l.fields[f] = "" // the kernel says nothing of a list without entries
				}
			}
			leaveOutUnused(l.fields)
		}
	}
	if portKind != "" {
		l.port = make(model.Fields, 10)
		decodeFields(portData[portKind], rtnl.Parse(portData_), l.port)
	}
}

// bondModes are the modes of bonds in which fields can be set (Linux's drivers/net/bonding/bond_options.c). The kernel shows them in all
// modes, and refuses a bond that is made with one its mode has no use for.
var bondModes = map[model.Field][]model.Value{
	"lacp_rate":        {"802.3ad"},
	"lacp_active":      {"802.3ad"},
	"packets_per_port": {"balance-rr"},
	"arp_interval":     {"balance-rr", "active-backup", "balance-xor", "broadcast"},
	"arp_validate":     {"balance-rr", "active-backup", "balance-xor", "broadcast"},
	"missed_max":       {"balance-rr", "active-backup", "balance-xor", "broadcast"},
}

// leaveOutUnused takes out of a bond's fields what its mode has no use for, so that a bond is made again from what was read of it.
func leaveOutUnused(fields model.Fields) {
	for f, modes := range bondModes {
		if !slices.Contains(modes, fields["mode"]) {
			delete(fields, f)
		}
	}
}

// leaveOutBorrowed takes out of a bridge's fields what is not its own: with spanning tree, timers are those of the root (IEEE
// 802.1D-1998 §8.5.3), and while the topology changes, addresses age quickly (§8.3.5). The kernel shows what is in use and not what
// was set.
func (l *link) leaveOutBorrowed(attributes map[uint16][]byte) {
	if l.fields["stp"] != "yes" {
		return
	}
	if !bytes.Equal(attributes[bridgeRootID], attributes[bridgeID]) {
		for _, f := range []model.Field{"forward_delay", "hello_time", "max_age"} {
			l.hide(f)
		}
	}
	if rtnl.Uint(attributes[bridgeTopologyChange]) != 0 {
		l.hide("ageing_time")
	}
}

// hide takes a field out that the device has, and whose value cannot be told.
func (l *link) hide(f model.Field) {
	delete(l.fields, f)
	l.unread = append(l.unread, f)
}

// linkByName and linkByIndex look one link up; nil where there is none.
func (n *namespace) linkByName(name string) (*link, error) {
	a := linkHead(unix.AF_UNSPEC, 0, 0, 0)
	a.String(unix.IFLA_IFNAME, name)
	return n.getLink(a)
}

func (n *namespace) linkByIndex(index int) (*link, error) {
	return n.getLink(linkHead(unix.AF_UNSPEC, index, 0, 0))
}

func (n *namespace) getLink(a *rtnl.Attributes) (*link, error) {
	a.Uint32(unix.IFLA_EXT_MASK, skipStats)
	b, err := n.conn.Get(unix.RTM_GETLINK, a.Bytes())
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseLink(b), nil
}

// links lists every link of the namespace.
func (n *namespace) links() ([]*link, error) {
	a := linkHead(unix.AF_UNSPEC, 0, 0, 0)
	a.Uint32(unix.IFLA_EXT_MASK, skipStats)
	messages, err := n.conn.Dump(unix.RTM_GETLINK, a.Bytes())
	if err != nil {
		return nil, err
	}
	list := make([]*link, 0, len(messages))
	for _, m := range messages {
		if l := parseLink(m); l != nil {
			list = append(list, l)
		}
	}
	return list, nil
}

// Attributes of linux/net_namespace.h and the messages about ids of namespaces.
const (
	netnsaNSID = 1
	netnsaFD   = 3
)

// id returns the id that another namespace has in n; negative where it has none.
func (n *namespace) id(other *namespace) int32 {
	a := &rtnl.Attributes{}
	a.Raw(make([]byte, 4)) // struct rtgenmsg
	a.Uint32(netnsaFD, uint32(other.file))
	b, err := n.conn.Get(unix.RTM_GETNSID, a.Bytes())
	if err != nil || len(b) < 4 {
		return -1
	}
	id, ok := rtnl.Parse(b[4:])[netnsaNSID]
	if !ok {
		return -1
	}
	return int32(rtnl.Uint(id))
}
