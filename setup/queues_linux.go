package setup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MaxQueues bounds the queues that one call opens: so many descriptors fit into one message of a unix socket (SCM_MAX_FD).
const MaxQueues = 253

// Queues are the open queues of a tap, macvtap or ipvtap, and what a virtual machine's network card behind them has to know.
type Queues struct {
	Files   []*os.File // one per queue, in blocking mode
	Device  string
	Kind    string           // tap, macvtap, ipvtap
	MAC     net.HardwareAddr // a guest on a macvtap or ipvtap has to use it
	MTU     int              // bytes
	VNetHdr bool             // frames have a virtio-net header in front (IFF_VNET_HDR)
}

// Close closes the queues.
func (q *Queues) Close() error {
	var errs []error
	for _, f := range q.Files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// OpenQueues opens n queues of a tap, macvtap or ipvtap in a namespace (a file, or "" for the calling thread's). The device must
// have that index, unless index is 0, and nobody else may have a queue of it open: two readers would each get a part of the frames. The
// answer is then EBUSY.
func OpenQueues(namespace, name string, index, n int) (*Queues, error) {
	fail := func(err error) (*Queues, error) {
		if _, ok := errors.AsType[*OpError](err); ok {
			return nil, err
		}
		return nil, &OpError{Op: "open the queues of", Item: name, Err: err, Hint: permissionHint(err)}
	}
	if n < 1 || n > MaxQueues {
		return fail(fmt.Errorf("%d queues, there can be 1 to %d", n, MaxQueues))
	}
	netns, err := openNetns(namespace)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(netns)
	var q *Queues
	err = inNamespace(netns, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return &OpError{Op: "find link", Item: name, Err: err}
		}
		attrs := link.Attrs()
		if index != 0 && attrs.Index != index {
			return fmt.Errorf("the device of that name has index %d by now, not %d: %w", attrs.Index, index, unix.ENODEV)
		}
		q = &Queues{Device: name, MAC: attrs.HardwareAddr, MTU: attrs.MTU}
		switch l := link.(type) {
		case *netlink.Tuntap:
			err = q.openTap(l, n)
		case *netlink.Macvtap:
			err = q.openTapNodes("macvtap", attrs.Index, n)
		case *netlink.IPVtap:
			err = q.openTapNodes("ipvtap", attrs.Index, n)
		default:
			err = fmt.Errorf("it is a %s, which no virtual machine can have: a tap, macvtap or ipvtap", link.Type())
		}
		if err != nil {
			q.Close()
		}
		return err
	})
	if err != nil {
		return fail(err)
	}
	return q, nil
}

// openTap attaches to a tap that is there. The flags that are not the queue's own have to be those it was made with.
func (q *Queues) openTap(link *netlink.Tuntap, n int) error {
	if link.Mode != netlink.TUNTAP_MODE_TAP {
		return errors.New("it is a tun, which carries no Ethernet frames")
	}
	multi := link.Flags&netlink.TUNTAP_MULTI_QUEUE != 0
	switch {
	case n > 1 && !multi:
		return fmt.Errorf("%d queues of a tap that has one", n)
	case link.Queues+link.DisabledQueues > 0:
		return fmt.Errorf("somebody has it open: %w", unix.EBUSY)
	}
	q.Kind, q.VNetHdr = "tap", link.Flags&netlink.TUNTAP_VNET_HDR != 0
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if q.VNetHdr {
		flags |= unix.IFF_VNET_HDR
	}
	if multi {
		flags |= unix.IFF_MULTI_QUEUE
	}
	for range n {
		fd, err := unix.Open(devNetTun, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return &OpError{Op: "open", Item: devNetTun, Err: err, Hint: missingHint(err, "CONFIG_TUN", "tun")}
		}
		ifr, err := unix.NewIfreq(q.Device)
		if err == nil {
			ifr.SetUint16(flags)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		q.Files = append(q.Files, os.NewFile(uintptr(fd), q.Device))
	}
	return nil
}

func (q *Queues) openTapNodes(class string, index, n int) error {
	q.Kind, q.VNetHdr = class, true
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if n > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	// A child of this process that is about to become another program has all descriptors for a moment.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for i := range n {
		f, err := openTapNode(class, q.Device, index, flags)
		if err != nil {
			return err
		}
		q.Files = append(q.Files, f)
		if i > 0 {
			continue
		}
		switch holder, err := otherHolder(f); {
		case err != nil:
			return err
		case holder != 0:
			return fmt.Errorf("process %d has it open: %w", holder, unix.EBUSY)
		}
	}
	return nil
}

// otherHolder returns a process that has the character device open besides this one's f, or 0. The kernel itself lets everybody
// have queues of a macvtap and spreads the flows over them.
func otherHolder(f *os.File) (pid int, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	own := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	for _, p := range processes {
		descriptors, err := os.ReadDir(p + "/fd")
		if err != nil { // it has ended
			continue
		}
		for _, d := range descriptors {
			path := p + "/fd/" + d.Name()
			var other unix.Stat_t
			if unix.Stat(path, &other) != nil || other.Mode&unix.S_IFMT != unix.S_IFCHR || other.Rdev != st.Rdev || path == own {
				continue
			}
			_, _ = fmt.Sscanf(p, "/proc/%d", &pid)
			return pid, nil
		}
	}
	return 0, nil
}
