package tunnel

import (
	"net/netip"
	"sync"
	"time"
)

// Handshakes answered under load, per IPv4 address or IPv6 /64.
const (
	handshakesPerSecond = 20
	handshakeBurst      = 5
	maxLimited          = 8192 // sources remembered at once; beyond that new sources are refused until some have rested
)

const (
	handshakeCost = time.Second / handshakesPerSecond
	bucketDepth   = handshakeBurst * handshakeCost
)

// rateLimiter is a token bucket per source address. A bucket is kept as the time at which it will be full, so that a rested
// bucket and a missing one are the same and can be forgotten.
type rateLimiter struct {
	mu     sync.Mutex
	fullAt map[netip.Addr]time.Duration
	swept  time.Duration
}

// allow takes a token of the source's bucket and reports whether there was one.
func (l *rateLimiter) allow(source netip.Addr, now time.Duration) bool {
	if source.Is6() && !source.Is4In6() {
		if p, err := source.WithZone("").Prefix(64); err == nil {
			source = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fullAt == nil {
		l.fullAt = make(map[netip.Addr]time.Duration)
	}
	if now-l.swept >= bucketDepth {
		l.swept = now
		for a, full := range l.fullAt {
			if full <= now {
				delete(l.fullAt, a)
			}
		}
	}
	full, known := l.fullAt[source]
	if !known && len(l.fullAt) >= maxLimited {
		return false
	}
	full = max(full, now) + handshakeCost
	if full-now > bucketDepth {
		return false
	}
	l.fullAt[source] = full
	return true
}
