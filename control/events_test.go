package control

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"culvert/crypto"
)

// telling is a service whose events are what is put into the channel; closed is their end.
type telling struct {
	service
	events chan []Event
	asked  chan EventOptions
	done   chan struct{}
}

func (s *telling) Events(o EventOptions) (func(context.Context) ([]Event, error), func()) {
	s.asked <- o
	next := func(ctx context.Context) ([]Event, error) {
		select {
		case list, ok := <-s.events:
			if !ok {
				return []Event{{Event: EventInstanceEnding}}, io.EOF
			}
			return list, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return next, func() { s.done <- struct{}{} }
}

func newTelling() *telling {
	return &telling{events: make(chan []Event), asked: make(chan EventOptions, 100), done: make(chan struct{}, 100)}
}

func TestEvents(t *testing.T) {
	s := newTelling()
	dir, l := listen(t, s)
	c := NewClient(dir, "wg0")
	stream, err := c.Events(t.Context(), EventOptions{Kinds: []string{"peer", EventTunnelUp}})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if o := <-s.asked; len(o.Kinds) != 2 || !o.Want(EventPeerLost) || o.Want(EventTunnelDown) || !o.Want(EventMissed) {
		t.Errorf("asked for %+v", o)
	}
	want := Event{Time: time.Unix(1e9, 0).UTC(), Event: EventPeerLost, Instance: "wg0", Tunnel: "wg0", PublicKey: crypto.PublicKey{1}, Why: strings.Repeat("silent\n", 1e4)}
	s.events <- []Event{want, {Event: "of-tomorrow"}}
	if e, err := stream.Next(); err != nil || e.Why != want.Why || e.PublicKey != want.PublicKey || !e.Time.Equal(want.Time) {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := stream.Next(); err != nil || e.Event != "of-tomorrow" {
		t.Errorf("%+v, %v", e, err)
	}
	close(s.events)
	if e, err := stream.Next(); err != nil || e.Event != EventInstanceEnding {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := stream.Next(); err != io.EOF {
		t.Errorf("%v, want EOF", err)
	}
	<-s.done
	l.Close()
}

// Those who have gone, and those who never read, end with their connection or the daemon; there is a bound to how many there are.
func TestEventStreamsAreBounded(t *testing.T) {
	s := newTelling()
	dir, l := listen(t, s)
	c := NewClient(dir, "wg0")
	var streams []*EventStream
	for range maxEventStreams {
		stream, err := c.Events(t.Context(), EventOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		streams = append(streams, stream)
	}
	if _, err := c.Events(t.Context(), EventOptions{}); !errors.Is(err, ErrBusy) {
		t.Fatalf("one too many: %v, want ErrBusy", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	streams[0].Close()
	<-s.done
	streams[1].Stop()
	<-s.done
	if _, err := streams[1].Next(); err != io.EOF {
		t.Errorf("after Stop: %v", err)
	}
	for len(l.tellings) > maxEventStreams-2 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.Events(ctx, EventOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-s.done
	if _, err := stream.Next(); err == nil {
		t.Error("an event after the context's end")
	}
	l.Close()
	for range maxEventStreams - 2 {
		<-s.done
	}
	l.Wait(10 * time.Second)
}

func TestEventsRefused(t *testing.T) {
	s := newTelling()
	dir, _ := listen(t, s)
	c := NewClient(dir, "wg0")
	for _, wrong := range []string{"", "pe", "peer-", "peer-*", "format-disk"} {
		if _, err := c.Events(t.Context(), EventOptions{Kinds: []string{wrong}}); err == nil || !strings.Contains(err.Error(), "no kind of event") {
			t.Errorf("%q: %v", wrong, err)
		}
		if r := raw(t, dir, `{"version":1,"op":"events","events":{"kinds":["`+wrong+`"]}}`+"\n"); r.Reason != ReasonRequest {
			t.Errorf("%q: %+v", wrong, r)
		}
	}
	none, _ := listen(t, &service{})
	if _, err := NewClient(none, "wg0").Events(t.Context(), EventOptions{}); err == nil || !strings.Contains(err.Error(), "no events") {
		t.Errorf("%v", err)
	}
	if len(s.asked) > 0 {
		t.Error("a wrong request reached the service")
	}
}
