package interop

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"culvert/internal/lab"
)

// inner are the addresses inside the tunnel of its two ends.
type inner struct{ v4, v6 netip.Addr }

var (
	innerA = inner{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1")}
	innerB = inner{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd09::2")}
)

func (i inner) allowed() []string { return []string{i.v4.String() + "/32", i.v6.String() + "/128"} }

func (i inner) addTo(s *side) {
	s.host.AddAddr(s.device, i.v4.String()+"/24")
	s.host.AddAddr(s.device, i.v6.String()+"/64")
}

// family is an IP version of the underlay.
type family int

const (
	ipv4 family = 4
	ipv6 family = 6
)

func (f family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// of is the address of a wire's end in this family.
func (f family) of(end lab.End) netip.Addr {
	if f == ipv4 {
		return end.V4.Addr()
	}
	return end.V6.Addr()
}

// forFamilies runs a test over both families of the underlay, side by side.
func forFamilies(t *testing.T, test func(t *testing.T, outer family)) {
	t.Helper()
	for _, outer := range []family{ipv4, ipv6} {
		t.Run(outer.String(), func(t *testing.T) {
			t.Parallel()
			test(t, outer)
		})
	}
}

const (
	portA = 51820
	portB = 51821
)

// newTunnel makes two hosts on one wire with a tunnel between them. Only the initiator, a, knows where the other is. No handshake has
// happened yet.
func newTunnel(t *testing.T, p pair, outer family) (a, b *side, wire lab.Wire) {
	t.Helper()
	hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	wire = lab.Link(t, hostA, hostB)
	a, b = newSide(t, p.initiator, hostA, portA), newSide(t, p.responder, hostB, portB)
	join(a, b, netip.AddrPortFrom(outer.of(wire.B), portB))
	return a, b, wire
}

// join makes two sides each other's peers, of which only a knows the other's endpoint, and gives them their inner addresses.
func join(a, b *side, endpoint netip.AddrPort) {
	innerA.addTo(a)
	innerB.addTo(b)
	b.addPeer(a, netip.AddrPort{}, innerA.allowed()...)
	a.addPeer(b, endpoint, innerB.allowed()...)
}

// transfer sends random bytes over TCP both ways at once between an address of b and host a, and compares what arrived.
func transfer(t *testing.T, a, b *lab.Host, address netip.Addr, size int) {
	t.Helper()
	var listener net.Listener
	b.Must(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
		return err
	})
	defer listener.Close()
	var client net.Conn
	a.Must(func() (err error) {
		client, err = net.Dial("tcp", listener.Addr().String())
		return err
	})
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	var all sync.WaitGroup
	for _, way := range []struct {
		name     string
		from, to net.Conn
	}{{"to " + b.Name, client, server}, {"to " + a.Name, server, client}} {
		data := make([]byte, size)
		rand.Read(data)
		all.Go(func() {
			if _, err := way.from.Write(data); err != nil {
				t.Errorf("%s: %v", way.name, err)
			}
			if err := way.from.(*net.TCPConn).CloseWrite(); err != nil {
				t.Errorf("%s: %v", way.name, err)
			}
		})
		all.Go(func() {
			var got bytes.Buffer
			if _, err := io.Copy(&got, way.to); err != nil {
				t.Errorf("%s: %v", way.name, err)
			}
			if sha256.Sum256(got.Bytes()) != sha256.Sum256(data) {
				t.Errorf("%s: %d of %d bytes arrived, and not the same", way.name, got.Len(), size)
			}
		})
	}
	all.Wait()
}
