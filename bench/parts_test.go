package main

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

func TestPlanAlternates(t *testing.T) {
	list := []Implementation{{Name: "A"}, {Name: "B"}}
	var got []string
	for _, p := range plan(3, []underlay{withOffloads, withoutOffloads}, list) {
		got = append(got, string(p.underlay[:1])+p.implementation.Name)
	}
	if want := strings.Fields("oA oB nA nB  oB oA nB nA  oA oB nA nB"); !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// TestTable compares with testdata/table.txt; with CULVERT_UPDATE=1 it writes that file.
func TestTable(t *testing.T) {
	compareTable(t, exampleResults(), "testdata/table.txt")
}

func compareTable(t *testing.T, r *Results, file string) {
	t.Helper()
	var got strings.Builder
	if err := writeTables(&got, r); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("CULVERT_UPDATE") == "1" {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func TestCommittedResults(t *testing.T) {
	files, err := filepath.Glob("results/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		r, err := loadResults(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := writeTables(io.Discard, r); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestTimes(t *testing.T) {
	var p pingResult
	for i := 200; i >= 1; i-- {
		p.Times = append(p.Times, time.Duration(i)*time.Millisecond)
	}
	p.Lost = 3
	got, err := timesOf(p)
	if want := (Times{Count: 200, Lost: 3, Mean: 100.5, Median: 100.5, P99: 198, Max: 200}); err != nil || *got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	one, err := timesOf(pingResult{Times: []time.Duration{2 * time.Millisecond}})
	if want := (Times{Count: 1, Mean: 2, Median: 2, P99: 2, Max: 2}); err != nil || *one != want {
		t.Errorf("%+v, %v, want %+v", one, err, want)
	}
	if _, err := timesOf(pingResult{Lost: 5}); err == nil {
		t.Error("no replies, no error")
	}
}

func TestFilesOfProc(t *testing.T) {
	const stat = "42 (a) R b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 100\n"
	if cpu, err := parseProcessCPU(stat); err != nil || cpu != 3 {
		t.Errorf("process: %v, %v, want 3", cpu, err)
	}
	const machine = "cpu  100 20 300 4000 500 6 74 80 90 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n"
	if c, err := parseMachineCPU(machine); err != nil || c != (machineCPU{Busy: 5, Stolen: 0.8}) {
		t.Errorf("machine: %+v, %v", c, err)
	}
	if peak, err := parseKB("VmPeak:\t 99 kB\nVmHWM:\t    7 kB\n", "VmHWM:"); err != nil || peak != 7168 {
		t.Errorf("memory: %v, %v", peak, err)
	}
	const snmp = "Ip: RcvbufErrors\nIp: 1\nUdp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 10 20 30\nUdpLite: RcvbufErrors\n"
	if value, err := parseSNMP(snmp, "Udp:", "RcvbufErrors"); err != nil || value != 20 {
		t.Errorf("counter: %v, %v", value, err)
	}
	const sockets = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n" +
		"  11: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4711 2 0000000000000000 3\n" +
		" 112: 0100007F:0036 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4712 2 0000000000000000 20\n"
	if drops, err := parseSocketDrops(sockets, 4712); err != nil || drops != 20 {
		t.Errorf("socket drops: %v, %v", drops, err)
	}
	for _, text := range []string{"", "1 (a", "1 (a) S 2", "cpu 1", "Udp: RcvbufErrors\n", "Udp: A\nUdp: 1\n"} {
		_, e1 := parseProcessCPU(text)
		_, e2 := parseMachineCPU(text)
		_, e3 := parseSocketDrops(text, 1)
		_, e5 := parseSNMP(text, "Udp:", "RcvbufErrors")
		_, e4 := parseKB(text, "VmHWM:")
		if e1 == nil || e2 == nil || e3 == nil || e4 == nil || e5 == nil {
			t.Errorf("%q: errors %v, %v, %v, %v, %v, want five", text, e1, e2, e3, e4, e5)
		}
	}
	// And this very machine's.
	if _, err := processCPU(os.Getpid()); err != nil {
		t.Error(err)
	}
	if c, err := readMachineCPU(); err != nil || c.Busy <= 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if peak, err := peakMemory(os.Getpid()); err != nil || peak < 1<<20 {
		t.Errorf("%d, %v", peak, err)
	}
}

// startedAgent is an agent in this process.
func startedAgent(t *testing.T) *agent {
	requests, in := io.Pipe()
	out, responses := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serveAgent(requests, responses) }()
	t.Cleanup(func() {
		in.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return newAgent(in, out, func() { in.Close() })
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func TestAgentTCP(t *testing.T) {
	source, sink := startedAgent(t), startedAgent(t)
	for range 2 { // an agent serves again after a stop
		to, err := call[netip.AddrPort](sink, "tcp-listen", loopback, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := call[none](source, "tcp-connect", tcpFlows{To: to, Flows: 3}, 0); err != nil {
			t.Fatal(err)
		}
		if count, err := call[int64](sink, "tcp-count", none{}, 0); err != nil || count != 0 {
			t.Errorf("%d bytes before the start, %v", count, err)
		}
		if _, err := call[none](source, "tcp-start", none{}, 0); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 10*time.Second, "bytes arrive", func() bool {
			count, err := call[int64](sink, "tcp-count", none{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			return count > 0
		})
		for _, a := range []*agent{source, sink} {
			if _, err := call[none](a, "tcp-stop", none{}, 0); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAgentCongestion(t *testing.T) {
	source, sink := startedAgent(t), startedAgent(t)
	to, err := call[netip.AddrPort](sink, "tcp-listen", loopback, 0)
	if err != nil {
		t.Fatal(err)
	}
	flows := tcpFlows{To: to, Flows: 1, Congestion: "reno"} // every kernel has it, for everybody
	if _, err := call[none](source, "tcp-connect", flows, 0); err != nil {
		t.Error(err)
	}
	flows.Congestion = "nobodys"
	if _, err := call[none](source, "tcp-connect", flows, 0); err == nil || !strings.Contains(err.Error(), "nobodys") {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestAgentTellsOfLostFlows(t *testing.T) {
	source, sink := startedAgent(t), startedAgent(t)
	to, err := call[netip.AddrPort](sink, "tcp-listen", loopback, 0)
	if err != nil {
		t.Fatal(err)
	}
	var load tcpLoad // not behind an agent, to see when it has noticed
	if _, err := load.connect(tcpFlows{To: to, Flows: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := load.start(none{}); err != nil {
		t.Fatal(err)
	}
	if _, err := call[none](sink, "tcp-stop", none{}, 0); err != nil {
		t.Fatal(err)
	}
	load.working.Wait()
	if _, err := load.stop(none{}); err == nil || !strings.Contains(err.Error(), "ended early") {
		t.Errorf("error %v", err)
	}
	if _, err := call[none](source, "tcp-connect", tcpFlows{To: to, Flows: 1}, 0); err == nil {
		t.Error("connected to nobody")
	}
}

func TestAgentUDP(t *testing.T) {
	source, sink := startedAgent(t), startedAgent(t)
	to, err := call[netip.AddrPort](sink, "udp-listen", loopback, 0)
	if err != nil {
		t.Fatal(err)
	}
	const duration = 50 * time.Millisecond
	sent, err := call[udpSent](source, "udp-send", udpFlow{to, 64, 2000, duration}, duration)
	if err != nil {
		t.Fatal(err)
	}
	got, err := call[udpReceived](sink, "udp-result", none{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Loopback loses none but at the socket, and the rate holds up to the last batch.
	if limit := int64(2000*sent.Seconds) + udpTrain; sent.Packets < 1 || sent.Packets > limit || got.Packets+got.SocketDrops < sent.Packets {
		t.Errorf("sent %+v, received %+v", sent, got)
	}
	if _, err := call[udpReceived](sink, "udp-result", none{}, 0); err == nil {
		t.Error("a second result")
	}
}

func TestAgentRefuses(t *testing.T) {
	a := startedAgent(t)
	for op, args := range map[string]any{"fly": none{}, "requests-make": requestRun{}, "ping": pingRun{}, "udp-send": udpFlow{}, "tcp-listen": 1} {
		if _, err := call[none](a, op, args, 0); err == nil || !strings.HasPrefix(err.Error(), op+":") {
			t.Errorf("%s: error %v", op, err)
		}
	}
}

func TestStage(t *testing.T) {
	boom, late := errors.New("boom"), errors.New("late")
	var order []int
	err := onStage(t.Context(), func(s *stage) error {
		s.Cleanup(func() { order = append(order, 1) })
		s.Cleanup(func() { order = append(order, 2); s.Fatal(late) })
		s.Cleanup(func() {
			order = append(order, 3)
			s.Cleanup(func() { order = append(order, 4) })
		})
		s.Fatal(boom)
		t.Error("went on after Fatal")
		return nil
	})
	if !errors.Is(err, boom) || !errors.Is(err, late) || !slices.Equal(order, []int{3, 2, 1, 4}) {
		t.Errorf("error %v, cleanups %v", err, order)
	}
	if err := onStage(t.Context(), func(*stage) error { return nil }); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = onStage(ctx, func(s *stage) error {
		s.Cleanup(func() { order = nil })
		cancel()
		return boom
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, boom) || order != nil {
		t.Errorf("cancelled: error %v, cleanups %v", err, order)
	}
}
