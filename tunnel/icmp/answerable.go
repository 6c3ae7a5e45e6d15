package icmp

import (
	"encoding/binary"
	"net/netip"

	"culvert/tunnel/ippacket"
)

// Answerable reports whether an ICMP error may be sent because of packet (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443
// §2.4(e)). It may not where packet is no valid IP packet, is or may be an ICMP error itself (or a redirect), is a fragment
// other than the first, goes to a multicast, broadcast or unspecified address, or comes from an address that is not that of a
// single host elsewhere. A subnet's directed broadcast address cannot be told from others here and counts as unicast.
func Answerable(packet []byte) bool {
	_, _, _, ok := answerable(packet)
	return ok
}

func answerable(packet []byte) (src, dst netip.Addr, length int, ok bool) {
	src, dst, length, ok = ippacket.Parse(packet)
	if !ok || !singleHost(src) || dst.IsUnspecified() || dst.IsMulticast() || dst == broadcast {
		return src, dst, length, false
	}
	packet = packet[:length]
	if src.Is4() {
		return src, dst, length, answerable4(packet)
	}
	return src, dst, length, answerable6(packet)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// singleHost reports whether a is an address an answer can go to or come from: unicast, of one host, seen on a wire.
func singleHost(a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Is4In6() {
		return false
	}
	if a.Is4() {
		// 0/8 is "this network", 240/4 is class E and the limited broadcast (RFC 1122 §3.2.1.3).
		first := a.As4()[0]
		return first != 0 && first < 240
	}
	return true
}

// answerable4 looks at fragment offset and protocol of a valid IPv4 packet.
func answerable4(packet []byte) bool {
	if binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
		return false
	}
	if packet[9] != protocolICMP {
		return true
	}
	payload := packet[int(packet[0]&0x0f)*4:]
	return len(payload) > 0 && query4(payload[0])
}

// query4 reports whether an ICMPv4 type is known to be a query or its reply. Types nobody has assigned count as errors.
func query4(kind byte) bool {
	switch kind {
	case 0, 8, // echo (RFC 792)
		9, 10, // router discovery (RFC 1256)
		13, 14, // timestamp (RFC 792)
		42, 43: // extended echo (RFC 8335)
		return true
	}
	return false
}

// maxExtensions bounds the walk along a chain of IPv6 extension headers.
const maxExtensions = 16

// answerable6 walks the extension headers of a valid IPv6 packet. Where the chain cannot be followed to its end, what is
// behind it may be an ICMP error, and the answer is no.
func answerable6(packet []byte) bool {
	next := packet[6]
	payload := packet[ippacket.Header6:]
	for range maxExtensions {
		size := 0
		switch next {
		case protocolICMPv6:
			// Types below 128 are errors (RFC 4443 §2.1), 137 is redirect.
			return len(payload) > 0 && payload[0] >= 128 && payload[0] != 137
		case 0, 43, 60, 135, 139, 140: // hop-by-hop, routing, destination options, mobility, HIP, shim6
			if len(payload) < 8 {
				return false
			}
			size = 8 + 8*int(payload[1])
		case 44: // fragment
			if len(payload) < 8 || binary.BigEndian.Uint16(payload[2:])&^7 != 0 {
				return false
			}
			size = 8
		case 51: // authentication header: its length counts 4-byte words less 2 (RFC 4302 §2.2)
			if len(payload) < 8 {
				return false
			}
			size = 8 + 4*int(payload[1])
		default:
			return true
		}
		if size > len(payload) {
			return false
		}
		next, payload = payload[0], payload[size:]
	}
	return false
}
