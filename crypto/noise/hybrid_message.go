package noise

import (
	"crypto/mlkem"
	"encoding/binary"

	"culvert/crypto"
	"culvert/crypto/tai64n"
)

// Sizes of the hybrid handshake's messages in bytes. None needs a fragment on IPv6's smallest link, and the response is smaller
// than what it answers.
const (
	HybridInitiationSize = 156
	KEMSize              = 1224
	HybridResponseSize   = 1204
)

// Layout of a hybrid initiation: type u32, sender u32, ephemeral 32, static 32+16, hello 20+16, mac1 16, mac2 16. The hello is the
// timestamp 12, parameters 8.
const (
	hybridEphemeral = 8
	hybridStatic    = hybridEphemeral + crypto.KeySize
	hybridHello     = hybridStatic + crypto.KeySize + TagSize
	hybridMAC1      = hybridHello + helloSize + TagSize

	helloSize = len(tai64n.Timestamp{}) + parametersSize
)

// Layout of the KEM part, which follows the initiation: type u32, sender u32 (the initiation's), encapsulation key 1184+16, mac1 16.
const (
	kemKey  = 8
	kemMAC1 = kemKey + mlkem.EncapsulationKeySize768 + TagSize
)

// Layout of a hybrid response: type u32, sender u32, receiver u32, ephemeral 32, ML-KEM ciphertext 1088+16, parameters 8+16, mac1 16,
// mac2 16.
const (
	hybridResponseEphemeral  = 12
	hybridResponseCiphertext = hybridResponseEphemeral + crypto.KeySize
	hybridResponseParameters = hybridResponseCiphertext + mlkem.CiphertextSize768 + TagSize
	hybridResponseMAC1       = hybridResponseParameters + parametersSize + TagSize
)

// What a tunnel carries, as [Parameters] say it: the number of the layer.
const (
	LayerEthernet uint8 = 2
	LayerIP       uint8 = 3
)

// MaxLanes is how many lanes a session has at most.
const MaxLanes = 16

// Parameters are what the ends agree on within the hybrid handshake: offered in the initiation, chosen in the response. Only the suites
// are judged here; whether the layers fit is the caller's to see.
//
// On the wire they are 8 bytes: suites u8, layer u8, lanes u8, and five that are zero when sent and ignored when received.
type Parameters struct {
	Suites crypto.Suites // offered: all that may be chosen, ChaCha20-Poly1305 among them; chosen: exactly one of these
	Layer  uint8         // LayerIP or LayerEthernet; anything may come from a peer
	Lanes  uint8         // as many as the sender wants at most; 0 from an end that knows no lanes
}

const parametersSize = 8

func (p Parameters) encode() (b [parametersSize]byte) {
	b[0], b[1], b[2] = byte(p.Suites), p.Layer, p.Lanes
	return b
}

func decodeParameters(b *[parametersSize]byte) Parameters {
	return Parameters{Suites: crypto.Suites(b[0]), Layer: b[1], Lanes: b[2]}
}

// LanesWith returns how many lanes the session of two ends with these parameters has, 1 to [MaxLanes]: as many as both want.
func (p Parameters) LanesWith(other Parameters) int {
	return max(1, min(int(p.Lanes), int(other.Lanes), MaxLanes))
}

// allows returns [ErrParameters] unless choice is one suite of the offer.
func (p Parameters) allows(choice Parameters) error {
	if suite, ok := choice.Suites.Only(); !ok || !p.Suites.Has(suite) {
		return ErrParameters
	}
	return nil
}

// Randomness is where one end of a hybrid handshake gets its keys from. A nil field means the real thing; others are for test vectors.
type Randomness struct {
	Ephemeral     Ephemeral                                                       // both ends
	Decapsulation func() (*mlkem.DecapsulationKey768, error)                      // the initiator's
	Encapsulate   func(*mlkem.EncapsulationKey768) (sharedKey, ciphertext []byte) // the responder's
}

func (r Randomness) ephemeral() (*crypto.KeyPair, error) {
	if r.Ephemeral == nil {
		return ephemeral(crypto.GeneratePrivateKey)
	}
	return ephemeral(r.Ephemeral)
}

func (r Randomness) decapsulation() (*mlkem.DecapsulationKey768, error) {
	if r.Decapsulation == nil {
		return mlkem.GenerateKey768()
	}
	return r.Decapsulation()
}

func (r Randomness) encapsulate(key *mlkem.EncapsulationKey768) (secret [crypto.KeySize]byte, ciphertext []byte) {
	if r.Encapsulate == nil {
		r.Encapsulate = (*mlkem.EncapsulationKey768).Encapsulate
	}
	shared, ciphertext := r.Encapsulate(key)
	defer clear(shared)
	return [crypto.KeySize]byte(shared), ciphertext
}

// appendHeader appends a message's type and indices, which are part of the transcript on this wire.
func (s *symmetric) appendHeader(dst []byte, typ uint32, indices ...uint32) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, typ)
	for _, index := range indices {
		dst = binary.LittleEndian.AppendUint32(dst, index)
	}
	s.mixHash(dst[at:])
	return dst
}
