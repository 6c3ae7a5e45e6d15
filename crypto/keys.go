package crypto

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"culvert/crypto/internal/hidden"
)

// KeySize is the length of every key, in bytes.
const KeySize = 32

const (
	base64Size = 44 // KeySize bytes in standard base64, with one '=' of padding
	hexSize    = 2 * KeySize
)

var (
	// ErrKeySyntax is what parsing a key fails with. It never quotes the text.
	ErrKeySyntax = errors.New("crypto: malformed key")
	// ErrZeroKey refuses the all-zero private key, which stands for "no key".
	ErrZeroKey = errors.New("crypto: zero private key")
	// ErrLowOrder refuses a public key of low order: its shared secret with any private key is zero (RFC 7748 §6.1).
	ErrLowOrder = errors.New("crypto: low-order public key")
)

// PrivateKey is an X25519 scalar (RFC 7748 §5), little-endian. The zero value means "none". Keys that were not made here
// are kept as given; X25519 itself clamps them.
//
// It prints as "(hidden)" wherever fmt, log/slog and encoding/json ask a value's methods. fmt asks none for the misused verbs
// %p and %w, which vet refuses, nor inside an unexported field of a struct: hide structs with such fields too.
type PrivateKey [KeySize]byte

// PublicKey is an X25519 u-coordinate (RFC 7748 §5), little-endian.
type PublicKey [KeySize]byte

// PresharedKey is the symmetric key mixed into a handshake. The zero value means "none", as it does on WireGuard's wire.
// It hides itself as [PrivateKey] does.
type PresharedKey [KeySize]byte

// GeneratePrivateKey returns a new random private key, clamped (RFC 7748 §5).
func GeneratePrivateKey() (PrivateKey, error) {
	var k PrivateKey
	if _, err := rand.Read(k[:]); err != nil {
		return PrivateKey{}, fmt.Errorf("crypto: no randomness: %w", err)
	}
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k, nil
}

// GeneratePresharedKey returns a new random preshared key.
func GeneratePresharedKey() (PresharedKey, error) {
	var k PresharedKey
	if _, err := rand.Read(k[:]); err != nil {
		return PresharedKey{}, fmt.Errorf("crypto: no randomness: %w", err)
	}
	return k, nil
}

// ParsePrivateKey reads 44 characters of standard base64 (RFC 4648 §4), strictly: padding is required, trailing bits are
// zero, nothing surrounds it. Errors are [ErrKeySyntax].
func ParsePrivateKey(s string) (PrivateKey, error) { k, err := parseBase64(s); return k, err }

// ParsePublicKey reads a public key as [ParsePrivateKey] does a private one.
func ParsePublicKey(s string) (PublicKey, error) { k, err := parseBase64(s); return k, err }

// ParsePresharedKey reads a preshared key as [ParsePrivateKey] does a private one.
func ParsePresharedKey(s string) (PresharedKey, error) { k, err := parseBase64(s); return k, err }

// ParsePrivateKeyHex reads exactly 64 hexadecimal digits of either case, the form of the userspace API. Errors are
// [ErrKeySyntax].
func ParsePrivateKeyHex(s string) (PrivateKey, error) { k, err := parseHex(s); return k, err }

// ParsePublicKeyHex reads a public key as [ParsePrivateKeyHex] does a private one.
func ParsePublicKeyHex(s string) (PublicKey, error) { k, err := parseHex(s); return k, err }

// ParsePresharedKeyHex reads a preshared key as [ParsePrivateKeyHex] does a private one.
func ParsePresharedKeyHex(s string) (PresharedKey, error) { k, err := parseHex(s); return k, err }

func parseBase64(s string) ([KeySize]byte, error) {
	var k [KeySize]byte
	if len(s) != base64Size {
		return k, fmt.Errorf("%w: %d characters where %d of base64 are due", ErrKeySyntax, len(s), base64Size)
	}
	// The decoder skips line breaks, so 44 characters may also come out shorter than a key.
	var raw [KeySize + 1]byte
	defer clear(raw[:])
	n, err := base64.StdEncoding.Strict().Decode(raw[:], []byte(s))
	if err != nil || n != KeySize {
		return k, fmt.Errorf("%w: not base64 of %d bytes", ErrKeySyntax, KeySize)
	}
	copy(k[:], raw[:])
	return k, nil
}

func parseHex(s string) ([KeySize]byte, error) {
	var k [KeySize]byte
	if len(s) != hexSize {
		return k, fmt.Errorf("%w: %d characters where %d hexadecimal digits are due", ErrKeySyntax, len(s), hexSize)
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return [KeySize]byte{}, fmt.Errorf("%w: not %d hexadecimal digits", ErrKeySyntax, hexSize)
	}
	return k, nil
}

// Base64 returns the key itself in standard base64, 44 characters. It is a secret.
func (k PrivateKey) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Hex returns the key itself as 64 hexadecimal digits. It is a secret.
func (k PrivateKey) Hex() string { return hex.EncodeToString(k[:]) }

// IsZero reports whether there is no key, in constant time.
func (k PrivateKey) IsZero() bool { return k.Equal(PrivateKey{}) }

// Equal compares in constant time.
func (k PrivateKey) Equal(o PrivateKey) bool { return subtle.ConstantTimeCompare(k[:], o[:]) == 1 }

// Zero overwrites the key. Copies made of it before are out of its reach.
func (k *PrivateKey) Zero() { clear(k[:]) }

// Base64 returns the key itself in standard base64, 44 characters. It is a secret.
func (k PresharedKey) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Hex returns the key itself as 64 hexadecimal digits. It is a secret.
func (k PresharedKey) Hex() string { return hex.EncodeToString(k[:]) }

// IsZero reports whether there is no key, in constant time.
func (k PresharedKey) IsZero() bool { return k.Equal(PresharedKey{}) }

// Equal compares in constant time.
func (k PresharedKey) Equal(o PresharedKey) bool { return subtle.ConstantTimeCompare(k[:], o[:]) == 1 }

// Zero overwrites the key. Copies made of it before are out of its reach.
func (k *PresharedKey) Zero() { clear(k[:]) }

// Base64 returns the key in standard base64, 44 characters.
func (k PublicKey) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Hex returns the key as 64 hexadecimal digits.
func (k PublicKey) Hex() string { return hex.EncodeToString(k[:]) }

// IsZero reports whether there is no key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// Equal compares two public keys bytewise.
func (k PublicKey) Equal(o PublicKey) bool { return k == o }

// Compare orders keys by their bytes: -1, 0 or +1.
func (k PublicKey) Compare(o PublicKey) int {
	for i := range k {
		if c := cmp.Compare(k[i], o[i]); c != 0 {
			return c
		}
	}
	return 0
}

// String returns the key in base64.
func (k PublicKey) String() string { return k.Base64() }

// MarshalText returns the key in base64.
func (k PublicKey) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(make([]byte, 0, base64Size), k[:]), nil
}

// UnmarshalText reads what [ParsePublicKey] reads. On error the key is unchanged.
func (k *PublicKey) UnmarshalText(text []byte) error {
	parsed, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	*k = parsed
	return nil
}

// The methods below hide secret keys from everything that prints values by itself.

func (k PrivateKey) String() string               { return hidden.Text }
func (k PrivateKey) GoString() string             { return hidden.Text }
func (k PrivateKey) Format(f fmt.State, _ rune)   { hidden.Format(f) }
func (k PrivateKey) LogValue() slog.Value         { return hidden.Value{}.LogValue() }
func (k PrivateKey) MarshalText() ([]byte, error) { return hidden.Value{}.MarshalText() }
func (k PrivateKey) MarshalJSON() ([]byte, error) { return hidden.Value{}.MarshalJSON() }

func (k PresharedKey) String() string               { return hidden.Text }
func (k PresharedKey) GoString() string             { return hidden.Text }
func (k PresharedKey) Format(f fmt.State, _ rune)   { hidden.Format(f) }
func (k PresharedKey) LogValue() slog.Value         { return hidden.Value{}.LogValue() }
func (k PresharedKey) MarshalText() ([]byte, error) { return hidden.Value{}.MarshalText() }
func (k PresharedKey) MarshalJSON() ([]byte, error) { return hidden.Value{}.MarshalJSON() }
