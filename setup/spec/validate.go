package spec

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Validate returns what cannot work, all of it in the file's order; nil where nothing is found. It sees the declaration alone:
// what the machine has already is the plan's business.
func (s *Spec) Validate() Errors {
	v := &validator{spec: s, netns: map[string]*Netns{}, links: map[string]*node{}, devices: map[device]*node{}, master: map[string]string{}}
	if err := CheckInstance(s.Instance); err != nil {
		v.add(Place{}, "", "instance %q: %v", s.Instance, err)
	}
	v.collectNetns()
	v.collectLinks()
	for i := range s.Links {
		v.link(&s.Links[i])
	}
	v.ports()
	v.stacks()
	v.cycles()
	v.shaping()
	v.xconnects()
	v.services()
	v.routing()
	v.clients()
	v.serves()
	return v.errs.sorted()
}

// node is what a key stands for: a link, or the peer of one.
type node struct {
	Place
	key, name, netns string
	typ              Type
	link             *Link // nil for a peer
	mtu              int   // 0: not declared
	up               *bool
	external         bool
}

// ethernet reports whether the device carries Ethernet frames; an external one of unknown type may.
func (n *node) ethernet() bool {
	return n.typ != TypeTun && (n.typ != TypeTunnel || n.link.Tun == nil || n.link.Tun.Mode != TypeTun)
}

// isDown reports whether it is said that the device is to be down.
func (n *node) isDown() bool { return n.up != nil && !*n.up }

// effectiveMTU is the declared MTU, or that a device of the type gets from the kernel; 0 where only the machine can tell.
func (n *node) effectiveMTU() int {
	switch {
	case n.mtu != 0:
		return n.mtu
	case n.external:
		return 0
	}
	switch n.typ {
	case TypeTap, TypeTun, TypeVeth, TypeIfb:
		return defaultMTU
	}
	return 0 // from its parent or its ports
}

func (n *node) article() string {
	switch {
	case n.typ == TypeExternal:
		return "an external device"
	case n.typ == TypeIPvlan || n.typ == TypeIPvtap || n.typ == TypeIfb:
		return "an " + string(n.typ)
	}
	return "a " + string(n.typ)
}

// device is a device's name in its namespace.
type device struct{ netns, name string }

type validator struct {
	spec    *Spec
	errs    Errors
	netns   map[string]*Netns
	links   map[string]*node
	devices map[device]*node
	order   []*node
	master  map[string]string // key of a port -> key of its master
}

func (v *validator) add(p Place, field, format string, args ...any) {
	v.errs = append(v.errs, &Error{Origin: p.At(field), Path: p.Key(field), Message: fmt.Sprintf(format, args...)})
}

// hint gives the last error a hint.
func (v *validator) hint(format string, args ...any) {
	v.errs[len(v.errs)-1].Hint = fmt.Sprintf(format, args...)
}

func (v *validator) oneOf(p Place, field, value string, allowed ...string) bool {
	if value == "" || slices.Contains(allowed, value) {
		return true
	}
	v.add(p, field, "%q is none of %s", value, strings.Join(allowed, ", "))
	return false
}

func (v *validator) absolute(p Place, field, path string, most int) {
	switch {
	case !filepath.IsAbs(path):
		v.add(p, field, "%q is not an absolute path", path)
	case len(path) > most:
		v.add(p, field, "the path has %d bytes, at most %d can be used", len(path), most)
	case strings.ContainsAny(path, "\x00\n"):
		v.add(p, field, "the path contains a newline or a zero byte")
	}
}

func (v *validator) collectNetns() {
	for i := range v.spec.Netns {
		n := &v.spec.Netns[i]
		if err := CheckNetnsName(n.Name); err != nil {
			v.add(n.Place, "", "%q: %v", n.Name, err)
		}
		if first, ok := v.netns[n.Name]; ok {
			v.add(n.Place, "", "the namespace %s is declared already", n.Name)
			v.hint("at %s", first.Origin)
			continue
		}
		v.netns[n.Name] = n
	}
}

func (v *validator) knownNetns(p Place, field, name string) bool {
	if name == "" || v.netns[name] != nil {
		return true
	}
	v.add(p, field, "the namespace %s is not declared", name)
	v.hint("add it under netns, with external: true where it is there already")
	return false
}

func (v *validator) collectLinks() {
	for i := range v.spec.Links {
		l := &v.spec.Links[i]
		v.collect(&node{Place: l.Place, key: l.Key, name: l.DeviceName(), netns: l.Netns, typ: l.Type, link: l, mtu: l.MTU, up: l.Up,
			external: l.External}, "name", "netns")
		if l.Type == TypeVeth && l.Veth != nil {
			p := &l.Veth.Peer
			v.collect(&node{Place: p.Place, key: p.Key, name: p.Key, netns: p.Netns, typ: TypeVeth, mtu: p.MTU, up: p.Up}, "name", "netns")
		}
	}
}

func (v *validator) collect(n *node, nameField, netnsField string) {
	if err := CheckLinkName(n.name); err != nil {
		v.add(n.Place, nameField, "%q: %v", n.name, err)
	} else if n.name == "lo" && !n.external {
		v.add(n.Place, nameField, "lo is in every namespace")
		v.hint("say external: true to give it addresses")
	}
	v.knownNetns(n.Place, netnsField, n.netns)
	if first, ok := v.links[n.key]; ok {
		v.add(n.Place, nameField, "the link %s is declared already", n.key)
		v.hint("at %s", first.Origin)
		return
	}
	v.links[n.key] = n
	v.order = append(v.order, n)
	at := device{n.netns, n.name}
	if first, ok := v.devices[at]; ok {
		v.add(n.Place, nameField, "two devices called %s in one namespace", n.name)
		v.hint("the other is at %s", first.Origin)
		return
	}
	v.devices[at] = n
}

// find returns what a key stands for; nil, with an error added, where it stands for nothing.
func (v *validator) find(p Place, field, key string) *node {
	if n := v.links[key]; n != nil {
		return n
	}
	if key == "" {
		v.add(p, field, "a link must be named")
		return nil
	}
	v.add(p, field, "%s is neither declared nor external", key)
	v.hint("add it under links, with external: true where it is there already")
	return nil
}

func (v *validator) addresses(list []Address) {
	seen := make(map[netip.Prefix]bool)
	for i := range list {
		a := &list[i]
		switch ip := a.Prefix.Addr(); {
		case !a.Prefix.IsValid():
			v.add(a.Place, "", "not a valid address with prefix length")
		case ip.Is4In6() || ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "":
			v.add(a.Place, "", "%s: an interface cannot have this address", a.Prefix)
		case seen[a.Prefix]:
			v.add(a.Place, "", "%s is there twice", a.Prefix)
		}
		seen[a.Prefix] = true
	}
}
