package scenes

import (
	"strings"
	"testing"

	"culvert/internal/lab"
)

func TestIPvlan(t *testing.T) {
	for _, mode := range []string{"l2", "l3", "l3s"} {
		t.Run(mode, func(t *testing.T) {
			s := &scene{file: "ipvlan.yaml", guest: true, replace: []string{"mode: l2", "mode: " + mode}}
			address, neighbour := "192.0.2.60", "192.0.2.60"
			if mode != "l2" {
				// Above the network layer: nobody answers ARP, the namespace has a network of its own, and the way to it is the port.
				address, neighbour = "10.60.0.60", "192.0.2.7"
				s.replace = append(s.replace, "{to: default, gateway: 192.0.2.1}", "{to: default}", "192.0.2.60/24", "10.60.0.60/24")
			}
			s.around = func(m *machine) func() {
				out := m.outside("eth0", "192.0.2.7/24", "192.0.2.1/24 10.99.0.1/24")
				out.AddRoute("10.60.0.0/24", "192.0.2.7", "")
				m.host.AddRoute("10.99.0.0/24", "192.0.2.1", "")
				return func() {
					m.reaches("ns0", "192.0.2.1")
					reachesFrom(m.T, out, address)
					m.reaches("ns0", "10.99.0.1")
					// It has the port's own address.
					if have := out.Shell("ip", "neigh", "show", neighbour); !strings.Contains(have, m.host.HardwareAddr("eth0")) {
						m.Errorf("the network knows %s", have)
					}
				}
			}
			other := "l3"
			if mode == "l3" {
				other = "l3s"
			}
			s.changes = []change{{[]string{"flag: bridge", "flag: private"}, []string{"~ link ns0/ipvl0 (ipvlan) flag bridge -> private"}}}
			if mode != "l2" {
				s.changes = append(s.changes, change{[]string{"mode: " + mode, "mode: " + other}, []string{"~ link ns0/ipvl0 (ipvlan) mode " + mode + " -> " + other}})
			}
			s.play(t)
		})
	}
}

func TestIPvtap(t *testing.T) {
	(&scene{
		file:  "ipvtap.yaml",
		guest: true,
		around: func(m *machine) func() {
			out := m.outside("eth2", "", "10.2.0.1/24 2001:db8:2::1/64")
			return func() {
				v, offer := m.handed("/run/culvert/vm3.sock", m.host.HardwareAddr("eth2"), "10.2.0.5/24")
				defer v.off()
				v.AddAddr("eth0", "2001:db8:2::5/64")
				if offer.Device != "ipvtap0" || offer.MAC != m.host.HardwareAddr("eth2") {
					m.Errorf("the offer is %+v", offer)
				}
				reachesFrom(m.T, v.Host, "10.2.0.1")
				reachesFrom(m.T, out, "10.2.0.5")
				reachesFrom(m.T, v.Host, "2001:db8:2::1")
				if strings.Contains(m.text, "10.2.0.6/24") {
					v.AddAddr("eth0", "10.2.0.6/24")
					reachesFrom(m.T, out, "10.2.0.6")
				}
			}
		},
		changes: []change{
			{[]string{"guest_addresses: [10.2.0.5/24,", "guest_addresses: [10.2.0.5/24, 10.2.0.6/24,"}, []string{"+ address ipvtap0 10.2.0.6/24"}},
		},
	}).play(t)
}

func TestBridgeVLANs(t *testing.T) {
	(&scene{
		file:  "bridge-vlans.yaml",
		guest: true,
		around: func(m *machine) func() {
			out := lab.NewHost(m.T, "outside")
			m.cable(out, "eth0", "trunk", "", "")
			for _, vid := range []string{"10", "20"} {
				out.Shell("ip", "link", "add", "v"+vid, "link", "trunk", "type", "vlan", "id", vid)
				out.AddAddr("v"+vid, "10."+vid+".0.9/24")
				out.Up("v" + vid)
			}
			return func() {
				v10 := m.attached("vnet10", "", "10.10.0.5/24")
				v20 := m.attached("vnet20", "", "10.20.0.5/24")
				defer v10.off()
				defer v20.off()
				second := "10.20.0.9"
				if strings.Contains(m.text, "vnet20: {vlans: [{vid: 10") { // which is in the other network now
					v20.DelAddr("eth0", "10.20.0.5/24")
					v20.AddAddr("eth0", "10.10.0.6/24")
					second = "10.10.0.5"
				}
				reachesFrom(m.T, v10.Host, "10.10.0.9")
				reachesFrom(m.T, v10.Host, "10.10.0.1") // the host's
				reachesFrom(m.T, v20.Host, second)
				if second == "10.20.0.9" {
					v10.AddAddr("eth0", "10.20.0.6/24")
					silent(m.T, v10.Host, "10.20.0.9")
					silent(m.T, v10.Host, "10.20.0.5")
				}
			}
		},
		changes: []change{
			{[]string{"vnet20: {vlans: [{vid: 20", "vnet20: {vlans: [{vid: 10"}, []string{"~ attachment vnet20 (to br0) vlans 20,pvid,untagged -> 10,pvid,untagged"}},
		},
	}).play(t)
}

// vlan devices, also one upon the other.
func TestVLANDevices(t *testing.T) {
	t.Parallel()
	if !inGuest() {
		t.Skip("runs in the guest of TestInGuest")
	}
	m := newMachine(t)
	out := lab.NewHost(t, "outside")
	m.cable(out, "eth0", "eth0", "", "")
	out.Shell("ip", "link", "add", "s", "link", "eth0", "type", "vlan", "id", "100", "protocol", "802.1ad")
	out.Shell("ip", "link", "add", "c", "link", "s", "type", "vlan", "id", "7")
	out.Shell("ip", "link", "add", "v", "link", "eth0", "type", "vlan", "id", "5")
	out.Up("s")
	out.AddAddr("c", "10.7.0.2/24")
	out.Up("c")
	out.AddAddr("v", "10.5.0.2/24")
	out.Up("v")
	before := m.settledSnapshot()
	m.declare("vlans.yaml", `version: 1
netns: {ns0: {}}
links:
  eth0: {external: true, up: true}
  service: {type: vlan, parent: eth0, vid: 100, protocol: 802.1ad}
  customer: {type: vlan, parent: service, vid: 7, netns: ns0, addresses: [10.7.0.1/24]}
  plain: {type: vlan, parent: eth0, vid: 4, addresses: [10.5.0.1/24]}
`)
	m.apply()
	m.settled()
	m.reaches("ns0", "10.7.0.2")
	m.edit("vid: 4", "vid: 5")
	if p := m.apply(); !strings.Contains(p.String(), "-/+ link plain (vlan) vid 4 -> 5, because its vid cannot be changed") {
		t.Errorf("plan:\n%s", &p)
	}
	m.settled()
	m.reaches("", "10.5.0.2")
	m.destroyed(before)
}
