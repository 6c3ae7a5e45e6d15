package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// maxCaptures is how many captures an instance serves at once.
	maxCaptures = 4
	// endTime is how long a client may take for the rest of a capture that has ended.
	endTime = 2 * time.Second
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

// serveCapture answers a request for a capture and follows the answer with the stream.
func (l *Listener) serveCapture(c *net.UnixConn, o *CaptureOptions, s Service) {
	resp := response{Version: Version}
	stream, err := l.beginCapture(o, s)
	if err != nil {
		resp.Error, resp.Code = err.Error(), 1
	} else {
		defer func() { <-l.captures }()
	}
	out, encoding := json.Marshal(resp)
	c.SetWriteDeadline(time.Now().Add(answerTime))
	_, writing := c.Write(append(out, '\n'))
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(l.open)
	defer cancel()
	if encoding != nil || writing != nil {
		cancel()
	}
	c.SetReadDeadline(time.Time{})
	c.SetWriteDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { c.SetWriteDeadline(time.Now().Add(endTime)) })()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.Read(make([]byte, 1)) // returns when the client has had enough
		cancel()
	}()
	stream(ctx, c) // an error is the client's: it is gone
	c.SetReadDeadline(time.Unix(1, 0))
	<-watched
}

// beginCapture begins a capture and takes a place in l.captures.
func (l *Listener) beginCapture(o *CaptureOptions, s Service) (func(context.Context, io.Writer) error, error) {
	capturer, ok := s.(Capturer)
	if !ok || o == nil {
		return nil, errors.New("the request is for a capture that is not to be had here")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	select {
	case l.captures <- struct{}{}:
	default:
		return nil, fmt.Errorf("there are %d captures of this instance already, which are the most", maxCaptures)
	}
	stream, err := capturer.Capture(*o)
	if err != nil {
		<-l.captures
		return nil, err
	}
	return stream, nil
}

// CaptureStream is a capture by a running instance, as pcapng. Reading gives io.EOF when it has ended.
type CaptureStream struct {
	c *net.UnixConn
	r *bufio.Reader
}

// Capture begins a capture by the instance. Failures of the daemon are of type *Error.
func Capture(dir, name string, o CaptureOptions) (*CaptureStream, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c, err := dial(dir, name)
	if err != nil {
		return nil, err
	}
	s := &CaptureStream{c: c, r: bufio.NewReaderSize(c, 64<<10)}
	if err := s.begin(o); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

func (s *CaptureStream) begin(o CaptureOptions) error {
	s.c.SetDeadline(time.Now().Add(requestTime + answerTime))
	out, err := json.Marshal(request{Version: Version, Op: OpCapture, Capture: &o})
	if err != nil {
		return err
	}
	if _, err := s.c.Write(append(out, '\n')); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	line, err := s.r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	var resp response
	if err := json.Unmarshal(line, &resp); err != nil {
		return fmt.Errorf("cannot understand the daemon's answer: %w", err)
	}
	if resp.Error != "" {
		return &Error{Text: resp.Error, Code: max(resp.Code, 1)}
	}
	return s.c.SetDeadline(time.Time{})
}

// Read reads from the capture. It may be called by one goroutine at a time.
func (s *CaptureStream) Read(b []byte) (int, error) { return s.r.Read(b) }

// Buffered is how many bytes can be read without waiting.
func (s *CaptureStream) Buffered() int { return s.r.Buffered() }

// Stop ends the capture: what was captured so far can still be read. It may be called beside Read.
func (s *CaptureStream) Stop() error { return s.c.CloseWrite() }

// Close closes the connection, which ends the capture as well.
func (s *CaptureStream) Close() error { return s.c.Close() }
