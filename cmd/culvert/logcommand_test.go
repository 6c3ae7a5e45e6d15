package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whoever asks is told the latest lines, and may change the level, which the log says; what is logged wherever it goes follows.
func TestLogIsAskedFor(t *testing.T) {
	var out strings.Builder
	d := &daemon{name: "site", kind: "up", p: &program{stderr: &out}}
	if err := d.openLog(slog.LevelInfo); err != nil {
		t.Fatal(err)
	}
	p := serveDaemon(t, d)
	for i := range 3 * recentLines {
		d.log.Info("line", "n", i)
		d.log.Debug("hidden")
	}
	all, errs, code := p.command("log", "site")
	lines := strings.Split(strings.TrimSpace(string(all)), "\n")
	if code != 0 || string(errs) != "(level info)\n" || len(lines) != recentLines || !strings.HasSuffix(lines[0], fmt.Sprintf("msg=line n=%d", 2*recentLines)) ||
		!strings.HasSuffix(lines[recentLines-1], fmt.Sprintf("msg=line n=%d", 3*recentLines-1)) {
		t.Errorf("%d lines, from %q to %q; %s", len(lines), lines[0], lines[len(lines)-1], errs)
	}
	if _, errs, code := p.command("log", "site", "--level", "debug"); code != 0 || string(errs) != "site logs from debug on\n" {
		t.Errorf("%s, %d", errs, code)
	}
	d.log.Debug("shown", "odd", strings.Repeat("\x1b[2J\n", 1000))
	if _, errs, code := p.command("log", "site", "--level", "error"); code != 0 || string(errs) != "site logs from error on\n" {
		t.Errorf("%s, %d", errs, code)
	}
	d.log.Warn("hidden")
	all, _, _ = p.command("log", "site", "-n", "3")
	lines = strings.Split(strings.TrimSpace(string(all)), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "from=info to=debug") || !strings.Contains(lines[1], `msg=shown odd="\x1b[2J\n`) || len(lines[1]) > recentLine ||
		!strings.Contains(lines[2], "from=debug to=error") {
		t.Errorf("%q", lines)
	}
	if strings.Contains(out.String(), "hidden") || !strings.Contains(out.String(), "shown") {
		t.Error("the log itself has other lines")
	}
	for args, want := range map[string]string{"site --level loud": "no level", "none": "nothing called none", "site -n -1": "negative"} {
		if _, errs, code := p.command(append([]string{"log"}, strings.Fields(args)...)...); code == 0 || !strings.Contains(string(errs), want) {
			t.Errorf("log %s: %s, %d", args, errs, code)
		}
	}
}

func TestSignalsSetTheLevel(t *testing.T) {
	var out strings.Builder
	d := &daemon{name: "site", kind: "up", p: &program{stderr: &out}}
	if err := d.openLog(slog.LevelWarn); err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal)
	go d.heed(t.Context(), signals)
	for _, c := range []struct {
		signal os.Signal
		want   slog.Level
	}{{syscall.SIGUSR1, slog.LevelDebug}, {syscall.SIGUSR1, slog.LevelDebug}, {syscall.SIGUSR2, slog.LevelWarn}} {
		signals <- c.signal
		for end := time.Now().Add(10 * time.Second); d.level.Level() != c.want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after %v the level is %v", c.signal, d.level.Level())
			}
		}
	}
}
