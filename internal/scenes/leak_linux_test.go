package scenes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// leakEndpoints are those of the tunnel in [TestLeaks].
var leakEndpoints = []netip.AddrPort{netip.MustParseAddrPort("10.98.0.2:51820"), netip.MustParseAddrPort("[2001:db8::2]:51820")}

// leaking is a machine with a tunnel that takes both families, two ports to the world, and programs that send all the time.
type leaking struct {
	*machine
	gate   *machine // the far end, and the router behind both ports
	seen   *seen
	rounds func() int64
	box    func() int64 // rounds of a container whose packets the machine forwards
}

func newLeaking(t *testing.T, killSwitch bool) *leaking {
	t.Helper()
	l := &leaking{machine: newMachine(t)}
	l.resolvConf("nameserver 10.98.0.2\n")
	l.gate = newMachine(t)
	l.cable(l.gate.host, "wan", "wan", "10.98.0.1/24 2001:db8::1/64", "10.98.0.2/24 2001:db8::2/64")
	l.cable(l.gate.host, "wlan", "wlan", "10.99.0.1/24 2001:db8:99::1/64", "10.99.0.2/24 2001:db8:99::2/64")
	l.shell("", "ip", "link", "set", "wlan", "down")
	l.ways("add")
	public := l.gate.key("gate.key")
	l.gate.declare("gate.yaml", fmt.Sprintf("version: 1\ntunnels:\n  gate:\n    listen: 51820\n    private_key_file: gate.key\n"+
		"    addresses: [10.8.0.1/24, \"fd08::1/64\"]\n    peers: {near: {public_key: %q, allowed_ips: [10.8.0.2/32, \"fd08::2/128\"]}}\n", l.key("near.key")))
	l.gate.must("up", l.gate.file)
	l.gate.host.AddAddr("lo", behind4+"/32")
	l.gate.host.AddAddr("lo", behind6+"/128")
	webServer(t, l.gate.host, ":80")
	drain(t, l.gate.host, ":7")
	l.declare("near.yaml", fmt.Sprintf(`version: 1
tunnels:
  vpn0:
    private_key_file: near.key
    addresses: [10.8.0.2/24, "fd08::2/64"]
    full_tunnel: true
    kill_switch: %v
    dns: {servers: [10.8.0.1]}
    peers:
      gate: {public_key: %q, endpoints: ["10.98.0.2:51820", "[2001:db8::2]:51820"], allowed_ips: [0.0.0.0/0, "::/0"], keepalive: 1s}
`, killSwitch, public))

	// A container behind the machine, which forwards for it.
	box := lab.NewHost(t, "box")
	l.cable(box, "box", "eth0", "172.31.0.1/24", "172.31.0.2/24")
	box.AddRoute("default4", "172.31.0.1", "eth0")
	l.host.Sysctl("net/ipv4/conf/all/forwarding", "1")
	l.gate.host.AddRoute("172.31.0.0/24", "10.98.0.1", "wan")

	lasting(t, l.host, behind4+":7")
	l.apply()
	l.passes()
	l.seen = capture(t, l.gate.host, leakEndpoints, "wan", "wlan")
	v4, v6 := behind4, "["+behind6+"]"
	l.rounds = chatters(t, l.host, udp(v4+":9"), udp(v6+":9"), udp(v4+":10").by("wan"), udp(v6+":10").by("wan"), udp(v4+":11").by("wlan"),
		tcp(v4+":12"), tcp(v6+":12"), tcp(v4+":13").by("wan"), echo(behind4), echo(behind6),
		question("10.8.0.1:53"), question("10.98.0.2:53"), question("[2001:db8::2]:53"),
		// To the endpoints themselves, as the tunnel does, but not by it.
		udp("10.98.0.2:51820"), udp("[2001:db8::2]:51820"), tcp("10.98.0.2:443"), udp("10.98.0.2:51820").by("wan"),
		// To neighbours, known and unknown, and to all of them.
		udp("10.98.0.77:14"), udp("[2001:db8::77]:14"), udp("224.0.0.251:5353").by("wan"), udp("[ff02::fb]:5353").by("wan"), udp("10.98.0.255:15"))
	l.box = chatters(t, box, udp(v4+":16"), tcp(v4+":17"), echo(behind4))
	// Somebody on the underlay calls the machine, also at the tunnel's address.
	l.gate.shell("", "ip", "route", "add", "10.8.0.0/24", "via", "10.98.0.1", "dev", "wan", "metric", "500")
	chatters(t, l.gate.host, udp("10.98.0.1:18"), tcp("10.98.0.1:18"), echo("10.98.0.1"), udp("[2001:db8::1]:18"), tcp("[2001:db8::1]:18"),
		echo("2001:db8::1"), udp("10.8.0.2:18").by("wan"), tcp("10.8.0.2:18").by("wan"))
	return l
}

// ways sets the routes to the world by the port wan, by what "ip route" calls it: add, replace.
func (l *leaking) ways(verb string) {
	l.Helper()
	l.shell("", "ip", "route", verb, "default", "via", "10.98.0.2", "dev", "wan")
	l.shell("", "ip", "-6", "route", verb, "default", "via", "2001:db8::2", "dev", "wan")
}

// passes waits until both families go by the tunnel.
func (l *leaking) passes() {
	l.Helper()
	l.seenAs(behind4, "10.8.0.2")
	l.seenAs(behind6, "fd08::2")
}

// linger waits until programs have sent for a while.
func (l *leaking) linger() {
	l.Helper()
	rounds, box := l.rounds(), l.box()
	l.await("programs send", func() bool { return l.rounds() > rounds+30 && l.box() > box+30 })
}

// dies ends the machine's daemon as a crash does.
func (l *leaking) dies() {
	l.Helper()
	n := 0
	for pid, name := range l.processes() {
		if strings.HasPrefix(name, "culvert") {
			l.kill(pid)
			n++
		}
	}
	if n == 0 {
		l.Fatal("there is no daemon to kill")
	}
	l.isUp = false
}

// injected are routes past the tunnel, as DHCP, router advertisements or an attacker may set them.
var injected = [][]string{
	{"-4", behind4 + "/32", "via", "10.98.0.2", "dev", "wan"},
	{"-4", "203.0.113.0/25", "dev", "wan", "scope", "link"},
	{"-4", "0.0.0.0/1", "via", "10.98.0.2", "dev", "wan"},
	{"-4", "128.0.0.0/1", "via", "10.98.0.2", "dev", "wan"},
	{"-4", "10.8.0.1/32", "via", "10.98.0.2", "dev", "wan"},
	{"-6", behind6 + "/128", "via", "2001:db8::2", "dev", "wan"},
	{"-6", "2001:db8:77::/64", "dev", "wan"},
	{"-6", "::/1", "via", "2001:db8::2", "dev", "wan"},
}

func (l *leaking) inject() {
	l.Helper()
	for _, route := range injected {
		l.shell("", "ip", append([]string{route[0], "route", "replace"}, route[1:]...)...)
	}
}

// play lets happen to the machine what may happen to one.
func (l *leaking) play(calm func(when string)) {
	l.Helper()
	l.linger()
	calm("up")
	l.inject()
	l.linger()
	l.passes()
	calm("up, and routes past the tunnel")

	l.dies()
	l.linger()
	calm("killed")
	l.shell("", "ip", "rule", "add", "priority", "1", "lookup", "main")
	l.shell("", "ip", "-6", "rule", "add", "priority", "1", "lookup", "main")
	l.linger()
	calm("killed, and a rule before all others")
	// The underlay gives out other addresses, goes down and comes up, and there is another.
	l.shell("", "ip", "addr", "del", "10.98.0.1/24", "dev", "wan")
	l.shell("", "ip", "addr", "add", "10.98.0.7/24", "dev", "wan")
	l.ways("replace")
	l.linger()
	l.shell("", "ip", "link", "set", "wan", "down")
	l.linger()
	l.shell("", "ip", "link", "set", "wan", "up")
	l.shell("", "ip", "addr", "replace", "2001:db8::7/64", "dev", "wan", "nodad")
	l.ways("replace")
	l.inject()
	l.linger()
	l.secondPort()
	l.linger()
	calm("killed, and another underlay")
	l.shell("", "ip", "rule", "del", "priority", "1")
	l.shell("", "ip", "-6", "rule", "del", "priority", "1")
	l.apply()
	l.passes()
	calm("started again")

	// And while it is up.
	l.shell("", "ip", "link", "set", "wan", "down")
	l.linger()
	l.passes() // by the second port
	l.shell("", "ip", "link", "set", "wan", "up")
	l.shell("", "ip", "addr", "replace", "2001:db8::8/64", "dev", "wan", "nodad")
	l.ways("replace")
	l.inject()
	l.shell("", "ip", "link", "set", "wlan", "down")
	l.passes()
	l.shell("", "ip", "addr", "del", "10.98.0.7/24", "dev", "wan")
	l.linger()
	l.shell("", "ip", "addr", "add", "10.98.0.9/24", "dev", "wan")
	l.ways("replace")
	l.passes()
	calm("up, and the underlay changes")
	l.edit("keepalive: 1s", "keepalive: 2s")
	l.apply()
	l.linger()
	calm("reloaded")
	for range 2 {
		l.dies()
		l.apply()
		l.passes()
	}
	calm("killed and started at once")
}

// secondPort brings the other port up, with a default route that is better than the first's.
func (l *leaking) secondPort() {
	l.Helper()
	l.shell("", "ip", "link", "set", "wlan", "up")
	l.shell("", "ip", "addr", "replace", "2001:db8:99::1/64", "dev", "wlan", "nodad")
	l.shell("", "ip", "route", "prepend", "default", "via", "10.99.0.2", "dev", "wlan")
	l.shell("", "ip", "-6", "route", "add", "default", "via", "2001:db8:99::2", "dev", "wlan", "metric", "1")
	l.shell("", "ip", "route", "replace", "203.0.113.64/26", "dev", "wlan", "scope", "link")
}

// With a kill switch not one packet leaves the machine but the tunnel's own, whatever becomes of the daemon, the routes and the underlay
// while programs send; what comes out of its ports is captured and decoded there.
func TestLeaks(t *testing.T) {
	t.Parallel()
	l := newLeaking(t, true)
	l.play(func(when string) { l.Helper(); time.Sleep(moment); l.seen.quiet(t, when) })
	l.seen.unlost(t)
	if l.seen.count("tunnel") == 0 || l.seen.count("arp") == 0 || l.seen.count("neighbour discovery") == 0 {
		t.Errorf("the capture saw no packet of some kind: %v", l.seen.allowed)
	}
}

// Without it each program that [TestLeaks] has is seen past the tunnel: that test can fail by each of them.
func TestLeaksWithoutKillSwitch(t *testing.T) {
	t.Parallel()
	l := newLeaking(t, false)
	l.inject()
	l.linger()
	l.passes() // what is bound to no device goes by the tunnel still
	l.dies()
	l.shell("", "ip", "link", "set", "wlan", "up")
	l.shell("", "ip", "route", "add", behind4+"/32", "via", "10.99.0.2", "dev", "wlan", "metric", "5")
	l.linger()
	l.await("everything leaks", func() bool {
		for _, what := range []string{"udp 10.98.0.1", behind4 + ":9\n", "[" + behind6 + "]:9\n", behind4 + ":10\n", "[" + behind6 + "]:10\n", "wlan: udp 10.99.0.1",
			behind4 + ":12\n", "[" + behind6 + "]:12\n", behind4 + ":13\n", "icmp type 8 10.98.0.1 > " + behind4, "icmp6 type 128 2001:db8::1 > " + behind6,
			"10.8.0.1:53\n", "10.98.0.2:53\n", "[2001:db8::2]:53\n", "10.98.0.2:51820\n", "[2001:db8::2]:51820\n", "10.98.0.2:443\n",
			"224.0.0.251:5353\n", "[ff02::fb]:5353\n", "10.98.0.255:15\n", "172.31.0.2 > " + behind4 + ":16\n", "172.31.0.2 > " + behind4 + ":17\n",
			"icmp type 8 172.31.0.2 > ", "tcp 10.98.0.1 > " + behind4 + ":7\n", "tcp answer 10.98.0.1 > ", "tcp answer 2001:db8::1 > ",
			"icmp type 0 10.98.0.1 > ", "icmp type 3 10.98.0.1 > "} {
			if !l.seen.leaked(what) {
				l.failing = func() string { return fmt.Sprintf("no %q among\n%s", what, l.seen.report()) }
				return false
			}
		}
		return true
	})
}
