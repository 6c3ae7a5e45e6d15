package service

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestCourse walks through the table of course. Each line is an event at a time, and what follows.
func TestCourse(t *testing.T) {
	const s = time.Second
	type line struct {
		at    time.Duration
		event string
		phase Phase
		does  action
		next  time.Duration // -1: only an event helps
	}
	for name, lines := range map[string][]line{
		"life": {
			{0, "tick", Waiting, start, 0}, {0, "started", Starting, nothing, 15 * s}, {1 * s, "ready", Running, nothing, -1},
			{2 * s, "tick", Running, nothing, -1}, {9 * s, "stop", Stopping, terminate, 14 * s}, {10 * s, "tick", Stopping, nothing, 14 * s},
			{11 * s, "exited", Stopped, nothing, -1}, {12 * s, "stop", Stopped, nothing, -1}, {12 * s, "exited", Stopped, nothing, -1},
		},
		"backs off and begins anew": {
			{0, "started", Starting, nothing, 15 * s}, {0, "exited", Waiting, nothing, 100 * time.Millisecond},
			{50 * time.Millisecond, "tick", Waiting, nothing, 100 * time.Millisecond}, {100 * time.Millisecond, "tick", Waiting, start, 100 * time.Millisecond},
			{1 * s, "started", Starting, nothing, 16 * s}, {2 * s, "ready", Running, nothing, -1}, {60 * s, "exited", Waiting, nothing, 60*s + 200*time.Millisecond},
			{61 * s, "started", Starting, nothing, 76 * s}, {62 * s, "ready", Running, nothing, -1}, {120 * s, "exited", Waiting, nothing, 120*s + 400*time.Millisecond},
			{130 * s, "started", Starting, nothing, 145 * s}, {131 * s, "ready", Running, nothing, -1}, {190 * s, "exited", Waiting, nothing, 190*s + 100*time.Millisecond},
		},
		"never ready": {
			{0, "started", Starting, nothing, 15 * s}, {15 * s, "tick", Starting, kill, -1}, {16 * s, "tick", Starting, nothing, -1},
			{17 * s, "exited", Waiting, nothing, 17*s + 100*time.Millisecond},
		},
		"does not end": {
			{0, "started", Starting, nothing, 15 * s}, {1 * s, "stop", Stopping, terminate, 6 * s}, {2 * s, "ready", Stopping, nothing, 6 * s},
			{6 * s, "tick", Stopping, kill, -1}, {7 * s, "tick", Stopping, nothing, -1}, {7 * s, "stop", Stopping, nothing, -1}, {8 * s, "exited", Stopped, nothing, -1},
		},
		"stopped before its time": {{0, "exited", Waiting, nothing, 100 * time.Millisecond}, {0, "stop", Stopped, nothing, -1}, {1 * s, "tick", Stopped, nothing, -1}},
		"taken over":              {{3 * s, "adopted", Running, nothing, -1}, {4 * s, "exited", Waiting, nothing, 4*s + 100*time.Millisecond}},
	} {
		c := newCourse(0)
		for i, l := range lines {
			does := nothing
			switch l.event {
			case "tick":
				does = c.tick(l.at)
			case "started":
				c.started(l.at)
			case "adopted":
				c.adopted(l.at)
			case "ready":
				c.ready(l.at)
			case "exited":
				c.exited(l.at)
			case "stop":
				does = c.stop(l.at)
			}
			next, ok := c.next()
			if !ok {
				next = -1
			}
			if c.phase != l.phase || does != l.does || next != l.next {
				t.Errorf("%s, line %d (%s at %v): %s, action %d, next at %v; want %s, %d, %v", name, i, l.event, l.at, c.phase, does, next, l.phase, l.does, l.next)
			}
		}
	}
}

// TestBackoffIsBounded: a service that never comes up is started twice a minute in the end, and no more.
func TestBackoffIsBounded(t *testing.T) {
	c := newCourse(0)
	now, starts := time.Duration(0), 0
	for now < time.Hour {
		if c.tick(now) == start {
			starts++
			c.started(now)
			c.exited(now)
		}
		now, _ = c.next()
	}
	if starts < 120 || starts > 130 || c.restarts != starts-1 {
		t.Errorf("%d starts in an hour, %d restarts", starts, c.restarts)
	}
}

// fake is a program that does what a test says.
type fake struct {
	number   int
	end      chan struct{}
	once     sync.Once
	how      string
	stubborn bool // SIGTERM does not end it
	signals  []string
}

func (f *fake) pid() int               { return f.number }
func (f *fake) started() uint64        { return uint64(f.number) }
func (f *fake) ended() <-chan struct{} { return f.end }
func (f *fake) verdict() string        { return f.how }
func (f *fake) exit(how string)        { f.once.Do(func() { f.how = how; close(f.end) }) }
func (f *fake) kill() error            { f.signals = append(f.signals, "KILL"); f.exit("killed"); return nil }
func (f *fake) terminate() error {
	f.signals = append(f.signals, "TERM")
	if !f.stubborn {
		f.exit("terminated")
	}
	return nil
}

// stage runs a runner with fakes, in a bubble whose clock is the supervisor's.
type stage struct {
	*runner
	mu    sync.Mutex
	fakes []*fake
	fail  error // of launch
	notUp bool  // they never get ready
	hard  bool  // they are stubborn
	swept int
	log   []string
}

func newStage() *stage {
	s := &stage{}
	began := time.Now()
	s.runner = (&runner{
		launch: func() (process, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.fail != nil {
				return nil, s.fail
			}
			f := &fake{number: len(s.fakes) + 1, end: make(chan struct{}), stubborn: s.hard}
			s.fakes = append(s.fakes, f)
			return f, nil
		},
		ready: func(process) bool { return !s.notUp },
		sweep: func() error { s.swept++; return nil },
		now:   func() time.Duration { return time.Since(began) },
		logf:  func(format string, args ...any) { s.log = append(s.log, fmt.Sprintf(format, args...)) },
	}).prepare()
	return s
}

// programs returns what was started so far.
func (s *stage) programs() []*fake {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*fake(nil), s.fakes...)
}

func (s *stage) status() (st Status) { s.fill(&st); return st }

func TestRunnerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		go s.run(nil)
		if err := s.first(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for n := range 3 {
			if st := s.status(); st.Phase != Running || st.PID != n+1 || st.Restarts != n {
				t.Fatalf("%+v after %d ends", st, n)
			}
			s.programs()[n].exit("died")
			synctest.Wait()
			st := s.status()
			wait := minBackoff << n
			if n == 0 && st.LastEnd != "died" || st.Phase != Waiting || st.PID != 0 {
				t.Errorf("%+v right after its end", st)
			}
			time.Sleep(wait - time.Millisecond)
			if len(s.programs()) != n+1 {
				t.Errorf("started again before %v", wait)
			}
			time.Sleep(10 * readyPoll)
		}
		s.end()
		if st := s.status(); st.Phase != Stopped || st.PID != 0 {
			t.Errorf("%+v after the stop", st)
		}
		if last := s.programs()[len(s.programs())-1]; len(last.signals) != 1 || last.signals[0] != "TERM" {
			t.Errorf("the last one got %v", last.signals)
		}
		s.end() // once more
	})
}

func TestRunnerKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.hard = true
		go s.run(nil)
		if err := s.first(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		s.end()
		if took := time.Since(began); took != stopLimit {
			t.Errorf("the stop took %v, want %v", took, stopLimit)
		}
		if got := strings.Join(s.programs()[0].signals, " "); got != "TERM KILL" {
			t.Errorf("signals %q", got)
		}
	})
}

func TestRunnerReportsTheFirstStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.fail = errors.New("no such program")
		go s.run(nil)
		if err := s.first(); !errors.Is(err, s.fail) {
			t.Errorf("%v", err)
		}
		s.end()

		s = newStage()
		s.notUp = true
		go s.run(nil)
		began := time.Now()
		if err := s.first(); err == nil || !strings.Contains(err.Error(), "not ready after 15s") || time.Since(began) != readyLimit {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		s.end()
		if len(s.programs()) != 1 {
			t.Errorf("%d starts", len(s.programs()))
		}
		if err := s.first(); err == nil {
			t.Error("the first start's failure is forgotten")
		}
	})
}

func TestRunnerTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		old := &fake{number: 77, end: make(chan struct{})}
		go s.run(old)
		if err := s.first(); err != nil || s.status().PID != 77 {
			t.Fatalf("%v, %+v", err, s.status())
		}
		old.exit("gone")
		time.Sleep(time.Second)
		if st := s.status(); st.PID != 1 || st.Restarts != 1 || st.Phase != Running {
			t.Errorf("%+v", st)
		}
		s.end()
		if s.swept != 2 { // before the start, after the stop
			t.Errorf("swept %d times", s.swept)
		}
	})
}
