package tunnel

import "time"

// clock tells the time since the engine's start. It is read once per batch by the datapath and once per event by the
// control loop; everything else takes `now` as an argument.
type clock struct {
	epoch  time.Time
	onWall func() time.Time // time.Now, or a test's
}

func newClock() clock { return clock{epoch: time.Now(), onWall: time.Now} }

// now returns the monotonic time since the epoch, never zero, so that zero can mean "never" in a field.
func (c clock) now() time.Duration { return time.Since(c.epoch) + 1 }

// wall returns the wall clock's time, which may have been set since the epoch.
func (c clock) wall() time.Time { return c.onWall() }

// clockAt is a clock that says that so much time has passed.
func clockAt(now time.Duration) clock { return clock{epoch: time.Now().Add(1 - now), onWall: time.Now} }
