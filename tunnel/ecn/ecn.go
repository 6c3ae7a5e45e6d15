package ecn

import (
	"encoding/binary"

	"culvert/tunnel/ippacket"
)

// The ECN field's codepoints (RFC 3168 §5).
const (
	NotECT = 0b00
	ECT1   = 0b01
	ECT0   = 0b10
	CE     = 0b11

	mask = 0b11
)

// drop stands in the table where the packet must not be forwarded.
const drop = 0xff

// decapsulated is RFC 6040 figure 4: the outgoing codepoint by arriving inner and outer codepoint.
var decapsulated = [4][4]byte{
	NotECT: {NotECT: NotECT, ECT0: NotECT, ECT1: NotECT, CE: drop},
	ECT0:   {NotECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
	ECT1:   {NotECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
	CE:     {NotECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}

// Outer returns the outer header's traffic class for a packet whose traffic class (TOS byte) is inner: the ECN field copied
// (RFC 6040 §4.1, normal mode) and DSCP 0, which tells nothing about the inner flow.
func Outer(inner byte) byte { return inner & mask }

// Decapsulate merges the ECN field of the outer traffic class into packet, an IPv4 or IPv6 packet whose header has been
// validated, in place (RFC 6040 §4.2). It returns false where the packet must be dropped: the outer header says congestion was
// experienced and the inner transport cannot be told, or packet is too short to be IP at all. The checksum of an IPv4
// header is updated, not recomputed (RFC 1624), so a wrong one stays wrong.
func Decapsulate(packet []byte, outer byte) (ok bool) {
	if len(packet) < ippacket.MinHeader4 {
		return false
	}
	var inner byte
	v4 := packet[0]>>4 == 4
	switch {
	case v4:
		inner = packet[1] & mask
	case packet[0]>>4 == 6:
		inner = packet[1] >> 4 & mask
	default:
		return false
	}
	out := decapsulated[inner][outer&mask]
	if out == drop {
		return false
	}
	if out == inner {
		return true
	}
	if !v4 {
		packet[1] = packet[1]&^(mask<<4) | out<<4
		return true
	}
	before := binary.BigEndian.Uint16(packet)
	packet[1] = packet[1]&^mask | out
	after := binary.BigEndian.Uint16(packet)
	// RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
	sum := uint32(^binary.BigEndian.Uint16(packet[10:])) + uint32(^before) + uint32(after)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum))
	return true
}
