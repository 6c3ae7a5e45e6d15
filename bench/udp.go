package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	udpBatch = 128 // datagrams per system call
	// udpReadBuffer is what the receiver asks for, in bytes. The kernel grants all of it to root, and otherwise what
	// net.core.rmem_max allows.
	udpReadBuffer = 64 << 20
	udpQuiet      = 150 * time.Millisecond
	// udpLook is how often a receiver looks what has come. One that waited in the kernel would have to be woken for every few
	// datagrams, which costs it more than reading them does, and the daemon that delivers them too.
	udpLook = time.Millisecond

	optionReceiveBufferForce = 33 // SO_RCVBUFFORCE
)

// udpSink receives datagrams and counts them.
type udpSink struct {
	fd      int // while open
	open    bool
	inode   uint64
	packets atomic.Int64
	first   time.Time    // written by the receiving goroutine, read when that has ended
	last    atomic.Int64 // nanoseconds since base
	base    time.Time
	ending  atomic.Bool
	ended   chan error
}

// udpReceived is what arrived.
type udpReceived struct {
	Packets     int64
	Seconds     float64 // from the first to the last
	SocketDrops int64   // delivered by the tunnel but lost here, as the receiver's socket was full
	CPUSeconds  float64 // of this process so far
}

// listen receives what comes to an IPv4 address, and returns it with the port filled in.
func (s *udpSink) listen(addr netip.AddrPort) (netip.AddrPort, error) {
	if s.open {
		return addr, errors.New("listening already")
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return addr, fmt.Errorf("socket: %w", err)
	}
	bound, err := s.prepare(fd, addr)
	if err != nil {
		syscall.Close(fd)
		return addr, err
	}
	s.fd, s.open, s.base, s.first = fd, true, time.Now(), time.Time{}
	s.packets.Store(0)
	s.last.Store(0)
	s.ending.Store(false)
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.receive(fd) }()
	return bound, nil
}

// prepare sets the socket up and binds it.
func (s *udpSink) prepare(fd int, addr netip.AddrPort) (bound netip.AddrPort, err error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, optionReceiveBufferForce, udpReadBuffer); err != nil {
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, udpReadBuffer); err != nil {
			return addr, fmt.Errorf("receive buffer: %w", err)
		}
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		return addr, fmt.Errorf("bind %v: %w", addr, err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return addr, fmt.Errorf("name of the socket: %w", err)
	}
	own := name.(*syscall.SockaddrInet4)
	var about syscall.Stat_t
	if err := syscall.Fstat(fd, &about); err != nil {
		return addr, fmt.Errorf("stat the socket: %w", err)
	}
	s.inode = about.Ino
	return netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port)), nil
}

// receivedMessage is struct mmsghdr of recvmmsg(2).
type receivedMessage struct {
	header syscall.Msghdr
	length uint32
}

// receive counts until it is told to end. It looks at the first bytes of a datagram only: what the tunnel carried need not be
// copied out of the kernel as well.
func (s *udpSink) receive(fd int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer beforeDaemons()()
	messages := make([]receivedMessage, udpBatch)
	vectors := make([]syscall.Iovec, udpBatch)
	var beginning [8]byte
	for i := range messages {
		vectors[i].Base = &beginning[0]
		vectors[i].SetLen(len(beginning))
		messages[i].header.Iov, messages[i].header.Iovlen = &vectors[i], 1
	}
	look := syscall.NsecToTimespec(int64(udpLook))
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), udpBatch,
			syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
		case syscall.EAGAIN:
			if s.ending.Load() {
				return nil
			}
			_ = syscall.Nanosleep(&look, nil) // a signal ends it early
			continue
		case syscall.EINTR:
			continue
		default:
			return fmt.Errorf("receive: %w", errno)
		}
		now := time.Now()
		if s.first.IsZero() {
			s.first = now
		}
		s.last.Store(int64(now.Sub(s.base)))
		s.packets.Add(int64(n))
	}
}

// result waits until nothing has come for a while, ends the sink and returns the counts.
func (s *udpSink) result(none) (got udpReceived, err error) {
	if !s.open {
		return got, errors.New("not listening")
	}
	began := time.Now()
	for {
		idle := min(time.Since(began), time.Since(s.base)-time.Duration(s.last.Load()))
		if idle >= udpQuiet {
			break
		}
		time.Sleep(udpQuiet - idle)
	}
	drops, err := socketDrops(s.inode)
	err = errors.Join(err, s.close())
	got.Packets, got.SocketDrops = s.packets.Load(), drops
	if !s.first.IsZero() {
		got.Seconds = (time.Duration(s.last.Load()) - s.first.Sub(s.base)).Seconds()
	}
	cpu, cerr := ownCPU()
	got.CPUSeconds = cpu.Seconds()
	return got, errors.Join(err, cerr)
}

// close ends the sink, if it is open, and returns what kept it from receiving.
func (s *udpSink) close() error {
	if !s.open {
		return nil
	}
	s.open = false
	s.ending.Store(true)
	err := <-s.ended
	return errors.Join(err, syscall.Close(s.fd))
}

// socketDrops returns how many datagrams a socket of this namespace had no room for. Other sockets, as the daemon's own, are not
// in it.
func socketDrops(inode uint64) (int64, error) {
	// Not /proc/net, which is the first thread's: it may be in another namespace.
	text, err := os.ReadFile("/proc/thread-self/net/udp")
	if err != nil {
		return 0, err
	}
	return parseSocketDrops(string(text), inode)
}

// parseSocketDrops reads the last column, which is of drops, of a line of /proc/net/udp; the tenth is the inode.
func parseSocketDrops(sockets string, inode uint64) (int64, error) {
	for line := range strings.Lines(sockets) {
		fields := strings.Fields(line)
		if len(fields) == 13 && fields[9] == strconv.FormatUint(inode, 10) {
			return strconv.ParseInt(fields[12], 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/net/udp: no socket %d", inode)
}

// parseSNMP reads a counter from two lines of one beginning, the first of names and the second of values.
func parseSNMP(snmp, beginning, counter string) (int64, error) {
	var names []string
	for line := range strings.Lines(snmp) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != beginning:
		case names == nil:
			names = fields
		default:
			for i, name := range names {
				if name == counter && i < len(fields) {
					return strconv.ParseInt(fields[i], 10, 64)
				}
			}
		}
	}
	return 0, fmt.Errorf("/proc/net/snmp: no %s", counter)
}
