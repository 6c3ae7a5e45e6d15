package device

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrGone is what Read and Write of a tun queue return once somebody has deleted the interface.
var ErrGone = errors.New("the interface has been deleted")

// TunOptions describes a tun interface to open.
type TunOptions struct {
	// Name of at most 15 bytes. The kernel replaces a "%d" by the first free number; "" is "tun%d". An interface of that
	// name is attached to if it is a persistent tun that nobody else uses, otherwise created.
	Name string
	// MTU in bytes; 0 leaves the kernel's default or what a persistent interface has.
	MTU int
	// Queues is how many queues to open, at most 256; less than 1 is 1.
	Queues int
	// Persist keeps the interface when it is closed.
	Persist bool
}

const (
	devNetTun   = "/dev/net/tun"
	maxName     = unix.IFNAMSIZ - 1
	maxQueues   = 256 // MAX_TAP_QUEUES
	defaultName = "tun%d"

	// Offload flags of TUNSETOFFLOAD (linux/if_tun.h).
	offerChecksum = 0x01
	offerTSO4     = 0x02
	offerTSO6     = 0x04
	offerUSO4     = 0x20 // from Linux 6.2
	offerUSO6     = 0x40
)

// tun is a tun interface of the Linux kernel.
type tun struct {
	queues []*tunQueue
	events chan Event
	closed atomic.Bool
	done   chan struct{} // closed by Close
	watch  sync.WaitGroup

	mu   sync.Mutex // guards what follows
	link *link
}

// OpenTun opens a tun interface in the network namespace of the calling thread; the interface works from any thread
// afterwards, also when it is moved to another namespace. Errors are an [*OpenError], which unwraps to the kernel's errno:
// EBUSY when the name is in use, EPERM without CAP_NET_ADMIN, ENOENT without /dev/net/tun.
func OpenTun(o TunOptions) (Device, error) {
	runtime.LockOSThread() // the namespace is the thread's
	defer runtime.UnlockOSThread()
	name := o.Name
	if name == "" {
		name = defaultName
	}
	d, err := openTun(name, o)
	if err != nil {
		return nil, &OpenError{Name: name, Err: err}
	}
	return d, nil
}

// OpenError is why an interface could not be opened.
type OpenError struct {
	Name string // as asked for
	Err  error
}

func (e *OpenError) Error() string { return fmt.Sprintf("open tun %q: %v", e.Name, e.Err) }
func (e *OpenError) Unwrap() error { return e.Err }

func openTun(name string, o TunOptions) (_ *tun, err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	count := max(1, o.Queues)
	if count > maxQueues {
		return nil, fmt.Errorf("%d queues; the kernel allows %d", count, maxQueues)
	}
	d := newTun()
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if count > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	for i := range count {
		var fd int
		if i == 0 {
			fd, name, err = attachFirst(name, flags)
		} else {
			fd, _, err = attach(name, flags)
		}
		if err != nil {
			return nil, err
		}
		if err := d.add(fd, true); err != nil {
			return nil, err
		}
	}
	if o.Persist {
		if err := d.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1) }); err != nil {
			return nil, fmt.Errorf("make it persistent: %w", err)
		}
	}
	if err := d.offer(); err != nil {
		return nil, err
	}
	if d.link, err = openLink(name); err != nil {
		return nil, err
	}
	if o.MTU != 0 {
		if err := d.SetMTU(o.MTU); err != nil {
			return nil, err
		}
	}
	d.watch.Go(d.watchLink)
	return d, nil
}

// TunFromFD makes a device of one queue from a file descriptor of a tun interface that somebody else has set up
// (WG_TUN_FD), with or without IFF_VNET_HDR. IFF_NO_PI must have been set; the kernel does not tell (it says IFF_NOFILTER
// with the same bit). The descriptor is the device's from then on, and closed also on error.
func TunFromFD(fd int) (_ Device, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d := newTun()
	defer func() {
		if err != nil {
			d.Close()
			err = fmt.Errorf("tun from file descriptor %d: %w", fd, err)
		}
	}()
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("not an attached tun: %w", err)
	}
	flags := ifr.Uint16()
	if flags&unix.IFF_TUN == 0 {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("interface %s is no tun: %w", ifr.Name(), unix.EINVAL)
	}
	vnet := flags&unix.IFF_VNET_HDR != 0
	if err := d.add(fd, vnet); err != nil {
		return nil, err
	}
	if err := d.offer(); err != nil {
		return nil, err
	}
	if d.link, err = d.findLink(); err != nil {
		return nil, err
	}
	d.watch.Go(d.watchLink)
	return d, nil
}

func newTun() *tun {
	return &tun{events: make(chan Event, 16), done: make(chan struct{})}
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
func attachFirst(name string, flags uint16) (fd int, actual string, err error) {
	if flags&unix.IFF_MULTI_QUEUE == 0 {
		return attach(name, flags)
	}
	// The kernel would let us join the queues of another process. One that is not persistent exists only because
	// somebody has it open.
	fd, actual, err = attach(name, flags|unix.IFF_TUN_EXCL)
	if !errors.Is(err, unix.EBUSY) {
		return fd, actual, err
	}
	busy := err
	if fd, actual, err = attach(name, flags); err != nil {
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
func attach(name string, flags uint16) (fd int, actual string, err error) {
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
		err = fmt.Errorf("an interface of that name is no tun, or one with another number of queues: %w", err)
	case errors.Is(err, unix.EPERM):
		err = fmt.Errorf("this needs CAP_NET_ADMIN: %w", err)
	}
	return -1, "", err
}

// add makes a queue of fd, which it takes over.
func (d *tun) add(fd int, vnet bool) error {
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
	// Only now: a tun is pollable from when it is attached.
	q := &tunQueue{device: d, file: os.NewFile(uintptr(fd), devNetTun), vnet: vnet}
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
func (d *tun) offer() error {
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

// control runs f on the first queue's descriptor.
func (d *tun) control(f func(fd int) error) error {
	var err error
	if e := d.queues[0].conn.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		if d.closed.Load() {
			return os.ErrClosed
		}
		return e
	}
	return err
}

// Name implements [Device].
func (d *tun) Name() (string, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	err = d.control(func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) })
	if err != nil {
		return "", gone(err)
	}
	return ifr.Name(), nil
}

// MTU implements [Device].
func (d *tun) MTU() (int, error) {
	mtu, err := d.mtu(unix.SIOCGIFMTU, 0)
	if err != nil {
		return 0, fmt.Errorf("read the MTU: %w", err)
	}
	return mtu, nil
}

// SetMTU implements [MTUSetter].
func (d *tun) SetMTU(mtu int) error {
	if mtu < 68 || mtu > MaxPacket { // 68 is the kernel's minimum (ETH_MIN_MTU)
		return fmt.Errorf("set the MTU to %d: %w", mtu, unix.EINVAL)
	}
	if _, err := d.mtu(unix.SIOCSIFMTU, mtu); err != nil {
		return fmt.Errorf("set the MTU to %d: %w", mtu, err)
	}
	return nil
}

func (d *tun) mtu(request uint, mtu int) (int, error) {
	name, err := d.Name()
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.link.mtu(name, request, mtu)
}

// Queues implements [Device].
func (d *tun) Queues() []Queue {
	queues := make([]Queue, len(d.queues))
	for i, q := range d.queues {
		queues[i] = q
	}
	return queues
}

// Events implements [Device]. The interface's state is reported first as it is at the start: EventUp or EventDown.
func (d *tun) Events() <-chan Event { return d.events }

// Close implements [Device].
func (d *tun) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	close(d.done)
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.file.Close())
	}
	d.mu.Lock()
	if d.link != nil {
		errs = append(errs, d.link.close())
	}
	d.mu.Unlock()
	d.watch.Wait()
	return errors.Join(errs...)
}

// gone is the error of a deleted interface for what the kernel says then.
func gone(err error) error {
	if err == unix.EBADFD {
		return ErrGone
	}
	return err
}

// tunQueue is one queue. What a read or a write in progress needs stands in fields, for the functions given to the
// runtime's poller to be made only once.
type tunQueue struct {
	device   *tun
	file     *os.File
	conn     syscall.RawConn
	vnet     bool
	offloads Offloads

	readFunc func(fd uintptr) bool
	tryFunc  func(fd uintptr)
	readBuf  []byte
	readWait bool
	readN    int
	readErr  error

	writing   sync.Mutex // guards what follows
	writeFunc func(fd uintptr) bool
	writeBuf  []byte
	writeErr  error
	segments  Segments
}

// Offloads implements [Offloader].
func (q *tunQueue) Offloads() Offloads { return q.offloads }

// Read implements [Queue].
func (q *tunQueue) Read(buf []byte, wait bool) (lo, hi int, o Offload, err error) {
	lo = Headroom
	start := lo
	if q.vnet {
		start -= vnetHeader
	}
	// One byte more than a packet may have shows one that was cut off.
	q.readBuf, q.readWait = buf[start:lo+MaxPacket+1], wait
	if err := q.conn.Read(q.readFunc); err != nil {
		// Closed, or the poller has given up on the descriptor; then only the kernel knows why.
		if q.device.closed.Load() || q.conn.Control(q.tryFunc) != nil {
			return 0, 0, Offload{}, os.ErrClosed
		}
		if q.readErr == ErrWouldBlock {
			q.readErr = err
		}
	}
	if q.readErr != nil {
		return 0, 0, Offload{}, gone(q.readErr)
	}
	hi = start + q.readN
	if q.vnet {
		if hi < lo {
			return lo, lo, Offload{GSO: gsoUnknown}, nil
		}
		o = parseVNet(buf[start:lo])
	}
	if hi-lo > MaxPacket {
		o = Offload{GSO: gsoUnknown}
		hi = lo + MaxPacket
	}
	return lo, hi, o, nil
}

func (q *tunQueue) read(fd uintptr) bool {
	for {
		q.readN, q.readErr = unix.Read(int(fd), q.readBuf)
		switch q.readErr {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if q.readWait {
				return false
			}
			q.readErr = ErrWouldBlock
		}
		return true
	}
}

// try is read without the poller.
func (q *tunQueue) try(fd uintptr) {
	q.readWait = false
	q.read(fd)
}

// Write implements [Queue].
func (q *tunQueue) Write(buf []byte, lo, hi int, o Offload) error {
	q.writing.Lock()
	defer q.writing.Unlock()
	if q.takes(o) {
		return q.writePacket(buf, lo, hi, o)
	}
	if err := q.segments.Reset(buf, lo, hi, o); err != nil {
		return err
	}
	var first error
	for lo, hi, ok := q.segments.Next(); ok; lo, hi, ok = q.segments.Next() {
		// The bytes in front of a segment that the virtio-net header overwrites belong to one written before.
		if err := q.writePacket(buf, lo, hi, Offload{}); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// takes reports whether the kernel does the work o leaves.
func (q *tunQueue) takes(o Offload) bool {
	switch o.GSO {
	case GSONone:
		return !o.NeedsChecksum || q.offloads.Checksum
	case GSOTCPv4, GSOTCPv6:
		return q.offloads.TCP
	case GSOUDP:
		return q.offloads.UDP
	default:
		return false
	}
}

func (q *tunQueue) writePacket(buf []byte, lo, hi int, o Offload) error {
	start := lo
	if q.vnet {
		start -= vnetHeader
		putVNet(buf[start:lo], o)
	}
	q.writeBuf = buf[start:hi]
	if err := q.conn.Write(q.writeFunc); err != nil {
		if q.device.closed.Load() {
			return os.ErrClosed
		}
		return err
	}
	return gone(q.writeErr)
}

func (q *tunQueue) write(fd uintptr) bool {
	for {
		_, q.writeErr = unix.Write(int(fd), q.writeBuf)
		switch q.writeErr {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		return true
	}
}
