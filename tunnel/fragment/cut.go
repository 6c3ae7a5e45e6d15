// Package fragment carries plaintexts larger than the path takes: they are cut into fragments, each the content of a data
// message of its own, and put together again at the other end. A plaintext is all that a data message would hold: content,
// padding, trailer (see tunnel/payload). Of a fragment, it is
//
//	piece | id u32 LE | index u8, top bit: last | padding | trailer
//
// so that a piece stays where it is in the packet when it is sealed: what belongs to the fragment goes behind it, over the
// first bytes of the next piece, which the caller keeps and puts back. All pieces but the last have one length, the last is
// not longer, and none is empty. Ids count up within a session.
package fragment

import (
	"encoding/binary"

	"culvert/tunnel/device"
	"culvert/tunnel/payload"
)

const (
	// MaxPlaintext is the longest plaintext that is cut or put together, in bytes: the largest packet or frame that a
	// device hands over or takes, and a trailer. So no content put together is too large for device.Coalescer.Slot.
	MaxPlaintext = device.MaxPacket + payload.TrailerSize
	// MaxCount is how many fragments a plaintext may have.
	MaxCount = 128
	// TailSize is the length of id and index, which are the end of a fragment's content, in bytes.
	TailSize = 4 + 1
	// Overhead is what a fragment without padding takes beyond its piece, in bytes.
	Overhead = TailSize + payload.TrailerSize
	// MaxTail is the most that PutTail writes, in bytes.
	MaxTail = Overhead + payload.MaxPadding

	lastBit = 0x80
)

// Count is how many fragments a plaintext of n bytes is cut into where a fragment's own plaintext may have limit bytes, and
// the length of all pieces but the last, in bytes. They are as even as can be. ok is false where there would be more than
// MaxCount, or n is out of range.
func Count(n, limit int) (count, size int, ok bool) {
	room := limit - Overhead
	if n <= 0 || n > MaxPlaintext || room <= 0 {
		return 0, 0, false
	}
	if count = (n + room - 1) / room; count > MaxCount {
		return 0, 0, false
	}
	// Cutting to this size gives just as many pieces: it is no more than room, and the least that makes do with count.
	return count, (n + count - 1) / count, true
}

// PutTail writes to dst what follows the piece number index of the plaintext id, with padding zero bytes (see
// [payload.Padding], for a content of the piece's length plus TailSize), and returns how many bytes that are: Overhead +
// padding. dst must have as many.
func PutTail(dst []byte, id uint32, index uint8, last bool, padding int) int {
	n := Overhead + padding
	dst = dst[:n]
	binary.LittleEndian.PutUint32(dst, id)
	dst[4] = index &^ lastBit
	if last {
		dst[4] |= lastBit
	}
	clear(dst[TailSize : n-1])
	dst[n-1] = payload.Trailer(payload.Fragment, padding)
	return n
}

// ParseTail takes a fragment apart, given as the content that [payload.Split] returns. ok is false where there is no piece.
func ParseTail(content []byte) (piece []byte, id uint32, index uint8, last, ok bool) {
	n := len(content) - TailSize
	if n <= 0 {
		return nil, 0, 0, false, false
	}
	tail := content[n:]
	return content[:n:n], binary.LittleEndian.Uint32(tail), tail[4] &^ lastBit, tail[4]&lastBit != 0, true
}
