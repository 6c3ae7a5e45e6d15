package sourceguard

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"culvert/tunnel/ethernet"
)

var own = []netip.Prefix{netip.MustParsePrefix("10.40.0.2/32"), netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("fd40::2/128"),
	netip.MustParsePrefix("fd07::/64")}

// TestSet compares sets with what netip says, about the edges of each prefix.
func TestSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var prefixes []netip.Prefix
		for range random.IntN(6) {
			a, bits := netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(2)), byte(random.IntN(256))}), random.IntN(33)
			if random.IntN(2) == 0 {
				a, bits = netip.AddrFrom16([16]byte{0xfd, 7: byte(random.IntN(3)), 8: byte(random.IntN(3)), 15: byte(random.IntN(256))}), random.IntN(129)
			}
			prefixes = append(prefixes, netip.PrefixFrom(a, bits))
		}
		s := New(prefixes)
		tries := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255}), netip.MustParseAddr("ffff::")}
		for _, p := range prefixes {
			last := p.Masked().Addr().AsSlice()
			for i := p.Bits(); i < 8*len(last); i++ {
				last[i/8] |= 0x80 >> (i % 8)
			}
			end, _ := netip.AddrFromSlice(last)
			for _, a := range []netip.Addr{p.Addr(), p.Masked().Addr(), p.Masked().Addr().Prev(), end, end.Next()} {
				if a.IsValid() {
					tries = append(tries, a)
				}
			}
		}
		for _, a := range tries {
			want := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
			if got := s.has(a); got != (want || a.Is6() && a.IsLinkLocalUnicast()) {
				t.Fatalf("%v has %v: %t", prefixes, a, got)
			}
		}
	}
}

func (s *Set) has(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return s.has4(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return s.has6(at6(b[:]))
}

func made(etherType uint16, payload ...[]byte) []byte {
	f := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, byte(etherType >> 8), byte(etherType)}
	return append(f, slices.Concat(payload...)...)
}

// tag puts a VLAN tag in front.
func tag(kind uint16, f []byte) []byte {
	return slices.Concat(f[:12], []byte{byte(kind >> 8), byte(kind), 0, 7}, f[12:])
}

func ip4(from string) []byte {
	b := make([]byte, 28)
	b[0], b[3], b[8], b[9] = 0x45, 28, 64, 17
	copy(b[12:], netip.MustParseAddr(from).AsSlice())
	copy(b[16:], []byte{10, 40, 0, 1})
	return b
}

func ip6(from string, next byte, rest ...[]byte) []byte {
	b := make([]byte, 40)
	payload := slices.Concat(rest...)
	b[0], b[6], b[7] = 0x60, next, 255
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], netip.MustParseAddr(from).AsSlice())
	copy(b[24:], netip.MustParseAddr("ff02::1").AsSlice())
	return append(b, payload...)
}

// discovery is an ICMPv6 message of a type, about a target.
func discovery(kind byte, target string) []byte {
	b := make([]byte, 24)
	b[0] = kind
	copy(b[8:], netip.MustParseAddr(target).AsSlice())
	return b
}

func arp(operation byte, sender, target string) []byte {
	b := make([]byte, 28)
	copy(b, []byte{0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1})
	copy(b[14:], netip.MustParseAddr(sender).AsSlice())
	copy(b[24:], netip.MustParseAddr(target).AsSlice())
	return b
}

// extended is an extension header of 8 bytes, in front of another.
func extended(next byte, more ...byte) []byte {
	return append([]byte{next}, append(more, make([]byte, 7-len(more))...)...)
}

func set(b []byte, at int, bytes ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at:], bytes)
	return b
}

type judged struct {
	name   string
	frame  []byte
	passes bool
}

func judgements() []judged {
	const four, six, arpType = ethernet.TypeIPv4, ethernet.TypeIPv6, ethernet.TypeARP
	na := func(target string) []byte { return discovery(neighbourAdvertisement, target) }
	ns := func(target string) []byte { return discovery(neighbourSolicitation, target) }
	many := func(n int, last byte, rest []byte) (b []byte) {
		for range n - 1 {
			b = append(b, extended(destinationOptions)...)
		}
		return append(append(b, extended(last)...), rest...)
	}
	return []judged{
		{"IPv4 of its own", made(four, ip4("10.40.0.2")), true},
		{"IPv4 of a network behind it", made(four, ip4("192.168.7.255")), true},
		{"IPv4 of another", made(four, ip4("10.40.0.3")), false},
		{"IPv4 of the one below", made(four, ip4("10.40.0.1")), false},
		{"IPv4 of a network's neighbour", made(four, ip4("192.168.8.0")), false},
		{"IPv4 of nobody, as DHCP asks", made(four, ip4("0.0.0.0")), false},
		{"IPv4 of everybody", made(four, ip4("255.255.255.255")), false},
		{"IPv4 by autoconfiguration", made(four, ip4("169.254.7.7")), false},
		{"IPv4 cut off", made(four, ip4("10.40.0.2")[:19]), false},
		{"IPv4 that is none", made(four, set(ip4("10.40.0.2"), 0, 0x65)), false},
		{"IPv4 by the type of IPv6", made(six, ip4("10.40.0.2"), make([]byte, 20)), false},
		{"nothing by the type of IPv4", made(four), false},

		{"ARP", made(arpType, arp(1, "10.40.0.2", "10.40.0.1")), true},
		{"ARP's answer", made(arpType, arp(2, "10.40.0.2", "10.40.0.1"), make([]byte, 18)), true},
		{"ARP of another", made(arpType, arp(1, "10.40.0.3", "10.40.0.1")), false},
		{"ARP's answer for another", made(arpType, arp(2, "10.40.0.1", "10.40.0.3")), false},
		{"ARP announces another", made(arpType, arp(1, "10.40.0.3", "10.40.0.3")), false},
		{"ARP probes for its own", made(arpType, arp(1, "0.0.0.0", "10.40.0.2")), true},
		{"ARP probes for another", made(arpType, arp(1, "0.0.0.0", "10.40.0.3")), false},
		{"ARP's answer of nobody", made(arpType, arp(2, "0.0.0.0", "10.40.0.2")), false},
		{"ARP of hardware that is as good", made(arpType, set(arp(2, "10.40.0.3", "10.40.0.1"), 1, 6)), false},
		{"ARP of another protocol", made(arpType, set(arp(1, "10.40.0.2", "10.40.0.1"), 2, 0x86, 0xdd)), false},
		{"ARP of other lengths", made(arpType, set(arp(1, "10.40.0.2", "10.40.0.1"), 4, 8)), false},
		{"ARP cut off", made(arpType, arp(1, "10.40.0.2", "10.40.0.1")[:27]), false},

		{"IPv6 of its own", made(six, ip6("fd40::2", 17, make([]byte, 8))), true},
		{"IPv6 of a network behind it", made(six, ip6("fd07::ffff:ffff:ffff:ffff", 17, make([]byte, 8))), true},
		{"IPv6 link-local", made(six, ip6("fe80::1234", 17, make([]byte, 8))), true},
		{"IPv6 link-local, the last", made(six, ip6("febf:ffff::", 6)), true},
		{"IPv6 behind link-local", made(six, ip6("fec0::", 6)), false},
		{"IPv6 of another", made(six, ip6("fd40::3", 17, make([]byte, 8))), false},
		{"IPv6 of a network's neighbour", made(six, ip6("fd07:0:0:1::", 17)), false},
		{"IPv6 of nobody", made(six, ip6("::", 17, make([]byte, 8))), false},
		{"IPv6 mapped", made(six, ip6("::ffff:10.40.0.2", 17)), false},
		{"IPv6 of a group", made(six, ip6("ff02::1", 17)), false},
		{"IPv6 cut off", made(six, ip6("fd40::2", 17)[:39]), false},
		{"IPv6 that is none", made(six, set(ip6("fd40::2", 17), 0, 0x45)), false},
		{"an echo", made(six, ip6("fd40::2", icmpv6, discovery(128, "::"))), true},
		{"an echo of nobody", made(six, ip6("::", icmpv6, discovery(128, "::"))), false},
		{"ICMPv6 without a type", made(six, ip6("fd40::2", icmpv6)), false},

		{"solicitation", made(six, ip6("fd40::2", icmpv6, ns("fd40::1"))), true},
		{"solicitation of another", made(six, ip6("fd40::3", icmpv6, ns("fd40::1"))), false},
		{"probe for its own", made(six, ip6("::", icmpv6, ns("fd40::2"))), true},
		{"probe for a link-local address", made(six, ip6("::", icmpv6, ns("fe80::7"))), true},
		{"probe for another", made(six, ip6("::", icmpv6, ns("fd40::3"))), false},
		{"probe cut off", made(six, ip6("::", icmpv6, ns("fd40::2")[:23])), false},
		{"advertisement", made(six, ip6("fd40::2", icmpv6, na("fd40::2"))), true},
		{"advertisement from a link-local address", made(six, ip6("fe80::1", icmpv6, na("fd07::9"))), true},
		{"advertisement of a link-local address", made(six, ip6("fe80::1", icmpv6, na("fe80::1"))), true},
		{"advertisement of another", made(six, ip6("fd40::2", icmpv6, na("fd40::3"))), false},
		{"advertisement of another, link-local", made(six, ip6("fe80::1", icmpv6, na("fd40::1"))), false},
		{"advertisement from another", made(six, ip6("fd40::3", icmpv6, na("fd40::2"))), false},
		{"advertisement of nobody", made(six, ip6("::", icmpv6, na("fd40::2"))), false},
		{"advertisement cut off", made(six, ip6("fd40::2", icmpv6, na("fd40::2")[:23])), false},
		{"router solicitation", made(six, ip6("fe80::1", icmpv6, discovery(routerSolicitation, "::"))), true},
		{"router solicitation of nobody", made(six, ip6("::", icmpv6, discovery(routerSolicitation, "::"))), true},
		{"router advertisement", made(six, ip6("fe80::1", icmpv6, discovery(routerAdvertisement, "::"))), false},
		{"redirect", made(six, ip6("fe80::1", icmpv6, discovery(redirect, "fd40::3"))), false},
		{"report of listeners", made(six, ip6("fe80::1", hopByHop, extended(icmpv6, 0, 5, 2), discovery(listenerReport2, "::"))), true},
		{"report of listeners of nobody", made(six, ip6("::", hopByHop, extended(icmpv6, 0, 5, 2), discovery(listenerReport2, "::"))), true},

		{"UDP behind options", made(six, ip6("fd40::2", destinationOptions, extended(17), make([]byte, 8))), true},
		{"advertisement behind options", made(six, ip6("fd40::2", destinationOptions, extended(icmpv6), na("fd40::2"))), true},
		{"another's behind options", made(six, ip6("fd40::2", destinationOptions, extended(icmpv6), na("fd40::1"))), false},
		{"another's behind options of a hop", made(six, ip6("fd40::2", hopByHop, extended(icmpv6), na("fd40::1"))), false},
		{"another's behind routes", made(six, ip6("fd40::2", routing, extended(icmpv6), na("fd40::1"))), false},
		{"another's behind longer options", made(six, ip6("fd40::2", destinationOptions, extended(icmpv6, 1), make([]byte, 8), na("fd40::1"))), false},
		{"another's, authenticated", made(six, ip6("fd40::2", authentication, extended(icmpv6, 1), make([]byte, 4), na("fd40::1"))), false},
		{"another's behind as many headers as there may be", made(six, ip6("fd40::2", destinationOptions, many(maxExtensions, icmpv6, na("fd40::1")))), false},
		{"its own behind as many headers as there may be", made(six, ip6("fd40::2", destinationOptions, many(maxExtensions, icmpv6, na("fd40::2")))), true},
		{"its own behind more", made(six, ip6("fd40::2", destinationOptions, many(maxExtensions+1, icmpv6, na("fd40::2")))), false},
		{"a router behind options", made(six, ip6("fe80::1", destinationOptions, extended(icmpv6), discovery(routerAdvertisement, "::"))), false},
		{"options cut off", made(six, ip6("fd40::2", destinationOptions, extended(icmpv6)[:7])), false},
		{"options longer than the packet", made(six, ip6("fd40::2", destinationOptions, extended(17, 9))), false},
		{"a first fragment of UDP", made(six, ip6("fd40::2", fragment, extended(17, 0, 0, 1), make([]byte, 8))), true},
		{"a first fragment of an echo", made(six, ip6("fd40::2", fragment, extended(icmpv6, 0, 0, 1), discovery(128, "::"))), true},
		{"a later fragment", made(six, ip6("fd40::2", fragment, extended(icmpv6, 0, 0, 8), na("fd40::1"))), true},
		{"a later fragment of another", made(six, ip6("fd40::3", fragment, extended(17, 0, 0, 8))), false},
		{"a later fragment of nobody", made(six, ip6("::", fragment, extended(icmpv6, 0, 0, 8))), false},
		{"discovery in the first fragment", made(six, ip6("fd40::2", fragment, extended(icmpv6, 0, 0, 1), na("fd40::2"))), false},
		{"discovery in the only fragment", made(six, ip6("fd40::2", fragment, extended(icmpv6), na("fd40::2"))), false},
		{"a first fragment that ends in its headers", made(six, ip6("fd40::2", fragment, extended(destinationOptions, 0, 0, 1), extended(icmpv6, 4))), false},

		{"of another type", made(0x88b6, ip4("10.40.0.3")), true},
		{"of a length", made(100, make([]byte, 100)), true},
		{"a third tag", tag(ethernet.TypeVLAN, tag(ethernet.TypeVLAN, tag(ethernet.TypeVLAN, made(four, ip4("10.40.0.2"))))), false},
		{"a third tag, a provider's", tag(ethernet.TypeVLAN, tag(ethernet.TypeVLAN, tag(ethernet.TypeProvider, made(0x88b6)))), false},
	}
}

func (s *Set) judge(frame []byte) (passes, ok bool) {
	h, ok := ethernet.Parse(frame)
	return ok && s.Allows(frame, &h), ok
}

func TestAllows(t *testing.T) {
	s := New(own)
	for _, c := range judgements() {
		frames := [][]byte{c.frame}
		if h, _ := ethernet.Parse(c.frame); h.Tags == 0 {
			frames = append(frames, tag(ethernet.TypeVLAN, c.frame), tag(ethernet.TypeProvider, tag(ethernet.TypeVLAN, c.frame)))
		}
		for tags, f := range frames {
			if got, ok := s.judge(f); !ok || got != c.passes {
				t.Errorf("%s, %d tags: passes %t, want %t", c.name, tags, got, c.passes)
			}
		}
	}
}

// Of no addresses there is nothing but what a host sends without one.
func TestNoAddresses(t *testing.T) {
	s := New(nil)
	for _, f := range [][]byte{made(ethernet.TypeIPv4, ip4("0.0.0.0")), made(ethernet.TypeARP, arp(1, "0.0.0.0", "0.0.0.0")),
		made(ethernet.TypeIPv6, ip6("::", icmpv6, discovery(neighbourSolicitation, "fd40::2")))} {
		if got, _ := s.judge(f); got {
			t.Errorf("passes: %x", f)
		}
	}
	if got, _ := s.judge(made(ethernet.TypeIPv6, ip6("fe80::1", 17))); !got {
		t.Error("a link-local address does not pass")
	}
}

func TestAllowsAllocatesNothing(t *testing.T) {
	s, all := New(own), judgements()
	if n := testing.AllocsPerRun(10, func() {
		for i := range all {
			s.judge(all[i].frame)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAllows: what passes has an address of the set wherever one is found by other means.
func FuzzAllows(f *testing.F) {
	for _, c := range judgements() {
		f.Add(c.frame)
	}
	s := New(own)
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, ok := ethernet.Parse(frame)
		if !ok {
			return
		}
		if !s.Allows(frame, &h) {
			return
		}
		rest := frame[12:]
		for tags := 0; len(rest) >= 4 && (rest[0] == 0x81 && rest[1] == 0 || rest[0] == 0x88 && rest[1] == 0xa8); tags++ {
			if rest = rest[4:]; tags == 2 {
				t.Fatal("three tags pass")
			}
		}
		kind, b := binary.BigEndian.Uint16(rest), rest[2:]
		mine := func(what string, b []byte) {
			a, _ := netip.AddrFromSlice(b)
			if !slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Contains(a) }) && !(a.Is6() && a.IsLinkLocalUnicast()) {
				t.Fatalf("%s of %v passes", what, a)
			}
		}
		switch kind {
		case ethernet.TypeIPv4:
			mine("IPv4", b[12:16])
		case ethernet.TypeARP:
			if sender := b[14:18]; binary.BigEndian.Uint32(sender) != 0 {
				mine("ARP", sender)
			} else {
				mine("a probe", b[24:28])
			}
		case ethernet.TypeIPv6:
			if source, _ := netip.AddrFromSlice(b[8:24]); !source.IsUnspecified() {
				mine("IPv6", b[8:24])
			}
			next, at := b[6], 40
			for next == 0 || next == 43 || next == 60 { // as far as every host looks
				next, at = b[at], at+8*int(b[at+1])+8
			}
			if next == 58 {
				switch b[at] {
				case 136:
					mine("an advertisement", b[at+8:at+24])
				case 134, 137:
					t.Fatal("a router passes")
				}
			}
		}
	})
}
