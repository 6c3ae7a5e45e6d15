package access

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// made is a packet for tests; what is zero is left out or ordinary.
type made struct {
	src, dst  string
	proto     uint8 // of IPv4; ICMP becomes ICMPv6 over IPv6
	sport     uint16
	dport     uint16
	flags     uint8
	icmp      uint8
	id        uint16
	payload   []byte
	offset    int // in bytes
	more      bool
	packetID  uint32
	options   []byte // of IPv4
	extension []byte // of IPv6: the first byte is its own number, what follows it as on the wire but for its first byte
}

func (m made) bytes() []byte {
	src, dst := netip.MustParseAddr(m.src), netip.MustParseAddr(m.dst)
	var t []byte
	switch {
	case m.offset > 0:
		t = m.payload
	case m.proto == TCP:
		t = make([]byte, tcpSize)
		t[12], t[13] = 5<<4, m.flags
	case m.proto == UDP, m.proto == sctp:
		t = make([]byte, 8)
	case m.proto == ICMP:
		t = make([]byte, icmpSize)
		t[0] = m.icmp
		binary.BigEndian.PutUint16(t[4:], m.id)
	}
	if m.offset == 0 {
		if m.proto != ICMP && len(t) >= 4 {
			binary.BigEndian.PutUint16(t, m.sport)
			binary.BigEndian.PutUint16(t[2:], m.dport)
		}
		t = append(t, m.payload...)
	}
	if src.Is4() {
		b := make([]byte, header4, 60+len(t))
		b = append(b, m.options...)
		b[0] = 0x40 | uint8(len(b)/4)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(t)))
		binary.BigEndian.PutUint16(b[4:], uint16(m.packetID))
		field := uint16(m.offset / 8)
		if m.more {
			field |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], field)
		b[8], b[9] = 64, m.proto
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return append(b, t...)
	}
	proto := m.proto
	if proto == ICMP {
		proto = icmpv6
	}
	var headers []byte
	next := proto
	if m.offset > 0 || m.more {
		f := make([]byte, 8)
		f[0] = proto
		field := uint16(m.offset)
		if m.more {
			field |= 1
		}
		binary.BigEndian.PutUint16(f[2:], field)
		binary.BigEndian.PutUint32(f[4:], m.packetID)
		headers, next = f, 44
	}
	if m.extension != nil {
		e := append([]byte(nil), m.extension...)
		number := e[0]
		e[0] = next
		headers, next = append(e, headers...), number
	}
	b := make([]byte, header6)
	b[0], b[1] = 0x60, 0
	binary.BigEndian.PutUint16(b[4:], uint16(len(headers)+len(t)))
	b[6], b[7] = next, 64
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(append(b, headers...), t...)
}

// back is the answer to a packet.
func (m made) back() made {
	m.src, m.dst, m.sport, m.dport = m.dst, m.src, m.dport, m.sport
	switch {
	case m.proto == TCP && m.flags == flagSYN:
		m.flags |= flagACK
	case m.proto == ICMP && m.icmp == 8:
		m.icmp = 0
	case m.proto == ICMP && m.icmp == 128:
		m.icmp = 129
	}
	return m
}

// quoted is the ICMP error of a host that tells the sender of m.
func (m made) quoted(from string, kind uint8) made {
	return made{src: from, dst: m.src, proto: ICMP, icmp: kind, payload: m.bytes()[:min(len(m.bytes()), 60)]}
}

var (
	someday = time.Date(2026, 6, 3, 12, 0, 0, 0, time.UTC) // a Wednesday
	peer4   = "10.0.0.2"
	near4   = "192.0.2.10"
	peer6   = "fd00::2"
	near6   = "2001:db8::10"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
