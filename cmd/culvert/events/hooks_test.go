package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/control"
	"culvert/internal/lab"
)

// ran collects what hooks were run for: the arguments, and the event's kind.
type ran struct {
	mu   sync.Mutex
	list []string
	wait func(*exec.Cmd) error
	most int // at once
	now  int
}

func (r *ran) run(cmd *exec.Cmd) error {
	line, err := io.ReadAll(cmd.Stdin)
	if err != nil {
		return err
	}
	var e control.Event
	if err := json.Unmarshal(line, &e); err != nil || line[len(line)-1] != '\n' || bytes.Count(line, []byte("\n")) != 1 {
		return fmt.Errorf("%q: %v", line, err)
	}
	word := strings.Join(cmd.Args, " ") + " " + e.Event
	if e.Missed > 0 {
		word += fmt.Sprint(e.Missed)
	}
	r.mu.Lock()
	r.list = append(r.list, word)
	r.now++
	r.most = max(r.most, r.now)
	wait := r.wait
	r.mu.Unlock()
	if wait != nil {
		err = wait(cmd)
	}
	r.mu.Lock()
	r.now--
	r.mu.Unlock()
	return err
}

func (r *ran) waits(wait func(*exec.Cmd) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait = wait
}

func (r *ran) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return strings.Join(list, "; ")
}

func TestHooksRunAtTheirEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		hub, r := NewHub("site", nil), &ran{}
		h := NewHooks(hub, slog.New(slog.NewTextHandler(&log, nil)), r.run)
		h.Set([]Hook{{Events: []string{"peer"}, Run: []string{"/bin/a", "x"}, Where: "f:1:1"}})
		hub.Publish(control.Event{Event: control.EventPeerLost})
		hub.Publish(control.Event{Event: control.EventTunnelUp})
		synctest.Wait()
		if got := r.take(); got != "/bin/a x peer-lost" {
			t.Error(got)
		}
		// Others from a reload on; what has happened before is still told.
		r.waits(func(*exec.Cmd) error { time.Sleep(5 * time.Second); return errors.New("does not want") })
		hub.Publish(control.Event{Event: control.EventPeerLost})
		hub.Publish(control.Event{Event: control.EventPeerConnected})
		h.Set([]Hook{{Events: []string{"instance", "tunnel-up"}, Run: []string{"/bin/b"}, Where: "f:2:2"}})
		hub.Publish(control.Event{Event: control.EventTunnelUp})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := r.take(); !strings.Contains(got, "/bin/a x peer-lost; ") || !strings.Contains(got, "/bin/a x peer-connected") || !strings.Contains(got, "/bin/b tunnel-up") {
			t.Error(got)
		}
		if !strings.Contains(log.String(), "level=WARN msg=\"a hook has failed\" hook=f:1:1 program=/bin/a event=peer-lost error=\"does not want\"") {
			t.Error(log.String())
		}
		// The last event is told, too, for a while.
		hub.Publish(control.Event{Event: control.EventInstanceEnding})
		hub.Close()
		h.Close()
		if got := r.take(); got != "/bin/b instance-ending" {
			t.Error(got)
		}
		h.Set([]Hook{{Events: []string{"peer"}, Run: []string{"/bin/a"}}})
		(*Hooks)(nil).Close()
	})
}

// A flood of events does not become a flood of processes: 30 at once, then one a second, four at a time of all hooks; what is older than a
// minute is told as a number.
func TestHooksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, r := NewHub("site", nil), &ran{}
		h := NewHooks(hub, slog.New(slog.DiscardHandler), r.run)
		var list []Hook
		for i := range 8 {
			list = append(list, Hook{Events: []string{"peer"}, Run: []string{fmt.Sprint("/bin/", i)}})
		}
		r.waits(func(*exec.Cmd) error { time.Sleep(time.Millisecond); return nil })
		h.Set(list)
		for range 500 {
			hub.Publish(control.Event{Event: control.EventPeerLost})
		}
		time.Sleep(500 * time.Millisecond)
		if n := strings.Count(r.take(), "peer-lost"); n < 8*hookBurst || n > 8*(hookBurst+2) {
			t.Errorf("%d runs at once, want about %d", n, 8*hookBurst)
		}
		time.Sleep(10 * time.Second)
		if n := strings.Count(r.take(), "peer-lost"); n < 8*9 || n > 8*11 {
			t.Errorf("%d runs in 10 s", n)
		}
		time.Sleep(5 * time.Minute)
		r.take()
		hub.Publish(control.Event{Event: control.EventPeerConnected})
		time.Sleep(5 * time.Second)
		got := strings.Split(r.take(), "; ")
		if len(got) != 16 || !strings.Contains(strings.Join(got, " "), "events-missed4") {
			t.Errorf("%q", got)
		}
		if r.most > hooksAtOnce {
			t.Errorf("%d at once", r.most)
		}
		// Whoever hangs is cut off at the end.
		r.waits(func(*exec.Cmd) error { <-h.ended.Done(); return nil })
		hub.Publish(control.Event{Event: control.EventPeerLost})
		hub.Close()
		start := time.Now()
		h.Close()
		if took := time.Since(start); took != lastTime {
			t.Errorf("the end took %v", took)
		}
	})
}

// A real program: no shell, the event on its standard input, its words in the log.
func TestHookProgram(t *testing.T) {
	dir := t.TempDir()
	script, file := filepath.Join(dir, "hook"), filepath.Join(dir, "said")
	lab.WriteProgram(t, script, []byte("#!/bin/sh\ncat >\"$1\"\necho \"$2 $CULVERT_EVENT $CULVERT_INSTANCE\"\nexit 3\n"), 0o700)
	var log bytes.Buffer
	hub := NewHub("site", nil)
	h := NewHooks(hub, slog.New(slog.NewTextHandler(&log, nil)), (*exec.Cmd).Run)
	h.Set([]Hook{{Events: []string{"peer"}, Run: []string{script, file, "$(id); `id`"}, Where: "f:1:1"}})
	hub.Publish(control.Event{Event: control.EventPeerLost, Why: "a\nb'; id"})
	hub.Close()
	h.Close()
	var e control.Event
	line, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(line, &e)
	}
	if err != nil || e.Event != control.EventPeerLost || e.Why != "a\nb'; id" || e.Instance != "site" {
		t.Errorf("the program got %s: %v", line, err)
	}
	if !strings.Contains(log.String(), "error=\"exit status 3\" output=\"$(id); `id` peer-lost site\"") {
		t.Error(log.String())
	}
}
