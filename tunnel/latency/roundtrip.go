package latency

import "time"

// leastFor is how long a half of the window of the least round-trip time lasts.
const leastFor = time.Minute

// roundTrip is the estimate of RFC 6298 §2, and the least of a window.
type roundTrip struct {
	known                     bool
	last, smoothed, variation time.Duration
	leastNow, leastBefore     time.Duration // of the current half of the window, and of the one before; 0: none
	since                     time.Duration // the current half began
}

func (r *roundTrip) sample(rtt, now time.Duration) {
	rtt = max(rtt, 1) // 0 stands for unknown
	r.last = rtt
	if !r.known {
		r.known, r.smoothed, r.variation = true, rtt, rtt/2
		r.leastNow, r.since = rtt, now
		return
	}
	// The variation uses the smoothed value before it is updated. Gains 1/4 and 1/8.
	r.variation += ((r.smoothed - rtt).Abs() - r.variation) / 4
	r.smoothed += (rtt - r.smoothed) / 8
	switch elapsed := now - r.since; {
	case elapsed >= 2*leastFor:
		r.leastBefore, r.leastNow, r.since = 0, rtt, now
	case elapsed >= leastFor:
		r.leastBefore, r.leastNow, r.since = r.leastNow, rtt, now
	default:
		r.leastNow = min(r.leastNow, rtt)
	}
}

func (r *roundTrip) least() time.Duration {
	if r.leastBefore != 0 {
		return min(r.leastBefore, r.leastNow)
	}
	return r.leastNow
}
