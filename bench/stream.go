package main

import (
	"errors"
	"net/netip"
	"slices"
	"time"
)

// turned is the scene seen from the other end: what goes forward there goes in reverse here.
func (sc *scene) turned() *scene {
	other := *sc
	other.source, other.sink = sc.sink, sc.source
	other.home, other.target = sc.target, sc.home
	other.daemons = slices.Clone(sc.daemons)
	slices.Reverse(other.daemons)
	return &other
}

// tcp measures flows of a way, or so many of each, and round trips beside them if told so.
func (sc *scene) tcp(flows int, w way, withPings bool) (result *TCP, loaded *Times, err error) {
	var ways []*scene
	switch w {
	case forward:
		ways = []*scene{sc}
	case reverse:
		ways = []*scene{sc.turned()}
	case both:
		ways = []*scene{sc, sc.turned()}
	}
	for _, each := range ways {
		if err = each.connect(flows); err != nil {
			break
		}
	}
	for _, each := range ways {
		if err == nil {
			_, err = call[none](each.source, "tcp-start", none{}, 0)
		}
	}
	if err == nil {
		result, loaded, err = window(ways, withPings)
	}
	if result != nil {
		result.Flows, result.Way = flows, w
	}
	// Those who send tell of flows that ended by themselves. They must not take the other side's stop for that.
	agents := []*agent{sc.source, sc.sink}
	errs := []error{err}
	if w == both {
		// Each sends, and would see the other stop.
		for _, a := range agents {
			_, err := call[none](a, "tcp-end", none{}, 0)
			errs = append(errs, err)
		}
	}
	if w == reverse {
		slices.Reverse(agents)
	}
	for _, a := range agents {
		_, err := call[none](a, "tcp-stop", none{}, 0)
		errs = append(errs, err)
	}
	return result, loaded, errors.Join(errs...)
}

// connect makes flows from source to target.
func (sc *scene) connect(flows int) error {
	to, err := call[netip.AddrPort](sc.sink, "tcp-listen", netip.AddrPortFrom(sc.target, 0), 0)
	if err != nil {
		return err
	}
	_, err = call[none](sc.source, "tcp-connect", tcpFlows{to, flows, sc.o.Congestion}, connectTimeout)
	return err
}

// window measures flows that are running already, of one way or two.
func window(ways []*scene, withPings bool) (*TCP, *Times, error) {
	sc := ways[0]
	if err := sc.sleep(sc.o.Warmup); err != nil {
		return nil, nil, err
	}
	counts := func() (counts [2]int64, err error) {
		for i, each := range ways {
			if counts[i], err = call[int64](each.sink, "tcp-count", none{}, 0); err != nil {
				return counts, err
			}
		}
		return counts, nil
	}
	start := time.Now()
	first, err := counts()
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
	// Pings make the window longer, never shorter.
	if err := sc.sleep(time.Until(start.Add(sc.o.Window))); err != nil {
		return nil, nil, err
	}
	end := time.Now()
	last, err := counts()
	if err != nil {
		return nil, nil, err
	}
	after, err := sc.usage()
	if err != nil {
		return nil, nil, err
	}
	there, back := last[0]-first[0], last[1]-first[1]
	if there == 0 || len(ways) > 1 && back == 0 {
		return nil, nil, errors.New("no data came through")
	}
	return &TCP{Bytes: there + back, BytesBack: back, Seconds: end.Sub(start).Seconds(), CPU: after.since(before)}, loaded, nil
}

// requests measures how fast the far end's answers come.
func (sc *scene) requests(connections int) (*Requests, error) {
	to, err := call[netip.AddrPort](sc.sink, "requests-answer", netip.AddrPortFrom(sc.target, 0), 0)
	if err != nil {
		return nil, err
	}
	run := requestRun{To: to, Connections: connections, Size: requestSize, Warmup: sc.o.Warmup, Duration: sc.o.Window}
	before, err := sc.usage()
	if err != nil {
		return nil, err
	}
	result, err := call[requestResult](sc.source, "requests-make", run, run.Warmup+run.Duration+connectTimeout)
	after, uerr := sc.usage()
	_, serr := call[none](sc.sink, "requests-stop", none{}, 0)
	if err := errors.Join(err, uerr, serr); err != nil {
		return nil, err
	}
	return &Requests{Connections: connections, Size: requestSize, Count: result.Count, Seconds: result.Seconds, Latency: result.Latency,
		CPU: after.since(before)}, nil
}

// udp finds out what the tunnel carries of datagrams of a size. start is a rate to begin with, per second.
func (sc *scene) udp(size int, start float64) (*UDP, error) {
	u := &UDP{Size: size}
	offer := func(rate int) (*UDPRun, error) { return sc.offer(size, rate) }
	if err := u.search(start, offer); err != nil {
		return u, err
	}
	if u.LossFree == nil {
		if u.Lossy == nil || u.Lossy.Received == 0 {
			return u, errors.New("no datagram came through")
		}
		return u, nil
	}
	over, err := offer(int(overloadFactor * u.LossFree.rate()))
	u.Overload = over
	return u, err
}

// offer sends datagrams at a rate and says what became of them.
func (sc *scene) offer(size, rate int) (*UDPRun, error) {
	if err := sc.ctx.Err(); err != nil {
		return nil, err
	}
	to, err := call[netip.AddrPort](sc.sink, "udp-listen", netip.AddrPortFrom(sc.target, 0), 0)
	if err != nil {
		return nil, err
	}
	before, err := sc.usage()
	if err != nil {
		return nil, err
	}
	lasting := sc.o.udpStep()
	sent, serr := call[udpSent](sc.source, "udp-send", udpFlow{to, size, rate, lasting}, lasting)
	got, rerr := call[udpReceived](sc.sink, "udp-result", none{}, 0)
	if err := errors.Join(serr, rerr); err != nil {
		return nil, err
	}
	after, err := sc.usage()
	if err != nil {
		return nil, err
	}
	return &UDPRun{Asked: rate, Sent: sent.Packets, SendSeconds: sent.Seconds, SendCPU: sent.CPUSeconds, Received: got.Packets, RecvSeconds: got.Seconds,
		SocketDrops: got.SocketDrops, CPU: after.since(before)}, nil
}
