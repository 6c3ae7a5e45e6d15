package session

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
	"culvert/crypto/noise"
	"culvert/crypto/replay"
)

// Overhead is how much longer a data message is than its plaintext, in bytes.
const Overhead = noise.DataHeaderSize + noise.TagSize

// What Open fails with, besides [io.ErrShortBuffer].
var (
	// ErrDecrypt refuses a message that is no data message or whose tag is wrong.
	ErrDecrypt = errors.New("session: message does not authenticate")
	// ErrReplay refuses an authentic message whose counter was seen before or is behind the window.
	ErrReplay = errors.New("session: replayed or too old")
	// ErrExhausted refuses a counter from RejectAfterMessages on.
	ErrExhausted = errors.New("session: counter beyond the limit of a session")
	// ErrErased refuses to work without keys.
	ErrErased = errors.New("session: erased")
	// ErrNoKeys refuses to make a session of zero keys, which are keys already erased.
	ErrNoKeys = errors.New("session: no keys")
	// ErrSuite refuses a suite that is not known here.
	ErrSuite = errors.New("session: unknown suite")
)

// Nonce is scratch space for one AEAD call at a time. A worker owns one and passes it in, because a nonce on the stack would
// escape through the AEAD's interface and be allocated for each packet.
type Nonce [chacha20poly1305.NonceSize]byte

// set lays out the nonce of a counter, for either suite: four zero bytes, then the counter little-endian (§5.4.6).
func (n *Nonce) set(counter uint64) []byte {
	binary.LittleEndian.PutUint32(n[:4], 0)
	binary.LittleEndian.PutUint64(n[4:], counter)
	return n[:]
}

// ciphers are both directions' AEADs, and the keys they are of, for [Session.Export]. They are immutable until the session is erased.
type ciphers struct {
	send, receive cipher.AEAD
	keys          noise.Keys
}

// cacheLine keeps what the sending and the receiving worker write apart.
const cacheLine = 64

// Session is one keypair in use. All methods are safe for concurrent use; the exported fields are set by [New] and only read
// afterwards. It must not be copied.
type Session struct {
	hidden.Value
	LocalIndex  uint32        // receiver index of incoming messages
	RemoteIndex uint32        // receiver index of outgoing messages
	Initiator   bool          // this end sent the initiation
	Created     time.Duration // since the engine's epoch

	suite   crypto.Suite
	ciphers atomic.Pointer[ciphers] // nil once erased
	_       [cacheLine]byte
	next    atomic.Uint64 // send counter not yet reserved; at most RejectAfterMessages
	bytes   atomic.Uint64 // reserved of a suite that counts them; at most RejectAfterBytes
	_       [cacheLine - 16]byte
	window  replay.Window
}

// New makes a session of a handshake's keys and suite at time now, and erases *k. Keys that are zero (erased already) are refused
// with [ErrNoKeys], a suite that is not known here with [ErrSuite].
func New(k *noise.Keys, suite crypto.Suite, initiator bool, local, remote uint32, now time.Duration) (*Session, error) {
	var none noise.Keys
	if k.Send == none.Send || k.Receive == none.Receive {
		return nil, ErrNoKeys
	}
	defer k.Erase()
	send, err := newAEAD(suite, &k.Send)
	if err != nil {
		return nil, err
	}
	receive, err := newAEAD(suite, &k.Receive)
	if err != nil {
		return nil, err
	}
	s := &Session{LocalIndex: local, RemoteIndex: remote, Initiator: initiator, Created: now, suite: suite}
	c := &ciphers{send: send, receive: receive}
	c.keys.Send, c.keys.Receive = k.Send, k.Receive
	s.ciphers.Store(c)
	return s, nil
}

// newAEAD returns the suite's AEAD. Both take nonces of 12 bytes and give tags of 16.
func newAEAD(suite crypto.Suite, key *[crypto.KeySize]byte) (cipher.AEAD, error) {
	switch suite {
	case crypto.ChaCha20Poly1305:
		return chacha20poly1305.New(key[:])
	case crypto.AES256GCM:
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	}
	return nil, ErrSuite
}

// Suite returns the suite the session seals with.
func (s *Session) Suite() crypto.Suite { return s.suite }

// Reserve takes n consecutive send counters, first to first+n-1, for the caller alone, to seal messages whose plaintexts and tags
// are together at most bytes long. It gives none when n is below one, fewer than n are left below RejectAfterMessages, under
// AES-256-GCM fewer bytes than that below RejectAfterBytes, or after [Session.Erase]. What it refuses is not counted.
func (s *Session) Reserve(n, bytes int) (first uint64, ok bool) {
	if n < 1 || s.ciphers.Load() == nil {
		return 0, false
	}
	if s.suite == crypto.AES256GCM && !s.reserveBytes(uint64(n), bytes) {
		return 0, false
	}
	for {
		first = s.next.Load()
		if uint64(n) > RejectAfterMessages-first {
			return 0, false
		}
		// Not Add: attempts beyond the limit must not move the counter, or enough of them would wrap it and reuse nonces.
		if s.next.CompareAndSwap(first, first+uint64(n)) {
			return first, true
		}
	}
}

// reserveBytes counts bytes towards RejectAfterBytes. Each of n messages is at least a tag, whatever the caller says: so bytes run out
// long before counters, and Reserve, which takes bytes first, never has to give any back.
func (s *Session) reserveBytes(n uint64, bytes int) bool {
	if n > RejectAfterBytes/noise.TagSize {
		return false
	}
	take := max(n*noise.TagSize, uint64(max(bytes, 0)))
	for {
		taken := s.bytes.Load()
		if take > RejectAfterBytes-taken {
			return false
		}
		if s.bytes.CompareAndSwap(taken, taken+take) {
			return true
		}
	}
}

// RekeyDue reports whether so much has been reserved that a new session is to be made: more than RekeyAfterMessages, or under
// AES-256-GCM more than RekeyAfterBytes.
func (s *Session) RekeyDue() bool {
	return s.next.Load() > RekeyAfterMessages || s.bytes.Load() > RekeyAfterBytes
}

// Sent returns how many send counters have been reserved.
func (s *Session) Sent() uint64 { return s.next.Load() }

// Seal writes a data message (header, ciphertext, tag) for a reserved counter to dst and returns its length,
// len(plaintext)+[Overhead], or 0 when the session is erased. dst must be that long, or Seal panics. plaintext must not
// overlap dst, unless it begins exactly at dst[16], to be sealed in place. Padding is the caller's. It does not allocate.
//
// A counter must be sealed once only: two plaintexts under one counter give away their difference and the tag's key.
func (s *Session) Seal(dst []byte, counter uint64, plaintext []byte, n *Nonce) int {
	c := s.ciphers.Load()
	if c == nil {
		return 0
	}
	size := len(plaintext) + Overhead
	dst = dst[:size:size]
	out := c.send.Seal(dst[noise.DataHeaderSize:noise.DataHeaderSize], n.set(counter), plaintext, nil)
	binary.LittleEndian.PutUint32(dst, noise.TypeData)
	binary.LittleEndian.PutUint32(dst[4:], s.RemoteIndex)
	binary.LittleEndian.PutUint64(dst[8:], counter)
	return noise.DataHeaderSize + len(out)
}

// Open verifies and decrypts the data message msg into dst[:0] and returns the plaintext, padding included; empty for a
// keepalive. The replay window is asked only after the tag proved right. The caller has found the session by the message's
// receiver index, which is not looked at again. dst needs a capacity of len(msg)-[Overhead], else [io.ErrShortBuffer]; it
// must not overlap msg, unless it begins exactly at msg[16], to be opened in place. After an error dst's contents are
// undefined. It does not allocate.
//
// Errors are [ErrDecrypt], [ErrReplay], [ErrExhausted] and [ErrErased].
func (s *Session) Open(dst, msg []byte, n *Nonce) (plaintext []byte, err error) {
	c := s.ciphers.Load()
	if c == nil {
		return nil, ErrErased
	}
	if len(msg) < Overhead || binary.LittleEndian.Uint32(msg) != noise.TypeData {
		return nil, ErrDecrypt
	}
	counter := binary.LittleEndian.Uint64(msg[8:])
	if counter >= RejectAfterMessages {
		return nil, ErrExhausted
	}
	if cap(dst) < len(msg)-Overhead {
		return nil, io.ErrShortBuffer
	}
	plaintext, err = c.receive.Open(dst[:0], n.set(counter), msg[noise.DataHeaderSize:], nil)
	if err != nil {
		return nil, ErrDecrypt
	}
	if !s.window.Accept(counter) {
		return nil, ErrReplay
	}
	return plaintext, nil
}

// Newest reports whether no message with a greater counter than that of msg, which Open has opened, has been opened yet.
func (s *Session) Newest(msg []byte) bool {
	return s.window.Newest(binary.LittleEndian.Uint64(msg[8:]))
}

// Erase drops the keys: from then on nothing is reserved, sealed or opened. Calls already under way finish first with the keys
// they have.
func (s *Session) Erase() {
	if c := s.ciphers.Swap(nil); c != nil {
		c.keys.Erase()
	}
}
