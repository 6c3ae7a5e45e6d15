package device

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone is what Read and Write of a tun's or tap's queue return once somebody has deleted the interface.
var ErrGone = errors.New("the interface has been deleted")

// kind is what the kernel calls an interface that carries a layer: also the start of the default names.
func (l Layer) kind() string {
	if l == LayerEthernet {
		return "tap"
	}
	return "tun"
}

// flag is the one of TUNSETIFF.
func (l Layer) flag() uint16 {
	if l == LayerEthernet {
		return unix.IFF_TAP
	}
	return unix.IFF_TUN
}

// maxMTU is the largest MTU with which every packet, or frame with its header and two tags, is one of at most MaxPacket.
func (l Layer) maxMTU() int {
	if l == LayerEthernet {
		return MaxPacket - maxLink
	}
	return MaxPacket
}

// kernelInterface is a tun or tap interface of the Linux kernel.
type kernelInterface struct {
	layer  Layer
	queues []*kernelQueue
	events chan Event
	closed atomic.Bool
	paused atomic.Bool   // reads are interrupted
	done   chan struct{} // closed by Close
	watch  sync.WaitGroup

	mu   sync.Mutex // guards what follows
	link *link
}

func newInterface(layer Layer) *kernelInterface {
	return &kernelInterface{layer: layer, events: make(chan Event, 16), done: make(chan struct{})}
}

// control runs f on the first queue's descriptor.
func (d *kernelInterface) control(f func(fd int) error) error {
	var err error
	if e := d.queues[0].conn.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		if d.closed.Load() {
			return os.ErrClosed
		}
		return e
	}
	return err
}

// Layer implements [Device].
func (d *kernelInterface) Layer() Layer { return d.layer }

// Name implements [Device].
func (d *kernelInterface) Name() (string, error) {
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
func (d *kernelInterface) MTU() (int, error) {
	mtu, err := d.mtu(unix.SIOCGIFMTU, 0)
	if err != nil {
		return 0, fmt.Errorf("read the MTU: %w", err)
	}
	return mtu, nil
}

// SetMTU implements [MTUSetter]. The MTU of a tap is without the Ethernet header.
func (d *kernelInterface) SetMTU(mtu int) error {
	if mtu < 68 || mtu > d.layer.maxMTU() { // 68 is the kernel's minimum (ETH_MIN_MTU)
		return fmt.Errorf("set the MTU to %d: %w", mtu, unix.EINVAL)
	}
	if _, err := d.mtu(unix.SIOCSIFMTU, mtu); err != nil {
		return fmt.Errorf("set the MTU to %d: %w", mtu, err)
	}
	return nil
}

func (d *kernelInterface) mtu(request uint, mtu int) (int, error) {
	name, err := d.Name()
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.link.mtu(name, request, mtu)
}

// Queues implements [Device].
func (d *kernelInterface) Queues() []Queue {
	queues := make([]Queue, len(d.queues))
	for i, q := range d.queues {
		queues[i] = q
	}
	return queues
}

// Events implements [Device]. The interface's state is reported first as it is at the start: EventUp or EventDown.
func (d *kernelInterface) Events() <-chan Event { return d.events }

// Close implements [Device].
func (d *kernelInterface) Close() error {
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

// Interrupt implements [Interrupter].
func (d *kernelInterface) Interrupt(on bool) error {
	var until time.Time
	if on {
		until = time.Unix(1, 0)
	}
	d.paused.Store(on)
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.file.SetReadDeadline(until))
	}
	return errors.Join(errs...)
}
