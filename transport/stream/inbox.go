package stream

import (
	"encoding/binary"
	"net"
	"os"
	"sync"

	"culvert/transport"
)

// inbox is what a stream's reader has taken apart and the receiver has not taken yet: frames, in one chunk.
type inbox struct {
	frames *chunk
	listed bool          // in the postbox's list
	next   *conn         // behind it there
	room   chan struct{} // the receiver has taken what there was; capacity 1
}

// postbox is where all streams' datagrams wait for the one receiver.
type postbox struct {
	wake chan struct{} // there is something; capacity 1

	mu     sync.Mutex
	first  *conn // that has something, in order of its coming
	last   *conn
	closed bool
	paused bool // nothing is given out
}

func newPostbox() *postbox { return &postbox{wake: make(chan struct{}, 1)} }

// put adds a datagram of c's, or reports that there is no room before the receiver has been there. Frames of a closed box go
// nowhere.
func (p *postbox) put(c *conn, datagram []byte) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return true
	}
	in := &c.inbox
	if in.frames == nil {
		in.frames = newChunk()
	}
	f := in.frames
	if f.n+headerSize+len(datagram) > chunkSize {
		return false
	}
	binary.BigEndian.PutUint16(f.buf[f.n:], uint16(len(datagram)))
	f.n += headerSize + copy(f.buf[f.n+headerSize:], datagram)
	return true
}

// list tells the receiver that c has something.
func (p *postbox) list(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.inbox.listed || c.inbox.frames == nil || p.closed {
		return
	}
	c.inbox.listed = true
	if p.first == nil {
		p.first = c
	} else {
		p.last.inbox.next = c
	}
	p.last = c
	p.signal()
}

// signal wakes the receiver. The lock is held.
func (p *postbox) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// pause has nothing taken as long as it is on.
func (p *postbox) pause(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = on
	p.signal()
}

// isPaused reports whether nothing is to be received now.
func (p *postbox) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused
}

// take returns what the first stream on the list has; a nil chunk where the list is empty. After close it returns
// net.ErrClosed, and while the box is paused os.ErrDeadlineExceeded.
func (p *postbox) take() (from *conn, frames *chunk, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, nil, net.ErrClosed
	case p.paused:
		return nil, nil, os.ErrDeadlineExceeded
	case p.first == nil:
		return nil, nil, nil
	}
	c := p.first
	in := &c.inbox
	if p.first = in.next; p.first != nil {
		p.signal()
	} else {
		p.last = nil
	}
	frames = in.frames
	in.frames, in.listed, in.next = nil, false, nil
	select {
	case in.room <- struct{}{}:
	default:
	}
	return c, frames, nil
}

// forget drops what a stream that has ended without having been heard has left. What is listed is still received.
func (p *postbox) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.inbox.listed {
		c.inbox.frames.free()
		c.inbox.frames = nil
	}
}

// close ends it.
func (p *postbox) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := p.first; c != nil; c = c.inbox.next {
		c.inbox.frames.free()
		c.inbox.frames = nil
	}
	p.first, p.last = nil, nil
	p.signal()
}

// receiver hands the datagrams of all streams to the engine.
type receiver struct {
	socket *socket

	// What is being handed out: frames.buf[at:frames.n].
	from   *conn
	frames *chunk
	at     int
}

var _ transport.IdleReceiver = (*receiver)(nil)

// Worker is the first one: all streams have one receiver.
func (r *receiver) Worker() int { return 0 }

// Wait blocks until there is something to receive.
func (r *receiver) Wait() error {
	if r.frames != nil && r.socket.postbox.isPaused() { // what is in hand stays there
		return os.ErrDeadlineExceeded
	}
	for r.frames == nil {
		from, frames, err := r.socket.postbox.take()
		if err != nil {
			return err
		}
		if frames == nil {
			<-r.socket.postbox.wake
			continue
		}
		r.from, r.frames, r.at = from, frames, 0
	}
	return nil
}

// Receive fills trains with what one stream has. It allocates nothing.
func (r *receiver) Receive(trains []transport.Train) (int, error) {
	for i := range trains {
		if len(trains[i].Buf) < transport.ReceiveBufferSize {
			return 0, errReceiveBuffer
		}
	}
	if len(trains) == 0 {
		return 0, nil
	}
	if err := r.Wait(); err != nil {
		return 0, err
	}
	n := 0
	for n < len(trains) && r.at < r.frames.n {
		r.fill(&trains[n])
		n++
	}
	if r.at == r.frames.n {
		r.frames.free()
		r.frames, r.from = nil, nil
	}
	return n, nil
}

// fill moves the next datagrams into t that are of one size, but for the last, which may be shorter.
func (r *receiver) fill(t *transport.Train) {
	t.N, t.Segment, t.TOS, t.Err, t.Endpoint = 0, 0, 0, nil, r.from.endpoint
	size, count := 0, 0
	for r.at < r.frames.n {
		next := int(binary.BigEndian.Uint16(r.frames.buf[r.at:]))
		if count > 0 && (next > size || t.N+next > transport.MaxTrainBytes || count == transport.MaxTrainSegments) {
			break
		}
		from := r.at + headerSize
		t.N += copy(t.Buf[t.N:], r.frames.buf[from:from+next])
		r.at = from + next
		if count++; count == 1 {
			size = next
		}
		if next < size {
			break
		}
	}
	if count > 1 {
		t.Segment = size
	}
	in := &r.socket.in
	in.datagrams.Add(uint64(count))
	in.bytes.Add(uint64(t.N))
}
