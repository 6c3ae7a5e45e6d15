package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/control"
	"culvert/internal/lab"
)

// bridged is examples/tunnel-bridge.yaml, or a part of it, for one of two sites.
func (p *place) bridged(t *testing.T, own, peer string) {
	t.Helper()
	text, err := os.ReadFile("../../examples/tunnel-bridge.yaml")
	if err != nil {
		t.Fatal(err)
	}
	example := string(text)
	for _, r := range []struct{ from, to string }{
		{"version: 1\n", ""}, {"tunnel-bridge.key", "key"}, {"b.example.net:51821", "192.0.2." + map[string]string{"1": "2", "2": "1"}[own] + ":51821"},
		{"10.20.0.1/24", "10.20.0." + own + "/24"}, {"stp: {enabled: true}", "stp: {enabled: true, forward_delay: 2s}"},
	} {
		if !strings.Contains(example, r.from) {
			t.Fatalf("the example has no %q any more", r.from)
		}
		example = strings.ReplaceAll(example, r.from, r.to)
	}
	// The kernel of this machine may lack sfq.
	example = strings.ReplaceAll(example, ", leaf: {sfq: {}}", "")
	p.write(regexp.MustCompile(`public_key: "[^"]*"`).ReplaceAllString(example, `public_key: "`+peer+`"`))
}

// key makes the place's key and returns the public one.
func (p *place) key() string {
	p.t.Helper()
	private := p.must("genkey")
	if err := os.WriteFile(p.path("key"), []byte(private), 0o600); err != nil {
		p.t.Fatal(err)
	}
	cmd := p.command("pubkey")
	cmd.Stdin = strings.NewReader(private)
	out, err := p.host.Output(cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (p *place) running() (in control.Instance) {
	p.t.Helper()
	var all []control.Instance
	if err := json.Unmarshal([]byte(p.must("status", "--json")), &all); err != nil {
		p.t.Fatal(err)
	}
	if len(all) != 1 || all[0].Network == nil {
		p.t.Fatalf("running: %+v", all)
	}
	return all[0]
}

// drifts waits until the status shows these differences.
func (p *place) drifts(want ...string) {
	p.t.Helper()
	lab.Eventually(p.t, patience, "drift of "+strings.Join(want, ", "), func() bool {
		var got []string
		for _, d := range p.running().Network.Drift {
			got = append(got, d.Text)
		}
		return strings.Join(got, "\n") == strings.Join(want, "\n")
	})
}

// A tunnel's tap as the port of a bridge, shaped: the example, on two sites with traffic between them, over up, reload, kill and down.
func TestUpWithNetwork(t *testing.T) {
	t.Parallel()
	a, b := newPlace(t, "sitea"), newPlace(t, "siteb")
	lab.Link(t, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	a.cable("eth1")
	b.cable("eth1")
	ka, kb := a.key(), b.key()
	beforeA, beforeB := a.snapshot(), b.snapshot()
	a.bridged(t, "1", kb)
	b.bridged(t, "2", ka)
	a.has("+ link office (tunnel, tap)", "~ link eth1", "+ link br0 (bridge)", "+ link ifb-office (ifb)", "+ attachment eth1", "+ attachment office",
		"+ address br0", "+ qdisc ifb-office root (htb)", "+ class ifb-office", "+ qdisc office root (tbf)", "+ qdisc office ingress", "+ filter office")
	a.must("up", a.file())
	b.must("up", b.file())
	a.settled()
	a.reaches("10.20.0.2")
	a.refused(1, "culvert reload "+a.name+" applies", "apply", a.file())
	a.refused(1, "culvert down "+a.name+" takes it all away", "destroy", a.name)
	if n := a.running(); len(n.Network.Drift) != 0 || n.Network.Items < 12 || len(n.Tunnels) != 1 {
		t.Errorf("status: %+v", n)
	}

	// Noticed at once, and repaired by a reload.
	a.host.Shell("ip", "link", "set", "office", "nomaster")
	a.host.Shell("ip", "link", "set", "br0", "type", "bridge", "forward_delay", "1500")
	a.drifts("br0: forward_delay is 15s, not 2s", "br0 port office: gone")
	if out := a.must("status"); !strings.Contains(out, "\n  drift: br0 port office: gone\n") {
		t.Errorf("status: %s", out)
	}
	a.must("reload", a.name)
	a.drifts()
	a.settled()
	a.reaches("10.20.0.2")

	// What a reload changes, and what it cannot do leaves all as it was.
	text, err := os.ReadFile(a.path(a.file()))
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(a.path(a.file()), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.NewReplacer("cost: 100", "cost: 50", "  ifb-office: {type: ifb}", "  ifb-office: {type: ifb}\n  t9: {type: tap}").Replace(string(text)))
	if out := a.must("reload", a.name); !strings.Contains(out, "~ attachment office (to br0) cost 100 -> 50") || !strings.Contains(out, "+ link t9 (tap)") {
		t.Errorf("reload: %s", out)
	}
	a.settled()
	write(strings.Replace(string(text), "listen: 51821", "listen: 51829", 1) + "routes:\n  - {to: 10.77.0.0/16, gateway: 203.0.113.1, link: br0}\n")
	a.refused(1, "cannot create route", "reload", a.name)
	a.has("~ attachment office (to br0) cost 50 -> 100", "+ route 10.77.0.0/16", "- link t9") // against the file, which is not in force
	a.drifts()
	if n := a.running().Tunnels[0]; n.ListenPort != 51821 {
		t.Errorf("the tunnel listens on %d after a reload that failed", n.ListenPort)
	}
	write(string(text))
	a.must("reload", a.name)
	a.settled()
	a.reaches("10.20.0.2")

	// Killed, and up again: the bridge had stayed without its port.
	syscall.Kill(a.running().PID, syscall.SIGKILL)
	lab.Eventually(t, patience, "the daemon's end", func() bool { return !strings.Contains(a.host.Shell("ip", "-br", "link"), "\noffice ") })
	if out := a.host.Shell("ip", "-br", "link"); !strings.Contains(out, "br0") {
		t.Errorf("the bridge is gone with the daemon: %s", out)
	}
	a.must("up", a.file())
	a.settled()
	a.reaches("10.20.0.2")
	a.must("down", a.name)
	a.same(beforeA)

	// Killed, and cleared away.
	syscall.Kill(b.running().PID, syscall.SIGKILL)
	time.Sleep(100 * time.Millisecond)
	b.must("destroy", b.name)
	for _, left := range []string{"run/" + b.name + ".log", "run/" + b.name + ".sock", "run/" + b.name + ".lock", "wg/office.sock"} { // as of any daemon that is killed
		os.Remove(b.path(left))
	}
	b.same(beforeB)
}

// A tunnel whose device is in a namespace, which the file makes; its datagrams go through the daemon's.
func TestUpInNamespace(t *testing.T) {
	t.Parallel()
	a, b := newPlace(t, "insidea"), newPlace(t, "insideb")
	lab.Link(t, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	ka, kb := a.key(), b.key()
	before := a.snapshot()
	const inside = "netns: {$NS: {}}\ntunnels:\n  wg0:\n    netns: $NS\n    listen: 1000\n    private_key_file: key\n    addresses: [10.30.0.1/24]\n    peers:\n"
	peerB := "      b: {public_key: \"" + kb + "\", endpoints: [\"192.0.2.2:1000\"], allowed_ips: [10.30.0.2/32]}\n"
	b.write("tunnels:\n  wg0:\n    listen: 1000\n    private_key_file: key\n    addresses: [10.30.0.2/24]\n    peers:\n      a: {public_key: \"" +
		ka + "\", allowed_ips: [10.30.0.1/32]}\n")
	b.must("up", b.file())
	a.write(inside + peerB)
	a.must("up", a.file())
	a.settled()
	in := func() {
		t.Helper()
		lab.Eventually(t, patience, "a ping from the namespace", func() bool {
			return a.host.Run(a.host.Command(t.Context(), "ip", "netns", "exec", a.ns, "ping", "-c1", "-W1", "10.30.0.2")) == nil
		})
	}
	in()
	if out := a.host.Shell("ip", "-br", "link"); strings.Contains(out, "wg0") {
		t.Errorf("the tunnel's device is outside: %s", out)
	}

	// Out of the namespace, with its sessions gone, and back.
	a.write(strings.Replace(inside, "    netns: $NS\n", "", 1) + peerB)
	a.must("reload", a.name)
	a.settled()
	a.reaches("10.30.0.2")
	a.write(inside + peerB)
	a.must("reload", a.name)
	a.settled()
	in()

	// Other things of the namespace that cannot be made leave the tunnel where it is.
	a.write(strings.Replace(inside, "    netns: $NS\n", "", 1) + peerB + "routes:\n  - {to: 10.77.0.0/16, gateway: 203.0.113.1, netns: $NS}\n")
	a.refused(1, "cannot create route", "reload", a.name)
	in()
	a.must("down", a.name)
	a.same(before)
	b.must("down", b.name)
}

// A start that fails leaves what was there before: also what apply had made.
func TestUpWithNetworkFails(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "fails")
	p.key()
	p.write("links:\n  br0: {type: bridge}\n")
	p.must("apply", p.file())
	const tunnel = "tunnels:\n  lan: {mode: tap, private_key_file: key, listen: 5}\n"
	p.write(tunnel + "links:\n  br0: {type: bridge, mtu: 1400, ports: [lan, t0]}\n  t0: {type: tap}\nroutes:\n  - {to: 10.77.0.0/16, gateway: 203.0.113.1, link: br0}\n")
	p.refused(1, p.name+".yaml:8:5: cannot create route", "up", p.file())
	if err := os.Remove(p.path("run/" + p.name + ".log")); err != nil { // which tells why
		t.Error(err)
	}
	p.write("links:\n  br0: {type: bridge}\n")
	p.settled()
	if out := p.host.Shell("ip", "-br", "link"); strings.Contains(out, "t0") || strings.Contains(out, "lan") {
		t.Errorf("left: %s", out)
	}
	// A tap of that name is somebody else's, and not taken for the tunnel's.
	p.write(tunnel + "links:\n  br1: {type: bridge, ports: [lan]}\n")
	p.host.Shell("ip", "tuntap", "add", "lan", "mode", "tap")
	p.refused(1, p.name+".yaml:3:3: conflict: a device called lan is there", "up", p.file())
	if out := p.host.Shell("ip", "-br", "link"); !strings.Contains(out, "lan ") || strings.Contains(out, "br1") || !strings.Contains(out, "br0") {
		t.Errorf("touched: %s", out)
	}
	p.host.Shell("ip", "tuntap", "del", "lan", "mode", "tap")
	p.write(tunnel + "links:\n  br0: {type: bridge, mtu: 1400, ports: [lan]}\n")
	p.must("up", p.file())
	p.must("down", p.name)
	if out := p.host.Shell("ip", "-br", "link"); strings.Contains(out, "br0") {
		t.Errorf("left: %s", out)
	}
}
