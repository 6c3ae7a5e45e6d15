package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ask asks a monitor on a unix socket; "" where nobody is there.
func ask(t *testing.T, socket, path string) string {
	t.Helper()
	c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
	r, err := c.Get("http://culvert" + path)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.Status + "\n" + string(b)
}

// awaitIn asks until the answer has all of parts: it may be of half a second ago.
func awaitIn(t *testing.T, socket, path string, parts ...string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got := ask(t, socket, path)
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(got, p) }) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s has not all of %q: %.2000s", path, parts, got)
		}
	}
}

// stuck is an engine whose control loop does not answer.
type stuck struct{ *fakeEngine }

func (stuck) Responds(context.Context) error { return errors.New("no answer within 3s") }

// What the file says of monitor is there from the start on, follows a reload, and is as it was where one fails.
func TestMonitorFollowsTheFile(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, before)
	text := read(t, file.Path)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write := func(monitor string) {
		t.Helper()
		if err := os.WriteFile(file.Path, []byte(strings.Replace(text, "tunnels:", monitor+"tunnels:", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("monitor: {metrics: \"unix:" + a + "\"}\n")
	loaded, err := loadConfig(file.Path)
	if err != nil {
		t.Fatal(err)
	}
	in := newInstance(t, s, loaded)
	in.d.started = time.Now()
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, a, "/metrics"); !strings.Contains(got, "\nculvert_tunnel_up{interface=\"wg0\"") || !strings.Contains(got, "\nculvert_reloads_total{result=\"success\"} 0\n") {
		t.Errorf("at the start: %.300s", got)
	}
	if got := ask(t, a, "/healthz"); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	if got := ask(t, a, "/readyz"); !strings.HasPrefix(got, "503") || !strings.Contains(got, "tunnel wg0") { // the fake engine says it is down
		t.Error(got)
	}

	write("monitor: {metrics: \"unix:" + a + "\", page: \"unix:" + b + "\"}\n")
	if _, err := in.d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, b, "/healthz"); !strings.HasPrefix(got, "200") {
		t.Errorf("after a reload: %q", got)
	}
	awaitIn(t, a, "/metrics", "\nculvert_reloads_total{result=\"success\"} 1\n", "\nculvert_config_last_reload_successful 1\n")

	taken := filepath.Join(dir, "file")
	if err := os.WriteFile(taken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	write("monitor: {metrics: \"unix:" + taken + "\"}\n")
	s.take()
	if _, err := in.d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "is no socket") || !strings.Contains(err.Error(), file.Path+":2:1: ") {
		t.Errorf("a reload to a place that is taken: %v", err)
	}
	if got := s.take(); got != "" {
		t.Errorf("done all the same: %s", got)
	}
	awaitIn(t, a, "/metrics", "\nculvert_config_last_reload_successful 0\n", "\nculvert_reloads_total{result=\"failure\"} 1\n")

	in.tunnels[0].engine = stuck{s.engine}
	if got := ask(t, b, "/healthz"); !strings.HasPrefix(got, "503") || !strings.Contains(got, "tunnel wg0: its control loop: no answer") {
		t.Errorf("a loop that is stuck: %q", got)
	}
	write("")
	if _, err := in.d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, a, "/healthz") + ask(t, b, "/healthz"); got != "" {
		t.Errorf("still there: %q", got)
	}
	write("monitor: {page: \"unix:" + b + "\"}\n")
	if _, err := in.d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := in.teardown(); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, b, "/healthz"); got != "" {
		t.Errorf("after the end: %q", got)
	}
}
