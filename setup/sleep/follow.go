package sleep

import "time"

// least is the shortest suspension that is told of: the two clocks are not read at the same instant.
const least = time.Second

// follow calls woke with by how much asleep, which is how long the machine has been suspended since it started, has grown, until stop is
// closed. It looks whenever something comes from one of the channels.
func follow(stop, changed <-chan struct{}, tick <-chan time.Time, asleep func() time.Duration, woke func(slept time.Duration)) {
	known := asleep()
	for {
		select {
		case <-stop:
			return
		case <-changed:
		case <-tick:
		}
		if now := asleep(); now-known >= least {
			woke(now - known)
			known = now
		}
	}
}
