package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// maxCaptures is how many captures an instance serves at once.
	maxCaptures = 4
	// maxSeconds bounds how long a capture is asked for: a hundred years are no limit as well.
	maxSeconds = 100 * 365 * 24 * 3600
)

// CaptureOptions says what to capture.
type CaptureOptions struct {
	Interface string  `json:"interface,omitempty"` // of the tunnel; may be left out where the instance has one
	Snap      int     `json:"snap,omitempty"`      // bytes of each packet; 0: all
	Packets   uint64  `json:"packets,omitempty"`   // ends after so many; 0: no limit
	Seconds   float64 `json:"seconds,omitempty"`   // ends after so long; 0: no limit
}

// Limit is Seconds as a duration.
func (o CaptureOptions) Limit() time.Duration { return time.Duration(o.Seconds * float64(time.Second)) }

func (o CaptureOptions) check() error {
	if o.Snap < 0 || o.Seconds < 0 || o.Seconds > maxSeconds {
		return errors.New("a capture's limits cannot be negative, nor longer than a century")
	}
	return nil
}

// Capturer is a [Service] that shows the packets inside its tunnels.
type Capturer interface {
	// Capture begins a capture. It is to be followed by one call of stream, which writes the capture to w until ctx ends
	// or the capture itself does, and leaves nothing of it behind. A slow w loses packets, and slows nothing.
	Capture(o CaptureOptions) (stream func(ctx context.Context, w io.Writer) error, err error)
}

// beginCapture begins a capture and takes a place in l.captures.
func (l *Listener) beginCapture(o *CaptureOptions, s Service) (stream, error) {
	capturer, ok := s.(Capturer)
	if !ok || o == nil {
		return nil, errors.New("the request is for a capture that is not to be had here")
	}
	if err := o.check(); err != nil {
		return nil, &Error{Text: err.Error(), Reason: ReasonRequest}
	}
	select {
	case l.captures <- struct{}{}:
	default:
		return nil, &Error{Text: fmt.Sprintf("there are %d captures of this instance already, which are the most", maxCaptures), Reason: ReasonBusy}
	}
	run, err := capturer.Capture(*o)
	if err != nil {
		<-l.captures
		return nil, err
	}
	return func(ctx context.Context, w io.Writer) error {
		defer func() { <-l.captures }()
		return run(ctx, w)
	}, nil
}

// CaptureStream is a capture by a running instance, as pcapng. Reading gives io.EOF when it has ended.
type CaptureStream struct{ streamed }

// Capture begins a capture by the instance, which ends with ctx.
func (c *Client) Capture(ctx context.Context, o CaptureOptions) (*CaptureStream, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s, err := c.open(ctx, request{Op: OpCapture, Capture: &o})
	if err != nil {
		return nil, err
	}
	return &CaptureStream{s}, nil
}

// Read reads from the capture. It may be called by one goroutine at a time.
func (s *CaptureStream) Read(b []byte) (int, error) { return s.r.Read(b) }

// Buffered is how many bytes can be read without waiting.
func (s *CaptureStream) Buffered() int { return s.r.Buffered() }
