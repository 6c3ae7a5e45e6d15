package scenes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/lab"
)

// leakMark begins the payload of all that a [chatter] sends. Nobody outside a tunnel may read it, whatever the packet's addresses are.
var leakMark = []byte("this is for the tunnel alone")

// seen are the frames that came out of a machine's ports, by what they are.
type seen struct {
	mu      sync.Mutex
	allowed map[string]int // as in "tunnel", "arp"
	leaks   map[string]int // as in "wan: udp 203.0.113.80:9"
	lost    int            // that the capture had no room for
}

// capture records what a host receives on devices, all of it, decoded: what belongs to a tunnel whose endpoints these are, what keeps the
// addresses of an underlay, and the rest. It goes on until the test ends.
func capture(t *testing.T, h *lab.Host, endpoints []netip.AddrPort, devices ...string) *seen {
	t.Helper()
	s := &seen{allowed: map[string]int{}, leaks: map[string]int{}}
	names := map[int]string{}
	fd := -1
	h.Must(func() error {
		for _, name := range devices {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			names[i.Index] = name
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		var err error
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}))
	})
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 2048) // the beginning is enough of a super-packet
		for {
			select {
			case <-done:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue // the time is up; whether more is wrong shows in what was seen
			}
			a, ok := from.(*unix.SockaddrLinklayer)
			if !ok || a.Pkttype == unix.PACKET_OUTGOING || names[a.Ifindex] == "" {
				continue
			}
			what, fine := classify(buf[:n], endpoints)
			s.mu.Lock()
			if fine {
				s.allowed[what]++
			} else {
				s.leaks[names[a.Ifindex]+": "+what]++
			}
			s.mu.Unlock()
			if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
				s.mu.Lock()
				s.lost += int(stats.Drops)
				s.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() { close(done); running.Wait(); unix.Close(fd) })
	return s
}

// report is what has leaked so far, and how many packets of each; "" for nothing.
func (s *seen) report() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(s.leaks)) {
		fmt.Fprintf(&b, "%6d %s\n", s.leaks[what], what)
	}
	return b.String()
}

// leaked reports whether a packet has leaked whose description contains a text.
func (s *seen) leaked(text string) bool { return strings.Contains(s.report(), text) }

func (s *seen) count(allowed string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allowed[allowed]
}

// classify says what a frame is, and whether it may leave a machine with a kill switch: the tunnel's own datagrams to its endpoints, and
// what docs/configuration.md says keeps the underlay's addresses. What is not understood may not.
func classify(frame []byte, endpoints []netip.AddrPort) (what string, fine bool) {
	if len(frame) < 14 {
		return fmt.Sprintf("%d bytes", len(frame)), false
	}
	packet := frame[14:]
	var proto byte
	var from, to netip.Addr
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == unix.ETH_P_ARP:
		return "arp", !bytes.Contains(frame, leakMark)
	case kind == unix.ETH_P_IP && len(packet) >= 20 && len(packet) >= int(packet[0]&15)*4:
		proto, from, to = packet[9], netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		packet = packet[int(packet[0]&15)*4:]
	case kind == unix.ETH_P_IPV6 && len(packet) >= 40:
		proto, from, to = packet[6], netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		if packet = packet[40:]; proto == unix.IPPROTO_HOPOPTS && len(packet) >= 8 && len(packet) >= 8+int(packet[1])*8 {
			proto, packet = packet[0], packet[8+int(packet[1])*8:]
		}
	default:
		return fmt.Sprintf("type %#04x", kind), false
	}
	path := fmt.Sprintf("%s > %s", from, to)
	switch {
	case (proto == unix.IPPROTO_UDP || proto == unix.IPPROTO_TCP) && len(packet) >= 8:
		name := map[byte]string{unix.IPPROTO_UDP: "udp", unix.IPPROTO_TCP: "tcp"}[proto]
		target := netip.AddrPortFrom(to, binary.BigEndian.Uint16(packet[2:]))
		if slices.Contains(endpoints, target) && proto == unix.IPPROTO_UDP && !bytes.Contains(packet, leakMark) {
			return "tunnel", true
		}
		if proto == unix.IPPROTO_TCP && target.Port() >= 32768 { // one that a kernel picked for who called
			return "tcp answer " + path, false
		}
		return fmt.Sprintf("%s %s > %s", name, from, target), false
	case proto == unix.IPPROTO_ICMPV6 && len(packet) >= 4:
		// RFC 4861: router solicitations, neighbour solicitations and advertisements; RFC 3810: multicast listeners' reports.
		if slices.Contains([]byte{133, 135, 136, 143}, packet[0]) && !bytes.Contains(packet, leakMark) {
			return "neighbour discovery", true
		}
		return fmt.Sprintf("icmp6 type %d %s", packet[0], path), false
	case proto == unix.IPPROTO_ICMP && len(packet) >= 4:
		return fmt.Sprintf("icmp type %d %s", packet[0], path), false
	}
	return fmt.Sprintf("protocol %d %s", proto, path), false
}

// quiet demands that nothing has leaked.
func (s *seen) quiet(t *testing.T, when string) {
	t.Helper()
	if r := s.report(); r != "" {
		t.Errorf("%s: past the tunnel went\n%s", when, r)
	}
}

// unlost demands that the capture had room for everything.
func (s *seen) unlost(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		t.Errorf("the capture has lost %d frames", s.lost)
	}
}

// moment is how long a machine is left to leak in one state: some thirty rounds of its chatter.
const moment = 150 * time.Millisecond
