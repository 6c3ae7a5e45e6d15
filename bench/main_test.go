package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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
	if len(os.Args) > 1 && os.Args[1] == relayArgument {
		if err := serveRelay(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Main(m)
}

// TestQuick measures some tunnels as briefly as it can be done. What it measured is checked for being there, never for
// being fast.
func TestQuick(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	lab.NeedProgram(t, "go")
	names := []string{plain, native, crossFrom}
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	err := run(t.Context(), []string{"-quick", "-parts", "tunnel", "-window", "200ms", "-warmup", "50ms", "-handshakes", "2",
		"-underlay", "no-offloads", "-only", strings.Join(names, ","), "-out", file}, &stdout, &stderr)
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
	var seen []string
	for _, trial := range r.Trials {
		seen = append(seen, trial.Implementation)
		checkTrial(t, trial.Implementation, trial, &r.Options)
	}
	if !slices.Equal(seen, names) {
		t.Errorf("measured %q, want %q", seen, names)
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
	checkLines(t, stdout.String())
}

// checkLines wants a line of every quantity that is measured today.
func checkLines(t *testing.T, table string) {
	t.Helper()
	for _, group := range quantities {
		for _, q := range group {
			isOld := slices.ContainsFunc(floodLines, func(f quantity) bool { return f.name == q.name && f.unit == q.unit })
			if !isOld && !strings.Contains(table, q.name) {
				t.Errorf("the table has no line %q", q.name)
			}
		}
	}
}

// checkTrial wants every cell filled in that was to be measured.
func checkTrial(t *testing.T, name string, trial Trial, o *options) {
	t.Helper()
	if trial.Error != "" {
		t.Errorf("%s: %s", name, trial.Error)
		return
	}
	impl := Implementation{Name: trial.Implementation, Part: trial.Part, Command: []string{"c"}}
	daemons := 2
	switch trial.Implementation {
	case plain:
		daemons, impl.Command = 0, nil
	case crossTo, crossFrom:
		impl.Far = impl.Command
	}
	for _, flows := range tcpFlowCounts {
		for _, w := range tcpWays {
			m := trial.stream(flows, w)
			forLoad := flows == 1 && w == forward && o.measures(&impl, cellRTT)
			if m == nil && !forLoad && !o.measures(&impl, cellTCP) {
				continue
			}
			if m == nil || m.Bytes <= 0 || m.Seconds <= 0 || len(m.CPU.Daemons) != daemons || (m.BytesBack > 0) != (w == both) || m.BytesBack >= m.Bytes {
				t.Errorf("%s: TCP %d %s: %+v", name, flows, w, m)
			}
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
	if trial.Seconds <= 0 {
		t.Errorf("%s: took %v s", name, trial.Seconds)
	}
	if !o.measures(&impl, cellUDP) {
		if len(trial.UDP) > 0 {
			t.Errorf("%s: has UDP: %+v", name, trial.UDP)
		}
	} else {
		for _, size := range udpSizes {
			checkUDP(t, name, trial.datagrams(size), daemons)
		}
	}
	wanted := map[cellGroup]map[string]*Times{
		cellRTT:       {"RTT idle": trial.RTTIdle, "RTT loaded": trial.RTTLoaded},
		cellHandshake: {"handshake": trial.Handshake},
		cellRequests:  {},
	}
	for _, connections := range requestConnections {
		m := trial.requests(connections)
		if m == nil {
			m = &Requests{}
		} else if m.Count <= 0 || m.Seconds <= 0 || len(m.CPU.Daemons) != daemons {
			t.Errorf("%s: requests over %d: %+v", name, connections, m)
		}
		wanted[cellRequests][fmt.Sprintf("requests over %d", connections)] = m.Latency
	}
	for c, times := range wanted {
		for what, v := range times {
			switch {
			case !o.measures(&impl, c):
				if v != nil {
					t.Errorf("%s: has %s: %+v", name, what, v)
				}
			case v == nil || v.Count < 1 || v.Mean <= 0 || v.Median > v.P99 || v.P99 > v.Max || v.Mean > v.Max:
				t.Errorf("%s: %s: %+v", name, what, v)
			}
		}
	}
}

// checkUDP wants a search with a result, if only that no offer was slow enough on a machine that is busy.
func checkUDP(t *testing.T, name string, u *UDP, daemons int) {
	t.Helper()
	if u == nil || len(u.Search) == 0 || u.LossFree == nil && u.Lossy == nil || (u.LossFree == nil) != (u.Overload == nil) {
		t.Errorf("%s: UDP: %+v", name, u)
		return
	}
	for _, run := range append(slices.Clone(u.Search), *cmp.Or(u.Overload, u.Lossy)) {
		if run.Sent <= 0 || run.Received < 0 || run.Received+run.SocketDrops > run.Sent || run.SendSeconds <= 0 || run.Asked <= 0 ||
			len(run.CPU.Daemons) != daemons {
			t.Errorf("%s: UDP %d: %+v", name, u.Size, run)
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
		"-window 1ms":                "at least 200ms",
		"-cells tcp,udp,rtt,rr":      "",
		"-cells tcp,soup":            `"soup" is none of`,
		"-only plain,culvert":        "",
		"-name a/b":                  "cannot be part",
		"-parts flood":               "",
		"-parts tunnel,soup":         `"soup" is none of`,
		"-parts tap -quick":          "",
		"-flood-rate -1":             "not negative",
		"-parts setup -devices 4":    "",
		"-devices 10,3":              `"3" is no number from 4`,
		"-devices 10001":             "no number",
		"-devices 10,":               `"" is no number`,
		"-devices 10,20,10":          "10 is there twice",
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
	args := []string{"-rounds", "1", "-window", "1h", "-culvert", "true", "-wireguard-go", "true", "-out", file}
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
	for text, want := range map[string]string{`{"format":3}`: "format 3", "{": "unexpected end"} {
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
	tcp := func(gbits, cpu float64) []TCP {
		m := TCP{Flows: 1, Way: forward, Bytes: int64(gbits * 1e9 / 8 * 5), Seconds: 5, CPU: CPU{Load: 1, Machine: 10}}
		if cpu > 0 {
			m.CPU.Daemons = []float64{cpu / 2, cpu / 2}
		}
		return []TCP{m}
	}
	offer := func(asked, sent, received float64) *UDPRun {
		return &UDPRun{Asked: int(asked * 1e3), Sent: int64(sent * 1e3), SendSeconds: 1, Received: int64(received * 1e3), RecvSeconds: 0.9,
			SocketDrops: 100, CPU: CPU{Daemons: []float64{0.2, 0.3}}}
	}
	udp := func(kpps float64) []UDP {
		return []UDP{{Size: 64, LossFree: offer(kpps, kpps, kpps), Lossy: offer(kpps*1.04, kpps*1.04, kpps), Overload: offer(2*kpps, 2*kpps, kpps/2)},
			{Size: 512, LossFree: offer(2*kpps, kpps, kpps), Overload: offer(2*kpps, kpps, kpps)}, // the load was the limit
			{Size: 1372, Lossy: offer(0.5, 0.5, 0.3)}}
	}
	requests := func(perSecond float64) []Requests {
		return []Requests{{Connections: 64, Size: 1, Count: int64(2 * perSecond), Seconds: 2, Latency: &Times{Median: 64e3 / perSecond, P99: 99e3 / perSecond}}}
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
	frames := func(round int, kind string, sent int64) FrameTrial {
		return FrameTrial{Round: round, Frames: kind, Seconds: 5, Sent: sent, SentBytes: sent * 133, Received: uint64(sent) + 5000,
			Forwarded: uint64(sent) / 10, CPU: 0.3 + float64(sent)*3e-6, GoodSent: 5000, GoodCame: 5000 - sent/1000, Latency: rtt(0.1),
			Addresses: 65, HostileAddresses: 1, Moves: uint64(sent) / 100, HeapBefore: 8e6, HeapAfter: 8e6 + 2000, RSSBefore: 20e6, RSSPeak: 21e6}
	}
	setup := func(round, devices int, factor float64) SetupTrial {
		effort := func(ms float64) *Effort {
			return &Effort{float64(devices) * ms / 1e3 * factor, float64(devices) * ms / 2e3 * factor}
		}
		return SetupTrial{Round: round, Devices: devices, Declare: effort(0.01), Plan: effort(0.1), Apply: effort(1), Again: effort(0.2),
			Destroy: effort(2), Items: 3 * devices, Steps: 4 * devices, PeakMemory: 20e6 + int64(devices)*1e4, Disk: "ext4"}
	}
	shaken := flood(2, floodJunk, 90_000)
	shaken.Handshake = rtt(3)
	return &Results{
		Handshakes: []HandshakeTrial{{Round: 1, Wire: reference, Responder: &EngineCost{200, 0.07, 0.08}}, wire(1, wireWireGuard, 1), wire(1, wireCulvert, 1.5), wire(2, wireCulvert, 1.6), wire(2, wireWireGuard, 1),
			{Round: 2, Wire: wireCulvert, Error: "the agent is gone"}},
		Floods: []FloodTrial{flood(1, floodNone, 0), flood(1, floodJunk, 100_000), shaken, {Round: 2, Flood: floodNone, Error: "no"}},
		Frames: []FrameTrial{frames(1, framesNone, 0), frames(1, framesAddresses, 1_000_000), frames(2, framesAddresses, 800_000),
			{Round: 2, Frames: framesNone, Error: "no"}},
		Setups: []SetupTrial{setup(1, 100, 1), setup(1, 1000, 1.1), setup(2, 1000, 0.9), setup(2, 100, 0.75),
			{Round: 2, Devices: 500, Plan: &Effort{1, 1}, Error: "apply: no"}},
		Format:  resultsFormat,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Options: options{Rounds: 2, Duration: 5 * time.Second, Underlays: []underlay{withOffloads}},
		Machine: Machine{CPU: "Abacus", Cores: 2, MemoryBytes: 8e9, Kernel: "linux/amd64 6.18", Go: "go1.26.8", TCP: "cubic",
			Commit: "0123456789abcdef", Dirty: true},
		Implementations: []Implementation{{Name: plain}, {Name: reference, Command: []string{"w"}, Version: "v0.1", Go: "go1.26.8"},
			{Name: candidate, Command: []string{"c"}, Version: "(devel)", Go: "go1.26.8", Revision: "0123456789abcdef", Modified: true},
			{Name: native, Command: []string{"n"}, File: true, Version: "(devel)", Go: "go1.26.8"}},
		Trials: []Trial{
			{Round: 1, Underlay: withOffloads, Implementation: plain, TCP: tcp(20, 0), RTTIdle: rtt(0.02)},
			{Round: 1, Underlay: withOffloads, Implementation: reference, TCP: tcp(4, 8), UDP: udp(40), RTTIdle: rtt(0.2),
				PeakMemory: []int64{100e6, 200e6}},
			{Round: 1, Underlay: withOffloads, Implementation: candidate, TCP: tcp(8, 8), UDP: udp(30), RTTIdle: rtt(0.1),
				PeakMemory: []int64{9e6, 8e6}},
			{Round: 2, Underlay: withOffloads, Implementation: candidate, TCP: tcp(6, 6), UDP: udp(35), RTTIdle: rtt(0.3),
				PeakMemory: []int64{9e6, 8e6}},
			{Round: 2, Underlay: withOffloads, Implementation: reference, TCP: tcp(3, 8), UDP: udp(50), Requests: requests(20_000), RTTIdle: rtt(0.2),
				PeakMemory: []int64{100e6, 200e6}},
			{Round: 2, Underlay: withOffloads, Implementation: plain, Error: "no reply came"},
			{Round: 2, Underlay: withOffloads, Implementation: native, TCP: tcp(9, 3), UDP: udp(60), Requests: requests(40_000), RTTIdle: rtt(0.1)},
		},
	}
}
