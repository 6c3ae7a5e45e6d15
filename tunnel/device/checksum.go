package device

import (
	"encoding/binary"
	"math/bits"
)

// Internet checksum arithmetic (RFC 1071). Sums are taken over little-endian words, whatever the machine: the ones'
// complement sum does not depend on byte order as long as it is stored the way it was loaded (RFC 1071, section 2(B)), and
// a plain 64-bit load is four words at once. Numbers that are not bytes of a packet enter through word. A sum is a uint64
// that wraps around its carry; fold brings it down to 16 bits.

// word is the summand of a 16-bit number that stands in the packet in network byte order.
func word(v uint16) uint64 { return uint64(bits.ReverseBytes16(v)) }

// minus is the summand that takes a 16-bit number out of a sum again (RFC 1624).
func minus(v uint16) uint64 { return uint64(^bits.ReverseBytes16(v)) }

// fold reduces a sum to 16 bits. It is zero only for a sum of nothing but zeros.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	s := uint32(sum>>16) + uint32(sum&0xffff)
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s)
}

// checksum adds the bytes of b to sum. b starts at an even place of what the checksum covers; an odd last byte is padded
// with a zero.
func checksum(sum uint64, b []byte) uint64 {
	// Adding the last carry cannot overflow: a chain that begins without carry never ends in both all ones and a carry.
	var carry uint64
	for len(b) >= 128 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[0:8]), 0)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:16]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:24]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:32]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[32:40]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[40:48]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[48:56]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[56:64]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[64:72]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[72:80]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[80:88]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[88:96]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[96:104]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[104:112]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[112:120]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[120:128]), carry)
		sum += carry
		b = b[128:]
	}
	for len(b) >= 32 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[0:8]), 0)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:16]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:24]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:32]), carry)
		sum += carry
		b = b[32:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[0:8]), 0)
		sum += carry
		b = b[8:]
	}
	var rest uint64
	if len(b) >= 4 {
		rest = uint64(binary.LittleEndian.Uint32(b[0:4]))
		b = b[4:]
	}
	if len(b) >= 2 {
		rest += uint64(binary.LittleEndian.Uint16(b[0:2]))
		b = b[2:]
	}
	if len(b) == 1 {
		rest += uint64(b[0])
	}
	return plus(sum, rest)
}

// plus adds two sums.
func plus(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	return sum + carry
}

// field reads the 16 bits at b[at:] as a summand, and putField stores a folded sum there.
func field(b []byte, at int) uint64 { return uint64(binary.LittleEndian.Uint16(b[at : at+2])) }

func putField(b []byte, at int, v uint16) { binary.LittleEndian.PutUint16(b[at:at+2], v) }
