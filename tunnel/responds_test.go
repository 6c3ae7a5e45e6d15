package tunnel

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"culvert/transport/transporttest"
	"culvert/tunnel/device/devicetest"
)

// A loop at work answers, one that is stuck does not, and one that has ended says why. Outside a bubble: what waits for a lock stops a
// bubble's clock.
func TestResponds(t *testing.T) {
	dev := devicetest.New("wg1", testMTU, 1)
	tun, err := New(dev, transporttest.New(1).Host(netip.MustParseAddr("192.0.2.1")), Options{Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	ask := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return tun.Responds(ctx)
	}
	if err := ask(time.Minute); err != nil {
		t.Fatal(err)
	}
	tun.configuring.Lock()
	dev.SetUp(false)
	dev.SetUp(true) // the loop takes it, and waits for the lock
	for end := time.Now().Add(time.Minute); ; {
		err := ask(20 * time.Millisecond)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("the loop waits for a lock, and says %v", err)
		}
	}
	tun.configuring.Unlock()
	if err := ask(time.Minute); err != nil {
		t.Fatal(err)
	}
	dev.Remove()
	<-tun.Done()
	if err := ask(time.Minute); err == nil || err != tun.Err() {
		t.Errorf("after the end: %v, want %v", err, tun.Err())
	}
	closed, err := New(devicetest.New("wg2", testMTU, 1), transporttest.New(1).Host(netip.MustParseAddr("192.0.2.1")), Options{Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if err := closed.Responds(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed one: %v", err)
	}
}
