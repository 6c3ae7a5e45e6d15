package crypto

import (
	"crypto/ecdh"

	"culvert/crypto/internal/hidden"
)

// Public returns the public key (RFC 7748 §6.1). The zero key has the zero public key.
func (k PrivateKey) Public() PublicKey {
	pair, err := NewKeyPair(k)
	if err != nil {
		return PublicKey{}
	}
	return pair.Public()
}

// DH returns the X25519 shared secret with pub (RFC 7748 §6.1), [ErrZeroKey] for the zero private key, or [ErrLowOrder]
// when the secret would be all zero. A [KeyPair] does the same in half the time where one key is used more than once.
func (k PrivateKey) DH(pub PublicKey) ([KeySize]byte, error) {
	pair, err := NewKeyPair(k)
	if err != nil {
		return [KeySize]byte{}, err
	}
	return pair.DH(pub)
}

// KeyPair is a private key with its public key worked out, ready for many shared secrets. It is immutable and safe for
// concurrent use.
//
// crypto/ecdh copies the private key into memory of its own, which cannot be overwritten from outside: it is gone only
// once the garbage collector has reused it.
type KeyPair struct {
	hidden.Value
	private *ecdh.PrivateKey
	public  PublicKey
}

// NewKeyPair prepares k. The zero key is refused with [ErrZeroKey].
func NewKeyPair(k PrivateKey) (*KeyPair, error) {
	if k.IsZero() {
		return nil, ErrZeroKey
	}
	private, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		return nil, err // X25519 forbidden by the toolchain's FIPS 140-only mode
	}
	return &KeyPair{private: private, public: PublicKey(private.PublicKey().Bytes())}, nil
}

// Public returns the public half.
func (p *KeyPair) Public() PublicKey { return p.public }

// DH returns the X25519 shared secret with pub (RFC 7748 §6.1), or [ErrLowOrder] when it would be all zero.
func (p *KeyPair) DH(pub PublicKey) ([KeySize]byte, error) {
	remote, err := ecdh.X25519().NewPublicKey(pub[:])
	if err != nil {
		return [KeySize]byte{}, err
	}
	secret, err := p.private.ECDH(remote)
	if err != nil {
		return [KeySize]byte{}, ErrLowOrder
	}
	defer clear(secret)
	return [KeySize]byte(secret), nil
}
