package noise

import (
	"errors"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
)

// What a handshake fails with. To the network each means silence.
var (
	// ErrMessage refuses a message of another type, length or receiver, or with reserved bytes set.
	ErrMessage = errors.New("noise: not the message expected here")
	// ErrDecrypt refuses a message that does not authenticate.
	ErrDecrypt = errors.New("noise: message does not authenticate")
	// ErrLowOrder refuses a static or ephemeral public key of low order. It is crypto.ErrLowOrder.
	ErrLowOrder = crypto.ErrLowOrder
	// ErrEncapsulationKey refuses an ML-KEM key that is authentic but none (FIPS 203 §7.2).
	ErrEncapsulationKey = errors.New("noise: invalid encapsulation key")
	// ErrParameters refuses an offer without ChaCha20-Poly1305, and a choice other than one suite of the offer.
	ErrParameters = errors.New("noise: parameters offered or chosen are not allowed")
	// ErrState refuses a call that the state, as tabled in the package's documentation, does not allow.
	ErrState = errors.New("noise: handshake is not in this state")
)

// Ephemeral makes the private key of one handshake: [crypto.GeneratePrivateKey], or fixed keys in test vectors. No key may come
// twice.
type Ephemeral func() (crypto.PrivateKey, error)

// ephemeral calls eph and expands its key.
func ephemeral(eph Ephemeral) (*crypto.KeyPair, error) {
	k, err := eph()
	if err != nil {
		return nil, err
	}
	defer k.Zero()
	return crypto.NewKeyPair(k)
}

// Identity is this end's static key. It is immutable and safe for concurrent use.
type Identity struct {
	hidden.Value
	static      *crypto.KeyPair
	begin       symmetric // of handshakes in which this end responds
	beginHybrid symmetric
}

// NewIdentity prepares the static key k. The zero key is refused with [crypto.ErrZeroKey].
func NewIdentity(k crypto.PrivateKey) (*Identity, error) {
	static, err := crypto.NewKeyPair(k)
	if err != nil {
		return nil, err
	}
	public := static.Public()
	return &Identity{static: static, begin: wireguard.towards(public), beginHybrid: hybrid.towards(public)}, nil
}

// Public returns the public static key.
func (id *Identity) Public() crypto.PublicKey { return id.static.Public() }

// Remote is a peer's static key as one identity sees it. It is immutable and safe for concurrent use.
type Remote struct {
	hidden.Value
	id     *Identity
	public crypto.PublicKey
	secret [crypto.KeySize]byte // "ss", the same for every handshake with this peer
	err    error                // why there is no secret
}

// NewRemote prepares handshakes between id and the owner of pub. A low-order key (the zero key is one) is taken, but every
// handshake with it fails with [ErrLowOrder].
func NewRemote(id *Identity, pub crypto.PublicKey) *Remote {
	r := &Remote{id: id, public: pub}
	r.secret, r.err = id.static.DH(pub)
	return r
}

// Public returns the peer's public static key.
func (r *Remote) Public() crypto.PublicKey { return r.public }

// Erase overwrites the secret shared with the peer, for when the peer or the identity is removed. It must not run beside
// another use of r; every handshake fails with [ErrState] afterwards.
func (r *Remote) Erase() {
	clear(r.secret[:])
	r.err = ErrState
}
