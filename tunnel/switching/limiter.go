package switching

import (
	"sync/atomic"
	"time"
)

// A limiter's burst is a quarter of a second's worth of frames, but at least minBurst: an idle port may send that many at once.
const (
	burstTime = time.Second / 4
	minBurst  = 32
)

// Limiter is a token bucket for frames of one kind from one port. It is kept as the time at which it will be full, so that
// one word is all of its state. The zero value has no limit.
type Limiter struct {
	interval atomic.Int64 // what a frame costs, in ns; 0: no limit
	fullAt   atomic.Int64
}

// SetRate changes how many frames a second pass; 0 and less is no limit, and so is more than a billion. A rate that changed
// starts with a full bucket.
func (l *Limiter) SetRate(framesPerSecond int) {
	interval := int64(0)
	if framesPerSecond > 0 {
		interval = int64(time.Second) / int64(framesPerSecond)
	}
	if l.interval.Swap(interval) != interval {
		l.fullAt.Store(0) // what is owed at a slow rate would block a fast one for long
	}
}

// Allow takes a frame's token and reports whether there was one. A frame that is refused costs nothing, and writes nothing.
func (l *Limiter) Allow(now time.Duration) bool {
	for {
		interval := l.interval.Load()
		if interval == 0 {
			return true
		}
		was := l.fullAt.Load()
		full := max(was, int64(now)) + interval
		if full-int64(now) > max(int64(burstTime), minBurst*interval) {
			return false
		}
		if l.fullAt.CompareAndSwap(was, full) {
			return true
		}
	}
}
