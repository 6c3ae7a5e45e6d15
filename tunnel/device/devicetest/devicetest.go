// Package devicetest is a network interface in memory, for tests of what reads and writes a [device.Device]. All its
// waiting is on sync.Cond and channels, so it can be used in a testing/synctest bubble; packet buffers are used again,
// so that after a few packets reading and writing allocate nothing.
package devicetest

import (
	"errors"
	"os"
	"sync"

	"culvert/tunnel/device"
)

// ErrGone is what Read and Write return after Remove.
var ErrGone = errors.New("devicetest: the device has been removed")

// Device is a [device.Device] whose kernel side is the test: Push sends a packet (a frame, on an Ethernet device) into it, Next and TryNext take what was
// written to it.
type Device struct {
	layer  device.Layer
	queues []*Queue
	events chan device.Event

	mu      sync.Mutex
	carrier bool
	address [6]byte
	name    string
	mtu     int
	up      bool
	closed  bool
}

// New returns a device for IP packets that is up, whose queues take all offloads. EventUp is waiting in Events.
func New(name string, mtu, queues int) *Device { return newDevice(device.LayerIP, name, mtu, queues) }

// NewEthernet is New for a device that carries Ethernet frames. Its carrier is on.
func NewEthernet(name string, mtu, queues int) *Device {
	return newDevice(device.LayerEthernet, name, mtu, queues)
}

func newDevice(layer device.Layer, name string, mtu, queues int) *Device {
	d := &Device{layer: layer, name: name, mtu: mtu, up: true, carrier: true, events: make(chan device.Event, 64)}
	for range queues {
		q := &Queue{limits: device.Limits{Frame: layer == device.LayerEthernet}, offloads: device.Offloads{Checksum: true, TCP: true, UDP: true}}
		q.changed.L = &q.mu
		d.queues = append(d.queues, q)
	}
	d.events <- device.EventUp
	return d
}

// Layer returns what the device carries.
func (d *Device) Layer() device.Layer { return d.layer }

// SetCarrier turns the carrier on or off.
func (d *Device) SetCarrier(on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.carrier = on
	return nil
}

// Carrier reports whether the carrier is on.
func (d *Device) Carrier() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.carrier
}

// HardwareAddress returns the MAC address, zero unless one was set.
func (d *Device) HardwareAddress() ([6]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.address, nil
}

// SetHardwareAddress sets the MAC address.
func (d *Device) SetHardwareAddress(a [6]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.address = a
}

// Name returns the device's name.
func (d *Device) Name() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.name, nil
}

// MTU returns the MTU in bytes.
func (d *Device) MTU() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mtu, nil
}

// SetMTU sets the MTU and reports EventMTU if it is another one.
func (d *Device) SetMTU(mtu int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mtu != mtu && !d.closed {
		d.mtu = mtu
		d.events <- device.EventMTU
	}
	return nil
}

// SetName renames the device.
func (d *Device) SetName(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.name = name
}

// SetUp reports EventUp or EventDown if it changes anything. Writes to a device that is down fail, as the kernel's do.
func (d *Device) SetUp(up bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.up == up || d.closed {
		return
	}
	d.up = up
	event, err := device.EventUp, error(nil)
	if !up {
		event, err = device.EventDown, errDown
	}
	for _, q := range d.queues {
		q.mu.Lock()
		q.down = err
		q.mu.Unlock()
	}
	d.events <- event
}

var errDown = errors.New("devicetest: the device is down")

// Queues returns the queues, as the engine sees them.
func (d *Device) Queues() []device.Queue {
	all := make([]device.Queue, len(d.queues))
	for i, q := range d.queues {
		all[i] = q
	}
	return all
}

// Queue returns one queue, as the test sees it.
func (d *Device) Queue(i int) *Queue { return d.queues[i] }

// Events reports what SetUp and SetMTU change; closed by Close and Remove. It holds 64 events nobody has taken yet; more
// block the test.
func (d *Device) Events() <-chan device.Event { return d.events }

// Close ends all reads with os.ErrClosed, closes Events and wakes every Next.
func (d *Device) Close() error {
	d.end(os.ErrClosed)
	return nil
}

// Remove makes the device vanish, as if somebody had deleted it.
func (d *Device) Remove() { d.end(ErrGone) }

func (d *Device) end(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	for _, q := range d.queues {
		q.mu.Lock()
		q.ended = err
		q.changed.Broadcast()
		q.mu.Unlock()
	}
	close(d.events)
}

// Interrupt implements [device.Interrupter].
func (d *Device) Interrupt(on bool) error {
	for _, q := range d.queues {
		q.mu.Lock()
		q.paused = on
		q.changed.Broadcast()
		q.mu.Unlock()
	}
	return nil
}

// Queue is one queue of a Device.
type Queue struct {
	limits   device.Limits // what Write cuts without the far side's help
	mu       sync.Mutex
	changed  sync.Cond
	offloads device.Offloads
	inbound  ring // pushed, not yet read
	written  ring // written, not yet taken
	sink     func(packet []byte, o device.Offload)
	fail     error
	down     error
	ended    error
	paused   bool // reads are interrupted
	segments device.Segments
}

// Push queues a packet for Read. The packet is copied. It must be no longer than [device.MaxPacket].
func (q *Queue) Push(packet []byte, o device.Offload) {
	if len(packet) > device.MaxPacket {
		panic("devicetest: packet too long")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inbound.push(packet, o)
	q.changed.Broadcast()
}

// Pending is how many pushed packets have not been read yet.
func (q *Queue) Pending() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.inbound.count
}

// Next waits for a written packet and appends it to dst[:0]. ok is false once the device has ended and all is taken.
func (q *Queue) Next(dst []byte) (packet []byte, o device.Offload, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.written.count == 0 && q.ended == nil {
		q.changed.Wait()
	}
	return q.written.pop(dst[:0])
}

// TryNext is Next without waiting.
func (q *Queue) TryNext(dst []byte) (packet []byte, o device.Offload, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.written.pop(dst[:0])
}

// SetSink has each written packet given to sink instead of kept for Next; the packet is sink's only until it returns. nil
// goes back to keeping. sink must not call the queue.
func (q *Queue) SetSink(sink func(packet []byte, o device.Offload)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sink = sink
}

// FailWrites has every Write fail with err until it is called with nil.
func (q *Queue) FailWrites(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fail = err
}

// SetOffloads sets what the queue takes; what it does not take Write does itself. A Coalescer asks only once, so set it
// before.
func (q *Queue) SetOffloads(o device.Offloads) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.offloads = o
}

// Offloads implements [device.Offloader].
func (q *Queue) Offloads() device.Offloads {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.offloads
}

// Read implements [device.Queue].
func (q *Queue) Read(buf []byte, wait bool) (lo, hi int, o device.Offload, err error) {
	if len(buf) < device.BufferSize {
		panic("devicetest: buffer shorter than BufferSize")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.ended != nil {
			return 0, 0, device.Offload{}, q.ended
		}
		if q.paused {
			return 0, 0, device.Offload{}, os.ErrDeadlineExceeded
		}
		if q.inbound.count > 0 {
			packet, o, _ := q.inbound.pop(buf[device.Headroom:device.Headroom])
			return device.Headroom, device.Headroom + len(packet), o, nil
		}
		if !wait {
			return 0, 0, device.Offload{}, device.ErrWouldBlock
		}
		q.changed.Wait()
	}
}

// Write implements [device.Queue].
func (q *Queue) Write(buf []byte, lo, hi int, o device.Offload) error {
	if lo < device.Headroom || hi < lo || hi > len(buf) {
		panic("devicetest: packet without headroom or outside its buffer")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, err := range [...]error{q.ended, q.down, q.fail} {
		if err != nil {
			return err
		}
	}
	clear(buf[lo-device.Headroom : lo]) // a real queue writes its header there
	takes := q.offloads
	if (!o.NeedsChecksum || takes.Checksum) && (o.GSO == device.GSONone ||
		(o.GSO == device.GSOUDP && takes.UDP) || (o.GSO != device.GSOUDP && takes.TCP)) {
		q.deliver(buf[lo:hi], o)
		return nil
	}
	if err := q.segments.ResetFor(buf, lo, hi, o, q.limits); err != nil {
		return err
	}
	for lo, hi, ok := q.segments.Next(); ok; lo, hi, ok = q.segments.Next() {
		q.deliver(buf[lo:hi], device.Offload{})
	}
	return nil
}

func (q *Queue) deliver(packet []byte, o device.Offload) {
	if q.sink != nil {
		q.sink(packet, o)
		return
	}
	q.written.push(packet, o)
	q.changed.Broadcast()
}

// ring is a queue of packets that keeps its buffers.
type ring struct {
	items       []item
	head, count int
}

type item struct {
	packet []byte
	o      device.Offload
}

func (r *ring) push(packet []byte, o device.Offload) {
	if r.count == len(r.items) {
		grown := make([]item, max(16, 2*len(r.items)))
		n := copy(grown, r.items[r.head:])
		copy(grown[n:], r.items[:r.head])
		r.items, r.head = grown, 0
	}
	i := &r.items[(r.head+r.count)%len(r.items)]
	i.packet, i.o = append(i.packet[:0], packet...), o
	r.count++
}

func (r *ring) pop(dst []byte) (packet []byte, o device.Offload, ok bool) {
	if r.count == 0 {
		return dst, device.Offload{}, false
	}
	i := &r.items[r.head]
	r.head, r.count = (r.head+1)%len(r.items), r.count-1
	return append(dst, i.packet...), i.o, true
}
