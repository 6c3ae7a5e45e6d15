package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"culvert/control"
)

const (
	// hookTime bounds one run of a program.
	hookTime = 30 * time.Second
	// hooksAtOnce is how many programs run at once, of all hooks.
	hooksAtOnce = 4
	// A hook runs hookBurst times at once, and then once per hookEvery.
	hookBurst = 30
	hookEvery = time.Second
	// staleAfter is how old an event may be when its turn comes; then it is only counted.
	staleAfter = time.Minute
	// lastTime bounds what is still to be run when the daemon ends.
	lastTime = 10 * time.Second
	// hookOutput is how much of a program's output is logged, in bytes.
	hookOutput = 2048
)

// Hook is a program that is run at events: each time with the event as a line of JSON on its standard input, and without a shell. Runs of one
// hook follow each other in the order of the events.
type Hook struct {
	Events []string // kinds, or groups of them
	Run    []string // the program's path, and its arguments
	Where  string   // file:line:column, for the log
}

// Hooks runs programs at events, beside everything else: nobody waits for them.
type Hooks struct {
	hub *Hub
	log *slog.Logger
	run func(*exec.Cmd) error

	places chan struct{}
	ended  context.Context // ends what runs
	end    context.CancelFunc
	all    sync.WaitGroup

	list []Hook
	stop context.CancelFunc // no further events are taken; nil where there are no hooks
}

// NewHooks makes hooks without any. run runs a command that has been made ready, as exec.Cmd's Run does.
func NewHooks(hub *Hub, log *slog.Logger, run func(*exec.Cmd) error) *Hooks {
	h := &Hooks{hub: hub, log: log, run: run, places: make(chan struct{}, hooksAtOnce)}
	h.ended, h.end = context.WithCancel(context.Background())
	return h
}

// Set makes these the hooks in force. What has happened before is still told to the earlier ones.
func (h *Hooks) Set(list []Hook) {
	if h == nil {
		return
	}
	if h.ended.Err() != nil || reflect.DeepEqual(h.list, list) {
		return
	}
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
	h.list = list
	if len(list) == 0 {
		return
	}
	var taking context.Context
	taking, h.stop = context.WithCancel(h.ended)
	for _, hook := range list {
		s := h.hub.Subscribe(control.EventOptions{Kinds: hook.Events})
		h.all.Go(func() {
			defer s.Close()
			h.serve(taking, &hook, s)
		})
	}
}

// Close waits for what is still to be run, after the hub was closed, and ends what takes longer than 10 s.
func (h *Hooks) Close() {
	if h == nil {
		return
	}
	timer := time.AfterFunc(lastTime, h.end)
	h.all.Wait()
	timer.Stop()
	h.end()
	if h.stop != nil {
		h.stop()
	}
}

// serve runs a hook for what its subscription gives.
func (h *Hooks) serve(taking context.Context, hook *Hook, s *Subscription) {
	var skipped uint64
	// When the next run may be: hookEvery later after each, and never further back than a burst's worth.
	next := time.Now().Add(-hookBurst * hookEvery)
	for {
		list, end := s.Next(taking)
		for i := range list {
			e := &list[i]
			if now := time.Now(); next.Before(now.Add(-hookBurst * hookEvery)) {
				next = now.Add(-hookBurst * hookEvery)
			}
			wait := time.NewTimer(time.Until(next))
			select {
			case <-wait.C:
			case <-h.ended.Done():
				wait.Stop()
				return
			}
			if time.Since(e.Time) > staleAfter {
				skipped += max(1, e.Missed)
				continue
			}
			if skipped > 0 {
				h.log.Warn("a hook was too slow for some events", "hook", hook.Where, "events", skipped)
				next = next.Add(hookEvery)
				h.runOne(hook, &control.Event{Time: time.Now().UTC(), Event: control.EventMissed, Instance: e.Instance, Missed: skipped})
				skipped = 0
			}
			next = next.Add(hookEvery)
			h.runOne(hook, e)
		}
		if end != nil {
			return
		}
	}
}

func (h *Hooks) runOne(hook *Hook, e *control.Event) {
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	case <-h.ended.Done():
		return
	}
	line, err := json.Marshal(e)
	if err != nil {
		h.log.Error("an event cannot be encoded", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(h.ended, hookTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, hook.Run[0], hook.Run[1:]...)
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(append(line, '\n'))
	out := new(firstBytes)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "CULVERT_EVENT="+e.Event, "CULVERT_INSTANCE="+e.Instance)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = h.run(cmd)
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well; what it has left running holds its output
	}
	switch {
	case h.ended.Err() != nil:
		err = fmt.Errorf("the daemon ends, and it was still running after %v: killed", lastTime)
	case ctx.Err() != nil:
		err = fmt.Errorf("still running after %v: killed", hookTime)
	}
	if err != nil {
		h.log.Warn("a hook has failed", "hook", hook.Where, "program", hook.Run[0], "event", e.Event, "error", err, "output", out.String())
		return
	}
	h.log.Debug("a hook was run", "hook", hook.Where, "program", hook.Run[0], "event", e.Event, "output", out.String())
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct {
	mu  sync.Mutex
	buf []byte
}

var _ io.Writer = (*firstBytes)(nil)

func (f *firstBytes) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = append(f.buf, b[:min(len(b), hookOutput-len(f.buf))]...)
	return len(b), nil
}

func (f *firstBytes) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.TrimSpace(string(f.buf))
}
