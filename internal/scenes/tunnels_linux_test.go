package scenes

import (
	"fmt"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// exampleKey is the public key that the examples have for their peer, or for the first of them.
const exampleKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="

// far is a machine with the other end of a tunnel, device office, behind a cable of its own: wan at both ends. The machine's key is in
// the file of that name.
func (m *machine) far(keyFile string, port int, network string) (f *machine, public string) {
	m.Helper()
	f = newMachine(m.T)
	m.cable(f.host, "wan", "wan", "10.98.0.1/24", "10.98.0.2/24")
	public = f.end("office", port, m.key(keyFile))
	f.host.AddAddr("office", network)
	return f, public
}

// end starts a tunnel's end that is called, and returns its public key.
func (m *machine) end(device string, port int, peer string) (public string) {
	m.Helper()
	public = m.key(device + ".key")
	m.declare(device+".yaml", fmt.Sprintf("version: 1\ntunnels:\n  %s:\n    mode: tap\n    listen: %d\n    private_key_file: %[1]s.key\n"+
		"    carrier: follow\n    peers: {near: {public_key: %[3]q, keepalive: 1s}}\n", device, port, peer))
	m.must("up", m.file)
	return public
}

func TestXConnect(t *testing.T) {
	var public string
	s := scene{file: "xconnect.yaml"}
	s.around = func(m *machine) func() {
		var far *machine
		far, public = m.far("xconnect.key", 51821, "192.0.2.1/24")
		s.replace = []string{exampleKey, public, "lan.example.net", "10.98.0.2"}
		return func() {
			for _, mac := range []string{"52:54:00:12:34:56", "02:00:00:00:00:77"} { // whatever address the guest has
				v, _ := m.handed("/run/culvert/vm4.sock", mac, "192.0.2.20/24")
				reachesFrom(m.T, v.Host, "192.0.2.1")
				far.shell("", "ip", "neigh", "flush", "all")
				reachesFrom(m.T, far.host, "192.0.2.20")
				if neighbours := far.shell("", "ip", "neigh", "show", "192.0.2.20"); !strings.Contains(neighbours, mac) {
					m.Errorf("the far end knows %s", neighbours)
				}
				v.off()
			}
		}
	}
	s.changes = []change{
		{[]string{"vm4.sock}", "vm4.sock, mode: 0660}"}, []string{"-/+ handover vnet2 mode 0600 -> 0660"}},
		{[]string{"    type: tap\n", "    type: tap\n    queues: 2\n"}, []string{"-/+ link vnet2 (tap) multi_queue no -> yes", "filter office ingress"}},
	}
	s.play(t)
}

func limitOfTunnel(t *testing.T) {
	s := scene{file: "tunnel-bridge.yaml"}
	s.around = func(m *machine) func() {
		station := m.outside("eth1", "", "10.20.0.5/24", lab.NoOffloads())
		far, public := m.far("tunnel-bridge.key", 51821, "10.20.0.9/24")
		s.replace = []string{exampleKey, public, "b.example.net", "10.98.0.2", "stp: {enabled: true}", "stp: {enabled: true, forward_delay: 2s}"}
		if inGuest() {
			s.replace, s.changes = append(s.replace, slowly...), nil
		} else {
			s.replace = append(s.replace, ", leaf: {sfq: {}}", "")
		}
		return func() {
			reachesFrom(m.T, station, "10.20.0.9")
			reachesFrom(m.T, station, "10.20.0.1")
			m.reaches("", "10.20.0.9")
			limit := declaredLimit(m)
			// TCP is cut to what the path below the tunnel takes, so that a little more of each frame is header.
			rateHolds(m.T, "from the tunnel", far.host, station, "10.20.0.5", limit, 0.95)
			rateHolds(m.T, "into the tunnel", station, far.host, "10.20.0.9", limit, 0.90)
		}
	}
	s.changes = []change{
		{[]string{"8mbit", "6mbit", "cost: 100", "cost: 50"}, []string{"~ class ifb-office 6376:1 ceil 8mbit -> 6mbit", "~ qdisc office root (tbf) ",
			"~ attachment office (to br0) cost 100 -> 50"}},
	}
	s.play(t)
}

// Two tunnels over two lines are the ports of a bond, at both ends. A line fails, and traffic goes on.
func TestTunnelBond(t *testing.T) {
	s := scene{file: "tunnel-bond.yaml", guest: true}
	s.around = func(m *machine) func() {
		far := newMachine(m.T)
		m.cable(far.host, "wan-a", "wan-a", "10.98.0.1/24", "10.98.0.2/24")
		m.cable(far.host, "wan-b", "wan-b", "10.98.1.1/24", "10.98.1.2/24")
		ours, theirs := m.key("tunnel-bond.key"), far.key("tunnel-bond.key")
		s.replace = []string{exampleKey, theirs, "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=", theirs,
			"a.example.net", "10.98.0.2", "b.example.net", "10.98.1.2"}
		far.example("tunnel-bond.yaml", exampleKey, ours, "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=", ours,
			"a.example.net", "10.98.0.1", "b.example.net", "10.98.1.1", "10.40.0.1/24", "10.40.0.2/24")
		far.apply()
		active := func() string {
			_, rest, _ := strings.Cut(m.shell("", "ip", "-d", "link", "show", "bond0"), "active_slave ")
			port, _, _ := strings.Cut(rest, " ")
			return port
		}
		return func() {
			m.await("the bond uses its primary", func() bool { return active() == "line-a" })
			m.reaches("", "10.40.0.2")
			far.host.Down("wan-a")
			m.await("the bond uses the other line", func() bool { return active() == "line-b" })
			m.reaches("", "10.40.0.2")
			far.host.Up("wan-a")
			m.await("the bond uses its primary again", func() bool { return active() == "line-a" })
			m.reaches("", "10.40.0.2")
		}
	}
	s.changes = []change{
		{[]string{"primary: line-a\n    fail_over_mac: none", "primary: line-a\n    fail_over_mac: none\n    min_links: 1"}, []string{"~ link bond0 (bond) min_links 0 -> 1"}},
	}
	s.play(t)
}

// The daemon is killed: what it has left is taken over by the next one, or destroyed without it.
func TestDaemonKilled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, public := m.far("xconnect.key", 51821, "192.0.2.1/24")
	before := m.settledSnapshot()
	m.example("xconnect.yaml", exampleKey, public, "lan.example.net", "10.98.0.2")
	for _, repair := range []string{"up", "destroy"} {
		m.apply()
		m.settled()
		for pid, name := range m.processes() {
			if strings.HasPrefix(name, "culvert") {
				m.kill(pid)
			}
		}
		m.isUp = false
		if repair == "up" {
			m.apply()
			m.settled()
			v, _ := m.handed("/run/culvert/vm4.sock", "", "192.0.2.20/24")
			reachesFrom(t, v.Host, "192.0.2.1")
			v.off()
		}
		m.destroy()
		m.same(before, "killed, then "+repair)
	}
}
