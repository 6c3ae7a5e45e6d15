package ippacket

import (
	"encoding/binary"
	"math/bits"
)

// Sum adds b, as big-endian 16-bit words and padded with a zero byte where its length is odd, to a running one's complement
// sum (RFC 1071). Sums chain as long as every part but the last has even length; [Fold] ends the chain.
func Sum(b []byte, sum uint64) uint64 {
	// 2^16 is 1 modulo 2^16-1, so wider words add up to the same sum once folded, with the carry out of the top added
	// back in (RFC 1071 §2(C)).
	var carry uint64
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum += carry // cannot overflow: after a carry the sum is below 2^64-1
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(tail[:]), 0)
	return sum + carry
}

// Fold folds a sum to 16 bits. The Internet checksum is its complement, ^Fold(sum).
func Fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}
