package loopguard

import "time"

const (
	// Rate is how many probes a second are passed on in the long run, of those from the interface and of those from peers.
	Rate = 200
	// Burst is how many are passed on at once after a rest.
	Burst = 50

	interval  = time.Second / Rate
	tolerance = (Burst - 1) * interval
)

// bucket is a token bucket as one time: when the next probe would be due were they spread evenly (the generic cell rate
// algorithm's theoretical arrival time). The zero value is full.
type bucket time.Duration

// take takes a token and reports whether there was one.
func (b *bucket) take(now time.Duration) bool {
	at := max(time.Duration(*b), now)
	if at-now > tolerance {
		return false
	}
	*b = bucket(at + interval)
	return true
}
