package device

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	devNetTun = "/dev/net/tun"
	maxName   = unix.IFNAMSIZ - 1
	maxQueues = 256 // MAX_TAP_QUEUES

	// Offload flags of TUNSETOFFLOAD (linux/if_tun.h).
	offerChecksum = 0x01
	offerTSO4     = 0x02
	offerTSO6     = 0x04
	offerUSO4     = 0x20 // from Linux 6.2
	offerUSO6     = 0x40
)

// OpenError is why an interface could not be opened.
type OpenError struct {
	Layer Layer
	Name  string // as asked for
	Err   error
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("open %s %q: %v", e.Layer.kind(), e.Name, e.Err)
}
func (e *OpenError) Unwrap() error { return e.Err }

// openInterface opens an interface in the namespace of the calling thread and has it configured before anything else is
// told of it. Errors are an [*OpenError].
func openInterface(layer Layer, name string, queues int, configure func(*kernelInterface) error) (*kernelInterface, error) {
	runtime.LockOSThread() // the namespace is the thread's
	defer runtime.UnlockOSThread()
	if name == "" {
		name = layer.kind() + "%d"
	}
	d := newInterface(layer)
	err := d.open(name, max(1, queues))
	if err == nil {
		err = configure(d)
	}
	if err != nil {
		_ = d.Close()
		return nil, &OpenError{Layer: layer, Name: name, Err: err}
	}
	d.watch.Go(d.watchLink)
	return d, nil
}

// open attaches to count queues of the interface name.
func (d *kernelInterface) open(name string, count int) (err error) {
	if err := checkName(name); err != nil {
		return err
	}
	if count > maxQueues {
		return fmt.Errorf("%d queues; the kernel allows %d", count, maxQueues)
	}
	flags := d.layer.flag() | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if count > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	for i := range count {
		var fd int
		if i == 0 {
			fd, name, err = d.attachFirst(name, flags)
		} else {
			fd, _, err = d.attach(name, flags)
		}
		if err != nil {
			return err
		}
		if err := d.add(fd, true); err != nil {
			return err
		}
	}
	d.link, err = openLink(name)
	return err
}

// configure sets what both kinds have in common.
func (d *kernelInterface) configure(mtu int, persist bool) error {
	if err := d.offer(); err != nil {
		return err
	}
	if mtu != 0 {
		if err := d.SetMTU(mtu); err != nil {
			return err
		}
	}
	if persist { // last, for nothing to stay of an interface that fails before
		if err := d.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1) }); err != nil {
			return fmt.Errorf("make it persistent: %w", err)
		}
	}
	return nil
}

// interfaceFromFD makes a device of one queue from fd, which it takes over.
func interfaceFromFD(layer Layer, fd int) (_ *kernelInterface, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d := newInterface(layer)
	defer func() {
		if err != nil {
			_ = d.Close()
			err = fmt.Errorf("%s from file descriptor %d: %w", layer.kind(), fd, err)
		}
	}()
	if _, err := d.addAttached(fd); err != nil {
		return nil, err
	}
	if err := d.begin(); err != nil {
		return nil, err
	}
	return d, nil
}

// addAttached adds a queue that is attached to an interface of the device's layer already, and returns that one's name. The descriptor is the
// device's from then on, and closed on error.
func (d *kernelInterface) addAttached(fd int) (name string, err error) {
	ifr, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("not an attached %s: %w", d.layer.kind(), err)
	case ifr.Uint16()&d.layer.flag() == 0:
		err = fmt.Errorf("interface %s is no %s: %w", ifr.Name(), d.layer.kind(), unix.EINVAL)
	}
	if err != nil {
		_ = unix.Close(fd)
		return "", err
	}
	return ifr.Name(), d.add(fd, ifr.Uint16()&unix.IFF_VNET_HDR != 0)
}

// begin starts what goes on beside the queues, once they are all there.
func (d *kernelInterface) begin() (err error) {
	if err := d.offer(); err != nil {
		return err
	}
	if d.link, err = d.findLink(); err != nil {
		return err
	}
	d.watch.Go(d.watchLink)
	return nil
}

func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("a name has at most %d bytes: %w", maxName, unix.ENAMETOOLONG)
	case name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r\x00"):
		return fmt.Errorf("not a name for an interface: %w", unix.EINVAL)
	}
	return nil
}

// attachFirst attaches to the interface name or creates it.
func (d *kernelInterface) attachFirst(name string, flags uint16) (fd int, actual string, err error) {
	if flags&unix.IFF_MULTI_QUEUE == 0 {
		return d.attach(name, flags)
	}
	// The kernel would let us join the queues of another process. One that is not persistent exists only because
	// somebody has it open.
	fd, actual, err = d.attach(name, flags|unix.IFF_TUN_EXCL)
	if !errors.Is(err, unix.EBUSY) {
		return fd, actual, err
	}
	busy := err
	if fd, actual, err = d.attach(name, flags); err != nil {
		return -1, "", err
	}
	ifr, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr)
	}
	if err == nil && ifr.Uint16()&unix.IFF_PERSIST == 0 {
		err = busy
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, "", err
	}
	return fd, actual, nil
}

// attach opens one queue of the interface.
func (d *kernelInterface) attach(name string, flags uint16) (fd int, actual string, err error) {
	fd, err = unix.Open(devNetTun, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open %s: %w", devNetTun, err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		return fd, ifr.Name(), nil
	}
	_ = unix.Close(fd)
	switch {
	case errors.Is(err, unix.EBUSY):
		err = fmt.Errorf("another process uses the interface: %w", err)
	case errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("an interface of that name is no %s, or one with another number of queues: %w", d.layer.kind(), err)
	case errors.Is(err, unix.EPERM):
		err = fmt.Errorf("this needs CAP_NET_ADMIN: %w", err)
	}
	return -1, "", err
}

// add makes a queue of fd, which it takes over.
func (d *kernelInterface) add(fd int, vnet bool) error {
	if vnet {
		err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHeader)
		if err == nil {
			err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1)
		}
		if err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("set the virtio-net header: %w", err)
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return err
	}
	// Only now: it is pollable from when it is attached.
	q := &kernelQueue{device: d, file: os.NewFile(uintptr(fd), devNetTun), vnet: vnet}
	conn, err := q.file.SyscallConn()
	if err != nil {
		_ = q.file.Close()
		return err
	}
	q.conn = conn
	q.readFunc, q.tryFunc, q.writeFunc = q.read, q.try, q.write
	d.queues = append(d.queues, q)
	return nil
}

// offer tells the kernel what it may leave undone, as much as it knows of.
func (d *kernelInterface) offer() error {
	first := d.queues[0]
	offers := []struct {
		flags int
		takes Offloads
	}{
		{offerChecksum | offerTSO4 | offerTSO6 | offerUSO4 | offerUSO6, Offloads{Checksum: true, TCP: true, UDP: true}},
		// Without any offer the kernel hands over finished packets, and takes TCP super-packets all the same.
		{offerChecksum | offerTSO4 | offerTSO6, Offloads{Checksum: true, TCP: true}},
		{0, Offloads{Checksum: true, TCP: true}},
	}
	if !first.vnet {
		offers = offers[2:]
	}
	var err error
	for _, offer := range offers {
		err = d.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offer.flags) })
		if err == nil {
			for _, q := range d.queues {
				if q.vnet {
					q.offloads = offer.takes
				}
			}
			return nil
		}
	}
	return fmt.Errorf("set offloads: %w", err)
}
