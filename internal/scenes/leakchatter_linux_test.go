package scenes

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"culvert/internal/lab"
)

// talk is something that a program of a machine sends again and again, from a new socket each time, as the machine's routes are then.
type talk struct {
	kind   int // unix.SOCK_DGRAM, SOCK_STREAM; SOCK_RAW for an echo request
	to     netip.AddrPort
	device string // that it is bound to; "" for none
	dns    bool   // the datagram is a question
}

func udp(to string) talk  { return talk{kind: unix.SOCK_DGRAM, to: netip.MustParseAddrPort(to)} }
func tcp(to string) talk  { return talk{kind: unix.SOCK_STREAM, to: netip.MustParseAddrPort(to)} }
func echo(to string) talk { return talk{kind: unix.SOCK_RAW, to: netip.AddrPortFrom(mustAddr(to), 0)} }

func question(to string) talk {
	q := udp(to)
	q.dns = true
	return q
}

// by binds a program to a device, as DHCP clients are; the main table leads such packets, whatever rules say.
func (q talk) by(device string) talk {
	q.device = device
	return q
}

// chatters has a host send all of these every few milliseconds, until the test ends. It returns the number of rounds so far.
func chatters(t *testing.T, h *lab.Host, list ...talk) (rounds func() int64) {
	t.Helper()
	done := make(chan struct{})
	var n atomic.Int64
	var running sync.WaitGroup
	failed := make(chan error, 1)
	running.Go(func() {
		failed <- h.Do(func() error {
			var open []int // connections being made, the oldest first
			defer func() { closeAll(open) }()
			for tick := time.NewTicker(5 * time.Millisecond); ; {
				select {
				case <-done:
					tick.Stop()
					return nil
				case <-tick.C:
				}
				for _, q := range list {
					fd, err := q.send()
					if err != nil {
						return err
					}
					open = append(open, fd)
				}
				if old := len(open) - 20*len(list); old > 0 {
					closeAll(open[:old])
					open = slices.Delete(open, 0, old)
				}
				n.Add(1)
			}
		})
	})
	t.Cleanup(func() {
		close(done)
		running.Wait()
		if err := <-failed; err != nil {
			t.Error(err)
		}
	})
	return n.Load
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// send sends once, and returns the socket. That the network refuses is no error, since that is what a kill switch is for.
func (q talk) send() (fd int, err error) {
	var to unix.Sockaddr
	family, proto, payload := unix.AF_INET, 0, leakMark
	if a := q.to.Addr(); a.Is4() {
		to = &unix.SockaddrInet4{Addr: a.As4(), Port: int(q.to.Port())}
	} else {
		to, family = &unix.SockaddrInet6{Addr: a.As16(), Port: int(q.to.Port())}, unix.AF_INET6
	}
	switch {
	case q.kind == unix.SOCK_RAW && family == unix.AF_INET:
		// RFC 792: type 8, and a checksum.
		proto, payload = unix.IPPROTO_ICMP, checksummed(append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, leakMark...))
	case q.kind == unix.SOCK_RAW:
		proto, payload = unix.IPPROTO_ICMPV6, append([]byte{128, 0, 0, 0, 0, 1, 0, 1}, leakMark...) // RFC 4443; the kernel sums
	case q.dns:
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true}, Questions: []dnsmessage.Question{
			{Name: dnsmessage.MustNewName("secret.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		if payload, err = m.Pack(); err != nil {
			return -1, err
		}
	}
	if fd, err = unix.Socket(family, q.kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto); err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	if q.device != "" {
		if err := unix.BindToDevice(fd, q.device); err != nil && !errors.Is(err, unix.ENODEV) {
			unix.Close(fd)
			return -1, err
		}
	}
	if q.kind == unix.SOCK_STREAM {
		_ = unix.Connect(fd, to)
	} else {
		_ = unix.Sendto(fd, payload, 0, to)
	}
	return fd, nil
}

// checksummed puts the checksum (RFC 1071) of an ICMP message into it.
func checksummed(m []byte) []byte {
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(m[i]) << 8
		if i+1 < len(m) {
			sum += uint32(m[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	m[2], m[3] = byte(^sum>>8), byte(^sum)
	return m
}

// lasting is a connection that the machine has had before there was a tunnel, and writes to all the time.
func lasting(t *testing.T, h *lab.Host, to string) {
	t.Helper()
	var c net.Conn
	h.Must(func() (err error) {
		c, err = net.DialTimeout("tcp", to, patience)
		return err
	})
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
			}
			_ = c.SetWriteDeadline(time.Now().Add(time.Millisecond))
			_, _ = c.Write(leakMark)
		}
	})
	t.Cleanup(func() { close(done); running.Wait(); c.Close() })
}

// drain takes connections and reads them.
func drain(t *testing.T, h *lab.Host, address string) {
	t.Helper()
	var l net.Listener
	h.Must(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); c.Close() }()
		}
	}()
}
