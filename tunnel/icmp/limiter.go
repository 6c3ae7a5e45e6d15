package icmp

import (
	"sync/atomic"
	"time"
)

const (
	// Rate is how many messages a [Limiter] lets pass per second in the long run.
	Rate = 100
	// Burst is how many it lets pass at once after it has rested.
	Burst = 50

	interval  = time.Second / Rate
	tolerance = (Burst - 1) * interval
)

// Limiter is a token bucket over all ICMP errors (RFC 1812 §4.3.2.8, RFC 4443 §2.4(f)). The zero value is full. It may be used
// concurrently, without a lock.
type Limiter struct {
	// due is when the next message would be due were they sent evenly (the generic cell rate algorithm's theoretical arrival
	// time): a bucket in one word.
	due atomic.Int64
}

// Allow takes a token at the monotonic time now and reports whether there was one. A now earlier than an earlier call's is
// harmless: it finds no more tokens than were there.
func (l *Limiter) Allow(now time.Duration) bool {
	for {
		due := l.due.Load()
		at := max(time.Duration(due), now)
		if at-now > tolerance {
			return false
		}
		if l.due.CompareAndSwap(due, int64(at+interval)) {
			return true
		}
	}
}
