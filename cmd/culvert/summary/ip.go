package summary

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Protocol numbers of IANA.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoOptions  = 60
)

var protoNames = map[byte]string{
	protoICMP: "ICMP", 2: "IGMP", 4: "IPv4", protoTCP: "TCP", protoUDP: "UDP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH",
	protoICMPv6: "ICMPv6", 59: "no next header", 89: "OSPF", 103: "PIM", 112: "VRRP", 132: "SCTP",
}

func protoName(p byte) string {
	if name := protoNames[p]; name != "" {
		return name
	}
	return fmt.Sprintf("protocol %d", p)
}

// segment is what an IP packet carries.
type segment struct {
	src, dst netip.Addr
	proto    byte
	data     []byte // as much as was captured
	length   int    // as its packet's header says
	fragment bool
	offset   int // of a fragment, in bytes
	id       uint32
	more     bool
}

// maxExtensions bounds the extension headers that are gone through.
const maxExtensions = 8

func ip(b, data []byte, length int) []byte {
	if len(data) == 0 {
		return fmt.Appendf(b, "[|IP] length %d", length)
	}
	switch data[0] >> 4 {
	case 4:
		return ipv4(b, data, length)
	case 6:
		return ipv6(b, data, length)
	}
	return fmt.Appendf(b, "IP version %d, length %d", data[0]>>4, length)
}

// ipv4 is RFC 791.
func ipv4(b, data []byte, length int) []byte {
	if len(data) < 20 {
		return fmt.Appendf(b, "[|IP] length %d", length)
	}
	b = append(b, "IP "...)
	header, total := int(data[0]&0xf)*4, int(binary.BigEndian.Uint16(data[2:]))
	s := segment{src: netip.AddrFrom4([4]byte(data[12:])), dst: netip.AddrFrom4([4]byte(data[16:])), proto: data[9]}
	if header < 20 || total < header || total > length {
		return fmt.Appendf(b, "%s > %s: wrong length, header %d, packet %d of %d", s.src, s.dst, header, total, length)
	}
	flags := binary.BigEndian.Uint16(data[6:])
	s.id, s.offset, s.more = uint32(binary.BigEndian.Uint16(data[4:])), int(flags&0x1fff)*8, flags&0x2000 != 0
	s.fragment = s.more || s.offset > 0
	s.data, s.length = data[min(header, len(data)):min(total, len(data))], total-header
	return s.append(b)
}

// ipv6 is RFC 8200.
func ipv6(b, data []byte, length int) []byte {
	if len(data) < 40 {
		return fmt.Appendf(b, "[|IP6] length %d", length)
	}
	b = append(b, "IP6 "...)
	s := segment{
		src: netip.AddrFrom16([16]byte(data[8:])), dst: netip.AddrFrom16([16]byte(data[24:])), proto: data[6],
		length: int(binary.BigEndian.Uint16(data[4:])),
	}
	if s.length > length-40 {
		return fmt.Appendf(b, "%s > %s: wrong length, payload %d of %d", s.src, s.dst, s.length, length-40)
	}
	s.data = data[40:min(40+s.length, len(data))]
	for range maxExtensions {
		size := 8
		switch s.proto {
		case protoHopByHop, protoRouting, protoOptions:
			if len(s.data) >= 2 {
				size = 8 + 8*int(s.data[1])
			}
		case protoFragment:
		default:
			return s.append(b)
		}
		if len(s.data) < size {
			return fmt.Appendf(b, "%s > %s: [|extension header %d]", s.src, s.dst, s.proto)
		}
		if s.proto == protoFragment {
			flags := binary.BigEndian.Uint16(s.data[2:])
			s.fragment, s.offset, s.more, s.id = true, int(flags&^7), flags&1 != 0, binary.BigEndian.Uint32(s.data[4:])
		}
		s.proto = s.data[0]
		s.data, s.length = s.data[size:], s.length-size
		if s.offset > 0 {
			break // what follows is the middle of something
		}
	}
	return s.append(b)
}

func (s *segment) append(b []byte) []byte {
	if s.offset > 0 {
		return fmt.Appendf(s.hosts(b), "%s fragment %d, offset %d, length %d%s", protoName(s.proto), s.id, s.offset, s.length, s.plus())
	}
	switch s.proto {
	case protoTCP:
		b = s.tcp(b)
	case protoUDP:
		b = s.udp(b)
	case protoICMP, protoICMPv6:
		b = s.icmp(b)
	default:
		b = fmt.Appendf(s.hosts(b), "%s, length %d", protoName(s.proto), s.length)
	}
	if s.fragment {
		b = fmt.Appendf(b, ", fragment %d, offset 0%s", s.id, s.plus())
	}
	return b
}

// plus marks a fragment that others follow.
func (s *segment) plus() string {
	if s.more {
		return "+"
	}
	return ""
}

func (s *segment) hosts(b []byte) []byte { return fmt.Appendf(b, "%s > %s: ", s.src, s.dst) }

// ports writes both ends with their ports, which are the first four bytes.
func (s *segment) ports(b []byte) []byte {
	return fmt.Appendf(b, "%s.%d > %s.%d: ", s.src, binary.BigEndian.Uint16(s.data), s.dst, binary.BigEndian.Uint16(s.data[2:]))
}

// tcpFlags are the letters of TCP's flags from the lowest bit on, as tcpdump has them.
const tcpFlags = "FSRP.UEW"

// tcp is RFC 9293.
func (s *segment) tcp(b []byte) []byte {
	if len(s.data) < 4 {
		return append(s.hosts(b), "[|TCP]"...)
	}
	b = s.ports(b)
	if len(s.data) < 20 {
		return append(b, "[|TCP]"...)
	}
	b = append(b, "TCP ["...)
	for i := range len(tcpFlags) {
		if s.data[13]>>i&1 != 0 {
			b = append(b, tcpFlags[i])
		}
	}
	b = fmt.Appendf(b, "], seq %d, ", binary.BigEndian.Uint32(s.data[4:]))
	if s.data[13]&0x10 != 0 {
		b = fmt.Appendf(b, "ack %d, ", binary.BigEndian.Uint32(s.data[8:]))
	}
	b = fmt.Appendf(b, "win %d, ", binary.BigEndian.Uint16(s.data[14:]))
	header := int(s.data[12]>>4) * 4
	if header < 20 || header > s.length {
		return fmt.Appendf(b, "wrong header length %d", header)
	}
	return fmt.Appendf(b, "length %d", s.length-header)
}

// udp is RFC 768.
func (s *segment) udp(b []byte) []byte {
	if len(s.data) < 4 {
		return append(s.hosts(b), "[|UDP]"...)
	}
	b = s.ports(b)
	if len(s.data) < 8 {
		return append(b, "[|UDP]"...)
	}
	return fmt.Appendf(b, "UDP, length %d", max(s.length-8, 0))
}

var icmpNames = map[byte]string{
	0: "echo reply", 3: "destination unreachable", 5: "redirect", 8: "echo request", 9: "router advertisement",
	10: "router solicitation", 11: "time exceeded", 12: "parameter problem",
}

var icmpv6Names = map[byte]string{
	1: "destination unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request",
	129: "echo reply", 130: "multicast listener query", 131: "multicast listener report", 132: "multicast listener done",
	133: "router solicitation", 134: "router advertisement", 135: "neighbor solicitation", 136: "neighbor advertisement",
	137: "redirect", 143: "multicast listener report v2",
}

// icmp is RFC 792 and RFC 4443, with RFC 4861's messages.
func (s *segment) icmp(b []byte) []byte {
	b = s.hosts(b)
	proto, names := "ICMP", icmpNames
	if s.proto == protoICMPv6 {
		proto, names = "ICMPv6", icmpv6Names
	}
	if len(s.data) < 8 {
		return fmt.Appendf(b, "[|%s]", proto)
	}
	kind, code := s.data[0], s.data[1]
	if name := names[kind]; name != "" {
		b = fmt.Appendf(b, "%s %s", proto, name)
	} else {
		b = fmt.Appendf(b, "%s type %d", proto, kind)
	}
	word := binary.BigEndian.Uint32(s.data[4:])
	v6 := s.proto == protoICMPv6
	switch {
	case !v6 && (kind == 0 || kind == 8) || v6 && (kind == 128 || kind == 129):
		b = fmt.Appendf(b, ", id %d, seq %d", word>>16, word&0xffff)
	case !v6 && kind == 3 && code == 4:
		b = fmt.Appendf(b, ", code %d, mtu %d", code, word&0xffff)
	case v6 && kind == 2:
		b = fmt.Appendf(b, ", mtu %d", word)
	case v6 && (kind == 135 || kind == 136):
		if len(s.data) < 24 {
			return append(b, ", [|target]"...)
		}
		b = fmt.Appendf(b, ", target %s", netip.AddrFrom16([16]byte(s.data[8:])))
	case code != 0:
		b = fmt.Appendf(b, ", code %d", code)
	}
	return fmt.Appendf(b, ", length %d", s.length)
}
