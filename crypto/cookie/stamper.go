package cookie

import (
	"errors"
	"time"

	"culvert/crypto"
	"culvert/crypto/internal/hidden"
	"culvert/crypto/noise"
)

// ErrCookie refuses a cookie reply that is malformed, does not authenticate, or answers nothing that was sent.
var ErrCookie = errors.New("cookie: not a cookie for the last message sent")

// Stamper fills in the macs of handshake messages to one peer, and takes the peer's cookies. It is not safe for
// concurrent use.
type Stamper struct {
	hidden.Value
	peer crypto.PublicKey // the keys of mac1 and of cookie replies follow from it, and are worked out when they are needed

	last     mac    // mac1 of the last message
	index    uint32 // sender index of the last message
	awaiting bool   // last was sent, and no cookie for it has come

	cookie mac
	since  time.Duration
	held   bool
}

// NewStamper makes the stamper for the owner of the public key peer.
func NewStamper(peer crypto.PublicKey) *Stamper {
	return &Stamper{peer: peer}
}

// Stamp fills in mac1 of an initiation or response of either wire, and mac2 with it when a cookie younger than [Lifetime] is held; otherwise mac2
// is zero. It panics on anything else.
func (s *Stamper) Stamp(msg []byte, now time.Duration) {
	if !stamped(msg) {
		panic("cookie: Stamp of a message that carries no macs")
	}
	key := labelled(labelMAC1, s.peer)
	s.last = keyed(key[:], coveredByMAC1(msg))
	s.index = noise.SenderIndex(msg)
	s.awaiting = true
	copy(mac1Of(msg), s.last[:])

	clear(mac2Of(msg))
	if s.held && now-s.since >= Lifetime {
		s.forget()
	}
	if s.held {
		m := keyed(s.cookie[:], coveredByMAC2(msg))
		copy(mac2Of(msg), m[:])
	}
}

// StampKEM fills in mac1 of a KEM part. Nothing else changes: a cookie reply answers the initiation before it. It panics on anything else.
func (s *Stamper) StampKEM(msg []byte) {
	covered, mac1, ok := splitMAC1(msg)
	if !ok || stamped(msg) {
		panic("cookie: StampKEM of a message that is no KEM part")
	}
	key := labelled(labelMAC1, s.peer)
	m := keyed(key[:], covered)
	copy(mac1, m[:])
}

// ConsumeReply takes the cookie out of a cookie reply (WireGuard paper §5.4.7), to be used from time now on. It must be addressed
// to the sender index of the last message and sealed with its mac1. Only one reply is taken per message sent, so that a
// replayed one does not prolong a cookie's life. On error, which is [ErrCookie], nothing changes.
func (s *Stamper) ConsumeReply(reply []byte, now time.Duration) error {
	if typ, ok := noise.MessageType(reply); !ok || typ != noise.TypeCookieReply || !s.awaiting || noise.ReceiverIndex(reply) != s.index {
		return ErrCookie
	}
	var cookie mac
	if _, err := sealer(s.peer).Open(cookie[:0], reply[replyNonce:replyCookie], reply[replyCookie:], s.last[:]); err != nil {
		return ErrCookie
	}
	s.cookie, s.since, s.held = cookie, now, true
	s.awaiting = false
	return nil
}

// Erase forgets the cookie held and the message awaiting one.
func (s *Stamper) Erase() {
	s.forget()
	clear(s.last[:])
	s.awaiting = false
}

func (s *Stamper) forget() {
	clear(s.cookie[:])
	s.held = false
}
