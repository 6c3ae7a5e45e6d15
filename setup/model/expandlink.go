package model

import (
	"slices"

	"culvert/setup/spec"
)

func (x *expansion) link(l *spec.Link) {
	r := x.refs[l.Key]
	f := common(l.MTU, l.MAC, l.TxQueueLen, l.Up, l.External)
	i := Item{ID: LinkID(r), Place: l.Place, Owner: owner(l.External), Type: string(typeOf(l)), Label: string(l.Type)}
	f.text("type", i.Type)
	if l.External {
		i.Label = "external"
	}
	if l.Type == spec.TypeTunnel {
		i.Owner, i.Label = OwnerTunnel, "tunnel, "+i.Type
	}
	if t := l.Tun; (l.Type == spec.TypeTun || l.Type == spec.TypeTap) && !l.External {
		f["persist"] = Bool(true)
		f["multi_queue"] = Bool(t != nil && t.Queues > 1)
		f["vnet_hdr"] = Bool(t != nil && t.VNetHdr != nil && *t.VNetHdr)
		if t != nil {
			number(f, "owner", t.Owner)
			number(f, "group", t.Group)
		}
	}
	switch {
	case l.Bridge != nil:
		bridgeFields(f, l.Bridge)
	case l.Bond != nil:
		x.bondFields(f, l.Bond)
	case l.VLAN != nil:
		f["vid"] = Uint(l.VLAN.VID)
		f["protocol"] = "802.1q"
		f.text("protocol", l.VLAN.Protocol)
		x.onParent(&i, f, l.VLAN.Parent)
	case l.Stack != nil:
		f.text("mode", l.Stack.Mode)
		f.text("flag", l.Stack.Flag)
		if l.Stack.MACs != nil {
			words := make([]string, len(l.Stack.MACs))
			for n, m := range l.Stack.MACs {
				words[n] = m.String()
			}
			slices.Sort(words)
			f["macs"] = List(words)
		}
		x.onParent(&i, f, l.Stack.Parent)
	case l.Veth != nil:
		x.veth(&i, f, l)
		return
	}
	i.Fields = Fields(f)
	x.ifbQueue(l, i.Fields)
	x.add(i)
	if l.Team != nil {
		x.teamd(l, r)
	}
}

// ifbQueue gives an ifb room: its 32 packets are also the depth of the queue that htb gives a class without a leaf, and that of a tbf.
func (x *expansion) ifbQueue(l *spec.Link, f Fields) {
	const packets = 1000
	if l.Type == spec.TypeIfb && !l.External && l.TxQueueLen == nil {
		f["txqueuelen"] = Uint(uint32(packets))
	}
}

func (x *expansion) onParent(i *Item, f fields, parent string) {
	p := x.refs[parent]
	f["parent"] = Link(p)
	i.Needs = append(i.Needs, LinkID(p))
}

func (x *expansion) veth(i *Item, f fields, l *spec.Link) {
	p := &l.Veth.Peer
	r, peer := x.refs[l.Key], x.refs[p.Key]
	f["peer"] = Link(peer)
	i.Fields = Fields(f)
	i.Label = "veth to " + string(peer)
	if n := peer.Netns(); n != "" {
		i.Needs = append(i.Needs, NetnsID(n))
	}
	x.add(*i)
	g := common(p.MTU, p.MAC, p.TxQueueLen, p.Up, false)
	g["type"], g["peer"] = Value(spec.TypeVeth), Link(r)
	x.add(Item{ID: LinkID(peer), Place: p.Place, Type: string(spec.TypeVeth), Label: "veth to " + string(r), Fields: Fields(g),
		Needs: []ID{i.ID}})
}

func bridgeFields(f fields, b *spec.Bridge) {
	f.yes("stp", b.STP)
	number(f, "priority", b.Priority)
	f.time("forward_delay", b.ForwardDelay)
	f.time("hello_time", b.HelloTime)
	f.time("max_age", b.MaxAge)
	f.time("ageing_time", b.AgeingTime)
	f.yes("vlan_filtering", b.VLAN.Filtering)
	number(f, "vlan_default_pvid", b.VLAN.DefaultPVID)
	f.text("vlan_protocol", b.VLAN.Protocol)
	if b.VLAN.Self != nil {
		f["vlans"] = vlanList(b.VLAN.Self)
	}
	f.yes("mcast_snooping", b.Multicast.Snooping)
	f.yes("mcast_querier", b.Multicast.Querier)
}

func (x *expansion) bondFields(f fields, b *spec.Bond) {
	f.text("mode", b.Mode)
	f.time("miimon", b.MIIMon)
	f.time("updelay", b.UpDelay)
	f.time("downdelay", b.DownDelay)
	f.time("arp_interval", b.ARPInterval)
	if b.ARPTargets != nil {
		f["arp_targets"] = addrs(b.ARPTargets)
	}
	if b.NSTargets != nil {
		f["ns_targets"] = addrs(b.NSTargets)
	}
	f.text("arp_validate", b.ARPValidate)
	f.text("arp_all_targets", b.ARPAllTargets)
	number(f, "missed_max", b.MissedMax)
	f.text("lacp_rate", b.LACPRate)
	f.yes("lacp_active", b.LACPActive)
	f.text("ad_select", b.ADSelect)
	f.text("xmit_hash_policy", b.XmitHashPolicy)
	if b.Primary != "" {
		f["primary"] = Link(x.refs[b.Primary])
	}
	f.text("primary_reselect", b.PrimaryReselect)
	f.text("fail_over_mac", b.FailOverMAC)
	number(f, "min_links", b.MinLinks)
	f.yes("all_ports_active", b.AllPortsActive)
	number(f, "packets_per_port", b.PacketsPerPort)
	number(f, "resend_igmp", b.ResendIGMP)
	number(f, "num_peer_notify", b.NumPeerNotify)
}
