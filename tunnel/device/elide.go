package device

import "encoding/binary"

// On the native wire a transport checksum that the sender's kernel has not calculated yet is not calculated at all: the
// message's authentication covers the packet. The field is then without meaning until the receiver makes of the packet
// again what the sender's kernel handed over, and hands it to its own.

const (
	// EthernetHeader is the length of an Ethernet header without VLAN tags, and so of the shortest frame, in bytes. The
	// longest is MaxPacket.
	EthernetHeader = 14

	vlanTag  = 4
	maxVLANs = 2 // a customer's tag in a provider's (IEEE 802.1ad)
	maxLink  = EthernetHeader + maxVLANs*vlanTag

	etherIPv4     = 0x0800
	etherIPv6     = 0x86dd
	etherVLAN     = 0x8100
	etherProvider = 0x88a8
)

// Elided finds the transport checksum of an IP packet whose checksum may be elided: start is where the transport header
// begins, offset where in it the checksum is. ok is false unless the packet is an unfragmented one of exactly the length
// that its header gives, IPv4 with any options or IPv6 without extension headers, with a whole TCP header, or a UDP header
// with the length of the packet, right behind that. Checksums are not looked at.
func Elided(packet []byte) (start, offset int, ok bool) {
	if len(packet) < ipv4Header {
		return 0, 0, false
	}
	var proto byte
	switch packet[0] >> 4 {
	case 4:
		start, proto = int(packet[0]&0xf)*4, packet[9]
		if start < ipv4Header || int(binary.BigEndian.Uint16(packet[2:])) != len(packet) ||
			binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 {
			return 0, 0, false
		}
	case 6:
		start, proto = ipv6Header, packet[6]
		if len(packet) < ipv6Header || int(binary.BigEndian.Uint16(packet[4:])) != len(packet)-ipv6Header {
			return 0, 0, false
		}
	default:
		return 0, 0, false
	}
	length := len(packet) - start
	switch proto {
	case protoTCP:
		if length < tcpHeader {
			return 0, 0, false
		}
		if header := int(packet[start+tcpOffset]>>4) * 4; header < tcpHeader || header > length {
			return 0, 0, false
		}
		return start, tcpChecksum, true
	case protoUDP:
		if length < udpHeader || int(binary.BigEndian.Uint16(packet[start+udpLength:])) != length {
			return 0, 0, false
		}
		return start, udpChecksum, true
	}
	return 0, 0, false
}

// FinishElided makes a packet with an elided checksum one that its receiver's kernel takes: the pseudo-header's sum goes
// into the field, whatever was there, and the offload says that the rest is to be done. ok is false, and nothing is
// changed, where [Elided] does not hold.
func FinishElided(packet []byte) (o Offload, ok bool) {
	start, offset, ok := Elided(packet)
	if !ok {
		return Offload{}, false
	}
	putPseudoSum(packet, start, offset)
	return Offload{NeedsChecksum: true, ChecksumStart: uint16(start), ChecksumOffset: uint16(offset)}, true
}

// putPseudoSum writes the sum of the pseudo-header into the checksum field of a packet for which [Elided] holds.
func putPseudoSum(packet []byte, start, offset int) {
	var addresses []byte
	if packet[0]>>4 == 4 {
		addresses = packet[12:ipv4Header]
	} else {
		addresses = packet[8:ipv6Header]
	}
	proto := uint16(protoTCP)
	if offset == udpChecksum {
		proto = protoUDP
	}
	sum := plus(checksum(0, addresses), word(proto)+word(uint16(len(packet)-start)))
	putField(packet, start+offset, fold(sum))
}

// ElidedFrame is [Elided] for an Ethernet frame with at most two VLAN tags. The packet ends with the frame: one padded to
// Ethernet's shortest length has its own checksum. start counts from the frame's first byte.
func ElidedFrame(frame []byte) (start, offset int, ok bool) {
	_, start, offset, ok = elidedFrame(frame)
	return start, offset, ok
}

// elidedFrame is ElidedFrame; link is where the packet starts.
func elidedFrame(frame []byte) (link, start, offset int, ok bool) {
	link, version, ok := framePacket(frame)
	if !ok {
		return 0, 0, 0, false
	}
	start, offset, ok = Elided(frame[link:])
	if !ok || frame[link]>>4 != version {
		return 0, 0, 0, false
	}
	return link, link + start, offset, true
}

// FinishElidedFrame is [FinishElided] for an Ethernet frame.
func FinishElidedFrame(frame []byte) (o Offload, ok bool) {
	link, start, offset, ok := elidedFrame(frame)
	if !ok {
		return Offload{}, false
	}
	putPseudoSum(frame[link:], start-link, offset)
	return Offload{NeedsChecksum: true, ChecksumStart: uint16(start), ChecksumOffset: uint16(offset)}, true
}

// framePacket finds where an Ethernet frame's IP packet starts, and of which version its EtherType says it is.
func framePacket(frame []byte) (at int, version byte, ok bool) {
	if len(frame) > MaxPacket {
		return 0, 0, false
	}
	for at = EthernetHeader; at <= maxLink && at <= len(frame); at += vlanTag {
		switch binary.BigEndian.Uint16(frame[at-2:]) {
		case etherIPv4:
			return at, 4, true
		case etherIPv6:
			return at, 6, true
		case etherVLAN, etherProvider:
		default:
			return 0, 0, false
		}
	}
	return 0, 0, false
}

// IsFrame reports whether b has the length of an Ethernet frame.
func IsFrame(b []byte) bool { return len(b) >= EthernetHeader && len(b) <= MaxPacket }
