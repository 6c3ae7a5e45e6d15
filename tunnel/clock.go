package tunnel

import (
	"sync/atomic"
	"time"
)

// clock tells the time since the engine's start. It is read once per batch by the datapath and once per event by the
// control loop; everything else takes `now` as an argument. The monotonic clock stands still while the machine is suspended: what it has
// missed is added once that is known (Options.Sleep), so that everything is as old as the far ends take it to be.
type clock struct {
	epoch  time.Time
	onWall func() time.Time // time.Now, or a test's
	slept  *atomic.Int64    // while the machine was suspended, as far as known
}

func newClock() clock { return clock{epoch: time.Now(), onWall: time.Now, slept: new(atomic.Int64)} }

// now returns the time since the epoch, which never goes back, never zero, so that zero can mean "never" in a field.
func (c clock) now() time.Duration { return time.Since(c.epoch) + 1 + time.Duration(c.slept.Load()) }

// wall returns the wall clock's time, which may have been set since the epoch.
func (c clock) wall() time.Time { return c.onWall() }

// advance has the clock go on by what it has missed.
func (c clock) advance(slept time.Duration) { c.slept.Add(int64(slept)) }

// clockAt is a clock that says that so much time has passed.
func clockAt(now time.Duration) clock {
	c := newClock()
	c.epoch = c.epoch.Add(1 - now)
	return c
}
