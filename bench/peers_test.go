package main

import (
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// TestQuickPeers has all daemons take peers, and make sessions with all of them.
func TestQuickPeers(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	lab.NeedProgram(t, "go")
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	err := run(t.Context(), []string{"-quick", "-parts", "peers", "-peers", "1,50", "-window", "200ms", "-out", file}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	r, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Peers) != 6 || len(r.Implementations) != 3 {
		t.Fatalf("%d trials of %d implementations", len(r.Peers), len(r.Implementations))
	}
	for _, p := range r.Peers {
		several := p.Peers > 1
		if (p.Configure != nil) != several || (p.Sessions != nil) != several || p.TCP == nil || p.Bare <= 0 || p.Peak < p.Traffic {
			t.Errorf("%+v", p)
		}
		if several && (p.Sessions.Count != 49 || p.Sessions.Before <= 0 || p.Sessions.After <= 0) {
			t.Errorf("%s: %+v", p.Implementation, p.Sessions)
		}
	}
	if !strings.Contains(stdout.String(), "memory with all sessions") {
		t.Errorf("table:\n%s", stdout.String())
	}
	file = filepath.Join(t.TempDir(), "native.json")
	stderr.Reset()
	err = run(t.Context(), []string{"-quick", "-parts", "peers", "-peers", "1", "-only", native, "-window", "200ms", "-out", file}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if r, err = loadResults(file); err != nil || len(r.Peers) != 1 || r.Peers[0].Implementation != native || len(r.Implementations) != 1 {
		t.Errorf("only %s: %v, %+v", native, err, r)
	}
}

func TestPeersTable(t *testing.T) {
	trial := func(name string, right int64) PeersTrial {
		return PeersTrial{Round: 1, Implementation: name, Peers: peersAimed, Configure: &Effort{0.5, 0.1}, Bare: 10e6, Configured: right,
			Sessions: &SessionsUp{Count: peersAimed - 1, CPU: 2, Before: 60e6, After: 160e6}, Peak: 170e6}
	}
	r := &Results{Options: options{Rounds: 1}, Peers: []PeersTrial{trial(reference, 250e6), trial(candidate, 30e6), trial(native, 70e6)}}
	var b strings.Builder
	writePeersTable(&b, r)
	for _, want := range []string{"memory per peer", "24.0", "in 64 MiB (67.1 MB): culvert, kept: up to 30.0 MB", "culvert native, missed: up to 70.0 MB"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "TCP") {
		t.Errorf("a line of nothing:\n%s", b.String())
	}
}

func TestSessionsIn(t *testing.T) {
	lines := strings.Split("public_key=a\nlast_handshake_time_sec=0\npublic_key=b\nlast_handshake_time_sec=12\nlast_handshake_time_nsec=5", "\n")
	if n := sessionsIn(lines); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestParseNumbers(t *testing.T) {
	if list, err := parseNumbers("-peers", "1,100", 1, 100); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	for _, text := range []string{"", "0", "101", "x", "5,5"} {
		if list, err := parseNumbers("-peers", text, 1, 100); err == nil {
			t.Errorf("%q: %v", text, list)
		}
	}
}
