package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompletion asks what shells ask.
func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	// One that runs: its socket, and the lock beside it.
	l, err := net.Listen("unix", filepath.Join(dir, "office.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(filepath.Join(dir, "office.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	for _, folder := range []string{"lab", "office", ".server", ".usage"} {
		if err := os.MkdirAll(filepath.Join(state, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	const noFiles, default_, byEnding = "4", "0", "8"
	for _, c := range []struct {
		line string
		want string // the candidates
		how  string // cobra's directive
	}{
		{"status", "lab office", noFiles},
		{"status office", "", noFiles},
		{"reload", "lab office", noFiles},
		{"down", "lab office", noFiles},
		{"destroy", "lab office", default_},
		{"export", "lab office", default_},
		{"up", "yaml yml conf", byEnding},
		{"check", "yaml yml conf", byEnding},
		{"genkey", "", noFiles},
		{"invite", "", noFiles},
		{"client revoke", "", noFiles},
		{"client add --qr --svg", "svg", byEnding},
	} {
		var out bytes.Buffer
		p := newProgram(strings.NewReader(""), &out, &bytes.Buffer{})
		p.runDir, p.stateDir, p.service = dir, state, nil
		args := append([]string{"culvert", "__complete"}, strings.Fields(c.line)...)
		if code := p.run(append(args, "")); code != 0 {
			t.Errorf("%s: exit code %d", c.line, code)
			continue
		}
		words, how, _ := strings.Cut(out.String(), ":")
		if got := strings.Join(strings.Fields(words), " "); got != c.want || strings.TrimSpace(how) != c.how {
			t.Errorf("%s: %q with directive %s, want %q with %s", c.line, got, strings.TrimSpace(how), c.want, c.how)
		}
	}
}
