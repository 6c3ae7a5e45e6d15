package sleep

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, changed, tick := make(chan struct{}), make(chan struct{}), make(chan time.Time)
		asleep := 3 * time.Hour // before it began
		var told []time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			follow(stop, changed, tick, func() time.Duration { return asleep }, func(d time.Duration) { told = append(told, d) })
		}()
		synctest.Wait()
		changed <- struct{}{} // the clock was set
		synctest.Wait()
		asleep += 20 * time.Millisecond // as the clocks may be read
		tick <- time.Time{}
		synctest.Wait()
		asleep += time.Minute
		changed <- struct{}{}
		synctest.Wait()
		tick <- time.Time{}
		synctest.Wait()
		asleep += time.Hour
		tick <- time.Time{}
		synctest.Wait()
		close(stop)
		<-done
		if want := []time.Duration{time.Minute + 20*time.Millisecond, time.Hour}; !slices.Equal(told, want) {
			t.Errorf("told of %v, want %v", told, want)
		}
	})
}
