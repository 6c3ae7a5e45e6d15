package latency

import (
	"time"

	"culvert/tunnel/message"
)

const (
	// Interval is the time between two echoes while there is traffic.
	Interval = 5 * time.Second
	// Timeout is how long an answer is waited for. No round-trip time is longer.
	Timeout = 3 * time.Second
	// Retries is how many more follow an echo that goes unanswered, each as soon as the one before has gone unanswered for RetryAfter, or
	// four round-trip times where that is more, but no more than Timeout.
	Retries    = 3
	RetryAfter = time.Second
)

// Meter measures towards one peer. The zero value is silent until [Meter.Begin].
type Meter struct {
	begun   bool
	session uint64
	active  time.Duration // traffic was last seen, 0: not since the last echo
	sentAt  time.Duration // of the last echo, 0: none under this session or path
	waiting bool
	id      uint64 // of the last echo
	count   uint64 // of data messages sent before it

	echoes, unanswered uint64
	inARow             int // unanswered since the last answer

	rtt     roundTrip
	towards direction
	from    direction
}

// Begin says that messages are sent under another session from now on. An echo is due at once. For the session there is
// already, it does nothing. A session is named by a number of the caller's choice that is never used again.
func (m *Meter) Begin(session uint64, now time.Duration) {
	if m.begun && m.session == session {
		return
	}
	m.begun, m.session = true, session
	m.restart(now)
}

// Moved says that the path is another: what is known of round-trip times is forgotten, and an echo is due at once.
func (m *Meter) Moved(now time.Duration) {
	m.rtt = roundTrip{}
	if m.begun {
		m.restart(now)
	}
}

func (m *Meter) restart(now time.Duration) {
	m.waiting, m.sentAt, m.active, m.inARow = false, 0, now, 0
}

// Pause makes the meter silent until the next Begin, because there is no session.
func (m *Meter) Pause() { m.begun, m.waiting = false, false }

// Active says that there was traffic, in either direction, other than the messages of this meter. Once per visit is enough.
func (m *Meter) Active(now time.Duration) { m.active = now }

// Next returns the echo to be sent now under the session of the last Begin; ok is false if none is due. sent is the
// count of data messages sent under that session so far. To be called at [Meter.Deadline] and after any other call that
// takes now.
func (m *Meter) Next(sent uint64, now time.Duration) (echo message.Echo, ok bool) {
	if m.waiting && now >= m.sentAt+m.patience() {
		m.waiting = false
		m.unanswered++
		m.inARow++
	}
	if at := m.due(); at == 0 || now < at {
		return message.Echo{}, false
	}
	m.id++
	m.echoes++
	m.waiting, m.sentAt, m.count, m.active = true, now, sent, 0
	return message.Echo{ID: m.id, Sent: sent}, true
}

// patience is how long the last echo's answer is waited for.
func (m *Meter) patience() time.Duration {
	if m.inARow == 0 {
		return Timeout
	}
	return min(max(RetryAfter, 4*m.rtt.smoothed), Timeout)
}

// due returns when the next echo goes, 0: not as things stand.
func (m *Meter) due() time.Duration {
	switch {
	case !m.begun || m.waiting:
		return 0
	case 0 < m.inARow && m.inARow <= Retries:
		return m.sentAt
	case m.active == 0:
		return 0
	case m.sentAt == 0:
		return m.active
	}
	return m.sentAt + Interval
}

// Deadline returns when [Meter.Next] is to be called again, in the past if at once; 0 if not before another call.
func (m *Meter) Deadline() time.Duration {
	if m.waiting {
		return m.sentAt + m.patience()
	}
	return m.due()
}

// Answered gives the meter a reply received under session. One that answers nothing outstanding is ignored.
func (m *Meter) Answered(session uint64, reply message.Reply, now time.Duration) {
	if !m.begun || !m.waiting || session != m.session || reply.ID != m.id {
		return
	}
	elapsed := now - m.sentAt
	if elapsed < 0 || elapsed >= Timeout {
		return // Next counts it as lost
	}
	m.waiting, m.inARow = false, 0
	m.rtt.sample(elapsed, now)
	m.towards.sample(session, m.count, reply.Received, now)
}

// Heard gives the meter an echo of the peer's, received under session, with the count of data messages authenticated under that
// session so far: the one to be put into the reply.
func (m *Meter) Heard(session uint64, echo message.Echo, received uint64, now time.Duration) {
	m.from.sample(session, echo.Sent, received, now)
}

// RTT returns the round-trip time, smoothed, with its mean variation (both RFC 6298 §2) and the least of the last one
// to two minutes of measuring; ok is false if none was measured on this path.
func (m *Meter) RTT() (smoothed, variation, least time.Duration, ok bool) {
	return m.rtt.smoothed, m.rtt.variation, m.rtt.least(), m.rtt.known
}

// Last returns the round-trip time measured last, 0: none on this path.
func (m *Meter) Last() time.Duration { return m.rtt.last }

// Echoes returns how many echoes were sent and how many of them were not answered in time, in all.
func (m *Meter) Echoes() (sent, unanswered uint64) { return m.echoes, m.unanswered }

// Silent reports whether the last echo and all that followed for want of its answer went unanswered.
func (m *Meter) Silent() bool { return m.inARow > Retries }

// Loss is what a direction of the data path loses.
type Loss struct {
	Fraction   float64 // 0 to 1, weighted by age: what is a minute old counts 1/e
	Sent, Lost uint64  // data messages in all, as far as measured
}

// Loss returns the loss towards the peer; ok is false if it was not measured yet.
func (m *Meter) Loss() (loss Loss, ok bool) { return m.towards.loss() }

// LossFrom returns the loss of what the peer sends, by its own account of how much that is.
func (m *Meter) LossFrom() (loss Loss, ok bool) { return m.from.loss() }
