package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
)

var _ apply.Deleter = (*Kernel)(nil)

// DeleteLinks deletes links (see [apply.Deleter]): those of a namespace are put into a group that no other link is in, and that group is
// deleted, by one request. One that is gone is no error, and one that is not culvert's, or another than the step means, is one before
// anything is deleted in its namespace.
//
// The group is one of culvert's own ([model.DoomedGroup]). Where the process is killed before the request the links are known by it, and by
// their alias, which stays.
func (k *Kernel) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	var order []*namespace
	links := make(map[*namespace][]*link)
	for i := range steps {
		s := &steps[i]
		if s.Op != plan.Delete || s.ID.Kind() != model.KindLink {
			return stepError(s, errors.ErrUnsupported)
		}
		ns, err := k.namespaceOf(s)
		if err != nil {
			return stepError(s, err)
		}
		if ns == nil {
			continue
		}
		l, err := (&work{k: k, step: s, ns: ns}).doomed()
		if err != nil {
			return stepError(s, err)
		}
		if l == nil {
			continue
		}
		if links[ns] == nil {
			order = append(order, ns)
		}
		links[ns] = append(links[ns], l)
	}
	for _, ns := range order {
		if err := ns.deleteLinks(links[ns]); err != nil {
			return fmt.Errorf("delete %d links: %w", len(links[ns]), err)
		}
	}
	return nil
}

// deleteLinks deletes links together; where it fails they all are as they were, or gone.
func (n *namespace) deleteLinks(links []*link) (err error) {
	if len(links) == 1 {
		return n.deleteLink(links[0].index)
	}
	group := model.DoomedGroup(uint16(rand.Uint32()))
	var moved []*link
	defer func() {
		if err != nil {
			err = errors.Join(err, n.moveBack(moved))
		}
	}()
	for _, l := range links {
		switch err := n.setGroup(l.index, group); {
		case errors.Is(err, unix.ENODEV): // it is gone, with what it was on
		case err != nil:
			return err
		default:
			moved = append(moved, l)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	if err := n.holdsOnly(group, moved); err != nil {
		return err
	}
	a := linkHead(unix.AF_UNSPEC, 0, 0, 0)
	a.Uint32(unix.IFLA_GROUP, group)
	err = n.conn.Do(unix.RTM_DELLINK, 0, a.Bytes())
	if errors.Is(err, unix.ENODEV) {
		err = nil // all of them are gone
	}
	return err
}

func (n *namespace) setGroup(index int, group uint32) error {
	a := linkHead(unix.AF_UNSPEC, index, 0, 0)
	a.Uint32(unix.IFLA_GROUP, group)
	return n.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes())
}

// moveBack puts links into the groups they were in; one that is gone is no error.
func (n *namespace) moveBack(links []*link) (err error) {
	for _, l := range links {
		if back := n.setGroup(l.index, l.group); back != nil && !errors.Is(back, unix.ENODEV) {
			err = errors.Join(err, fmt.Errorf("back to group %d with %s: %w", l.group, l.name, back))
		}
	}
	return err
}

// holdsOnly reports, by an error, a link in a group that is none of those given: one that another process has left there.
func (n *namespace) holdsOnly(group uint32, links []*link) error {
	a := linkHead(unix.AF_UNSPEC, 0, 0, 0)
	a.Uint32(unix.IFLA_EXT_MASK, skipStats)
	messages, err := n.conn.Dump(unix.RTM_GETLINK, a.Bytes())
	if err != nil {
		return err
	}
	want := make(map[int]bool, len(links))
	for _, l := range links {
		want[l.index] = true
	}
	for _, m := range messages {
		if len(m) < infoLength {
			continue
		}
		index := int(int32(binary.NativeEndian.Uint32(m[4:])))
		attributes := maps.Collect(rtnl.All(m[infoLength:]))
		if uint32(rtnl.Uint(attributes[unix.IFLA_GROUP])) == group && !want[index] {
			return fmt.Errorf("%s is in group %d too: %w", cleanName(attributes[unix.IFLA_IFNAME]), group, errRefused)
		}
	}
	return nil
}
