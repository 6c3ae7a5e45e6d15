package exchange

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"culvert/tunnel/message"
)

// end is one end of the model. Each session has one name at both.
type end struct {
	sender   Sender
	receiver Receiver
	queued   int // pushes accepted by the sender, numbered from 0
	acted    []action
}

type action struct {
	session uint64
	content int // of a push, -1 for a hello
}

// datagram is a numbered message or an acknowledgement on its way.
type datagram struct {
	at      time.Duration
	to      int
	session uint64
	number  uint64
	message message.Message // nil: an acknowledgement
}

// model is two ends over a path that loses, delays and repeats, with sessions that come to either end at different times.
type model struct {
	t        testing.TB
	random   *rand.Rand
	now      time.Duration
	ends     [2]end
	way      []datagram
	loss     float64
	sessions uint64             // made so far
	used     [2]map[uint64]bool // sessions adopted, by end
}

func (m *model) send(d datagram) {
	for range 1 + m.random.IntN(2) {
		if m.random.Float64() >= m.loss {
			d.at = m.now + time.Duration(m.random.IntN(int(3*time.Second)))
			m.way = append(m.way, d)
		}
	}
}

func (m *model) pump() {
	for i := range m.ends {
		s := &m.ends[i].sender
		for {
			number, content, ok := s.Next(m.now)
			if !ok {
				break
			}
			if _, err := message.Encode(nil, number, content); err != nil {
				m.t.Fatal(err)
			}
			m.send(datagram{to: 1 - i, session: s.session, number: number, message: content})
		}
		if d := s.Deadline(); d != 0 && d <= m.now {
			m.t.Fatal("nothing is due, and yet it is")
		}
		if s.Waiting() > MaxMessages+1 || s.bytes > MaxBytes || len(s.queue) > MaxMessages+1 {
			m.t.Fatalf("%d messages of %d bytes wait", s.Waiting(), s.bytes)
		}
	}
}

func (m *model) deliver(d datagram) {
	e := &m.ends[d.to]
	if d.message == nil {
		e.sender.Acked(d.session, d.number, m.now)
		return
	}
	act, ack := e.receiver.Accept(d.session, d.number, m.now)
	if act {
		a := action{d.session, -1}
		if p, ok := d.message.(message.Push); ok {
			a.content, _ = strconv.Atoi(p.Subject)
		}
		e.acted = append(e.acted, a)
	}
	if ack {
		m.send(datagram{to: 1 - d.to, session: d.session, number: d.number})
	}
}

// run lets time pass.
func (m *model) run(d time.Duration) {
	until := m.now + d
	for m.pump(); ; m.pump() {
		next := until
		for i := range m.ends {
			if at := m.ends[i].sender.Deadline(); at != 0 {
				next = min(next, max(at, m.now))
			}
		}
		slices.SortStableFunc(m.way, func(a, b datagram) int { return cmp.Compare(a.at, b.at) })
		if len(m.way) > 0 {
			next = min(next, m.way[0].at)
		}
		m.now = next
		if m.now >= until {
			return
		}
		for len(m.way) > 0 && m.way[0].at <= m.now {
			d := m.way[0]
			m.way = m.way[1:]
			m.deliver(d)
		}
	}
}

// restart makes a session, known to both receivers and, at once or later, used by the senders.
func (m *model) restart() {
	m.sessions++
	for i := range m.ends {
		m.ends[i].receiver.Restart(m.sessions)
	}
}

// adopt makes one end send under the newest session, or under one just before it that it has not used yet: ends that make
// sessions at once go over to them in different orders.
func (m *model) adopt(i int, back uint64) {
	session := m.sessions - min(m.sessions, back)
	if session == 0 || m.used[i][session] {
		return
	}
	m.used[i][session] = true
	if err := m.ends[i].sender.Restart(session, hello, m.now); err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) queue(i int) {
	e := &m.ends[i]
	if e.sender.Queue(push(e.queued), m.now) == nil {
		e.queued++
	}
}

// check looks at what was acted on: per session in order, without gaps and without repetition; over all, a session goes on
// where the one before had got to at the latest; and at the end, everything.
func (m *model) check() {
	for i := range m.ends {
		e := &m.ends[i]
		reached := 0                                           // pushes acted on so far
		seen, last := map[uint64]bool{}, action{^uint64(0), 0} // sessions
		for _, a := range e.acted {
			if a.session != last.session {
				if seen[a.session] {
					m.t.Fatalf("end %d: session %d comes back: %v", i, a.session, e.acted)
				}
				seen[a.session] = true
				if a.content != -1 {
					m.t.Fatalf("end %d: session %d begins with %d", i, a.session, a.content)
				}
			} else {
				if a.content == -1 {
					m.t.Fatalf("end %d: session %d says hello twice: %v", i, a.session, e.acted)
				}
				if last.content != -1 && a.content != last.content+1 || a.content > reached {
					m.t.Fatalf("end %d: %d after %d, %d reached: %v", i, a.content, last.content, reached, e.acted)
				}
				reached = max(reached, a.content+1)
			}
			last = a
		}
		if want := m.ends[1-i].queued; reached != want {
			m.t.Fatalf("end %d: %d of %d messages arrived, %d wait: %v", i, reached, want, m.ends[1-i].sender.Waiting(), e.acted)
		}
	}
}

func newModel(t testing.TB, seed uint64) *model {
	return &model{t: t, random: rand.New(rand.NewPCG(seed, 1)), now: time.Second, loss: 0.3,
		used: [2]map[uint64]bool{{}, {}}}
}

// step does one thing of a script.
func (m *model) step(op, v byte) {
	end := int(v % 2)
	switch op % 8 {
	case 0, 1, 2:
		m.queue(end)
	case 3:
		m.restart()
	case 4:
		m.adopt(end, uint64(v/2%3))
	case 5:
		m.run(time.Duration(v) * 10 * time.Millisecond)
	case 6:
		m.run(time.Duration(v) * 100 * time.Millisecond)
	case 7:
		switch v % 4 {
		case 0:
			m.ends[0].sender.Pause()
		case 1:
			m.ends[1].sender.Pause()
		default:
			m.loss = float64(v) / 300
		}
	}
}

// finish brings both ends to one session and waits until everything has had its time.
func (m *model) finish() {
	m.loss = 0.3
	m.restart()
	m.adopt(0, 0)
	m.adopt(1, 0)
	m.run(20 * time.Minute)
	m.check()
}

func TestModel(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed)
			for range 20 + m.random.IntN(150) {
				m.step(byte(m.random.Uint32()), byte(m.random.Uint32()))
			}
			m.finish()
		})
	}
}

func FuzzModel(f *testing.F) {
	f.Add(uint64(1), []byte{3, 0, 4, 0, 4, 1, 0, 0, 0, 1, 6, 50, 3, 0, 4, 0, 0, 0, 5, 100, 4, 1, 6, 255})
	f.Add(uint64(2), []byte{0, 0, 0, 1, 3, 0, 4, 0, 5, 90, 3, 0, 4, 0, 5, 20, 3, 0, 3, 0, 3, 0, 3, 0, 4, 0, 7, 0, 6, 90})
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		m := newModel(t, seed)
		for range 200 {
			if len(script) < 2 {
				break
			}
			m.step(script[0], script[1])
			script = script[2:]
		}
		m.finish()
	})
}
