package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
)

// createAttachment makes a link a port of its master and sets what is declared of the port.
func createAttachment(w *work) (apply.Done, error) {
	port, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	master, err := w.master(w.step.Fields["master"].Link())
	if err != nil {
		return apply.Done{}, err
	}
	switch {
	case master.kind == "team" && port.master == master.index:
		return apply.Done{Index: port.index}, nil // teamd takes the ports it is told of by itself, where they are down
	case port.master != 0:
		return apply.Done{}, fmt.Errorf("it is a port of the link with index %d already: %w", port.master, unix.EBUSY)
	}
	if err := w.ns.setMaster(port, master); err != nil {
		return apply.Done{}, err
	}
	if err := w.setPort(port.index, master.kind, w.step.Fields); err != nil {
		port.master, port.portKind = master.index, master.kind
		return apply.Done{}, errors.Join(err, w.ns.setMaster(port, nil))
	}
	return apply.Done{Index: port.index}, nil
}

// setPort sets the declared settings of a port.
func (w *work) setPort(index int, masterKind string, fields model.Fields) error {
	var data rtnl.Attributes
	if err := encodeFields(portData[masterKind], fields, &data); err != nil {
		return err
	}
	if len(data.Bytes()) > 0 {
		if err := w.ns.changePort(index, masterKind, data.Bytes()); err != nil {
			return err
		}
	}
	if vlans, ok := fields["vlans"]; ok {
		if err := w.ns.setBridgeVLANs(index, false, vlans); err != nil {
			return fmt.Errorf("vlans: %w", err)
		}
	}
	return nil
}

// changePort sends settings of a port.
func (n *namespace) changePort(index int, masterKind string, data []byte) error {
	a := linkHead(unix.AF_UNSPEC, index, 0, 0)
	a.Nest(unix.IFLA_LINKINFO, func(a *rtnl.Attributes) {
		a.String(unix.IFLA_INFO_SLAVE_KIND, masterKind)
		a.Nest(unix.IFLA_INFO_SLAVE_DATA, func(a *rtnl.Attributes) { a.Raw(data) })
	})
	return n.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes())
}

// master finds the link that is to have the port.
func (w *work) master(ref model.Ref) (*link, error) {
	if ref.Netns() != w.step.ID.Netns() {
		return nil, fmt.Errorf("its master %s is in another namespace: %w", ref, unix.EINVAL)
	}
	l, err := w.ns.linkByName(ref.Name())
	if err == nil && l == nil {
		err = fmt.Errorf("its master %s: %w", ref, unix.ENODEV)
	}
	return l, err
}

// setMaster gives a link a master, or takes its master away (nil). A bond and a team take only ports that are down, and leave them down:
// one that is up is set down before, and up again. A bond that loses its last port gets an address by chance, unless it had the port's
// own: it is given back the one it had.
func (n *namespace) setMaster(port, master *link) error {
	if port.portKind == "bond" {
		bond, err := n.linkByIndex(port.master)
		if err != nil {
			return err
		}
		if err := n.join(port, master); err != nil || bond == nil {
			return err
		}
		return n.keepAddress(bond, port)
	}
	return n.join(port, master)
}

func (n *namespace) keepAddress(bond, port *link) error {
	now, err := n.linkByIndex(bond.index)
	if err != nil || now == nil || now.fields["mac"] == bond.fields["mac"] {
		return err
	}
	left, err := n.linkByIndex(port.index)
	if err != nil || left != nil && left.fields["mac"] == bond.fields["mac"] {
		return err
	}
	a := linkHead(unix.AF_UNSPEC, bond.index, 0, 0)
	attribute, _ := find(linkFields, "mac")
	if err := attribute.put(a, bond.fields["mac"]); err != nil {
		return err
	}
	return n.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes())
}

func (n *namespace) join(port, master *link) error {
	closes := func(kind string) bool { return kind == "bond" || kind == "team" }
	up := port.flags&unix.IFF_UP != 0
	restart := up && (closes(port.portKind) || master != nil && closes(master.kind))
	if up && master != nil && closes(master.kind) {
		if err := n.setUp(port.index, false); err != nil {
			return err
		}
	}
	a := linkHead(unix.AF_UNSPEC, port.index, 0, 0)
	index := 0
	if master != nil {
		index = master.index
	}
	a.Uint32(unix.IFLA_MASTER, uint32(index))
	err := n.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes())
	if restart {
		err = errors.Join(err, n.setUp(port.index, true))
	}
	return err
}

func (n *namespace) setUp(index int, up bool) error {
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	return n.conn.Do(unix.RTM_NEWLINK, 0, linkHead(unix.AF_UNSPEC, index, flags, unix.IFF_UP).Bytes())
}

func changeAttachment(w *work) (apply.Done, error) {
	port, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	err = changeEach(w.step.Changes, func(c plan.FieldChange) error {
		if c.Field == "master" {
			master, err := w.master(c.New.Link())
			if err != nil {
				return err
			}
			err = w.ns.setMaster(port, master)
			if err == nil {
				port.master, port.portKind = master.index, master.kind
			}
			return err
		}
		return w.setPort(port.index, port.portKind, model.Fields{c.Field: c.New})
	})
	return apply.Done{Index: port.index}, err
}

func deleteAttachment(w *work) (apply.Done, error) {
	port, err := w.link()
	if err != nil || port == nil || port.master == 0 {
		return apply.Done{}, err
	}
	// Somebody else may have given it to another master meanwhile.
	if master := w.step.Fields["master"].Link(); master != "" {
		l, err := w.ns.linkByName(master.Name())
		if err != nil {
			return apply.Done{}, err
		}
		if l == nil || l.index != port.master {
			return apply.Done{}, nil
		}
	}
	return apply.Done{}, w.ns.setMaster(port, nil)
}
