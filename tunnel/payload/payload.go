// Package payload is the outermost layer of what a data message of the native wire holds once it is opened: what kind of
// content it is, and where that ends. The kind stands behind the content, as in ESP (RFC 4303 §2.6) and TLS 1.3 (RFC 8446
// §5.2), so that a packet starts at the same place whatever it is, and is never moved:
//
//	content | 0 to 15 bytes of padding | kind << 4 | length of the padding
//
// An empty plaintext is a keepalive and has none of this.
package payload

import "strconv"

// Kind is what a content is. Zero, and whatever is not named here, is refused.
type Kind uint8

const (
	IP             Kind = 1 // an IP packet
	IPElided       Kind = 2 // an IP packet whose TCP or UDP checksum is left out, see device.Elided
	Ethernet       Kind = 3 // an Ethernet frame, without its check sequence
	EthernetElided Kind = 4 // an Ethernet frame with such a packet, see device.ElidedFrame
	Fragment       Kind = 5 // a part of a plaintext, see tunnel/fragment
	Control        Kind = 6 // a control message
	Path           Kind = 7 // a probe of another path, or its answer: where it comes from does not become the sender's address
)

var names = [...]string{
	IP: "IP packet", IPElided: "IP packet, checksum elided", Ethernet: "Ethernet frame",
	EthernetElided: "Ethernet frame, checksum elided", Fragment: "fragment", Control: "control message", Path: "probe of another path",
}

// String is for people.
func (k Kind) String() string {
	if !k.known() {
		return "unknown kind " + strconv.Itoa(int(k))
	}
	return names[k]
}

func (k Kind) known() bool { return k >= IP && k <= Path }

const (
	// TrailerSize is the length of the trailer in bytes.
	TrailerSize = 1
	// MaxPadding is the longest padding, in bytes.
	MaxPadding = 15
)

// Trailer is the byte that follows a content of the given kind and padding zero bytes, of which there are at most MaxPadding.
func Trailer(kind Kind, padding int) byte { return byte(kind)<<4 | byte(padding)&MaxPadding }

// Split takes a plaintext apart. ok is false where it does not hold at least one byte of content, or is of no known kind.
// What the padding holds is not looked at.
func Split(plaintext []byte) (kind Kind, content []byte, ok bool) {
	end := len(plaintext) - TrailerSize
	if end < 0 {
		return 0, nil, false
	}
	trailer := plaintext[end]
	kind = Kind(trailer >> 4)
	end -= int(trailer & MaxPadding)
	if end <= 0 || !kind.known() {
		return 0, nil, false
	}
	return kind, plaintext[:end:end], true
}

// Padding is how many zero bytes come between a content of n bytes and its trailer: up to a whole multiple of 16 bytes of
// plaintext, but not past a plaintext of limit bytes, lest padding alone make a message too large for the path.
func Padding(n, limit int) int {
	return max(min(-(n+TrailerSize)&MaxPadding, limit-n-TrailerSize), 0)
}
