package noise

import (
	"encoding/binary"

	"culvert/crypto"
)

// Message types: the first byte of every datagram, three zero bytes behind it (WireGuard paper §5.4). The hybrid ones are of
// culvert's own wire, which shares types 3 and 4 with WireGuard's.
const (
	TypeInitiation       = 1
	TypeResponse         = 2
	TypeCookieReply      = 3
	TypeData             = 4
	TypeHybridInitiation = 5
	TypeKEM              = 6
	TypeHybridResponse   = 7
)

// Sizes in bytes. A data message is DataHeaderSize, ciphertext, TagSize.
const (
	InitiationSize  = 148
	ResponseSize    = 92
	CookieReplySize = 64
	DataHeaderSize  = 16
	TagSize         = 16
	MACSize         = 16
)

// Layout of an initiation (§5.4.2): type u32, sender u32, ephemeral 32, static 32+16, timestamp 12+16, mac1 16, mac2 16.
const (
	initiationEphemeral = 8
	initiationStatic    = initiationEphemeral + crypto.KeySize
	initiationTimestamp = initiationStatic + crypto.KeySize + TagSize
	initiationMAC1      = initiationTimestamp + 12 + TagSize
)

// Layout of a response (§5.4.3): type u32, sender u32, receiver u32, ephemeral 32, empty 0+16, mac1 16, mac2 16.
const (
	responseReceiver  = 8
	responseEphemeral = 12
	responseEmpty     = responseEphemeral + crypto.KeySize
	responseMAC1      = responseEmpty + TagSize
)

// MessageType returns the type of a datagram, or false unless it is one of the seven, the three reserved bytes are zero and
// the length fits: at least 32 for data, exact for all others. A data message need not be a multiple of 16 long, since
// padding stops at the sender's MTU (§5.4.6 and every implementation).
func MessageType(msg []byte) (uint8, bool) {
	if len(msg) < 4 {
		return 0, false
	}
	var fits bool
	switch typ := binary.LittleEndian.Uint32(msg); typ {
	case TypeInitiation:
		fits = len(msg) == InitiationSize
	case TypeResponse:
		fits = len(msg) == ResponseSize
	case TypeCookieReply:
		fits = len(msg) == CookieReplySize
	case TypeData:
		fits = len(msg) >= DataHeaderSize+TagSize
	case TypeHybridInitiation:
		fits = len(msg) == HybridInitiationSize
	case TypeKEM:
		fits = len(msg) == KEMSize
	case TypeHybridResponse:
		fits = len(msg) == HybridResponseSize
	}
	if !fits {
		return 0, false
	}
	return msg[0], true
}

// SenderIndex returns the sender index of an initiation, its KEM part or a response, of either wire, that passed [MessageType].
func SenderIndex(msg []byte) uint32 { return binary.LittleEndian.Uint32(msg[4:]) }

// ReceiverIndex returns the receiver index of a response of either wire, cookie reply or data message that passed [MessageType].
func ReceiverIndex(msg []byte) uint32 {
	if msg[0] == TypeResponse || msg[0] == TypeHybridResponse {
		return binary.LittleEndian.Uint32(msg[responseReceiver:])
	}
	return binary.LittleEndian.Uint32(msg[4:])
}
