package sleep

import (
	"testing"
	"time"
)

// What two readings differ by is nothing while the machine is awake.
func TestAsleepStandsStill(t *testing.T) {
	first := Asleep()
	for range 1000 {
		if d := Asleep() - first; d < -least/2 || d > least/2 {
			t.Fatalf("asleep for %v more", d)
		}
	}
}

// The kernel gives the timer, it does not come by itself, and a watch ends when it is told to.
func TestWatchEnds(t *testing.T) {
	f, err := wallTimer()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tell(f, make(chan struct{}))
	}()
	select {
	case <-ended:
		t.Error("the timer came")
	case <-time.After(50 * time.Millisecond):
	}
	f.Close()
	<-ended
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		Watch(stop, func(d time.Duration) { t.Errorf("woke after %v", d) })
	}()
	close(stop)
	<-done
}
