package noise

import (
	"fmt"
	"log/slog"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
)

// Keys are the two transport keys of a finished handshake, seen from this end (WireGuard paper §5.4.5), and after a hybrid one
// what those of further lanes come from. They hide themselves as [crypto.PrivateKey] does.
type Keys struct {
	Send, Receive [crypto.KeySize]byte
	lanes         [crypto.KeySize]byte // zero after WireGuard's handshake
}

// Lane returns the transport keys of a further lane of the session, from 1, seen from the end that was the initiator or the
// other: (initiator's, responder's) = KDF2(third output of the KDF that gave Send and Receive, the lane's number as one byte).
// They are zero, which makes no session, after WireGuard's handshake, after Erase and for lane 0.
func (k *Keys) Lane(number uint8, initiator bool) (lane Keys) {
	if number == 0 || k.lanes == [crypto.KeySize]byte{} {
		return lane
	}
	derive(&k.lanes, []byte{number}, &lane.Send, &lane.Receive)
	if !initiator {
		lane.Send, lane.Receive = lane.Receive, lane.Send
	}
	return lane
}

// Erase overwrites all keys.
func (k *Keys) Erase() { *k = Keys{} }

func (k Keys) String() string               { return hidden.Text }
func (k Keys) GoString() string             { return hidden.Text }
func (k Keys) Format(f fmt.State, _ rune)   { hidden.Format(f) }
func (k Keys) LogValue() slog.Value         { return hidden.Value{}.LogValue() }
func (k Keys) MarshalText() ([]byte, error) { return hidden.Value{}.MarshalText() }
func (k Keys) MarshalJSON() ([]byte, error) { return hidden.Value{}.MarshalJSON() }
