package scenes

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unreached demands that an address does not answer one of the machine's namespaces.
func (m *machine) unreached(netns, to, why string) {
	m.Helper()
	if m.pings(netns, to) {
		m.Errorf("%s answers %s: %s", to, netns, why)
	}
}

// A tun outlives the program that opens it, and answers while one is there.
func TestTun(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.settledSnapshot()
	m.declare("tun.yaml", "version: 1\nlinks:\n  tun0: {type: tun, owner: 1234, mtu: 1400, addresses: [10.5.0.1/24]}\n")
	m.apply()
	m.settled()
	for range 2 {
		program := m.echo("tun0")
		m.reaches("", "10.5.0.2")
		program.Close()
		m.unreached("", "10.5.0.2", "nobody has the tun open")
		m.settled()
	}
	m.edit("mtu: 1400", "mtu: 1300")
	if p := m.apply(); !strings.Contains(p.String(), "~ link tun0 (tun) mtu 1400 -> 1300") {
		t.Errorf("plan:\n%s", &p)
	}
	m.edit("owner: 1234", "owner: 1235, queues: 2")
	if p := m.apply(); !strings.Contains(p.String(), "-/+ link tun0 (tun) multi_queue no -> yes") {
		t.Errorf("plan:\n%s", &p)
	}
	m.settled()
	m.destroyed(before)
}

// echo opens a tun and answers the pings that come out of it.
func (m *machine) echo(tun string) *os.File {
	m.Helper()
	fd := -1
	m.host.Must(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(tun)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	f := pollable(m.T, os.NewFile(uintptr(fd), tun))
	m.Cleanup(func() { f.Close() })
	go func() {
		packet := make([]byte, 2048)
		for {
			n, err := f.Read(packet)
			if err != nil {
				return
			}
			const header = 20
			if n < header+8 || packet[0] != 0x45 || packet[9] != unix.IPPROTO_ICMP || packet[header] != 8 {
				continue // no echo request of IPv4
			}
			var from [4]byte
			copy(from[:], packet[12:16])
			copy(packet[12:16], packet[16:20])
			copy(packet[16:20], from[:])
			packet[header] = 0 // the type, and so the checksum's sum (RFC 1624)
			sum := uint32(binary.BigEndian.Uint16(packet[header+2:])) + 0x0800
			binary.BigEndian.PutUint16(packet[header+2:], uint16(sum+sum>>16))
			_, _ = f.Write(packet[:n])
		}
	}()
	return f
}

// Macvlans of mode vepa reach each other by a switch that sends frames back, as a bridge's port with hairpin does; those of mode private
// hear nothing of each other even then: Linux drops what is broadcast.
func TestHairpin(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.settledSnapshot()
	m.declare("hairpin.yaml", `version: 1
netns: [n1, n2]
links:
  br0: {type: bridge, addresses: [10.1.0.9/24], ports: {va: {hairpin: true}}}
  va: {type: veth, peer: {name: vb}}
  m1: {type: macvlan, parent: vb, mode: vepa, netns: n1, addresses: [10.1.0.1/24]}
  m2: {type: macvlan, parent: vb, mode: vepa, netns: n2, addresses: [10.1.0.2/24]}
`)
	m.apply()
	m.settled()
	m.reaches("n1", "10.1.0.9")
	m.reaches("n1", "10.1.0.2")
	m.edit("hairpin: true", "hairpin: false")
	if p := m.apply(); !strings.Contains(p.String(), "~ attachment va (to br0) hairpin yes -> no") {
		t.Errorf("plan:\n%s", &p)
	}
	m.settled()
	m.reaches("n1", "10.1.0.9")
	m.unreached("n1", "10.1.0.2", "the bridge sends nothing back")
	m.edit("hairpin: false", "hairpin: true", "mode: vepa", "mode: private")
	if p := m.apply(); !strings.Contains(p.String(), "~ link n1/m1 (macvlan) mode vepa -> private") {
		t.Errorf("plan:\n%s", &p)
	}
	m.settled()
	for _, netns := range []string{"n1", "n2"} {
		m.shell(netns, "ip", "neigh", "flush", "all")
	}
	m.reaches("n1", "10.1.0.9")
	m.unreached("n1", "10.1.0.2", "private takes no broadcast of another macvlan")
	m.destroyed(before)
}

// A macvtap of mode passthru has the port for itself, and gives it its address for as long as it is there.
func TestMacvtapPassthru(t *testing.T) {
	(&scene{
		file:    "macvtap.yaml",
		replace: []string{"mode: bridge", "mode: passthru"},
		around: func(m *machine) func() {
			out := m.outside("eth1", "", "192.0.2.1/24")
			return func() {
				v, _ := m.handed("/run/culvert/vm2.sock", "52:54:00:00:00:0a", "192.0.2.20/24")
				defer v.off()
				reachesFrom(m.T, v.Host, "192.0.2.1")
				reachesFrom(m.T, out, "192.0.2.20")
				if have := m.host.HardwareAddr("eth1"); have != "52:54:00:00:00:0a" {
					m.Errorf("the port's address is %s", have)
				}
			}
		},
	}).play(t)
}

// Of ipvlans on one port, those of flag bridge reach each other, those of private do not, and those of vepa leave that to the network.
func TestIPvlanFlags(t *testing.T) {
	t.Parallel()
	if !inGuest() {
		t.Skip("runs in the guest of TestInGuest")
	}
	m := newMachine(t)
	m.outside("eth0", "192.0.2.7/24", "192.0.2.1/24")
	before := m.settledSnapshot()
	m.declare("flags.yaml", `version: 1
netns: [n1, n2]
links:
  eth0: {external: true}
  i1: {type: ipvlan, parent: eth0, mode: l2, flag: bridge, netns: n1, addresses: [192.0.2.61/24]}
  i2: {type: ipvlan, parent: eth0, mode: l2, flag: bridge, netns: n2, addresses: [192.0.2.62/24]}
`)
	for _, flag := range []string{"bridge", "private", "vepa"} {
		m.edit("flag: bridge", "flag: "+flag)
		m.apply()
		m.settled()
		m.reaches("n1", "192.0.2.1")
		if flag == "bridge" {
			m.reaches("n1", "192.0.2.62")
		} else {
			m.unreached("n1", "192.0.2.62", "the flag is "+flag)
		}
		m.edit("flag: "+flag, "flag: bridge")
	}
	m.destroyed(before)
}

// Every runner carries traffic, also without one of its ports, whichever way a port is watched.
func TestTeamRunners(t *testing.T) {
	t.Parallel()
	if !inGuest() {
		t.Skip("runs in the guest of TestInGuest")
	}
	for runner, watch := range map[string]string{
		"roundrobin": "ethtool", "broadcast": "ethtool", "loadbalance": "ethtool", "random": "ethtool",
		"activebackup": "{name: arp_ping, interval: 200ms, missed_max: 3, source_host: 192.0.2.40, target_host: 192.0.2.1, send_always: true}",
	} {
		t.Run(runner, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			a := newAggregate(m, "192.0.2.1/24", "p3", "p4")
			if runner == "activebackup" {
				a.bridged()
			} else {
				a.bonded("mode", "balance-rr")
			}
			before := m.settledSnapshot()
			m.declare("team.yaml", `version: 1
links:
  p3: {external: true}
  p4: {external: true}
  team0: {type: team, runner: `+runner+`, link_watch: `+watch+`, addresses: [192.0.2.40/24], ports: [p3, p4]}
`)
			m.apply()
			m.settled()
			m.reaches("", "192.0.2.1")
			if runner != "activebackup" {
				a.failEach("192.0.2.1", func() bool { return true })
				m.destroyed(before)
				return
			}
			m.await("the active port gets answers", func() bool {
				s := a.team("team0")
				return s.Runner.Active != "" && s.Ports[s.Runner.Active].LinkWatches.Up
			})
			failing := a.team("team0").Runner.Active
			// The cable is fine, but what is behind it leads nowhere.
			a.sw.Shell("ip", "link", "set", map[string]string{"p3": "q1", "p4": "q2"}[failing], "nomaster")
			m.await("the other port is active", func() bool { s := a.team("team0"); return s.Runner.Active != "" && s.Runner.Active != failing })
			m.reaches("", "192.0.2.1")
			if !m.host.Carrier(failing) {
				t.Error("the failing port has lost its carrier: this was no test of asking by ARP")
			}
			m.destroyed(before)
		})
	}
}
