package sourceguard

import (
	"encoding/binary"

	"culvert/tunnel/ethernet"
)

const (
	header4, header6 = 20, 40 // bytes

	arpSize    = 28
	arpRequest = 1

	hopByHop, routing, fragment, authentication, destinationOptions = 0, 43, 44, 51, 60 // extension headers
	icmpv6                                                          = 58

	listenerReport, listenerDone, listenerReport2   = 131, 132, 143 // RFC 2710, RFC 3810
	routerSolicitation, routerAdvertisement         = 133, 134      // RFC 4861
	neighbourSolicitation, neighbourAdvertisement   = 135, 136
	redirect                                        = 137
	targetAt                                        = 8
	discoverySize                                   = targetAt + 16 // of a neighbour solicitation or advertisement, without options
	maxExtensions                                   = 8             // headers; more are not looked behind, and do not pass
	extensionUnit, authenticationUnit, fragmentSize = 8, 4, 8
)

// Allows reports whether a frame, whose header is h, keeps to the addresses of the set.
func (s *Set) Allows(frame []byte, h *ethernet.Header) bool {
	b := frame[h.Payload:]
	switch h.Type {
	case ethernet.TypeIPv4:
		return len(b) >= header4 && b[0]>>4 == 4 && s.has4(binary.BigEndian.Uint32(b[12:]))
	case ethernet.TypeIPv6:
		return len(b) >= header6 && b[0]>>4 == 6 && s.allows6(b)
	case ethernet.TypeARP:
		return s.allowsARP(b)
	case ethernet.TypeVLAN, ethernet.TypeProvider: // a third tag
		return false
	}
	return true
}

// allowsARP judges an ARP message. Its hardware type is left to receivers: Linux takes 6, IEEE 802's, for Ethernet as well.
func (s *Set) allowsARP(b []byte) bool {
	if len(b) < arpSize || binary.BigEndian.Uint32(b[2:]) != ethernet.TypeIPv4<<16|ethernet.AddressSize<<8|4 {
		return false
	}
	sender := binary.BigEndian.Uint32(b[14:])
	if sender == 0 && binary.BigEndian.Uint16(b[6:]) == arpRequest {
		return s.has4(binary.BigEndian.Uint32(b[24:]))
	}
	return s.has4(sender)
}

// allows6 judges an IPv6 packet, of which the header is whole.
func (s *Set) allows6(b []byte) bool {
	source := at6(b[8:])
	unspecified := source.unspecified()
	if !unspecified && !s.has6(source) {
		return false
	}
	next, rest := b[6], b[header6:]
	if extension(next) {
		fragmented, whole := false, false
		if next, rest, fragmented, whole = behind(next, rest); !whole {
			return false
		}
		switch {
		case next == fragment: // a later one
			return !unspecified
		case fragmented && next == icmpv6 && len(rest) > 0 && rest[0] >= routerSolicitation && rest[0] <= redirect:
			return false
		}
	}
	if next != icmpv6 {
		return !unspecified
	}
	if len(rest) == 0 {
		return false
	}
	switch rest[0] {
	case neighbourAdvertisement:
		return !unspecified && len(rest) >= discoverySize && s.has6(at6(rest[targetAt:]))
	case neighbourSolicitation:
		return !unspecified || len(rest) >= discoverySize && s.has6(at6(rest[targetAt:]))
	case routerAdvertisement, redirect:
		return false
	case routerSolicitation, listenerReport, listenerDone, listenerReport2:
		return true
	}
	return !unspecified
}

func extension(header byte) bool {
	switch header {
	case hopByHop, routing, fragment, authentication, destinationOptions:
		return true
	}
	return false
}

// behind goes past the extension headers that b begins with, of which the first is next, and returns the header behind them and where that
// begins; fragment stands for all but the first fragment of a packet. whole is false where they are cut off, or too many. fragmented says
// that one was a fragment's, even if of all the packet.
func behind(next byte, b []byte) (header byte, rest []byte, fragmented, whole bool) {
	for range maxExtensions {
		if len(b) < extensionUnit {
			return 0, nil, false, false
		}
		size := (int(b[1]) + 1) * extensionUnit
		switch next {
		case authentication:
			size = max((int(b[1])+2)*authenticationUnit, extensionUnit)
		case fragment:
			if size = fragmentSize; binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				return fragment, nil, true, true
			}
			fragmented = true
		}
		if len(b) < size {
			return 0, nil, false, false
		}
		if next, b = b[0], b[size:]; !extension(next) {
			return next, b, fragmented, true
		}
	}
	return 0, nil, false, false
}
