package setup

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VMPortKind is how a virtual machine gets at a tunnel's tap, whose own descriptor the tunnel reads and writes.
type VMPortKind uint8

const (
	// VMPortMacvtap is a macvtap in passthru mode on the tunnel's tap. The machine takes its descriptor.
	VMPortMacvtap VMPortKind = iota
	// VMPortTap is a second tap, joined with the tunnel's frame for frame. The machine opens it by its name.
	VMPortTap
)

func (k VMPortKind) String() string {
	if k == VMPortTap {
		return "tap"
	}
	return "macvtap"
}

// VMPort is a device by which one virtual machine becomes the station at a tunnel's end, without a bridge. Every frame
// crosses as it is, whatever its addresses and VLAN tags, so the machine's own MAC address is free. A tunnel's tap has room for one.
type VMPort struct {
	Link      string // the tunnel's tap
	Namespace string // file of the namespace the tap is in; "" is that of the calling thread
	Kind      VMPortKind
	Name      string // of the new device; "" is the first free one of vmtap0, vmtap1 and so on
}

// AttachedVM is a VMPort in force. Its methods may be called concurrently.
type AttachedVM struct {
	spec  VMPort
	mark  string
	netns int
	file  *os.File

	mu    sync.Mutex
	index int // of the port
	link  int // of the tunnel's tap
	steps journal
	gone  bool
}

// LinkGroup is the group number of devices culvert makes beside its tunnels: the one mark that is there from a device's
// creation on ("cv").
const LinkGroup = 0x6376

// AttachVM makes the port and sets it up, with the MTU of the tunnel's tap. Before that it removes the ports in the namespace whose
// owner is gone; the calling process owns the new one. A call that fails leaves nothing behind. It never takes over a device
// that is there already.
func AttachVM(p VMPort) (*AttachedVM, error) {
	item := p.Name + " on " + p.Link
	if p.Name == "" {
		item = p.Link
	}
	fail := func(err error) (*AttachedVM, error) {
		if _, ok := errors.AsType[*OpError](err); ok {
			return nil, err
		}
		return nil, &OpError{Op: "create " + p.Kind.String(), Item: item, Err: err, Hint: permissionHint(err)}
	}
	if p.Name != "" {
		if err := CheckLinkName(p.Name); err != nil {
			return fail(err)
		}
	}
	mark, err := ownMark()
	if err != nil {
		return fail(err)
	}
	netns, err := openNetns(p.Namespace)
	if err != nil {
		return fail(err)
	}
	a := &AttachedVM{spec: p, mark: mark, netns: netns}
	err = inNamespace(netns, func() error {
		unlock, err := lockNamespace()
		if err != nil {
			return err
		}
		defer unlock()
		if _, err := reapVMPorts(); err != nil {
			return err
		}
		if err := a.create(); err != nil {
			return errors.Join(err, a.steps.undo())
		}
		return nil
	})
	if err != nil {
		if a.file != nil {
			a.file.Close()
		}
		unix.Close(netns)
		return fail(err)
	}
	return a, nil
}

// lockNamespace takes a lock on the thread's network namespace, so that no two calls find a device of the other half made.
func lockNamespace() (unlock func(), err error) {
	fd, err := openThreadNetns()
	if err != nil {
		return nil, err
	}
	if err := flock(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("lock the network namespace: %w", err)
	}
	return func() { unix.Close(fd) }, nil
}

func (a *AttachedVM) create() error {
	link, err := tapByName(a.spec.Link)
	if err != nil {
		return err
	}
	a.link = link.Attrs().Index
	if err := occupied(link); err != nil {
		return err
	}
	createAs := a.createMacvtap
	if a.spec.Kind == VMPortTap {
		createAs = a.createTap
	}
	if a.spec.Name != "" {
		return createAs(link, a.spec.Name)
	}
	const names = 1 << 16
	for i := range names {
		name := fmt.Sprintf("vmtap%d", i)
		err = createAs(link, name)
		if !errors.Is(err, errNameInUse) {
			return err
		}
	}
	return err
}

// errNameInUse is wrapped by the refusal of a device's name that another one has.
var errNameInUse = errors.New("a device of that name is there already")

func tapByName(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, &OpError{Op: "find link", Item: name, Err: err}
	}
	if t, ok := link.(*netlink.Tuntap); !ok || t.Mode != netlink.TUNTAP_MODE_TAP {
		return nil, &OpError{Op: "attach a virtual machine to", Item: name, Err: fmt.Errorf("it is a %s, not a tap", kindOf(link)),
			Hint: "only a tunnel with mode: tap carries a machine's Ethernet frames"}
	}
	return link, nil
}

func kindOf(link netlink.Link) string {
	if t, ok := link.(*netlink.Tuntap); ok && t.Mode == netlink.TUNTAP_MODE_TUN {
		return "tun"
	}
	return link.Type()
}

// occupied returns an error where somebody else takes the frames that come out of the tunnel.
func occupied(link netlink.Link) error {
	name := link.Attrs().Name
	refuse := func(format string, args ...any) error {
		return &OpError{Op: "attach a virtual machine to", Item: name, Err: fmt.Errorf(format+": %w", append(args, unix.EBUSY)...),
			Hint: "a tunnel's tap has room for one; give several machines a bridge with the tunnel's tap and theirs as ports"}
	}
	links, err := dumped(netlink.LinkList)
	if err != nil {
		return &OpError{Op: "list links", Err: err}
	}
	for _, l := range links {
		attrs := l.Attrs()
		stacked := l.Type() == "macvtap" || l.Type() == "macvlan" || l.Type() == "ipvlan" || l.Type() == "ipvtap"
		switch {
		case attrs.Index == link.Attrs().MasterIndex:
			return refuse("it is a port of %s", attrs.Name)
		case stacked && attrs.ParentIndex == link.Attrs().Index && attrs.NetNsID < 0:
			return refuse("it carries the %s %s", l.Type(), attrs.Name)
		}
	}
	redirects, err := ingressRedirects(link.Attrs().Index)
	if err != nil {
		return err
	}
	if len(redirects) > 0 {
		return refuse("it is joined with another device")
	}
	return nil
}

func (a *AttachedVM) createMacvtap(link netlink.Link, name string) error {
	item := name + " on " + a.spec.Link
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Group = name, a.link, LinkGroup
	// Without an MTU the kernel takes the tap's, and without an address the tap's own.
	err := netlink.LinkAdd(&netlink.Macvtap{Macvlan: netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PASSTHRU}})
	if errors.Is(err, unix.EEXIST) {
		return &OpError{Op: "create macvtap", Item: item, Err: fmt.Errorf("%w: %w", errNameInUse, err), Hint: "choose another name"}
	}
	if err != nil {
		return &OpError{Op: "create macvtap", Item: item, Err: err, Hint: missingHint(err, "CONFIG_MACVTAP", "macvtap")}
	}
	port, err := netlink.LinkByName(name)
	if err != nil {
		return &OpError{Op: "find link", Item: name, Err: err}
	}
	a.index = port.Attrs().Index
	a.steps.add("delete link", name, func() error { return deleteMarked(a.index, a.mark) })
	if err := netlink.LinkSetAlias(port, a.mark); err != nil {
		// Not marked, it is not deleted by its mark.
		return errors.Join(&OpError{Op: "set alias of", Item: name, Err: err}, netlink.LinkDel(port))
	}
	// Of multicast frames a macvtap takes only those the host subscribed to, and it knows nothing of the guest's groups. While it is
	// down: in passthru mode the kernel counts what is asked of the tap below only then without a mistake.
	if err := netlink.LinkSetAllmulticastOn(port); err != nil {
		return &OpError{Op: "let all multicast frames to", Item: name, Err: err}
	}
	if err := a.setPortUp(port, name); err != nil {
		return err
	}
	a.file, err = openMacvtap(name, a.index)
	return err
}

func (a *AttachedVM) createTap(link netlink.Link, name string) error {
	// A child of this process that is about to become another program has all descriptors for a moment: nobody else could open the tap.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	item := name + " on " + a.spec.Link
	fd, err := unix.Open(devNetTun, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &OpError{Op: "open", Item: devNetTun, Err: err, Hint: missingHint(err, "CONFIG_TUN", "tun")}
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return &OpError{Op: "create tap", Item: item, Err: err}
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	if errors.Is(err, unix.EBUSY) {
		return &OpError{Op: "create tap", Item: item, Err: fmt.Errorf("%w: %w", errNameInUse, err), Hint: "choose another name"}
	}
	if err != nil {
		return &OpError{Op: "create tap", Item: item, Err: err, Hint: permissionHint(err)}
	}
	// Until it is marked it goes with the descriptor.
	port, err := netlink.LinkByName(name)
	if err != nil {
		return &OpError{Op: "find link", Item: name, Err: err}
	}
	a.index = port.Attrs().Index
	if err := netlink.LinkSetGroup(port, LinkGroup); err != nil {
		return &OpError{Op: "set group of", Item: name, Err: err}
	}
	if err := netlink.LinkSetAlias(port, a.mark); err != nil {
		return &OpError{Op: "set alias of", Item: name, Err: err}
	}
	a.steps.add("delete link", name, func() error { return deleteMarked(a.index, a.mark) })
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return &OpError{Op: "keep tap", Item: name, Err: err}
	}
	if err := netlink.LinkSetMTU(port, link.Attrs().MTU); err != nil {
		return &OpError{Op: "set MTU", Item: fmt.Sprintf("%d dev %s", link.Attrs().MTU, name), Err: err}
	}
	if err := a.setPortUp(port, name); err != nil {
		return err
	}
	return crossConnect(&a.steps, end{a.index, name}, end{a.link, a.spec.Link})
}

const devNetTun = "/dev/net/tun"

// setPortUp sets the port up without IPv6 of its own: the host has no part in what crosses it, and would announce itself.
func (a *AttachedVM) setPortUp(port netlink.Link, name string) error {
	if err := silenceIPv6(a.index, name); err != nil {
		return &OpError{Op: "switch IPv6 off on", Item: name, Err: err}
	}
	if err := netlink.LinkSetUp(port); err != nil {
		return &OpError{Op: "set link up", Item: name, Err: err, Hint: permissionHint(err)}
	}
	return nil
}

// Name is the port's device; its own MAC address is of no account.
func (a *AttachedVM) Name() (string, error) {
	name := ""
	err := a.inside(func() error {
		port, err := markedLink(a.index, a.mark)
		if err == nil {
			name = port.Attrs().Name
		}
		return err
	})
	return name, err
}

// MTU is the port's MTU in bytes, that of the tunnel's tap.
func (a *AttachedVM) MTU() (int, error) {
	mtu := 0
	err := a.inside(func() error {
		port, err := markedLink(a.index, a.mark)
		if err == nil {
			mtu = port.Attrs().MTU
		}
		return err
	})
	return mtu, err
}

// File is the descriptor of a macvtap, for QEMU's "-netdev tap,fd=": frames with a virtio-net header in front
// (IFF_VNET_HDR), whose length and offloads QEMU sets itself. It stays open until Remove. Nil for a tap.
func (a *AttachedVM) File() *os.File { return a.file }

// inside runs f in the port's namespace with the state locked.
func (a *AttachedVM) inside(f func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return &OpError{Op: "look at the port on", Item: a.spec.Link, Err: os.ErrClosed}
	}
	return inNamespace(a.netns, f)
}

// Verify returns what of the port is not as it was made.
func (a *AttachedVM) Verify() error {
	return a.inside(func() error {
		port, err := markedLink(a.index, a.mark)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(a.spec.Link)
		if err != nil {
			return &OpError{Op: "find link", Item: a.spec.Link, Err: err}
		}
		name := port.Attrs().Name
		var errs []error
		wrong := func(format string, args ...any) {
			errs = append(errs, &OpError{Op: "verify", Item: name, Err: fmt.Errorf(format, args...)})
		}
		if port.Attrs().RawFlags&unix.IFF_UP == 0 {
			wrong("it is down")
		}
		if have, want := port.Attrs().MTU, link.Attrs().MTU; have != want {
			wrong("its MTU is %d, that of %s is %d", have, a.spec.Link, want)
		}
		if link.Attrs().Index != a.link {
			wrong("%s is another device than before", a.spec.Link)
		}
		if a.spec.Kind == VMPortMacvtap {
			if m, ok := port.(*netlink.Macvtap); !ok || m.Mode != netlink.MACVLAN_MODE_PASSTHRU || port.Attrs().ParentIndex != a.link {
				wrong("it is no macvtap in passthru mode on %s", a.spec.Link)
			}
			if port.Attrs().RawFlags&unix.IFF_ALLMULTI == 0 {
				wrong("it does not take all multicast frames")
			}
			return errors.Join(errs...)
		}
		for _, way := range [][2]end{{{a.index, name}, {a.link, a.spec.Link}}, {{a.link, a.spec.Link}, {a.index, name}}} {
			switch ok, err := redirectsTo(way[0].index, way[1].index); {
			case err != nil:
				errs = append(errs, err)
			case !ok:
				wrong("what comes in by %s does not go out by %s", way[0].name, way[1].name)
			}
		}
		return errors.Join(errs...)
	})
}

// Remove takes the port away and closes its descriptor. Removing twice, or what is gone already, is no error.
func (a *AttachedVM) Remove() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return nil
	}
	a.gone = true
	if a.file != nil {
		a.file.Close()
	}
	defer unix.Close(a.netns)
	return inNamespace(a.netns, a.steps.undo)
}

// missingHint names the kernel's option where an error says that it lacks a feature: no such kind of link (EOPNOTSUPP), of
// queueing discipline or classifier (ENOENT), or no driver behind a device node (ENODEV, ENXIO).
func missingHint(err error, option string, modules ...string) string {
	for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOENT, unix.ENODEV, unix.ENXIO} {
		if errors.Is(err, errno) {
			return "the kernel needs " + option + ": modprobe -a " + strings.Join(modules, " ")
		}
	}
	return permissionHint(err)
}
