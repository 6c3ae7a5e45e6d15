package fallback

import "time"

// A peer's states, and what leaves them:
//
//	state      sent to     left by
//	direct     datagrams   a second initiation in a row unanswered (about 3 s after the first), and redial over  -> dialling
//	dialling   datagrams   the stream is open                                                                    -> trying
//	                       it could not be opened: redial doubled (1 s up to 60 s)                               -> direct
//	                       an answer by datagrams: dialling is given up                                          -> direct
//	trying     the stream  an answer                                                                             -> stream
//	                       none for 8 s, or the stream ended: redial doubled                                     -> direct
//	stream     the stream  a probe by datagrams was answered                                                     -> direct
//	                       a third initiation in a row unanswered (about 7 s after the first)                    -> direct
//	                       the stream ended: at once                                                             -> dialling
//
// In the state direct a handshake is begun at once, not more often than every 10 s, where the peer has answered none of several echoes: it
// may be heard, and not hear this end.
//
// In the state stream probes go by datagrams, at most three a second apart, every 30 s; at once where routes or addresses
// have changed, or the peer was heard by datagrams. Where datagrams that worked ceased to within two minutes, the
// interval is twice as long as the last one, up to 8 minutes. Something goes over the stream every 25 s, so that it stays open:
// the far end cannot open another.
const (
	failedDirect   = 2 // unanswered initiations before the stream is dialled
	failedOnStream = 3 // before it is given up
	tryingTime     = 8 * time.Second
	firstRedial    = time.Second
	lastRedial     = time.Minute
	steadyTime     = time.Minute // over which a stream must have lasted for redial to begin anew
	probeEvery     = 30 * time.Second
	probeAtMost    = 8 * time.Minute
	probeAgain     = time.Second
	probesInARow   = 3
	hintEvery      = 5 * time.Second
	relapseTime    = 2 * time.Minute
	keepEvery      = 25 * time.Second
	doubtEvery     = 10 * time.Second
)

// State is where a peer is.
type State uint8

const (
	Direct State = iota
	Dialling
	Trying
	Stream
)

// String is for people.
func (s State) String() string { return [...]string{"direct", "dialling", "trying", "stream"}[s] }

// Action is what is to be done.
type Action uint8

const (
	None   Action = iota
	Dial          // open the stream, and report by Opened or Failed
	Cancel        // give up opening it
	Leave         // close the stream, and send by datagrams again
	Probe         // send a probe by datagrams
	Keep          // send something over the stream
)

// Machine is one peer's. The zero value is a peer in the state direct.
type Machine struct {
	state      State
	since      time.Duration // when the state was entered
	unanswered int           // initiations in a row, in this state
	due        Action        // Dial, Cancel or Leave, until it has been handed out

	redialAt time.Duration // not before, 0: at any time
	redial   time.Duration // the next pause, 0: firstRedial

	returned   time.Duration // when datagrams last worked again, 0: never
	every      time.Duration // between probes
	probeAt    time.Duration
	probesLeft int // of those in a row
	id         uint64
	firstID    uint64 // of those in flight
	hintAt     time.Duration
	keepAt     time.Duration
	doubtAt    time.Duration // not before, 0: at any time
}

// State returns the state.
func (m *Machine) State() State { return m.state }

func (m *Machine) enter(s State, now time.Duration) { m.state, m.since, m.unanswered = s, now, 0 }

// Unanswered says that an initiation went unanswered, and another is being sent.
func (m *Machine) Unanswered(now time.Duration) {
	m.unanswered++
	switch {
	case m.state == Direct && m.unanswered >= failedDirect && now >= m.redialAt:
		m.dial(now)
	case m.state == Stream && m.unanswered >= failedOnStream:
		m.back(now)
		m.due = Leave
	}
}

// Doubt says that what is answered at once went unanswered. It reports whether a handshake is to be begun, to see whether datagrams get through.
func (m *Machine) Doubt(now time.Duration) bool {
	if m.state != Direct || now < m.doubtAt {
		return false
	}
	m.doubtAt = now + doubtEvery
	return true
}

// Answered says that a handshake was completed.
func (m *Machine) Answered(now time.Duration) {
	m.unanswered = 0
	switch m.state {
	case Dialling:
		m.enter(Direct, now)
		if m.due == Dial { // nobody has begun
			m.due = None
		} else {
			m.due = Cancel
		}
	case Trying:
		m.enter(Stream, now)
		m.every = max(m.every, probeEvery)
		if m.returned != 0 && now-m.returned < relapseTime {
			m.every = min(2*m.every, probeAtMost)
		} else {
			m.every = probeEvery
		}
		m.probeAt, m.probesLeft = now+m.every, probesInARow
		m.keepAt = now + keepEvery
	}
}

// dial begins to open a stream.
func (m *Machine) dial(now time.Duration) {
	m.enter(Dialling, now)
	m.due = Dial
}

// back goes back to datagrams, and says when a stream may be dialled again.
func (m *Machine) back(now time.Duration) {
	if m.state == Stream && now-m.since >= steadyTime {
		m.redial = 0
	}
	m.redial = min(max(2*m.redial, firstRedial), lastRedial)
	m.redialAt = now + m.redial
	m.enter(Direct, now)
}

// Opened says that the stream that was dialled is open, and that initiations go over it.
func (m *Machine) Opened(now time.Duration) (wanted bool) {
	if m.state != Dialling {
		return false
	}
	m.enter(Trying, now)
	return true
}

// Failed says that the stream could not be opened.
func (m *Machine) Failed(now time.Duration) {
	if m.state == Dialling {
		m.back(now)
	}
}

// Ended says that the stream has ended, or is where the peer is sent to no more, though it was not left.
func (m *Machine) Ended(now time.Duration) {
	switch m.state {
	case Trying:
		m.back(now)
	case Stream: // datagrams did not work a moment ago
		m.back(now)
		m.redialAt = 0
		if m.redial == firstRedial {
			m.dial(now)
		} else {
			m.redialAt = now + m.redial
		}
	}
}

// Hint says that datagrams may work now: the peer was heard by one, or its address is another.
func (m *Machine) Hint(now time.Duration) {
	if m.state == Stream && now >= m.hintAt {
		m.hintAt = now + hintEvery
		m.probeAt, m.probesLeft = now, probesInARow
	}
}

// Moved says that routes or addresses of this host have changed: what is known of the way to the peer is known no more.
func (m *Machine) Moved(now time.Duration) {
	m.redialAt, m.redial, m.returned = 0, 0, 0
	m.every = probeEvery
	m.Hint(now)
}

// ProbeAnswered says that the probe of that id was answered. It reports whether the peer is to be sent datagrams from now on; the
// stream is left by itself.
func (m *Machine) ProbeAnswered(id uint64, now time.Duration) bool {
	if m.state != Stream || id < m.firstID || id > m.id {
		return false
	}
	m.enter(Direct, now)
	m.returned = now
	m.redialAt, m.redial = 0, 0
	m.due = None
	return true
}

// Reset goes back to the state direct, with nothing to be done.
func (m *Machine) Reset(now time.Duration) {
	*m = Machine{id: m.id, firstID: m.id + 1}
	m.enter(Direct, now)
}

// Next hands out what is to be done now; it is called until that is None, at [Machine.Deadline] and after any other call. A
// probe has an id.
func (m *Machine) Next(now time.Duration) (do Action, id uint64) {
	if m.state == Trying && now >= m.since+tryingTime {
		m.back(now)
		m.due = Leave
	}
	if do, m.due = m.due, None; do != None || m.state != Stream {
		return do, 0
	}
	if now >= m.keepAt {
		m.keepAt = now + keepEvery
		return Keep, 0
	}
	if now < m.probeAt {
		return None, 0
	}
	m.id++
	if m.probesLeft == probesInARow {
		m.firstID = m.id
	}
	if m.probesLeft--; m.probesLeft > 0 {
		m.probeAt = now + probeAgain
	} else {
		m.probeAt, m.probesLeft = now+m.every, probesInARow
	}
	return Probe, m.id
}

// Deadline returns when [Machine.Next] is to be called again, in the past if at once; 0 if not before another call.
func (m *Machine) Deadline() time.Duration {
	switch {
	case m.due != None:
		return m.since
	case m.state == Trying:
		return m.since + tryingTime
	case m.state == Stream:
		return min(m.keepAt, m.probeAt)
	}
	return 0
}
