package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"culvert/tunnel"
)

const (
	// lookAtAll is how often the daemon's engines are looked at where no service manager says.
	lookAtAll = 10 * time.Second
	// soonestCheck keeps a service manager from keeping the daemon busy.
	soonestCheck = 10 * time.Millisecond
)

// watched looks after the engines until the returned function is called. As long as all of them get on with their work the service manager
// hears so; where one does not, it hears nothing, and ends the process with SIGABRT, at which it writes down what each goroutine was at.
func (d *daemon) watched() (stop func()) {
	if d.notify.socket == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	every := lookAtAll
	if d.notify.watchdog > 0 {
		every = max(d.notify.watchdog/3, soonestCheck)
	}
	watching.Go(func() {
		keepWatch(ctx, every, d.check, func() {
			if d.notify.watchdog > 0 {
				d.notify.tell("WATCHDOG=1")
			}
			d.tellSummary()
		})
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// keepWatch calls well as often as told, where check finds nothing, until ctx ends.
func keepWatch(ctx context.Context, every time.Duration, check func(context.Context) error, well func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, every)
		err := check(limited)
		cancel()
		if err == nil {
			well()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// namedEngine is the engine of an interface.
type namedEngine struct {
	name string
	engine
}

// check asks every engine whether it gets on, and says so where one does not.
func (d *daemon) check(ctx context.Context) (err error) {
	for _, e := range d.body.engines() {
		if err = e.Check(ctx); errors.Is(err, tunnel.ErrSuspended) {
			err = nil // whoever suspended it is at work
			continue
		}
		if err != nil {
			if ctx.Err() != context.Canceled {
				d.log.Error("a tunnel does not get on with its work", "interface", e.name, "error", err)
			}
			return err
		}
	}
	return nil
}

// tellSummary tells the service manager what has changed since it was last told. While something is under way that is left out.
func (d *daemon) tellSummary() {
	if !d.ops.TryLock() {
		return
	}
	defer d.ops.Unlock()
	if d.up && d.notify.now(d.summary()) {
		d.notify.tell("STATUS=" + d.notify.text())
	}
}

// summary says in a few words what the daemon has.
func (d *daemon) summary() string {
	live, peers := 0, 0
	all := d.body.engines()
	for _, e := range all {
		l, p := e.Sessions()
		live, peers = live+l, peers+p
	}
	return fmt.Sprintf("%s, sessions with %d of %s", counted(len(all), "tunnel"), live, counted(peers, "peer"))
}
