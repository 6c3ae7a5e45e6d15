package device

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelQueue is one queue of a tun or tap. What a read or a write in progress needs stands in fields, for the functions given to the
// runtime's poller to be made only once.
type kernelQueue struct {
	device   *kernelInterface
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
	failed   int // packets in a row that could not be read

	writing   sync.Mutex // guards what follows
	writeFunc func(fd uintptr) bool
	writeBuf  []byte
	writeErr  error
	segments  Segments
}

// maxFailed is how many packets in a row the kernel may fail to hand over before the device counts as broken.
const maxFailed = 100

// passing tells errors of one packet that is lost with them: one that does not fit its virtio-net header, or for which there is no memory.
func passing(err error) bool {
	return err == unix.EINVAL || err == unix.ENOMEM || err == unix.ENOBUFS
}

// Offloads implements [Offloader].
func (q *kernelQueue) Offloads() Offloads { return q.offloads }

// Read implements [Queue].
func (q *kernelQueue) Read(buf []byte, wait bool) (lo, hi int, o Offload, err error) {
	lo = Headroom
	start := lo
	if q.vnet {
		start -= vnetHeader
	}
	// One byte more than a packet may have shows one that was cut off.
	q.readBuf, q.readWait = buf[start:lo+MaxPacket+1], wait
	if err := q.conn.Read(q.readFunc); err != nil {
		if q.device.paused.Load() {
			return 0, 0, Offload{}, os.ErrDeadlineExceeded
		}
		// Closed, or the poller has given up on the descriptor; then only the kernel knows why.
		if q.device.closed.Load() || q.conn.Control(q.tryFunc) != nil {
			return 0, 0, Offload{}, os.ErrClosed
		}
		if q.readErr == ErrWouldBlock {
			q.readErr = err
		}
	}
	if passing(q.readErr) && q.failed < maxFailed {
		q.failed++
		return lo, lo, Offload{GSO: gsoUnknown}, nil // which nobody takes
	}
	if q.readErr != nil {
		return 0, 0, Offload{}, gone(q.readErr)
	}
	q.failed = 0
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

func (q *kernelQueue) read(fd uintptr) bool {
	for {
		q.readN, q.readErr = call(unix.SYS_READ, fd, q.readBuf)
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
func (q *kernelQueue) try(fd uintptr) {
	q.readWait = false
	q.read(fd)
}

// Write implements [Queue].
func (q *kernelQueue) Write(buf []byte, lo, hi int, o Offload) error {
	q.writing.Lock()
	defer q.writing.Unlock()
	if q.takes(o) {
		return q.writePacket(buf, lo, hi, o)
	}
	if err := q.segments.ResetFor(buf, lo, hi, o, Limits{Frame: q.device.layer == LayerEthernet}); err != nil {
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
func (q *kernelQueue) takes(o Offload) bool {
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

func (q *kernelQueue) writePacket(buf []byte, lo, hi int, o Offload) error {
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

func (q *kernelQueue) write(fd uintptr) bool {
	for {
		_, q.writeErr = call(unix.SYS_WRITE, fd, q.writeBuf)
		switch q.writeErr {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		return true
	}
}

// call reads into or writes from b, which is not empty. The descriptor does not block, so Go's scheduler is not told of the call:
// it would take the processor away from a worker that is in the kernel for more than 20 us, as with a super-packet of 64 KiB, and keep a
// thread awake for that alone. A garbage collection waits so long at most.
func call(number, fd uintptr, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(number, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
