package noise

import (
	"crypto/mlkem"
	"slices"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
	"culvert/crypto/tai64n"
)

// HybridInitiator awaits the response to one hybrid initiation. It is not safe for concurrent use.
type HybridInitiator struct {
	hidden.Value
	remote        *Remote // nil once spent
	ephemeral     *crypto.KeyPair
	decapsulation *mlkem.DecapsulationKey768
	state         symmetric
	index         uint32
	offer         Parameters
}

// InitiateHybrid appends a hybrid initiation of [HybridInitiationSize] bytes and its KEM part of [KEMSize] bytes to dst and returns the
// state that awaits the response. They go out as two datagrams, in this order. Their macs are left zero. sender is the index the
// response will be addressed to. On error dst is returned as it was: [ErrParameters] for the offer, [ErrLowOrder] for the peer's
// key, [crypto.ErrZeroKey] for the ephemeral, or what rnd failed with.
func (r *Remote) InitiateHybrid(dst []byte, sender uint32, ts tai64n.Timestamp, offer Parameters, rnd Randomness) (msgs []byte, i *HybridInitiator, err error) {
	if r.err != nil {
		return dst, nil, r.err
	}
	if !offer.Suites.Has(crypto.ChaCha20Poly1305) {
		return dst, nil, ErrParameters
	}
	e, err := rnd.ephemeral()
	if err != nil {
		return dst, nil, err
	}
	decapsulation, err := rnd.decapsulation()
	if err != nil {
		return dst, nil, err
	}
	es, err := e.DH(r.public)
	if err != nil {
		return dst, nil, err
	}
	defer clear(es[:])
	static, public := r.id.Public(), e.Public()
	i = &HybridInitiator{remote: r, ephemeral: e, decapsulation: decapsulation, state: hybrid.towards(r.public), index: sender, offer: offer}

	msg := slices.Grow(dst, HybridInitiationSize+KEMSize)
	msg = i.state.appendHeader(msg, TypeHybridInitiation, sender)
	msg = append(msg, public[:]...)
	i.state.mixEphemeral(public)
	key := i.state.mixSecret(&es)
	defer clear(key[:])
	msg = i.state.seal(msg, &key, static[:])
	key = i.state.mixSecret(&r.secret)
	parameters := offer.encode()
	msg = i.state.seal(msg, &key, append(ts[:], parameters[:]...))
	msg = append(msg, make([]byte, 2*MACSize)...)

	msg = i.state.appendHeader(msg, TypeKEM, sender)
	msg = i.state.sealAt(msg, &key, 1, decapsulation.EncapsulationKey().Bytes())
	return append(msg, make([]byte, MACSize)...), i, nil
}

// LocalIndex returns the index the response must be addressed to.
func (i *HybridInitiator) LocalIndex() uint32 { return i.index }

// Consume verifies a hybrid response under psk and returns the transport keys, the responder's choice and its index. Its macs are the
// caller's to check. On success i is erased. On error ([ErrMessage], [ErrDecrypt], [ErrLowOrder]; [ErrParameters] when the choice
// is not one suite of the offer; [ErrState] when erased) i is unchanged and a later genuine response still works.
func (i *HybridInitiator) Consume(msg []byte, psk crypto.PresharedKey) (Keys, Parameters, uint32, error) {
	defer psk.Zero()
	keys, chosen, err := i.consume(msg, &psk)
	if err != nil {
		return Keys{}, Parameters{}, 0, err
	}
	i.Erase()
	return keys, chosen, SenderIndex(msg), nil
}

func (i *HybridInitiator) consume(msg []byte, psk *crypto.PresharedKey) (keys Keys, chosen Parameters, err error) {
	if i.remote == nil {
		return keys, chosen, ErrState
	}
	if typ, ok := MessageType(msg); !ok || typ != TypeHybridResponse || ReceiverIndex(msg) != i.index {
		return keys, chosen, ErrMessage
	}
	public := crypto.PublicKey(msg[hybridResponseEphemeral:hybridResponseCiphertext])
	ee, err := i.ephemeral.DH(public)
	if err != nil {
		return keys, chosen, err
	}
	defer clear(ee[:])

	state := i.state
	defer state.erase()
	state.mixHash(msg[:hybridResponseEphemeral])
	state.mixEphemeral(public)
	key := state.mixSecret(&ee)
	defer clear(key[:])
	var ciphertext [mlkem.CiphertextSize768]byte
	if err := state.open(ciphertext[:], &key, msg[hybridResponseCiphertext:hybridResponseParameters]); err != nil {
		return keys, chosen, err
	}
	shared, err := i.decapsulation.Decapsulate(ciphertext[:])
	if err != nil {
		return keys, chosen, ErrDecrypt // never: the length is right, and a wrong ciphertext gives another secret
	}
	defer clear(shared)
	key = state.mixSecret((*[crypto.KeySize]byte)(shared))
	se, err := i.remote.id.static.DH(public)
	if err != nil {
		return keys, chosen, err
	}
	defer clear(se[:])
	key = state.mixSecret(&se)
	key = state.mixPSK(psk)
	var parameters [parametersSize]byte
	if err := state.open(parameters[:], &key, msg[hybridResponseParameters:hybridResponseMAC1]); err != nil {
		return keys, chosen, err
	}
	chosen = decodeParameters(&parameters)
	if err := i.offer.allows(chosen); err != nil {
		return keys, chosen, err
	}
	keys.Send, keys.Receive, keys.lanes = state.splitHybrid()
	return keys, chosen, nil
}

// Erase overwrites the handshake's secrets. LocalIndex remains.
func (i *HybridInitiator) Erase() {
	i.state.erase()
	i.remote, i.ephemeral, i.decapsulation = nil, nil, nil
}
