package noise

import (
	"encoding/binary"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"culvert/crypto"
)

// symmetric is Noise's symmetric state (Noise §5.2): chaining key and transcript hash. The AEAD key of a step is the caller's, since it
// lives only within that step.
type symmetric struct{ chain, hash [blake2s.Size]byte }

// start returns the state of a protocol before the responder's static key is hashed in.
func start(construction, prologue string) symmetric {
	chain := blake2s.Sum256([]byte(construction))
	return symmetric{chain: chain, hash: sum(chain[:], []byte(prologue))}
}

// The two wires' handshakes. As their first hashes differ, no message of one is a message of the other.
var (
	wireguard = start("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", "WireGuard v1 zx2c4 Jason@zx2c4.com")
	hybrid    = start("culvert_IKpsk2_25519+MLKEM768_ChaChaPoly_BLAKE2s", "culvert v1")
)

// towards returns the state in which a handshake with this responder begins.
func (s symmetric) towards(responder crypto.PublicKey) symmetric {
	s.mixHash(responder[:])
	return s
}

func (s *symmetric) erase() { *s = symmetric{} }

func (s *symmetric) mixHash(data []byte) { s.hash = sum(s.hash[:], data) }

// mixEphemeral is Noise's token "e" as patterns with a PSK have it: hashed, and mixed into the chaining key (Noise §9.2).
func (s *symmetric) mixEphemeral(e crypto.PublicKey) {
	s.mixHash(e[:])
	derive(&s.chain, e[:], &s.chain)
}

// mixSecret mixes a shared secret in. It returns the AEAD key that follows from it, for the caller to clear.
func (s *symmetric) mixSecret(secret *[crypto.KeySize]byte) (key [crypto.KeySize]byte) {
	derive(&s.chain, secret[:], &s.chain, &key)
	return key
}

// mixPSK is Noise's token "psk" (Noise §9.1). The zero key stands for none.
func (s *symmetric) mixPSK(psk *crypto.PresharedKey) (key [crypto.KeySize]byte) {
	var t [blake2s.Size]byte
	derive(&s.chain, psk[:], &s.chain, &t, &key)
	s.mixHash(t[:])
	clear(t[:])
	return key
}

// seal appends plaintext, sealed under key with nonce zero and the hash as additional data, and hashes the ciphertext in.
func (s *symmetric) seal(dst []byte, key *[crypto.KeySize]byte, plaintext []byte) []byte {
	return s.sealAt(dst, key, 0, plaintext)
}

// sealAt is seal with another nonce, for a key that seals more than once (Noise §12.3).
func (s *symmetric) sealAt(dst []byte, key *[crypto.KeySize]byte, counter uint64, plaintext []byte) []byte {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // the length is right; only a toolchain that forbids the algorithm comes here
	}
	var nonce [chacha20poly1305.NonceSize]byte
	binary.LittleEndian.PutUint64(nonce[4:], counter)
	at := len(dst)
	dst = aead.Seal(dst, nonce[:], plaintext, s.hash[:])
	s.mixHash(dst[at:])
	return dst
}

// open reverses seal into dst[:0]. On failure it returns ErrDecrypt and s is unchanged.
func (s *symmetric) open(dst []byte, key *[crypto.KeySize]byte, ciphertext []byte) error {
	return s.openAt(dst, key, 0, ciphertext)
}

// openAt is open with another nonce.
func (s *symmetric) openAt(dst []byte, key *[crypto.KeySize]byte, counter uint64, ciphertext []byte) error {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		return err
	}
	var nonce [chacha20poly1305.NonceSize]byte
	binary.LittleEndian.PutUint64(nonce[4:], counter)
	if _, err := aead.Open(dst[:0], nonce[:], ciphertext, s.hash[:]); err != nil {
		return ErrDecrypt
	}
	s.mixHash(ciphertext)
	return nil
}

// split returns the transport keys, the initiator's sending key first (Noise §5.2).
func (s *symmetric) split() (initiator, responder [crypto.KeySize]byte) {
	derive(&s.chain, nil, &initiator, &responder)
	return initiator, responder
}

// splitHybrid is split on the hybrid wire: the input is the hash, and a third output is what the keys of further lanes come
// from. The first two are what they would be without it.
func (s *symmetric) splitHybrid() (initiator, responder, lanes [crypto.KeySize]byte) {
	derive(&s.chain, s.hash[:], &initiator, &responder, &lanes)
	return initiator, responder, lanes
}

// sum is HASH(a || b), where a is at most a hash.
func sum(a, b []byte) [blake2s.Size]byte {
	var buf [blake2s.Size + crypto.KeySize + TagSize]byte // all but what is sealed of ML-KEM
	if len(a)+len(b) > len(buf) {
		return sumLong(a, b)
	}
	n := copy(buf[:], a)
	n += copy(buf[n:], b)
	return blake2s.Sum256(buf[:n])
}

// sumLong is sum of any length. It copies rather than write to a hash.Hash, through whose interface whatever is hashed would escape, so that
// the short inputs of sum were allocated as well.
func sumLong(a, b []byte) [blake2s.Size]byte {
	return blake2s.Sum256(append(append(make([]byte, 0, len(a)+len(b)), a...), b...))
}

// derive is HKDF with HMAC-BLAKE2s (Noise §4.3, RFC 5869) of one to three outputs: a pseudorandom key from chain and input, then
// out[i] = HMAC(prk, out[i-1] || i+1). An output may be chain itself.
func derive(chain *[blake2s.Size]byte, input []byte, out ...*[blake2s.Size]byte) {
	prk := mac(chain, input)
	var block [blake2s.Size + 1]byte
	previous := block[:0]
	for i, o := range out {
		message := append(previous, byte(i+1))
		*o = mac(&prk, message)
		copy(block[:], o[:])
		previous = block[:blake2s.Size]
	}
	clear(prk[:])
	clear(block[:])
}

// mac is HMAC-BLAKE2s (RFC 2104) over at most a hash and one byte. It is crypto/hmac with BLAKE2s, in memory that can be cleared.
func mac(key *[blake2s.Size]byte, message []byte) [blake2s.Size]byte {
	var buf [blake2s.BlockSize + blake2s.Size + 1]byte
	defer clear(buf[:])
	for i := range blake2s.BlockSize {
		buf[i] = 0x36
	}
	for i, b := range key {
		buf[i] ^= b
	}
	inner := blake2s.Sum256(append(buf[:blake2s.BlockSize], message...))
	for i := range blake2s.BlockSize {
		buf[i] ^= 0x36 ^ 0x5c
	}
	outer := blake2s.Sum256(append(buf[:blake2s.BlockSize], inner[:]...))
	clear(inner[:])
	return outer
}
