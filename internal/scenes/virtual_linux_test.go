package scenes

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
)

func TestVMBridge(t *testing.T) {
	(&scene{
		file: "vm-bridge.yaml",
		around: func(m *machine) func() {
			out := m.outside("eth0", "", "192.0.2.1/24 10.99.0.1/24")
			m.host.Down("eth0")
			return func() {
				v, offer := m.handed("/run/culvert/vm1.sock", "", "192.0.2.20/24")
				defer v.off()
				if offer.Device != "vnet1" || !offer.VNetHdr {
					m.Errorf("the offer is %+v", offer)
				}
				reachesFrom(m.T, v.Host, "192.0.2.1")  // the network
				reachesFrom(m.T, v.Host, "192.0.2.10") // the host
				reachesFrom(m.T, out, "192.0.2.20")
				m.reaches("", "10.99.0.1") // by the bridge's default route
			}
		},
		changes: []change{
			{[]string{"addresses: [192.0.2.10/24]", "mtu: 1400\n    addresses: [192.0.2.10/24]"}, []string{"~ link br0 (bridge) mtu 1500 -> 1400"}},
			{[]string{"      vnet1: {}", "      vnet1: {cost: 7, hairpin: true}"}, []string{"~ attachment vnet1 (to br0) cost ", "-> 7, hairpin no -> yes"}},
			// A descriptor cannot get more queues later.
			{[]string{"vnet_hdr: true ", "vnet_hdr: true\n    queues: 2 "}, []string{
				"-/+ link vnet1 (tap) multi_queue no -> yes, because its multi_queue cannot be changed", "-/+ handover vnet1",
				"-/+ attachment vnet1 (to br0), because it needs link vnet1"}},
		},
	}).play(t)
}

func TestBridgeSTP(t *testing.T) {
	(&scene{
		file: "bridge-stp.yaml",
		around: func(m *machine) func() {
			// A switch with spanning tree that is reached in two ways: by eth0, and by the cable of the second machine.
			sw, out := lab.NewHost(m.T, "switch"), lab.NewHost(m.T, "outside")
			m.cable(sw, "eth0", "q0", "", "")
			lab.Link(m.T, sw, out, lab.Names("q2", "eth0"), lab.Addresses("", "192.0.2.9/24"))
			sw.Shell("ip", "link", "add", "br0", "type", "bridge", "stp_state", "1")
			for _, port := range []string{"q0", "q2"} {
				sw.Shell("ip", "link", "set", port, "up", "master", "br0")
			}
			sw.Up("br0")
			return func() {
				v := m.attached("tap1", "", "192.0.2.21/24")
				w := m.attached("tap2", "", "192.0.2.22/24")
				defer v.off()
				defer w.off()
				reachesFrom(m.T, v.Host, "192.0.2.9")
				reachesFrom(m.T, w.Host, "192.0.2.9")
				reachesFrom(m.T, v.Host, "192.0.2.20") // the end of veth1
				if strings.Contains(m.text, "tap2: {isolated: true}") {
					silent(m.T, v.Host, "192.0.2.22")
				} else {
					reachesFrom(m.T, v.Host, "192.0.2.22")
				}
			}
		},
		changes: []change{
			{[]string{"tap2: {isolated: true}", "tap2: {isolated: false}", "priority: 4096, forward_delay: 4s", "priority: 8192, forward_delay: 3s"},
				[]string{"~ link br0 (bridge) forward_delay 4s -> 3s, priority 4096 -> 8192", "~ attachment tap2 (to br0) isolated yes -> no"}},
		},
	}).play(t)
}

// A bridge that is not the root of its network uses the root's timers: that is no difference from what was declared.
func TestBridgeBelowAnotherRoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	sw := lab.NewHost(t, "switch")
	m.cable(sw, "eth0", "q0", "", "")
	sw.Shell("ip", "link", "add", "br0", "type", "bridge", "stp_state", "1", "forward_delay", "700", "hello_time", "200", "max_age", "1000")
	sw.Shell("ip", "link", "set", "q0", "up", "master", "br0")
	sw.Up("br0")
	before := m.settledSnapshot()
	m.example("bridge-stp.yaml", "priority: 4096", "priority: 61440")
	m.apply()
	lab.Eventually(t, patience, "the switch's timers are in use", func() bool {
		return strings.Contains(m.shell("", "ip", "-d", "link", "show", "br0"), "forward_delay 700 hello_time 200 max_age 1000")
	})
	m.settled()
	// Left alone it uses its own again.
	sw.Down("br0")
	lab.Eventually(t, patience, "its own timers are in use", func() bool {
		return strings.Contains(m.shell("", "ip", "-d", "link", "show", "br0"), "forward_delay 400 hello_time 100 max_age 600")
	})
	m.settled()
	m.destroyed(before)
}

// Of two ways to a switch one is blocked, and used once the other fails.
func TestBridgeSTPLoop(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	sw, out := lab.NewHost(t, "switch"), lab.NewHost(t, "outside")
	m.cable(sw, "eth0", "q0", "", "")
	m.cable(sw, "eth1", "q1", "", "")
	lab.Link(t, sw, out, lab.Names("q2", "eth0"), lab.Addresses("", "192.0.2.9/24"))
	sw.Shell("ip", "link", "add", "br0", "type", "bridge", "stp_state", "1", "forward_delay", "400", "hello_time", "100", "max_age", "600")
	for _, port := range []string{"q0", "q1", "q2"} {
		sw.Shell("ip", "link", "set", port, "up", "master", "br0")
	}
	sw.Up("br0")
	before := m.settledSnapshot()
	m.example("bridge-stp.yaml", "eth0: {external: true, up: true}", "eth0: {external: true, up: true}\n  eth1: {external: true, up: true}",
		"eth0: {cost: 4}", "eth0: {cost: 4}\n      eth1: {cost: 400}")
	m.apply()
	m.settled()
	v := m.attached("tap1", "", "192.0.2.21/24")
	reachesFrom(t, v.Host, "192.0.2.9")
	blocked := func(h *lab.Host, ports ...string) (n int) {
		for _, p := range ports {
			n += strings.Count(h.Shell("ip", "-d", "link", "show", p), "state blocking")
		}
		return n
	}
	// The machine's bridge has the better priority, so it is the root, and the switch blocks the worse way of its own.
	lab.Eventually(t, patience, "one of the two ways is blocked", func() bool { return blocked(sw, "q0", "q1")+blocked(m.host, "eth0", "eth1") == 1 })
	if n := m.host.Shell("ip", "-d", "link", "show", "br0"); !strings.Contains(n, "root_port 0") {
		t.Errorf("the machine's bridge is not the root:\n%s", n)
	}
	sw.Down("q0")
	reachesFrom(t, v.Host, "192.0.2.9")
	sw.Up("q0")
	reachesFrom(t, v.Host, "192.0.2.9")
	lab.Eventually(t, patience, "one of the two ways is blocked again", func() bool { return blocked(sw, "q0", "q1")+blocked(m.host, "eth0", "eth1") == 1 })
	m.destroyed(before)
}

func TestMacvlan(t *testing.T) {
	(&scene{
		file: "macvlan.yaml",
		around: func(m *machine) func() {
			m.outside("eth1", "", "10.1.0.9/24")
			m.outside("eth2", "", "10.2.0.9/24")
			known := m.outside("eth3", "", "10.3.0.9/24")
			m.host.Down("eth2")
			return func() {
				m.reaches("net1", "10.1.0.2") // bridge: each other
				m.reaches("net2", "10.1.0.9")
				m.reaches("net1", "10.2.0.9") // private: the network,
				m.reaches("net2", "10.2.0.9")
				if strings.Contains(m.text, "mode: private") {
					if m.pings("net1", "10.2.0.2") {
						m.Error("macvlans of mode private reach each other")
					}
				} else {
					m.reaches("net1", "10.2.0.2")
				}
				for mac, hears := range map[string]bool{
					"02:00:00:00:00:01": true, "02:00:00:00:00:02": strings.Contains(m.text, "02:00:00:00:00:02"), "02:00:00:00:00:03": false,
				} {
					known.Shell("ip", "link", "set", "eth0", "address", mac)
					known.Shell("ip", "neigh", "flush", "all")
					m.shell("net1", "ip", "neigh", "flush", "all")
					if hears {
						reachesFrom(m.T, known, "10.3.0.1")
					} else {
						silent(m.T, known, "10.3.0.1")
					}
				}
			}
		},
		changes: []change{
			{[]string{"mode: private, netns: net1", "mode: bridge, netns: net1", "mode: private, netns: net2", "mode: bridge, netns: net2",
				`macs: ["02:00:00:00:00:01", "02:00:00:00:00:02"]`, `macs: ["02:00:00:00:00:01"]`},
				[]string{"~ link net1/private1 (macvlan) mode private -> bridge", "~ link net1/sourced (macvlan) macs"}},
			{[]string{"netns: net2, addresses: [10.2.0.2/24]", "netns: net2, mtu: 1400, addresses: [10.2.0.2/24]"},
				[]string{"~ link net2/private2 (macvlan) mtu 1500 -> 1400"}},
			{[]string{"{type: macvlan, parent: eth1, mode: bridge, netns: net1, addresses: [10.1.0.1/24]}",
				`{type: macvlan, parent: eth1, mode: bridge, netns: net1, mac: "02:00:00:00:01:01", addresses: [10.1.0.1/24]}`},
				[]string{"~ link net1/macvlan1 (macvlan) mac "}},
		},
	}).play(t)
}

// Passthru can be neither entered nor left.
func TestMacvlanPassthru(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.outside("eth1", "", "10.1.0.9/24")
	before := m.settledSnapshot()
	m.declare("passthru.yaml", `version: 1
links:
  eth1: {external: true, up: true}
  m0: {type: macvlan, parent: eth1, mode: vepa, addresses: [10.1.0.1/24]}
`)
	m.apply()
	m.settled()
	m.reaches("", "10.1.0.9")
	m.edit("mode: vepa", "mode: passthru")
	if p := m.apply(); !strings.Contains(p.String(), "-/+ link m0 (macvlan) mode vepa -> passthru, because mode passthru can be neither entered nor left") {
		t.Errorf("plan:\n%s", &p)
	}
	m.settled()
	m.reaches("", "10.1.0.9")
	m.destroyed(before)
}

func TestMacvtap(t *testing.T) {
	(&scene{
		file: "macvtap.yaml",
		around: func(m *machine) func() {
			out := m.outside("eth1", "", "192.0.2.1/24")
			return func() {
				v, offer := m.handed("/run/culvert/vm2.sock", "52:54:00:00:00:0a", "192.0.2.20/24")
				defer v.off()
				if offer.Device != "macvtap0" || offer.MAC != "52:54:00:00:00:0a" {
					m.Errorf("the offer is %+v", offer)
				}
				reachesFrom(m.T, v.Host, "192.0.2.1")
				reachesFrom(m.T, out, "192.0.2.20")
			}
		},
		changes: []change{
			{[]string{"mode: bridge", "mode: vepa"}, []string{"~ link macvtap0 (macvtap) mode bridge -> vepa"}},
			{[]string{"vm2.sock}", "vm2.sock, mode: 0660}"}, []string{"-/+ handover macvtap0 mode 0600 -> 0660, because its mode cannot be changed"}},
		},
	}).play(t)
}

func TestDHCPNamespace(t *testing.T) {
	lab.NeedProgram(t, "dnsmasq")
	(&scene{
		file: "dhcp-namespace.yaml",
		around: func(m *machine) func() {
			return func() {
				v := m.attached("tap1", "", "")
				defer v.off()
				// Bridges look at hosts without spanning tree first, so the first questions may be lost.
				lease := udhcpc(m.T, v.Host)
				prefix, router, _ := strings.Cut(lease, " via ")
				p, err := netip.ParsePrefix(prefix)
				if err != nil || p.Addr().Compare(netip.MustParseAddr("10.0.0.10")) < 0 || p.Addr().Compare(netip.MustParseAddr("10.0.0.50")) > 0 {
					m.Errorf("the lease is %q", lease)
				}
				if !strings.Contains(m.text, "option:router,"+router+`"`) {
					m.Errorf("the router in the lease is %q", router)
				}
				v.Shell("ip", "link", "set", "eth0", "address", "02:00:00:00:00:11")
				if lease := udhcpc(m.T, v.Host); !strings.HasPrefix(lease, "10.0.0.11/24 ") {
					m.Errorf("the lease of 02:00:00:00:00:11 is %q", lease)
				}
			}
		},
		changes: []change{
			{[]string{"option:router,10.0.0.1", "option:router,10.0.0.2"}, []string{"-/+ process dnsmasq:qdhcp-ba48a3fc/veth-b"}},
			{[]string{"addresses: [10.0.0.2/24]", "addresses: [10.0.0.2/24, 10.0.0.3/24]"}, []string{"+ address qdhcp-ba48a3fc/veth-b 10.0.0.3/24"}},
			{[]string{"      netns: qdhcp-ba48a3fc\n      addresses", "      netns: qdhcp-ba48a3fc\n      mtu: 1400\n      addresses"},
				[]string{"~ link qdhcp-ba48a3fc/veth-b (veth to veth-a) mtu 1500 -> 1400"}},
		},
	}).play(t)
}

// udhcpc asks for an address, and returns it with the router that came along.
func udhcpc(t *testing.T, h *lab.Host) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script")
	write(t, script, "#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip/$mask via $router\"\nexit 0\n")
	h.Shell("chmod", "+x", script)
	return strings.TrimSpace(h.Shell("busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "10", "-T", "1", "-s", script))
}
