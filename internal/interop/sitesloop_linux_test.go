package interop

import (
	"slices"
	"testing"
	"time"

	"culvert/internal/lab"
)

// loop is a network with a loop that can be closed and opened.
type loop struct {
	ends        []*tap
	stations    []*station
	close, open func()
	// through are the two stations that only the tunnel joins once the loop is open, and carries the ends whose tunnel that is.
	through [2]*station
	carries []*tap
	blocked int // how many ends are
}

// twoSites are two sites with a station each, and a wire between them.
func twoSites(t *testing.T) (a, b *site, wire lab.Wire, stations []*station) {
	t.Helper()
	a, b = newSite(t, "a"), newSite(t, "b")
	wire = lab.Link(t, a.host, b.host, lab.NoOffloads())
	a.bridge()
	b.bridge()
	return a, b, wire, []*station{a.station("hosta", 1), b.station("hostb", 2)}
}

// Two sites joined by a tunnel and by a cable.
func loopOfCable(t *testing.T) *loop {
	a, b, wire, stations := twoSites(t)
	ends := []*tap{a.tap("office", etherPort), b.tap("office", etherPort)}
	connect(ends[0], ends[1], wire)
	patch(a, b, "direct")
	return &loop{
		ends: ends, stations: stations, through: [2]*station(stations), carries: ends, blocked: 1,
		close: func() { b.host.Up("direct") },
		open:  func() { b.host.Down("direct") },
	}
}

// Two sites joined by two tunnels.
func loopOfTunnels(t *testing.T) *loop {
	a, b, wire, stations := twoSites(t)
	ends := []*tap{a.tap("office", etherPort), b.tap("office", etherPort), a.tap("spare", etherPort+1), b.tap("spare", etherPort+1)}
	connect(ends[0], ends[1], wire)
	connect(ends[2], ends[3], wire)
	return &loop{
		ends: ends, stations: stations, through: [2]*station(stations), carries: ends[:2], blocked: 1,
		close: func() { a.plug("spare") },
		open:  func() { a.host.Shell("ip", "link", "set", "spare", "nomaster") },
	}
}

// A hub and two spokes, which are on one network.
func loopOfSpokes(t *testing.T) *loop {
	hub, a, b := newSite(t, "hub"), newSite(t, "a"), newSite(t, "b")
	wireA, wireB := lab.Link(t, hub.host, a.host, lab.NoOffloads()), lab.Link(t, hub.host, b.host, lab.NoOffloads())
	var stations []*station
	for i, s := range []*site{hub, a, b} {
		s.bridge()
		stations = append(stations, s.station("host"+s.host.Name, i+1))
	}
	patch(a, b, "direct")
	ends := []*tap{hub.tap("office", etherPort), a.tap("office", etherPort), b.tap("office", etherPort)}
	for i, wire := range []lab.Wire{wireA, wireB} {
		_, atHub := connect(ends[i+1], ends[0], wire)
		atHub.extra = "        spoke: true\n"
	}
	return &loop{
		ends: ends, stations: stations, through: [2]*station{stations[1], stations[2]}, carries: ends, blocked: 1,
		close: func() { b.host.Up("direct") },
		open:  func() { b.host.Down("direct") },
	}
}

// A second path between two networks closes a loop. A broadcast does not go round it for long, one end blocks, everybody reaches
// everybody else meanwhile, and the tunnel carries again what it carried before once the other path is gone.
func TestLoopOnPurpose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(t *testing.T) *loop
	}{
		{"tunnel and cable", loopOfCable},
		{"two tunnels", loopOfTunnels},
		{"two spokes on one network", loopOfSpokes},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := c.make(t)
			up(l.ends...)
			l.open()
			allReach(t, l.stations...)
			for range 2 {
				l.test(t)
			}
		})
	}
}

func (l *loop) test(t *testing.T) {
	t.Helper()
	const peak, calm = 3000, 50
	first := l.stations[0]
	if got := first.rate(t); got > calm {
		t.Errorf("%.0f frames a second arrive before there is a loop", got)
	}
	loops := l.loops()
	var pings []*stream
	for _, a := range l.stations {
		for _, b := range l.stations {
			if a != b {
				pings = append(pings, a.stream(t, b.v4))
			}
		}
	}

	// Nobody has this address, so that each second somebody asks everybody for it.
	unknown := first.stream(t, first.v4.Next().Next().Next().Next())
	l.close()
	closed := time.Now()
	first.announce(t)
	var rates []float64
	for range 3 {
		rates = append(rates, first.rate(t)-float64(len(l.stations)-1)*2*float64(time.Second/streamStep))
	}
	t.Logf("in the seconds after the loop was closed %.0f frames more than the pings arrived at a station", rates)
	if got := slices.Max(rates); got > peak {
		t.Errorf("%.0f frames arrived in a second, want at most %d", got, peak)
	}
	time.Sleep(time.Second)
	calmAt := time.Now()
	if got := l.count(); got != l.blocked {
		t.Errorf("%d ends are blocked after %v, want %d", got, time.Since(closed), l.blocked)
	}
	if l.loops() == loops {
		t.Error("status counts no loop")
	}
	time.Sleep(6 * time.Second) // longer than a block holds without a probe that comes back
	if got := l.count(); got != l.blocked {
		t.Errorf("%d ends are blocked while the loop lasts, want %d", got, l.blocked)
	}
	watched := time.Now()
	l.allAnswered(t, pings, calmAt, watched)
	unknown.end(0)
	got := first.rate(t)
	for range 4 { // what was still under way on a busy machine is over by then; a storm is not
		if got <= calm {
			break
		}
		got = first.rate(t)
	}
	if got > calm {
		t.Errorf("%.0f frames a second arrive at a station while the loop is blocked", got)
	}
	for _, e := range l.ends {
		if busy := e.busy(); busy > 0.3 {
			t.Errorf("%s on %s takes %.0f %% of a processor while the loop is blocked", e.device, e.host.Name, 100*busy)
		}
	}

	again := l.through[0].stream(t, l.through[1].v4)
	l.open()
	opened := time.Now()
	lab.Eventually(t, patience, "the tunnel carries again", func() bool {
		return again.answered(opened.Add(100*time.Millisecond)) && l.count() == 0
	})
	took := time.Since(opened)
	again.end(0)
	t.Logf("the tunnel carried again %v after the other path was gone", took.Round(10*time.Millisecond))
	allReach(t, l.stations...)
}

// allAnswered ends the streams and looks that all pings sent between two times were answered.
func (l *loop) allAnswered(t *testing.T, streams []*stream, from, to time.Time) {
	t.Helper()
	for i, s := range streams {
		wait := time.Duration(0)
		if i == 0 {
			wait = time.Second // for the last answers of all of them
		}
		all := s.end(wait)
		if missing := lost(all, from, to); len(missing) > 0 {
			t.Errorf("stream %d: %d of %d pings got no answer while the loop was blocked, the last %v after that", i, len(missing),
				len(all), missing[len(missing)-1].Sub(from))
		}
	}
}

// count is how many ends are blocked.
func (l *loop) count() (n int) {
	for _, e := range l.ends {
		if e.status().Switch.Blocked {
			n++
		}
	}
	return n
}

// loops is how often an end was.
func (l *loop) loops() (n uint64) {
	for _, e := range l.ends {
		n += e.status().Switch.Loops
	}
	return n
}
