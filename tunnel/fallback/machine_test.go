package fallback

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// history runs a machine by hand: what it wants is noted with the time.
type history struct {
	t *testing.T
	Machine
	now  time.Duration
	did  []string
	last uint64
}

func newHistory(t *testing.T) *history { return &history{t: t, now: 1} }

// until lets time pass, doing what is due.
func (h *history) until(at time.Duration) {
	for {
		h.do()
		d := h.Deadline()
		if d == 0 || d > at {
			break
		}
		if d <= h.now {
			h.t.Fatalf("at %v the deadline %v has passed", h.now, d)
		}
		h.now = d
	}
	h.now = at
}

func (h *history) do() {
	for n := 0; ; n++ {
		do, id := h.Next(h.now)
		if do == None {
			return
		}
		if n > 10 {
			h.t.Fatalf("at %v there is always something to do: %v", h.now, do)
		}
		name := [...]string{Dial: "dial", Cancel: "cancel", Leave: "leave", Probe: "probe", Keep: "keep"}[do]
		h.did = append(h.did, fmt.Sprintf("%s@%v", name, (h.now-1).Round(time.Millisecond)))
		if id != 0 {
			h.last = id
		}
	}
}

// wait lets d pass.
func (h *history) wait(d time.Duration) { h.until(h.now + d) }

// fail has n initiations go unanswered, a second apart.
func (h *history) fail(n int) {
	for range n {
		h.wait(time.Second)
		h.Unanswered(h.now)
		h.do()
	}
}

func (h *history) expect(state State, want ...string) {
	h.t.Helper()
	h.do()
	if h.State() != state || !slices.Equal(h.did, want) {
		h.t.Fatalf("at %v: %v %v, want %v %v", h.now-1, h.State(), h.did, state, want)
	}
	h.did = nil
}

// onStream brings the machine to the state stream, at the time of 2 s.
func (h *history) onStream() {
	h.t.Helper()
	h.fail(2)
	h.expect(Dialling, "dial@2s")
	if !h.Opened(h.now) {
		h.t.Fatal("not wanted")
	}
	h.expect(Trying)
	h.Answered(h.now)
	h.expect(Stream)
}

func TestDialsAndReturns(t *testing.T) {
	h := newHistory(t)
	h.fail(1)
	h.expect(Direct)
	h.Answered(h.now)
	h.fail(1)
	h.expect(Direct) // not in a row
	h = newHistory(t)
	h.onStream()
	h.wait(61 * time.Second)
	h.expect(Stream, "keep@27s", "probe@32s", "probe@33s", "probe@34s", "keep@52s")
	if h.ProbeAnswered(h.last+1, h.now) || h.ProbeAnswered(0, h.now) || h.ProbeAnswered(h.last-3, h.now) {
		t.Error("an answer to no probe")
	}
	if !h.ProbeAnswered(h.last-1, h.now) { // a late one
		t.Error("an answer was not taken")
	}
	if h.ProbeAnswered(h.last, h.now) {
		t.Error("returned twice")
	}
	h.wait(time.Hour)
	h.expect(Direct)
}

func TestRelapsesProbeLessOften(t *testing.T) {
	h := newHistory(t)
	h.onStream()
	for i, every := range []time.Duration{30, 60, 120, 240, 480, 480} {
		h.did = nil
		from := h.now
		h.wait(every*time.Second - time.Millisecond)
		if i := slices.IndexFunc(h.did, func(s string) bool { return s[0] == 'p' }); i >= 0 {
			t.Fatalf("%v after %v, want nothing before %v s", h.did[i], from, int(every))
		}
		h.wait(time.Millisecond)
		h.do()
		if !h.ProbeAnswered(h.last, h.now) {
			t.Fatalf("round %d: no probe after %d s: %v", i, every, h.did)
		}
		h.fail(2)
		if !h.Opened(h.now) {
			t.Fatal("not dialled at once")
		}
		h.Answered(h.now)
	}
	h.did = nil
	h.Moved(h.now)
	h.do()
	if !h.ProbeAnswered(h.last, h.now) {
		t.Fatal("no probe at once after routes have changed")
	}
	h.wait(relapseTime)
	h.fail(2)
	h.Opened(h.now)
	h.Answered(h.now)
	h.did = nil
	h.wait(probeEvery)
	h.do()
	if !h.ProbeAnswered(h.last, h.now) {
		t.Error("no probe after 30 s")
	}
}

func TestDialFailures(t *testing.T) {
	h := newHistory(t)
	h.fail(2)
	h.expect(Dialling, "dial@2s")
	h.Failed(h.now)
	h.fail(2) // redial after 1 s; the second in a row
	h.expect(Dialling, "dial@4s")
	h.Failed(h.now)
	h.fail(1)
	h.expect(Direct)
	h.fail(1)
	h.expect(Dialling, "dial@6s")
	for range 6 {
		h.Failed(h.now)
		for h.State() == Direct {
			h.fail(1)
		}
	}
	h.did = nil
	h.Failed(h.now)
	h.fail(59)
	h.expect(Direct) // 60 s at the most
	h.fail(1)
	if h.State() != Dialling {
		t.Error("not dialled after a minute")
	}
	h.did = nil
	h.Failed(h.now)
	h.Moved(h.now)
	h.fail(2)
	if h.State() != Dialling {
		t.Error("not dialled at once after routes have changed")
	}
	h.did = nil
	// An answer by datagrams while dialling.
	h.Answered(h.now)
	h.do()
	if h.State() != Direct || len(h.did) != 1 || h.did[0][:6] != "cancel" {
		t.Errorf("%v %v", h.State(), h.did)
	}
	if h.Opened(h.now) {
		t.Error("a stream that was opened too late is wanted")
	}
}

func TestStreamWithoutAnswer(t *testing.T) {
	h := newHistory(t)
	h.fail(2)
	h.Opened(h.now)
	h.wait(tryingTime)
	h.expect(Direct, "dial@2s", "leave@10s")
	h.fail(2)
	h.expect(Dialling, "dial@12s")
	h.Opened(h.now)
	h.Ended(h.now)
	h.expect(Direct)
	h.fail(2) // redial is 2 s
	h.expect(Dialling, "dial@14s")
}

func TestStreamEnds(t *testing.T) {
	h := newHistory(t)
	h.onStream()
	h.wait(time.Second)
	h.Ended(h.now)
	h.expect(Dialling, "dial@3s") // at once
	h.Failed(h.now)               // the far end is not back yet
	h.fail(2)
	h.expect(Dialling, "dial@5s")
	h.Opened(h.now)
	h.Answered(h.now)
	h.Ended(h.now) // again, without having lasted
	h.expect(Direct)
	// Initiations over it go unanswered.
	h = newHistory(t)
	h.onStream()
	h.fail(2)
	h.expect(Stream)
	h.Answered(h.now)
	h.fail(2)
	h.expect(Stream)
	h.fail(1)
	h.expect(Direct, "leave@7s")
}

func TestHints(t *testing.T) {
	h := newHistory(t)
	h.Hint(h.now)
	h.wait(time.Hour)
	h.expect(Direct)
	h = newHistory(t)
	h.onStream()
	h.wait(time.Second)
	for range 4 {
		h.Hint(h.now)
		h.wait(100 * time.Millisecond)
	}
	h.wait(4 * time.Second)
	h.expect(Stream, "probe@3s", "probe@4s", "probe@5s")
	h.wait(time.Second)
	h.Hint(h.now)
	h.expect(Stream, "probe@8.4s")
	h.Reset(h.now)
	if h.ProbeAnswered(h.last, h.now) {
		t.Error("the answer to a probe from before the reset was taken")
	}
	h.expect(Direct)
}

// FuzzMachine calls everything in any order: there is never something to do for ever, nor a deadline that has passed, and a
// stream is dialled at most once in a second but for one that had worked.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 0, 3, 2, 9, 9, 9, 5, 7})
	f.Add([]byte{0, 0, 4, 0, 0, 4, 0, 0, 4, 8, 0, 0, 3, 2, 6, 255, 254})
	f.Fuzz(func(t *testing.T, calls []byte) {
		var m Machine
		now, actions := time.Duration(1), 0
		for _, c := range calls {
			switch c % 10 {
			case 0:
				m.Unanswered(now)
			case 1, 2:
				m.Answered(now)
			case 3:
				if dialling := m.State() == Dialling; m.Opened(now) != dialling || dialling && m.State() != Trying {
					t.Fatal("open and not trying")
				}
			case 4:
				m.Failed(now)
			case 5:
				m.Ended(now)
			case 6:
				m.ProbeAnswered(m.id, now)
			case 7:
				if c < 128 {
					m.Hint(now)
				} else if m.Doubt(now) && m.State() != Direct {
					t.Fatal("doubted over a stream")
				}
			case 8:
				m.Moved(now)
			case 9:
				now += time.Duration(c) * 100 * time.Millisecond
			}
			for n := 0; ; n++ {
				do, _ := m.Next(now)
				if do == None {
					break
				}
				if actions++; n > 4 {
					t.Fatalf("always something to do: %v", do)
				}
			}
			if d := m.Deadline(); d != 0 && d <= now {
				t.Fatalf("in state %v the deadline %v has passed at %v", m.State(), d, now)
			}
		}
	})
}

func TestDoubts(t *testing.T) {
	h := newHistory(t)
	if !h.Doubt(h.now) || h.Doubt(h.now) {
		t.Error("not once at once")
	}
	h.wait(doubtEvery)
	if !h.Doubt(h.now) {
		t.Error("not again after a while")
	}
	h.fail(2)
	h.wait(doubtEvery)
	if h.expect(Dialling, "dial@12s"); h.Doubt(h.now) {
		t.Error("while the stream is dialled")
	}
	h.Opened(h.now)
	h.Answered(h.now)
	if h.expect(Stream); h.Doubt(h.now) {
		t.Error("on the stream")
	}
}
