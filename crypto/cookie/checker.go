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

// Checker judges the macs of incoming handshake messages and hands out cookies. It is safe for concurrent use.
type Checker struct {
	hidden.Value
	hashes sync.Pool // of *scratch
	seal   cipher.AEAD

	mu     sync.Mutex // guards what follows; taken only under load and for a mac2 of culvert's own wire that is not zero
	secret secret
	before secret // the one that was replaced
}

// secret is what cookies are made with.
type secret struct {
	key   [blake2s.Size]byte
	born  time.Duration
	alive bool
}

func (s *secret) younger(age, now time.Duration) bool { return s.alive && now-s.born < age }

// stamps reports whether msg has the mac2 of the cookie that src gets under s.
func (s *secret) stamps(msg []byte, src netip.AddrPort) bool {
	cookie := s.cookie(src)
	want := keyed(cookie[:], coveredByMAC2(msg))
	return want.equal(mac2Of(msg))
}

func (s *secret) cookie(src netip.AddrPort) mac {
	var buf [18]byte
	return keyed(s.key[:], source(&buf, src))
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

// CheckMAC1 reports whether msg is an initiation, KEM part or response, by type and length, with the right mac1. It does not allocate,
// and takes no lock.
func (c *Checker) CheckMAC1(msg []byte) bool {
	covered, mac1, ok := splitMAC1(msg)
	if !ok {
		return false
	}
	s := c.hashes.Get().(*scratch)
	s.hash.Reset()
	s.hash.Write(covered)
	s.hash.Sum(s.sum[:0])
	ok = s.sum.equal(mac1)
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
	secret := c.secret
	c.mu.Unlock()
	return secret.younger(Lifetime, now) && secret.stamps(msg, src)
}

// AcceptsMAC2 reports whether msg, a hybrid initiation or response whose mac1 was right, is allowed its mac2 at time now, also when
// there is no load: it must be zero, or of a cookie that was handed to src and that its receiver may still hold. One lasts for
// Lifetime from when it was handed out, which is up to twice that from when its secret was made. Any other type is false.
func (c *Checker) AcceptsMAC2(msg []byte, src netip.AddrPort, now time.Duration) bool {
	if typ, ok := noise.MessageType(msg); !ok || !hybrid(typ) {
		return false
	}
	if mac(mac2Of(msg)) == (mac{}) {
		return true
	}
	c.mu.Lock()
	secrets := [...]secret{c.secret, c.before}
	c.mu.Unlock()
	for i := range secrets {
		if s := &secrets[i]; s.younger(2*Lifetime, now) && s.stamps(msg, src) {
			return true
		}
	}
	return false
}

// Reply appends to dst a cookie reply of [noise.CookieReplySize] bytes to the sender index of msg: a cookie for src, sealed
// with msg's mac1 as additional data. The caller has found mac1 right. On error ([noise.ErrMessage] when msg does not carry both macs, or no
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
	cookie := secret.cookie(src)

	dst = binary.LittleEndian.AppendUint32(dst, noise.TypeCookieReply)
	dst = binary.LittleEndian.AppendUint32(dst, noise.SenderIndex(msg))
	dst = append(dst, nonce[:]...)
	return c.seal.Seal(dst, nonce[:], cookie[:], mac1Of(msg)), nil
}

// current returns the secret at time now, a new one when there is none younger than Lifetime.
func (c *Checker) current(now time.Duration) (secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.secret.younger(Lifetime, now) {
		next := secret{born: now, alive: true}
		if _, err := rand.Read(next.key[:]); err != nil {
			return secret{}, fmt.Errorf("cookie: no randomness: %w", err)
		}
		c.secret, c.before = next, c.secret
	}
	return c.secret, nil
}
