package scenes

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// aggregate is the other end of two cables from ports of the machine: a switch, and a host behind it.
//
//	machine p1, p2 == q1, q2 switch to-host == eth0 host
type aggregate struct {
	m         *machine
	sw, host  *lab.Host
	from, far []string // ports of the machine, and of the switch
}

func newAggregate(m *machine, addresses string, ports ...string) *aggregate {
	m.Helper()
	a := &aggregate{m: m, sw: lab.NewHost(m.T, "switch"), host: lab.NewHost(m.T, "host"), from: ports}
	for i, port := range ports {
		a.far = append(a.far, fmt.Sprintf("q%d", i+1))
		m.cable(a.sw, port, a.far[i], "", "")
	}
	lab.Link(m.T, a.sw, a.host, lab.Names("to-host", "eth0"), lab.Addresses("", addresses))
	a.sw.Shell("ip", "link", "add", "br0", "type", "bridge")
	a.sw.Shell("ip", "link", "set", "to-host", "master", "br0")
	a.sw.Up("br0")
	m.failing = func() string {
		out, _ := m.run("", "sh", "-c", "ip -d link; cat /proc/net/bonding/* 2>/dev/null; for t in team0 team1; do teamdctl $t state dump 2>/dev/null; done")
		return out
	}
	return a
}

// bridged makes the switch an ordinary one, with each cable a port of its own.
func (a *aggregate) bridged() {
	for _, port := range a.far {
		a.sw.Shell("ip", "link", "set", port, "master", "br0")
	}
}

// bonded makes the cables one port of the switch.
func (a *aggregate) bonded(options ...string) {
	a.sw.Shell("ip", append([]string{"link", "add", "bond0", "type", "bond", "miimon", "50"}, options...)...)
	for _, port := range a.far {
		a.sw.Down(port)
		a.sw.Shell("ip", "link", "set", port, "master", "bond0")
	}
	a.sw.Shell("ip", "link", "set", "bond0", "up", "master", "br0")
}

// bondInfo is what ip -d -j link says of a bond.
type bondInfo struct {
	Mode   string `json:"mode"`
	Active string `json:"active_slave"`
	AD     struct {
		Ports   int    `json:"num_ports"`
		Partner string `json:"partner_mac"`
	} `json:"ad_info"`
}

func bondOf(t *testing.T, text, device string) bondInfo {
	t.Helper()
	var links []struct {
		LinkInfo struct {
			Data bondInfo `json:"info_data"`
		} `json:"linkinfo"`
	}
	if err := json.Unmarshal([]byte(text), &links); err != nil || len(links) != 1 {
		t.Fatalf("%s: %v in %s", device, err, text)
	}
	return links[0].LinkInfo.Data
}

func (a *aggregate) bond() bondInfo {
	a.m.Helper()
	return bondOf(a.m.T, a.m.shell("", "ip", "-d", "-j", "link", "show", "bond0"), "bond0")
}

// failEach takes each cable away by itself and back: traffic goes on.
func (a *aggregate) failEach(to string, settled func() bool) {
	a.m.Helper()
	for _, port := range a.far {
		a.sw.Down(port)
		a.m.reaches("", to)
		a.sw.Up(port)
		a.m.await(port+" is back", settled)
	}
	a.m.reaches("", to)
}

func TestBondLACP(t *testing.T) {
	(&scene{
		file:  "bond-lacp.yaml",
		guest: true,
		around: func(m *machine) func() {
			a := newAggregate(m, "192.0.2.1/24", "p1", "p2")
			m.host.Down("p2") // nobody says that it is to be up, but a port is
			a.bonded("mode", "802.3ad", "lacp_rate", "fast")
			return func() {
				m.reaches("", "192.0.2.1")
				both := func() bool {
					ad := a.bond().AD
					return ad.Ports == 2 && ad.Partner == a.sw.HardwareAddr("bond0")
				}
				m.await("both ports are in one aggregate with the switch", both)
				a.failEach("192.0.2.1", both)
			}
		},
		changes: []change{
			{[]string{"xmit_hash_policy: layer3+4", "xmit_hash_policy: layer2+3", "miimon: 100ms", "miimon: 50ms"},
				[]string{"~ link bond0 (bond) miimon 100ms -> 50ms, xmit_hash_policy layer3+4 -> layer2+3"}},
			{[]string{"lacp_rate: fast", "lacp_rate: slow"}, []string{"~ link bond0 (bond) lacp_rate fast -> slow", "# link bond0 is down for a moment"}},
		},
	}).play(t)
}

func TestBondActiveBackup(t *testing.T) {
	(&scene{
		file:  "bond-active-backup.yaml",
		guest: true,
		around: func(m *machine) func() {
			a := newAggregate(m, "192.0.2.1/24", "p1", "p2")
			a.bridged()
			active := func(port string) func() bool { return func() bool { return a.bond().Active == port } }
			return func() {
				m.await("the primary is active", active("p1"))
				m.reaches("", "192.0.2.1")
				// The cable is fine, but what is behind it leads nowhere.
				a.sw.Shell("ip", "link", "set", "q1", "nomaster")
				m.await("the other port is active", active("p2"))
				m.reaches("", "192.0.2.1")
				if !m.host.Carrier("p1") {
					m.Error("the failing port has lost its carrier: this was no test of asking the router")
				}
				a.sw.Shell("ip", "link", "set", "q1", "master", "br0")
				m.await("the primary is active again", active("p1"))
				m.reaches("", "192.0.2.1")
			}
		},
		changes: []change{
			{[]string{"arp_interval: 200ms", "arp_interval: 150ms", "{prio: 10}", "{prio: 20}"}, []string{"arp_interval 200ms -> 150ms", "~ attachment p1 (to bond0) prio 10 -> 20"}},
		},
	}).play(t)
}

// Every mode carries traffic, also without one of its ports, and one leads to the other.
func TestBondModes(t *testing.T) {
	t.Parallel()
	if !inGuest() {
		t.Skip("runs in the guest of TestInGuest")
	}
	for _, mode := range []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			a := newAggregate(m, "192.0.2.1/24", "p1", "p2")
			switch mode {
			case "active-backup", "balance-tlb", "balance-alb": // which need no help of the switch
				a.bridged()
			default:
				a.bonded("mode", mode)
			}
			before := m.settledSnapshot()
			m.example("bond-lacp.yaml", "mode: 802.3ad", "mode: active-backup", "    lacp_rate: fast ", "    #", "    xmit_hash_policy: layer3+4\n", "")
			m.apply()
			m.edit("mode: active-backup", "mode: "+mode)
			p := m.apply()
			if mode != "active-backup" && !strings.Contains(p.String(), "-/+ link bond0 (bond) mode active-backup -> "+mode+
				", because its mode cannot be changed while it has ports") {
				t.Errorf("plan:\n%s", &p)
			}
			m.settled()
			if have := a.bond().Mode; have != mode {
				t.Errorf("the mode is %s", have)
			}
			m.reaches("", "192.0.2.1")
			a.failEach("192.0.2.1", func() bool { return true })
			m.destroyed(before)
		})
	}
}

// teamState is a part of what teamdctl says.
type teamState struct {
	Runner struct {
		Active string `json:"active_port"`
	} `json:"runner"`
	Ports map[string]struct {
		LinkWatches struct {
			Up bool `json:"up"`
		} `json:"link_watches"`
		Runner struct {
			State      string `json:"state"`
			Aggregator struct {
				ID       int  `json:"id"`
				Selected bool `json:"selected"`
			} `json:"aggregator"`
		} `json:"runner"`
	} `json:"ports"`
}

func (a *aggregate) team(device string) (s teamState) {
	a.m.Helper()
	text, err := a.m.run("", "teamdctl", device, "state", "dump")
	if err != nil {
		return s // a busy teamd lets it wait too long
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		a.m.Fatalf("teamdctl: %v in %s", err, text)
	}
	return s
}

func TestTeamLACP(t *testing.T) {
	(&scene{
		file:  "team-lacp.yaml",
		guest: true,
		around: func(m *machine) func() {
			a := newAggregate(m, "192.0.2.1/24", "p3", "p4")
			m.host.Down("p3") // which teamd takes before culvert can
			a.bonded("mode", "802.3ad", "lacp_rate", "fast")
			return func() {
				m.reaches("", "192.0.2.1")
				both := func() bool {
					s := a.team("team0")
					p3, p4 := s.Ports["p3"].Runner, s.Ports["p4"].Runner
					return p3.State == "current" && p4.State == "current" && p3.Aggregator.Selected && p4.Aggregator.Selected &&
						p3.Aggregator.ID == p4.Aggregator.ID
				}
				m.await("both ports are in one aggregate with the switch", both)
				a.failEach("192.0.2.1", both)
			}
		},
		changes: []change{
			{[]string{"fast_rate: true", "fast_rate: false"}, []string{"-/+ process teamd:team0"}},
		},
	}).play(t)
}

func TestTeamNSNA(t *testing.T) {
	(&scene{
		file:  "team-nsna.yaml",
		guest: true,
		around: func(m *machine) func() {
			a := newAggregate(m, "2001:db8::1/64 fe80::1/64", "p5", "p6")
			a.bridged()
			return func() {
				m.reaches("", "2001:db8::1")
				// The router answers to the address it heard of last, so the other port may get answers only once it is the active one.
				m.await("the active port gets answers", func() bool {
					s := a.team("team1")
					return s.Runner.Active != "" && s.Ports[s.Runner.Active].LinkWatches.Up
				})
				failing := a.team("team1").Runner.Active
				port := map[string]string{"p5": "q1", "p6": "q2"}[failing]
				other := map[string]string{"p5": "p6", "p6": "p5"}[failing]
				a.sw.Shell("ip", "link", "set", port, "nomaster")
				m.await("the other port is active", func() bool {
					s := a.team("team1")
					return s.Runner.Active == other && !s.Ports[failing].LinkWatches.Up
				})
				m.reaches("", "2001:db8::1")
				if !m.host.Carrier(failing) {
					m.Error("the failing port has lost its carrier: this was no test of neighbour solicitations")
				}
				a.sw.Shell("ip", "link", "set", port, "master", "br0")
				m.reaches("", "2001:db8::1")
			}
		},
		changes: []change{
			{[]string{"interval: 200ms", "interval: 300ms"}, []string{"-/+ process teamd:team1"}},
		},
	}).play(t)
}
