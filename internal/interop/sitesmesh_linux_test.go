package interop

import (
	"fmt"
	"testing"
	"time"

	"culvert/internal/lab"
)

const etherPort = 51830

// mesh is three bridged sites, each with a tunnel to both others.
type mesh struct {
	sites    [3]*site
	taps     [3]*tap
	stations [3]*station
}

// newMesh prepares the sites with a station each; extra is added to each tunnel's configuration.
func newMesh(t *testing.T, underlay int, extra string, bridge ...string) *mesh {
	t.Helper()
	var m mesh
	for i, name := range []string{"a", "b", "c"} {
		m.sites[i] = newSite(t, name)
	}
	var wires []lab.Wire
	for _, pair := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
		wires = append(wires, lab.Link(t, m.sites[pair[0]].host, m.sites[pair[1]].host, lab.MTU(underlay), lab.NoOffloads()))
	}
	for i, s := range m.sites {
		s.bridge(bridge...)
		m.taps[i] = s.tap("office", etherPort)
		m.taps[i].extra = extra
		m.stations[i] = s.station("host"+s.host.Name, i+1)
	}
	connect(m.taps[0], m.taps[1], wires[0])
	connect(m.taps[0], m.taps[2], wires[1])
	connect(m.taps[1], m.taps[2], wires[2])
	return &m
}

// knowWhere looks that all ends know all stations at their sites.
func (m *mesh) knowWhere(t *testing.T) {
	t.Helper()
	for i, e := range m.taps {
		for j, st := range m.stations {
			want := m.sites[j].host.Name
			if i == j {
				want = ""
			}
			if got := e.where(st); got != want {
				t.Errorf("%s: the address of %s is at %q, want %q", e.host.Name, st.host.Name, got, want)
			}
		}
	}
}

// Three sites are one network: over IPv4 and IPv6, in whole frames whatever the underlay takes, and for a station that moves.
func TestThreeBridgedSites(t *testing.T) {
	t.Parallel()
	for _, underlay := range []int{1500, 1280} {
		t.Run(fmt.Sprintf("underlay of %d", underlay), func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, underlay, "")
			up(m.taps[:]...)
			allReach(t, m.stations[:]...)
			for i, st := range m.stations {
				other := m.stations[(i+1)%3]
				st.pingsWhole(t, other)
				transfer(t, st.host, other.host, other.v4, 1<<20)
				transfer(t, st.host, other.host, other.v6, 1<<20)
			}
			for i, st := range m.stations {
				st.answeredOnce(t, m.stations[(i+1)%3])
			}
			m.knowWhere(t)
			for _, e := range m.taps {
				s := e.status()
				if s.MTU != 1500 || s.Switch.Wire || !s.Switch.Carrier || s.Switch.Blocked || s.Switch.Loops != 0 {
					t.Errorf("%s: status shows MTU %d and the switch %+v", e.host.Name, s.MTU, s.Switch)
				}
			}
			m.move(t, true)
			m.move(t, false)
		})
	}
}

// move moves the station of a to b and back, or the other way round, while c pings it.
func (m *mesh) move(t *testing.T, announces bool) {
	t.Helper()
	moving, third := m.stations[0], m.stations[2]
	for _, to := range []int{1, 0} {
		from := m.sites[1-to]
		pings := third.stream(t, moving.v4)
		begun := time.Now()
		lab.Eventually(t, patience, "the pings are answered before the move", func() bool { return pings.answered(begun) })
		from.host.Shell("ip", "link", "set", moving.port, "netns", m.sites[to].host.NetnsName())
		m.sites[to].plug(moving.port)
		// The kernel lets either end send only a moment after it has its carrier, at most a second later.
		lab.Eventually(t, patience, "the cable is plugged in", func() bool {
			return moving.host.Running("eth0") && m.sites[to].host.Running(moving.port) && m.sites[to].forwards(moving.port)
		})
		moved := time.Now()
		if announces {
			moving.announce(t)
		} else {
			moving.reaches(t, m.stations[1])
		}
		const limit, watch = time.Second, 2 * time.Second
		time.Sleep(time.Until(moved.Add(watch)))
		all := pings.end(time.Second)
		outage := time.Duration(0)
		if missing := lost(all, moved, moved.Add(watch)); len(missing) > 0 {
			outage = missing[len(missing)-1].Sub(moved) + streamStep
		}
		t.Logf("moved from %s to %s, announced: %v: unreachable for %v afterwards", from.host.Name, m.sites[to].host.Name, announces, outage)
		if outage >= limit {
			t.Errorf("the station was unreachable for %v after it had moved, want less than %v", outage, limit)
		}
		if got, want := m.taps[2].where(moving), m.sites[to].host.Name; got != want {
			t.Errorf("c has the station at %q, want %q", got, want)
		}
	}
}
