package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is read of a tunnel of Ethernet frames, defaults that are the configuration's own included.
func TestEthernet(t *testing.T) {
	text, err := os.ReadFile("testdata/good/ethernet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, r := parseYAML("ethernet.yaml", text, fakeSecret)
	if errs, warnings := r.finish(); len(errs)+len(warnings) > 0 {
		t.Fatal(errs, Errors(warnings))
	}
	places := map[string]Position{"mode": f.Tunnels[0].ModePos, "mac": f.Tunnels[0].MACPos, "queues": f.Tunnels[0].QueuesPos,
		"station": f.Tunnels[0].Peers[1].MACs[1].Pos, "max_macs": f.Tunnels[0].Peers[2].MaxMACsPos, "vlan": f.Tunnels[0].Peers[1].VLANs.Pos}
	for what, want := range map[string]Position{"mode": {"", 25, 11}, "mac": {"", 30, 10}, "queues": {"", 31, 13}, "station": {"", 12, 37},
		"max_macs": {"", 19, 19}, "vlan": {"", 13, 9}} {
		if want.File = "ethernet.yaml"; places[what] != want {
			t.Errorf("%s is at %v, want %v", what, places[what], want)
		}
	}
	file := bare(f)
	lan, dark, ip := file.Tunnels[0], file.Tunnels[1], file.Tunnels[2]
	if lan.Mode != ModeTap || lan.MTU != 9000 || lan.MAC != (MAC{0x52, 0x54, 0, 0, 0, 1}) || lan.Queues != 4 || lan.KeepCarrier || lan.FwMark.Value != 7 ||
		lan.Switch != (Switch{Ageing: 24 * time.Hour, LinkLocal: true, Proxy: true, KeepLoops: true}) || len(lan.Addresses) != 2 {
		t.Errorf("read as %+v", lan)
	}
	if dark.Mode != ModeTap || dark.MTU != 0 || !dark.KeepCarrier || dark.Switch != (Switch{Ageing: 90 * time.Second}) || ip.Mode != ModeTun || ip.Queues != 16 {
		t.Errorf("read as %+v and %+v", dark, ip)
	}
	want := []Peer{
		{Keepalive: TapKeepalive},
		{Keepalive: 0, Spoke: true, MACs: []Station{{MAC: MAC{0x52, 0x54, 0, 0xab, 0, 2}}, {MAC: MAC{2, 0, 0, 0, 0, 1}}},
			VLANs:  VLANs{PVID: 10, Tagged: []uint16{10, 20, 30, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110}},
			Limits: Limits{Broadcast: 50, Multicast: NoLimit, UnknownUnicast: 1_000_000_000}},
		{Keepalive: 25 * time.Second, MaxMACs: 65536, VLANs: VLANs{Tagged: []uint16{1, 2, 3, 4, 4094}}},
		{}, // the carrier is on anyhow
	}
	for i, p := range append(slices.Clone(lan.Peers), dark.Peers...) {
		got := Peer{Keepalive: p.Keepalive, Spoke: p.Spoke, MACs: p.MACs, MaxMACs: p.MaxMACs, VLANs: p.VLANs, Limits: p.Limits}
		if !reflect.DeepEqual(got, want[i]) {
			t.Errorf("peer %s is\n%+v\nwant\n%+v", p.Name, got, want[i])
		}
		if p.Wire != WireCulvert || len(p.AllowedIPs) > 0 {
			t.Errorf("peer %s: wire %s, allowed IPs %v", p.Name, p.Wire, p.AllowedIPs)
		}
	}
}

func TestEthernetValues(t *testing.T) {
	show := func(v any, p *problem) string {
		if p != nil {
			return "!"
		}
		return fmt.Sprint(v)
	}
	parsers := map[string]func(string) string{
		"mac":     func(s string) string { v, p := parseMAC(s); return show(v, p) },
		"queues":  func(s string) string { v, p := parseQueues(s); return show(v, p) },
		"learned": func(s string) string { v, p := parseLearned(s); return show(v, p) },
		"ageing":  func(s string) string { v, p := parseAgeing(s); return show(v, p) },
		"vlan":    func(s string) string { v, p := parseVLAN(s); return show(v, p) },
		"vlans":   func(s string) string { v, p := parseVLANs(s); return show(v, p) },
		"rate":    func(s string) string { v, p := parseRate(s); return show(v, p) },
		"mode":    func(s string) string { v, p := parseMode(s); return show(v, p) },
	}
	for _, c := range []struct{ parser, in, want string }{
		{"mac", "52:54:00:AB:cd:0f", "52:54:00:ab:cd:0f"}, {"mac", "02-00-00-00-00-01", "02:00:00:00:00:01"}, {"mac", "", "!"},
		{"mac", "52:54:00:00:00", "!"}, {"mac", "52:54:00:00:00:01:02", "!"}, {"mac", "52:54-00:00:00:01", "!"}, {"mac", "5254.0000.0001", "!"},
		{"mac", "525400000001aaaaa", "!"}, {"mac", "5:254:00:00:00:01", "!"}, {"mac", "52:54:00:00:00:+1", "!"}, {"mac", "52:54:00:00:00:é", "!"},
		{"mac", "::::::::::::::::: ", "!"}, {"mac", ":::::::::::::::::", "!"}, {"mac", "01:00:5e:00:00:01", "!"}, {"mac", "ff:ff:ff:ff:ff:ff", "!"}, {"mac", "00:00:00:00:00:00", "!"},
		{"queues", "auto", "0"}, {"queues", "Auto", "!"}, {"queues", "1", "1"}, {"queues", "16", "16"}, {"queues", "17", "!"}, {"queues", "0", "!"}, {"queues", "-1", "!"}, {"queues", "01", "!"},
		{"learned", "1", "1"}, {"learned", "65536", "65536"}, {"learned", "65537", "!"}, {"learned", "0", "!"},
		{"ageing", "1s", "1s"}, {"ageing", "24h", "24h0m0s"}, {"ageing", "86401s", "!"}, {"ageing", "0s", "!"}, {"ageing", "0", "!"}, {"ageing", "300", "!"},
		{"ageing", "1001ms", "!"}, {"ageing", "-1s", "!"}, {"ageing", "9999999999h", "!"}, {"ageing", "off", "!"},
		{"vlan", "1", "1"}, {"vlan", "4094", "4094"}, {"vlan", "4095", "!"}, {"vlan", "0", "!"}, {"vlan", "x", "!"},
		{"vlans", "20", "[20 20]"}, {"vlans", "1-4094", "[1 4094]"}, {"vlans", "7-7", "[7 7]"}, {"vlans", "8-7", "!"}, {"vlans", "0-7", "!"},
		{"vlans", "7-4095", "!"}, {"vlans", "7-", "!"}, {"vlans", "-7", "!"}, {"vlans", "1-2-3", "!"}, {"vlans", "1 - 2", "!"}, {"vlans", "", "!"},
		{"rate", "off", "-1"}, {"rate", "1", "1"}, {"rate", "1000000000", "1000000000"}, {"rate", "1000000001", "!"}, {"rate", "0", "!"}, {"rate", "-1", "!"},
		{"mode", "tun", "tun"}, {"mode", "tap", "tap"}, {"mode", "Tap", "!"}, {"mode", "", "!"},
	} {
		if got := parsers[c.parser](c.in); got != c.want {
			t.Errorf("%s(%q) = %q, want %q", c.parser, c.in, got, c.want)
		}
	}
	for want, vlans := range map[string][]uint16{"": nil, "1": {1}, "1-4094": allVLANs(), "1-2 4 6-8 4094": {1, 2, 4, 6, 7, 8, 4094}} {
		if got := strings.Join(Ranges(vlans), " "); got != want {
			t.Errorf("Ranges(%v) = %q, want %q", vlans, got, want)
		}
	}
}

func allVLANs() (out []uint16) {
	for id := uint16(1); id <= maxVLAN; id++ {
		out = append(out, id)
	}
	return out
}
