package stream

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"culvert/transport"
)

const (
	// untrustedDatagram is the longest datagram read of a stream that is not in use: handshakes are shorter, and so is what a
	// session carries over any Ethernet. Longer ones are passed over until then.
	untrustedDatagram = 4 << 10
	// untrustedBytes is how much is read of such a stream; then it waits to be used, or closed.
	untrustedBytes = 64 << 10
)

// Reasons for which a stream ends by itself. They are shown.
var (
	errSilent  = errors.New("nothing authenticated came over the stream")
	errIdle    = errors.New("nothing came over the stream for long")
	errStuck   = errors.New("the far end takes nothing more")
	errEvicted = errors.New("closed to make room for another connection")
	errUnused  = errors.New("the stream was left")
	errClosed  = net.ErrClosed
)

// conn is one TCP connection. It goes from hand to hand: the goroutine that reads it makes the TLS handshake, and then starts the
// one that writes.
type conn struct {
	socket   *socket
	raw      net.Conn
	tls      *tls.Conn
	endpoint transport.Endpoint
	local    netip.Addr
	from     netip.Prefix // what counts as one address
	dialled  bool

	queue *queue
	inbox inbox // guarded by the postbox's lock

	closeOnce sync.Once
	done      chan struct{}
	err       error // why it ended; good once done is closed

	used  chan struct{} // closed when the stream is first in use
	ready atomic.Bool   // the TLS handshake is over

	// Counts for those who look whether anything moves.
	received, written atomic.Uint64
	writing           atomic.Bool

	// Guarded by the table's lock.
	users        int
	everUsed     bool
	age          int // seconds since it was made, or left
	idle, stuck  int // seconds in which nothing came, and nothing went though something was to
	seen, passed uint64
	made         uint64
}

var _ transport.Stream = (*conn)(nil)

func (c *conn) Endpoint() transport.Endpoint { return c.endpoint }
func (c *conn) Done() <-chan struct{}        { return c.done }
func (c *conn) Err() error                   { return c.err }

// Close ends the stream. What waits in its queue is lost.
func (c *conn) Close() error {
	c.end(errClosed)
	return nil
}

// end ends the stream for a reason. It does not wait for its goroutines.
func (c *conn) end(why error) {
	c.closeOnce.Do(func() {
		c.err = why
		c.socket.table.remove(c)
		c.queue.close()
		c.raw.Close() // not tls.Conn.Close, which would wait to say so
		c.socket.postbox.forget(c)
		close(c.done)
	})
}

// serve is the life of a connection that another end has opened.
func (c *conn) serve() {
	if err := c.tls.Handshake(); err != nil { // whose time the table's watch bounds
		c.socket.streams.failed.Add(1)
		c.end(err)
		return
	}
	c.socket.streams.accepted.Add(1)
	c.start()
	c.read()
}

// start starts writing. The TLS handshake is over.
func (c *conn) start() {
	c.ready.Store(true)
	c.socket.work.Go(c.write)
}

// write sends what is put into the queue, until the stream ends.
func (c *conn) write() {
	var taken [queueChunks + 1]*chunk
	ended := false
	for {
		select {
		case <-c.queue.wake:
		case <-c.done:
			return
		}
		c.writing.Store(true)
		n := c.queue.take(&taken)
		for i := range n {
			if !ended {
				if _, err := c.tls.Write(taken[i].buf[:taken[i].n]); err != nil {
					ended = true
					c.end(err)
				}
			}
			c.written.Add(1)
			taken[i].free()
			taken[i] = nil
		}
		c.writing.Store(false)
	}
}

// read takes apart what comes, until the stream ends.
func (c *conn) read() {
	s := newSplitter(untrustedDatagram)
	total, trusted := 0, c.dialled
	if trusted {
		s.limit = transport.MaxTrainBytes
	}
	for {
		n, err := c.tls.Read(s.space())
		s.read(n)
		c.received.Add(uint64(n))
		if !trusted {
			if total += n; total > untrustedBytes {
				select {
				case <-c.used:
				case <-c.done:
					return
				}
			}
			select {
			case <-c.used:
				trusted = true
				s.limit = transport.MaxTrainBytes
			default:
			}
		}
		if !c.deliver(s) {
			return
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

// deliver puts all datagrams that are there into the inbox, and reports whether the stream goes on.
func (c *conn) deliver(s *splitter) bool {
	box := c.socket.postbox
	for {
		datagram, err := s.next()
		if err != nil {
			box.list(c)
			c.socket.streams.failed.Add(1)
			c.end(err)
			return false
		}
		if datagram == nil {
			box.list(c)
			return true
		}
		for !box.put(c, datagram) {
			box.list(c)
			select {
			case <-c.inbox.room:
			case <-c.done:
				return false
			}
		}
	}
}
