package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"

	"culvert/tunnel/ethernet"
	"culvert/tunnel/payload"
)

// ofType puts a payload into a frame of an EtherType.
func ofType(etherType uint16, to, from ethernet.Address, payload ...byte) []byte {
	f := frame(to, from, string(payload))
	binary.BigEndian.PutUint16(f[12:], etherType)
	return f
}

// arpMessage is what a station says of itself, or of another.
func arpMessage(operation byte, mac ethernet.Address, sender, target netip.Addr) []byte {
	b := append(make([]byte, 0, 28), 0, 1, 8, 0, 6, 4, 0, operation, 0, 0, 0, 0, 0, 0)
	mac.Put(b[8:])
	return append(append(append(b, sender.AsSlice()...), 0, 0, 0, 0, 0, 0), target.AsSlice()...)
}

// discovery is a neighbour discovery message of a kind about a target, behind extension headers of 8 bytes.
func discovery(kind byte, source, target netip.Addr, behind ...byte) []byte {
	const icmpv6 = 58
	headers := append(bytes.Clone(behind), icmpv6)
	rest := make([]byte, 8*len(behind)+24)
	for i := range behind {
		rest[8*i] = headers[i+1]
	}
	message := rest[8*len(behind):]
	message[0] = kind
	copy(message[8:], target.AsSlice())
	p := make([]byte, 40, 40+len(rest))
	p[0], p[5], p[6], p[7] = 0x60, byte(len(rest)), headers[0], 255
	copy(p[8:], source.AsSlice())
	copy(p[24:], netip.MustParseAddr("ff02::1").AsSlice())
	return append(p, rest...)
}

// A peer that is held to its addresses sends nothing as somebody else, nor has others believe that it is somebody else: to the device,
// to another peer, and to all.
func TestFramesAreHeldToAddresses(t *testing.T) {
	own4, own6 := netip.MustParseAddr("10.40.0.2"), netip.MustParseAddr("fd40::2")
	other4, other6 := netip.MustParseAddr("10.40.0.1"), netip.MustParseAddr("fd40::1")
	local, none4, none6 := netip.MustParseAddr("fe80::1234"), netip.IPv4Unspecified(), netip.IPv6Unspecified()
	const advertisement, solicitation, routerAdvertisement, redirect = 136, 135, 134, 137
	const options, request, reply = 60, 1, 2
	text := []byte("whose?")
	synctest.Test(t, func(t *testing.T) {
		port := PortChange{Spoke: true, Sources: []netip.Prefix{netip.PrefixFrom(own4, 32), netip.PrefixFrom(own6, 128)}}
		s := newTapScene(t, withPort(port))
		here, far := s.known()
		from := station(100)
		s.a.sends(frame(here, from, "I am 100"))
		s.settle()
		v4 := func(source netip.Addr) []byte { return udpPacket(source, other4, text) }
		v6 := func(source netip.Addr) []byte { return udp6Packet(source, other6, text) }
		for _, c := range []struct {
			name    string
			kind    uint16
			content []byte
			own     bool // whether it passes a peer that is held to its addresses
		}{
			{name: "IPv4", kind: ethernet.TypeIPv4, content: v4(own4), own: true},
			{name: "IPv4 of another", kind: ethernet.TypeIPv4, content: v4(other4)},
			{name: "IPv4 of nobody", kind: ethernet.TypeIPv4, content: v4(none4)},
			{name: "IPv4 cut off", kind: ethernet.TypeIPv4, content: v4(own4)[:19]},
			{name: "IPv6", kind: ethernet.TypeIPv6, content: v6(own6), own: true},
			{name: "IPv6 of another", kind: ethernet.TypeIPv6, content: v6(other6)},
			{name: "IPv6 of nobody", kind: ethernet.TypeIPv6, content: v6(none6)},
			{name: "IPv6, link-local", kind: ethernet.TypeIPv6, content: v6(local), own: true},
			{name: "ARP", kind: ethernet.TypeARP, content: arpMessage(request, from, own4, other4), own: true},
			{name: "ARP of another", kind: ethernet.TypeARP, content: arpMessage(request, from, other4, own4)},
			{name: "ARP's answer of another", kind: ethernet.TypeARP, content: arpMessage(reply, from, other4, own4)},
			{name: "ARP announces another", kind: ethernet.TypeARP, content: arpMessage(request, from, other4, other4)},
			{name: "ARP probes for its own", kind: ethernet.TypeARP, content: arpMessage(request, from, none4, own4), own: true},
			{name: "ARP probes for another", kind: ethernet.TypeARP, content: arpMessage(request, from, none4, other4)},
			{name: "advertisement", kind: ethernet.TypeIPv6, content: discovery(advertisement, own6, own6), own: true},
			{name: "advertisement of another", kind: ethernet.TypeIPv6, content: discovery(advertisement, own6, other6)},
			{name: "advertisement of another, link-local", kind: ethernet.TypeIPv6, content: discovery(advertisement, local, other6)},
			{name: "advertisement behind options", kind: ethernet.TypeIPv6, content: discovery(advertisement, own6, own6, options), own: true},
			{name: "advertisement of another behind options", kind: ethernet.TypeIPv6, content: discovery(advertisement, own6, other6, options)},
			{name: "advertisement of another behind more", kind: ethernet.TypeIPv6, content: discovery(advertisement, own6, other6, options, 0, 43, options)},
			{name: "probe for its own", kind: ethernet.TypeIPv6, content: discovery(solicitation, none6, own6), own: true},
			{name: "probe for another", kind: ethernet.TypeIPv6, content: discovery(solicitation, none6, other6)},
			{name: "solicitation", kind: ethernet.TypeIPv6, content: discovery(solicitation, own6, other6), own: true},
			{name: "a router", kind: ethernet.TypeIPv6, content: discovery(routerAdvertisement, local, none6)},
			{name: "a redirect", kind: ethernet.TypeIPv6, content: discovery(redirect, local, other6)},
			{name: "another protocol", kind: 0x88b6, content: v4(other4), own: true},
		} {
			for _, to := range []ethernet.Address{here, far, ethernet.Broadcast} {
				plain := ofType(c.kind, to, from, c.content...)
				twice := tagged(6, tagged(5, plain))
				binary.BigEndian.PutUint16(twice[12:], ethernet.TypeProvider)
				thrice := tagged(0, tagged(0, tagged(0, plain)))
				for tags, f := range [][]byte{plain, tagged(0, plain), twice, thrice} {
					name := fmt.Sprintf("%s to %v, %d tags", c.name, to, tags)
					if to == far && tags == 2 {
						continue // nobody is known in that VLAN
					}
					s.a.sends(f)
					if !c.own || tags == 3 {
						s.n.expectDrops(t, name, map[DropReason]int{DropInOtherAddress: 1})
						s.expectAt(name, nil, nil, nil)
						tick()
						continue
					}
					one := [][]byte{f}
					switch {
					case to == ethernet.Broadcast || tags == 2:
						s.expectAt(name, one, one, nil)
					case to == far:
						s.expectAt(name, nil, one, nil)
					default:
						s.expectAt(name, one, nil, nil)
					}
					s.n.expectDrops(t, name, nil)
					tick()
				}
			}
		}

		// It is no way around it that a checksum is left to be computed, nor that a message comes in fragments.
		s.a.inject(s.a.sealed(payload.EthernetElided, ofType(ethernet.TypeIPv4, here, from, v4(other4)...)))
		s.n.expectDrops(t, "elided", map[DropReason]int{DropInOtherAddress: 1})
		for _, p := range cut(trailed(payload.Ethernet, ofType(ethernet.TypeIPv4, here, from, v4(other4)...)), 7000, 20) {
			s.a.inject(s.a.seal(p))
		}
		s.n.expectDrops(t, "in fragments", map[DropReason]int{DropInOtherAddress: 1})
		s.expectAt("by another way", nil, nil, nil)

		// Others are not held to anything, and this one no more when that is lifted.
		lie := ofType(ethernet.TypeARP, here, station(10), arpMessage(reply, station(10), own4, other4)...)
		s.good.sendFrame(lie)
		s.expectAt("of a peer without addresses", [][]byte{lie}, nil, nil)
		for _, sources := range [][]netip.Prefix{nil, {}, {netip.MustParsePrefix("10.40.0.0/30")}} {
			port.Sources = sources
			s.n.configure(Change{Peers: []PeerChange{{PublicKey: s.a.public, Port: &port}}})
			s.settle()
			f := ofType(ethernet.TypeIPv4, here, from, v4(other4)...)
			s.a.sends(f)
			if sources != nil && len(sources) == 0 {
				s.n.expectDrops(t, "without addresses", map[DropReason]int{DropInOtherAddress: 1})
				s.expectAt("without addresses", nil, nil, nil)
				continue
			}
			s.expectAt(fmt.Sprint("held to ", sources), [][]byte{f}, nil, nil)
		}
		if err := s.n.Configure(Change{Peers: []PeerChange{{PublicKey: s.a.public, Port: &PortChange{Sources: []netip.Prefix{{}}}}}}); err == nil {
			t.Error("a network that is none is taken")
		}
	})
}

// A wire, the tunnel's only peer, is held to its addresses as well, and nothing is learned of what is dropped.
func TestWireIsHeldToAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, other := netip.MustParseAddr("10.40.0.2"), netip.MustParseAddr("10.40.0.1")
		s := newTapScene(t, withPort(PortChange{Sources: []netip.Prefix{netip.PrefixFrom(own, 32)}}))
		s.n.configure(Change{Peers: []PeerChange{{PublicKey: s.good.public, Remove: true}}})
		s.settle()
		if s.n.bridge.ports.Load().wire == nil {
			t.Fatal("no wire")
		}
		s.a.sends(ipFrame(station(1), station(100), udpPacket(other, own, nil)))
		s.n.expectDrops(t, "another's", map[DropReason]int{DropInOtherAddress: 1})
		if got := s.n.addresses(); got[station(100)] != "" {
			t.Errorf("learned: %v", got)
		}
		f := ipFrame(station(1), station(100), udpPacket(own, other, nil))
		s.a.sends(f)
		if got := s.n.frames(); len(got) != 1 || !bytes.Equal(got[0], f) {
			t.Errorf("its own: %x", got)
		}
	})
}
