package tunnel

import (
	"hash/maphash"
	"sync/atomic"
)

// expectedParts remembers which second parts of initiations are to come, for when the queue of handshake messages is
// crowded: a second part has no mac2 to tell a genuine one by. It is a table of hashes under a secret seed; a newer first
// part takes the place of an older one now and then, which costs that a retry. Safe for concurrent use.
type expectedParts struct {
	seed maphash.Seed
	tags [1024]atomic.Uint64
}

func newExpectedParts() *expectedParts { return &expectedParts{seed: maphash.MakeSeed()} }

func (e *expectedParts) find(k slotKey) (*atomic.Uint64, uint64) {
	h := maphash.Comparable(e.seed, k) | 1 // 0 is nothing
	return &e.tags[h>>1%uint64(len(e.tags))], h
}

// note is told of a first part that was queued.
func (e *expectedParts) note(k slotKey) {
	tag, h := e.find(k)
	tag.Store(h)
}

// take reports whether a second part follows a first one that was queued, and is the first to do so.
func (e *expectedParts) take(k slotKey) bool {
	tag, h := e.find(k)
	return tag.CompareAndSwap(h, 0)
}
