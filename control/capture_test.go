package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// capturing is a service whose captures are what stream writes.
type capturing struct {
	service
	mu     sync.Mutex
	asked  []CaptureOptions
	fails  error
	stream func(ctx context.Context, w io.Writer) error
}

func (s *capturing) Capture(o CaptureOptions) (func(context.Context, io.Writer) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, o)
	return s.stream, s.fails
}

// untilEnd writes "begin", and "end" when it is to end.
func untilEnd(ctx context.Context, w io.Writer) error {
	io.WriteString(w, "begin\n")
	<-ctx.Done()
	_, err := io.WriteString(w, "end\n")
	return err
}

func begin(t *testing.T, dir string) *CaptureStream {
	t.Helper()
	c, err := NewClient(dir, "wg0").Capture(t.Context(), CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func readAll(t *testing.T, c *CaptureStream) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCaptureIsStreamed(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef\n"), 1<<16)
	s := &capturing{stream: func(_ context.Context, w io.Writer) error {
		_, err := w.Write(big)
		return err
	}}
	dir, _ := listen(t, s)
	want := CaptureOptions{Interface: "wg1", Snap: 96, Packets: 1 << 60, Seconds: 1.5}
	c, err := NewClient(dir, "wg0").Capture(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := readAll(t, c); got != string(big) {
		t.Errorf("%d bytes, want %d", len(got), len(big))
	}
	if s.asked[0] != want || want.Limit() != 1500*time.Millisecond {
		t.Errorf("asked for %+v, want %+v", s.asked[0], want)
	}
}

// Stop lets the rest come, and Close takes the service notice.
func TestCaptureEndsWithTheClient(t *testing.T) {
	s := &capturing{stream: untilEnd}
	dir, _ := listen(t, s)
	c := begin(t, dir)
	first := make([]byte, 6)
	if _, err := io.ReadFull(c, first); err != nil || string(first) != "begin\n" {
		t.Fatalf("%q, %v", first, err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if rest := readAll(t, c); rest != "end\n" {
		t.Errorf("after Stop came %q", rest)
	}
	ended := make(chan error, 1)
	s.stream = func(ctx context.Context, w io.Writer) error {
		<-ctx.Done()
		ended <- nil
		return nil
	}
	begin(t, dir).Close()
	<-ended
}

func TestCaptureEndsWithTheDaemon(t *testing.T) {
	dir, l := listen(t, &capturing{stream: untilEnd})
	c := begin(t, dir)
	l.Close()
	if got := readAll(t, c); got != "begin\nend\n" {
		t.Errorf("got %q", got)
	}
}

// A client that reads nothing cannot keep the daemon from ending.
func TestCaptureOfSleepingClientEnds(t *testing.T) {
	ended := make(chan error, 1)
	dir, l := listen(t, &capturing{stream: func(_ context.Context, w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				ended <- err
				return err
			}
		}
	}})
	begin(t, dir)
	l.Close()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	l.Wait(10 * time.Second)
}

func TestCapturesAreBounded(t *testing.T) {
	dir, l := listen(t, &capturing{stream: untilEnd})
	var all []*CaptureStream
	for range maxCaptures {
		all = append(all, begin(t, dir))
	}
	_, err := NewClient(dir, "wg0").Capture(t.Context(), CaptureOptions{})
	if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Text, "4 captures") || e.Code != 1 {
		t.Fatalf("one capture too many: %v", err)
	}
	if _, err := NewClient(dir, "wg0").Status(t.Context()); err != nil {
		t.Errorf("Status while there are %d captures: %v", maxCaptures, err)
	}
	for len(l.slots) > 0 {
		time.Sleep(time.Millisecond) // a stream leaves the place of a client
	}
	all[0].Stop()
	readAll(t, all[0])
	// Its place is free an instant after the connection has ended.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := NewClient(dir, "wg0").Capture(t.Context(), CaptureOptions{})
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no place after one has ended: %v", err)
		}
	}
}

func TestCaptureRefused(t *testing.T) {
	s := &capturing{fails: errors.New("no such tunnel")}
	dir, _ := listen(t, s)
	for range maxCaptures + 1 { // a refused one takes no place
		_, err := NewClient(dir, "wg0").Capture(t.Context(), CaptureOptions{})
		if e, ok := errors.AsType[*Error](err); !ok || e.Text != "no such tunnel" || e.Code != 1 {
			t.Fatalf("Capture = %v", err)
		}
	}
	asked := len(s.asked)
	for line, want := range map[string]string{
		`{"version":1,"op":"capture"}`:                             "not to be had",
		`{"version":1,"op":"capture","capture":{"snap":-1}}`:       "negative",
		`{"version":1,"op":"capture","capture":{"seconds":-1}}`:    "negative",
		`{"version":1,"op":"capture","capture":{"seconds":1e300}}`: "century",
		`{"version":1,"op":"capture","capture":{"packets":-1}}`:    "not valid JSON",
		`{"version":2,"op":"capture","capture":{}}`:                "version 1",
	} {
		if r := raw(t, dir, line+"\n"); !strings.Contains(r.Error, want) || r.Code != 1 {
			t.Errorf("answer to %s: %+v, want %q", line, r, want)
		}
	}
	if len(s.asked) != asked {
		t.Errorf("wrong requests reached the service: %+v", s.asked[asked:])
	}
	if _, err := NewClient(dir, "wg0").Capture(t.Context(), CaptureOptions{Snap: -1}); err == nil {
		t.Error("negative snap length taken")
	}
	if _, err := NewClient(dir, "wg1").Capture(t.Context(), CaptureOptions{}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Capture of nothing: %v, want ErrNotRunning", err)
	}

	none, _ := listen(t, &service{})
	if _, err := NewClient(none, "wg0").Capture(t.Context(), CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "not to be had") {
		t.Errorf("Capture from a service without: %v", err)
	}
}

// The daemon may end before it answers.
func TestCaptureWithoutAnswer(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", SocketPath(dir, "wg0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, err := NewClient(dir, "wg0").Capture(t.Context(), CaptureOptions{}); !errors.Is(err, errNoAnswer) {
		t.Errorf("Capture = %v", err)
	}
}
