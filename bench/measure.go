package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"culvert/internal/lab"
)

// measure makes all trials. The implementations take turns in alternating order, within each underlay of each round.
func measure(s *stage, o *options, progress io.Writer) (*Results, error) {
	machine := thisMachine()
	var list []Implementation
	if slices.Contains(o.Parts, partTunnel) {
		var err error
		if list, err = implementations(s, o, machine); err != nil {
			return nil, err
		}
	}
	r := &Results{Format: resultsFormat, Started: time.Now().UTC().Truncate(time.Second), Options: *o,
		Machine: machine, Implementations: list}
	if o.Congestion != "" {
		r.Machine.TCP = o.Congestion
	}
	if !slices.Contains(o.Parts, partTunnel) {
		return r, measureEngine(s, o, r, progress)
	}
	for _, p := range plan(o.Rounds, o.Underlays, list) {
		t := Trial{Round: p.round, Underlay: p.underlay, Implementation: p.implementation.Name, LoadBefore: load()}
		err := onStage(s.Context(), func(inner *stage) error { return t.measure(inner, o, p.implementation) })
		if s.Context().Err() != nil {
			return nil, err
		}
		if err != nil {
			t.Error = err.Error()
		}
		fmt.Fprintf(progress, "round %d/%d  %-11s  %s\n", t.Round, o.Rounds, t.Underlay, t.summary())
		r.Trials = append(r.Trials, t)
	}
	return r, measureEngine(s, o, r, progress)
}

// planned is a trial to be made.
type planned struct {
	round          int
	underlay       underlay
	implementation Implementation
}

// plan returns the trials in order: A B, B A, A B, ... for each underlay.
func plan(rounds int, underlays []underlay, list []Implementation) (trials []planned) {
	for round := 1; round <= rounds; round++ {
		order := slices.Clone(list)
		if round%2 == 0 {
			slices.Reverse(order)
		}
		for _, u := range underlays {
			for _, impl := range order {
				trials = append(trials, planned{round, u, impl})
			}
		}
	}
	return trials
}

// scene is two hosts with load on them, and where a tunnel is measured its daemons.
type scene struct {
	o      *options
	ctx    context.Context
	source *agent // on the sending host
	sink   *agent // on the receiving host
	prober *agent // on the sending host; apart from source, whose goroutines would delay it
	target netip.Addr

	daemons    []*daemon
	peer       peerText // as the sending end's daemon knows the other
	privateKey string   // of the sending end, where that is to forget its sessions by it
}

const (
	tunnelMTU  = 1420 // WireGuard's for an underlay of 1500
	tunnelPort = 51820
)

// newScene builds the hosts and, unless for plain, the tunnel.
func newScene(s *stage, o *options, u underlay, impl Implementation) (*scene, error) {
	a, b := lab.NewHost(s, "a"), lab.NewHost(s, "b")
	opts := []lab.LinkOption{lab.Addresses("192.0.2.1/24", "192.0.2.2/24")}
	if u == withoutOffloads {
		opts = append(opts, lab.NoOffloads())
	}
	wire := lab.Link(s, a, b, opts...)
	// So that no measurement contains the search for the neighbour.
	if err := a.Ping(wire.B.V4.Addr()); err != nil {
		return nil, err
	}
	sc := &scene{o: o, ctx: s.Context(), target: wire.B.V4.Addr()}
	if o.Congestion != "" {
		a.Sysctl("net/ipv4/tcp_congestion_control", o.Congestion)
		b.Sysctl("net/ipv4/tcp_congestion_control", o.Congestion)
	}
	if len(impl.Command) > 0 {
		if err := sc.addTunnel(s, wire, impl); err != nil {
			return nil, err
		}
	}
	var err error
	for agent, host := range map[**agent]*lab.Host{&sc.source: a, &sc.prober: a, &sc.sink: b} {
		if *agent, err = startAgent(s, host); err != nil {
			return nil, err
		}
	}
	return sc, nil
}

// addTunnel starts a daemon at either end of the wire and makes the far one's inner address the target.
func (sc *scene) addTunnel(s *stage, wire lab.Wire, impl Implementation) error {
	type end struct {
		lab.End
		address         netip.Prefix
		private, public string
		peer            peerText
	}
	ends := []*end{
		{End: wire.A, address: netip.MustParsePrefix("198.51.100.1/24")},
		{End: wire.B, address: netip.MustParsePrefix("198.51.100.2/24")},
	}
	for i, e := range ends {
		var err error
		if e.private, e.public, err = newKey(); err != nil {
			return err
		}
		inner := netip.PrefixFrom(e.address.Addr(), 32)
		ends[1-i].peer = peerText{e.public, netip.AddrPortFrom(e.V4.Addr(), tunnelPort), inner}
	}
	for _, e := range ends {
		argument := tunnelDevice
		if impl.File {
			var err error
			if argument, err = writeTunnelFile(s, e.private, e.address, e.peer); err != nil {
				return err
			}
		}
		d, err := startDaemon(s, e.Host, impl, argument)
		if err != nil {
			return err
		}
		sc.daemons = append(sc.daemons, d)
		if impl.File {
			continue
		}
		if err := d.configure(e.private, tunnelPort, e.peer); err != nil {
			return fmt.Errorf("configure %s: %w", impl.Name, err)
		}
		e.Host.SetMTU(tunnelDevice, tunnelMTU)
		e.Host.AddAddr(tunnelDevice, e.address.String())
		e.Host.Up(tunnelDevice)
	}
	sc.peer, sc.target = ends[0].peer, ends[1].address.Addr()
	if impl.File {
		sc.privateKey = ends[0].private
		return sc.awaitTunnel(wire.A.Host)
	}
	return nil
}

// awaitTunnel returns when daemons that configure themselves have done so.
func (sc *scene) awaitTunnel(from *lab.Host) error {
	for end := time.Now().Add(startupTimeout); ; {
		err := from.Ping(sc.target)
		if err == nil {
			return nil
		}
		if words := sc.lastWords(); words != nil || time.Now().After(end) {
			return errors.Join(err, words)
		}
		if err := sc.sleep(pingInterval); err != nil {
			return err
		}
	}
}

// measure makes one trial. What could be measured is in t also when there is an error.
func (t *Trial) measure(s *stage, o *options, impl Implementation) error {
	sc, err := newScene(s, o, t.Underlay, impl)
	if err != nil {
		return err
	}
	steps := []struct {
		name string
		run  func() error
	}{
		{"handshake", func() (err error) { t.Handshake, err = sc.handshakes(); return err }},
		{"idle round trips", func() (err error) { t.RTTIdle, err = sc.roundTrips(); return err }},
		{"TCP, 1 flow", func() (err error) { t.TCP1, t.RTTLoaded, err = sc.tcp(1); return err }},
		{"TCP, 4 flows", func() (err error) { t.TCP4, _, err = sc.tcp(4); return err }},
		{"UDP, 64 bytes", func() (err error) { t.UDP64, err = sc.udp(64); return err }},
		{"UDP, 200 bytes", func() (err error) { t.UDP200, err = sc.udp(200); return err }},
		{"memory", func() (err error) { t.PeakMemory, err = sc.memory(); return err }},
	}
	var errs []error
	for _, step := range steps {
		if err := step.run(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.name, err))
			if words := sc.lastWords(); words != nil {
				return errors.Join(append(errs, words)...)
			}
		}
	}
	return errors.Join(errs...)
}

// lastWords tells which daemons are gone, with what they wrote.
func (sc *scene) lastWords() error {
	var errs []error
	for i, d := range sc.daemons {
		select {
		case <-d.ended:
			errs = append(errs, fmt.Errorf("daemon %d is gone: %s", i+1, d.text()))
		default:
		}
	}
	return errors.Join(errs...)
}

// sleep waits, but no longer than the stage lasts.
func (sc *scene) sleep(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-sc.ctx.Done():
		return sc.ctx.Err()
	}
}

const (
	// handshakePause lets a responder's limits on handshakes pass: wireguard-go refuses one within 50 ms of the last, and
	// one whose timestamp is the last one's.
	handshakePause = 100 * time.Millisecond
	// handshakeWait covers the repetition after 5 s of a handshake that failed.
	handshakeWait = 12 * time.Second
	// pingInterval parts round trips.
	pingInterval = 10 * time.Millisecond
	pingWait     = time.Second
)

// handshakes returns how long after the first packet for a peer without a session its answer comes: a handshake, and a
// round trip of the packet.
func (sc *scene) handshakes() (*Times, error) {
	if len(sc.daemons) == 0 {
		return nil, nil
	}
	var all pingResult
	for range sc.o.Handshakes {
		if err := sc.forget(); err != nil {
			return nil, err
		}
		if err := sc.sleep(handshakePause); err != nil {
			return nil, err
		}
		one, err := call[pingResult](sc.prober, "ping",
			pingRun{To: sc.target, Count: 1, Interval: pingInterval, Wait: handshakeWait}, handshakeWait)
		if err != nil {
			return nil, err
		}
		all.Times = append(all.Times, one.Times...)
		all.Lost += one.Lost
	}
	return timesOf(all)
}

// forget drops the sending end's session.
func (sc *scene) forget() error {
	if sc.privateKey != "" {
		return sc.daemons[0].forgetAll(sc.privateKey)
	}
	return sc.daemons[0].forget(sc.peer)
}

// roundTrips pings for the length of a measurement.
func (sc *scene) roundTrips() (*Times, error) {
	count := max(1, min(int(sc.o.Duration/pingInterval), maxPings))
	result, err := call[pingResult](sc.prober, "ping",
		pingRun{To: sc.target, Count: count, Interval: pingInterval, Wait: pingWait}, sc.o.Duration+pingWait)
	if err != nil {
		return nil, err
	}
	return timesOf(result)
}

// usage is a reading of all CPU clocks.
type usage struct {
	daemons []float64
	load    float64
	machine machineCPU
}

func (sc *scene) usage() (u usage, err error) {
	for _, d := range sc.daemons {
		cpu, err := processCPU(d.pid)
		if err != nil {
			return u, err
		}
		u.daemons = append(u.daemons, cpu)
	}
	for _, a := range []*agent{sc.source, sc.sink, sc.prober} {
		cpu, err := processCPU(a.pid)
		if err != nil {
			return u, err
		}
		u.load += cpu
	}
	u.machine, err = readMachineCPU()
	return u, err
}

// since returns what was used from an earlier reading on.
func (u usage) since(before usage) CPU {
	c := CPU{Load: u.load - before.load, Machine: u.machine.Busy - before.machine.Busy, Stolen: u.machine.Stolen - before.machine.Stolen}
	for i := range u.daemons {
		c.Daemons = append(c.Daemons, u.daemons[i]-before.daemons[i])
	}
	return c
}

// tcp measures some flows, and the round trips beside a single one.
func (sc *scene) tcp(flows int) (result *TCP, loaded *Times, err error) {
	to, err := call[netip.AddrPort](sc.sink, "tcp-listen", netip.AddrPortFrom(sc.target, 0), 0)
	if err != nil {
		return nil, nil, err
	}
	_, err = call[none](sc.source, "tcp-send", tcpFlows{to, flows}, time.Duration(flows)*connectTimeout)
	if err == nil {
		result, loaded, err = sc.window(flows == 1)
	}
	// The sender first: it tells of flows that ended by themselves.
	_, serr := call[none](sc.source, "tcp-stop", none{}, 0)
	_, rerr := call[none](sc.sink, "tcp-stop", none{}, 0)
	return result, loaded, errors.Join(err, serr, rerr)
}

// window measures flows that are running already.
func (sc *scene) window(withPings bool) (*TCP, *Times, error) {
	if err := sc.sleep(sc.o.Warmup); err != nil {
		return nil, nil, err
	}
	start := time.Now()
	bytes, err := call[int64](sc.sink, "tcp-count", none{}, 0)
	if err != nil {
		return nil, nil, err
	}
	before, err := sc.usage()
	if err != nil {
		return nil, nil, err
	}
	var loaded *Times
	if withPings {
		if loaded, err = sc.roundTrips(); err != nil {
			return nil, nil, err
		}
	}
	// Pings that wait for lost replies make the window longer, never shorter.
	if err := sc.sleep(time.Until(start.Add(sc.o.Duration))); err != nil {
		return nil, nil, err
	}
	end := time.Now()
	total, err := call[int64](sc.sink, "tcp-count", none{}, 0)
	if err != nil {
		return nil, nil, err
	}
	after, err := sc.usage()
	if err != nil {
		return nil, nil, err
	}
	if total == bytes {
		return nil, nil, errors.New("no data came through")
	}
	return &TCP{Bytes: total - bytes, Seconds: end.Sub(start).Seconds(), CPU: after.since(before)}, loaded, nil
}

// udp measures a flood of small packets.
func (sc *scene) udp(size int) (*UDP, error) {
	to, err := call[netip.AddrPort](sc.sink, "udp-listen", netip.AddrPortFrom(sc.target, 0), 0)
	if err != nil {
		return nil, err
	}
	before, err := sc.usage()
	if err != nil {
		return nil, err
	}
	sent, serr := call[udpSent](sc.source, "udp-send", udpFlow{to, size, sc.o.UDPRate, sc.o.Duration}, sc.o.Duration)
	got, rerr := call[udpReceived](sc.sink, "udp-result", none{}, 0)
	if err := errors.Join(serr, rerr); err != nil {
		return nil, err
	}
	after, err := sc.usage()
	if err != nil {
		return nil, err
	}
	if got.Packets == 0 {
		return nil, errors.New("no packet came through")
	}
	return &UDP{Size: size, Sent: sent.Packets, SendSeconds: sent.Seconds, Received: got.Packets, RecvSeconds: got.Seconds,
		SocketDrops: got.SocketDrops, CPU: after.since(before)}, nil
}

// memory returns the daemons' peaks.
func (sc *scene) memory() (peaks []int64, err error) {
	for _, d := range sc.daemons {
		peak, err := peakMemory(d.pid)
		if err != nil {
			return nil, err
		}
		peaks = append(peaks, peak)
	}
	return peaks, nil
}
