package spec

import (
	"net/netip"
	"slices"
	"time"
)

const (
	defaultMTU = 1500
	minMTU     = 68    // RFC 791: what every link must carry
	minIPv6MTU = 1280  // RFC 8200, section 5
	maxMTU     = 65535 // the largest a virtual device takes
	maxTapMTU  = 65521 // of a tap, whose Ethernet header counts (Linux, drivers/net/tun.c: max_mtu)

	maxQueues      = 256 // MAX_TAP_QUEUES
	maxSocketPath  = 107 // bytes; sockaddr_un without the closing zero
	maxVID         = 4094
	maxBondTargets = 16 // BOND_MAX_ARP_TARGETS, BOND_MAX_NS_TARGETS
)

// Modes, runners and choices the kernel and teamd know.
var (
	bondModes      = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}
	macvlanModes   = []string{"bridge", "vepa", "private", "passthru", "source"}
	ipvlanModes    = []string{"l2", "l3", "l3s"}
	ipvlanFlags    = []string{"bridge", "private", "vepa"}
	teamRunners    = []string{"roundrobin", "activebackup", "loadbalance", "lacp", "broadcast", "random"}
	linkWatches    = []string{"ethtool", "arp_ping", "nsna_ping"}
	hashFields     = []string{"eth", "vlan", "ipv4", "ipv6", "ip", "l3", "tcp", "udp", "sctp", "l4"}
	vlanProtocols  = []string{"802.1q", "802.1ad"}
	handoverTypes  = []Type{TypeTap, TypeMacvtap, TypeIPvtap}
	masterTypes    = []Type{TypeBridge, TypeBond, TypeTeam}
	macvlanTypes   = []Type{TypeMacvlan, TypeMacvtap}
	ipvlanTypes    = []Type{TypeIPvlan, TypeIPvtap}
	primaryModes   = []string{"active-backup", "balance-tlb", "balance-alb"}
	noARPModes     = []string{"802.3ad", "balance-tlb", "balance-alb"}
	bondPolicies   = []string{"layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"}
	arpValidations = []string{"none", "active", "backup", "all", "filter", "filter_active", "filter_backup"}
)

func (v *validator) link(l *Link) {
	v.linkType(l)
	v.linkCommon(l.Place, l.Type, l.MTU, l.MAC, l.Addresses, l.Routes)
	if l.Type == TypeVeth && l.Veth != nil {
		p := &l.Veth.Peer
		v.linkCommon(p.Place, TypeVeth, p.MTU, p.MAC, p.Addresses, p.Routes)
	}
	if l.Tun != nil {
		v.tun(l)
	}
	if l.Bridge != nil {
		v.bridge(l)
	}
	if l.Bond != nil {
		v.bond(l)
	}
	if l.Team != nil {
		v.team(l)
	}
	if h := l.Handover; h != nil {
		v.handover(l, h)
	}
	if len(l.GuestAddresses) > 0 {
		if l.Type != TypeIPvtap {
			v.add(l.Place, "guest_addresses", "only an ipvtap takes them")
		}
		v.addresses(l.GuestAddresses)
	}
}

// linkType checks the type, and that nothing is said which only another type takes.
func (v *validator) linkType(l *Link) {
	if l.Type == TypeExternal {
		if !l.External {
			v.add(l.Place, "type", "a link needs a type")
			v.hint("or external: true where it is there already")
		}
	} else if !slices.Contains(Types, l.Type) {
		v.add(l.Place, "type", "%q is no type of link", l.Type)
		return
	}
	if l.External && l.Type == TypeTunnel {
		v.add(l.Place, "external", "a tunnel's device comes with its tunnel and cannot be external")
	}
	for _, part := range []struct {
		set   bool
		field string
		types []Type
	}{
		{l.Tun != nil, "tun", []Type{TypeTun, TypeTap, TypeTunnel}},
		{l.Veth != nil, "peer", []Type{TypeVeth}},
		{l.Bridge != nil, "bridge", []Type{TypeBridge}},
		{l.Bond != nil, "bond", []Type{TypeBond}},
		{l.Team != nil, "team", []Type{TypeTeam}},
		{l.VLAN != nil, "vid", []Type{TypeVLAN}},
		{l.Stack != nil, "parent", slices.Concat(macvlanTypes, ipvlanTypes)},
	} {
		if part.set && !slices.Contains(part.types, l.Type) {
			n := &node{typ: l.Type}
			v.add(l.Place, part.field, "%s does not take this", n.article())
		}
		if part.set && l.External && part.field != "tun" {
			v.add(l.Place, part.field, "an external device is not made, so this cannot be chosen")
		}
	}
	if l.External {
		return
	}
	switch {
	case l.Type == TypeVeth && l.Veth == nil:
		v.add(l.Place, "", "a veth needs a peer")
	case l.Type == TypeVLAN && l.VLAN == nil:
		v.add(l.Place, "", "a vlan needs a parent and a vid")
	case l.Stack == nil && (slices.Contains(macvlanTypes, l.Type) || slices.Contains(ipvlanTypes, l.Type)):
		v.add(l.Place, "", "%s needs a parent", (&node{typ: l.Type}).article())
	case l.Type == TypeTeam && l.Team == nil:
		v.add(l.Place, "", "a team needs a runner")
	case l.Type == TypeTunnel && (l.Tun == nil || l.Tun.Mode != TypeTun && l.Tun.Mode != TypeTap):
		v.add(l.Place, "", "it is not known whether the tunnel's device is a tun or a tap")
	}
}

func (v *validator) linkCommon(p Place, typ Type, mtu int, mac *MAC, addresses []Address, routes []Route) {
	usesIPv6 := slices.ContainsFunc(addresses, func(a Address) bool { return a.Prefix.Addr().Is6() }) ||
		slices.ContainsFunc(routes, func(r Route) bool { return r.Prefix.Addr().Is6() })
	most := maxMTU
	if typ == TypeTap {
		most = maxTapMTU
	}
	switch {
	case mtu == 0:
	case mtu < minMTU || mtu > most:
		v.add(p, "mtu", "the MTU %d is not within %d to %d", mtu, minMTU, most)
	case mtu < minIPv6MTU && usesIPv6:
		v.add(p, "mtu", "the MTU is %d, IPv6 needs at least %d", mtu, minIPv6MTU)
	}
	if mac != nil {
		switch {
		case typ == TypeTun:
			v.add(p, "mac", "a tun has no Ethernet address")
		case slices.Contains(ipvlanTypes, typ):
			v.add(p, "mac", "an %s has the address of its parent", typ)
		case mac.IsGroup():
			v.add(p, "mac", "%s is a group address, a device cannot have it", mac)
		case *mac == MAC{}:
			v.add(p, "mac", "%s is not an address", mac)
		}
	}
	v.addresses(addresses)
	for i := range routes {
		if routes[i].Link != "" || routes[i].Netns != "" {
			v.add(routes[i].Place, "link", "a link's own route leads into that link")
		}
	}
}

func (v *validator) tun(l *Link) {
	if q := l.Tun.Queues; q < 0 || q > maxQueues {
		v.add(l.Place, "queues", "%d queues are not within 1 to %d", q, maxQueues)
	}
}

func (v *validator) handover(l *Link, h *Handover) {
	if !slices.Contains(handoverTypes, l.Type) {
		v.add(h.Place, "", "only a tap, macvtap or ipvtap can be handed over")
	}
	v.absolute(h.Place, "socket", h.Socket, maxSocketPath)
	for i := range v.spec.Links {
		o := &v.spec.Links[i]
		if o == l {
			break
		}
		if o.Handover != nil && o.Handover.Socket == h.Socket {
			v.add(h.Place, "socket", "%s hands over on this socket", o.Key)
			break
		}
	}
	if h.Mode != nil && *h.Mode > 0o777 {
		v.add(h.Place, "mode", "%#o is not a mode within 0777", *h.Mode)
	}
}

func (v *validator) between(p Place, field string, d *time.Duration, lo, hi, unit time.Duration) {
	switch {
	case d == nil:
	case *d < lo || *d > hi:
		v.add(p, field, "%v is not within %v to %v", *d, lo, hi)
	case *d%unit != 0:
		v.add(p, field, "%v is not a multiple of %v", *d, unit)
	}
}

func (v *validator) bridge(l *Link) {
	b, p := l.Bridge, l.Place
	const tick = 10 * time.Millisecond // USER_HZ, in which the kernel takes these
	v.between(p, "stp.forward_delay", b.ForwardDelay, 2*time.Second, 30*time.Second, tick)
	v.between(p, "stp.hello_time", b.HelloTime, time.Second, 10*time.Second, tick)
	v.between(p, "stp.max_age", b.MaxAge, 6*time.Second, 40*time.Second, tick)
	v.between(p, "ageing_time", b.AgeingTime, 0, 1e6*time.Second, tick)
	v.oneOf(p, "vlan.protocol", b.VLAN.Protocol, vlanProtocols...)
	if id := b.VLAN.DefaultPVID; id != nil && *id > maxVID {
		v.add(p, "vlan.default_pvid", "the VLAN %d is not within 0 to %d", *id, maxVID)
	}
	v.vlans(p, "vlan.self", b.VLAN.Self)
}

func (v *validator) vlans(p Place, field string, list []PortVLAN) {
	taken := make(map[uint16]bool)
	pvid := false
	for _, x := range list {
		last := max(x.To, x.VID)
		if x.VID < 1 || last > maxVID || x.To != 0 && x.To < x.VID {
			v.add(p, field, "the VLANs %d to %d are not within 1 to %d in order", x.VID, last, maxVID)
			return
		}
		if x.PVID && last != x.VID {
			v.add(p, field, "a range cannot be the PVID")
		}
		if x.PVID && pvid {
			v.add(p, field, "there are two PVIDs, a port has one")
		}
		pvid = pvid || x.PVID
		for id := x.VID; id <= last; id++ {
			if taken[id] {
				v.add(p, field, "the VLAN %d is there twice", id)
				return
			}
			taken[id] = true
		}
	}
}

func (v *validator) bond(l *Link) {
	b, p := l.Bond, l.Place
	if b.Mode == "" {
		v.add(p, "mode", "a bond needs a mode")
		v.hint("one of balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb")
	} else if !v.oneOf(p, "mode", b.Mode, bondModes...) {
		return
	}
	for _, t := range []struct {
		field string
		d     *time.Duration
	}{{"miimon", b.MIIMon}, {"updelay", b.UpDelay}, {"downdelay", b.DownDelay}, {"arp_interval", b.ARPInterval}} {
		v.between(p, t.field, t.d, 0, time.Hour, time.Millisecond)
	}
	mii := b.MIIMon != nil && *b.MIIMon > 0
	arp := b.ARPInterval != nil && *b.ARPInterval > 0
	if mii && arp {
		v.add(p, "arp_interval", "a bond is watched by miimon or by arp_interval, not by both")
	}
	if arp && slices.Contains(noARPModes, b.Mode) {
		v.add(p, "arp_interval", "mode %s cannot be watched by ARP", b.Mode)
		v.hint("use miimon")
	}
	targets := len(b.ARPTargets) + len(b.NSTargets)
	if arp && targets == 0 {
		v.add(p, "arp_interval", "there is nobody to ask")
		v.hint("add arp_targets or ns_targets")
	}
	if !arp && targets > 0 {
		field := "arp_targets"
		if len(b.ARPTargets) == 0 {
			field = "ns_targets"
		}
		v.add(p, field, "without arp_interval no target is asked")
	}
	v.targets(p, "arp_targets", b.ARPTargets, netip.Addr.Is4, "an IPv4 address")
	v.targets(p, "ns_targets", b.NSTargets, netip.Addr.Is6, "an IPv6 address")
	for _, t := range []struct {
		field string
		d     *time.Duration
	}{{"updelay", b.UpDelay}, {"downdelay", b.DownDelay}} {
		switch {
		case t.d == nil || *t.d == 0:
		case !mii:
			v.add(p, t.field, "it needs miimon")
		case *t.d%*b.MIIMon != 0:
			v.add(p, t.field, "%v is not a multiple of miimon, %v", *t.d, *b.MIIMon)
		}
	}
	lacp := b.Mode == "802.3ad"
	for _, only := range []struct {
		set   bool
		field string
	}{{b.LACPRate != "", "lacp_rate"}, {b.LACPActive != nil, "lacp_active"}, {b.ADSelect != "", "ad_select"}} {
		if only.set && !lacp {
			v.add(p, only.field, "only mode 802.3ad takes it")
		}
	}
	v.oneOf(p, "lacp_rate", b.LACPRate, "slow", "fast")
	v.oneOf(p, "ad_select", b.ADSelect, "stable", "bandwidth", "count")
	v.oneOf(p, "arp_validate", b.ARPValidate, arpValidations...)
	v.oneOf(p, "arp_all_targets", b.ARPAllTargets, "any", "all")
	v.oneOf(p, "xmit_hash_policy", b.XmitHashPolicy, bondPolicies...)
	v.oneOf(p, "primary_reselect", b.PrimaryReselect, "always", "better", "failure")
	v.oneOf(p, "fail_over_mac", b.FailOverMAC, "none", "active", "follow")
	if b.Primary != "" {
		if !slices.Contains(primaryModes, b.Mode) {
			v.add(p, "primary", "mode %s has no primary", b.Mode)
		}
		if !slices.ContainsFunc(l.Ports, func(x Port) bool { return x.Link == b.Primary }) {
			v.add(p, "primary", "%s is not one of its ports", b.Primary)
		}
	}
}

func (v *validator) targets(p Place, field string, list []netip.Addr, ok func(netip.Addr) bool, what string) {
	if len(list) > maxBondTargets {
		v.add(p, field, "%d targets, the kernel takes %d", len(list), maxBondTargets)
	}
	for i, a := range list {
		if !ok(a) || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			v.add(p, field, "%s is not %s of a host", a, what)
		}
		if slices.Contains(list[:i], a) {
			v.add(p, field, "%s is there twice", a)
		}
	}
}

func (v *validator) team(l *Link) {
	r := &l.Team.Runner
	if r.Name == "" {
		v.add(r.Place, "name", "a team needs a runner")
		v.hint("one of roundrobin, activebackup, loadbalance, lacp, broadcast, random")
	} else if !v.oneOf(r.Place, "name", r.Name, teamRunners...) {
		return
	}
	only := func(set bool, field string, runners ...string) {
		if set && !slices.Contains(runners, r.Name) {
			v.add(r.Place, field, "the runner %s does not take it", r.Name)
		}
	}
	only(len(r.TxHash) > 0, "tx_hash", "loadbalance", "lacp")
	only(r.TxBalancer != "", "tx_balancer", "loadbalance", "lacp")
	only(r.FastRate != nil, "fast_rate", "lacp")
	only(r.Active != nil, "active", "lacp")
	only(r.SysPrio != nil, "sys_prio", "lacp")
	only(r.MinPorts != nil, "min_ports", "lacp")
	only(r.AggSelect != "", "agg_select_policy", "lacp")
	only(r.HWAddrPolicy != "", "hwaddr_policy", "activebackup")
	for _, h := range r.TxHash {
		v.oneOf(r.Place, "tx_hash", h, hashFields...)
	}
	v.oneOf(r.Place, "tx_balancer", r.TxBalancer, "basic")
	v.oneOf(r.Place, "agg_select_policy", r.AggSelect, "lacp_prio", "lacp_prio_stable", "bandwidth", "count", "port_config")
	v.oneOf(r.Place, "hwaddr_policy", r.HWAddrPolicy, "same_all", "by_active", "only_active")
	if m := r.MinPorts; m != nil && (*m < 1 || *m > 255) {
		v.add(r.Place, "min_ports", "%d is not within 1 to 255", *m)
	}
	for i := range l.Team.LinkWatch {
		v.linkWatch(&l.Team.LinkWatch[i])
	}
}

func (v *validator) linkWatch(w *LinkWatch) {
	if w.Name == "" {
		v.add(w.Place, "name", "a link watch needs a name")
		v.hint("one of ethtool, arp_ping, nsna_ping")
		return
	}
	if !v.oneOf(w.Place, "name", w.Name, linkWatches...) {
		return
	}
	for _, t := range []struct {
		field string
		d     time.Duration
	}{{"interval", w.Interval}, {"init_wait", w.InitWait}, {"delay_up", w.DelayUp}, {"delay_down", w.DelayDown}} {
		v.between(w.Place, t.field, &t.d, 0, time.Hour, time.Millisecond)
	}
	if w.MissedMax < 0 {
		v.add(w.Place, "missed_max", "%d is negative", w.MissedMax)
	}
	switch w.Name {
	case "ethtool":
		if w.TargetHost.IsValid() || w.SourceHost.IsValid() {
			v.add(w.Place, "target_host", "ethtool asks nobody")
		}
		return
	case "arp_ping":
		if !w.TargetHost.Is4() {
			v.add(w.Place, "target_host", "arp_ping needs an IPv4 address to ask")
		}
		if w.SourceHost.IsValid() && !w.SourceHost.Is4() {
			v.add(w.Place, "source_host", "%s is not an IPv4 address", w.SourceHost)
		}
	case "nsna_ping":
		if !w.TargetHost.Is6() || w.TargetHost.Is4In6() {
			v.add(w.Place, "target_host", "nsna_ping needs an IPv6 address to ask")
		}
		if w.SourceHost.IsValid() {
			v.add(w.Place, "source_host", "nsna_ping takes none")
		}
	}
	if w.DelayUp != 0 || w.DelayDown != 0 {
		v.add(w.Place, "delay_up", "only ethtool takes delays")
	}
}
