package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Sniffed is an IP packet that a device has sent or received.
type Sniffed struct {
	At       time.Time // by the kernel
	Sent     bool      // by the host; otherwise received
	Protocol byte      // of IPv4's header, or of IPv6's first one
	From, To netip.AddrPort
}

// Sniffer has what was sniffed so far.
type Sniffer struct {
	mu   sync.Mutex
	all  []Sniffed
	lost int
}

// Sniff records the IP packets of a device until the test ends. Ports are those of UDP and TCP, and 0 otherwise.
func (h *Host) Sniff(device string) *Sniffer {
	h.t.Helper()
	s, fd := &Sniffer{}, -1
	h.Must(func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	})
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		packet, control := make([]byte, 128), make([]byte, 128) // the beginning is enough
		for {
			select {
			case <-done:
				return
			default:
			}
			n, m, _, from, err := unix.Recvmsg(fd, packet, control, 0)
			link, ok := from.(*unix.SockaddrLinklayer)
			if err != nil || !ok {
				continue // the time is up
			}
			p, ok := parseSniffed(packet[:n])
			if !ok {
				continue // ARP
			}
			p.Sent, p.At = link.Pkttype == unix.PACKET_OUTGOING, stampOf(control[:m])
			s.mu.Lock()
			s.all = append(s.all, p)
			if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
				s.lost += int(stats.Drops)
			}
			s.mu.Unlock()
		}
	})
	h.t.Cleanup(func() { close(done); running.Wait(); unix.Close(fd) })
	return s
}

// Count counts the packets that match. The test fails where the sniffer had no room for all.
func (s *Sniffer) Count(t testing.TB, match func(Sniffed) bool) (n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		t.Fatalf("%d packets were lost by the sniffer", s.lost)
	}
	for _, p := range s.all {
		if match(p) {
			n++
		}
	}
	return n
}

func parseSniffed(b []byte) (p Sniffed, ok bool) {
	var from, to netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4 && len(b) >= int(b[0]&15)*4:
		p.Protocol, from, to = b[9], netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		b = b[int(b[0]&15)*4:]
	case len(b) >= 40 && b[0]>>4 == 6:
		p.Protocol, from, to = b[6], netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		b = b[40:]
	default:
		return p, false
	}
	var ports [2]uint16
	if (p.Protocol == unix.IPPROTO_UDP || p.Protocol == unix.IPPROTO_TCP) && len(b) >= 4 {
		ports = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	}
	p.From, p.To = netip.AddrPortFrom(from, ports[0]), netip.AddrPortFrom(to, ports[1])
	return p, true
}

// stampOf is the time in a message's SCM_TIMESTAMPNS.
func stampOf(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}
