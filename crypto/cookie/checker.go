package cookie

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
	"culvert/crypto/noise"
)

// Checker judges the macs of incoming initiations and responses and hands out cookies. It is safe for concurrent use.
type Checker struct {
	hidden.Value
	hashes sync.Pool // of *scratch
	seal   cipher.AEAD

	mu     sync.Mutex // guards what follows; taken under load only
	secret [blake2s.Size]byte
	born   time.Duration
	alive  bool
}

// scratch is one computation of mac1: a hash cannot be shared, and its output would escape from a stack.
type scratch struct {
	hash hash.Hash
	sum  mac
}

// NewChecker makes the checker of the owner of the public key own.
func NewChecker(own crypto.PublicKey) *Checker {
	key := labelled(labelMAC1, own)
	c := &Checker{seal: sealer(own)}
	c.hashes.New = func() any {
		h, err := blake2s.New128(key[:])
		if err != nil {
			panic(err) // the key's length is a constant
		}
		return &scratch{hash: h}
	}
	return c
}

// CheckMAC1 reports whether msg is an initiation or response, by type and length, with the right mac1. It does not allocate, and
// takes no lock.
func (c *Checker) CheckMAC1(msg []byte) bool {
	if !stamped(msg) {
		return false
	}
	s := c.hashes.Get().(*scratch)
	s.hash.Reset()
	s.hash.Write(coveredByMAC1(msg))
	s.hash.Sum(s.sum[:0])
	ok := s.sum.equal(mac1Of(msg))
	c.hashes.Put(s)
	return ok
}

// CheckMAC2 reports whether msg, whose mac1 was right, has the mac2 of a cookie that was handed to src under the secret that
// is current at time now.
func (c *Checker) CheckMAC2(msg []byte, src netip.AddrPort, now time.Duration) bool {
	if !stamped(msg) {
		return false
	}
	c.mu.Lock()
	if !c.alive || now-c.born >= Lifetime {
		c.mu.Unlock()
		return false
	}
	secret := c.secret
	c.mu.Unlock()
	var buf [18]byte
	cookie := keyed(secret[:], source(&buf, src))
	want := keyed(cookie[:], coveredByMAC2(msg))
	return want.equal(mac2Of(msg))
}

// Reply appends to dst a cookie reply of [noise.CookieReplySize] bytes to the sender index of msg: a cookie for src, sealed
// with msg's mac1 as additional data. The caller has found mac1 right. On error ([noise.ErrMessage] when msg carries no macs, or no
// randomness) dst is returned as it was.
func (c *Checker) Reply(dst, msg []byte, src netip.AddrPort, now time.Duration) ([]byte, error) {
	if !stamped(msg) {
		return dst, noise.ErrMessage
	}
	var nonce [chacha20poly1305.NonceSizeX]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return dst, fmt.Errorf("cookie: no randomness: %w", err)
	}
	secret, err := c.current(now)
	if err != nil {
		return dst, err
	}
	var buf [18]byte
	cookie := keyed(secret[:], source(&buf, src))

	dst = binary.LittleEndian.AppendUint32(dst, noise.TypeCookieReply)
	dst = binary.LittleEndian.AppendUint32(dst, noise.SenderIndex(msg))
	dst = append(dst, nonce[:]...)
	return c.seal.Seal(dst, nonce[:], cookie[:], mac1Of(msg)), nil
}

// current returns the secret at time now, a new one when there is none younger than Lifetime.
func (c *Checker) current(now time.Duration) ([blake2s.Size]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.alive || now-c.born >= Lifetime {
		if _, err := rand.Read(c.secret[:]); err != nil {
			c.alive = false
			return [blake2s.Size]byte{}, fmt.Errorf("cookie: no randomness: %w", err)
		}
		c.born, c.alive = now, true
	}
	return c.secret, nil
}
