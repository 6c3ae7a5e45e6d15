package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// Errors of the kernel.
var (
	ErrExists      = errors.New("file exists")
	ErrNoDevice    = errors.New("no such device")
	ErrBusy        = errors.New("device or resource busy")
	ErrInvalid     = errors.New("invalid argument")
	ErrUnsupported = errors.New("operation not supported")
	ErrNetworkDown = errors.New("network is down")
	ErrInjected    = errors.New("injected failure")
)

// Killed is what [Kernel.Do] panics with where the process is to have been killed.
type Killed struct{}

// When says at what point of a step something happens.
type When uint8

// The points.
const (
	Before  When = iota // nothing of the step has been done
	Halfway             // a device is there, and has its group but no alias; of all else nothing has been done
	After               // all of it
)

// Kernel is a kernel in memory.
type Kernel struct {
	Objects map[model.ID]*model.Object
	Boot    string
	Steps   []plan.Step // all that were tried

	// Fail, where not nil, is asked at each point of each step; Kill as well.
	Fail func(step *plan.Step, n int, at When) bool
	Kill func(step *plan.Step, n int, at When) bool

	// Faults lists what would have harmed somebody on a real kernel, as a redirect to a device that is gone.
	Faults []string

	index int
	inode uint64
}

// Inode is that of the namespace culvert runs in.
const Inode = 4026531840

// New returns a kernel with a loopback device in its only namespace.
func New() *Kernel {
	k := &Kernel{Objects: map[model.ID]*model.Object{}, Boot: "boot-1", inode: Inode}
	k.addLink("lo", model.Fields{"type": "loopback", "mtu": "65536", "up": "yes"})
	return k
}

// AddLink adds a foreign device with the defaults of its type, up.
func (k *Kernel) AddLink(r model.Ref, typ string, fields model.Fields) *model.Object {
	f := defaults(typ)
	f["up"] = "yes"
	maps.Copy(f, fields)
	return k.addLink(r, f)
}

// Add adds any other foreign thing.
func (k *Kernel) Add(id model.ID, fields model.Fields) *model.Object {
	o := &model.Object{ID: id, Fields: maps.Clone(fields), Inode: k.inodeOf(id.Netns())}
	if o.Fields == nil {
		o.Fields = model.Fields{}
	}
	if id.Kind() == model.KindAddress && o.Fields["nodad"] == "" {
		o.Fields["nodad"] = "no"
	}
	if l := k.Objects[model.LinkID(id.Link())]; l != nil && id.Link() != "" {
		o.Index = l.Index
	}
	if id.Kind() == model.KindNetns {
		k.inode++
		o.Inode = k.inode
	}
	k.Objects[id] = o
	if id.Kind() == model.KindNetns {
		k.addLink(model.NewRef(id.Rest(), "lo"), model.Fields{"type": "loopback", "mtu": "65536", "up": "yes"})
	}
	return o
}

func (k *Kernel) addLink(r model.Ref, f model.Fields) *model.Object {
	k.index++
	o := &model.Object{ID: model.LinkID(r), Fields: f, Index: k.index, Inode: k.inodeOf(r.Netns())}
	if _, ok := f["mac"]; !ok && f["type"] != "tun" && f["type"] != "loopback" {
		f["mac"] = model.Value(fmt.Sprintf("02:00:00:00:%02x:%02x", k.index>>8, k.index&0xff))
	}
	k.Objects[o.ID] = o
	return o
}

func (k *Kernel) inodeOf(netns string) uint64 {
	if netns == "" {
		return Inode
	}
	if o := k.Objects[model.NetnsID(netns)]; o != nil {
		return o.Inode
	}
	return 0
}

// defaults are the fields a new device of the type has.
func defaults(typ string) model.Fields {
	f := model.Fields{"type": model.Value(typ), "mtu": "1500", "txqueuelen": "1000", "up": "no"}
	switch typ {
	case "bridge":
		maps.Copy(f, model.Fields{"stp": "no", "priority": "32768", "forward_delay": "15s", "hello_time": "2s", "max_age": "20s",
			"ageing_time": "5m0s", "vlan_filtering": "no", "vlan_protocol": "802.1q", "vlan_default_pvid": "1", "vlans": "1,pvid,untagged",
			"mcast_snooping": "yes", "mcast_querier": "no"})
	case "bond":
		maps.Copy(f, model.Fields{"mode": "balance-rr", "miimon": "0s", "updelay": "0s", "downdelay": "0s", "arp_interval": "0s",
			"arp_targets": "", "ns_targets": "", "lacp_rate": "slow", "xmit_hash_policy": "layer2", "primary": "", "min_links": "0",
			"ad_select": "stable", "fail_over_mac": "none"})
	case "macvlan", "macvtap":
		maps.Copy(f, model.Fields{"mode": "vepa", "macs": ""})
	case "ipvlan", "ipvtap":
		maps.Copy(f, model.Fields{"mode": "l3", "flag": "bridge"})
	case "tun", "tap":
		maps.Copy(f, model.Fields{"multi_queue": "no", "vnet_hdr": "no", "persist": "no"})
	case "vlan":
		f["protocol"] = "802.1q"
	case "ifb":
		f["txqueuelen"] = "32"
	}
	return f
}

var portDefaults = model.Fields{"cost": "2", "priority": "32", "hairpin": "no", "isolated": "no", "learning": "yes", "flood": "yes",
	"guard": "no", "root_block": "no", "fast_leave": "no", "vlans": "1,pvid,untagged"}

var _ apply.Kernel = (*Kernel)(nil)

// Read copies what is in the scope.
func (k *Kernel) Read(_ context.Context, scope model.Scope) (*model.System, error) {
	s := &model.System{BootID: k.Boot, Inode: Inode, Objects: make(map[model.ID]*model.Object)}
	for id, o := range k.Objects {
		in := slices.Contains(scope.Netns, id.Netns())
		if id.Kind() == model.KindProcess || id.Kind() == model.KindHandover {
			in = slices.Contains(scope.Processes, id)
		}
		if !in && id.Kind() != model.KindNetns {
			continue
		}
		c := *o
		c.Fields = maps.Clone(o.Fields)
		if id.Kind() == model.KindNetns && !slices.Contains(scope.Netns, id.Rest()) {
			c.Group, c.Alias = 0, ""
		}
		s.Objects[id] = &c
	}
	return s, nil
}

// All is a copy of everything, for comparing: without what the kernel numbers anew.
func (k *Kernel) All() map[model.ID]model.Object {
	m := make(map[model.ID]model.Object, len(k.Objects))
	for id, o := range k.Objects {
		c := *o
		c.Fields = maps.Clone(o.Fields)
		c.Index, c.Inode = 0, 0
		if id.Kind() == model.KindLink {
			delete(c.Fields, "mac")
		}
		m[id] = c
	}
	return m
}

// Do carries out a step.
func (k *Kernel) Do(_ context.Context, s *plan.Step) (apply.Done, error) {
	n := len(k.Steps)
	k.Steps = append(k.Steps, *s)
	if err := k.interrupt(s, n, Before); err != nil {
		return apply.Done{}, err
	}
	halfway := func() error { return k.interrupt(s, n, Halfway) }
	d, err := k.do(s, halfway)
	if err == nil {
		err = k.interrupt(s, n, After)
		if err != nil && s.Op == plan.Create {
			// As an implementation does where it fails after its request: it takes back what it made.
			k.remove(s.ID)
		} else if err != nil && s.Op == plan.Change {
			for _, c := range s.Changes {
				k.Objects[s.ID].Fields[c.Field] = c.Old
			}
		}
	}
	if err != nil {
		return apply.Done{}, err
	}
	return d, nil
}

func (k *Kernel) interrupt(s *plan.Step, n int, at When) error {
	if k.Kill != nil && k.Kill(s, n, at) {
		panic(Killed{})
	}
	if k.Fail != nil && k.Fail(s, n, at) {
		return ErrInjected
	}
	return nil
}

func (k *Kernel) do(s *plan.Step, halfway func() error) (d apply.Done, err error) {
	switch s.Op {
	case plan.Create:
		return k.create(s, halfway)
	case plan.Change:
		return d, k.change(s)
	}
	o := k.Objects[s.ID]
	if o == nil {
		return d, nil
	}
	if s.Index != 0 && o.Index != s.Index || s.Inode != 0 && o.Inode != s.Inode {
		return d, fmt.Errorf("delete %s: %w: it is another one", s.ID, ErrNoDevice)
	}
	k.remove(s.ID)
	return d, nil
}

func (k *Kernel) create(s *plan.Step, halfway func() error) (d apply.Done, err error) {
	id := s.ID
	fail := func(format string, args ...any) (apply.Done, error) {
		return apply.Done{}, fmt.Errorf("create %s: "+format, append([]any{id}, args...)...)
	}
	if k.Objects[id] != nil {
		return fail("%w", ErrExists)
	}
	if n := id.Netns(); n != "" && k.Objects[model.NetnsID(n)] == nil {
		return fail("no namespace %s: %w", n, ErrInvalid)
	}
	link := k.Objects[model.LinkID(id.Link())]
	if id.Link() != "" && id.Kind() != model.KindLink && link == nil {
		return fail("%w", ErrNoDevice)
	}
	switch id.Kind() {
	case model.KindNetns:
		o := k.Add(id, s.Fields)
		o.Group, o.Alias = model.Group, s.Alias // before it gets its name
		return apply.Done{Inode: o.Inode}, nil
	case model.KindLink:
		return k.createLink(s, halfway)
	case model.KindAttachment:
		if err := k.attach(s, link); err != nil {
			return fail("%w", err)
		}
		return d, nil
	}
	if err := k.ready(s, link); err != nil {
		return fail("%w", err)
	}
	o := k.Add(id, s.Fields)
	o.Ours = !s.Foreign
	return d, nil
}

// ready says why a thing that is no link cannot be made.
func (k *Kernel) ready(s *plan.Step, link *model.Object) error {
	words := s.ID.Words()
	switch s.ID.Kind() {
	case model.KindQdisc:
		if p := words[1]; p != "root" && p != "ingress" && k.Objects[model.ClassID(s.ID.Link(), p)] == nil {
			return fmt.Errorf("no class %s: %w", p, ErrInvalid)
		}
	case model.KindClass:
		if q := k.Objects[model.QdiscID(s.ID.Link(), "root")]; q == nil || q.Fields["kind"] != "htb" {
			return fmt.Errorf("no htb: %w", ErrInvalid)
		}
	case model.KindFilter:
		if k.Objects[model.QdiscID(s.ID.Link(), words[1])] == nil {
			return fmt.Errorf("no qdisc %s: %w", words[1], ErrInvalid)
		}
		if k.Objects[model.LinkID(s.Fields["redirect"].Link())] == nil {
			return fmt.Errorf("redirect: %w", ErrNoDevice)
		}
	case model.KindRoute:
		if r := s.Fields["link"].Link(); r != "" {
			l := k.Objects[model.LinkID(r)]
			if l == nil {
				return ErrNoDevice
			}
			if l.Fields["up"] != "yes" {
				return ErrNetworkDown
			}
		}
		if gw := s.Fields["gateway"]; gw != "" && s.Fields["onlink"] != "yes" && !k.reachable(s.ID.Netns(), string(gw)) {
			return fmt.Errorf("nexthop has invalid gateway: %w", ErrInvalid)
		}
	case model.KindProcess:
		if n := string(s.Fields["netns"]); n != "" && k.Objects[model.NetnsID(n)] == nil {
			return ErrNoDevice
		}
		if k.Objects[model.LinkID(s.Fields["link"].Link())] == nil {
			return ErrNoDevice
		}
	}
	_ = link
	return nil
}

func (k *Kernel) reachable(netns, gateway string) bool {
	gw, err := netip.ParseAddr(gateway)
	if err != nil {
		return false
	}
	for id, o := range k.Objects {
		if id.Kind() != model.KindAddress || id.Netns() != netns {
			continue
		}
		p, err := netip.ParsePrefix(id.Words()[1])
		l := k.Objects[model.LinkID(o.ID.Link())]
		if err == nil && p.Contains(gw) && l != nil && l.Fields["up"] == "yes" {
			return true
		}
	}
	return false
}

func (k *Kernel) createLink(s *plan.Step, halfway func() error) (d apply.Done, err error) {
	fail := func(format string, args ...any) (apply.Done, error) {
		return apply.Done{}, fmt.Errorf("create %s: "+format, append([]any{s.ID}, args...)...)
	}
	typ := string(s.Fields["type"])
	if s.Fields["up"] != "" || s.Fields["primary"] != "" {
		return fail("a link is made down and without ports: %w", ErrInvalid)
	}
	f := defaults(typ)
	if parent := s.Fields["parent"].Link(); parent != "" {
		p := k.Objects[model.LinkID(parent)]
		if p == nil {
			return fail("parent: %w", ErrNoDevice)
		}
		if err := k.stackable(s, p); err != nil {
			return fail("%w", err)
		}
		f["mtu"] = p.Fields["mtu"]
	}
	maps.Copy(f, s.Fields)
	if p := k.Objects[model.LinkID(s.Fields["parent"].Link())]; p != nil && f["mtu"].Uint() > p.Fields["mtu"].Uint() {
		return fail("the MTU is above that of the parent: %w", ErrInvalid)
	}
	peer := s.Fields["peer"].Link()
	if typ == "veth" {
		if s.Peer == nil || k.Objects[model.LinkID(peer)] != nil {
			return fail("peer: %w", ErrExists)
		}
		if n := peer.Netns(); n != "" && k.Objects[model.NetnsID(n)] == nil {
			return fail("peer's namespace: %w", ErrInvalid)
		}
	}
	o := k.addLink(s.ID.Link(), f)
	o.Group = model.Group
	d.Index = o.Index
	var p *model.Object
	if typ == "veth" {
		g := defaults(typ)
		maps.Copy(g, s.Peer)
		p = k.addLink(peer, g)
		p.Group = model.Group
		d.PeerIndex = p.Index
	}
	if err := halfway(); err != nil {
		k.remove(s.ID)
		return apply.Done{}, err
	}
	o.Alias = s.Alias
	if p != nil {
		p.Alias = s.PeerAlias
	}
	return d, nil
}

// stackable is what the kernel checks of what sits on one parent.
func (k *Kernel) stackable(s *plan.Step, parent *model.Object) error {
	family := func(typ string) string { return strings.TrimSuffix(strings.TrimSuffix(typ, "lan"), "tap") }
	typ := string(s.Fields["type"])
	if typ == "vlan" {
		return nil
	}
	if k.Objects[model.AttachmentID(parent.ID.Link())] != nil {
		return fmt.Errorf("the parent is a port: %w", ErrBusy)
	}
	for _, o := range k.Objects {
		other := string(o.Fields["type"])
		if o.ID.Kind() != model.KindLink || o.Fields["parent"].Link() != parent.ID.Link() || other == "vlan" {
			continue
		}
		switch {
		case family(other) != family(typ):
			return fmt.Errorf("%s and %s on one parent: %w", other, typ, ErrBusy)
		case o.Fields["mode"] == "passthru" || s.Fields["mode"] == "passthru":
			return fmt.Errorf("passthru: %w", ErrInvalid)
		}
	}
	return nil
}

func (k *Kernel) attach(s *plan.Step, port *model.Object) error {
	master := k.Objects[model.LinkID(s.Fields["master"].Link())]
	if master == nil || master.ID.Netns() != port.ID.Netns() {
		return ErrNoDevice
	}
	f := model.Fields{}
	switch master.Fields["type"] {
	case "bridge":
		for _, o := range k.Objects {
			if o.ID.Kind() == model.KindLink && o.Fields["parent"].Link() == port.ID.Link() && o.Fields["type"] != "vlan" {
				return fmt.Errorf("it is a parent: %w", ErrBusy)
			}
		}
		maps.Copy(f, portDefaults)
	case "bond", "team":
		if port.Fields["up"] == "yes" {
			return fmt.Errorf("it is up: %w", ErrBusy)
		}
		if master.Fields["type"] == "team" && k.Objects[model.ProcessID("teamd:"+string(master.ID.Link()))] == nil {
			return fmt.Errorf("the team has no teamd: %w", ErrInvalid)
		}
		port.Fields["up"] = "yes"
	default:
		return ErrUnsupported
	}
	maps.Copy(f, s.Fields)
	k.Add(s.ID, f)
	return nil
}

func (k *Kernel) change(s *plan.Step) error {
	o := k.Objects[s.ID]
	fail := func(err error) error { return fmt.Errorf("change %s: %w", s.ID, err) }
	if o == nil || s.Index != 0 && o.Index != s.Index || s.Inode != 0 && o.Inode != s.Inode {
		return fail(ErrNoDevice)
	}
	for _, c := range s.Changes {
		if err := k.changeable(o, c); err != nil {
			return fail(fmt.Errorf("%s: %w", c.Field, err))
		}
	}
	for _, c := range s.Changes {
		o.Fields[c.Field] = c.New
		if c.Field == "up" && c.New == "no" {
			k.wentDown(o)
		}
		if c.Field == "mtu" {
			for _, x := range k.Objects {
				if x.Fields["parent"].Link() == o.ID.Link() && x.Fields["mtu"].Uint() > c.New.Uint() {
					x.Fields["mtu"] = c.New
				}
			}
		}
	}
	if s.Alias != "" {
		o.Group, o.Alias = model.Group, s.Alias
	}
	return nil
}

func (k *Kernel) changeable(o *model.Object, c plan.FieldChange) error {
	s := &model.System{Objects: k.Objects}
	info := model.Describe(o.ID.Kind(), o.Variant(s), c.Field)
	switch {
	case info == nil || info.Change == model.Recreate:
		return ErrUnsupported
	case info.Change != model.InPlace && o.Fields["up"] == "yes":
		return ErrBusy
	case info.Change == model.WhenFree:
		for _, x := range k.Objects {
			if x.ID.Kind() == model.KindAttachment && x.Fields["master"].Link() == o.ID.Link() {
				return ErrBusy
			}
		}
	}
	parent := k.Objects[model.LinkID(o.Fields["parent"].Link())]
	switch {
	case parent == nil:
	case c.Field == "mtu" && c.New.Uint() > parent.Fields["mtu"].Uint():
		return ErrInvalid
	case c.Field == "up" && c.New == "yes" && o.Fields["type"] == "vlan" && parent.Fields["up"] != "yes":
		return ErrNetworkDown
	}
	return nil
}

func (k *Kernel) wentDown(o *model.Object) {
	r := o.ID.Link()
	for id, x := range k.Objects {
		if id.Kind() == model.KindAddress && id.Link() == r && strings.Contains(id.Words()[1], ":") ||
			id.Kind() == model.KindRoute && x.Fields["link"].Link() == r {
			delete(k.Objects, id)
		}
	}
}

// remove deletes a thing with all that goes with it.
func (k *Kernel) remove(id model.ID) {
	o := k.Objects[id]
	if o == nil {
		return
	}
	delete(k.Objects, id)
	if id.Kind() == model.KindAttachment {
		// A bond or team closes a port that leaves.
		master, port := o.Fields["master"].Link(), k.Objects[model.LinkID(id.Link())]
		if port != nil && (strings.HasPrefix(master.Name(), "bond") || strings.HasPrefix(master.Name(), "team")) {
			port.Fields["up"] = "no"
			k.wentDown(port)
		}
	}
	drop := func(match func(id model.ID, x *model.Object) bool) {
		for id, x := range k.Objects {
			if k.Objects[id] == x && match(id, x) {
				k.remove(id)
			}
		}
	}
	r := id.Link()
	switch id.Kind() {
	case model.KindNetns:
		name := id.Rest()
		drop(func(id model.ID, _ *model.Object) bool { return id.Netns() == name })
		for pid, x := range k.Objects {
			if pid.Kind() == model.KindProcess && string(x.Fields["netns"]) == name {
				k.fault("%s runs in %s, which is deleted", pid, id)
			}
		}
	case model.KindLink:
		drop(func(id model.ID, x *model.Object) bool {
			switch id.Kind() {
			case model.KindLink:
				return x.Fields["parent"].Link() == r || x.Fields["type"] == "veth" && x.Fields["peer"].Link() == r
			case model.KindAttachment:
				return id.Link() == r || x.Fields["master"].Link() == r
			case model.KindRoute:
				return x.Fields["link"].Link() == r
			case model.KindFilter:
				if id.Link() != r && x.Fields["redirect"].Link() == r {
					k.fault("%s redirects to %s, which is deleted", id, o.ID)
				}
				return id.Link() == r
			case model.KindAddress, model.KindQdisc, model.KindClass:
				return id.Link() == r
			}
			return false
		})
	case model.KindQdisc:
		words := id.Words()
		drop(func(id model.ID, _ *model.Object) bool {
			switch id.Kind() {
			case model.KindFilter:
				return id.Link() == r && id.Words()[1] == words[1]
			case model.KindClass:
				return id.Link() == r && words[1] == "root"
			case model.KindQdisc:
				return id.Link() == r && words[1] == "root" && id.Words()[1] != "ingress"
			}
			return false
		})
	case model.KindClass:
		drop(func(x model.ID, _ *model.Object) bool {
			return x.Kind() == model.KindQdisc && x.Link() == r && x.Words()[1] == id.Words()[1]
		})
	}
}

func (k *Kernel) fault(format string, args ...any) {
	k.Faults = append(k.Faults, fmt.Sprintf(format, args...))
}
