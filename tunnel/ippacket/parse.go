package ippacket

import (
	"encoding/binary"
	"net/netip"
)

const (
	// MinHeader4 is the length of an IPv4 header without options (RFC 791 §3.1).
	MinHeader4 = 20
	// Header6 is the length of the fixed IPv6 header (RFC 8200 §3).
	Header6 = 40
)

// Version returns the IP version field, 0 for an empty packet.
func Version(packet []byte) int {
	if len(packet) == 0 {
		return 0
	}
	return int(packet[0] >> 4)
}

// Parse reads the addresses and the total length in bytes (header included) of the IPv4 or IPv6 packet at the start of
// packet. ok is false where the version is neither, the header does not fit, or the total length is less than the header or
// more than len(packet); bytes after the total length are padding. Neither the IPv4 header checksum nor anything
// behind the header is looked at. A jumbogram (RFC 2675) has length field 0 and so comes out as its header alone.
//
// Addresses are as on the wire: an IPv4-mapped address in an IPv6 header stays an IPv6 address, so that it can never pass
// for the IPv4 address inside it in a routing table. They have no zone.
func Parse(packet []byte) (src, dst netip.Addr, length int, ok bool) {
	if len(packet) < MinHeader4 {
		return netip.Addr{}, netip.Addr{}, 0, false
	}
	switch packet[0] >> 4 {
	case 4:
		header := int(packet[0]&0x0f) * 4
		length = int(binary.BigEndian.Uint16(packet[2:4]))
		if header < MinHeader4 || length < header || length > len(packet) {
			return netip.Addr{}, netip.Addr{}, 0, false
		}
		return netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), length, true
	case 6:
		if len(packet) < Header6 {
			return netip.Addr{}, netip.Addr{}, 0, false
		}
		length = Header6 + int(binary.BigEndian.Uint16(packet[4:6]))
		if length > len(packet) {
			return netip.Addr{}, netip.Addr{}, 0, false
		}
		return netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40])), length, true
	}
	return netip.Addr{}, netip.Addr{}, 0, false
}

// TrafficClass returns the byte that holds DSCP and ECN (RFC 2474, RFC 3168): the former TOS byte of an IPv4 packet, the
// traffic class of an IPv6 packet; 0 where packet is too short or of another version.
func TrafficClass(packet []byte) byte {
	if len(packet) < 2 {
		return 0
	}
	switch packet[0] >> 4 {
	case 4:
		return packet[1]
	case 6:
		return packet[0]<<4 | packet[1]>>4
	}
	return 0
}
