package pathmtu

import (
	"encoding/binary"
	"math/bits"

	"culvert/tunnel/ippacket"
)

// ClampMSS lowers the maximum segment size that a TCP SYN or SYN-ACK announces (RFC 9293 §3.7.1) to what fits into mtu, the
// largest inner packet in bytes: mtu-40 over IPv4, mtu-60 over IPv6, IP and TCP options not counted (RFC 6691 §2). It
// changes packet in place and reports whether it did. packet is left alone if it is no unfragmented IPv4 packet or IPv6
// packet without extension headers, no TCP segment that opens a connection, or announces nothing larger.
//
// The TCP checksum is updated, not computed (RFC 1624), so that a bad one stays bad; with partial it is left alone, for
// it then covers the pseudo-header only, or nothing. packet may hold anything; nothing is allocated.
func ClampMSS(packet []byte, mtu int, partial bool) bool {
	const (
		protocolTCP = 6
		tcpHeader   = 20
		flagSYN     = 0x02
	)
	_, _, length, ok := ippacket.Parse(packet)
	if !ok {
		return false
	}
	var header, protocol int
	if packet[0]>>4 == 4 {
		header, protocol = int(packet[0]&0x0f)*4, int(packet[9])
		if binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 { // more fragments, or an offset
			return false
		}
		mtu -= ippacket.MinHeader4 + tcpHeader
	} else {
		header, protocol = ippacket.Header6, int(packet[6])
		mtu -= ippacket.Header6 + tcpHeader
	}
	tcp := packet[header:length]
	if protocol != protocolTCP || len(tcp) < tcpHeader || tcp[13]&flagSYN == 0 || mtu < 1 || mtu > 0xffff {
		return false
	}
	end := int(tcp[12]>>4) * 4
	if end < tcpHeader || end > len(tcp) {
		return false
	}
	return clampOptions(tcp, tcpHeader, end, uint16(mtu), partial)
}

// clampOptions lowers every MSS option among the TCP options from at to end: of several, which one counts is the
// receiver's choice.
func clampOptions(tcp []byte, at, end int, limit uint16, partial bool) (changed bool) {
	const (
		optionEnd = 0
		optionNop = 1
		optionMSS = 2
		lengthMSS = 4
	)
	for at < end && tcp[at] != optionEnd {
		if tcp[at] == optionNop {
			at++
			continue
		}
		if end-at < 2 || tcp[at+1] < 2 || int(tcp[at+1]) > end-at {
			break
		}
		size := int(tcp[at+1])
		if tcp[at] == optionMSS && size == lengthMSS {
			if mss := binary.BigEndian.Uint16(tcp[at+2:]); mss > limit {
				binary.BigEndian.PutUint16(tcp[at+2:], limit)
				if !partial {
					update(tcp[16:18], mss, limit, at%2 != 0)
				}
				changed = true
			}
		}
		at += size
	}
	return changed
}

// update changes a checksum for a 16-bit number that was before and is after (RFC 1624 equation 3). A number at an odd
// place is two halves of words, which sum up as the number with its bytes swapped (RFC 1071 §2(B)).
func update(checksum []byte, before, after uint16, odd bool) {
	if odd {
		before, after = bits.ReverseBytes16(before), bits.ReverseBytes16(after)
	}
	sum := uint32(^binary.BigEndian.Uint16(checksum)) + uint32(^before) + uint32(after)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(checksum, ^uint16(sum))
}
