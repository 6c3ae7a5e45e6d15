package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/internal/golden"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// well are facts of which nothing is wrong; a case breaks them.
func well() *Facts {
	status := func() *control.Instance {
		return &control.Instance{
			Name: "site", Kind: "up", PID: 7, Version: "v1", File: "/etc/culvert/site.yaml",
			Tunnels: []control.Tunnel{{
				Interface: "wg0", Mode: "tun", Up: true, PublicKey: crypto.PublicKey{9}.Base64(), ListenPort: 1000, MTU: 1416, Drops: map[string]uint64{},
				Peers: []control.Peer{{
					PublicKey: crypto.PublicKey{1}, Name: "b", Endpoint: "192.0.2.2:2000", Source: "192.0.2.1", Wire: "culvert",
					AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.20.0.2/32")}, LatestHandshake: now.Add(-time.Minute), Connected: true,
					SentPackets: 10, ReceivedPackets: 10, Native: &control.Native{PathMTU: 1449, InnerMTU: 1416, PathSettled: true, Loss: new(0.0)},
				}},
			}},
		}
	}
	return &Facts{
		Name: "site", Now: now, Version: "v1", Root: true, File: "/etc/culvert/site.yaml", First: status(), Second: status(),
		Tunnels: []Configured{{Name: "wg0", Listen: 1000, Peers: []ConfiguredPeer{{Name: "b", Key: crypto.PublicKey{1}.Base64(), Endpoints: []string{"192.0.2.2:2000"}}}}},
		Names:   []Resolved{{Host: "b.example.net"}},
		Routes:  []Route{{Tunnel: "wg0", Peer: crypto.PublicKey{1}.Base64(), To: netip.MustParseAddr("192.0.2.2"), Link: "eth0", MTU: 1500}},
		Sysctls: map[string]int{"net.ipv4.ip_forward": 0, "net.ipv4.conf.all.rp_filter": 1},
		Unit:    &Unit{Name: "culvert@site.service", Active: "active", Result: "success"},
	}
}

// silent makes the peer one that does not answer.
func silent(f *Facts) {
	p := &f.Second.Tunnels[0].Peers[0]
	p.LatestHandshake, p.Connected, p.HandshakeAttempts, p.ReceivedPackets, p.Native = time.Time{}, false, 5, 0, nil
}

func stopped(f *Facts) { f.First, f.Second, f.NotRunning = nil, nil, true }

// refusal has somebody refused.
func refusal(f *Facts, r control.Refusal) {
	silent(f)
	r.From, r.Count, r.Last = "192.0.2.2:2000", 3, now.Add(-10*time.Second)
	f.Second.Tunnels[0].Refused = []control.Refusal{r}
}

func dropping(hook string, port uint16) *Firewall {
	return &Firewall{Chains: []Chain{{Table: "inet filter", Name: hook, Hook: hook, Policy: "accept", Rules: []Rule{{Ports: []Ports{{port, port}}, Verdict: "drop", Packets: 12}}}}}
}

func TestFindings(t *testing.T) {
	peer := crypto.PublicKey{1}
	cases := []struct {
		name  string
		codes string // expected, the worst first
		wreck func(*Facts)
	}{
		{"well", "", func(*Facts) {}},
		{"not running", "not-running", func(f *Facts) { stopped(f); f.LogTail = []string{"ending: the interface has vanished"} }},
		{"failed unit, taken port, no tun", "unit-failed not-running no-tun port-taken", func(f *Facts) {
			stopped(f)
			f.Unit = &Unit{"culvert@site.service", "failed", "exit-code"}
			f.NoTun = "open /dev/net/tun: no such file or directory"
			f.Ports = []PortError{{1000, "listen udp :1000: bind: address already in use"}}
		}},
		{"wrong file", "file not-running", func(f *Facts) { stopped(f); f.FileError = "site.yaml:3:5: unknown key" }},
		{"no answer", "no-answer", func(f *Facts) { f.First, f.Second, f.DaemonError = nil, nil, "permission denied" }},
		{"another version", "version", func(f *Facts) { f.Second.Version = "v0" }},
		{"an ordinary user", "rights", func(f *Facts) { f.Root = false }},
		{"another namespace", "elsewhere", func(f *Facts) { f.Elsewhere = true }},
		{"no name", "dns", func(f *Facts) { f.Names[0].Error = "lookup b.example.net: no such host" }},
		{"silent", "silent", silent},
		{"silent, the clock unsynchronised", "silent clock-unsynced", func(f *Facts) { silent(f); f.Unsynced = true }},
		{"no route", "no-route", func(f *Facts) { silent(f); f.Routes[0].Link, f.Routes[0].Error = "", "network is unreachable" }},
		{"route loop", "route-loop", func(f *Facts) { silent(f); f.Routes[0].Link = "wg0" }},
		{"small underlay", "mtu", func(f *Facts) { silent(f); f.Routes[0].MTU = 1000 }},
		{"small path", "mtu", func(f *Facts) { f.Second.Tunnels[0].Peers[0].Native.PathMTU = 1232 }},
		{"loss", "loss", func(f *Facts) { f.Second.Tunnels[0].Peers[0].Native.Loss = new(0.2) }},
		{"input dropped", "firewall", func(f *Facts) { silent(f); f.Firewall = dropping("input", 1000) }},
		{"output dropped", "firewall", func(f *Facts) { silent(f); f.Firewall = dropping("output", 2000) }},
		{"another port dropped", "silent", func(f *Facts) { silent(f); f.Firewall = dropping("input", 53) }},
		{"dropped, as it seems, but there is contact", "", func(f *Facts) { f.Firewall = dropping("input", 1000) }},
		{"preshared key", "preshared-key", func(f *Facts) { refusal(f, control.Refusal{Reason: "in: handshake failed", Answer: true, Peer: peer}) }},
		{"stranger", "unknown-peer", func(f *Facts) {
			f.Second.Tunnels[0].Refused = []control.Refusal{{Reason: "in: unknown peer", Peer: crypto.PublicKey{5}, From: "198.51.100.7:9", Count: 1, Last: now}}
		}},
		{"wrong key of the peer", "peer-key", func(f *Facts) {
			refusal(f, control.Refusal{Reason: "in: unknown peer", Peer: crypto.PublicKey{5}})
		}},
		{"other wire", "wire", func(f *Facts) { refusal(f, control.Refusal{Reason: "in: handshake of another wire", Peer: peer}) }},
		{"clock set back", "clock", func(f *Facts) {
			refusal(f, control.Refusal{Reason: "in: old or hurried initiation", Peer: peer, Behind: 86400})
		}},
		{"refused once, in contact since", "", func(f *Facts) {
			f.Second.Tunnels[0].Refused = []control.Refusal{{Reason: "in: handshake failed", Answer: true, Peer: peer, Last: now.Add(-2 * time.Minute)}}
		}},
		{"behind a NAT", "nat", func(f *Facts) {
			p := &f.Second.Tunnels[0].Peers[0]
			p.Source, p.Endpoint = "192.168.1.7", "203.0.113.1:2000"
		}},
		{"TCP", "tcp", func(f *Facts) { f.Second.Tunnels[0].Peers[0].TCP = true }},
		{"waits", "waits", func(f *Facts) {
			silent(f)
			f.Second.Tunnels[0].Peers[0].HandshakeAttempts, f.Second.Tunnels[0].Peers[0].Endpoint, f.Tunnels = 0, "", nil
		}},
		{"idle", "idle", func(f *Facts) { silent(f); f.Second.Tunnels[0].Peers[0].HandshakeAttempts = 0 }},
		{"down", "down", func(f *Facts) { f.Second.Tunnels[0].Up = false }},
		{"source just now", "source", func(f *Facts) { f.Second.Tunnels[0].Drops["in: source not in allowed IPs"] = 3 }},
		{"source long ago", "source", func(f *Facts) {
			f.First.Tunnels[0].Drops["in: source not in allowed IPs"], f.Second.Tunnels[0].Drops["in: source not in allowed IPs"] = 3, 3
		}},
		{"wrong key of this end", "silent wrong-own-key", func(f *Facts) { silent(f); f.Second.Tunnels[0].Drops["in: wrong mac1"] = 3 }},
		{"drift", "drift", func(f *Facts) {
			f.Second.Network = &control.Network{Items: 2, Drift: []control.Drift{{ID: "link br0", Is: "gone", Text: "br0: gone"}}}
		}},
		{"full pool, no forwarding", "pool forwarding", func(f *Facts) {
			f.Tunnels[0].Server, f.Tunnels[0].Pool, f.Tunnels[0].Clients = true, []netip.Prefix{netip.MustParsePrefix("10.20.0.0/28")}, 12
		}},
		{"strict filter", "rp-filter", func(f *Facts) { f.Tunnels[0].FullTunnel = true }},
		{"overlap", "overlap", func(f *Facts) {
			f.Others = []Prefixes{{"other", "wg1", []netip.Prefix{netip.MustParsePrefix("10.20.0.2/32")}}}
		}},
		{"expired and quota", "quota closed", func(f *Facts) {
			f.Second.Tunnels[0].Peers[0].Access = &control.Access{Quota: &control.Quota{Bytes: 5, Used: 6}}
			f.Second.Tunnels[0].Peers = append(f.Second.Tunnels[0].Peers, control.Peer{PublicKey: crypto.PublicKey{2}, Name: "evil\x1b[2J", Access: &control.Access{Closed: "expired"}})
		}},
	}
	var all strings.Builder
	for _, c := range cases {
		f := well()
		c.wreck(f)
		// Facts survive being written down, which --facts is for.
		text, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var again Facts
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		list := Examine(&again)
		var codes []string
		for _, finding := range list {
			codes = append(codes, finding.Code)
		}
		if got := strings.Join(codes, " "); got != c.codes {
			t.Errorf("%s: %q, want %q", c.name, got, c.codes)
		}
		fmt.Fprintf(&all, "== %s\n", c.name)
		if err := Write(&all, f.Name, list); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(all.String(), "\x1b") {
		t.Error("names are written as they are")
	}
	golden.Check(t, "testdata/findings.txt", all.String())
}

// The documentation has the codes there are.
func TestCodesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- doctor -->")
	table, _, _ = strings.Cut(table, "\n\n")
	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(table, -1) {
		documented[m[1]] = true
	}
	source, err := os.ReadFile("examine.go")
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?:x\.add\((?:Error|Warning|Note), |\{"(?:in|out): [^"]*", )"([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
		there[m[1]] = true
	}
	if len(there) < 40 || !maps.Equal(documented, there) {
		t.Errorf("documented %v, there are %v", slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(there)))
	}
}

func TestFirewall(t *testing.T) {
	data, err := os.ReadFile("testdata/ruleset.json")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseNFT(data)
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]string{1000: "a rule that says drop", 2000: "", 3000: "whose policy is drop"} {
		if where, _ := f.stops(port, ipv4, "input"); !strings.Contains(where, want) || want == "" && where != "" {
			t.Errorf("port %d: %q, want %q", port, where, want)
		}
	}
	if where, packets := f.stops(1000, ipv4, "input"); packets != 4 || !strings.Contains(where, "inet filter, chain input") {
		t.Errorf("%s, %d packets", where, packets)
	}
	if where, _ := f.stops(1000, ipv4, "output"); where != "" {
		t.Errorf("output: %s", where)
	}
}

func FuzzParseNFT(f *testing.F) {
	data, err := os.ReadFile("testdata/ruleset.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for _, r := range rulesets {
		f.Add(rulesetOf(f, r.file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if fw, err := ParseNFT(data); err == nil {
			fw.stops(1000, ipv4, "input", "output", "prerouting")
		}
	})
}
