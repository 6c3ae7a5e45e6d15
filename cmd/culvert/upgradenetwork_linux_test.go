package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// A tunnel in a namespace that its file makes, with a service there: the namespace, the service's process and all links stay across upgrades, and
// go at the end, also after a kill.
func TestUpgradeInNamespace(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "dnsmasq")
	a, b := newPlace(t, "heira"), newPlace(t, "heirb")
	lab.Link(t, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	ka, kb := a.key(), b.key()
	before := a.snapshot()
	b.write("tunnels:\n  wg0:\n    listen: 1000\n    private_key_file: key\n    addresses: [10.30.0.2/24]\n    peers:\n      a: {public_key: \"" +
		ka + "\", allowed_ips: [10.30.0.1/32]}\n")
	b.must("up", b.file())
	a.write("netns: {$NS: {}}\ntunnels:\n  wg0:\n    netns: $NS\n    listen: 1000\n    private_key_file: key\n    addresses: [10.30.0.1/24]\n    peers:\n" +
		"      b: {public_key: \"" + kb + "\", endpoints: [\"192.0.2.2:1000\"], allowed_ips: [10.30.0.2/32]}\n" +
		"links:\n  br0: {type: bridge, ports: [va]}\n  va: {type: veth, peer: {name: vb, netns: $NS, addresses: [10.40.0.1/24]}}\n" +
		"services:\n  - dnsmasq: {netns: $NS, interface: vb, range: \"10.40.0.10,10.40.0.50,255.255.255.0,1h\"}\n")
	a.must("up", a.file())
	in := func() {
		t.Helper()
		lab.Eventually(t, patience, "a ping from the namespace", func() bool {
			return a.host.Run(a.host.Command(t.Context(), "ip", "netns", "exec", a.ns, "ping", "-c1", "-W1", "10.30.0.2")) == nil
		})
	}
	in()
	services := func() string {
		t.Helper()
		var list []string
		for _, pid := range strings.Fields(a.host.Shell("sh", "-c", "pgrep -x dnsmasq || true")) {
			if n, err := strconv.Atoi(pid); err == nil && strings.Contains(a.host.Shell("sh", "-c", "tr '\\0' ' ' < /proc/"+strconv.Itoa(n)+"/cmdline || true"), "10.40.0.10") {
				list = append(list, pid)
			}
		}
		return strings.Join(list, " ")
	}
	running := services()
	if running == "" {
		t.Error("no dnsmasq")
	}
	pid := a.running().PID
	a.must("upgrade", a.name)
	if a.running().PID == pid {
		t.Errorf("process %d goes on", pid)
	}
	in()
	a.settled()
	if now := services(); now != running {
		t.Errorf("dnsmasq is process %s now, and was %s", now, running)
	}
	syscall.Kill(a.running().PID, syscall.SIGKILL)
	lab.Eventually(t, patience, "it starts anew", func() bool { _, code := a.culvert("up", a.file()); return code == 0 })
	in()
	a.must("upgrade", a.name)
	a.must("down", a.name)
	a.same(before)
	if now := services(); now != "" {
		t.Errorf("dnsmasq is still there: %s", now)
	}
	b.must("down", b.name)
}
