package tunnel

import (
	"sync/atomic"
	"time"

	"culvert/crypto/session"
)

// timers are one peer's deadlines (WireGuard paper §6.1 to §6.5), a state machine without a clock:
//
//	deadline      armed by                              disarmed by                     when due
//	retransmit    an initiation sent: 5 s + jitter,     a handshake completed           send another; give up after 90 s
//	              on the native wire 1, 2, 4 s first
//	keepalive     data received: 10 s, if not armed     anything authenticated sent     send a keepalive; again after 10 s
//	                                                                                    if data came meanwhile
//	newHandshake  data sent: 15 s, if not armed         anything authenticated          the peer is silent: begin a
//	                                                    received                        new handshake
//	erase         a session derived, or handshakes      (re-armed by each session)      erase all keys
//	              given up: 540 s
//	persistent    anything authenticated, either way,   interval set to 0               send a keepalive
//	              or a keepalive due
//
// The datapath arms and disarms them on its way, so they are atomics. An arming verb returns the new deadline, or 0 when
// it changed nothing; the caller sees to it that the control loop looks at the peer by then (peer.schedule).
type timers struct {
	retransmit   atomic.Int64
	keepalive    atomic.Int64
	newHandshake atomic.Int64
	erase        atomic.Int64
	persistent   atomic.Int64

	again    atomic.Bool  // data came while keepalive was armed
	interval atomic.Int64 // persistent keepalive, 0: off
	attempts atomic.Int32 // initiations sent without an answer
	giveUpAt atomic.Int64 // end of this round of initiations
}

// due says what is to be done now.
type due struct {
	retry        bool // send another initiation of the same round
	giveUp       bool // drop what waits for the handshake
	keepalive    bool // send a keepalive
	again        bool // then arm another (timers.keepaliveAgain)
	newHandshake bool // begin a new round of initiations
	erase        bool // erase all keys
}

// arm sets a deadline that is not armed yet.
func arm(d *atomic.Int64, at time.Duration) time.Duration {
	if d.Load() == 0 && d.CompareAndSwap(0, int64(at)) {
		return at
	}
	return 0
}

// disarm clears a deadline; it writes only where there is something to clear, for the sake of the cache line.
func disarm(d *atomic.Int64) {
	if d.Load() != 0 {
		d.Store(0)
	}
}

// dataSent notes that data (not a keepalive) was sent.
func (t *timers) dataSent(now time.Duration) time.Duration {
	return arm(&t.newHandshake, now+session.NoAnswerTimeout)
}

// dataReceived notes that authenticated data (not a keepalive) came in.
func (t *timers) dataReceived(now time.Duration) time.Duration {
	if at := arm(&t.keepalive, now+session.KeepaliveTimeout); at != 0 {
		return at
	}
	if !t.again.Load() {
		t.again.Store(true)
	}
	return 0
}

// authenticatedSent notes any authenticated message sent: data, keepalive or handshake.
func (t *timers) authenticatedSent() { disarm(&t.keepalive) }

// authenticatedReceived notes any authenticated message received.
func (t *timers) authenticatedReceived() { disarm(&t.newHandshake) }

// traversed notes any authenticated message, either way, and pushes the persistent keepalive out.
func (t *timers) traversed(now time.Duration) time.Duration {
	every := t.interval.Load()
	if every == 0 {
		return 0
	}
	at := int64(now) + every
	t.persistent.Store(at)
	return time.Duration(at)
}

// roundBegun starts the time in which initiations are repeated. Traffic that asks for a handshake begins it anew, so
// only a peer that nobody talks to is given up.
func (t *timers) roundBegun(now time.Duration) {
	t.giveUpAt.Store(int64(now + session.RekeyAttemptTime))
}

// initiationSent arms the repetition after a while, or the end of the round where that comes first.
func (t *timers) initiationSent(now, after time.Duration) time.Duration {
	at := min(now+after, time.Duration(t.giveUpAt.Load()))
	t.retransmit.Store(int64(at))
	return at
}

// initiationDue arms the repetition at a given time, for an initiation that could not be sent yet.
func (t *timers) initiationDue(at time.Duration) time.Duration {
	t.retransmit.Store(int64(at))
	return at
}

// keepaliveAgain arms the keepalive for data that came while the last one was pending.
func (t *timers) keepaliveAgain(now time.Duration) time.Duration {
	return arm(&t.keepalive, now+session.KeepaliveTimeout)
}

// persist arms the persistent keepalive if it is on and not armed: the one that was due may not have been sent, for want of
// a key, an endpoint or a session.
func (t *timers) persist(now time.Duration) {
	if every := t.interval.Load(); every != 0 {
		arm(&t.persistent, now+time.Duration(every))
	}
}

// handshakeCompleted ends the repetition.
func (t *timers) handshakeCompleted() {
	disarm(&t.retransmit)
	t.attempts.Store(0)
}

// sessionDerived sets when keys are erased.
func (t *timers) sessionDerived(now time.Duration) time.Duration {
	at := now + session.EraseAfter
	t.erase.Store(int64(at))
	return at
}

// setInterval changes the persistent keepalive; it reports whether one is due at once: it was turned on, or has another
// interval now, of which the first must not begin after the one before.
func (t *timers) setInterval(every time.Duration) (due bool) {
	old := t.interval.Swap(int64(every))
	if every == 0 {
		disarm(&t.persistent)
	}
	return every != 0 && time.Duration(old) != every
}

// next returns the earliest deadline, or 0.
func (t *timers) next() time.Duration {
	var first int64
	for _, d := range []*atomic.Int64{&t.retransmit, &t.keepalive, &t.newHandshake, &t.erase, &t.persistent} {
		if at := d.Load(); at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return time.Duration(first)
}

// expire disarms what is due at now and says what is to be done.
func (t *timers) expire(now time.Duration) due {
	var do due
	if expired(&t.retransmit, now) {
		if int64(now) >= t.giveUpAt.Load() {
			do.giveUp = true
			disarm(&t.keepalive)
			t.attempts.Store(0)
			arm(&t.erase, now+session.EraseAfter)
		} else {
			do.retry = true
		}
	}
	if expired(&t.keepalive, now) {
		do.keepalive = true
		do.again = t.again.Swap(false)
	}
	if expired(&t.newHandshake, now) {
		do.newHandshake = true
	}
	if expired(&t.erase, now) {
		do.erase = true
	}
	if expired(&t.persistent, now) && t.interval.Load() != 0 {
		do.keepalive = true
	}
	return do
}

func expired(d *atomic.Int64, now time.Duration) bool {
	at := d.Load()
	return at != 0 && at <= int64(now) && d.CompareAndSwap(at, 0)
}

// stop disarms everything: the tunnel goes down or the peer away.
func (t *timers) stop() {
	for _, d := range []*atomic.Int64{&t.retransmit, &t.keepalive, &t.newHandshake, &t.erase, &t.persistent} {
		d.Store(0)
	}
	t.again.Store(false)
	t.attempts.Store(0)
}
