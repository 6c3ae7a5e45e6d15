package tunnel

// Wire is the protocol spoken with a peer. It is configured, never negotiated: a message of the other wire from a peer is
// dropped, so that there is nothing to downgrade to.
type Wire uint8

const (
	// WireGuard is the wire of WireGuard v1, for any implementation of it.
	WireGuard Wire = iota
	// Culvert is the native wire, version 1 (docs/protocol.md).
	Culvert
)

// String returns the wire's name, as configuration and status have it.
func (w Wire) String() string {
	switch w {
	case WireGuard:
		return "wireguard"
	case Culvert:
		return "culvert"
	}
	return "unknown"
}
