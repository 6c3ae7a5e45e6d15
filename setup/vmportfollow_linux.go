package setup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrPortGone is what [AttachedVM.Follow] returns, wrapped, once the port is no more.
var ErrPortGone = errors.New("the port is gone")

// Follow keeps the port like the tunnel's tap until ctx ends: its MTU, and its carrier while a machine has it open (a
// macvtap's carrier is the kernel's work). A port of kind tap is joined again with a tap of the same name that takes the place of
// the first, as when the tunnel starts again; meanwhile it has no carrier. A macvtap goes with its tap, and Follow returns
// ErrPortGone. The carrier is the host's view: QEMU does not tell its guest.
func (a *AttachedVM) Follow(ctx context.Context) error {
	for {
		done := make(chan struct{})
		changes := make(chan netlink.LinkUpdate, 64)
		err := inNamespace(a.netns, func() error { return netlink.LinkSubscribe(changes, done) })
		if err != nil {
			close(done)
			return &OpError{Op: "watch", Item: a.spec.Link, Err: err}
		}
		err = a.heed(ctx, changes)
		close(done)
		for range changes {
			// The subscription's goroutine ends when nothing it has is left.
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		// Changes came faster than they were read, and some are lost.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// heed acts on changes until there are no more of them, or ctx ends.
func (a *AttachedVM) heed(ctx context.Context, changes <-chan netlink.LinkUpdate) error {
	for {
		if err := a.align(); err != nil {
			return err
		}
		for relevant := false; !relevant; {
			select {
			case <-ctx.Done():
				return nil
			case c, ok := <-changes:
				if !ok {
					return nil
				}
				relevant = a.concerns(c)
			}
		}
	}
}

func (a *AttachedVM) concerns(c netlink.LinkUpdate) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(c.Index) == a.link || int(c.Index) == a.index || c.Link != nil && c.Attrs().Name == a.spec.Link
}

// align makes the port what it should be now.
func (a *AttachedVM) align() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return nil
	}
	return inNamespace(a.netns, func() error {
		unlock, err := lockNamespace()
		if err != nil {
			return &OpError{Op: "watch", Item: a.spec.Link, Err: err}
		}
		defer unlock()
		port, err := markedLink(a.index, a.mark)
		if gone(err) {
			e := &OpError{Op: "keep the virtual machine's port on", Item: a.spec.Link, Err: ErrPortGone}
			if a.spec.Kind == VMPortMacvtap {
				e.Hint = "a macvtap goes with the tunnel's interface, as when the tunnel starts again"
			}
			return e
		}
		if err != nil {
			return err
		}
		link, err := netlink.LinkByIndex(a.link)
		if gone(err) && a.spec.Kind == VMPortTap {
			link, err = a.rejoin(port)
		}
		if err != nil || link == nil {
			return err
		}
		if mtu := link.Attrs().MTU; mtu != port.Attrs().MTU {
			if err := netlink.LinkSetMTU(port, mtu); err != nil {
				return &OpError{Op: "set MTU", Item: fmt.Sprintf("%d dev %s", mtu, port.Attrs().Name), Err: err}
			}
		}
		if a.spec.Kind == VMPortTap {
			return alignCarrier(port, link)
		}
		return nil
	})
}

// rejoin joins the port with the tap that has come in the place of the one before; nil where there is none.
func (a *AttachedVM) rejoin(port netlink.Link) (netlink.Link, error) {
	link, err := tapByName(a.spec.Link)
	if err != nil {
		return nil, setCarrier(port, false)
	}
	if err := occupied(link); err != nil {
		return nil, err
	}
	// What led to the old tap; the rest of the port stays.
	if _, err := dropRedirects(a.index, port.Attrs().Name, func(int) bool { return true }); err != nil {
		return nil, err
	}
	before := len(a.steps)
	if err := crossConnect(&a.steps, end{a.index, port.Attrs().Name}, end{link.Attrs().Index, a.spec.Link}); err != nil {
		undone := a.steps[before:]
		a.steps = a.steps[:before]
		return nil, errors.Join(err, undone.undo())
	}
	a.link = link.Attrs().Index
	return link, nil
}

// alignCarrier gives the port the carrier of the tunnel's tap. Without a machine that has it open a tap has none, whatever is
// set.
func alignCarrier(port, link netlink.Link) error {
	const carrier = unix.IFF_LOWER_UP
	want, have := link.Attrs().RawFlags&carrier != 0, port.Attrs().RawFlags&carrier != 0
	if want == have {
		return nil
	}
	err := setCarrier(port, want)
	if want && errors.Is(err, unix.EPERM) {
		return nil // no machine
	}
	return err
}

// setCarrier sets a tap's carrier (IFLA_CARRIER; Linux 5.0).
func setCarrier(link netlink.Link, on bool) error {
	value := byte(0)
	if on {
		value = 1
	}
	req := linkChange(link.Attrs().Index)
	req.AddData(nl.NewRtAttr(unix.IFLA_CARRIER, []byte{value}))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !gone(err) {
		return &OpError{Op: "set carrier of", Item: link.Attrs().Name, Err: err}
	}
	return nil
}

// setNoAddressGeneration keeps the kernel from giving a link an IPv6 address (IFLA_INET6_ADDR_GEN_MODE).
func setNoAddressGeneration(index int) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	req := linkChange(index)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	families.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{none})
	req.AddData(families)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// linkChange is a request that changes nothing but what is added to it.
func linkChange(index int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	return req
}
