package access

import (
	"encoding/binary"
	"time"

	"culvert/tunnel/ethernet"
	"culvert/tunnel/ippacket"
)

// A frame is judged by the IP packet in it. What IP needs on an Ethernet passes as well, or no rule could allow anything: address
// resolution (RFC 826), neighbour discovery and the group messages of it (RFC 4861, RFC 3810), and what hosts on the peer's side are given
// addresses by (RFC 2131, RFC 8415), but nobody there gives: a router or DHCP server behind the peer needs a rule. All other protocols
// follow the default.

// CheckFrame is Check for an Ethernet frame or super-frame whose header is h.
func (s *State) CheckFrame(d Direction, frame []byte, h *ethernet.Header, now time.Duration) Verdict {
	ip, ok := s.ipOf(d, frame, h)
	if !ok {
		v := Denied
		if s.shut.Load() {
			v = Shut
		}
		s.ways[d].counts[v].Add(1)
		return v
	}
	v := s.check(d, len(frame), ip, ip != nil, now)
	if v != Pass {
		s.ways[d].counts[v].Add(1)
	}
	return v
}

// ipOf returns the packet that the rules are to be asked about, or nil where the frame may pass without; ok is false where it may not.
func (s *State) ipOf(d Direction, frame []byte, h *ethernet.Header) (ip []byte, ok bool) {
	open := s.policy.Load().spec.Default == Allow || s.flows.Load() == nil
	payload := frame[h.Payload:]
	switch h.Type {
	case ethernet.TypeIPv4, ethernet.TypeIPv6:
		v6 := h.Type == ethernet.TypeIPv6
		if _, _, _, whole := ippacket.Parse(payload); !whole || (payload[0]>>4 == 6) != v6 {
			return nil, s.flows.Load() == nil
		}
		if needed(payload, d) {
			return nil, true
		}
		return payload, true
	case ethernet.TypeARP:
		return nil, true
	}
	return nil, open
}

// needed reports whether an IP packet is one that hosts on the peer's side need to use IP at all.
func needed(b []byte, d Direction) bool {
	if b[0]>>4 == 4 {
		header := int(b[0]&0x0f) * 4
		return b[9] == UDP && binary.BigEndian.Uint16(b[6:])&0x3fff == 0 && dhcp(b[header:], d, 68, 67)
	}
	rest := b[header6:]
	switch b[6] {
	case UDP:
		return dhcp(rest, d, 546, 547)
	case icmpv6:
		if len(rest) < icmpSize || b[7] != 255 { // from off the link (RFC 4861 §6.1, §7.1)
			return false
		}
		switch rest[0] {
		case 133: // router solicitation
			return d == FromPeer
		case 134: // router advertisement
			return d == ToPeer
		case 135, 136: // neighbour solicitation and advertisement
			return true
		}
	case 0: // hop-by-hop options, with which multicast listeners report (RFC 3810 §5)
		if len(rest) >= 8+icmpSize && rest[0] == icmpv6 && rest[1] == 0 && b[7] == 1 {
			switch rest[8] {
			case 130, 131, 132, 143:
				return true
			}
		}
	}
	return false
}

// dhcp reports whether a UDP datagram is one between a client on the peer's side and a server on this one.
func dhcp(b []byte, d Direction, client, server uint16) bool {
	if len(b) < 8 {
		return false
	}
	src, dst := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if d == FromPeer {
		return src == client && dst == server
	}
	return src == server && dst == client
}
