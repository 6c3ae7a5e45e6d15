package scenes

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/lab"
)

// A frame of an MTU of 1500 has a header of 14 bytes that queueing disciplines count, and in TCP with timestamps 1448 bytes of payload.
const (
	frameSize   = 1514
	segmentSize = 1448
)

// flow counts what a receiver has got.
type flow struct {
	received atomic.Int64
}

// stream sends by TCP, as fast as it goes, from one host to an address of another, until the test ends or stop is called.
func stream(t *testing.T, from, to *lab.Host, address string) (f *flow, stop func()) {
	t.Helper()
	var l net.Listener
	to.Must(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address, "0"))
		return err
	})
	f = &flow{}
	var in, out net.Conn
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	from.Must(func() (err error) {
		out, err = net.DialTimeout("tcp", l.Addr().String(), patience)
		return err
	})
	in = <-accepted
	l.Close()
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := in.Read(buffer)
			if err != nil {
				return
			}
			f.received.Add(int64(n))
		}
	}()
	go func() {
		buffer := make([]byte, 16<<10)
		for {
			if _, err := out.Write(buffer); err != nil {
				return
			}
		}
	}()
	stop = func() {
		for _, c := range []net.Conn{in, out} {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			c.Close()
		}
	}
	t.Cleanup(stop)
	return f, stop
}

// flood sends UDP of a rate in bit/s, counted in frames, whatever becomes of it.
func flood(t *testing.T, from, to *lab.Host, address string, rate float64) (f *flow, stop func()) {
	t.Helper()
	const payload = 1458 // 1500 less the headers of IP and UDP is 1472
	var in net.PacketConn
	var out net.Conn
	to.Must(func() (err error) {
		in, err = net.ListenPacket("udp", net.JoinHostPort(address, "0"))
		return err
	})
	from.Must(func() (err error) {
		out, err = net.Dial("udp", in.LocalAddr().String())
		return err
	})
	f = &flow{}
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, _, err := in.ReadFrom(buffer)
			if err != nil {
				return
			}
			f.received.Add(int64(n))
		}
	}()
	done := make(chan struct{})
	go func() {
		buffer := make([]byte, payload)
		begun, sent := time.Now(), 0.0
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for due := time.Since(begun).Seconds() * rate / 8; sent < due; sent += payload + 42 {
				_, _ = out.Write(buffer)
			}
		}
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			close(done)
			in.Close()
			out.Close()
		}
	}
	t.Cleanup(stop)
	return f, stop
}

// measure returns what flows carry in that time, each in bit/s of payload.
func measure(flows []*flow, warmUp, length time.Duration) []float64 {
	time.Sleep(warmUp) // what was queued or saved up before is no rate
	begun, before := time.Now(), make([]int64, len(flows))
	for i, f := range flows {
		before[i] = f.received.Load()
	}
	time.Sleep(length)
	rates := make([]float64, len(flows))
	for i, f := range flows {
		rates[i] = float64(f.received.Load()-before[i]) * 8 / time.Since(begun).Seconds()
	}
	return rates
}

// rateHolds sends by TCP and demands that the frames keep to a limit in bit/s: never more than 5 % above it, and at one of three tries not
// below that share of it, 95 % or, of a tbf, whose queue TCP finds full all the time, 90 %: where the processor is busy with other things it
// may be less for a while. In the guest it shows only that there is a limit, between a tenth and 1.3 times what was declared.
func rateHolds(t *testing.T, what string, from, to *lab.Host, address string, limit, below float64) {
	t.Helper()
	f, stop := stream(t, from, to, address)
	defer stop()
	above, tries := 1.05, 3
	if inGuest() {
		below, above, tries = 0.1, 1.3, 1 // emulated, whose clock and TCP stall: it is limited, and how well is seen on the host
	}
	for try := 1; ; try++ {
		rate := measure([]*flow{f}, 1500*time.Millisecond, 5*time.Second)[0] * frameSize / segmentSize
		t.Logf("%s: %.3f Mbit/s of %.0f", what, rate/1e6, limit/1e6)
		switch {
		case rate > above*limit, rate < below*limit && try == tries:
			t.Errorf("%s: %.3f Mbit/s, want %.0f, from %.0f %% to %.0f %%", what, rate/1e6, limit/1e6, below*100, above*100)
			return
		case rate >= below*limit:
			return
		}
	}
}

// fairness is Jain's index: 1 where all get the same, 1/n where one of n gets everything.
func fairness(rates []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, r := range rates {
		sum += r
		squares += r * r
	}
	return sum * sum / (float64(len(rates)) * squares)
}

// slowly are the replacements for emulated machines.
var slowly = []string{"8mbit", "1mbit"}

// declaredLimit is the only limit that a file has, in bit/s.
func declaredLimit(m *machine) float64 {
	m.Helper()
	before, _, ok := strings.Cut(m.text, "mbit,")
	var limit float64
	if _, err := fmt.Sscanf(before[strings.LastIndexByte(before, ' ')+1:], "%g", &limit); !ok || err != nil {
		m.Fatalf("there is no limit in\n%s", m.text)
	}
	return limit * 1e6
}

// withoutSFQ are the replacements for kernels that have no sfq.
var withoutSFQ = []string{"\n        leaf: {sfq: {perturb: 10s}}", ""}

// TestLimitsHold measures, so nothing else may run.
func TestLimitsHold(t *testing.T) {
	if !inGuest() && os.Getenv(aloneEnv) == "" {
		t.Skipf("it judges rates and wants the machine to itself: %s=1 runs it, as .ci/run does when nothing else runs", aloneEnv)
	}
	t.Run("ifb", limitByIFB)
	t.Run("tunnel", limitOfTunnel)
}

func limitByIFB(t *testing.T) {
	s := scene{
		file: "ifb-limit.yaml",
		around: func(m *machine) func() {
			out := m.outside("eth0", "192.0.2.7/24", "192.0.2.1/24", lab.NoOffloads())
			return func() {
				limit := declaredLimit(m)
				rateHolds(m.T, "received", out, m.host, "192.0.2.7", limit, 0.95)
				rateHolds(m.T, "sent", m.host, out, "192.0.2.1", limit, 0.90)
			}
		},
		changes: []change{
			{[]string{"8mbit", "12mbit"}, []string{"~ class ifb-wan 6376:1 ceil 8mbit -> 12mbit, rate 8mbit -> 12mbit", "~ qdisc eth0 root (tbf) limit ", "rate 8mbit -> 12mbit"}},
		},
		replace: withoutSFQ,
	}
	if inGuest() {
		s.replace, s.changes = slowly, nil
	}
	s.play(t)
}

// What is received goes through the ifb.
func TestIFBFair(t *testing.T) {
	(&scene{
		file:  "ifb-fair.yaml",
		guest: true,
		around: func(m *machine) func() {
			out := m.outside("eth0", "192.0.2.7/24", "192.0.2.1/24")
			return func() {
				before := m.host.Counters("ifb-eth0").SentPackets
				reachesFrom(m.T, out, "192.0.2.7")
				if after := m.host.Counters("ifb-eth0").SentPackets; after == before {
					m.Error("nothing went through the ifb")
				}
				if have := m.shell("", "tc", "qdisc", "show", "dev", "ifb-eth0"); !strings.Contains(have, "qdisc sfq 6376: root") {
					m.Errorf("the ifb has\n%s", have)
				}
			}
		},
		changes: []change{
			{[]string{"sfq: {perturb: 10s}", "sfq: {perturb: 5s, limit: 60}"}, []string{"-/+ qdisc ifb-eth0 root (sfq) ", "because its limit cannot be changed"}},
		},
	}).play(t)
}

// Under a limit one that opens ten connections gets no more per connection than one that opens one, and one that heeds nothing, over UDP,
// gets no more than its share. In a plain queue (no leaf below htb) the latter gets next to all: without that the rest would prove nothing.
func TestFlowsShareFairly(t *testing.T) {
	if !inGuest() {
		t.Skip("runs in the guest of TestInGuest")
	}
	// Not beside others: they share an emulated processor.
	m := newMachine(t)
	out := m.outside("eth0", "192.0.2.7/24", "192.0.2.1/24", lab.NoOffloads())
	before := m.settledSnapshot()
	const inOneQueue = "none"
	for _, leaf := range []string{inOneQueue, "{sfq: {perturb: 10s}}", "{fq_codel: {}}", "cake"} {
		switch leaf {
		case inOneQueue:
			m.example("ifb-limit.yaml", "\n        leaf: {sfq: {perturb: 10s}}", "", "rate: 8mbit\n", "rate: 2mbit\n")
		case "cake":
			m.example("ifb-limit.yaml", "htb:\n        rate: 8mbit\n        leaf: {sfq: {perturb: 10s}}", "cake: {bandwidth: 2mbit, flow_mode: flows}")
		default:
			m.example("ifb-limit.yaml", "{sfq: {perturb: 10s}}", leaf, "rate: 8mbit\n", "rate: 2mbit\n")
		}
		m.apply()
		m.settled()
		hog, stop := flood(t, out, m.host, "192.0.2.7", 3e6)
		flows, stops := []*flow{hog}, []func(){stop}
		for range 10 {
			f, stop := stream(t, out, m.host, "192.0.2.7")
			flows, stops = append(flows, f), append(stops, stop)
		}
		rates := measure(flows, 4*time.Second, 8*time.Second)
		for _, stop := range stops {
			stop()
		}
		index := fairness(rates)
		t.Logf("%s: index %.3f of %.0f", leaf, index, rates)
		switch {
		case leaf == inOneQueue && index > 0.5:
			t.Errorf("without fair queueing Jain's index is %.3f as well: %.0f", index, rates)
		case leaf != inOneQueue && index < 0.85:
			t.Errorf("%s: Jain's index is %.3f: %.0f", leaf, index, rates)
		}
	}
	m.destroyed(before)
}

// The index tells a fair share from an unfair one.
func TestFairness(t *testing.T) {
	for _, c := range []struct {
		rates []float64
		want  float64
	}{{[]float64{3, 3, 3}, 1}, {[]float64{5, 0, 0, 0}, 0.25}, {[]float64{1, 3}, 0.8}} {
		if got := fairness(c.rates); got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("the index of %v is %v, want %v", c.rates, got, c.want)
		}
	}
}
