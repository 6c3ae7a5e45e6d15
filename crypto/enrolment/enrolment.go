package enrolment

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"hash"
	"log/slog"

	"golang.org/x/crypto/blake2s"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
)

// Secret is what an invitation holds. It hides itself as [crypto.PrivateKey] does.
type Secret [crypto.KeySize]byte

// GenerateSecret returns a new random secret.
func GenerateSecret() (Secret, error) {
	var s Secret
	if _, err := rand.Read(s[:]); err != nil {
		return Secret{}, fmt.Errorf("crypto: no randomness: %w", err)
	}
	return s, nil
}

// Equal compares in constant time.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s[:], o[:]) == 1 }

// Zero overwrites the secret. Copies made of it before are out of its reach.
func (s *Secret) Zero() { clear(s[:]) }

func (s Secret) String() string               { return hidden.Text }
func (s Secret) GoString() string             { return hidden.Text }
func (s Secret) Format(f fmt.State, _ rune)   { hidden.Format(f) }
func (s Secret) LogValue() slog.Value         { return hidden.Value{}.LogValue() }
func (s Secret) MarshalText() ([]byte, error) { return hidden.Value{}.MarshalText() }
func (s Secret) MarshalJSON() ([]byte, error) { return hidden.Value{}.MarshalJSON() }

// Labels of the derivation: what one key is good for, another is not.
const (
	saltLabel = "culvert v1 enrolment"
	keyLabel  = "culvert v1 enrolment static key"
	pskLabel  = "culvert v1 enrolment preshared key"
)

// Derive returns the static key of the invited end and the preshared key that it and the server use. They come from HKDF
// (RFC 5869) with HMAC-BLAKE2s: the secret is the input, HASH(label || the server's public key) the salt, so that a secret is good
// for one server alone, and each output has an info of its own. The static key is clamped (RFC 7748 section 5).
func Derive(secret Secret, server crypto.PublicKey) (key crypto.PrivateKey, psk crypto.PresharedKey, err error) {
	salt := blake2s.Sum256(append([]byte(saltLabel), server[:]...))
	prk, err := hkdf.Extract(newHash, secret[:], salt[:])
	if err != nil {
		return key, psk, err
	}
	defer clear(prk)
	if err := expand(key[:], prk, keyLabel); err != nil {
		return key, psk, err
	}
	key[0] &= 248
	key[31] = key[31]&127 | 64
	if err := expand(psk[:], prk, pskLabel); err != nil {
		key.Zero()
		return key, psk, err
	}
	return key, psk, nil
}

func expand(into, prk []byte, label string) error {
	out, err := hkdf.Expand(newHash, prk, label, len(into))
	if err != nil {
		return err
	}
	copy(into, out)
	clear(out)
	return nil
}

func newHash() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(err) // only a key that is too long is refused
	}
	return h
}
