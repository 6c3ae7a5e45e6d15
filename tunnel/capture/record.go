package capture

import (
	"time"

	"culvert/crypto"
)

// Meta is what the datapath knows of a packet besides its bytes.
type Meta struct {
	At      time.Duration    // since the engine's start
	Peer    crypto.PublicKey // the peer it comes from or goes to; zero where that is none or several
	Out     bool             // read from the interface; otherwise it comes from a peer
	Elided  bool             // the transport checksum was left to the receiving kernel, its field is without meaning
	Partial bool             // the transport checksum is still to be finished (device.Offload.NeedsChecksum)
	Super   bool             // still to be segmented (device.Offload.GSO)
}

// Record is a recorded packet.
type Record struct {
	Meta
	Length  int    // of the packet, in bytes
	Data    []byte // its first bytes, at most the ring's snap; valid, and the consumer's to change, until the next record
	Dropped uint64 // records dropped for want of room since the record before was read
}
