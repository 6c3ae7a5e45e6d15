package model

import (
	"fmt"
	"slices"
	"strconv"

	"culvert/setup/spec"
)

// vlanList is the canonical text of a port's VLANs: by VID, and joined to ranges where they are alike and none is the PVID.
func vlanList(list []spec.PortVLAN) Value {
	type one struct {
		vid            uint16
		pvid, untagged bool
	}
	var all []one
	for _, v := range list {
		for id := v.VID; id <= max(v.To, v.VID); id++ {
			all = append(all, one{id, v.PVID, v.Untagged})
		}
	}
	slices.SortFunc(all, func(a, b one) int { return int(a.vid) - int(b.vid) })
	var words []string
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && !all[i].pvid && !all[j].pvid && all[j].vid == all[j-1].vid+1 && all[j].untagged == all[i].untagged {
			j++
		}
		w := strconv.Itoa(int(all[i].vid))
		if j > i+1 {
			w += "-" + strconv.Itoa(int(all[j-1].vid))
		}
		if all[i].pvid {
			w += ",pvid"
		}
		if all[i].untagged {
			w += ",untagged"
		}
		words = append(words, w)
		i = j
	}
	return List(words)
}

// VLANs is the canonical text of a list of VLANs, for the reader of the kernel's.
func VLANs(list []spec.PortVLAN) Value { return vlanList(list) }

// attached adds what hangs on a link: its ports, addresses, hand-over.
func (x *expansion) attached(l *spec.Link) {
	r := x.refs[l.Key]
	for n := range l.Ports {
		x.port(l, r, &l.Ports[n])
	}
	x.addressItems(r, l.Addresses)
	x.addressItems(r, l.GuestAddresses)
	if l.Veth != nil {
		x.addressItems(x.refs[l.Veth.Peer.Key], l.Veth.Peer.Addresses)
	}
	if h := l.Handover; h != nil {
		f := fields{"socket": Text(h.Socket), "mode": "0600", "queues": "1"}
		if h.Mode != nil {
			f["mode"] = Value(fmt.Sprintf("%#o", *h.Mode))
		}
		if l.Tun != nil && l.Tun.Queues > 1 {
			f["queues"] = Int(l.Tun.Queues)
		}
		number(f, "owner", h.Owner)
		number(f, "group", h.Group)
		x.add(Item{ID: HandoverID(r), Place: h.Place, Fields: Fields(f), Needs: []ID{LinkID(r)}})
	}
}

func (x *expansion) port(l *spec.Link, master Ref, p *spec.Port) {
	port := x.refs[p.Link]
	f := fields{"master": Link(master)}
	i := Item{ID: AttachmentID(port), Place: p.Place, Type: string(l.Type), Label: "to " + string(master), Needs: []ID{LinkID(port), LinkID(master)}}
	switch l.Type {
	case spec.TypeBridge:
		number(f, "cost", p.Cost)
		number(f, "priority", p.Priority)
		f.yes("hairpin", p.Hairpin)
		f.yes("isolated", p.Isolated)
		f.yes("learning", p.Learning)
		f.yes("flood", p.Flood)
		f.yes("guard", p.Guard)
		f.yes("root_block", p.RootBlock)
		f.yes("fast_leave", p.FastLeave)
		if p.VLANs != nil {
			f["vlans"] = vlanList(p.VLANs)
		}
	case spec.TypeBond:
		number(f, "queue_id", p.QueueID)
		if p.Prio != nil {
			f["prio"] = Int(*p.Prio)
		}
	case spec.TypeTeam:
		i.Needs = append(i.Needs, ProcessID(teamdName(master)))
	}
	i.Fields = Fields(f)
	x.add(i)
}

func (x *expansion) addressItems(r Ref, list []spec.Address) {
	for n := range list {
		a := &list[n]
		id := AddressID(r, a.Prefix.String())
		f := Fields{}
		if a.Prefix.Addr().Is6() && a.NoDAD {
			f["nodad"] = Bool(true)
		}
		x.add(Item{ID: id, Place: a.Place, Fields: f, Needs: []ID{LinkID(r)}})
		x.addresses[r] = append(x.addresses[r], id)
	}
}
