package kernel

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"culvert/setup"
	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
)

// createLink makes a link, down and with culvert's group, and marks it last. A veth's other end comes with it.
func createLink(w *work) (done apply.Done, err error) {
	ref := w.step.ID.Link()
	if err := setup.CheckLinkName(ref.Name()); err != nil {
		return done, err
	}
	kind := linkType(w.step)
	if kind == "tun" || kind == "tap" {
		return createTun(w, kind)
	}
	if kind == "macvtap" {
		// Ports of virtual machines have culvert's group as well, and one of the mode passthru without a mark is taken for the remains of
		// one: those who look for them hold this lock.
		if err := unix.Flock(w.ns.file, unix.LOCK_EX); err != nil {
			return done, fmt.Errorf("lock the namespace: %w", err)
		}
		defer unix.Flock(w.ns.file, unix.LOCK_UN)
	}
	if err := w.addLink(kind, ref.Name()); err != nil {
		return done, err
	}
	made, err := w.madeLink(w.ns, ref.Name())
	if err != nil {
		return done, err
	}
	done.Index = made.index
	undo := func(err error) (apply.Done, error) {
		return apply.Done{}, errors.Join(err, w.ns.deleteLink(made.index))
	}
	var peer *link
	var peerNS *namespace
	if kind == "veth" {
		peerRef := w.step.Fields["peer"].Link()
		if peerNS, err = w.k.namespace(peerRef.Netns()); err != nil {
			return undo(err)
		}
		if peer, err = w.madeLink(peerNS, peerRef.Name()); err != nil {
			return undo(err)
		}
		done.PeerIndex = peer.index
	}
	if err := w.finishLink(made.index); err != nil {
		return undo(err)
	}
	if peer != nil && w.step.PeerAlias != "" {
		if err := peerNS.setAlias(peer.index, w.step.PeerAlias); err != nil {
			return undo(err)
		}
	}
	if w.step.Alias != "" {
		if err := w.ns.setAlias(made.index, w.step.Alias); err != nil {
			return undo(err)
		}
	}
	return done, nil
}

// linkType is the type of the link a step is about.
func linkType(step *plan.Step) string {
	if step.Type != "" && step.Type != "tunnel" {
		return step.Type
	}
	return string(step.Fields["type"])
}

// finishLink sets what a new link's request cannot carry.
func (w *work) finishLink(index int) error {
	if macs, ok := w.step.Fields["macs"]; ok && macs != "" {
		if err := w.ns.setMACs(index, linkType(w.step), macs); err != nil {
			return fmt.Errorf("macs: %w", err)
		}
	}
	if vlans, ok := w.step.Fields["vlans"]; ok {
		if err := w.ns.setBridgeVLANs(index, true, vlans); err != nil {
			return fmt.Errorf("vlans: %w", err)
		}
	}
	return nil
}

// addLink asks for the link. The request goes to the namespace of its parent, which then need not be known in that of the link.
func (w *work) addLink(kind, name string) error {
	from := w.ns
	parentIndex := 0
	if parent := w.step.Fields["parent"].Link(); parent != "" {
		ns, err := w.k.namespace(parent.Netns())
		if err != nil {
			return err
		}
		l, err := ns.linkByName(parent.Name())
		if err != nil {
			return err
		}
		if l == nil {
			return fmt.Errorf("its parent %s: %w", parent, unix.ENODEV)
		}
		from, parentIndex = ns, l.index
	}
	request, err := w.linkRequest(kind, name, parentIndex, from != w.ns)
	if err != nil {
		return err
	}
	err = from.conn.Do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, request)
	if from == w.ns || !errors.Is(err, unix.EEXIST) {
		return err
	}
	// Before Linux 6.15 the name is looked for in the namespace that is asked, not in that of the link.
	if there, lookErr := w.ns.linkByName(name); lookErr != nil || there != nil {
		return err
	}
	temporary := temporaryName()
	if request, err = w.linkRequest(kind, temporary, parentIndex, true); err != nil {
		return err
	}
	if err := from.conn.Do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, request); err != nil {
		return err
	}
	l, err := w.madeLink(w.ns, temporary)
	if err != nil {
		return err
	}
	a := linkHead(unix.AF_UNSPEC, l.index, 0, 0)
	a.String(unix.IFLA_IFNAME, name)
	if err := w.ns.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes()); err != nil {
		return errors.Join(err, w.ns.deleteLink(l.index))
	}
	return nil
}

// temporaryName is a device name nobody has.
func temporaryName() string {
	var b [6]byte
	rand.Read(b[:])
	return "cv-" + hex.EncodeToString(b[:])
}

// linkRequest is the message that creates the link.
func (w *work) linkRequest(kind, name string, parent int, elsewhere bool) ([]byte, error) {
	a := linkHead(unix.AF_UNSPEC, 0, 0, 0)
	a.String(unix.IFLA_IFNAME, name)
	a.Uint32(unix.IFLA_GROUP, w.group())
	if elsewhere {
		a.Uint32(unix.IFLA_NET_NS_FD, uint32(w.ns.file))
	}
	if parent != 0 {
		a.Uint32(unix.IFLA_LINK, uint32(parent))
	}
	if err := encodeFields(linkFields, w.step.Fields, a); err != nil {
		return nil, err
	}
	var data rtnl.Attributes
	if err := encodeFields(linkData[kind], w.step.Fields, &data); err != nil {
		return nil, err
	}
	if kind == "veth" {
		if err := w.putPeer(&data); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	if kind == "bond" {
		if primary := w.step.Fields["primary"].Link(); primary != "" {
			l, err := w.ns.linkByName(primary.Name())
			if err == nil && l == nil {
				err = unix.ENODEV
			}
			if err != nil {
				return nil, fmt.Errorf("primary %s: %w", primary, err)
			}
			data.Uint32(bondPrimary, uint32(l.index))
		}
	}
	a.Nest(unix.IFLA_LINKINFO, func(a *rtnl.Attributes) {
		a.String(unix.IFLA_INFO_KIND, kindName(kind))
		if len(data.Bytes()) > 0 {
			a.Nest(unix.IFLA_INFO_DATA, func(a *rtnl.Attributes) { a.Raw(data.Bytes()) })
		}
	})
	return a.Bytes(), nil
}

// putPeer describes a veth's other end.
func (w *work) putPeer(data *rtnl.Attributes) error {
	ref := w.step.Fields["peer"].Link()
	if err := setup.CheckLinkName(ref.Name()); err != nil {
		return err
	}
	ns, err := w.k.namespace(ref.Netns())
	if err != nil {
		return err
	}
	peer := linkHead(unix.AF_UNSPEC, 0, 0, 0)
	peer.String(unix.IFLA_IFNAME, ref.Name())
	peer.Uint32(unix.IFLA_GROUP, w.group())
	peer.Uint32(unix.IFLA_NET_NS_FD, uint32(ns.file))
	if err := encodeFields(linkFields, w.step.Peer, peer); err != nil {
		return err
	}
	data.Enclose(vethPeer, func(a *rtnl.Attributes) { a.Raw(peer.Bytes()) })
	return nil
}

// madeLink returns the link just created under a name.
func (w *work) madeLink(ns *namespace, name string) (*link, error) {
	l, err := ns.linkByName(name)
	if err == nil && (l == nil || l.group != w.group()) {
		err = fmt.Errorf("%s is not there once created: %w", name, unix.ENODEV)
	}
	return l, err
}

// group is what a new link is marked with from its first moment: somebody else's, which is put back, has none.
func (w *work) group() uint32 {
	if w.step.Foreign {
		return 0
	}
	return model.Group
}

// setAlias marks a link, which has culvert's group by its creation.
func (n *namespace) setAlias(index int, alias string) error {
	return n.setMark(index, func(*rtnl.Attributes) {}, alias)
}

// remark marks a link that has culvert's group, or one of those for links to be deleted.
func (n *namespace) remark(index int, alias string) error {
	return n.setMark(index, func(a *rtnl.Attributes) { a.Uint32(unix.IFLA_GROUP, model.Group) }, alias)
}

func (n *namespace) setMark(index int, more func(*rtnl.Attributes), alias string) error {
	a := linkHead(unix.AF_UNSPEC, index, 0, 0)
	more(a)
	a.String(unix.IFLA_IFALIAS, alias)
	if err := n.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes()); err != nil {
		return fmt.Errorf("alias: %w", err)
	}
	return nil
}

// deleteLink deletes a link; one that is gone is no error.
func (n *namespace) deleteLink(index int) error {
	err := n.conn.Do(unix.RTM_DELLINK, 0, linkHead(unix.AF_UNSPEC, index, 0, 0).Bytes())
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// link returns the link of the step, which has to be the one meant; nil where it is gone.
func (w *work) link() (*link, error) {
	ref := w.step.ID.Link()
	l, err := w.ns.linkByName(ref.Name())
	if err != nil || l == nil {
		return nil, err
	}
	if w.step.Index != 0 && w.step.Index != l.index {
		return nil, another(string(ref), l.index, w.step.Index)
	}
	return l, nil
}

// present is link for a step that needs it.
func (w *work) present() (*link, error) {
	l, err := w.link()
	if err == nil && l == nil {
		err = fmt.Errorf("link %s: %w", w.step.ID.Link(), unix.ENODEV)
	}
	return l, err
}

func deleteLink(w *work) (apply.Done, error) {
	l, err := w.doomed()
	if err != nil || l == nil {
		return apply.Done{}, err
	}
	return apply.Done{}, w.ns.deleteLink(l.index)
}

// doomed is link for a step that deletes it: only what culvert made may be.
func (w *work) doomed() (*link, error) {
	l, err := w.link()
	if err == nil && l != nil && !model.IsOwnGroup(l.group) {
		err = fmt.Errorf("it is in group %d, so culvert did not make it: %w", l.group, errRefused)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func changeLink(w *work) (apply.Done, error) {
	l, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	set := func(c plan.FieldChange) error { return w.setLinkField(l, c) }
	if err := changeEach(w.step.Changes, set); err != nil {
		return apply.Done{}, err
	}
	if w.step.Alias != "" {
		if err := w.ns.remark(l.index, w.step.Alias); err != nil {
			return apply.Done{}, errors.Join(err, takeBack(slices.Clone(w.step.Changes), set))
		}
	}
	return apply.Done{Index: l.index}, nil
}

// setLinkField sends the least that changes a field.
func (w *work) setLinkField(l *link, c plan.FieldChange) error {
	switch c.Field {
	case "up":
		return w.ns.setUp(l.index, c.New.Bool())
	case "macs":
		now, err := w.ns.linkByIndex(l.index)
		if err == nil && now != nil && now.fields["mode"] != "source" && c.New == "" {
			return nil // it has no list any more
		}
		return w.ns.setMACs(l.index, l.kind, c.New)
	case "vlans":
		return w.ns.setBridgeVLANs(l.index, true, c.New)
	case "persist":
		return w.setPersist(l, c.New.Bool())
	case "primary":
		return w.setPrimary(l, c.New.Link())
	}
	a := linkHead(unix.AF_UNSPEC, l.index, 0, 0)
	if attribute, ok := find(linkFields, c.Field); ok {
		if err := attribute.put(a, c.New); err != nil {
			return err
		}
		return w.ns.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes())
	}
	attribute, ok := find(linkData[l.kind], c.Field)
	if !ok || describes(l.kind, c.Field) == model.Recreate {
		return fmt.Errorf("a %s's %s cannot be changed: %w", l.kind, c.Field, errRefused)
	}
	return w.ns.changeData(l.index, l.kind, func(a *rtnl.Attributes) error { return attribute.put(a, c.New) })
}

// describes returns how a field of a link of that type can be changed.
func describes(kind string, f model.Field) model.Change {
	if info := model.Describe(model.KindLink, kind, f); info != nil {
		return info.Change
	}
	return model.Recreate
}

// changeData sends a request with attributes of the link's type.
func (n *namespace) changeData(index int, kind string, fill func(*rtnl.Attributes) error) error {
	var data rtnl.Attributes
	if err := fill(&data); err != nil {
		return err
	}
	a := linkHead(unix.AF_UNSPEC, index, 0, 0)
	a.Nest(unix.IFLA_LINKINFO, func(a *rtnl.Attributes) {
		a.String(unix.IFLA_INFO_KIND, kindName(kind))
		a.Nest(unix.IFLA_INFO_DATA, func(a *rtnl.Attributes) { a.Raw(data.Bytes()) })
	})
	return n.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes())
}

func (n *namespace) setMACs(index int, kind string, macs model.Value) error {
	return n.changeData(index, kind, func(a *rtnl.Attributes) error { return putMACs(macs, a) })
}

// setPrimary names a bond's preferred port, or none.
func (w *work) setPrimary(l *link, port model.Ref) error {
	index := 0
	if port != "" {
		p, err := w.ns.linkByName(port.Name())
		if err == nil && p == nil {
			err = fmt.Errorf("port %s: %w", port, unix.ENODEV)
		}
		if err != nil {
			return err
		}
		index = p.index
	}
	return w.ns.changeData(l.index, l.kind, func(a *rtnl.Attributes) error {
		a.Uint32(bondPrimary, uint32(index))
		return nil
	})
}
