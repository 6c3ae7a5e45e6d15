package interop

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/lab"
)

// A peer may only send from its allowed IPs: what comes from elsewhere does not leave the tunnel, and is counted.
func TestSpoofedSourceIsDropped(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		for _, test := range []struct {
			name         string
			right, spoof netip.Addr
			to           netip.Addr
			whole        string
		}{
			{"IPv4", innerA.v4, netip.MustParseAddr("10.66.0.66"), innerB.v4, "/32"},
			{"IPv6", innerA.v6, netip.MustParseAddr("fd66::66"), innerB.v6, "/128"},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				a, b, _ := newTunnel(t, p, ipv4)
				a.host.AddAddr("lo", test.spoof.String()+test.whole)
				// The kernel of b would take them: it has a route back.
				b.host.AddRoute(test.spoof.String()+test.whole, "", b.device)
				a.reaches(test.to)
				receiver := listenUDP(t, b.host, netip.AddrPortFrom(test.to, 0))
				to := receiver.LocalAddr().(*net.UDPAddr).AddrPort()
				const spoofed = "in: source not in allowed IPs"
				const count = 10
				before, counted := b.drops(t, spoofed)
				sendUDP := func(from netip.Addr, text string) {
					t.Helper()
					sender := listenUDP(t, a.host, netip.AddrPortFrom(from, 0))
					if _, err := sender.WriteToUDPAddrPort([]byte(text), to); err != nil {
						t.Fatal(err)
					}
				}
				for range count {
					sendUDP(test.spoof, "spoofed")
				}
				sendUDP(test.right, "right")
				if got := receive(t, receiver); got != "right" {
					t.Errorf("received a %s packet", got)
				}
				if after, _ := b.drops(t, spoofed); counted && after-before != count {
					t.Errorf("counted %d dropped packets, want %d", after-before, count)
				}
				// Once allowed, they do arrive.
				b.peers[0].allowed = append(b.peers[0].allowed, test.spoof.String()+test.whole)
				b.apply()
				sendUDP(test.spoof, "allowed")
				if got := receive(t, receiver); got != "allowed" {
					t.Errorf("received a %s packet", got)
				}
			})
		}
	})
}

// Neither end sends what is not for its peer.
func TestDestinationOutsideAllowedIPs(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		a, b, _ := newTunnel(t, p, ipv4)
		b.host.AddAddr("lo", "10.77.0.77/32")
		a.host.AddRoute("10.77.0.0/24", "", a.device)
		a.reaches(innerB.v4)
		if err := a.host.Ping(netip.MustParseAddr("10.77.0.77")); err == nil {
			t.Error("a ping went to an address that is not among the peer's allowed IPs")
		}
		a.peers[0].allowed = append(a.peers[0].allowed, "10.77.0.0/24")
		a.apply()
		a.reaches(netip.MustParseAddr("10.77.0.77"))
	})
}

// Who sends into the tunnel what no peer takes is told so at once, by ICMP, and so is who sends to a peer without an endpoint.
func TestUnreachableIsTold(t *testing.T) {
	t.Parallel()
	ping := lab.NeedProgram(t, "ping")
	host := lab.NewHost(t, "a")
	a := newSide(t, culvert, host, portA)
	innerA.addTo(a)
	_, unknown := newKey(t)
	a.peers = append(a.peers, &peer{publicKey: unknown, allowed: []string{"10.9.0.77/32", "fd09::77/128"}})
	a.apply()
	for _, test := range []struct{ name, to string }{
		{"no peer, IPv4", "10.9.0.99"},
		{"no peer, IPv6", "fd09::99"},
		{"no endpoint, IPv4", "10.9.0.77"},
		{"no endpoint, IPv6", "fd09::77"},
	} {
		t.Run(test.name, func(t *testing.T) {
			// ping ends with the first error it is told of, long before it would give up.
			out, code := output(t, host, host.Command(t.Context(), ping, "-n", "-c", "1", "-W", "600", test.to))
			if code != 1 || !strings.Contains(strings.ToLower(out), "unreachable") {
				t.Errorf("ping ended with %d:\n%s", code, out)
			}
		})
	}
}

// A tunnel whose endpoint is routed into the tunnel itself must not feed on its own datagrams.
func TestRoutingLoopIsContained(t *testing.T) {
	t.Parallel()
	forFamilies(t, func(t *testing.T, outer family) {
		a, b, wire := newTunnel(t, pair{culvert, culvert}, outer)
		everything, endpoint := "0.0.0.0/0", outer.of(wire.B).String()+"/32"
		if outer == ipv6 {
			everything, endpoint = "::/0", outer.of(wire.B).String()+"/128"
		}
		a.peers[0].allowed = append(innerB.allowed(), everything)
		a.apply()
		for _, session := range []bool{false, true} {
			if session {
				a.reaches(innerB.v4)
			}
			a.host.AddRoute(endpoint, "", a.device)
			_, before := a.deviceCounters()
			const pings = 3
			for range pings {
				if err := a.host.Ping(innerB.v4); err == nil {
					t.Error("a ping went through: there is no loop here")
				}
			}
			_, after := a.deviceCounters()
			// Each ping, and each handshake message while there is no session, may come around a few times.
			if count := after - before; count > 50 {
				t.Errorf("with a session: %v: %d pings made %d packets go into the tunnel", session, pings, count)
			}
			if dropped, _ := a.drops(t, "out: routing loop"); dropped == 0 {
				t.Errorf("with a session: %v: no packet was counted as a routing loop", session)
			}
			a.host.DelRoute(endpoint, "", a.device)
		}
		a.reaches(innerB.v4)
		b.reaches(innerA.v6)
	})
}

// Junk in any shape is neither answered nor remembered, and does not get in the way of the tunnel.
func TestJunkIsIgnored(t *testing.T) {
	t.Parallel()
	all := []pair{{culvert, culvert}}
	if inGuest() {
		all = pairs(t)
	}
	for _, p := range all {
		t.Run(p.initiator.name+"-to-"+p.responder.name, func(t *testing.T) {
			t.Parallel()
			forFamilies(t, func(t *testing.T, outer family) { ignoresJunk(t, p, outer) })
		})
	}
}

func ignoresJunk(t *testing.T, p pair, outer family) {
	const burst, sockets = 50, 8
	total := 20000
	if inGuest() {
		total /= 10 // emulated
	}
	a, b, wire := newTunnel(t, p, outer)
	a.reaches(innerB.v4)
	stranger := a.host // the same host, but other sockets
	to := netip.AddrPortFrom(outer.of(wire.B), portB)
	var answers atomic.Int64
	var readers sync.WaitGroup
	defer readers.Wait()
	var senders []*net.UDPConn
	for range sockets {
		conn := listenUDP(t, stranger, netip.AddrPortFrom(outer.of(wire.A), 0))
		defer conn.Close()
		senders = append(senders, conn)
		readers.Go(func() {
			buf := make([]byte, 2048)
			for {
				if _, _, err := conn.ReadFromUDPAddrPort(buf); err == nil {
					answers.Add(1)
				} else if errors.Is(err, net.ErrClosed) {
					return
				}
			}
		})
	}
	random := rand.NewChaCha8([32]byte{byte(outer)})
	send := func(count int) (empty uint64) {
		for i := range count {
			message := junk(random)
			if len(message) == 0 {
				empty++
			}
			if _, err := senders[i%sockets].WriteToUDPAddrPort(message, to); err != nil {
				t.Fatal(err)
			}
			if i%burst == burst-1 {
				// Goes through the same socket of the daemon, so the junk before it has been read.
				a.pings(innerB.v4)
			}
		}
		return empty
	}
	send(total / 10) // what is allocated once is allocated now
	if p.responder.name == culvert.name {
		memory, dropped := b.memory(t), b.allDrops(t)
		empty := send(total)
		if grown := b.memory(t) - memory; grown > 4<<20 {
			t.Errorf("the daemon has grown by %d KiB", grown>>10)
		}
		// A datagram without a byte in it may go uncounted.
		if got := b.allDrops(t) - dropped; got < uint64(total)-empty || got > uint64(total) {
			t.Errorf("counted %d dropped datagrams, want %d, of which %d are empty", got, total, empty)
		}
	} else {
		send(total)
	}
	if n := answers.Load(); n != 0 {
		t.Errorf("%d answers", n)
	}
	b.pings(innerA.v6)
}

// junk makes a datagram that no WireGuard should take. None has a right mac1: who can compute that knows the public key, and may be
// answered with a cookie.
func junk(random *rand.ChaCha8) []byte {
	number := rand.New(random)
	lengths := [...]int{0, 148, 92, 64, 32} // of message types 1 to 4; data may be longer
	kind := 1 + number.IntN(4)
	size := lengths[kind]
	header := []byte{byte(kind), 0, 0, 0}
	switch number.IntN(6) {
	case 0: // anything at all
		size = number.IntN(1400)
		header = nil
	case 1: // right type, wrong length
		size = number.IntN(200)
		if size == lengths[kind] {
			size++
		}
	case 2: // cut off within the header
		size = number.IntN(5)
	case 3: // right length, reserved bytes in use
		header[1+number.IntN(3)] = byte(1 + number.IntN(255))
	case 4: // a data message of some length
		kind, size = 4, 32+16*number.IntN(80)
		header[0] = byte(kind)
	case 5: // right type and length
	}
	message := make([]byte, size)
	random.Read(message)
	copy(message, header)
	return message
}

// memory is the daemon's resident set, in bytes.
func (s *side) memory(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.command.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if rest, ok := strings.CutPrefix(string(line), "VmRSS:"); ok {
			return s.number(strings.Fields(rest)[0]) << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func (s *side) allDrops(t *testing.T) (total uint64) {
	t.Helper()
	for reason, count := range s.culvertStatus(t).Drops {
		if strings.HasPrefix(reason, "in: ") {
			total += count
		}
	}
	return total
}

func listenUDP(t *testing.T, host *lab.Host, address netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	host.Must(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// receive waits for one datagram.
func receive(t *testing.T, conn *net.UDPConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
