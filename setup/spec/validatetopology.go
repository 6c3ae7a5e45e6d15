package spec

import (
	"slices"
	"strings"
)

// ports checks who is enslaved to whom.
func (v *validator) ports() {
	for i := range v.spec.Links {
		l := &v.spec.Links[i]
		if len(l.Ports) == 0 {
			continue
		}
		if !slices.Contains(masterTypes, l.Type) {
			if l.Type == TypeExternal {
				v.add(l.Place, "ports", "it must be said what it is")
				v.hint("add type: bridge, bond or team")
			} else {
				v.add(l.Place, "ports", "%s has no ports", (&node{typ: l.Type}).article())
			}
			continue
		}
		for j := range l.Ports {
			v.port(l, &l.Ports[j])
		}
	}
}

func (v *validator) port(l *Link, p *Port) {
	n := v.find(p.Place, "", p.Link)
	if n == nil {
		return
	}
	if first, ok := v.master[p.Link]; ok {
		v.add(p.Place, "", "%s is a port of %s already", p.Link, first)
		return
	}
	v.master[p.Link] = l.Key
	if n.netns != l.Netns {
		v.add(p.Place, "", "%s is in %s, its master %s in %s", p.Link, inNetns(n.netns), l.Key, inNetns(l.Netns))
	}
	if n.name == "lo" {
		v.add(p.Place, "", "lo cannot be a port")
	}
	v.portKind(l, p, n)
	v.portSettings(l, p)
}

func inNetns(name string) string {
	if name == "" {
		return "culvert's own namespace"
	}
	return "namespace " + name
}

// portKind refuses what a master does not take.
func (v *validator) portKind(l *Link, p *Port, n *node) {
	if n.key == l.Key {
		return // a cycle, reported as such
	}
	switch l.Type {
	case TypeBridge:
		if !n.ethernet() {
			v.add(p.Place, "", "%s is a tun, a bridge's ports carry Ethernet frames", p.Link)
			v.hint("use a tap")
		}
		if n.typ == TypeBridge {
			v.add(p.Place, "", "%s is a bridge, which the kernel does not put in a bridge", p.Link)
			v.hint("join the two with a veth")
		}
		if slices.Contains(ipvlanTypes, n.typ) {
			v.add(p.Place, "", "%s is an %s, which the kernel does not put in a bridge", p.Link, n.typ)
		}
	case TypeBond:
		if mode := l.bondMode(); !n.ethernet() && mode != "active-backup" && mode != "" {
			v.add(p.Place, "", "%s is a tun, whose address mode %s would have to set: it has none", p.Link, mode)
			v.hint("use a tap, or mode active-backup")
		}
	case TypeTeam:
		if !n.ethernet() {
			v.add(p.Place, "", "%s is a tun, a team's ports carry Ethernet frames", p.Link)
			v.hint("use a tap")
		}
		if n.typ == TypeTeam {
			v.add(p.Place, "", "%s is a team, which the kernel does not put in a team", p.Link)
		}
	}
}

func (l *Link) bondMode() string {
	if l.Bond == nil {
		return ""
	}
	return l.Bond.Mode
}

func (v *validator) portSettings(l *Link, p *Port) {
	for _, s := range []struct {
		set   bool
		field string
		types []Type
	}{
		{p.Cost != nil, "cost", []Type{TypeBridge}},
		{p.Priority != nil, "priority", []Type{TypeBridge}},
		{p.Hairpin != nil, "hairpin", []Type{TypeBridge}},
		{p.Isolated != nil, "isolated", []Type{TypeBridge}},
		{p.Learning != nil, "learning", []Type{TypeBridge}},
		{p.Flood != nil, "flood", []Type{TypeBridge}},
		{p.Guard != nil, "guard", []Type{TypeBridge}},
		{p.RootBlock != nil, "root_block", []Type{TypeBridge}},
		{p.FastLeave != nil, "fast_leave", []Type{TypeBridge}},
		{p.VLANs != nil, "vlans", []Type{TypeBridge}},
		{p.QueueID != nil, "queue_id", []Type{TypeBond, TypeTeam}},
		{p.Prio != nil, "prio", []Type{TypeBond, TypeTeam}},
		{p.Sticky != nil, "sticky", []Type{TypeTeam}},
		{p.Key != nil, "key", []Type{TypeTeam}},
	} {
		if s.set && !slices.Contains(s.types, l.Type) {
			v.add(p.Place, s.field, "a port of a %s does not take this", l.Type)
		}
	}
	const maxCost, maxPriority = 65535, 63
	if c := p.Cost; c != nil && (*c < 1 || *c > maxCost) {
		v.add(p.Place, "cost", "the path cost %d is not within 1 to %d", *c, maxCost)
	}
	if x := p.Priority; x != nil && *x > maxPriority {
		v.add(p.Place, "priority", "the priority %d is not within 0 to %d", *x, maxPriority)
	}
	v.vlans(p.Place, "vlans", p.VLANs)
}

// parent returns the key of the device a link is on top of, "" for none.
func (l *Link) parent() string {
	switch {
	case l.VLAN != nil:
		return l.VLAN.Parent
	case l.Stack != nil:
		return l.Stack.Parent
	}
	return ""
}

// stacked is what sits on one parent.
type stacked struct {
	macvlan, ipvlan, passthru *Link
	mode                      string // of the ipvlans
	vlans                     map[vlanKey]*Link
}

type vlanKey struct {
	protocol string
	vid      uint16
}

// stacks checks devices on top of others.
func (v *validator) stacks() {
	on := make(map[string]*stacked)
	for i := range v.spec.Links {
		l := &v.spec.Links[i]
		if l.VLAN == nil && l.Stack == nil || l.Type != TypeVLAN && !slices.Contains(macvlanTypes, l.Type) && !slices.Contains(ipvlanTypes, l.Type) {
			continue
		}
		if l.VLAN != nil {
			v.oneOf(l.Place, "protocol", l.VLAN.Protocol, vlanProtocols...)
			if id := l.VLAN.VID; id < 1 || id > maxVID {
				v.add(l.Place, "vid", "the VLAN %d is not within 1 to %d", id, maxVID)
			}
		}
		if l.Stack != nil {
			v.stackModes(l)
		}
		n := v.find(l.Place, "parent", l.parent())
		if n == nil {
			continue
		}
		if n.key == l.Key {
			continue // a cycle, reported as such
		}
		if !n.ethernet() {
			v.add(l.Place, "parent", "%s is a tun, %s carries Ethernet frames", n.key, (&node{typ: l.Type}).article())
			v.hint("use a tap")
		}
		if have := n.effectiveMTU(); have != 0 && l.MTU > have {
			v.add(l.Place, "mtu", "the MTU %d is above that of its parent %s, %d", l.MTU, n.key, have)
		}
		if l.VLAN != nil && (l.Up == nil || *l.Up) && n.isDown() {
			v.add(l.Place, "up", "it cannot be up, its parent %s is to be down", n.key)
		}
		s := on[n.key]
		if s == nil {
			s = &stacked{vlans: map[vlanKey]*Link{}}
			on[n.key] = s
		}
		if l.VLAN != nil {
			v.vlanOn(l, s)
		} else {
			v.stackOn(l, n, s)
		}
	}
}

func (v *validator) stackModes(l *Link) {
	st := l.Stack
	if slices.Contains(macvlanTypes, l.Type) {
		v.oneOf(l.Place, "mode", st.Mode, macvlanModes...)
		if st.Flag != "" {
			v.add(l.Place, "flag", "only ipvlan and ipvtap take it")
		}
		if len(st.MACs) > 0 && st.Mode != "source" {
			v.add(l.Place, "macs", "only mode source takes them")
		}
	} else {
		v.oneOf(l.Place, "mode", st.Mode, ipvlanModes...)
		v.oneOf(l.Place, "flag", st.Flag, ipvlanFlags...)
		if len(st.MACs) > 0 {
			v.add(l.Place, "macs", "only macvlan and macvtap in mode source take them")
		}
	}
	for i, m := range st.MACs {
		if m.IsGroup() || m == (MAC{}) {
			v.add(l.Place, "macs", "%s is not the address of a station", m)
		}
		if slices.Contains(st.MACs[:i], m) {
			v.add(l.Place, "macs", "%s is there twice", m)
		}
	}
}

func (v *validator) vlanOn(l *Link, s *stacked) {
	key := vlanKey{l.VLAN.protocolName(), l.VLAN.VID}
	if first := s.vlans[key]; first != nil {
		v.add(l.Place, "vid", "%s takes the VLAN %d of %s already", first.Key, l.VLAN.VID, l.VLAN.Parent)
	}
	s.vlans[key] = l
}

func (x *VLAN) protocolName() string {
	if x.Protocol == "" {
		return vlanProtocols[0]
	}
	return x.Protocol
}

func (v *validator) stackOn(l *Link, n *node, s *stacked) {
	if m := v.master[n.key]; m != "" {
		v.add(l.Place, "parent", "%s is a port of %s, which takes all its frames: there is nothing left for %s", n.key, m,
			(&node{typ: l.Type}).article())
		v.hint("use %s as the parent", m)
	}
	passthru := l.Stack.Mode == "passthru"
	if slices.Contains(macvlanTypes, l.Type) {
		if s.ipvlan != nil {
			v.add(l.Place, "parent", "%s carries the %s %s: macvlan and ipvlan exclude each other", n.key, s.ipvlan.Type, s.ipvlan.Key)
		}
		switch {
		case s.passthru != nil:
			v.add(l.Place, "parent", "%s carries %s in mode passthru, which takes all of it", n.key, s.passthru.Key)
		case passthru && s.macvlan != nil:
			v.add(l.Place, "mode", "passthru takes all of %s, which carries %s already", n.key, s.macvlan.Key)
		}
		if passthru {
			s.passthru = l
		}
		s.macvlan = l
		return
	}
	mode := l.Stack.ipvlanMode()
	if s.macvlan != nil {
		v.add(l.Place, "parent", "%s carries the %s %s: macvlan and ipvlan exclude each other", n.key, s.macvlan.Type, s.macvlan.Key)
	}
	if s.ipvlan != nil && s.mode != mode {
		v.add(l.Place, "mode", "mode %s, but %s on the same parent is in mode %s: all on one parent share it", mode, s.ipvlan.Key, s.mode)
	}
	if s.ipvlan == nil {
		s.ipvlan, s.mode = l, mode
	}
}

// ipvlanMode is the mode with the kernel's default.
func (s *Stack) ipvlanMode() string {
	if s.Mode == "" {
		return "l3"
	}
	return s.Mode
}

// cycles finds links that need themselves. Each cycle is reported once.
func (v *validator) cycles() {
	below := make(map[string][]string)
	for i := range v.spec.Links {
		l := &v.spec.Links[i]
		if p := l.parent(); p != "" {
			below[l.Key] = append(below[l.Key], p)
		}
		for _, p := range l.Ports {
			below[l.Key] = append(below[l.Key], p.Link)
		}
	}
	const visiting, done = 1, 2
	state := make(map[string]int)
	var path []string
	var visit func(key string)
	visit = func(key string) {
		state[key] = visiting
		path = append(path, key)
		for _, b := range below[key] {
			switch state[b] {
			case visiting:
				cycle := append(slices.Clone(path[slices.Index(path, b):]), b)
				v.add(v.links[b].Place, "", "it is below itself: %s", strings.Join(cycle, " on "))
			case 0:
				if v.links[b] != nil {
					visit(b)
				}
			}
		}
		path = path[:len(path)-1]
		state[key] = done
	}
	for _, n := range v.order {
		if state[n.key] == 0 {
			visit(n.key)
		}
	}
}
