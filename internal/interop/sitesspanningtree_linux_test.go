package interop

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"culvert/internal/lab"
)

// portState is the state of a port of the site's bridge, such as "forwarding".
func (s *site) portState(device string) string {
	s.t.Helper()
	var links []struct {
		IfName   string
		LinkInfo struct {
			SlaveData struct{ State string } `json:"info_slave_data"`
		}
	}
	if err := json.Unmarshal([]byte(s.host.Shell("ip", "-d", "-j", "link", "show", "dev", device)), &links); err != nil {
		s.t.Fatal(err)
	}
	if len(links) != 1 {
		s.t.Fatalf("ip link show dev %s shows %d links", device, len(links))
	}
	return links[0].LinkInfo.SlaveData.State
}

// spanningTree are options of a bridge with spanning tree as fast as Linux takes it. forward_delay is less than the standard has it for this
// max_age (IEEE 802.1D-1998 §8.10.2), which matters where a bridge falls silent: here ports lose their carriers.
//
// Addresses age quickly. A change of the tree shortens only when Linux's bridges call an address old (§8.3.5): frames still go by an old one,
// until the bridge looks for old ones next, and when that is was settled by the ageing time before the change, 300 s by default.
var spanningTree = []string{"stp_state", "1", "hello_time", "100", "forward_delay", "200", "max_age", "600", "ageing_time", "500"}

// Spanning tree runs through the tunnel: it finds the loop of a second path between two sites, blocks one port, and opens it when
// the other path is cut. Loop detection, where it is on, has nothing to do and does nothing.
func TestSpanningTreeAcrossSites(t *testing.T) {
	t.Parallel()
	for _, detection := range []bool{false, true} {
		t.Run(fmt.Sprintf("loop detection %v", detection), func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, 1500, fmt.Sprintf("    switch: {link_local: true, loop_detection: %v}\n", detection), spanningTree...)
			a, b := m.sites[0], m.sites[1]
			a.host.Shell("ip", "link", "set", "br0", "type", "bridge", "priority", "4096") // the root
			b.host.Shell("ip", "link", "set", "br0", "type", "bridge", "priority", "8192")
			const direct = "direct"
			patch(a, b, direct)
			b.host.Up(direct)
			up(m.taps[:]...)

			// b prefers the cable, being faster, and blocks its tap; c has nothing but its tap.
			states := func() (list []string) {
				for i, s := range m.sites {
					list = append(list, s.portState("office"), s.portState(m.stations[i].port))
				}
				return append(list, a.portState(direct), b.portState(direct))
			}
			has := func(bAtTap, bAtDirect string) func() bool {
				want := []string{"forwarding", "forwarding", bAtTap, "forwarding", "forwarding", "forwarding", "forwarding", bAtDirect}
				return func() bool { return fmt.Sprint(states()) == fmt.Sprint(want) }
			}
			eventuallyHas := func(what string, cond func() bool) {
				t.Helper()
				defer func() {
					if t.Failed() {
						t.Logf("the ports are %v", states())
					}
				}()
				lab.Eventually(t, patience, what, cond)
			}
			eventuallyHas("one port blocks and all others forward", has("blocking", "forwarding"))
			allReach(t, m.stations[:]...)
			m.steady(t, has("blocking", "forwarding"))

			a.host.Down(direct)
			cut := time.Now()
			eventuallyHas("the tunnel takes over", func() bool { return b.portState("office") == "forwarding" })
			t.Logf("the tunnel took over within %v", time.Since(cut).Round(100*time.Millisecond))
			m.recovers(t, 6*time.Second)
			m.steady(t, func() bool { return b.portState("office") == "forwarding" })

			a.host.Up(direct)
			eventuallyHas("the cable takes over again", has("blocking", "forwarding"))
			// Linux's bridges themselves take their ageing time to forget, and up to the same again to look for what is old.
			m.recovers(t, 14*time.Second)
			m.steady(t, has("blocking", "forwarding"))
		})
	}
}

// steady looks that for some seconds the ports stay as they are, that nothing goes round, and that no end blocks or ever did.
func (m *mesh) steady(t *testing.T, has func() bool) {
	t.Helper()
	for range 3 {
		for _, st := range m.stations {
			// BPDUs each second, neighbour discovery of the stations, loop probes of three ends.
			if got := st.rate(t); got > 50 {
				t.Errorf("%s: %.0f frames a second arrive", st.host.Name, got)
			}
		}
		if !has() {
			t.Error("the ports have changed their states")
		}
	}
	for _, e := range m.taps {
		if s := e.status().Switch; s.Blocked || s.Loops != 0 {
			t.Errorf("%s: status shows the switch %+v", e.host.Name, s)
		}
	}
}

// recovers looks that c reaches b's station, which sends nothing of its own accord, soon after the tree has changed: that the ends
// forget where it was. c believes b's address in its neighbour table for as long as this lasts: a solicitation, being flooded, would show
// everybody the way.
func (m *mesh) recovers(t *testing.T, limit time.Duration) {
	t.Helper()
	begun := time.Now()
	silent, asking := m.stations[1], m.stations[2]
	asking.host.Sysctl("net/ipv4/neigh/eth0/base_reachable_time_ms", "600000")
	lab.Eventually(t, patience, "c's station pings b's", func() bool { return asking.host.Ping(silent.v4) == nil })
	took := time.Since(begun)
	t.Logf("c's station reached b's %v after the ports forwarded", took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("it took c's station %v to reach b's, want %v at most", took, limit)
	}
	allReach(t, m.stations[:]...)
}
