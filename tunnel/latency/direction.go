package latency

import (
	"math"
	"time"
)

const (
	// weight is the age at which a measurement counts 1/e.
	weight = time.Minute
	// plausible bounds what may have been sent between two measurements. Above it somebody makes numbers up.
	plausible = 1 << 40
)

// direction is the loss of one direction of the data path. Counts start at 0 with each session, so the messages missing at
// any time are those sent less those received under it. A message overtaken by an echo is missing for one measurement and
// taken back by the next.
type direction struct {
	known         bool
	session, left uint64 // the session counted, and the one before
	hasLeft       bool
	at            time.Duration // of the last measurement
	sent, missing uint64        // of the session at the last measurement
	received      uint64

	recentSent, recentLost float64 // weighted by age
	allSent, allLost       uint64  // of the sessions before
}

// sample takes both ends' counts of a session. Numbers that cannot be are ignored: counts that go back, or leap. More received
// than sent is taken for all received.
func (d *direction) sample(session, sent, received uint64, now time.Duration) {
	if d.known && session != d.session {
		if d.hasLeft && session == d.left {
			return
		}
		// Its counts start at 0, and the missing of the one before stay so.
		d.left, d.hasLeft = d.session, true
		d.allSent, d.allLost = saturated(d.allSent, d.sent), saturated(d.allLost, d.missing)
		d.sent, d.received, d.missing = 0, 0, 0
	}
	d.session = session
	if sent < d.sent || received < d.received || sent-d.sent > plausible {
		return
	}
	missing := sent - min(sent, received)
	if d.known {
		decay := math.Exp(-float64(max(now-d.at, 0)) / float64(weight))
		d.recentSent *= decay
		d.recentLost *= decay
	}
	d.recentSent += float64(sent - d.sent)
	d.recentLost += float64(missing) - float64(d.missing)
	d.recentLost = min(max(d.recentLost, 0), d.recentSent)
	d.known, d.at, d.sent, d.received, d.missing = true, now, sent, received, missing
}

func (d *direction) loss() (Loss, bool) {
	if !d.known || d.recentSent <= 0 {
		return Loss{}, false
	}
	return Loss{
		Fraction: min(max(d.recentLost/d.recentSent, 0), 1),
		Sent:     saturated(d.allSent, d.sent), Lost: saturated(d.allLost, d.missing),
	}, true
}

func saturated(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
