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

	"culvert/crypto/noise"
	"culvert/internal/lab"
)

// TestMain makes the test's program an agent, or an engine, where it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == agentArgument {
		if err := serveAgent(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == engineArgument {
		if err := serveEngine(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Main(m)
}

// TestQuick measures tunnels as briefly as it can be done. What it measured is checked for being there, never for
// being fast.
func TestQuick(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	lab.NeedProgram(t, "go")
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	err := run(t.Context(), []string{"-quick", "-parts", "tunnel", "-duration", "400ms", "-out", file}, &stdout, &stderr)
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
		for _, impl := range []string{plain, reference, candidate, native} {
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

// TestQuickEngine measures what needs no root.
func TestQuickEngine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	err := run(t.Context(), []string{"-quick", "-parts", "handshake,flood", "-duration", "300ms", "-out", file}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	r, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Trials) != 0 || len(r.Handshakes) != len(handshakeWires) || len(r.Floods) != len(floodKinds) {
		t.Fatalf("%d trials, %d of handshakes, %d of floods", len(r.Trials), len(r.Handshakes), len(r.Floods))
	}
	datagrams := map[string]float64{wireWireGuard: 2, wireCulvert: 3}
	size := map[string]float64{wireWireGuard: noise.InitiationSize + noise.ResponseSize,
		wireCulvert: noise.HybridInitiationSize + noise.KEMSize + noise.HybridResponseSize}
	for _, h := range r.Handshakes {
		if h.Wire == reference {
			if us, ok := engineCost(h.Responder); !ok || us <= 0 {
				t.Errorf("%s: %+v", h.Wire, h)
			}
			continue
		}
		if h.Datagrams != datagrams[h.Wire] || h.Bytes != size[h.Wire] {
			t.Errorf("%s: %v datagrams, %v bytes", h.Wire, h.Datagrams, h.Bytes)
		}
		for _, q := range handshakeQuantities {
			if v, ok := q.of(&h); !ok || v <= 0 {
				t.Errorf("%s: %s: %v, %v", h.Wire, q.name, v, ok)
			}
		}
		// Three crossings of the link at least.
		if h.Start == nil || h.Start.Count != r.Options.Handshakes || h.Start.Median < 3*h.Delay {
			t.Errorf("%s: start %+v", h.Wire, h.Start)
		}
	}
	for i, f := range r.Floods {
		if f.Flood != floodKinds[i] || f.TunnelSent == 0 || f.TunnelCame == 0 || f.TunnelCame > f.TunnelSent || f.Latency == nil ||
			f.HeapBefore == 0 || f.RSSPeak == 0 || f.CPU <= 0 || f.Tries == 0 {
			t.Errorf("flood %s: %+v", f.Flood, f)
		}
		if calm := f.Flood == floodNone; calm != (f.Sent == 0) || f.AnswerBytes > f.SentBytes {
			t.Errorf("flood %s: %d messages of %d bytes, answered by %d bytes", f.Flood, f.Sent, f.SentBytes, f.AnswerBytes)
		}
	}
	var again strings.Builder
	if err := run(t.Context(), []string{"-compare", file}, &again, &stderr); err != nil {
		t.Fatal(err)
	}
	if again.String() != stdout.String() {
		t.Errorf("-compare prints\n%s\nthe run itself printed\n%s", again.String(), stdout.String())
	}
}

// TestForcedSuites has the program be the daemons.
func TestForcedSuites(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{suiteChaCha, suiteGCM} {
		err := onStage(t.Context(), func(s *stage) error {
			o := &options{Handshakes: 2}
			sc, err := newScene(s, o, withOffloads, Implementation{Name: suite, Command: []string{own, engineArgument, suite}})
			if err != nil {
				return err
			}
			times, err := sc.handshakes()
			if err == nil && times.Count != 2 {
				t.Errorf("%s: %+v", suite, times)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", suite, err)
		}
	}
	if _, err := suitesOf("rot13"); err == nil {
		t.Error("a suite that does not exist")
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
		"-parts flood":               "",
		"-parts tunnel,soup":         `"soup" is none of`,
		"-flood-rate -1":             "not negative",
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
	wire := func(round int, name string, factor float64) HandshakeTrial {
		return HandshakeTrial{Round: round, Wire: name, Cost: &HandshakeCost{64, 100 * factor, 80 * factor, 120 * factor, 90 * factor},
			Initiator: &EngineCost{100, 0.03 * factor, 0.05}, Responder: &EngineCost{200, 0.05 * factor, 0.06}, Start: rtt(15),
			Delay: 5, Datagrams: 2 * factor, Bytes: 240 * factor}
	}
	flood := func(round int, kind string, sent int64) FloodTrial {
		return FloodTrial{Round: round, Flood: kind, Seconds: 5, Sent: sent, SentBytes: sent * 690, Answers: sent / 10, AnswerBytes: sent * 6,
			Received: uint64(sent) + 5000, CPU: 0.2 + float64(sent)*20e-6, TunnelSent: 5000, TunnelCame: 5000, Latency: rtt(0.1), Tries: 1,
			HeapBefore: 8e6, HeapAfter: 8e6 + uint64(sent), RSSBefore: 20e6, RSSPeak: 21e6}
	}
	shaken := flood(2, floodJunk, 90_000)
	shaken.Handshake = rtt(3)
	return &Results{
		Handshakes: []HandshakeTrial{{Round: 1, Wire: reference, Responder: &EngineCost{200, 0.07, 0.08}}, wire(1, wireWireGuard, 1), wire(1, wireCulvert, 1.5), wire(2, wireCulvert, 1.6), wire(2, wireWireGuard, 1),
			{Round: 2, Wire: wireCulvert, Error: "the agent is gone"}},
		Floods:  []FloodTrial{flood(1, floodNone, 0), flood(1, floodJunk, 100_000), shaken, {Round: 2, Flood: floodNone, Error: "no"}},
		Format:  resultsFormat,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Options: options{Rounds: 2, Duration: 5 * time.Second, Underlays: []underlay{withOffloads}},
		Machine: Machine{CPU: "Abacus", Cores: 2, MemoryBytes: 8e9, Kernel: "linux/amd64 6.18", Go: "go1.26.8", TCP: "cubic",
			Commit: "0123456789abcdef", Dirty: true},
		Implementations: []Implementation{{Name: plain}, {Name: reference, Command: []string{"w"}, Version: "v0.1", Go: "go1.26.8"},
			{Name: candidate, Command: []string{"c"}, Version: "(devel)", Go: "go1.26.8", Revision: "0123456789abcdef", Modified: true},
			{Name: native, Command: []string{"n"}, File: true, Version: "(devel)", Go: "go1.26.8"}},
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
			{Round: 2, Underlay: withOffloads, Implementation: native, TCP1: tcp(9, 3), UDP64: udp(60), RTTIdle: rtt(0.1)},
		},
	}
}
