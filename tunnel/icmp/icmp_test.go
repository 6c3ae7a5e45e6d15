package icmp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"culvert/tunnel/ippacket"
)

var (
	host4   = netip.MustParseAddr("10.1.2.3")
	host6   = netip.MustParseAddr("2001:db8::3")
	far4    = netip.MustParseAddr("192.0.2.9")
	far6    = netip.MustParseAddr("2001:db8:9::9")
	router4 = netip.MustParseAddr("10.1.2.1")
	router6 = netip.MustParseAddr("2001:db8::1")
)

const udp = 17

// packet4 returns an IPv4 packet with don't-fragment set.
func packet4(src, dst netip.Addr, protocol byte, payload []byte) []byte {
	p := make([]byte, 20, 20+len(payload))
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(payload)))
	p[6] = 0x40
	p[8], p[9] = 64, protocol
	s, d := src.As4(), dst.As4()
	copy(p[12:], s[:])
	copy(p[16:], d[:])
	return append(p, payload...)
}

func packet6(src, dst netip.Addr, next byte, payload []byte) []byte {
	p := make([]byte, 40, 40+len(payload))
	p[0] = 0x60
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	p[6], p[7] = next, 64
	s, d := src.As16(), dst.As16()
	copy(p[8:], s[:])
	copy(p[24:], d[:])
	return append(p, payload...)
}

// check verifies everything about a message but the reason it was sent for, and returns its ICMP header.
func check(t *testing.T, message, packet []byte) (header []byte) {
	t.Helper()
	src, dst, length, ok := ippacket.Parse(message)
	if !ok || length != len(message) {
		t.Fatalf("not one IP packet: %x", message)
	}
	invokingSrc, _, invokingLength, _ := ippacket.Parse(packet)
	if dst != invokingSrc {
		t.Errorf("goes to %v, want %v", dst, invokingSrc)
	}
	var body []byte
	if src.Is4() {
		body = message[20:]
		if src != router4 || message[9] != protocolICMP || ippacket.Fold(ippacket.Sum(message[:20], 0)) != 0xffff {
			t.Errorf("bad IPv4 header %x", message[:20])
		}
		if ippacket.Fold(ippacket.Sum(body, 0)) != 0xffff {
			t.Error("bad ICMP checksum")
		}
	} else {
		body = message[40:]
		if src != router6 || message[6] != protocolICMPv6 {
			t.Errorf("bad IPv6 header %x", message[:40])
		}
		// Pseudo-header: both addresses, length, next header.
		pseudo := binary.BigEndian.AppendUint32(bytes.Clone(message[8:40]), uint32(len(body)))
		pseudo = binary.BigEndian.AppendUint32(pseudo, protocolICMPv6)
		if ippacket.Fold(ippacket.Sum(body, ippacket.Sum(pseudo, 0))) != 0xffff {
			t.Error("bad ICMPv6 checksum")
		}
	}
	largest := 576 - 28
	if src.Is6() {
		largest = 1280 - 48
	}
	if want := packet[:min(invokingLength, largest)]; !bytes.Equal(body[8:], want) {
		t.Errorf("quotes %d bytes, want the first %d of %d", len(body)-8, len(want), invokingLength)
	}
	return body[:8]
}

func TestUnreachable(t *testing.T) {
	for _, size := range []int{0, 1, 7, 8, 527, 528, 529, 1191, 1192, 1193, 1400} {
		payload := bytes.Repeat([]byte{0xa5}, size)
		v4 := append(packet4(host4, far4, udp, payload), "padding"...)
		v6 := append(packet6(host6, far6, udp, payload), "padding"...)
		for reason, want := range map[Reason][2][2]byte{
			NoRoute:            {{3, 1}, {1, 0}},
			AddressUnreachable: {{3, 1}, {1, 3}},
			Prohibited:         {{3, 13}, {1, 1}},
		} {
			for i, packet := range [][]byte{v4, v6} {
				message, ok := Unreachable([]byte("before"), packet, reason, []netip.Addr{router4, router6}[i])
				if !ok || string(message[:6]) != "before" {
					t.Fatalf("reason %d size %d: ok %v", reason, size, ok)
				}
				header := check(t, message[6:], packet)
				if header[0] != want[i][0] || header[1] != want[i][1] || !bytes.Equal(header[4:], make([]byte, 4)) {
					t.Errorf("reason %d: header %x, want type and code %v", reason, header, want[i])
				}
			}
		}
	}
}

func TestTooBig(t *testing.T) {
	v4, v6 := packet4(host4, far4, udp, make([]byte, 1472)), packet6(host6, far6, udp, make([]byte, 1452))
	for _, tt := range []struct {
		packet []byte
		from   netip.Addr
		mtu    int
		header [8]byte // without the checksum; type 0: refused
	}{
		{v4, router4, 1420, [8]byte{3, 4, 0, 0, 0, 0, 1420 >> 8, 1420 & 0xff}},
		{v4, router4, 68, [8]byte{3, 4, 0, 0, 0, 0, 0, 68}},
		{v4, router4, 67, [8]byte{}},
		{v4, router4, -1, [8]byte{}},
		{v4, router4, 100000, [8]byte{3, 4, 0, 0, 0, 0, 0xff, 0xff}},
		{v6, router6, 1420, [8]byte{2, 0, 0, 0, 0, 0, 1420 >> 8, 1420 & 0xff}},
		{v6, router6, 1280, [8]byte{2, 0, 0, 0, 0, 0, 5, 0}},
		{v6, router6, 1279, [8]byte{}},
		{v6, router6, 100000, [8]byte{2, 0, 0, 0, 0, 1, 0x86, 0xa0}},
	} {
		message, ok := TooBig(nil, tt.packet, tt.mtu, tt.from)
		if ok != (tt.header[0] != 0) {
			t.Fatalf("mtu %d: ok %v", tt.mtu, ok)
		}
		if !ok {
			continue
		}
		header := [8]byte(check(t, message, tt.packet))
		header[2], header[3] = 0, 0
		if header != tt.header {
			t.Errorf("mtu %d: header %x, want %x", tt.mtu, header, tt.header)
		}
	}
	v4[6] = 0
	if _, ok := TooBig(nil, v4, 1420, router4); ok {
		t.Error("fragmentation needed in answer to a packet that may be fragmented")
	}
	if _, ok := TooBig(nil, v4[:5], 1420, router4); ok {
		t.Error("answered five bytes")
	}
}

// TestAnswerable: the rules of RFC 1122 §3.2.2 and RFC 4443 §2.4(e).
func TestAnswerable(t *testing.T) {
	fragment4 := func(offset uint16, more bool) []byte {
		p := packet4(host4, far4, udp, make([]byte, 64))
		if more {
			offset |= 0x2000
		}
		binary.BigEndian.PutUint16(p[6:], offset)
		return p
	}
	fragment6 := func(offset uint16, next byte, payload ...byte) []byte {
		header := []byte{next, 0, 0, 1, 0, 0, 0, 9}
		binary.BigEndian.PutUint16(header[2:], offset<<3|1)
		return packet6(host6, far6, 44, append(header, payload...))
	}
	addr := netip.MustParseAddr
	options := func(p []byte) []byte {
		p = append(p[:20:20], append(make([]byte, 8), p[20:]...)...)
		p[0] = 0x47
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		return p
	}
	tests := []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"v4 udp", packet4(host4, far4, udp, make([]byte, 8)), true},
		{"v4 no payload", packet4(host4, far4, udp, nil), true},
		{"v4 echo request", packet4(host4, far4, 1, []byte{8, 0}), true},
		{"v4 echo reply", packet4(host4, far4, 1, []byte{0, 0}), true},
		{"v4 timestamp", packet4(host4, far4, 1, []byte{13, 0}), true},
		{"v4 extended echo", packet4(host4, far4, 1, []byte{42, 0}), true},
		{"v4 unreachable", packet4(host4, far4, 1, []byte{3, 1}), false},
		{"v4 source quench", packet4(host4, far4, 1, []byte{4, 0}), false},
		{"v4 redirect", packet4(host4, far4, 1, []byte{5, 0}), false},
		{"v4 time exceeded", packet4(host4, far4, 1, []byte{11, 0}), false},
		{"v4 parameter problem", packet4(host4, far4, 1, []byte{12, 0}), false},
		{"v4 unassigned ICMP type", packet4(host4, far4, 1, []byte{200, 0}), false},
		{"v4 ICMP without a type", packet4(host4, far4, 1, nil), false},
		{"v4 unreachable behind options", options(packet4(host4, far4, 1, []byte{3, 1})), false},
		{"v4 echo behind options", options(packet4(host4, far4, 1, []byte{8, 0})), true},
		{"v4 first fragment", fragment4(0, true), true},
		{"v4 middle fragment", fragment4(8, true), false},
		{"v4 last fragment", fragment4(8, false), false},
		{"v4 to multicast", packet4(host4, addr("239.1.1.1"), udp, nil), false},
		{"v4 to broadcast", packet4(host4, addr("255.255.255.255"), udp, nil), false},
		{"v4 to unspecified", packet4(host4, addr("0.0.0.0"), udp, nil), false},
		{"v4 from unspecified", packet4(addr("0.0.0.0"), far4, udp, nil), false},
		{"v4 from this network", packet4(addr("0.1.2.3"), far4, udp, nil), false},
		{"v4 from loopback", packet4(addr("127.0.0.1"), far4, udp, nil), false},
		{"v4 from multicast", packet4(addr("224.0.0.1"), far4, udp, nil), false},
		{"v4 from class E", packet4(addr("240.0.0.1"), far4, udp, nil), false},
		{"v4 from broadcast", packet4(addr("255.255.255.255"), far4, udp, nil), false},
		{"v4 truncated", packet4(host4, far4, udp, make([]byte, 8))[:27], false},

		{"v6 udp", packet6(host6, far6, udp, make([]byte, 8)), true},
		{"v6 no next header", packet6(host6, far6, 59, nil), true},
		{"v6 ESP", packet6(host6, far6, 50, make([]byte, 40)), true},
		{"v6 echo request", packet6(host6, far6, 58, []byte{128, 0}), true},
		{"v6 neighbour solicitation", packet6(host6, far6, 58, []byte{135, 0}), true},
		{"v6 unreachable", packet6(host6, far6, 58, []byte{1, 0}), false},
		{"v6 too big", packet6(host6, far6, 58, []byte{2, 0}), false},
		{"v6 unassigned error", packet6(host6, far6, 58, []byte{127, 0}), false},
		{"v6 redirect", packet6(host6, far6, 58, []byte{137, 0}), false},
		{"v6 ICMP without a type", packet6(host6, far6, 58, nil), false},
		{"v6 error behind hop-by-hop", packet6(host6, far6, 0, []byte{58, 0, 0, 0, 0, 0, 0, 0, 1, 0}), false},
		{"v6 echo behind hop-by-hop", packet6(host6, far6, 0, []byte{58, 0, 0, 0, 0, 0, 0, 0, 128, 0}), true},
		{"v6 error behind two headers", packet6(host6, far6, 60, append([]byte{43, 1, 15: 0}, 58, 0, 0, 0, 0, 0, 0, 0, 1, 0)), false},
		{"v6 echo behind two headers", packet6(host6, far6, 60, append([]byte{43, 1, 15: 0}, 58, 0, 0, 0, 0, 0, 0, 0, 128, 0)), true},
		{"v6 error behind AH", packet6(host6, far6, 51, append([]byte{58, 4, 23: 0}, 1, 0)), false},
		{"v6 echo behind AH", packet6(host6, far6, 51, append([]byte{58, 4, 23: 0}, 129, 0)), true},
		{"v6 header beyond the end", packet6(host6, far6, 60, []byte{58, 1, 0, 0, 0, 0, 0, 0}), false},
		{"v6 header cut", packet6(host6, far6, 60, []byte{58, 0, 0}), false},
		{"v6 fragment header cut", packet6(host6, far6, 44, []byte{58, 0, 0}), false},
		{"v6 AH cut", packet6(host6, far6, 51, []byte{58, 0, 0}), false},
		{"v6 endless chain", packet6(host6, far6, 60, bytes.Repeat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, 100)), false},
		{"v6 first fragment", fragment6(0, udp, make([]byte, 16)...), true},
		{"v6 first fragment of an error", fragment6(0, 58, 1, 0), false},
		{"v6 later fragment", fragment6(1, udp, make([]byte, 16)...), false},
		{"v6 to multicast", packet6(host6, addr("ff02::1"), udp, nil), false},
		{"v6 to unspecified", packet6(host6, addr("::"), udp, nil), false},
		{"v6 from unspecified", packet6(addr("::"), far6, udp, nil), false},
		{"v6 from loopback", packet6(addr("::1"), far6, udp, nil), false},
		{"v6 from multicast", packet6(addr("ff05::2"), far6, udp, nil), false},
		{"v6 from mapped", packet6(addr("::ffff:10.0.0.1"), far6, udp, nil), false},
		{"v6 from link-local", packet6(addr("fe80::1"), far6, udp, nil), true},
		{"v6 truncated", packet6(host6, far6, udp, make([]byte, 8))[:47], false},
		{"empty", nil, false},
		{"not IP", make([]byte, 100), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Answerable(tt.packet); got != tt.want {
				t.Errorf("Answerable: %v, want %v", got, tt.want)
			}
			from := router4
			if ippacket.Version(tt.packet) == 6 {
				from = router6
			}
			if _, ok := Unreachable(nil, tt.packet, NoRoute, from); ok != tt.want {
				t.Errorf("Unreachable: %v, want %v", ok, tt.want)
			}
		})
	}
}

func TestFrom(t *testing.T) {
	v4, v6 := packet4(host4, far4, udp, nil), packet6(host6, far6, udp, nil)
	for _, from := range []string{"2001:db8::1", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::ffff:10.0.0.1"} {
		if got, ok := Unreachable([]byte("x"), v4, NoRoute, netip.MustParseAddr(from)); ok || string(got) != "x" {
			t.Errorf("IPv4 error from %v", from)
		}
	}
	for _, from := range []string{"10.0.0.1", "::", "::1", "ff02::1", "::ffff:10.0.0.1"} {
		if got, ok := Unreachable([]byte("x"), v6, NoRoute, netip.MustParseAddr(from)); ok || string(got) != "x" {
			t.Errorf("IPv6 error from %v", from)
		}
	}
	for _, packet := range [][]byte{v4, v6} {
		if _, ok := Unreachable(nil, packet, NoRoute, netip.Addr{}); ok {
			t.Error("an error from nowhere")
		}
	}
	if _, ok := Unreachable(nil, v4, Prohibited+1, router4); ok {
		t.Error("an error for no reason")
	}
}

// TestNoAnswerToAnswer: what this package builds is never answered by it.
func TestNoAnswerToAnswer(t *testing.T) {
	message, _ := Unreachable(nil, packet4(host4, far4, udp, make([]byte, 100)), NoRoute, router4)
	if Answerable(message) {
		t.Error("an IPv4 error would be answered")
	}
	message, _ = TooBig(nil, packet6(host6, far6, udp, make([]byte, 1452)), 1280, router6)
	if Answerable(message) {
		t.Error("an IPv6 error would be answered")
	}
}

func TestAllocatesNothing(t *testing.T) {
	v4, v6 := packet4(host4, far4, udp, make([]byte, 1400)), packet6(host6, far6, udp, make([]byte, 1400))
	buf := make([]byte, 0, MaxSize6)
	var l Limiter
	if n := testing.AllocsPerRun(100, func() {
		l.Allow(0)
		Unreachable(buf, v4, NoRoute, router4)
		Unreachable(buf, v6, NoRoute, router6)
		TooBig(buf, v6, 1280, router6)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzUnreachable(f *testing.F) {
	f.Add(packet4(host4, far4, udp, make([]byte, 100)), uint8(0), 1420)
	f.Add(packet4(host4, far4, 1, []byte{3, 1, 0, 0}), uint8(2), 68)
	f.Add(packet6(host6, far6, 0, []byte{58, 0, 0, 0, 0, 0, 0, 0, 1, 0}), uint8(1), 1280)
	f.Add(packet6(host6, far6, 44, []byte{17, 0, 0, 1, 0, 0, 0, 0, 1, 0}), uint8(1), 1400)
	f.Fuzz(func(t *testing.T, packet []byte, reason uint8, mtu int) {
		before := bytes.Clone(packet)
		from := router4
		if ippacket.Version(packet) == 6 {
			from = router6
		}
		for i := range 2 {
			var message []byte
			var ok bool
			if i == 0 {
				message, ok = Unreachable(nil, packet, Reason(reason), from)
			} else {
				message, ok = TooBig(nil, packet, mtu, from)
			}
			if !bytes.Equal(packet, before) {
				t.Fatal("changed the packet")
			}
			if !ok {
				if message != nil {
					t.Fatal("refused, with a message")
				}
				continue
			}
			if len(message) > MaxSize6 || from.Is4() && len(message) > MaxSize4 {
				t.Fatalf("%d bytes", len(message))
			}
			check(t, message, packet)
			if Answerable(message) {
				t.Fatal("the error would be answered with an error")
			}
		}
	})
}

func BenchmarkUnreachable(b *testing.B) {
	packet := packet4(host4, far4, udp, make([]byte, 1400))
	buf := make([]byte, 0, MaxSize4)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Unreachable(buf, packet, NoRoute, router4); !ok {
			b.Fatal("refused")
		}
	}
}
