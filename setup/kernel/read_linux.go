package kernel

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"culvert/setup"
	"culvert/setup/model"
	"culvert/setup/rtnl"
)

// reading is a snapshot being taken.
type reading struct {
	k       *Kernel
	system  *model.System
	spaces  []*namespace
	links   map[*namespace]map[int]*link
	nsNames map[*namespace]map[int32]*namespace // by id in the first; nil where it is outside the scope
	asked   map[*namespace]int                  // how many of spaces were asked for their id in it
}

// Read returns what is there (see [apply.Kernel]): of each namespace one listing per kind of thing, and one more per device with classes
// or an ingress.
func (k *Kernel) Read(ctx context.Context, scope model.Scope) (*model.System, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// What steps held open is let go of, and what is opened here.
	k.release()
	defer k.release()
	r := &reading{k: k, system: &model.System{Objects: make(map[model.ID]*model.Object)},
		links: make(map[*namespace]map[int]*link), nsNames: make(map[*namespace]map[int32]*namespace),
		asked: make(map[*namespace]int)}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, &setup.OpError{Op: "read", Item: "boot_id", Err: err}
	}
	r.system.BootID = strings.TrimSpace(string(boot))
	if r.system.Inode, err = namespaceInode(k.home); err != nil {
		return nil, &setup.OpError{Op: "find namespace", Item: k.home, Err: err}
	}
	if err := readNetns(r.system); err != nil {
		return nil, err
	}
	if err := r.open(scope); err != nil {
		return nil, err
	}
	for _, ns := range r.spaces {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		links, err := ns.links()
		if err != nil {
			return nil, readError("links", ns, err)
		}
		byIndex := make(map[int]*link, len(links))
		for _, l := range links {
			byIndex[l.index] = l
		}
		r.links[ns] = byIndex
	}
	for _, ns := range r.spaces {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := r.namespace(ns); err != nil {
			return nil, err
		}
		r.readSettings(ns, scope.Settings)
	}
	return r.system, nil
}

func readError(what string, ns *namespace, err error) error {
	item := ns.name
	if item == "" {
		item = "of this namespace"
	} else {
		item = "of namespace " + item
	}
	return &setup.OpError{Op: "list " + what, Item: item, Err: err}
}

// open opens the namespaces of a scope that are there.
func (r *reading) open(scope model.Scope) error {
	seen := make(map[string]bool)
	for _, name := range scope.Netns {
		if seen[name] {
			continue
		}
		seen[name] = true
		ns, err := r.k.namespace(name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return &setup.OpError{Op: "open namespace", Item: name, Err: err}
		}
		r.spaces = append(r.spaces, ns)
	}
	return nil
}

// namespace adds all that is in a namespace.
func (r *reading) namespace(ns *namespace) error {
	if err := r.readLinks(ns); err != nil {
		return err
	}
	for _, part := range []struct {
		what string
		read func(*namespace) error
	}{
		{"addresses", r.readAddresses}, {"routes", r.readRoutes}, {"rules", r.readRules},
		{"queueing disciplines", r.readQdiscs}, {"nftables tables", func(ns *namespace) error { return ns.readNAT(r.system) }},
	} {
		if err := part.read(ns); err != nil {
			return readError(part.what, ns, err)
		}
	}
	return nil
}

// add adds an object; one of the same ID that is there already stays, unless that one is culvert's and this one is not.
func (r *reading) add(ns *namespace, o *model.Object) {
	o.Inode = ns.inode
	if have := r.system.Objects[o.ID]; have != nil && (!have.Ours || o.Ours) {
		return
	}
	r.system.Objects[o.ID] = o
}

func (r *reading) readLinks(ns *namespace) error {
	var vlans map[int]model.Value
	for _, l := range r.links[ns] {
		if l.kind == "bridge" {
			var err error
			if vlans, err = ns.bridgeVLANs(); err != nil {
				return readError("VLANs", ns, err)
			}
			break
		}
	}
	for _, l := range r.links[ns] {
		ref := model.NewRef(ns.name, l.name)
		r.references(ns, l)
		if v, ok := vlans[l.index]; ok && l.kind == "bridge" {
			l.fields["vlans"] = v
		}
		o := &model.Object{ID: model.LinkID(ref), Fields: l.fields, Unread: l.unread, Index: l.index, Group: l.group, Alias: l.alias}
		if l.name == "lo" {
			// What is marked on it is the namespace: the device itself nobody makes or deletes.
			o.Group, o.Alias = 0, ""
			if space := r.system.Objects[model.NetnsID(ns.name)]; space != nil && ns.name != "" && space.Inode == ns.inode {
				space.Group, space.Alias = l.group, l.alias
			}
		}
		r.add(ns, o)
		if l.master == 0 {
			continue
		}
		port := l.port
		if port == nil {
			port = model.Fields{}
		}
		port["master"] = "?"
		if m := r.links[ns][l.master]; m != nil {
			port["master"] = model.Link(model.NewRef(ns.name, m.name))
			if v, ok := vlans[l.index]; ok && m.kind == "bridge" {
				port["vlans"] = v
			}
		}
		r.add(ns, &model.Object{ID: model.AttachmentID(ref), Fields: port, Index: l.index})
	}
	return nil
}

// references sets the fields of a link that name another.
func (r *reading) references(ns *namespace, l *link) {
	if l.parent != 0 || l.parentNetns >= 0 {
		ref := model.Ref("?")
		if to := r.elsewhere(ns, l.parentNetns); to != nil {
			if p := r.links[to][l.parent]; p != nil {
				ref = model.NewRef(to.name, p.name)
			}
		}
		field := model.Field("parent")
		if l.kind == "veth" {
			field = "peer"
		}
		l.fields[field] = model.Link(ref)
	}
	if l.kind == "bond" {
		if p := r.links[ns][l.primary]; p != nil {
			l.fields["primary"] = model.Link(model.NewRef(ns.name, p.name))
		} else {
			l.fields["primary"] = ""
		}
	}
}

// elsewhere returns the namespace that has an id in ns; ns itself for a negative one, and nil for one outside the scope.
func (r *reading) elsewhere(ns *namespace, id int32) *namespace {
	if id < 0 {
		return ns
	}
	known := r.nsNames[ns]
	if known == nil {
		known = make(map[int32]*namespace)
		r.nsNames[ns] = known
	}
	if to, ok := known[id]; ok {
		return to
	}
	// Each is asked once, in turn, until the one is found.
	for r.asked[ns] < len(r.spaces) {
		to := r.spaces[r.asked[ns]]
		r.asked[ns]++
		if has := ns.id(to); has >= 0 {
			known[has] = to
			if has == id {
				return to
			}
		}
	}
	known[id] = nil
	return nil
}

func (r *reading) readAddresses(ns *namespace) error {
	list, err := ns.addresses()
	if err != nil {
		return err
	}
	for _, a := range list {
		l := r.links[ns][a.index]
		if l == nil {
			continue
		}
		fields := model.Fields{}
		if a.prefix.Addr().Is6() {
			fields["nodad"] = model.Bool(a.nodad)
		}
		id := model.AddressID(model.NewRef(ns.name, l.name), a.prefix.String())
		if a.prefix.Addr().IsLoopback() && l.name == "lo" {
			continue // the kernel's, also where it does not say so
		}
		r.add(ns, &model.Object{ID: id, Fields: fields, Index: a.index, Ours: a.ours})
	}
	return nil
}

func (r *reading) readRoutes(ns *namespace) error {
	list, err := ns.routes()
	if err != nil {
		return err
	}
	for _, e := range list {
		id, fields := e.fields(ns.name, r.links[ns])
		r.add(ns, &model.Object{ID: id, Fields: fields, Index: e.index, Ours: e.protocol == model.RouteProtocol})
	}
	return nil
}

func (r *reading) readRules(ns *namespace) error {
	list, err := ns.rules()
	if err != nil {
		return err
	}
	for _, e := range list {
		r.add(ns, &model.Object{ID: e.id(ns.name), Fields: e.fields, Ours: e.protocol == model.RouteProtocol})
	}
	return nil
}

func (r *reading) readQdiscs(ns *namespace) error {
	list, err := ns.qdiscs()
	if err != nil {
		return err
	}
	for _, q := range list {
		l := r.links[ns][q.Index]
		if l == nil {
			continue
		}
		ref := model.NewRef(ns.name, l.name)
		r.add(ns, &model.Object{ID: model.QdiscID(ref, parentText(q.Parent)), Fields: q.fields(), Index: l.index, Ours: q.ours()})
		switch {
		case q.kind == "htb" && q.Parent == rtnl.ParentRoot:
			err = r.readClasses(ns, ref, l)
		case q.kind == "ingress":
			err = r.readFilters(ns, ref, l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) readClasses(ns *namespace, ref model.Ref, l *link) error {
	list, err := ns.classes(l.index)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	for _, c := range list {
		id := model.ClassID(ref, parentText(c.Handle))
		r.add(ns, &model.Object{ID: id, Fields: c.fields(), Index: l.index, Ours: c.Handle>>16 == uint32(model.QdiscHandle)>>16})
	}
	return err
}

func (r *reading) readFilters(ns *namespace, ref model.Ref, l *link) error {
	list, err := rtnl.Filters(ns.conn, l.index)
	for _, f := range list {
		id := model.FilterID(ref, "ingress", strconv.Itoa(int(f.Priority)))
		r.add(ns, &model.Object{ID: id, Fields: filterFields(f, ns.name, r.links[ns]), Index: l.index, Ours: isOurs(f)})
	}
	return err
}
