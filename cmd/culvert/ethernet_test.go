package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/internal/golden"
	"culvert/tunnel"
	"culvert/tunnel/ethernet"
)

// tapBody is a tunnel's body for [yaml].
const tapBody = `    mode: tap
    mac: "52:54:00:00:00:01"
    queues: 3
    switch: {ageing: 60s, link_local: true, proxy: true, loop_detection: false}
    addresses: [10.20.0.1/24]
    peers:
      plain: {public_key: "` + testPeer + `", endpoints: ["192.0.2.1:1"]}
      port:
        public_key: "` + testPeer2 + `"
        keepalive: off
        spoke: true
        macs: ["52:54:00:00:00:02", "52:54:00:00:00:03"]
        vlan: {pvid: 10, tagged: [20, 100-102]}
        limits: {broadcast: 5, multicast: off, unknown_unicast: 7}
`

// The engine gets what the file says of the switch and its ports, and the device what it says of the interface.
func TestTapStart(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, tapBody)
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), "+tun +engine +configure +socket +up +port +mtu1500 +10.20.0.1/24"; got != want {
		t.Errorf("start: %s\nwant   %s", got, want)
	}
	if s.taps != 1 || s.address != (config.MAC{0x52, 0x54, 0, 0, 0, 1}) || s.queues != 3 {
		t.Errorf("%d taps, the last with address %v and %d queues", s.taps, s.address, s.queues)
	}
	c := s.changes[0]
	if want := (tunnel.SwitchChange{Ageing: time.Minute, LinkLocal: true, Proxy: true, KeepLoops: true}); c.Switch == nil || *c.Switch != want {
		t.Errorf("the switch is %+v, want %+v", c.Switch, want)
	}
	ports := []tunnel.PortChange{{}, {
		Spoke: true, Pinned: []ethernet.Address{0x525400000002, 0x525400000003}, PVID: 10, VLANs: []uint16{20, 100, 101, 102},
		Broadcast: 5, Multicast: -1, UnknownUnicast: 7,
	}}
	keepalives := []time.Duration{10 * time.Second, 0}
	for i, p := range c.Peers {
		if p.Port == nil || !reflect.DeepEqual(*p.Port, ports[i]) {
			t.Errorf("port %d is %+v, want %+v", i, p.Port, ports[i])
		}
		if *p.Wire != tunnel.Culvert || *p.Keepalive != keepalives[i] || p.ReplaceAllowedIPs || p.AllowedIPs != nil {
			t.Errorf("peer %d is %+v", i, p)
		}
	}
	// An address of a name that becomes known later does not change the MTU, nor does the interface's coming up again.
	s.mtu = 1380
	live.refreshMTU()
	live.linkUp()
	if got, want := s.take(), "+standin:10.20.0.0/24 -10.20.0.1/24 -standin:10.20.0.0/24 +10.20.0.1/24"; got != want {
		t.Errorf("then: %s, want %s", got, want)
	}
	if err := live.stop(); err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), "-10.20.0.1/24 -mtu1500 -up -socket -engine -tun -port"; got != want {
		t.Errorf("stop: %s\nwant  %s", got, want)
	}
}

// A tunnel of IP packets says nothing of a switch.
func TestTunHasNoSwitch(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, "    queues: 2\n"+before)
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	defer live.stop()
	if c := s.changes[0]; c.Switch != nil || c.Peers[0].Port != nil || !c.Peers[0].ReplaceAllowedIPs || s.taps != 0 || s.queues != 2 {
		t.Errorf("the change is %+v, of %d taps and %d queues", c, s.taps, s.queues)
	}
}

// What the switch and its ports are told changes while the tunnel is up.
func TestTapReload(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, tapBody)
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	defer live.stop()
	s.take()
	next := yaml(t, strings.NewReplacer("ageing: 60s", "ageing: 30s", "    addresses: [10.20.0.1/24]\n", "    carrier: on\n    mtu: 9000\n",
		"spoke: true", "spoke: false", "pvid: 10, ", "").Replace(tapBody))
	if _, err := live.reload(t.Context(), next, next.Tunnels[0]); err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), "+configure +mtu9000 +standin:10.20.0.0/24 -10.20.0.1/24 -standin:10.20.0.0/24"; got != want {
		t.Errorf("done: %s\nwant  %s", got, want)
	}
	c := s.changes[1]
	if c.Switch.Ageing != 30*time.Second || !c.Switch.KeepCarrier || c.Peers[1].Port.Spoke || c.Peers[1].Port.PVID != 0 {
		t.Errorf("the change is %+v, of the switch %+v", c, c.Switch)
	}
	if *c.Peers[0].Keepalive != 0 { // the carrier does not need it any more
		t.Errorf("the keepalive is %v", *c.Peers[0].Keepalive)
	}
}

// What a device is made with cannot be changed by a reload, which says so, with the line, before anything is done.
func TestTapReloadRefuses(t *testing.T) {
	body := strings.Replace(tapBody, "    queues: 3\n", "", 1)
	for _, c := range []struct{ name, before, after, want string }{
		{"mode", tapBody, before, ":3:3: tunnel wg0 cannot change its mode from tap to tun while it is up"},
		{"mode", before, tapBody, ":6:11: tunnel wg0 cannot change its mode from tun to tap while it is up"},
		{"address", tapBody, strings.Replace(tapBody, "00:01", "00:09", 1), ":7:10: tunnel wg0 cannot change its interface's MAC address while it is up"},
		{"no address", tapBody, strings.Replace(tapBody, "    mac: \"52:54:00:00:00:01\"\n", "", 1), ":3:3: tunnel wg0 cannot change its interface's MAC"},
		{"queues", tapBody, strings.Replace(tapBody, "queues: 3", "queues: 4", 1), ":8:13: tunnel wg0 cannot change its queues from 3 to 4 while"},
		{"the same queues", body, strings.Replace(tapBody, "queues: 3", "queues: 1", 1), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSystem(t)
			file := yaml(t, c.before)
			in := newInstance(t, s, file)
			in.d.file = file.Path
			if err := in.start(t.Context(), func(error) {}); err != nil {
				t.Fatal(err)
			}
			s.take()
			if err := os.WriteFile(file.Path, []byte(yamlText(c.after)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := in.reload(t.Context())
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), file.Path+c.want) || !strings.Contains(err.Error(), "hint: culvert down site, then culvert up "+file.Path) {
				t.Errorf("the error is %v", err)
			}
			if got := s.take(); got != "" {
				t.Errorf("done: %s", got)
			}
			if exitCode(err) != exitFailure {
				t.Errorf("exit code %d", exitCode(err))
			}
		})
	}
}

func TestTapStartFails(t *testing.T) {
	s := newSystem(t)
	s.failAt = "mtu1500"
	file := yaml(t, tapBody)
	if _, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0]); !errors.Is(err, errInjected) {
		t.Errorf("the error is %v", err)
	}
	if got, want := s.take(), "+tun +engine +configure +socket +up +port -up -socket -engine -tun -port"; got != want {
		t.Errorf("done: %s\nwant  %s", got, want)
	}
}

// The engine's view of the switch, as others are shown it.
func TestTapStatus(t *testing.T) {
	s := newSystem(t)
	in := newInstance(t, s, yaml(t, tapBody))
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	key, err := crypto.ParsePublicKey(testPeer)
	if err != nil {
		t.Fatal(err)
	}
	s.engine.peers = []tunnel.PeerStatus{{PublicKey: key, Wire: "culvert", Port: &tunnel.PortStatus{Alive: true, Addresses: 1}}}
	s.engine.bridge = &tunnel.SwitchStatus{Carrier: true, Loops: 1, Moves: 2, Addresses: []tunnel.AddressEntry{
		{Address: 0x525400000009, VLAN: 7, Peer: crypto.PublicKey{9}, Pinned: true},
		{Address: 0x525400000002, Peer: key, Age: 90 * time.Second},
		{Address: 0x525400000001, Local: true, Age: 1999 * time.Millisecond},
	}}
	got := in.status()[0]
	want := &control.Switch{Carrier: true, Loops: 1, Moves: 2, Addresses: []control.Address{
		{MAC: "52:54:00:00:00:01", Local: true, Age: 1},
		{MAC: "52:54:00:00:00:02", Peer: key, Name: "plain", Age: 90},
		{MAC: "52:54:00:00:00:09", VLAN: 7, Peer: crypto.PublicKey{9}, Pinned: true},
	}}
	if got.Mode != "tap" || !reflect.DeepEqual(got.Switch, want) {
		t.Errorf("the switch is shown as\n%+v\nwant\n%+v", got.Switch, want)
	}
	if p := got.Peers[0].Port; p == nil || *p != (control.Port{Alive: true, Addresses: 1}) {
		t.Errorf("the port is shown as %+v", p)
	}
	if first := s.engine.bridge.Addresses[0]; first.VLAN != 7 {
		t.Error("the engine's own list was sorted")
	}
	s.engine.bridge = nil
	if got := in.status()[0]; got.Mode != "tun" || got.Switch != nil {
		t.Errorf("without a switch: mode %s, %+v", got.Mode, got.Switch)
	}
}

func goldenTaps() []control.Instance {
	lan := control.Tunnel{
		Interface: "lan", Mode: "tap", Up: true, PublicKey: crypto.PublicKey{9}.Base64(), ListenPort: 51820, MTU: 1500, Drops: map[string]uint64{},
		Switch: &control.Switch{Carrier: true, Loops: 2, Moves: 5},
		Peers: []control.Peer{
			{PublicKey: crypto.PublicKey{1}, Name: "hub", AllowedIPs: []netip.Prefix{}, Wire: "culvert", PostQuantum: true, Suite: "AES-256-GCM",
				LatestHandshake: goldenNow, Connected: true, Keepalive: 10, Port: &control.Port{Alive: true, Addresses: 21}},
			{PublicKey: crypto.PublicKey{2}, AllowedIPs: []netip.Prefix{}, Wire: "culvert", PostQuantum: true, Port: &control.Port{Spoke: true, Addresses: 1}},
		},
	}
	add := func(a control.Address) { lan.Switch.Addresses = append(lan.Switch.Addresses, a) }
	add(control.Address{MAC: "52:54:00:00:00:01", Local: true})
	add(control.Address{MAC: "52:54:00:00:00:02", Peer: crypto.PublicKey{2}, Age: 299})
	for i := range 20 {
		add(control.Address{MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), VLAN: uint16(10 + 1000*(i/10)), Peer: crypto.PublicKey{1}, Name: "hub", Age: i})
	}
	add(control.Address{MAC: "52:54:00:00:00:03", VLAN: 4094, Peer: crypto.PublicKey{1}, Name: "hub", Pinned: true})
	link := control.Tunnel{
		Interface: "link", Mode: "tap", Up: true, MTU: 9000, Switch: &control.Switch{Wire: true, Blocked: true, Loops: 1, Addresses: []control.Address{}},
		Peers: []control.Peer{{PublicKey: crypto.PublicKey{3}, AllowedIPs: []netip.Prefix{}, Wire: "culvert", PostQuantum: true, Port: &control.Port{}}},
	}
	return []control.Instance{
		{Name: "site-a", Kind: "up", Tunnels: []control.Tunnel{lan, {Interface: "office", Mode: "tun", Up: true, MTU: 1420}}},
		{Name: "link", Kind: "up", Tunnels: []control.Tunnel{link}},
	}
}

func TestTapStatusText(t *testing.T) {
	var out bytes.Buffer
	if err := writeStatus(&out, goldenTaps(), goldenNow); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/status-tap.txt", out.String())
}

// The JSON form is a promise: this file changes only by additions.
func TestTapStatusJSON(t *testing.T) {
	taps := goldenTaps()
	taps[0].Tunnels[0].Switch.Addresses = slices.Delete(taps[0].Tunnels[0].Switch.Addresses, 3, 22)
	out, err := json.MarshalIndent(taps, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/status-tap.json", string(out)+"\n")
}

func TestNeighbour(t *testing.T) {
	table := []byte(`IP address       HW type     Flags       HW address            Mask     Device
10.77.0.3        0x1         0x0         00:00:00:00:00:00     *        demo
10.77.0.2        0x1         0x2         52:54:00:00:00:02     *        demo
`)
	for ip, want := range map[string]string{"10.77.0.2": "52:54:00:00:00:02", "10.77.0.3": "", "10.77.0.4": "", "IP": ""} {
		if got := neighbour(table, ip); got != want {
			t.Errorf("neighbour %s: %q, want %q", ip, got, want)
		}
	}
}

// A service VLAN is shown by its number, as it is in the tag.
func TestMACsOfServiceVLANs(t *testing.T) {
	var out bytes.Buffer
	macTable(&out, []control.Address{{MAC: "52:54:00:00:00:01", VLAN: 4094}, {MAC: "52:54:00:00:00:02", VLAN: ethernet.ServiceVLAN | 7},
		{MAC: "52:54:00:00:00:03", VLAN: ethernet.ServiceVLAN | 4094}})
	var got []string
	for line := range strings.Lines(out.String()) {
		fields := strings.Fields(line)
		got = append(got, strings.Join(fields[1:len(fields)-3], " "))
	}
	if want := []string{"address vlan", "4094", "7 (802.1ad)", "4094 (802.1ad)"}; len(got) != 4 || !slices.Equal(got[1:], want[1:]) {
		t.Errorf("%q, want %q in\n%s", got, want, out.String())
	}
}

func TestMACs(t *testing.T) {
	var out bytes.Buffer
	n, err := writeMACs(&out, goldenTaps())
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	golden.Check(t, "testdata/macs.txt", out.String())
	out.Reset()
	if n, err := writeMACs(&out, goldenInstances()); n != 0 || err != nil || out.Len() > 0 {
		t.Errorf("of tunnels without a switch: %d, %v, %q", n, err, out.String())
	}
}

func TestAutoQueues(t *testing.T) {
	for processors, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 8: 4, 16: 8, 17: 8, 256: 8} {
		if got := autoQueues(processors); got != want {
			t.Errorf("%d queues for %d processors, want %d", got, processors, want)
		}
	}
	if got := queuesOf(&config.Tunnel{Queues: 5}); got != 5 {
		t.Errorf("%d queues where 5 are asked for", got)
	}
}
