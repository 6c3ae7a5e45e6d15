package icmp

import (
	"encoding/binary"
	"net/netip"

	"culvert/tunnel/ippacket"
)

// Reason says why a packet could not be delivered.
type Reason uint8

const (
	// NoRoute: nothing leads to the destination. IPv4 host unreachable (type 3 code 1), IPv6 no route (type 1 code 0).
	NoRoute Reason = iota
	// AddressUnreachable: the way is known but the next hop cannot be reached. IPv4 host unreachable (type 3 code 1), IPv6
	// address unreachable (type 1 code 3).
	AddressUnreachable
	// Prohibited: a filter forbids it. IPv4 type 3 code 13, IPv6 type 1 code 1.
	Prohibited
)

const (
	// MaxSize4 and MaxSize6 bound the length of a message, IP header included (RFC 1812 §4.3.2.3, RFC 4443 §2.4(c)). A
	// buffer with this capacity left is never reallocated.
	MaxSize4 = 576
	MaxSize6 = 1280

	// headerSize is the length of the ICMP header in front of the quoted packet, both families.
	headerSize = 8

	type4Unreachable  = 3
	code4FragNeeded   = 4
	type6Unreachable  = 1
	type6TooBig       = 2
	protocolICMP      = 1
	protocolICMPv6    = 58
	hopLimit          = 64
	precedenceControl = 6 << 5 // internetwork control, what RFC 1812 §4.3.2.5 asks of ICMP errors
)

// codes are the (type 3, type 1) codes of each reason.
var codes = [...]struct{ v4, v6 byte }{NoRoute: {1, 0}, AddressUnreachable: {1, 3}, Prohibited: {13, 1}}

// Unreachable appends to dst the whole IP packet, from the address from, that tells the sender of packet that it could not be
// delivered. It returns dst unchanged and false where no such message may be sent (see [Answerable]), from is not a
// unicast address of packet's family, or reason is none of the constants.
func Unreachable(dst, packet []byte, reason Reason, from netip.Addr) ([]byte, bool) {
	if int(reason) >= len(codes) {
		return dst, false
	}
	if ippacket.Version(packet) == 4 {
		return build(dst, packet, type4Unreachable, codes[reason].v4, 0, from)
	}
	return build(dst, packet, type6Unreachable, codes[reason].v6, 0, from)
}

// TooBig appends to dst the whole IP packet, from the address from, that tells the sender of packet the largest packet (mtu
// bytes, IP header included) that fits the next hop: IPv4 fragmentation needed (type 3 code 4, RFC 1191 §4) or IPv6
// packet too big (type 2). It returns dst unchanged and false under the conditions of [Unreachable], for an IPv4 packet that
// may be fragmented, and for an mtu below what every link must carry (68, RFC 791; 1280, RFC 8200 §5).
//
// RFC 4443 §2.4(e.3) would permit packet too big in answer to multicast; it is not sent, as one packet could draw an answer
// from every router.
func TooBig(dst, packet []byte, mtu int, from netip.Addr) ([]byte, bool) {
	if ippacket.Version(packet) == 4 {
		const dontFragment = 0x40
		if mtu < 68 || len(packet) < ippacket.MinHeader4 || packet[6]&dontFragment == 0 {
			return dst, false
		}
		return build(dst, packet, type4Unreachable, code4FragNeeded, uint32(min(mtu, 0xffff)), from)
	}
	if mtu < MaxSize6 {
		return dst, false
	}
	return build(dst, packet, type6TooBig, 0, uint32(min(mtu, 0x7fffffff)), from)
}

// build appends IP header, ICMP header with rest in its second word, and as much of packet as may be quoted.
func build(dst, packet []byte, kind, code byte, rest uint32, from netip.Addr) ([]byte, bool) {
	to, _, length, ok := answerable(packet)
	if !ok || from.Is4() != to.Is4() || !singleHost(from) {
		return dst, false
	}
	v4 := to.Is4()
	ip, largest := ippacket.Header6, MaxSize6
	if v4 {
		ip, largest = ippacket.MinHeader4, MaxSize4
	}
	quoted := min(length, largest-ip-headerSize)
	start := len(dst)
	var headers [ippacket.Header6 + headerSize]byte
	dst = append(dst, headers[:ip+headerSize]...)
	dst = append(dst, packet[:quoted]...)
	message := dst[start:]

	body := message[ip:]
	body[0], body[1] = kind, code
	binary.BigEndian.PutUint32(body[4:], rest)

	var pseudo uint64
	if v4 {
		message[0], message[1] = 0x45, precedenceControl
		binary.BigEndian.PutUint16(message[2:], uint16(len(message)))
		message[6] = 0x40 // don't fragment, so the identification may stay 0 (RFC 6864 §4.1)
		message[8], message[9] = hopLimit, protocolICMP
		src, to := from.As4(), to.As4()
		copy(message[12:], src[:])
		copy(message[16:], to[:])
		binary.BigEndian.PutUint16(message[10:], ^ippacket.Fold(ippacket.Sum(message[:ip], 0)))
	} else {
		message[0], message[1] = 6<<4|precedenceControl>>4, 0
		binary.BigEndian.PutUint16(message[4:], uint16(len(body)))
		message[6], message[7] = protocolICMPv6, hopLimit
		src, to := from.As16(), to.As16()
		copy(message[8:], src[:])
		copy(message[24:], to[:])
		pseudo = ippacket.Sum(message[8:40], uint64(len(body))+protocolICMPv6) // RFC 8200 §8.1
	}
	binary.BigEndian.PutUint16(body[2:], ^ippacket.Fold(ippacket.Sum(body, pseudo)))
	return dst, true
}
