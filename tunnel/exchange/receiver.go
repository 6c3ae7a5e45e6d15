package exchange

import (
	"slices"
	"time"
)

const (
	// sessions are remembered: those a peer has at once, and one more.
	sessions = 4

	// lateMax is how much later than the messages after it a message can be to arrive and still be known for late.
	lateMax = 10 * time.Second
)

// Receiver is the receiving half. The zero value knows no session.
type Receiver struct {
	known    [sessions]received // the oldest first
	active   uint64             // the session of the last message acted on
	hasOne   bool               // active is set
	accepted time.Duration      // when
}

type received struct {
	session uint64
	last    uint64 // number acted on
	state   state
}

type state uint8

const (
	unused state = iota // the zero value
	open
	left // by the peer, for another
)

// Restart makes a session known, as soon as messages may be received under it. It may come before or after the peer's
// own. The oldest is forgotten for it. For a session that is known it does nothing.
func (r *Receiver) Restart(session uint64) {
	if r.find(session) >= 0 {
		return
	}
	copy(r.known[:], r.known[1:])
	r.known[sessions-1] = received{session: session, state: open}
}

// find returns the place of a session that is known, -1 for others.
func (r *Receiver) find(session uint64) int {
	return slices.IndexFunc(r.known[:], func(k received) bool { return k.state != unused && k.session == session })
}

// Accept is asked about each numbered message received, with its session: whether to act on it, and whether to acknowledge
// it (under the same session, after acting). Messages of a session that is not known, or which the peer has left, get
// neither.
//
// The peer has left a session when a message of another has been accepted since. A late message of the one before must
// not be acted on any more: it has been sent again under the new one, and what came after it there may have been acted on
// already. A session of which nothing has been accepted yet takes over if it is newer than the active one. If it is older,
// then either its message is late, or both ends made a session at once and order them differently: it takes over only when
// the active one has been silent for longer than a message can be late. The peer sends again until then.
func (r *Receiver) Accept(session, number uint64, now time.Duration) (act, ack bool) {
	i := r.find(session)
	if i < 0 || number == 0 || r.known[i].state != open {
		return false, false
	}
	k := &r.known[i]
	if number == k.last {
		return false, true
	}
	if number != k.last+1 {
		return false, false
	}
	if r.hasOne && session != r.active {
		if j := r.find(r.active); j >= 0 {
			if j > i && now-r.accepted < lateMax {
				return false, false
			}
			r.known[j].state = left
		}
	}
	r.active, r.hasOne, r.accepted = session, true, now
	k.last = number
	return true, true
}
