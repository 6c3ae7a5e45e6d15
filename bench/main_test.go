package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// TestMain makes the test's program an agent where it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == agentArgument {
		if err := serveAgent(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Main(m)
}

// TestQuick runs the whole benchmark, as briefly as it can be. What it measured is checked for being there, never for
// being fast.
func TestQuick(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	lab.NeedProgram(t, "go")
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	err := run(t.Context(), []string{"-quick", "-duration", "400ms", "-out", file}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	r, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Machine.Cores < 1 || r.Machine.MemoryBytes == 0 || r.Machine.Kernel == "" || r.Machine.Go == "" || r.Machine.CPU == "" {
		t.Errorf("machine: %+v", r.Machine)
	}
	seen := map[string]int{}
	for _, trial := range r.Trials {
		name := fmt.Sprintf("%s over %s", trial.Implementation, trial.Underlay)
		seen[name]++
		checkTrial(t, name, trial)
	}
	for _, u := range []underlay{withOffloads, withoutOffloads} {
		for _, impl := range []string{plain, reference, candidate} {
			if name := fmt.Sprintf("%s over %s", impl, u); seen[name] != 1 {
				t.Errorf("%s: measured %d times, want 1", name, seen[name])
			}
		}
	}
	for _, impl := range r.Implementations {
		if impl.Name != plain && (impl.Version == "" || impl.Go == "" || len(impl.Command) == 0) {
			t.Errorf("%s: of unknown make: %+v", impl.Name, impl)
		}
	}
	var again strings.Builder
	if err := run(t.Context(), []string{"-compare", file}, &again, &stderr); err != nil {
		t.Fatal(err)
	}
	if again.String() != stdout.String() {
		t.Errorf("-compare prints\n%s\nthe run itself printed\n%s", again.String(), stdout.String())
	}
	for _, q := range quantities {
		if !strings.Contains(stdout.String(), q.name) {
			t.Errorf("the table has no line %q", q.name)
		}
	}
}

// checkTrial wants every cell filled in.
func checkTrial(t *testing.T, name string, trial Trial) {
	t.Helper()
	if trial.Error != "" {
		t.Errorf("%s: %s", name, trial.Error)
		return
	}
	daemons := 2
	if trial.Implementation == plain {
		daemons = 0
	}
	for what, tcp := range map[string]*TCP{"TCP 1": trial.TCP1, "TCP 4": trial.TCP4} {
		if tcp == nil || tcp.Bytes <= 0 || tcp.Seconds <= 0 || len(tcp.CPU.Daemons) != daemons {
			t.Errorf("%s: %s: %+v", name, what, tcp)
		}
	}
	for size, udp := range map[int]*UDP{64: trial.UDP64, 200: trial.UDP200} {
		if udp == nil || udp.Size != size || udp.Received <= 0 || udp.Received > udp.Sent || udp.SendSeconds <= 0 ||
			len(udp.CPU.Daemons) != daemons {
			t.Errorf("%s: UDP %d: %+v", name, size, udp)
		}
	}
	times := map[string]*Times{"RTT idle": trial.RTTIdle, "RTT loaded": trial.RTTLoaded}
	if daemons > 0 {
		times["handshake"] = trial.Handshake
	} else if trial.Handshake != nil {
		t.Errorf("%s: has a handshake: %+v", name, trial.Handshake)
	}
	for what, v := range times {
		if v == nil || v.Count < 1 || v.Mean <= 0 || v.Median > v.P99 || v.P99 > v.Max || v.Mean > v.Max {
			t.Errorf("%s: %s: %+v", name, what, v)
		}
	}
	if len(trial.PeakMemory) != daemons {
		t.Errorf("%s: memory of %d daemons, want %d", name, len(trial.PeakMemory), daemons)
	}
	for _, peak := range trial.PeakMemory {
		if peak <= 0 {
			t.Errorf("%s: peak memory %v", name, trial.PeakMemory)
		}
	}
}

func TestOptions(t *testing.T) {
	for line, want := range map[string]string{ // part of the error; "" for none
		"":                           "",
		"-quick":                     "",
		"-underlay no-offloads":      "",
		"-compare a.json b.json":     "",
		"-compare":                   "needs a file",
		"a.json":                     "unexpected argument",
		"-underlay offloads,wifi":    `"wifi" is neither`,
		"-rounds 0":                  "at least 1",
		"-handshakes 0":              "at least 1",
		"-duration 1ms":              "at least 200ms",
		"-udp-rate -1":               "not negative",
		"-name a/b":                  "cannot be part",
		"-quick -rounds 2 -warmup 0": "",
	} {
		o, err := parseOptions(strings.Fields(line), new(strings.Builder))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", line, err, want)
		}
		if line == "-quick -rounds 2 -warmup 0" && err == nil && (o.Rounds != 2 || o.Warmup != 0 || o.Duration != quickDuration) {
			t.Errorf("%q: %+v", line, o)
		}
	}
}

// TestInterrupted wants a run that is stopped in the midst of a trial to take everything away and to write nothing.
func TestInterrupted(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	file := filepath.Join(t.TempDir(), "results.json")
	namespaces := func() []string {
		names, err := filepath.Glob(fmt.Sprintf("/run/netns/cv-%d-*", os.Getpid()))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	ended := make(chan error, 1)
	// The first trial is plain: the daemons, which are none, are not reached.
	args := []string{"-rounds", "1", "-duration", "1h", "-culvert", "true", "-wireguard-go", "true", "-out", file}
	go func() { ended <- run(ctx, args, io.Discard, io.Discard) }()
	lab.Eventually(t, 30*time.Second, "both hosts are there", func() bool { return len(namespaces()) == 2 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("there are results of an interrupted run")
	}
	if names := namespaces(); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestResultsSurviveAFile(t *testing.T) {
	r := exampleResults()
	file := filepath.Join(t.TempDir(), "r.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	got, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(r)
	if have, _ := json.Marshal(got); string(have) != string(want) {
		t.Errorf("read\n%s\nwritten\n%s", have, want)
	}
	for text, want := range map[string]string{`{"format":2}`: "format 2", "{": "unexpected end"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadResults(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func TestFreeName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "2026-01-02-full")
	for _, want := range []string{".json", "-2.json", "-3.json"} {
		name, err := freeName(path)
		if err != nil || name != path+want {
			t.Fatalf("%q, %v, want %q", name, err, path+want)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// exampleResults are two rounds in which the candidate wins a cell, loses one, and fails once.
func exampleResults() *Results {
	tcp := func(gbits, cpu float64) *TCP {
		m := &TCP{Bytes: int64(gbits * 1e9 / 8 * 5), Seconds: 5, CPU: CPU{Load: 1, Machine: 10}}
		if cpu > 0 {
			m.CPU.Daemons = []float64{cpu / 2, cpu / 2}
		}
		return m
	}
	udp := func(kpps float64) *UDP {
		return &UDP{Size: 64, Sent: 2e6, SendSeconds: 5, Received: int64(kpps * 5000), RecvSeconds: 4, CPU: CPU{Daemons: []float64{1, 4}}}
	}
	rtt := func(ms float64) *Times {
		return &Times{Count: 500, Mean: ms, Median: ms, P99: 2 * ms, Max: 3 * ms}
	}
	return &Results{
		Format:  resultsFormat,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Options: options{Rounds: 2, Duration: 5 * time.Second, Underlays: []underlay{withOffloads}},
		Machine: Machine{CPU: "Abacus", Cores: 2, MemoryBytes: 8e9, Kernel: "linux/amd64 6.18", Go: "go1.26.8", TCP: "cubic",
			Commit: "0123456789abcdef", Dirty: true},
		Implementations: []Implementation{{Name: plain}, {Name: reference, Command: []string{"w"}, Version: "v0.1", Go: "go1.26.8"},
			{Name: candidate, Command: []string{"c"}, Version: "(devel)", Go: "go1.26.8", Revision: "0123456789abcdef", Modified: true}},
		Trials: []Trial{
			{Round: 1, Underlay: withOffloads, Implementation: plain, TCP1: tcp(20, 0), RTTIdle: rtt(0.02)},
			{Round: 1, Underlay: withOffloads, Implementation: reference, TCP1: tcp(4, 8), UDP64: udp(40), RTTIdle: rtt(0.2),
				PeakMemory: []int64{100e6, 200e6}},
			{Round: 1, Underlay: withOffloads, Implementation: candidate, TCP1: tcp(8, 8), UDP64: udp(30), RTTIdle: rtt(0.1),
				PeakMemory: []int64{9e6, 8e6}},
			{Round: 2, Underlay: withOffloads, Implementation: candidate, TCP1: tcp(6, 6), UDP64: udp(35), RTTIdle: rtt(0.3),
				PeakMemory: []int64{9e6, 8e6}},
			{Round: 2, Underlay: withOffloads, Implementation: reference, TCP1: tcp(3, 8), UDP64: udp(50), RTTIdle: rtt(0.2),
				PeakMemory: []int64{100e6, 200e6}},
			{Round: 2, Underlay: withOffloads, Implementation: plain, Error: "no reply came"},
		},
	}
}
