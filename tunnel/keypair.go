package tunnel

import (
	"sync/atomic"
	"time"

	"culvert/crypto/session"
)

// keypair is a session and its place among its peer's three (WireGuard paper §5.4.6, as every implementation keeps them):
//
//	next      derived as responder, not confirmed yet: receives, must not send
//	current   confirmed: sends and receives
//	previous  the one before: receives what is still under way
type keypair struct {
	*session.Session
	peer     *peer
	native   *native       // nil on WireGuard's wire
	serial   uint64        // tells the sessions of native apart
	patience time.Duration // added to RekeyAfterTime
	received atomic.Uint64 // messages authenticated under it, of lane 0
	// Probes among the messages, which do not count as sent or lost, since they are made to be lost; the peer's lock guards both.
	probesSent, probesReceived uint64
	lanes                      []*lane // from lane 1 on; nil: lane 0 is the only one
	first                      int     // the worker that messages of lane 0 come to
	// crossed: the far end began it while this end began another, so the far end sends under it as long as this end has both.
	crossed atomic.Bool
	// unconfirmed: this end was the responder and nothing has come in under the keypair yet.
	unconfirmed atomic.Bool
	// retired: it may receive, but no longer send (the private key has changed).
	retired atomic.Bool
}

// crossedPatience is how much later one end rekeys after both began at once: time for the other's handshake, and still
// before RekeyOnReceiveAfter.
const crossedPatience = 10 * time.Second

// maySend reports whether the keypair may seal at now.
func (k *keypair) maySend(now time.Duration) bool {
	return k != nil && now-k.Created < session.RejectAfterTime && !k.retired.Load()
}

// mayReceive reports whether the keypair may open at now.
func (k *keypair) mayReceive(now time.Duration) bool { return now-k.Created < session.RejectAfterTime }

// staleToSend reports whether sending on the lane of s asks for a new handshake (paper §6.2): only the initiator does so by time, lest both
// ends start at once.
func (k *keypair) staleToSend(s *session.Session, now time.Duration) bool {
	return s.RekeyDue() || k.Initiator && now-k.Created >= session.RekeyAfterTime+k.patience
}

// staleToReceive reports whether receiving asks for a new handshake, so that a one-way stream does not run into
// RejectAfterTime.
func (k *keypair) staleToReceive(now time.Duration) bool {
	return k.Initiator && now-k.Created >= session.RekeyOnReceiveAfter
}
