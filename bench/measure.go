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
	r := &Results{Format: resultsFormat, Started: time.Now().UTC().Truncate(time.Second), Options: *o, Machine: thisMachine()}
	var trials []planned
	var names []string
	add := func(list []Implementation, missing []string) {
		for _, i := range list {
			names = append(names, i.Name)
		}
		list = o.only(list)
		for _, m := range missing {
			fmt.Fprintf(progress, "not measured: %s\n", m)
		}
		r.Implementations, r.NotMeasured = append(r.Implementations, list...), append(r.NotMeasured, missing...)
		trials = append(trials, plan(o.Rounds, o.Underlays, list)...)
	}
	if slices.Contains(o.Parts, partTunnel) {
		list, missing, err := implementations(s, o, r.Machine)
		if err != nil {
			return nil, err
		}
		add(list, missing)
	}
	if slices.Contains(o.Parts, partTap) {
		list, missing, err := tapImplementations(s, o, r.Machine)
		if err != nil {
			return nil, err
		}
		add(list, missing)
	}
	var peers []Implementation
	if slices.Contains(o.Parts, partPeers) {
		list, err := peersImplementations(s, o, r.Machine)
		if err != nil {
			return nil, err
		}
		for _, i := range list {
			if !slices.Contains(names, i.Name) {
				names = append(names, i.Name)
			}
		}
		peers = o.only(list)
		r.Implementations = append(r.Implementations, peers...)
	}
	for _, name := range o.Only {
		if !slices.Contains(names, name) {
			fmt.Fprintf(progress, "not measured: there is no %q\n", name)
		}
	}
	switch {
	case len(o.Only) > 0 && len(names) == 0:
		return nil, fmt.Errorf("-only: it chooses among the implementations of -parts %s, %s and %s; %v have none", partTunnel, partTap, partPeers, o.Parts)
	case len(o.Only) > 0 && len(trials) == 0 && len(peers) == 0:
		return nil, fmt.Errorf("-only: none of %q is there; there are %q", o.Only, names)
	}
	if o.Congestion != "" {
		r.Machine.TCP = o.Congestion
	}
	told := newTold(progress, o, trials)
	for _, p := range trials {
		t := Trial{Round: p.round, Underlay: p.underlay, Part: p.implementation.Part, Implementation: p.implementation.Name,
			LoadBefore: load()}
		began := time.Now()
		told.begins(&t)
		err := onStage(s.Context(), func(inner *stage) error { return t.measure(inner, o, p.implementation, told) })
		if s.Context().Err() != nil {
			return nil, err
		}
		if err != nil {
			t.Error = err.Error()
		}
		t.Seconds = time.Since(began).Seconds()
		told.ended(&t)
		r.Trials = append(r.Trials, t)
	}
	if err := measurePeers(s, o, r, peers, progress); err != nil {
		return nil, err
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
	source *agent     // on the sending host
	sink   *agent     // on the receiving host
	prober *agent     // on the sending host; apart from source, whose goroutines would delay it
	target netip.Addr // of the receiving host, through the tunnel if there is one
	home   netip.Addr // likewise of the sending host
	hosts  [2]*lab.Host

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
	sc := &scene{o: o, ctx: s.Context(), target: wire.B.V4.Addr(), home: wire.A.V4.Addr(), hosts: [2]*lab.Host{a, b}}
	add := sc.addTunnel
	if impl.Part == partTap || impl.rival != nil {
		add = sc.addByFiles
	}
	if len(impl.Command) > 0 {
		if err := add(s, wire, impl); err != nil {
			return nil, err
		}
	}
	// Packets of any program but those that send trains come to a tunnel one by one, and so shall the load's.
	sending := wire.A.Device
	if len(impl.Command) > 0 {
		sending = tunnelDevice
	}
	a.SetUDPTrains(sending, false)
	var err error
	for agent, host := range map[**agent]*lab.Host{&sc.source: a, &sc.prober: a, &sc.sink: b} {
		if *agent, err = startAgent(s, host); err != nil {
			return nil, err
		}
	}
	return sc, nil
}

// overlayEnd is one end of a tunnel between two hosts.
type overlayEnd struct {
	lab.End
	address         netip.Prefix // inside the tunnel
	private, public string       // keys
	peer            peerText     // the other end
}

// newOverlayEnds returns the sending end and the receiving one, with new keys.
func newOverlayEnds(wire lab.Wire) (ends [2]overlayEnd, err error) {
	ends = [2]overlayEnd{
		{End: wire.A, address: netip.MustParsePrefix("198.51.100.1/24")},
		{End: wire.B, address: netip.MustParsePrefix("198.51.100.2/24")},
	}
	for i := range ends {
		e := &ends[i]
		if e.private, e.public, err = newKey(); err != nil {
			return ends, err
		}
		inner := netip.PrefixFrom(e.address.Addr(), 32)
		ends[1-i].peer = peerText{e.public, netip.AddrPortFrom(e.V4.Addr(), tunnelPort), inner}
	}
	return ends, nil
}

// addTunnel starts a daemon at either end of the wire and makes the far one's inner address the target.
func (sc *scene) addTunnel(s *stage, wire lab.Wire, impl Implementation) error {
	ends, err := newOverlayEnds(wire)
	if err != nil {
		return err
	}
	for i, e := range ends {
		argument := tunnelDevice
		if impl.File {
			if argument, err = writeTunnelFile(s, impl, e.private, e.address, e.peer); err != nil {
				return err
			}
		}
		own := impl
		if i == 1 && len(impl.Far) > 0 {
			own.Command = impl.Far
		}
		d, err := startDaemon(s, e.Host, own, (*daemon).answers, argument)
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
	sc.peer, sc.home, sc.target = ends[0].peer, ends[0].address.Addr(), ends[1].address.Addr()
	if impl.File {
		sc.privateKey = ends[0].private
		return sc.awaitTunnel(wire.A.Host)
	}
	return nil
}

// awaitTunnel returns when daemons that configure themselves have done so.
func (sc *scene) awaitTunnel(from *lab.Host) error {
	return sc.await(func() error { return from.Ping(sc.target) })
}

// await returns when f does not fail any more, or a daemon is gone.
func (sc *scene) await(f func() error) error {
	for end := time.Now().Add(startupTimeout); ; {
		err := f()
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
	pingInterval = 5 * time.Millisecond
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

// roundTrips pings for the length of two measurements: of fewer round trips the slowest hundredth would be one or two.
func (sc *scene) roundTrips() (*Times, error) {
	lasting := 2 * sc.o.Window
	count := max(1, min(int(lasting/pingInterval), maxPings))
	result, err := call[pingResult](sc.prober, "ping",
		pingRun{To: sc.target, Count: count, Interval: pingInterval, Wait: pingWait}, lasting+pingWait)
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
