package cookie

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"culvert/crypto"
	"culvert/crypto/noise"
)

const (
	labelMAC1   = "mac1----"
	labelCookie = "cookie--"
)

// mac is a keyed BLAKE2s of 16 bytes (RFC 7693 §2.9): a cookie as well as either field of a message.
type mac [noise.MACSize]byte

func (m *mac) equal(other []byte) bool { return subtle.ConstantTimeCompare(m[:], other) == 1 }

// keyed returns MAC(key, data). key is at most 32 bytes.
func keyed(key, data []byte) (m mac) {
	h, err := blake2s.New128(key)
	if err != nil {
		panic(err) // the key's length is the caller's constant
	}
	h.Write(data)
	h.Sum(m[:0])
	return m
}

// labelled returns HASH(label || key): the key of mac1, or of cookie replies, of the owner of key.
func labelled(label string, key crypto.PublicKey) [blake2s.Size]byte {
	var buf [len(labelMAC1) + crypto.KeySize]byte // both labels are that long
	return blake2s.Sum256(append(append(buf[:0], label...), key[:]...))
}

// sealer returns the AEAD of cookie replies that the owner of key sends.
func sealer(key crypto.PublicKey) cipher.AEAD {
	k := labelled(labelCookie, key)
	aead, err := chacha20poly1305.NewX(k[:])
	if err != nil {
		panic(err) // the length is right; only a toolchain that forbids the algorithm comes here
	}
	return aead
}

// An initiation and a response, of either wire, end in mac1 over all before it, and mac2 over all before it, mac1 included.
func coveredByMAC1(msg []byte) []byte { return msg[:len(msg)-2*noise.MACSize] }
func coveredByMAC2(msg []byte) []byte { return msg[:len(msg)-noise.MACSize] }
func mac1Of(msg []byte) []byte        { return msg[len(msg)-2*noise.MACSize : len(msg)-noise.MACSize] }
func mac2Of(msg []byte) []byte        { return msg[len(msg)-noise.MACSize:] }

// stamped reports whether msg is of a type that carries both macs.
func stamped(msg []byte) bool {
	typ, ok := noise.MessageType(msg)
	return ok && (typ == noise.TypeInitiation || typ == noise.TypeResponse || hybrid(typ))
}

// hybrid reports whether messages of this type are of culvert's own wire and carry both macs.
func hybrid(typ uint8) bool {
	return typ == noise.TypeHybridInitiation || typ == noise.TypeHybridResponse
}

// splitMAC1 returns mac1 of msg and what it covers, or false when msg is of no type that carries it. A KEM part, which has no mac2,
// ends in it.
func splitMAC1(msg []byte) (covered, mac1 []byte, ok bool) {
	if stamped(msg) {
		return coveredByMAC1(msg), mac1Of(msg), true
	}
	if typ, ok := noise.MessageType(msg); ok && typ == noise.TypeKEM {
		at := len(msg) - noise.MACSize
		return msg[:at], msg[at:], true
	}
	return nil, nil, false
}

// source lays an address and port out for a cookie: 4 or 16 bytes, then the port. An IPv4 address mapped into IPv6 is that IPv4
// address, whichever socket it came by.
func source(buf *[18]byte, src netip.AddrPort) []byte {
	var at []byte
	if addr := src.Addr().Unmap(); addr.Is4() {
		a := addr.As4()
		at = append(buf[:0], a[:]...)
	} else {
		a := addr.As16()
		at = append(buf[:0], a[:]...)
	}
	return binary.BigEndian.AppendUint16(at, src.Port())
}

// Layout of a cookie reply (§5.4.7): type u32, receiver u32, nonce 24, cookie 16+16.
const (
	replyNonce  = 8
	replyCookie = replyNonce + chacha20poly1305.NonceSizeX
)
