// Package device is the overlay's side: tun and tap queues of the Linux kernel with the virtio-net header, the
// segmentation of super-packets on their way out and their coalescing on the way in, and an adapter for any
// golang.zx2c4.com/wireguard/tun.Device.
package device

import "errors"

const (
	// Headroom is how many bytes in front of a packet Write may overwrite (the virtio-net header).
	Headroom = 16
	// Tailroom is how many bytes behind a packet the engine may overwrite (padding and the authentication tag).
	Tailroom = 64
	// MaxPacket is the largest packet or super-packet a queue hands over or takes, in bytes.
	MaxPacket = 65535
	// BufferSize is the size a buffer given to Read must have.
	BufferSize = Headroom + MaxPacket + Tailroom + 1
)

// ErrWouldBlock is returned by Read when no packet is waiting and it was told not to wait.
var ErrWouldBlock = errors.New("no packet waiting")

// GSO is the kind of segmentation a packet still needs (virtio_net_hdr.gso_type).
type GSO uint8

const (
	GSONone  GSO = iota
	GSOTCPv4     // TCP over IPv4
	GSOTCPv6     // TCP over IPv6
	GSOUDP       // UDP datagrams over either (VIRTIO_NET_HDR_GSO_UDP_L4)
)

// Offload is the work on a packet that its sender left undone: the virtio-net header (VIRTIO 1.2, section 5.1.6).
// The zero value is a finished packet.
type Offload struct {
	// NeedsChecksum: the transport checksum holds only the pseudo-header's sum; it covers the packet from
	// ChecksumStart and belongs ChecksumOffset bytes behind that.
	NeedsChecksum  bool
	GSO            GSO
	HeaderLen      uint16 // length of all headers, in bytes; a hint when read
	SegmentSize    uint16 // payload bytes of each segment but the last
	ChecksumStart  uint16
	ChecksumOffset uint16
}

// Queue is one queue of a device. Read may be used by one goroutine at a time; Write by any number, also beside Read, since
// every receiver of the underlay writes to the same device. (Writes to one descriptor take turns in the runtime's poller
// whatever is done above it.)
type Queue interface {
	// Read reads one packet (IP, or Ethernet on a tap) into buf, whose length is at least BufferSize, and returns the
	// packet as buf[lo:hi] with lo >= Headroom and hi+Tailroom <= len(buf). With wait it blocks for a packet; without
	// it returns ErrWouldBlock when none is waiting. Errors: ErrWouldBlock, os.ErrClosed after Close, otherwise what
	// the kernel said; a vanished device ends reading.
	Read(buf []byte, wait bool) (lo, hi int, o Offload, err error)
	// Write writes the packet buf[lo:hi] with the given offload; it may overwrite the Headroom bytes before lo.
	// Where the device cannot take an offload, Write does the work itself.
	Write(buf []byte, lo, hi int, o Offload) error
}

// Layer is what a device carries.
type Layer uint8

const (
	LayerIP       Layer = iota // IP packets (tun)
	LayerEthernet              // Ethernet frames (tap)
)

// Device is a network interface the engine reads from and writes to.
type Device interface {
	// Layer is what the interface carries.
	Layer() Layer
	// Name is the interface's current name.
	Name() (string, error)
	// MTU is the interface's current MTU in bytes.
	MTU() (int, error)
	// Queues returns the device's queues, at least one; each gets a worker.
	Queues() []Queue
	// Events reports changes of the interface; closed when the device is gone or closed.
	Events() <-chan Event
	// Close removes the device unless it is persistent and ends all reads.
	Close() error
}

// An Interrupter is a Device whose reads can be ended without closing it: what waits to be read stays there.
type Interrupter interface {
	// Interrupt has reads of all queues, also those that wait, end with os.ErrDeadlineExceeded as long as it is on.
	Interrupt(on bool) error
}

// Event is a change of the interface.
type Event uint8

const (
	EventUp   Event = iota + 1 // administratively up
	EventDown                  // administratively down
	EventMTU                   // MTU changed
)
