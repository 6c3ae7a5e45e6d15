package stream

import (
	"encoding/binary"
	"sync"

	"culvert/transport"
)

const (
	// queueChunks bounds what waits to be sent over a stream, 512 KiB: the trains of two turns of a worker. What is more is
	// dropped, so that the connections inside learn that the stream is slower.
	queueChunks = 8
	// smallTrain is the size of a train that still finds room when the rest is full, up to queueReserve bytes more: a handshake,
	// or a control message.
	smallTrain   = 2 << 10
	queueReserve = 32 << 10
)

// queue is what waits to be sent over a stream, as frames. Many may put, one takes.
type queue struct {
	wake chan struct{} // there is something; capacity 1

	mu      sync.Mutex
	waiting [queueChunks + 1]*chunk // the last one is for small trains
	count   int
	bytes   int
	closed  bool
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put adds the datagrams of a train, all or none.
func (q *queue) put(t *transport.Train) error {
	size := t.N + headerSize*t.Datagrams()
	most := queueChunks * chunkSize
	if t.N <= smallTrain {
		most += queueReserve
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return transport.ErrStreamGone
	case q.bytes+size > most:
		return transport.ErrStreamFull
	case size == 0:
		return nil
	}
	q.bytes += size
	for datagram, next := t.Next(0); datagram != nil; datagram, next = t.Next(next) {
		var header [headerSize]byte
		binary.BigEndian.PutUint16(header[:], uint16(len(datagram)))
		q.append(header[:])
		q.append(datagram)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// append copies bytes in; there is room. The lock is held.
func (q *queue) append(b []byte) {
	for len(b) > 0 {
		if q.count == 0 || q.waiting[q.count-1].n == chunkSize {
			q.waiting[q.count] = newChunk()
			q.count++
		}
		c := q.waiting[q.count-1]
		n := copy(c.buf[c.n:], b)
		c.n += n
		b = b[n:]
	}
}

// take moves all that waits into storage and returns how many chunks that are.
func (q *queue) take(into *[queueChunks + 1]*chunk) (count int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	*into, count = q.waiting, q.count
	q.waiting, q.count, q.bytes = [queueChunks + 1]*chunk{}, 0, 0
	return count
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes == 0
}

// close drops what waits, and whatever comes.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for i := range q.count {
		q.waiting[i].free()
		q.waiting[i] = nil
	}
	q.count, q.bytes = 0, 0
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
