package exchange

import (
	"errors"
	"slices"
	"time"

	"culvert/tunnel/message"
)

const (
	// MaxMessages and MaxBytes (encoded) bound what a sender holds, not counting the first message of a session.
	MaxMessages = 16
	MaxBytes    = 64 << 10

	waitUnknown = time.Second            // until sent again, no round-trip time known (RFC 6298 §2.1)
	waitMin     = 200 * time.Millisecond // otherwise three round-trip times, at least this
	waitMax     = 5 * time.Second
)

// ErrFull: as much waits to be acknowledged as may.
var ErrFull = errors.New("exchange: too many messages wait")

// Sender is the sending half. The zero value holds nothing and is silent until [Sender.Restart].
type Sender struct {
	queue []entry // the first is outstanding, or the next to be sent
	bytes int     // of all but the first message of a session
	rtt   time.Duration

	begun   bool // session is set
	running bool
	session uint64
	acked   uint64 // the last number acknowledged under the session
	sent    bool   // queue[0] was, under the session
	at      time.Duration
	wait    time.Duration
}

type entry struct {
	message message.Message
	size    int
	first   bool // of a session, given to Restart
}

// SetRTT tells the round-trip time, 0 for unknown. It counts from the next message sent.
func (s *Sender) SetRTT(rtt time.Duration) { s.rtt = rtt }

// Queue adds m, which must be numbered, behind what waits. m is the sender's until it is acknowledged: what it refers to
// must not be changed. Errors are [ErrFull] and those of [message.Encode]. [Sender.Next] may have it at once.
func (s *Sender) Queue(m message.Message, now time.Duration) error {
	size, err := encodedSize(m)
	if err != nil {
		return err
	}
	count := len(s.queue)
	if count > 0 && s.queue[0].first {
		count--
	}
	if count >= MaxMessages || s.bytes+size > MaxBytes {
		return ErrFull
	}
	if len(s.queue) == 0 {
		s.at = now
	}
	s.queue = append(s.queue, entry{message: m, size: size})
	s.bytes += size
	return nil
}

func encodedSize(m message.Message) (int, error) {
	encoded, err := message.Encode(nil, 1<<63, m)
	return len(encoded), err
}

// Restart goes over to another session: from now on messages are to be sent under it, numbered from 1, beginning with
// first if that is not nil and going on with what was not acknowledged so far, in order. A first message of an earlier session
// that was not acknowledged is dropped. For the session there is already, it only ends a pause. Errors are those of
// [message.Encode] for first, which is then left out.
func (s *Sender) Restart(session uint64, first message.Message, now time.Duration) error {
	if s.begun && s.session == session {
		s.running = true
		return nil
	}
	if len(s.queue) > 0 && s.queue[0].first {
		s.drop()
	}
	s.begun, s.running = true, true
	s.session, s.acked, s.sent, s.at = session, 0, false, now
	if first == nil {
		return nil
	}
	if _, err := encodedSize(first); err != nil {
		return err
	}
	s.queue = slices.Insert(s.queue, 0, entry{message: first, first: true})
	return nil
}

// Pause makes the sender silent until the next Restart, because there is no session. It keeps what waits.
func (s *Sender) Pause() { s.running = false }

// Waiting returns how many messages are not acknowledged yet.
func (s *Sender) Waiting() int { return len(s.queue) }

// Next returns the message to be sent now, for the first time or again, under the session of the last Restart; ok is false if
// none is due. To be called at [Sender.Deadline] and after any other call that takes now.
func (s *Sender) Next(now time.Duration) (number uint64, m message.Message, ok bool) {
	if !s.running || len(s.queue) == 0 || now < s.at {
		return 0, nil, false
	}
	if s.sent {
		s.wait = min(2*s.wait, waitMax)
	} else {
		s.sent, s.wait = true, waitUnknown
		if s.rtt > 0 {
			s.wait = min(max(3*min(s.rtt, waitMax), waitMin), waitMax)
		}
	}
	s.at = now + s.wait
	return s.acked + 1, s.queue[0].message, true
}

// Acked says that the peer acknowledged number, in a [message.Ack] received under session. Only the outstanding message of
// the session there is can be acknowledged: others are ignored.
func (s *Sender) Acked(session, number uint64, now time.Duration) {
	if !s.begun || session != s.session || !s.sent || number != s.acked+1 {
		return
	}
	s.acked, s.sent, s.at = number, false, now
	s.drop()
}

func (s *Sender) drop() {
	s.bytes -= s.queue[0].size
	s.queue = slices.Delete(s.queue, 0, 1)
}

// Deadline returns when [Sender.Next] has something, in the past if at once; 0 if not before another call.
func (s *Sender) Deadline() time.Duration {
	if !s.running || len(s.queue) == 0 {
		return 0
	}
	return s.at
}
