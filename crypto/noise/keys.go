package noise

import (
	"fmt"
	"log/slog"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
)

// Keys are the two transport keys of a finished handshake, seen from this end (WireGuard paper §5.4.5). They hide
// themselves as [crypto.PrivateKey] does.
type Keys struct{ Send, Receive [crypto.KeySize]byte }

// Erase overwrites both keys.
func (k *Keys) Erase() { *k = Keys{} }

func (k Keys) String() string               { return hidden.Text }
func (k Keys) GoString() string             { return hidden.Text }
func (k Keys) Format(f fmt.State, _ rune)   { hidden.Format(f) }
func (k Keys) LogValue() slog.Value         { return hidden.Value{}.LogValue() }
func (k Keys) MarshalText() ([]byte, error) { return hidden.Value{}.MarshalText() }
func (k Keys) MarshalJSON() ([]byte, error) { return hidden.Value{}.MarshalJSON() }
