package exchange

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"culvert/tunnel/message"
)

var hello = message.Hello{Agent: "a", MTU: 1420, Layer: message.LayerIP}

func push(n int) message.Push { return message.Push{Subject: fmt.Sprint(n)} }

// next asserts what Next returns: number and subject ("hello" for a hello), or nothing for number 0.
func next(t *testing.T, s *Sender, now time.Duration, number uint64, what string) {
	t.Helper()
	n, m, ok := s.Next(now)
	got := ""
	switch m := m.(type) {
	case message.Hello:
		got = "hello"
	case message.Push:
		got = m.Subject
	}
	if n != number || got != what || ok != (number != 0) {
		t.Fatalf("at %v: %d %q %v, want %d %q", now, n, got, ok, number, what)
	}
}

func TestOneOutstandingAtATime(t *testing.T) {
	var s Sender
	for n := range 2 {
		if err := s.Queue(push(n), 1); err != nil {
			t.Fatal(err)
		}
	}
	next(t, &s, 1, 0, "")
	if s.Deadline() != 0 {
		t.Error("deadline without a session")
	}
	if err := s.Restart(7, hello, 2); err != nil || s.Deadline() != 2 || s.Waiting() != 3 {
		t.Fatal(err, s.Deadline(), s.Waiting())
	}
	next(t, &s, 2, 1, "hello")
	next(t, &s, 2, 0, "")
	s.Acked(7, 2, 3) // not sent yet
	s.Acked(8, 1, 3) // of another session
	s.Acked(7, 0, 3)
	next(t, &s, 3, 0, "")
	s.Acked(7, 1, 4)
	next(t, &s, 4, 2, "0")
	s.Acked(7, 1, 5) // again
	next(t, &s, 5, 0, "")
	s.Acked(7, 2, 5)
	s.Acked(7, 3, 5) // not sent yet
	next(t, &s, 5, 3, "1")
	s.Acked(7, 3, 6)
	next(t, &s, 6, 0, "")
	if s.Deadline() != 0 || s.Waiting() != 0 {
		t.Error("not idle")
	}
	if err := s.Queue(push(2), 9); err != nil || s.Deadline() != 9 {
		t.Fatal(err, s.Deadline())
	}
	next(t, &s, 9, 4, "2")
}

func TestRetransmission(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		rtt  time.Duration
		want []time.Duration // gaps
	}{
		{0, []time.Duration{1000 * ms, 2000 * ms, 4000 * ms, 5000 * ms, 5000 * ms}},
		{10 * ms, []time.Duration{200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}},
		{100 * ms, []time.Duration{300 * ms, 600 * ms, 1200 * ms, 2400 * ms, 4800 * ms, 5000 * ms}},
		{10000 * ms, []time.Duration{5000 * ms, 5000 * ms}},
		{1 << 62, []time.Duration{5000 * ms}},
		{-1, []time.Duration{1000 * ms}},
	} {
		var s Sender
		s.SetRTT(tt.rtt)
		if err := s.Restart(1, hello, 1); err != nil {
			t.Fatal(err)
		}
		now := time.Duration(1)
		next(t, &s, now, 1, "hello")
		for i, gap := range tt.want {
			if got := s.Deadline() - now; got != gap {
				t.Fatalf("rtt %v: gap %d is %v, want %v", tt.rtt, i, got, gap)
			}
			next(t, &s, s.Deadline()-1, 0, "")
			now = s.Deadline()
			next(t, &s, now, 1, "hello")
		}
	}
}

func TestRestartSendsAgain(t *testing.T) {
	var s Sender
	s.Restart(1, hello, 1)
	next(t, &s, 1, 1, "hello")
	s.Acked(1, 1, 2)
	s.Queue(push(0), 2)
	s.Queue(push(1), 2)
	next(t, &s, 2, 2, "0")
	s.Restart(1, hello, 3) // the same: nothing
	next(t, &s, 3, 0, "")
	if s.Waiting() != 2 {
		t.Fatal(s.Waiting())
	}
	s.Restart(2, hello, 4)
	s.Restart(3, hello, 5) // the hello for 2 is not sent any more
	next(t, &s, 5, 1, "hello")
	s.Acked(2, 1, 6)
	next(t, &s, 6, 0, "")
	s.Acked(3, 1, 6)
	next(t, &s, 6, 2, "0")
	s.Pause()
	if s.Deadline() != 0 {
		t.Error("deadline in a pause")
	}
	next(t, &s, time.Hour, 0, "")
	s.Acked(3, 2, time.Hour)
	next(t, &s, time.Hour, 0, "")
	s.Restart(3, hello, time.Hour) // the same still: where it was
	next(t, &s, time.Hour, 3, "1")
}

func TestQueueIsBounded(t *testing.T) {
	var s Sender
	s.Restart(1, hello, 1)
	for n := range MaxMessages {
		if err := s.Queue(push(n), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Queue(push(0), 1); !errors.Is(err, ErrFull) {
		t.Errorf("message %d: %v", MaxMessages+1, err)
	}
	next(t, &s, 1, 1, "hello")
	s.Acked(1, 1, 1)
	if err := s.Queue(push(0), 1); !errors.Is(err, ErrFull) {
		t.Errorf("the hello made room: %v", err)
	}
	next(t, &s, 1, 2, "0")
	s.Acked(1, 2, 1)
	if err := s.Queue(push(99), 1); err != nil {
		t.Error(err)
	}

	s = Sender{}
	large := message.Push{Subject: "a", Document: make([]byte, message.MaxDocument)}
	count := 0
	for s.Queue(large, 1) == nil {
		count++
	}
	if count != MaxBytes/(message.MaxDocument+30) || s.bytes > MaxBytes {
		t.Errorf("%d large messages, %d bytes", count, s.bytes)
	}
	s.Restart(1, nil, 1)
	for n := range count {
		if _, _, ok := s.Next(1); !ok {
			t.Fatal("nothing to send")
		}
		s.Acked(1, uint64(n+1), 1)
	}
	if s.bytes != 0 {
		t.Errorf("%d bytes of nothing", s.bytes)
	}
}

func TestRefusedMessages(t *testing.T) {
	var s Sender
	if err := s.Queue(message.Ack{Number: 1}, 1); !errors.Is(err, message.ErrNumber) {
		t.Error(err)
	}
	if err := s.Queue(message.Push{}, 1); !errors.Is(err, message.ErrField) {
		t.Error(err)
	}
	if err := s.Queue(nil, 1); !errors.Is(err, message.ErrType) {
		t.Error(err)
	}
	s.Queue(push(0), 1)
	if err := s.Restart(1, message.Hello{}, 1); !errors.Is(err, message.ErrField) {
		t.Error(err)
	}
	next(t, &s, 1, 1, "0") // the session begins all the same
}
