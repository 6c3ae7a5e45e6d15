package latency

import (
	"math"
	"testing"
	"time"

	"culvert/tunnel/message"
)

const ms = time.Millisecond

// echo asserts that an echo is due and returns it.
func echo(t testing.TB, m *Meter, sent uint64, now time.Duration) message.Echo {
	t.Helper()
	e, ok := m.Next(sent, now)
	if !ok || e.Sent != sent {
		t.Fatalf("at %v: %v %v, want an echo", now, e, ok)
	}
	return e
}

func silent(t testing.TB, m *Meter, now time.Duration) {
	t.Helper()
	if e, ok := m.Next(0, now); ok {
		t.Fatalf("at %v: %v, want nothing", now, e)
	}
}

func deadline(t testing.TB, m *Meter, want time.Duration) {
	t.Helper()
	if got := m.Deadline(); got != want {
		t.Fatalf("deadline %v, want %v", got, want)
	}
}

func TestWhenEchoesGo(t *testing.T) {
	var m Meter
	m.Active(1)
	silent(t, &m, 1)
	deadline(t, &m, 0)

	m.Begin(1, time.Second)
	deadline(t, &m, time.Second)
	e := echo(t, &m, 0, time.Second) // at once, with or without traffic
	silent(t, &m, time.Second)
	deadline(t, &m, 4*time.Second)
	m.Answered(1, message.Reply{ID: e.ID}, time.Second+20*ms)
	deadline(t, &m, 0) // no traffic since
	silent(t, &m, time.Hour)

	m.Active(time.Hour)
	deadline(t, &m, 6*time.Second) // long ago, so at once
	e = echo(t, &m, 0, time.Hour)
	m.Active(time.Hour + ms)
	m.Answered(1, message.Reply{ID: e.ID}, time.Hour+20*ms)
	deadline(t, &m, time.Hour+Interval)
	silent(t, &m, time.Hour+Interval-1)
	echo(t, &m, 0, time.Hour+Interval)

	// No answer.
	at := time.Hour + Interval
	silent(t, &m, at+Timeout-1)
	if _, lost := m.Echoes(); lost != 0 {
		t.Error("lost too early")
	}
	for range Retries { // with or without traffic
		at = m.Deadline()
		echo(t, &m, 0, at)
		deadline(t, &m, at+RetryAfter)
		if m.Silent() {
			t.Error("silent too early")
		}
	}
	silent(t, &m, at+RetryAfter)
	if sent, lost := m.Echoes(); sent != 6 || lost != 4 || !m.Silent() {
		t.Errorf("%d echoes, %d lost, silent %v", sent, lost, m.Silent())
	}
	deadline(t, &m, 0)
	m.Active(at + Timeout)
	deadline(t, &m, at+Interval)
	e = echo(t, &m, 0, at+Interval)
	at += Interval
	deadline(t, &m, at+RetryAfter)
	m.Answered(1, message.Reply{ID: e.ID}, at+20*ms)
	if m.Silent() {
		t.Error("silent after an answer")
	}
	m.Active(at + ms)
	deadline(t, &m, at+Interval)

	m.Begin(1, at+Timeout) // the same
	deadline(t, &m, at+Interval)
	m.Begin(2, at+Timeout)
	echo(t, &m, 0, at+Timeout)
	m.Pause()
	m.Active(at + time.Hour)
	deadline(t, &m, 0)
	silent(t, &m, at+time.Hour)
	m.Begin(3, at+time.Hour)
	echo(t, &m, 0, at+time.Hour)
	m.Moved(at + time.Hour + ms)
	echo(t, &m, 0, at+time.Hour+ms)
}

func TestRTT(t *testing.T) {
	var m Meter
	m.Begin(1, 1)
	if _, _, _, ok := m.RTT(); ok || m.Last() != 0 {
		t.Error("known before it was measured")
	}
	now := time.Second
	measure := func(rtt time.Duration) {
		m.Active(now)
		e := echo(t, &m, 0, now)
		m.Answered(1, message.Reply{ID: e.ID}, now+rtt)
		now += Interval
	}
	check := func(smoothed, variation, least time.Duration) {
		t.Helper()
		if s, v, l, ok := m.RTT(); s != smoothed || v != variation || l != least || !ok {
			t.Errorf("smoothed %v variation %v least %v, want %v %v %v", s, v, l, smoothed, variation, least)
		}
	}
	measure(80 * ms) // RFC 6298 (2.2)
	check(80*ms, 40*ms, 80*ms)
	measure(160 * ms) // (2.3): variation 3/4*40+1/4*80, smoothed 7/8*80+1/8*160
	check(90*ms, 50*ms, 80*ms)
	measure(50 * ms)
	check(85*ms, 47500*time.Microsecond, 50*ms)
	if m.Last() != 50*ms {
		t.Error(m.Last())
	}
	// The least is forgotten after one to two minutes.
	for range 11 {
		measure(100 * ms)
	}
	if _, _, least, _ := m.RTT(); least != 50*ms {
		t.Errorf("least %v", least)
	}
	for range 12 {
		measure(100 * ms)
	}
	if _, _, least, _ := m.RTT(); least != 100*ms {
		t.Errorf("least %v", least)
	}
	now += time.Hour
	measure(200 * ms)
	if _, _, least, _ := m.RTT(); least != 200*ms {
		t.Errorf("least %v after an hour", least)
	}
	m.Moved(now)
	if _, _, _, ok := m.RTT(); ok {
		t.Error("of the path before")
	}
}

func TestForeignReplies(t *testing.T) {
	var m Meter
	m.Answered(0, message.Reply{}, 1)
	m.Begin(5, 1)
	m.Answered(5, message.Reply{}, 1)
	e := echo(t, &m, 10, time.Second)
	m.Answered(4, message.Reply{ID: e.ID}, time.Second+ms)      // another session
	m.Answered(5, message.Reply{ID: e.ID + 1}, time.Second+ms)  // another echo
	m.Answered(5, message.Reply{ID: e.ID}, time.Second+Timeout) // too late, before Next said so
	if _, _, _, ok := m.RTT(); ok {
		t.Fatal("measured")
	}
	next := echo(t, &m, 10, time.Second+Timeout) // the first of the retries
	m.Answered(5, message.Reply{ID: e.ID}, time.Second+Timeout)
	if _, _, _, ok := m.RTT(); ok {
		t.Fatal("measured by the one before")
	}
	m.Answered(5, message.Reply{ID: next.ID}, time.Second+Timeout)
	m.Active(time.Minute)
	e = echo(t, &m, 10, time.Minute)
	m.Answered(5, message.Reply{ID: e.ID}, time.Minute) // in no time at all
	m.Answered(5, message.Reply{ID: e.ID}, time.Minute+time.Second)
	if s, _, _, ok := m.RTT(); !ok || s != 1 {
		t.Errorf("%v %v", s, ok)
	}
	if sent, lost := m.Echoes(); sent != 3 || lost != 1 {
		t.Errorf("%d echoes, %d lost", sent, lost)
	}
}

// lossy answers an echo each interval: sent and received are what each end counts.
type lossy struct {
	t       testing.TB
	m       Meter
	session uint64
	now     time.Duration
}

func (l *lossy) begin() {
	l.session++
	l.now += Interval
	l.m.Begin(l.session, l.now)
}

func (l *lossy) measure(sent, received uint64) {
	l.t.Helper()
	l.now += Interval
	l.m.Active(l.now)
	e := echo(l.t, &l.m, sent, l.now)
	l.m.Answered(l.session, message.Reply{ID: e.ID, Received: received}, l.now+20*ms)
}

func (l *lossy) check(fraction float64, sent, lost uint64) {
	l.t.Helper()
	got, ok := l.m.Loss()
	if !ok || math.Abs(got.Fraction-fraction) > 0.005 || got.Sent != sent || got.Lost != lost {
		l.t.Errorf("%+v %v, want %v of %d, %d lost", got, ok, fraction, sent, lost)
	}
}

func TestLoss(t *testing.T) {
	l := lossy{t: t, now: time.Second}
	l.begin()
	if _, ok := l.m.Loss(); ok {
		t.Error("known before it was measured")
	}
	l.measure(0, 0)
	if _, ok := l.m.Loss(); ok {
		t.Error("known of nothing sent")
	}
	l.measure(1000, 900)
	l.check(0.1, 1000, 100)
	l.measure(2000, 1900) // nothing lost since: of 920 and 1000, 92
	l.check(0.048, 2000, 100)
	l.measure(3000, 2799) // the last one overtaken by the echo
	l.measure(4000, 3800)
	l.check(0.052, 4000, 200)

	l.begin() // counts begin anew
	l.measure(10000, 10000)
	l.check(0.012, 14000, 200)
	for n := range uint64(100) {
		l.measure(20000+n*1000, 15000+n*500) // half of all
	}
	l.check(0.5, 14000-10000+119000, 200+119000-64500)

	// Traffic counts, not time: long silence changes nothing.
	l.now += time.Hour
	l.measure(119000, 64500)
	l.check(0.5, 123000, 54700)
}

func TestLossFrom(t *testing.T) {
	var m Meter
	heard := func(session, sent, received uint64, now time.Duration) {
		m.Heard(session, message.Echo{ID: 1, Sent: sent}, received, now)
	}
	check := func(fraction float64, sent, lost uint64) {
		t.Helper()
		if got, ok := m.LossFrom(); !ok || math.Abs(got.Fraction-fraction) > 0.005 || got.Sent != sent || got.Lost != lost {
			t.Errorf("%+v %v, want %v of %d, %d lost", got, ok, fraction, sent, lost)
		}
	}
	heard(1, 100, 80, 1*time.Second)
	check(0.2, 100, 20)
	heard(2, 100, 100, 2*time.Second)
	check(0.1, 200, 20)
	heard(1, 5000, 80, 3*time.Second) // late
	check(0.1, 200, 20)
	heard(2, 200, 200, 4*time.Second)
	check(0.07, 300, 20)
	if _, ok := m.Loss(); ok {
		t.Error("the other direction is known")
	}
}

// TestHostileCounts: a peer that says what cannot be changes nothing but what is shown of it, within bounds.
func TestHostileCounts(t *testing.T) {
	l := lossy{t: t, now: time.Second}
	l.begin()
	l.measure(1000, 900)
	l.measure(2000, math.MaxUint64) // more than was sent: all of it
	l.check(0, 2000, 0)
	l.measure(3000, 5) // back: ignored
	l.check(0, 2000, 0)

	l = lossy{t: t, now: time.Second}
	l.begin()
	l.measure(1000, 0)
	l.check(1, 1000, 1000)
	l.measure(2000, 2000) // all found after all
	l.check(0, 2000, 0)
	l.measure(3000, 2000)
	l.measure(4000, 2000)
	l.measure(5000, 5000)
	l.check(0, 5000, 0)

	var m Meter
	for i, sent := range []uint64{math.MaxUint64, plausible + 1, 1 << 63} {
		m.Heard(uint64(i), message.Echo{Sent: sent}, 0, time.Duration(i+1))
		if _, ok := m.LossFrom(); ok {
			t.Errorf("%d sent: believed", sent)
		}
	}
	m.Heard(9, message.Echo{Sent: plausible}, 0, time.Second)
	m.Heard(9, message.Echo{Sent: 5}, 0, 2*time.Second)
	if got, ok := m.LossFrom(); !ok || got != (Loss{1, plausible, plausible}) {
		t.Errorf("%+v %v", got, ok)
	}
}

// FuzzMeter gives the meter arbitrary calls with a clock that does not go back. Whatever a peer says, results stay within
// their ranges and echoes within their rate.
func FuzzMeter(f *testing.F) {
	f.Add([]byte{0, 1, 1, 10, 2, 0, 3, 0, 4, 9}, uint64(5), uint64(4))
	f.Add([]byte{0, 1, 2, 0, 3, 1, 0, 2, 2, 0, 3, 2, 5, 0, 6, 0}, uint64(math.MaxUint64), uint64(0))
	f.Fuzz(func(t *testing.T, script []byte, a, b uint64) {
		var m Meter
		now, echoes, begun := time.Second, 0, 1
		var session uint64
		first := now
		for len(script) >= 2 {
			op, v := script[0]%8, script[1]
			script = script[2:]
			a, b = a*6364136223846793005+uint64(v), b+a>>(v%64)
			switch op {
			case 0:
				session = uint64(v % 4)
				m.Begin(session, now)
				begun++
			case 1:
				now += time.Duration(v) * 50 * ms
			case 2:
				m.Active(now)
			case 3:
				m.Answered(session, message.Reply{ID: m.id + uint64(v%2), Received: b}, now)
			case 4:
				m.Heard(uint64(v%8), message.Echo{Sent: a}, b, now)
			case 5:
				m.Moved(now)
				begun++
			case 6:
				m.Pause()
			case 7:
				m.Answered(session, message.Reply{ID: m.id, Received: a >> (v % 64)}, now)
			}
			for range 2 {
				if _, ok := m.Next(a>>(v%64), now); ok {
					echoes++
				}
			}
			if d := m.Deadline(); d < 0 || d != 0 && d <= now {
				t.Fatalf("deadline %v at %v with nothing due", d, now)
			}
			smoothed, variation, least, ok := m.RTT()
			if ok != (smoothed > 0) || ok != (least > 0) || variation < 0 ||
				max(smoothed, variation, least, m.Last()) > Timeout {
				t.Fatalf("%v %v %v %v", smoothed, variation, least, ok)
			}
			for _, get := range []func() (Loss, bool){m.Loss, m.LossFrom} {
				loss, ok := get()
				if !(loss.Fraction >= 0 && loss.Fraction <= 1) || !ok && loss != (Loss{}) || loss.Lost > loss.Sent {
					t.Fatalf("%+v %v", loss, ok)
				}
			}
		}
		if limit := begun + int((now-first)/Interval) + 1; echoes > limit {
			t.Fatalf("%d echoes in %v with %d beginnings", echoes, now-first, begun)
		}
	})
}

func TestAllocatesNothing(t *testing.T) {
	var m Meter
	now := time.Second
	m.Begin(1, now)
	if n := testing.AllocsPerRun(100, func() {
		now += Interval
		m.Active(now)
		e, _ := m.Next(uint64(now), now)
		m.Answered(1, message.Reply{ID: e.ID, Received: e.Sent}, now+ms)
		m.Heard(1, e, e.Sent, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
