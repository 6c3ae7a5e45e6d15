package stream

import "sync"

// chunkSize is the storage of what waits, to be sent or to be received.
const chunkSize = 64 << 10

type chunk struct {
	n   int // bytes in use
	buf [chunkSize]byte
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk() *chunk {
	c := chunks.Get().(*chunk)
	c.n = 0
	return c
}

func (c *chunk) free() {
	if c != nil {
		chunks.Put(c)
	}
}
