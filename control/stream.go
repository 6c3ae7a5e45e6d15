package control

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"time"
)

// endTime is how long a client may take for the rest of a stream that has ended.
const endTime = 2 * time.Second

// stream writes what follows an answer to w until ctx ends or there is no more, and then lets go of everything. It is called once.
type stream func(ctx context.Context, w io.Writer) error

// serveStream answers a request by what begin gives, and follows the answer with the stream. That ends when the client closes its side
// for writing, or the connection, and when the listener is closed; its rest is still written then.
func (l *Listener) serveStream(c *net.UnixConn, begin func() (stream, error)) {
	resp := response{Version: Version}
	run, err := begin()
	if err != nil {
		resp.fail(err)
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
	run(ctx, c) // an error is the client's: it is gone
	c.SetReadDeadline(time.Unix(1, 0))
	<-watched
}

// streamed is the client's end of a stream.
type streamed struct {
	c    *net.UnixConn
	r    *bufio.Reader
	stop func() bool // it no longer ends with the context
}

// open sends a request whose answer a stream follows. The connection ends with ctx.
func (c *Client) open(ctx context.Context, req request) (streamed, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return streamed{}, err
	}
	const limit = requestTime + answerTime
	conn.SetDeadline(time.Now().Add(limit))
	stop := interrupt(ctx, conn)
	r := bufio.NewReaderSize(conn, 64<<10)
	_, err = ask(ctx, conn, r, req, limit)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return streamed{}, err
	}
	conn.SetDeadline(time.Time{})
	return streamed{conn, r, context.AfterFunc(ctx, func() { conn.Close() })}, nil
}

// Stop ends the stream: what is under way can still be read. It may be called beside reading.
func (s *streamed) Stop() error { return s.c.CloseWrite() }

// Close closes the connection, which ends the stream as well.
func (s *streamed) Close() error {
	s.stop()
	return s.c.Close()
}
