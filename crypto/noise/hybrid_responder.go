package noise

import (
	"crypto/mlkem"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
	"culvert/crypto/tai64n"
)

// HybridResponder answers one hybrid initiation and its KEM part. It is not safe for concurrent use. It is small until the KEM part
// has come, so that one can be held for each peer.
type HybridResponder struct {
	hidden.Value
	id            *Identity
	state         symmetric
	key           [crypto.KeySize]byte // once verified: opens the KEM part
	static        crypto.PublicKey
	ephemeral     crypto.PublicKey
	encapsulation *mlkem.EncapsulationKey768 // once complete
	hello         [helloSize + TagSize]byte  // still sealed
	index         uint32
	offer         Parameters // once verified
	phase         phase
}

// ReadHybridInitiation decrypts the initiator's static key from a hybrid initiation, for the caller to look the peer up. Whoever holds this
// identity's public key can make one that gets here: nothing is authenticated before [HybridResponder.Verify]. The macs are the
// caller's to check. Errors are [ErrMessage], [ErrLowOrder] and [ErrDecrypt]. msg is not kept.
func (id *Identity) ReadHybridInitiation(msg []byte) (*HybridResponder, error) {
	if typ, ok := MessageType(msg); !ok || typ != TypeHybridInitiation {
		return nil, ErrMessage
	}
	r := &HybridResponder{
		id:        id,
		state:     id.beginHybrid,
		phase:     read,
		ephemeral: crypto.PublicKey(msg[hybridEphemeral:hybridStatic]),
		hello:     [helloSize + TagSize]byte(msg[hybridHello:hybridMAC1]),
		index:     SenderIndex(msg),
	}
	es, err := id.static.DH(r.ephemeral)
	if err != nil {
		return nil, err
	}
	defer clear(es[:])
	r.state.mixHash(msg[:hybridEphemeral])
	r.state.mixEphemeral(r.ephemeral)
	key := r.state.mixSecret(&es)
	defer clear(key[:])
	if err := r.state.open(r.static[:], &key, msg[hybridStatic:hybridHello]); err != nil {
		r.Erase()
		return nil, err
	}
	return r, nil
}

// Static returns the initiator's static key as it claims it.
func (r *HybridResponder) Static() crypto.PublicKey { return r.static }

// RemoteIndex returns the initiator's index, which its KEM part carries too and to which the response goes.
func (r *HybridResponder) RemoteIndex() uint32 { return r.index }

// Verify decrypts the hello, which proves that the initiator holds the static key it claims: remote must be that key's, under
// the same identity, else [ErrState]. It returns the timestamp, which the caller refuses unless it rises, and what is offered, of which
// only the suites known here are left. On any error ([ErrLowOrder], [ErrDecrypt], [ErrParameters]) r is erased.
func (r *HybridResponder) Verify(remote *Remote) (tai64n.Timestamp, Parameters, error) {
	ts, err := r.verify(remote)
	if err != nil {
		r.Erase()
		return tai64n.Timestamp{}, Parameters{}, err
	}
	r.phase = verified
	return ts, r.offer, nil
}

func (r *HybridResponder) verify(remote *Remote) (ts tai64n.Timestamp, err error) {
	if r.phase != read || remote.id != r.id || remote.public != r.static {
		return ts, ErrState
	}
	if remote.err != nil {
		return ts, remote.err
	}
	var hello [helloSize]byte
	r.key = r.state.mixSecret(&remote.secret)
	if err := r.state.open(hello[:], &r.key, r.hello[:]); err != nil {
		return ts, err
	}
	r.offer = decodeParameters((*[parametersSize]byte)(hello[len(ts):]))
	r.offer.Suites &= crypto.AllSuites
	if !r.offer.Suites.Has(crypto.ChaCha20Poly1305) {
		return ts, ErrParameters
	}
	return tai64n.Timestamp(hello[:len(ts)]), nil
}

// ReadKEM decrypts the encapsulation key from the KEM part that belongs to a verified initiation. Its mac1 is the caller's to check. On
// [ErrMessage], [ErrDecrypt] and [ErrState] (not verified, or complete already) r is unchanged, and the genuine part still works. An
// authentic part without a valid key ([ErrEncapsulationKey]) erases r. msg is not kept.
func (r *HybridResponder) ReadKEM(msg []byte) error {
	if r.phase != verified {
		return ErrState
	}
	if typ, ok := MessageType(msg); !ok || typ != TypeKEM || SenderIndex(msg) != r.index {
		return ErrMessage
	}
	state := r.state
	defer state.erase()
	state.mixHash(msg[:kemKey])
	var encoded [mlkem.EncapsulationKeySize768]byte
	if err := state.openAt(encoded[:], &r.key, 1, msg[kemKey:kemMAC1]); err != nil {
		return err
	}
	encapsulation, err := mlkem.NewEncapsulationKey768(encoded[:])
	if err != nil {
		r.Erase()
		return ErrEncapsulationKey
	}
	r.state, r.encapsulation, r.phase = state, encapsulation, complete
	clear(r.key[:])
	return nil
}

// Respond appends a hybrid response of [HybridResponseSize] bytes to dst and returns the transport keys. mac1 and mac2 are left zero.
// sender is the index the initiator will send data to, chosen what was made of the offer. r is erased either way. On error dst is
// returned as it was: [ErrState] unless ReadKEM succeeded, [ErrParameters] when chosen is not one suite of the offer, [ErrLowOrder],
// [crypto.ErrZeroKey] for the ephemeral, or what rnd failed with.
func (r *HybridResponder) Respond(dst []byte, sender uint32, psk crypto.PresharedKey, chosen Parameters, rnd Randomness) ([]byte, Keys, error) {
	defer psk.Zero()
	defer r.Erase()
	if r.phase != complete {
		return dst, Keys{}, ErrState
	}
	if err := r.offer.allows(chosen); err != nil {
		return dst, Keys{}, err
	}
	e, err := rnd.ephemeral()
	if err != nil {
		return dst, Keys{}, err
	}
	ee, err := e.DH(r.ephemeral)
	if err != nil {
		return dst, Keys{}, err
	}
	defer clear(ee[:])
	se, err := e.DH(r.static)
	if err != nil {
		return dst, Keys{}, err
	}
	defer clear(se[:])
	shared, ciphertext := rnd.encapsulate(r.encapsulation)
	defer clear(shared[:])
	public, parameters := e.Public(), chosen.encode()

	msg := r.state.appendHeader(dst, TypeHybridResponse, sender, r.index)
	msg = append(msg, public[:]...)
	r.state.mixEphemeral(public)
	key := r.state.mixSecret(&ee)
	defer clear(key[:])
	msg = r.state.seal(msg, &key, ciphertext)
	key = r.state.mixSecret(&shared)
	key = r.state.mixSecret(&se)
	key = r.state.mixPSK(&psk)
	msg = r.state.seal(msg, &key, parameters[:])

	var k Keys
	k.Receive, k.Send, k.lanes = r.state.splitHybrid()
	return append(msg, make([]byte, 2*MACSize)...), k, nil
}

// Erase overwrites the handshake's secrets. Static and RemoteIndex remain.
func (r *HybridResponder) Erase() {
	r.state.erase()
	clear(r.key[:])
	r.encapsulation = nil
	r.phase = spent
}
