package noise

import (
	"encoding/binary"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
	"culvert/crypto/tai64n"
)

// Initiator awaits the response to one initiation. It is not safe for concurrent use.
type Initiator struct {
	hidden.Value
	remote    *Remote // nil once spent
	ephemeral *crypto.KeyPair
	state     symmetric
	index     uint32
}

// Initiate appends an initiation of [InitiationSize] bytes to dst (WireGuard paper §5.4.2) and returns the state that awaits its
// response. mac1 and mac2 are left zero. sender is the index the response will be addressed to. On error dst is returned as it
// was: [ErrLowOrder] for the peer's key, [crypto.ErrZeroKey] for the ephemeral, or what eph failed with.
func (r *Remote) Initiate(dst []byte, sender uint32, ts tai64n.Timestamp, eph Ephemeral) ([]byte, *Initiator, error) {
	if r.err != nil {
		return dst, nil, r.err
	}
	e, err := ephemeral(eph)
	if err != nil {
		return dst, nil, err
	}
	es, err := e.DH(r.public)
	if err != nil {
		return dst, nil, err
	}
	static, public := r.id.Public(), e.Public()
	i := &Initiator{remote: r, ephemeral: e, state: wireguard.towards(r.public), index: sender}

	msg := binary.LittleEndian.AppendUint32(dst, TypeInitiation)
	msg = binary.LittleEndian.AppendUint32(msg, sender)
	msg = append(msg, public[:]...)
	i.state.mixEphemeral(public)

	key := i.state.mixSecret(&es)
	msg = i.state.seal(msg, &key, static[:])
	key = i.state.mixSecret(&r.secret)
	msg = i.state.seal(msg, &key, ts[:])
	clear(es[:])
	clear(key[:])
	return append(msg, make([]byte, 2*MACSize)...), i, nil
}

// LocalIndex returns the index the response must be addressed to.
func (i *Initiator) LocalIndex() uint32 { return i.index }

// Consume verifies a response (WireGuard paper §5.4.3) under psk and returns the transport keys and the responder's index. Its
// macs are the caller's to check. On success i is erased. On error ([ErrMessage], [ErrDecrypt], [ErrLowOrder]; [ErrState] when
// erased) i is unchanged and a later genuine response still works.
func (i *Initiator) Consume(msg []byte, psk crypto.PresharedKey) (Keys, uint32, error) {
	defer psk.Zero()
	if i.remote == nil {
		return Keys{}, 0, ErrState
	}
	if typ, ok := MessageType(msg); !ok || typ != TypeResponse || ReceiverIndex(msg) != i.index {
		return Keys{}, 0, ErrMessage
	}
	public := crypto.PublicKey(msg[responseEphemeral:responseEmpty])
	ee, err := i.ephemeral.DH(public)
	if err != nil {
		return Keys{}, 0, err
	}
	defer clear(ee[:])
	se, err := i.remote.id.static.DH(public)
	if err != nil {
		return Keys{}, 0, err
	}
	defer clear(se[:])

	state := i.state
	defer state.erase()
	state.mixEphemeral(public)
	key := state.mixSecret(&ee)
	key = state.mixSecret(&se)
	key = state.mixPSK(&psk)
	defer clear(key[:])
	if err := state.open(nil, &key, msg[responseEmpty:responseMAC1]); err != nil {
		return Keys{}, 0, err
	}
	var k Keys
	k.Send, k.Receive = state.split()
	i.Erase()
	return k, SenderIndex(msg), nil
}

// Erase overwrites the handshake's secrets. LocalIndex remains.
func (i *Initiator) Erase() {
	i.state.erase()
	i.remote, i.ephemeral = nil, nil
}
