package icmp

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func drain(l *Limiter, now time.Duration) (n int) {
	for l.Allow(now) {
		n++
	}
	return n
}

func TestLimiter(t *testing.T) {
	var l Limiter
	if n := drain(&l, 0); n != Burst {
		t.Fatalf("a fresh limiter gave %d, want %d", n, Burst)
	}
	if n := drain(&l, interval-1); n != 0 {
		t.Fatalf("%d before a token was due", n)
	}
	if n := drain(&l, interval); n != 1 {
		t.Fatalf("%d when one token was due", n)
	}
	if n := drain(&l, interval+100*time.Millisecond); n != Rate/10 {
		t.Fatalf("%d after 100 ms, want %d", n, Rate/10)
	}
	if n := drain(&l, time.Hour); n != Burst {
		t.Fatalf("%d after an hour, want %d", n, Burst)
	}
	if n := drain(&l, time.Minute); n != 0 {
		t.Fatalf("%d when time went back", n)
	}
}

// TestLimiterBound compares with a bucket of Burst tokens that gains Rate tokens per second.
func TestLimiterBound(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var l Limiter
	var now, last time.Duration
	tokens := float64(Burst)
	for range 100000 {
		now += time.Duration(random.ExpFloat64() * float64(interval) * 0.7)
		tokens = min(Burst, tokens+float64(now-last)/float64(interval))
		last = now
		const epsilon = 1e-6
		got := l.Allow(now)
		if want := tokens >= 1; got != want && (tokens < 1-epsilon || tokens > 1+epsilon) {
			t.Fatalf("at %v with %v tokens: %v", now, tokens, got)
		}
		if got {
			tokens--
		}
	}
}

func TestLimiterConcurrently(t *testing.T) {
	var l Limiter
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if l.Allow(time.Second) {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != Burst {
		t.Errorf("%d passed at one instant, want %d", passed.Load(), Burst)
	}
}
