package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// As long as an engine does not get on, the service manager hears nothing.
func TestWatchdogIsSilentOfAStuckEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 10 * time.Second
		var log bytes.Buffer
		stuck := &stuckEngine{}
		d := &daemon{log: slog.New(slog.NewTextHandler(&log, nil)), out: io.Discard}
		d.body = &enginesBody{list: []namedEngine{{"wg0", &stuckEngine{}}, {"wg1", stuck}}}
		ctx, cancel := context.WithCancel(t.Context())
		pings := 0
		go keepWatch(ctx, every, d.check, func() { pings++ })
		after := func(d time.Duration) int {
			before := pings
			time.Sleep(d)
			synctest.Wait()
			return pings - before
		}
		time.Sleep(time.Second)
		if n := after(time.Minute); n != 6 {
			t.Errorf("%d pings in a minute, want 6", n)
		}
		stuck.hangs = true // it does not come back at all
		after(every)
		if n := after(time.Minute); n != 0 {
			t.Errorf("%d pings of a hanging engine", n)
		}
		if !strings.Contains(log.String(), "interface=wg1") {
			t.Errorf("the log does not say which:\n%s", log.String())
		}
		stuck.hangs, stuck.err = false, errors.New("stuck")
		after(every)
		if n := after(time.Minute); n != 0 {
			t.Errorf("%d pings of an engine that says it is stuck", n)
		}
		stuck.err = nil
		after(every)
		if n := after(time.Minute); n != 6 {
			t.Errorf("%d pings in a minute once it gets on again, want 6", n)
		}
		cancel()
	})
}

type stuckEngine struct {
	engine
	hangs bool
	err   error
}

func (e *stuckEngine) Check(ctx context.Context) error {
	if e.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return e.err
}

type enginesBody struct {
	body
	list []namedEngine
}

func (b *enginesBody) engines() []namedEngine { return b.list }
