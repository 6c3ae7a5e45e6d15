package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"culvert/control"
)

// demoEnds are two ends of a tunnel, a and b, with what it takes to send something from a to b.
type demoEnds struct {
	devices string // "tun", "tap" or "memory"
	listen  func() (net.Listener, error)
	dial    func(ctx context.Context) (net.Conn, error)
	pinger  func() (echoConn, error)
	usage   func() (usage, error)
	peer    func() (control.Peer, error) // b as a knows it
	close   func() error

	// Of taps; nil otherwise.
	ready    func(ctx context.Context) error // waits until something sent would cross
	ethernet func(ctx context.Context) (*ethernetSigns, error)
}

// echoConn sends numbered messages to b and receives their echoes.
type echoConn interface {
	send(seq uint16) error
	// receive waits for the next echo. What is not an echo of this connection's is passed over.
	receive() (seq uint16, err error)
	SetReadDeadline(time.Time) error
	Close() error
}

// usage is what the daemons used so far.
type usage struct {
	cpu     time.Duration
	peakRSS []uint64 // bytes, of each process
}

// demoResult is what --json prints: times in milliseconds, sizes in bytes.
type demoResult struct {
	Devices     string   `json:"devices"` // "tun", "tap", or "memory"
	Because     string   `json:"because,omitempty"`
	Wire        string   `json:"wire"`
	Suite       string   `json:"suite"`
	PostQuantum bool     `json:"post_quantum"`
	PathMTU     int      `json:"path_mtu,omitempty"` // these on the native wire only: see culvert status --json
	InnerMTU    int      `json:"inner_mtu,omitempty"`
	PathSettled bool     `json:"path_mtu_settled,omitempty"`
	TunnelRTT   float64  `json:"tunnel_rtt_ms,omitempty"` // as the daemon measured it, smoothed
	TunnelMin   float64  `json:"tunnel_rtt_min_ms,omitempty"`
	FirstPing   float64  `json:"first_ping_ms"` // the handshake included; in memory UDP is echoed in place of ICMP
	RTT         rtts     `json:"rtt_ms"`
	LoadedRTT   rtts     `json:"loaded_rtt_ms"` // while TCP is sent
	Seconds     float64  `json:"tcp_seconds"`
	Bytes       uint64   `json:"tcp_bytes"`
	Rate        float64  `json:"tcp_bits_per_second"`
	CPUPerGB    float64  `json:"cpu_seconds_per_gb"` // both daemons; in memory the whole process
	PeakRSS     []uint64 `json:"peak_rss_bytes"`
	PingsLost   int      `json:"pings_lost"`
	PingsLostIn int      `json:"pings_lost_loaded"`

	Ethernet *ethernetSigns `json:"ethernet,omitempty"` // of taps

	peer control.Peer
}

// rtts sums up round trip times.
type rtts struct {
	Count int     `json:"count"`
	Min   float64 `json:"min"`
	Mean  float64 `json:"mean"`
	Max   float64 `json:"max"`
}

func (r *rtts) add(d time.Duration) {
	ms := float64(d) / float64(time.Millisecond)
	if r.Count == 0 || ms < r.Min {
		r.Min = ms
	}
	r.Max = max(r.Max, ms)
	r.Mean += (ms - r.Mean) / float64(r.Count+1)
	r.Count++
}

const (
	firstPingTime = 15 * time.Second // for the handshake, which is tried again every 5 s
	pingTime      = 2 * time.Second
	pingCount     = 20
	pingPause     = 20 * time.Millisecond
)

// measure sends pings and then TCP from a to b.
func measure(ctx context.Context, s *show, ends *demoEnds, length time.Duration) (*demoResult, error) {
	r := &demoResult{Devices: ends.devices}
	conn, err := ends.pinger()
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket for pings: %w", err)
	}
	defer conn.Close()
	ping := &pinger{conn: conn}
	start := time.Now()
	if ends.ready != nil {
		if err := ends.ready(ctx); err != nil {
			return nil, err
		}
	}
	if _, err := ping.first(ctx); err != nil {
		return nil, err
	}
	r.FirstPing = float64(time.Since(start)) / float64(time.Millisecond)
	s.step("handshake and first echo: %.2f ms", r.FirstPing)
	if r.RTT, r.PingsLost, err = ping.many(ctx, pingCount); err != nil {
		return nil, err
	}
	s.step("%s", r.RTT)
	if ends.ethernet != nil {
		if r.Ethernet, err = ends.ethernet(ctx); err != nil {
			return nil, err
		}
		s.step("ARP through the tunnel found %s; a frame of EtherType %#x, which is not IP, crossed", r.Ethernet.Neighbour, r.Ethernet.EtherType)
	}
	if err := r.transfer(ctx, s, ends, ping, length); err != nil {
		return nil, err
	}
	peer, err := ends.peer()
	if err != nil {
		return nil, err
	}
	r.describe(peer)
	return r, nil
}

// describe notes what the tunnel says of itself.
func (r *demoResult) describe(p control.Peer) {
	r.peer = p
	r.Wire, r.Suite, r.PostQuantum = p.Wire, p.Suite, p.PostQuantum
	if n := p.Native; n != nil {
		r.PathMTU, r.InnerMTU, r.PathSettled = n.PathMTU, n.InnerMTU, n.PathSettled
		r.TunnelRTT, r.TunnelMin = 1000*n.RTT, 1000*n.RTTMin
	}
}

// transfer sends TCP for the given time, with pings beside it.
func (r *demoResult) transfer(ctx context.Context, s *show, ends *demoEnds, ping *pinger, length time.Duration) (err error) {
	l, err := ends.listen()
	if err != nil {
		return fmt.Errorf("cannot listen for TCP: %w", err)
	}
	defer l.Close()
	var received atomic.Uint64
	began := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close() // before the wait, which it ends
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		drain(c, &received, began)
	})
	dialCtx, cancel := context.WithTimeout(ctx, firstPingTime)
	c, err := ends.dial(dialCtx)
	cancel()
	if err != nil {
		return fmt.Errorf("cannot connect by TCP through the tunnel: %w", err)
	}
	defer c.Close()
	sendCtx, stop := context.WithCancel(ctx)
	defer stop()
	var sendErr error
	wg.Go(func() {
		defer stop()
		sendErr = flood(sendCtx, c)
	})
	select { // the clock starts with the first byte
	case <-began:
	case <-sendCtx.Done():
	case <-time.After(firstPingTime):
		return errors.New("no TCP came through the tunnel")
	}
	before, err := ends.usage()
	if err != nil {
		return err
	}
	start := time.Now()
	defer time.AfterFunc(length, stop).Stop()
	var pinging sync.WaitGroup
	pinging.Go(func() {
		r.LoadedRTT, r.PingsLostIn, _ = ping.many(sendCtx, -1)
	})
	pause := time.Second
	if s.live {
		pause = 100 * time.Millisecond
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	last, lastAt := uint64(0), start
	for sendCtx.Err() == nil {
		select {
		case now := <-tick.C:
			n := received.Load()
			s.progress(now.Sub(start), length, n, 8*float64(n-last)/now.Sub(lastAt).Seconds())
			last, lastAt = n, now
		case <-sendCtx.Done():
		}
	}
	elapsed := time.Since(start)
	r.Bytes = received.Load()
	after, err := ends.usage()
	c.Close()
	l.Close()
	pinging.Wait()
	wg.Wait()
	s.endLine()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case sendErr != nil:
		return fmt.Errorf("sending TCP through the tunnel: %w", sendErr)
	case err != nil:
		return err
	case r.Bytes == 0:
		return errors.New("no TCP came through the tunnel")
	}
	r.Seconds = elapsed.Seconds()
	r.Rate = 8 * float64(r.Bytes) / r.Seconds
	r.CPUPerGB = (after.cpu - before.cpu).Seconds() / (float64(r.Bytes) / 1e9)
	r.PeakRSS = after.peakRSS
	return nil
}

const chunk = 256 << 10

// flood writes until ctx ends.
func flood(ctx context.Context, c net.Conn) error {
	defer context.AfterFunc(ctx, func() { c.SetWriteDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, chunk)
	for {
		if _, err := c.Write(buf); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// drain counts what comes, and closes began when the first has.
func drain(c net.Conn, received *atomic.Uint64, began chan<- struct{}) {
	buf := make([]byte, chunk)
	for {
		n, err := c.Read(buf)
		if received.Add(uint64(n)) > 0 && began != nil {
			close(began)
			began = nil
		}
		if err != nil {
			return
		}
	}
}

// pinger sends messages to be echoed, one at a time.
type pinger struct {
	conn echoConn
	seq  uint16
}

var errNoReply = errors.New("no reply")

// once sends one message and waits for its echo.
func (p *pinger) once(ctx context.Context, limit time.Duration) (time.Duration, error) {
	p.seq++
	start := time.Now()
	if err := p.conn.SetReadDeadline(start.Add(limit)); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { p.conn.SetReadDeadline(time.Unix(1, 0)) })()
	if err := p.conn.send(p.seq); err != nil {
		return 0, err
	}
	for {
		seq, err := p.conn.receive()
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case isTimeout(err):
			return 0, errNoReply
		case err != nil:
			return 0, err
		case seq == p.seq:
			return time.Since(start), nil
		}
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

// first pings until a reply comes: the handshake happens on the way.
func (p *pinger) first(ctx context.Context) (time.Duration, error) {
	d, err := p.once(ctx, firstPingTime)
	if errors.Is(err, errNoReply) {
		return 0, fmt.Errorf("no ping came through the tunnel within %v", firstPingTime)
	}
	if err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	return d, nil
}

// many sends count pings, or with -1 as many as there is time for.
func (p *pinger) many(ctx context.Context, count int) (r rtts, lost int, err error) {
	pause := time.NewTicker(pingPause)
	defer pause.Stop()
	for i := 0; i != count; i++ {
		d, err := p.once(ctx, pingTime)
		switch {
		case ctx.Err() != nil:
			return r, lost, ctx.Err()
		case errors.Is(err, errNoReply):
			lost++
		case err != nil:
			return r, lost, fmt.Errorf("ping: %w", err)
		default:
			r.add(d)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return r, lost, ctx.Err()
		}
	}
	if r.Count == 0 {
		return r, lost, errors.New("no ping came back through the tunnel")
	}
	return r, lost, nil
}

func (r rtts) String() string {
	return fmt.Sprintf("RTT min/mean/max %.3f/%.3f/%.3f ms, %d replies", r.Min, r.Mean, r.Max, r.Count)
}

// rateText words bits per second.
func rateText(bits float64) string {
	if bits >= 1e9 {
		return fmt.Sprintf("%.2f Gbit/s", bits/1e9)
	}
	return fmt.Sprintf("%.1f Mbit/s", bits/1e6)
}

// write sums the demo up.
func (r *demoResult) write(w io.Writer) error {
	b := bufio.NewWriter(w)
	who, probe := "both daemons", "ping"
	if r.Devices == "memory" {
		fmt.Fprintf(b, "\nIn memory (%s), which says little about speed: real devices need root and /dev/net/tun.\n", r.Because)
		who, probe = "the whole process", "UDP echo"
	}
	quantum := "post-quantum"
	if !r.PostQuantum {
		quantum = "not post-quantum"
	}
	fmt.Fprintf(b, "\n%-31s%s, %s\n", "wire", wireText(r.peer), quantum)
	if e := r.Ethernet; e != nil {
		fmt.Fprintf(b, "%-31s%s (by ARP), EtherType %#x crosses\n", "Ethernet, neighbour", e.Neighbour, e.EtherType)
	}
	if n := r.peer.Native; n != nil {
		fmt.Fprintf(b, "%-31s%s\n", "path MTU", pathText(n))
		if n.RTT != 0 {
			fmt.Fprintf(b, "%-31s%s, min %s\n", "RTT by the tunnel itself", secondsText(n.RTT), secondsText(n.RTTMin))
		}
	}
	fmt.Fprintf(b, "%-31s%.2f ms\n", "handshake and first "+probe, r.FirstPing)
	fmt.Fprintf(b, "%-31s%s\n", probe+", idle", r.RTT)
	if r.LoadedRTT.Count > 0 {
		fmt.Fprintf(b, "%-31s%s\n", probe+", while TCP is sent", r.LoadedRTT)
	}
	fmt.Fprintf(b, "TCP, one flow                  %s (%s in %.1f s)\n", rateText(r.Rate), bytesText(r.Bytes), r.Seconds)
	fmt.Fprintf(b, "CPU                            %.2f s per GB, %s\n", r.CPUPerGB, who)
	var peaks []string
	for _, n := range r.PeakRSS {
		peaks = append(peaks, bytesText(n))
	}
	fmt.Fprintf(b, "peak memory                    %s\n", strings.Join(peaks, " and "))
	return b.Flush()
}

// processUsage reads what a process used, from /proc (proc_pid_stat(5)).
func processUsage(pid string) (cpu time.Duration, peakRSS uint64, err error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The second field is a name in parentheses that may hold anything; fields are counted from behind it.
	_, rest, ok := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, 0, errors.New("/proc/" + pid + "/stat cannot be understood")
	}
	const tick = time.Second / 100 // USER_HZ is 100 on every architecture Go runs Linux on
	for _, s := range f[11:13] {   // utime, stime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(n) * tick
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			if err != nil {
				return 0, 0, err
			}
			peakRSS = kb << 10
		}
	}
	return cpu, peakRSS, nil
}
