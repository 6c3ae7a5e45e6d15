package noise

import (
	"encoding/binary"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
	"culvert/crypto/tai64n"
)

// phase is the state of a Responder or HybridResponder.
type phase uint8

const (
	spent phase = iota
	read
	verified
	complete // of a HybridResponder: the KEM part as well
)

// Responder answers one initiation. It is not safe for concurrent use.
type Responder struct {
	hidden.Value
	id        *Identity
	state     symmetric
	phase     phase
	static    crypto.PublicKey
	ephemeral crypto.PublicKey
	timestamp [len(tai64n.Timestamp{}) + TagSize]byte // still sealed
	index     uint32
}

// ReadInitiation decrypts the initiator's static key from an initiation (WireGuard paper §5.4.2), for the caller to look the peer
// up. Whoever holds this identity's public key can make one that gets here: nothing is authenticated before
// [Responder.Verify]. The macs are the caller's to check. Errors are [ErrMessage], [ErrLowOrder] and [ErrDecrypt]. msg is not kept.
func (id *Identity) ReadInitiation(msg []byte) (*Responder, error) {
	if typ, ok := MessageType(msg); !ok || typ != TypeInitiation {
		return nil, ErrMessage
	}
	r := &Responder{
		id:        id,
		state:     id.begin,
		phase:     read,
		ephemeral: crypto.PublicKey(msg[initiationEphemeral:initiationStatic]),
		timestamp: [len(tai64n.Timestamp{}) + TagSize]byte(msg[initiationTimestamp:initiationMAC1]),
		index:     SenderIndex(msg),
	}
	es, err := id.static.DH(r.ephemeral)
	if err != nil {
		return nil, err
	}
	r.state.mixEphemeral(r.ephemeral)
	key := r.state.mixSecret(&es)
	err = r.state.open(r.static[:], &key, msg[initiationStatic:initiationTimestamp])
	clear(es[:])
	clear(key[:])
	if err != nil {
		r.Erase()
		return nil, err
	}
	return r, nil
}

// Static returns the initiator's static key as it claims it.
func (r *Responder) Static() crypto.PublicKey { return r.static }

// RemoteIndex returns the initiator's index, to which the response goes.
func (r *Responder) RemoteIndex() uint32 { return r.index }

// Verify decrypts the timestamp, which proves that the initiator holds the static key it claims: remote must be that key's, under
// the same identity, else [ErrState]. The caller refuses timestamps that do not rise. On any error ([ErrLowOrder], [ErrDecrypt])
// r is erased.
func (r *Responder) Verify(remote *Remote) (tai64n.Timestamp, error) {
	if r.phase != read || remote.id != r.id || remote.public != r.static {
		r.Erase()
		return tai64n.Timestamp{}, ErrState
	}
	if remote.err != nil {
		r.Erase()
		return tai64n.Timestamp{}, remote.err
	}
	var ts tai64n.Timestamp
	key := r.state.mixSecret(&remote.secret)
	defer clear(key[:])
	if err := r.state.open(ts[:], &key, r.timestamp[:]); err != nil {
		r.Erase()
		return tai64n.Timestamp{}, err
	}
	r.phase = verified
	return ts, nil
}

// Respond appends a response of [ResponseSize] bytes to dst (WireGuard paper §5.4.3) and returns the transport keys. mac1 and mac2
// are left zero. sender is the index the initiator will send data to. r is erased either way. On error dst is returned as it
// was: [ErrState] unless Verify succeeded, [ErrLowOrder], [crypto.ErrZeroKey] for the ephemeral, or what eph failed with.
func (r *Responder) Respond(dst []byte, sender uint32, psk crypto.PresharedKey, eph Ephemeral) ([]byte, Keys, error) {
	defer psk.Zero()
	defer r.Erase()
	if r.phase != verified {
		return dst, Keys{}, ErrState
	}
	e, err := ephemeral(eph)
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
	public := e.Public()

	msg := binary.LittleEndian.AppendUint32(dst, TypeResponse)
	msg = binary.LittleEndian.AppendUint32(msg, sender)
	msg = binary.LittleEndian.AppendUint32(msg, r.index)
	msg = append(msg, public[:]...)
	r.state.mixEphemeral(public)
	key := r.state.mixSecret(&ee)
	key = r.state.mixSecret(&se)
	key = r.state.mixPSK(&psk)
	msg = r.state.seal(msg, &key, nil)
	clear(key[:])

	var k Keys
	k.Receive, k.Send = r.state.split()
	return append(msg, make([]byte, 2*MACSize)...), k, nil
}

// Erase overwrites the handshake's secrets. Static and RemoteIndex remain.
func (r *Responder) Erase() {
	r.state.erase()
	r.phase = spent
}
