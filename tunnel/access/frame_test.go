package access

import (
	"encoding/binary"
	"testing"
	"time"

	"culvert/tunnel/ethernet"
)

func framed(etherType uint16, tags int, payload []byte) []byte {
	f := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for range tags {
		f = append(f, 0x81, 0, 0, 5)
	}
	f = binary.BigEndian.AppendUint16(f, etherType)
	f = append(f, payload...)
	for len(f) < 60 { // as on any Ethernet
		f = append(f, 0xee)
	}
	return f
}

func TestFrames(t *testing.T) {
	nd := func(kind uint8) []byte {
		b := made{src: "fe80::1", dst: "ff02::1", proto: ICMP, icmp: kind}.bytes()
		b[7] = 255
		return b
	}
	offLink := nd(135)
	offLink[7] = 254
	mld := made{src: "fe80::1", dst: "ff02::16", proto: ICMP, icmp: 143, extension: []byte{0, 0, 5, 2, 0, 0, 1, 0}}.bytes()
	mld[7] = 1
	web := made{src: peer4, dst: near4, proto: TCP, sport: 1, dport: 443, flags: flagSYN}.bytes()
	short := made{src: peer4, dst: near4, proto: 6}.bytes()[:header4] // whose padding must not pass for a header
	short[3] = header4
	long := append([]byte(nil), web...)
	long[3] = 200
	dhcp := func(v6 bool, from, to uint16) []byte {
		m := made{src: "0.0.0.0", dst: "255.255.255.255", proto: UDP, sport: from, dport: to}
		if v6 {
			m.src, m.dst = "fe80::1", "ff02::1:2"
		}
		return m.bytes()
	}
	const ip4, ip6 = ethernet.TypeIPv4, ethernet.TypeIPv6
	for _, c := range []struct {
		name      string
		frame     []byte
		from, to  Verdict
		openOther bool // under default: allow it passes both ways
	}{
		{"ARP", framed(ethernet.TypeARP, 0, make([]byte, 28)), Pass, Pass, true},
		{"ARP of a VLAN", framed(ethernet.TypeARP, 1, make([]byte, 28)), Pass, Pass, true},
		{"web", framed(ip4, 0, web), Pass, Denied, true},
		{"web, two tags", framed(ip4, 2, web), Pass, Denied, true},
		{"web, three tags", framed(0x8100, 2, append([]byte{0, 5, 8, 0}, web...)), Denied, Denied, true},
		{"no header but padding", framed(ip4, 0, short), Denied, Denied, false},
		{"not the type it says", framed(ip6, 0, web), Denied, Denied, false},
		{"IP cut off", framed(ip4, 0, long), Denied, Denied, false},
		{"neighbour solicitation", framed(ip6, 0, nd(135)), Pass, Pass, true},
		{"neighbour advertisement", framed(ip6, 1, nd(136)), Pass, Pass, true},
		{"from off the link", framed(ip6, 0, offLink), Denied, Denied, true},
		{"router solicitation", framed(ip6, 0, nd(133)), Pass, Denied, true},
		{"router advertisement", framed(ip6, 0, nd(134)), Denied, Pass, true},
		{"redirect", framed(ip6, 0, nd(137)), Denied, Denied, true},
		{"multicast report", framed(ip6, 0, mld), Pass, Pass, true},
		{"DHCP client", framed(ip4, 0, dhcp(false, 68, 67)), Pass, Denied, true},
		{"DHCP server", framed(ip4, 0, dhcp(false, 67, 68)), Denied, Pass, true},
		{"DHCPv6 client", framed(ip6, 0, dhcp(true, 546, 547)), Pass, Denied, true},
		{"DHCPv6 server", framed(ip6, 0, dhcp(true, 547, 546)), Denied, Pass, true},
		{"spanning tree", framed(38, 0, make([]byte, 46)), Denied, Denied, true},
		{"PPPoE", framed(0x8864, 0, make([]byte, 46)), Denied, Denied, true},
	} {
		h, ok := ethernet.Parse(c.frame)
		if !ok {
			t.Fatal(c.name)
		}
		for d, want := range map[Direction]Verdict{FromPeer: c.from, ToPeer: c.to} {
			s := NewState(compile(t, webAndDNS), someday)
			if got := s.CheckFrame(d, c.frame, &h, time.Second); got != want {
				t.Errorf("%s, direction %d: %v, want %v", c.name, d, got, want)
			}
			open := NewState(compile(t, Spec{Default: Allow, Rules: []Rule{{Action: Deny, Protocols: []uint8{50}}}}), someday)
			if got := open.CheckFrame(d, c.frame, &h, time.Second); (got == Pass) != c.openOther {
				t.Errorf("%s, direction %d, default allow: %v", c.name, d, got)
			}
			s.Hold(true)
			if got := s.CheckFrame(d, c.frame, &h, time.Second); got != Shut {
				t.Errorf("%s, direction %d: %v while held", c.name, d, got)
			}
		}
	}
	s := NewState(compile(t, webAndDNS), someday)
	answer := made{src: near4, dst: peer4, proto: TCP, sport: 443, dport: 1, flags: flagSYN | flagACK}.bytes()
	for _, c := range []struct {
		d    Direction
		ip   []byte
		want Verdict
	}{{ToPeer, answer, Denied}, {FromPeer, web, Pass}, {ToPeer, answer, Pass}} {
		f := framed(ip4, 0, c.ip)
		h, _ := ethernet.Parse(f)
		if got := s.CheckFrame(c.d, f, &h, time.Second); got != c.want {
			t.Errorf("%v, want %v", got, c.want)
		}
	}
}

// FuzzCheck: nothing panics or passes a policy that allows nothing; and what one direction's rules allow lets only answers through the other.
func FuzzCheck(f *testing.F) {
	for _, m := range []made{
		{src: peer4, dst: near4, proto: TCP, sport: 1, dport: 443, flags: flagSYN}, {src: peer6, dst: near6, proto: UDP, sport: 1, dport: 53},
		{src: peer6, dst: near6, proto: UDP, dport: 53, more: true, payload: make([]byte, 8)}, {src: peer4, dst: near4, proto: UDP, offset: 8, payload: make([]byte, 8)},
		{src: peer6, dst: near6, proto: ICMP, icmp: 128, id: 1, extension: []byte{0, 0, 1, 4, 0, 0, 0, 0}}, {src: peer4, dst: near4, proto: 50, options: []byte{148, 4, 0, 0}},
	} {
		f.Add(m.bytes(), false)
		f.Add(m.back().bytes(), true)
		f.Add(m.quoted(near4, 3).bytesOr(), true)
		f.Add(framed(0x0800, 0, m.bytes()), false)
	}
	nothing := compile(f, Spec{})
	outward := compile(f, Spec{Rules: []Rule{{Action: Allow}}})
	f.Fuzz(func(t *testing.T, b []byte, toPeer bool) {
		d := FromPeer
		if toPeer {
			d = ToPeer
		}
		whole := append([]byte(nil), b...)
		s := NewState(nothing, someday)
		if v := s.Check(d, b, time.Second); v != Denied {
			t.Fatalf("%x: %v by a policy of nothing", b, v)
		}
		o := NewState(outward, someday)
		if v := o.Check(ToPeer, b, time.Second); v != Denied {
			t.Fatalf("%x to the peer: %v before anything came from it", b, v)
		}
		o.Check(FromPeer, b, time.Second)
		if v := o.Check(ToPeer, b, time.Second); v == Pass && !palindrome(b) {
			t.Fatalf("%x: what came from the peer passes for its own answer", b)
		}
		if h, ok := ethernet.Parse(b); ok {
			s.CheckFrame(d, b, &h, time.Second)
			o.CheckFrame(d, b, &h, time.Second)
		}
		if string(whole) != string(b) {
			t.Fatal("a packet was changed where no rate is")
		}
	})
}

// palindrome reports whether a packet is its own answer: from an address to itself, on one port.
func palindrome(b []byte) bool {
	if b[0]>>4 == 4 {
		return string(b[12:16]) == string(b[16:20])
	}
	return string(b[8:24]) == string(b[24:40])
}

// bytesOr is the packet, or nothing where its addresses are of different families.
func (m made) bytesOr() []byte {
	if len(m.src) > 0 && len(m.dst) > 0 && (m.src[4] == ':') != (m.dst[4] == ':') {
		return nil
	}
	return m.bytes()
}
