package tunnel

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
)

// checked is what Check finds, with an hour's patience of the bubble's.
func (a *node) checked() error {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Hour)
	defer cancel()
	return a.Check(ctx)
}

// A tunnel at work is in order, idle or not, and so is one that was closed; each worker has a pulse as long as it lives.
func TestCheckOfAHealthyTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		for range 3 {
			if err := a.checked(); err != nil {
				t.Fatal(err)
			}
			a.send(b, "there")
			b.expect("there")
			b.send(a, "and back")
			a.expect("and back")
			synctest.Wait()
		}
		if live, peers := a.Sessions(); live != 1 || peers != 1 {
			t.Errorf("sessions with %d of %d peers, want with the one", live, peers)
		}
		turned := 0
		for p := range a.pulses.list {
			if n := p.turns.Load(); n%2 != 0 {
				t.Errorf("%s has been at it %d times, and waits", p.name, n)
			} else if n > 0 {
				turned++
			}
		}
		if turned != 2 { // one out, one in
			t.Errorf("%d pulses have moved of %d", turned, len(a.pulses.list))
		}
		before := len(a.pulses.list)
		port := uint16(4000)
		a.configure(Change{ListenPort: &port})
		synctest.Wait()
		if len(a.pulses.list) != before {
			t.Errorf("%d pulses with another port, %d before", len(a.pulses.list), before)
		}
		a.Close()
		if err := a.checked(); err != nil {
			t.Error(err)
		}
		if len(a.pulses.list) != 0 {
			t.Errorf("%d pulses of a closed tunnel", len(a.pulses.list))
		}
	})
}

// A worker that does not get on with what it has in hand is found at the second check, and no more once it does.
func TestCheckFindsAStuckWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		p := a.lookupPeer(b.public)
		p.mu.Lock() // which the worker needs, as there is no session
		a.send(b, "waits")
		var out *pulse
		for out == nil {
			runtime.Gosched()
			for q := range a.pulses.list {
				if q.turns.Load()%2 == 1 {
					out = q
				}
			}
		}
		if err := a.checked(); err != nil {
			t.Error("it may just be busy:", err)
		}
		if err := a.checked(); err == nil || !strings.Contains(err.Error(), out.name) {
			t.Errorf("a stuck worker: %v, want its name, %q", err, out.name)
		}
		p.mu.Unlock()
		b.expect("waits")
		if err := a.checked(); err != nil {
			t.Error(err)
		}
	})
}

// A control loop that does not come round is found.
func TestCheckFindsAStuckControlLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, transporttest.New(1), 1)
		synctest.Wait()
		a.configuring.Lock() // which the loop needs to follow the interface
		a.dev.SetUp(false)
		for len(a.dev.Events()) > 0 {
			runtime.Gosched()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for err := error(nil); err == nil; err = a.Check(ctx) { // until it has taken the event
			runtime.Gosched()
		}
		if err := a.Check(ctx); err != errControlStuck {
			t.Errorf("a stuck loop: %v", err)
		}
		a.configuring.Unlock()
		if err := a.checked(); err != nil {
			t.Error(err)
		}
	})
}
