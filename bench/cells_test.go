package main

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// pipe is a tunnel that carries so many datagrams per second and loses all others, offered by a sender that can do no more than
// its own rate. Both 0 for no limit. once is lost of the first offer besides.
type pipe struct {
	carries, sender float64
	once            float64
	offers          []int
}

func (p *pipe) offer(rate int) (*UDPRun, error) {
	p.offers = append(p.offers, rate)
	sent := float64(rate)
	if p.sender > 0 {
		sent = min(sent, p.sender)
	}
	received := sent
	if p.carries > 0 {
		received = min(sent, p.carries)
	}
	if len(p.offers) == 1 {
		received *= 1 - p.once
	}
	return &UDPRun{Asked: rate, Sent: int64(sent), SendSeconds: 1, Received: int64(received), RecvSeconds: 1}, nil
}

func TestSearch(t *testing.T) {
	for name, c := range map[string]struct {
		pipe  pipe
		start float64
	}{
		"doubles":                    {pipe{carries: 210_000}, searchStart},
		"halves":                     {pipe{carries: 3_100}, searchStart},
		"knows it":                   {pipe{carries: 100_000}, 99_000},
		"a hiccup":                   {pipe{carries: 210_000, once: 0.03}, searchStart},
		"a sender that hardly keeps": {pipe{carries: 210_000, sender: 240_000}, searchStart},
	} {
		u := UDP{Size: 64}
		if err := u.search(c.start, c.pipe.offer); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if u.LossFree == nil || u.Lossy == nil || len(u.Search) != len(c.pipe.offers) {
			t.Errorf("%s: %+v", name, u)
			continue
		}
		// The limit with what may be lost of it is between the two, which are close together.
		limit := c.pipe.carries / (1 - lossAllowed)
		if low, high := u.LossFree.rate(), u.Lossy.rate(); low > limit+1 || high < limit-1 || high > low*searchExactness+1 {
			t.Errorf("%s: between %.0f and %.0f, want %.0f", name, low, high, limit)
		}
		if len(c.pipe.offers) > 14 {
			t.Errorf("%s: took %d offers: %v", name, len(c.pipe.offers), c.pipe.offers)
		}
	}
}

func TestSearchEnds(t *testing.T) {
	// The load is the limit: no offer is lossy.
	u, p := UDP{}, pipe{sender: 600_000}
	if err := u.search(searchStart, p.offer); err != nil || u.Lossy != nil || u.LossFree == nil || u.LossFree.rate() != 600_000 {
		t.Errorf("a sender of 600 kpps: %+v, %v", u, err)
	}
	// The sender is not fast enough to tell what is between.
	u, p = UDP{}, pipe{carries: 255_000, sender: 300_000}
	if err := u.search(searchStart, p.offer); err != nil || u.LossFree == nil || u.LossFree.rate() > 257_000 {
		t.Errorf("%+v, %v", u, err)
	}
	// Too much at any rate.
	u, p = UDP{}, pipe{carries: 1}
	if err := u.search(searchStart, p.offer); err != nil || u.LossFree != nil || u.Lossy == nil {
		t.Errorf("hardly anything comes: %+v, %v", u, err)
	}
	trial := Trial{UDP: []UDP{{Size: 64, Lossy: u.Lossy}}}
	if v, ok := lossFree(64)(&trial); !ok || v != 0 {
		t.Errorf("rate without loss %v, %v, want 0", v, ok)
	}
	boom := errors.New("boom")
	if err := u.search(searchStart, func(int) (*UDPRun, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if err := u.search(searchStart, func(int) (*UDPRun, error) { return new(UDPRun), nil }); err == nil {
		t.Error("nothing was sent, no error")
	}
}

func TestNextStart(t *testing.T) {
	found := []UDP{{LossFree: &UDPRun{Sent: 100, SendSeconds: 2}}, {}}
	if got := nextStart(found); got != 50 {
		t.Errorf("%v, want 50", got)
	}
	if got := nextStart(nil); got != searchStart {
		t.Errorf("%v, want %v", got, searchStart)
	}
}

// TestLossIsTheTunnels: what the receiver had no room for had crossed the tunnel.
func TestLossIsTheTunnels(t *testing.T) {
	run := UDPRun{Asked: 1000, Sent: 1000, SendSeconds: 1, Received: 700, RecvSeconds: 2, SocketDrops: 290}
	if lost := run.lost(); math.Abs(lost-0.01) > 1e-9 || run.delivered() != 350 || run.short() {
		t.Errorf("lost %v, delivered %v, short %v", lost, run.delivered(), run.short())
	}
	if run.Asked = 1100; !run.short() {
		t.Error("900 of 1000 is no shortfall")
	}
}

func TestPace(t *testing.T) {
	p := udpPace{rate: 10_000}
	if n := p.due(0); n != 0 {
		t.Errorf("%d due at once", n)
	}
	if wait := p.wait(0, 0); wait != 200*time.Microsecond {
		t.Errorf("two, which are sent together, are due in %v", wait)
	}
	if wait := p.wait(1, 150*time.Microsecond); wait != 50*time.Microsecond {
		t.Errorf("with one due they are in %v", wait)
	}
	if wait := p.wait(2, 200*time.Microsecond); wait != 0 {
		t.Errorf("with two due they wait %v", wait)
	}
	if wait := (&udpPace{}).wait(udpTrain, 0); wait != 0 {
		t.Errorf("without a rate they wait %v", wait)
	}
	if n := p.due(3 * time.Millisecond); n != 30 {
		t.Errorf("%d due after 3 ms, want 30", n)
	}
	// A second late: 5 ms' worth is made up for, the rest is not.
	if n := p.due(time.Second); n != 50 {
		t.Errorf("%d due after a second, want 50", n)
	}
	p.sent += 50
	if n := p.due(time.Second); n != 0 {
		t.Errorf("%d due after these", n)
	}
	fast := udpPace{rate: 1e6}
	total := 0
	for n := fast.due(time.Second); n > 0; n = fast.due(time.Second) {
		if n > udpTrain {
			t.Fatalf("%d at once", n)
		}
		fast.sent += float64(n)
		total += n
	}
	if total != udpMostAtOnce {
		t.Errorf("%d made up for, want %d", total, udpMostAtOnce)
	}
	// At a high rate it waits for a whole train: with one for each datagram it would be at it all the time.
	fast = udpPace{rate: 1e6}
	if wait := fast.wait(1, time.Microsecond); wait != (udpTrain-1)*time.Microsecond {
		t.Errorf("a train is due in %v", wait)
	}
	slow := udpPace{rate: 10}
	if wait, n := slow.wait(0, 0), slow.due(time.Second); n != 1 || wait != 100*time.Millisecond {
		t.Errorf("a slow sender has %d due, want 1; it waits %v for the first", n, wait)
	}
}

func TestAgentRequests(t *testing.T) {
	source, sink := startedAgent(t), startedAgent(t)
	for _, connections := range []int{1, 5} { // an agent serves again after a stop
		to, err := call[netip.AddrPort](sink, "requests-answer", loopback, 0)
		if err != nil {
			t.Fatal(err)
		}
		run := requestRun{To: to, Connections: connections, Size: 3, Duration: 50 * time.Millisecond}
		got, err := call[requestResult](source, "requests-make", run, run.Duration)
		if err != nil || got.Count < int64(connections) || got.Latency.Count != int(got.Count) || got.Latency.Mean <= 0 || got.Seconds != 0.05 {
			t.Errorf("%d connections: %+v, %v", connections, got, err)
		}
		// One is under way on each connection at a time.
		if busy := float64(got.Count) * got.Latency.Mean / 1e3; busy > 0.05*float64(connections)*1.01 {
			t.Errorf("%d connections were busy for %v s together", connections, busy)
		}
		if _, err := call[none](sink, "requests-stop", none{}, 0); err != nil {
			t.Error(err)
		}
		if _, err := call[requestResult](source, "requests-make", run, 0); err == nil {
			t.Error("nobody answers, no error")
		}
	}
}

// TestBothWays stops flows of both ways without taking one side's end for a failure.
func TestBothWays(t *testing.T) {
	a, b := startedAgent(t), startedAgent(t)
	s := &stage{ctx: t.Context()}
	sc := &scene{o: &options{Window: minDuration}, ctx: s.ctx, source: a, sink: b, prober: a, home: loopback.Addr(), target: loopback.Addr()}
	a.pid, b.pid = os.Getpid(), os.Getpid()
	for _, w := range []way{both, reverse, forward, both} { // an agent serves again after a stop
		m, loaded, err := sc.tcp(64, w, false)
		if err != nil || m == nil || loaded != nil || m.Flows != 64 || m.Way != w || (m.BytesBack > 0) != (w == both) || m.BytesBack >= m.Bytes {
			t.Errorf("%s: %+v, %v", w, m, err)
		}
	}
}

// TestCompareZero: losing some where the other loses none counts, as does being equal.
func TestCompareZero(t *testing.T) {
	for _, c := range []struct {
		over, under   []float64
		best          direction
		text, verdict string
	}{
		{[]float64{1, 2}, []float64{0, 0}, less, "inf (inf-inf)", "behind"},
		{[]float64{1, 1, 3}, []float64{2, 0, 2}, less, "1.50 (0.50-inf)", "unclear"},
		{[]float64{0, 0}, []float64{0, 0}, less, "1.00 (1.00-1.00)", ""},
		{[]float64{0, 0}, []float64{2, 1}, less, "0.00 (0.00-0.00)", "ahead"},
		{[]float64{0, 0}, []float64{2, 1}, more, "0.00 (0.00-0.00)", "behind"},
		{[]float64{5, 6}, []float64{0, 0}, more, "inf (inf-inf)", "ahead"},
		{[]float64{0, 1}, []float64{0, 0.5}, more, "1.50 (1.00-2.00)", "ahead"},
		{[]float64{7}, []float64{0}, less, "inf", ""},
	} {
		text, verdict := compare(len(c.over), c.best, func(round, side int) (float64, bool) {
			return [2][]float64{c.over, c.under}[side][round-1], true
		})
		if text != c.text || verdict != c.verdict {
			t.Errorf("%v to %v: %q %q, want %q %q", c.over, c.under, text, verdict, c.text, c.verdict)
		}
	}
}

// TestFirstFormat reads a trial as files had it first.
func TestFirstFormat(t *testing.T) {
	const text = `{"format": 1, "options": {"rounds": 1, "duration_ns": 5000000000, "udp_rate": 400000, "underlays": ["offloads"]},
		"implementations": [{"name": "plain"}], "trials": [{"round": 1, "underlay": "offloads", "implementation": "plain",
		"tcp_1": {"bytes": 1000000000, "seconds": 4}, "tcp_reverse": {"bytes": 500000000, "seconds": 4},
		"udp_200": {"size": 200, "sent": 1000, "send_seconds": 1, "received": 400, "receive_seconds": 1, "socket_drops": 5}}]}`
	file := filepath.Join(t.TempDir(), "old.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	trial := &r.Trials[0]
	if m := trial.stream(1, forward); m == nil || m.Bytes != 1e9 || len(trial.TCP) != 2 || trial.stream(1, reverse).Bytes != 5e8 {
		t.Errorf("TCP: %+v", trial.TCP)
	}
	if u := trial.datagrams(200); u == nil || u.Flood == nil || u.Flood.Sent != 1000 || u.Flood.SocketDrops != 5 || u.LossFree != nil {
		t.Errorf("UDP: %+v", trial.UDP)
	}
	var table strings.Builder
	if err := writeTables(&table, r); err != nil || !strings.Contains(table.String(), "each measurement 5s") ||
		!strings.Contains(table.String(), "UDP 200 B lost") || strings.Contains(table.String(), "without loss") {
		t.Errorf("%v\n%s", err, table.String())
	}
}

// TestFailing measures on where one implementation is missing and another fails, and tells of both.
func TestFailing(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	o := &options{Rounds: 2, Window: minDuration, Underlays: []underlay{withOffloads}, Parts: []part{partTunnel}, Cells: []cellGroup{cellRTT},
		Only: []string{plain, native}, native: "false", culvert: "true", wireguardGo: "/no/such/program"}
	var r *Results
	var progress, table strings.Builder
	err := onStage(t.Context(), func(s *stage) (err error) {
		r, err = measure(s, o, &progress)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, trial := range r.Trials {
		names = append(names, trial.Implementation)
		if failed := strings.Contains(trial.Error, "ended at once"); failed != (trial.Implementation == native) || failed == (len(trial.TCP) > 0) {
			t.Errorf("%s: %+v", trial.Implementation, trial)
		}
		if len(trial.TCP) > 1 || len(trial.UDP)+len(trial.Requests) > 0 {
			t.Errorf("%s: more than asked for: %+v", trial.Implementation, trial)
		}
	}
	if want := []string{plain, native, native, plain}; !slices.Equal(names, want) {
		t.Errorf("measured %v, want %v", names, want)
	}
	if len(r.NotMeasured) != 3 || !strings.HasPrefix(r.NotMeasured[0], reference+": ") { // it, and culvert with it either way
		t.Errorf("not measured: %q", r.NotMeasured)
	}
	for _, want := range []string{"4 trials, about ", "not measured: wireguard-go: ", "2/4  round 1/2", "FAILED: ", "left)"} {
		if !strings.Contains(progress.String(), want) {
			t.Errorf("no %q in\n%s", want, progress.String())
		}
	}
	if err := writeTables(&table, r); err != nil || !strings.Contains(table.String(), "not measured: wireguard-go: ") ||
		!strings.Contains(table.String(), "incomplete: round 2, culvert native over offloads") {
		t.Errorf("%v\n%s", err, table.String())
	}
	o.Only = []string{"nobody"}
	for want, parts := range map[string][]part{"-only: none of": {partTunnel}, "[handshake] have none": {partHandshake}} {
		o.Parts = parts
		err = onStage(t.Context(), func(s *stage) (err error) {
			_, err = measure(s, o, &progress)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v", parts, err)
		}
	}
}

func TestMeasures(t *testing.T) {
	tunnel := &Implementation{Name: native, Command: []string{"c"}}
	for _, c := range []struct {
		cells []cellGroup
		impl  *Implementation
		want  []cellGroup
	}{
		{nil, tunnel, allCells},
		{[]cellGroup{cellUDP, cellRTT}, tunnel, []cellGroup{cellRTT, cellUDP}},
		{nil, &Implementation{Name: plain}, []cellGroup{cellTCP, cellRTT, cellRequests, cellUDP}},
		{nil, &Implementation{Name: nativeTap, Part: partTap, Command: []string{"c"}}, []cellGroup{cellTCP, cellRTT, cellRequests, cellUDP}},
		{nil, &Implementation{Name: crossTo, Command: []string{"c"}, Far: []string{"w"}}, []cellGroup{cellTCP}},
		{[]cellGroup{cellUDP}, &Implementation{Name: crossTo, Command: []string{"c"}, Far: []string{"w"}}, nil},
	} {
		o := &options{Cells: c.cells, Window: time.Second}
		var got []cellGroup
		for _, g := range allCells {
			if o.measures(c.impl, g) {
				got = append(got, g)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, of %v: %v, want %v", c.impl.Name, c.cells, got, c.want)
		}
	}
	// Round trips under load need the load.
	var trial Trial
	var names []string
	for _, s := range trial.steps(&scene{o: &options{Cells: []cellGroup{cellRTT}}}, tunnel) {
		names = append(names, s.name)
	}
	if want := []string{"idle round trips", "TCP, 1 forward", "memory"}; !slices.Equal(names, want) {
		t.Errorf("steps %q, want %q", names, want)
	}
}

// TestTableMarks: a load that was the limit and rounds that are missing are told.
func TestTableMarks(t *testing.T) {
	run := func(kpps int64) *UDPRun {
		return &UDPRun{Sent: kpps * 1000, SendSeconds: 1, Received: kpps * 1000, RecvSeconds: 1}
	}
	r := &Results{Options: options{Rounds: 2, Underlays: []underlay{withOffloads}}, Implementations: []Implementation{{Name: plain}, {Name: native}},
		Trials: []Trial{{Round: 1, Underlay: withOffloads, Implementation: plain, UDP: []UDP{{Size: 64, LossFree: run(600)}}},
			{Round: 2, Underlay: withOffloads, Implementation: plain, UDP: []UDP{{Size: 64, LossFree: run(500), Lossy: run(520)}}},
			{Round: 1, Underlay: withOffloads, Implementation: native, UDP: []UDP{{Size: 64, LossFree: run(100), Lossy: run(104)}}}}}
	all := slices.Concat(quantities...)
	q := all[slices.IndexFunc(all, func(q quantity) bool { return q.name == "UDP 64 B without loss" })]
	if got := r.tunnelCell(partTunnel, withOffloads, plain, q); got != ">=550 (500-600)" {
		t.Errorf("plain: %q", got)
	}
	q = all[slices.IndexFunc(all, func(q quantity) bool { return q.name == "UDP 64 B delivered of twice that" })]
	for want, asked := range map[string]int{"80.0 n=1": 200_000, "~80.0 n=1": 250_000} {
		r.Trials[2].UDP[0].Overload = &UDPRun{Asked: asked, Sent: 200_000, SendSeconds: 1, Received: 80_000, RecvSeconds: 1}
		if got := r.tunnelCell(partTunnel, withOffloads, native, q); got != want {
			t.Errorf("twice the rate: %q, want %q", got, want)
		}
	}
	q = quantity{of: lossFree(64)}
	if got := r.tunnelCell(partTunnel, withOffloads, native, q); got != "100 n=1" {
		t.Errorf("native: %q", got)
	}
}
