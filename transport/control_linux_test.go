package transport

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ptr(p *byte) unsafe.Pointer { return unsafe.Pointer(p) }

// cmsg is one control message with the length it claims.
func cmsg(size int, level, kind int32, data ...byte) []byte {
	var b []byte
	if cmsgLenBytes == 8 {
		b = binary.NativeEndian.AppendUint64(b, uint64(size))
	} else {
		b = binary.NativeEndian.AppendUint32(b, uint32(size))
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(level))
	b = binary.NativeEndian.AppendUint32(b, uint32(kind))
	b = append(b, data...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

func goodCmsg(level, kind int32, data ...byte) []byte {
	return cmsg(unix.CmsgLen(len(data)), level, kind, data...)
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func TestParseControl(t *testing.T) {
	pktinfo4 := goodCmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(u32(3), 192, 0, 2, 1, 192, 0, 2, 255)...)
	v6 := netip.MustParseAddr("2001:db8::1").As16()
	pktinfo6 := goodCmsg(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, append(v6[:], u32(4)...)...)
	gro := goodCmsg(unix.IPPROTO_UDP, unix.UDP_GRO, u32(1400)...)
	from4, from6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for name, c := range map[string]struct {
		b    []byte
		want control
	}{
		"nothing":          {nil, control{}},
		"ipv4":             {bytes.Join([][]byte{pktinfo4, goodCmsg(unix.IPPROTO_IP, unix.IP_TOS, 0x8b), gro}, nil), control{from4, 3, 1400, 0x8b}},
		"ipv6":             {bytes.Join([][]byte{gro, pktinfo6, goodCmsg(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, u32(0x8b)...)}, nil), control{from6, 4, 1400, 0x8b}},
		"unknown between":  {bytes.Join([][]byte{goodCmsg(99, 99, 1, 2, 3), gro}, nil), control{segment: 1400}},
		"empty between":    {bytes.Join([][]byte{goodCmsg(99, 99), gro}, nil), control{segment: 1400}},
		"no padding":       {gro[:unix.CmsgLen(4)], control{segment: 1400}},
		"cut off":          {gro[:unix.CmsgLen(4)-1], control{}},
		"short data":       {goodCmsg(unix.IPPROTO_UDP, unix.UDP_GRO, 1, 2), control{}},
		"short pktinfo":    {goodCmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 11)...), control{}},
		"length 0":         {append(cmsg(0, unix.IPPROTO_UDP, unix.UDP_GRO, u32(9)...), gro...), control{}},
		"length huge":      {append(cmsg(-1, unix.IPPROTO_UDP, unix.UDP_GRO, u32(9)...), gro...), control{}},
		"length in header": {append(cmsg(cmsgHeader-1, unix.IPPROTO_UDP, unix.UDP_GRO, u32(9)...), gro...), control{}},
		"negative segment": {goodCmsg(unix.IPPROTO_UDP, unix.UDP_GRO, u32(1<<31)...), control{}},
		"unspecified":      {goodCmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(u32(3), make([]byte, 8)...)...), control{}},
		"multicast": {goodCmsg(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, append([]byte{0xff, 2, 15: 1}, u32(3)...)...),
			control{}},
	} {
		if got := parseControl(c.b); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// What is written for sending must be what x/sys/unix reads, and fit.
func TestPutControl(t *testing.T) {
	e4 := Endpoint{Remote: netip.MustParseAddrPort("192.0.2.9:1"), Source: netip.MustParseAddr("192.0.2.1"), Interface: 7}
	e6 := Endpoint{Remote: netip.MustParseAddrPort("[2001:db8::9]:1"), Source: netip.MustParseAddr("2001:db8::1"), Interface: 7}
	local := Endpoint{Remote: netip.MustParseAddrPort("[fe80::9%7]:1"), Source: netip.MustParseAddr("fe80::1"), Interface: 7}
	for _, e := range []Endpoint{e4, e6, local} {
		var b controlBuffer
		for i := range b {
			b[i] = 0xee // left from an earlier message
		}
		n := b.put(e, true, 0x8b, 1400)
		c := parseControl(b[:n])
		if c.source != e.Source || c.tos != 0x8b {
			t.Errorf("%v: %+v", e, c)
		}
		wantInterface := int32(0)
		if e == local {
			wantInterface = 7
		}
		if c.index != wantInterface {
			t.Errorf("%v: pinned to interface %d", e, c.index)
		}
		messages, err := unix.ParseSocketControlMessage(b[:n])
		if err != nil || len(messages) != 3 {
			t.Fatalf("%d messages, %v", len(messages), err)
		}
		last := messages[2]
		if last.Header.Level != unix.IPPROTO_UDP || last.Header.Type != unix.UDP_SEGMENT ||
			binary.NativeEndian.Uint16(last.Data) != 1400 {
			t.Errorf("%+v", last)
		}
		if n := b.put(e, false, 0, 0); n != 0 {
			t.Errorf("%d bytes for nothing", n)
		}
	}
}

func TestSockaddr(t *testing.T) {
	for _, text := range []string{"192.0.2.1:51820", "[2001:db8::1]:65535", "[fe80::1%12]:1", "[::]:0"} {
		want := netip.MustParseAddrPort(text)
		var s sockaddr
		for i := range s {
			s[i] = 0xee
		}
		n := s.put(want)
		var z zones
		if got := s.get(n, &z); got != want {
			t.Errorf("%v came back as %v", want, got)
		}
		for short := range n {
			if got := s.get(short, &z); got.IsValid() {
				t.Errorf("%v: %d bytes were enough for %v", want, short, got)
			}
		}
	}
	for zone, want := range map[string]uint32{"": 0, "7": 7, "2147483647": 1<<31 - 1, "2147483648": 0, "eth0": 0, "1x": 0, "99999999999999999999": 0} {
		if got := zoneIndex(zone); got != want {
			t.Errorf("zone %q: %d, want %d", zone, got, want)
		}
	}
	var s sockaddr
	n := s.put(netip.MustParseAddrPort("[::ffff:192.0.2.1]:7"))
	if got := s.get(n, new(zones)); got != netip.MustParseAddrPort("192.0.2.1:7") {
		t.Errorf("mapped address came as %v", got)
	}
}

// Alternating zones allocate nothing once both were met.
func TestZonesDoNotAllocate(t *testing.T) {
	var a, b sockaddr
	na := a.put(netip.MustParseAddrPort("[fe80::1%12345]:1"))
	nb := b.put(netip.MustParseAddrPort("[fe80::2%12345]:1"))
	var z zones
	a.get(na, &z)
	if n := testing.AllocsPerRun(1000, func() {
		a.get(na, &z)
		b.get(nb, &z)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add(goodCmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(u32(3), 192, 0, 2, 1, 192, 0, 2, 255)...))
	f.Add(append(goodCmsg(unix.IPPROTO_UDP, unix.UDP_GRO, u32(1400)...), goodCmsg(unix.IPPROTO_IP, unix.IP_TOS, 3)...))
	f.Add(cmsg(-1, 1, 1, 1))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		tail := append(bytes.Clone(b), goodCmsg(unix.IPPROTO_UDP, unix.UDP_GRO, u32(0x7eadbeef)...)...)
		c := parseControl(tail[:len(b):len(b)])
		if c.segment < 0 || c.index < 0 {
			t.Fatalf("%+v", c)
		}
		if c.source.IsValid() && (c.source.Is4In6() || c.source.IsUnspecified() || c.source.IsMulticast()) {
			t.Fatalf("%+v", c)
		}
		if c.segment == 0x7eadbeef && !bytes.Contains(b, u32(0x7eadbeef)) {
			t.Fatal("read beyond the end")
		}
		// Where x/sys/unix reads the whole, it must find what was found here.
		if messages, err := unix.ParseSocketControlMessage(b); err == nil {
			var again control
			for _, m := range messages {
				again.take(m.Header.Level, m.Header.Type, m.Data)
			}
			if again != c {
				t.Fatalf("%+v, by x/sys/unix %+v", c, again)
			}
		}
	})
}

func FuzzSockaddr(f *testing.F) {
	var s sockaddr
	n := s.put(netip.MustParseAddrPort("[fe80::1%7]:1"))
	f.Add(s[:], n)
	n = s.put(netip.MustParseAddrPort("192.0.2.1:1"))
	f.Add(s[:], n)
	f.Fuzz(func(t *testing.T, b []byte, n uint32) {
		var s sockaddr
		copy(s[:], b)
		ap := s.get(n, new(zones))
		if !ap.IsValid() {
			return
		}
		if ap.Addr().Is4In6() {
			t.Fatalf("mapped: %v", ap)
		}
		var back sockaddr
		m := back.put(ap)
		if again := back.get(m, new(zones)); again != ap {
			t.Fatalf("%v came back as %v", ap, again)
		}
	})
}

func FuzzParseRouteAnswer(f *testing.F) {
	var answer []byte
	answer = routeRequest{dst: netip.MustParseAddr("192.0.2.1"), oif: 3, mark: 7}.append(answer, 5)
	binary.NativeEndian.PutUint16(answer[4:], unix.RTM_NEWROUTE)
	f.Add(answer, uint32(5))
	f.Add(answer[:30], uint32(5))
	f.Fuzz(func(t *testing.T, b []byte, seq uint32) {
		if a, found, err := parseRouteAnswer(b, seq); found && err != nil {
			t.Fatalf("%+v found and %v", a, err)
		}
	})
}
