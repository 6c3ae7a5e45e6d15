package switching

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// allowed is how many of n frames at now pass.
func allowed(l *Limiter, now time.Duration, n int) (passed int) {
	for range n {
		if l.Allow(now) {
			passed++
		}
	}
	return passed
}

func TestLimiter(t *testing.T) {
	for _, c := range []struct{ rate, burst int }{{1, 32}, {100, 32}, {128, 32}, {1000, 250}, {100_000, 25_000}} {
		var l Limiter
		l.SetRate(c.rate)
		if n := allowed(&l, time.Hour, 2*c.burst); n != c.burst {
			t.Errorf("%d a second: a burst of %d, want %d", c.rate, n, c.burst)
		}
		// Ten seconds of too much, seen every so often.
		n := 0
		step := time.Second / 20
		for now := time.Hour + step; now <= time.Hour+10*time.Second; now += step {
			n += allowed(&l, now, c.rate/20+5)
		}
		if want := 10 * c.rate; n < want-1 || n > want {
			t.Errorf("%d a second: %d in ten seconds", c.rate, n)
		}
		// What was refused was not charged, and rest fills no more than the bucket.
		if n := allowed(&l, 3*time.Hour, 2*c.burst); n != c.burst {
			t.Errorf("%d a second: a burst of %d after rest, want %d", c.rate, n, c.burst)
		}
	}
}

func TestLimiterWithoutLimit(t *testing.T) {
	var l Limiter
	for _, rate := range []int{0, -1, math.MinInt, math.MaxInt} {
		if n := allowed(&l, 0, 100_000); n != 100_000 {
			t.Errorf("rate %d: %d of 100000 pass", rate, n)
		}
		l.SetRate(rate)
	}
	if n := allowed(&l, 0, 100_000); n != 100_000 {
		t.Errorf("%d of 100000 pass", n)
	}
}

func TestLimiterRateChanges(t *testing.T) {
	var l Limiter
	l.SetRate(1)
	allowed(&l, 0, 100) // the bucket is full again in 32 s
	l.SetRate(1)
	if l.Allow(0) {
		t.Error("the same rate again filled the bucket")
	}
	l.SetRate(1000)
	if n := allowed(&l, 0, 1000); n != 250 {
		t.Errorf("%d pass at the new rate, want 250", n)
	}
	// A worker whose clock is behind takes no more.
	if allowed(&l, -time.Second, 10) != 0 {
		t.Error("the past has tokens")
	}
}

func TestLimiterIsShared(t *testing.T) {
	var l Limiter
	l.SetRate(4000)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { passed.Add(int64(allowed(&l, time.Second, 5000))) })
	}
	wg.Wait()
	if n := passed.Load(); n != 1000 {
		t.Errorf("%d pass, want 1000", n)
	}
}
