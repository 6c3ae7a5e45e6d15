package setup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VethEnd is one end of a veth pair.
type VethEnd struct {
	Namespace *Namespace // nil: that of the calling thread
	Name      string     // at most 15 bytes
	MAC       net.HardwareAddr
	Addresses []netip.Prefix // with the host part; usable at once, without duplicate address detection
}

// VethPair makes two Ethernet devices joined like by a cable, each in its namespace, with their addresses and up. An MTU
// of 0 leaves the kernel's 1500. Deleting either end, or its namespace, deletes both.
func VethPair(a, b VethEnd, mtu int) error {
	for _, name := range []string{a.Name, b.Name} {
		if err := CheckLinkName(name); err != nil {
			return &OpError{Op: "create veth", Item: name, Err: err}
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.Name
	attrs.MTU = mtu
	attrs.HardwareAddr = a.MAC
	veth := netlink.NewVeth(attrs)
	veth.PeerName = b.Name
	veth.PeerHardwareAddr = b.MAC
	veth.PeerMTU = uint32(mtu)
	// The peer's namespace is found before entering the other one.
	peerNetns, err := b.openNetns()
	if err != nil {
		return &OpError{Op: "create veth", Item: a.Name, Err: err}
	}
	defer unix.Close(peerNetns)
	veth.PeerNamespace = netlink.NsFd(peerNetns)
	item := fmt.Sprintf("%s with peer %s", a.Name, b.Name)
	if err := a.do(func() error { return netlink.LinkAdd(veth) }); err != nil {
		return &OpError{Op: "create veth", Item: item, Err: err, Hint: permissionHint(err)}
	}
	ends := []VethEnd{a, b}
	for _, step := range []func(VethEnd) error{configureVeth, awaitCarrier} {
		for _, end := range ends {
			if err := end.do(func() error { return step(end) }); err != nil {
				return errors.Join(err, a.do(func() error { return netlink.LinkDel(veth) }))
			}
		}
	}
	return nil
}

func (e VethEnd) openNetns() (int, error) {
	if e.Namespace == nil {
		return openThreadNetns()
	}
	return e.Namespace.open()
}

func (e VethEnd) do(f func() error) error {
	if e.Namespace == nil {
		return f()
	}
	return e.Namespace.Do(f)
}

func configureVeth(e VethEnd) error {
	link, err := netlink.LinkByName(e.Name)
	if err != nil {
		return &OpError{Op: "find link", Item: e.Name, Err: err}
	}
	for _, p := range e.Addresses {
		if err := addAddress(link.Attrs().Index, p, unix.IFA_F_NODAD); err != nil {
			return &OpError{Op: "add address", Item: p.String() + " dev " + e.Name, Err: err}
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return &OpError{Op: "set link up", Item: e.Name, Err: err}
	}
	return nil
}

// carrierTimeout bounds the wait for a new veth pair to become operational, which takes the kernel some microseconds.
const carrierTimeout = 5 * time.Second

// awaitCarrier waits until the end is operational. Both being up tells the kernel so, but only its worker installs the
// queueing discipline, and until then packets are lost: the first neighbour solicitation would cost a second.
func awaitCarrier(e VethEnd) error {
	for end := time.After(carrierTimeout); ; {
		link, err := netlink.LinkByName(e.Name)
		if err != nil {
			return &OpError{Op: "find link", Item: e.Name, Err: err}
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-end:
			return &OpError{Op: "await carrier of", Item: e.Name,
				Err: fmt.Errorf("still %s after %v", link.Attrs().OperState, carrierTimeout)}
		case <-time.After(time.Millisecond):
		}
	}
}
