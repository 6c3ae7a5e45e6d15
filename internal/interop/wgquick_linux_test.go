package interop

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// quick is one end of a tunnel that Debian's wg-quick brings up and down, with culvert as its userspace implementation.
type quick struct {
	*side
	programs string // a folder with culvert-wg
	file     string
}

func newQuick(t *testing.T, host *lab.Host) *quick {
	t.Helper()
	lab.NeedProgram(t, "wg-quick")
	if exists(t, "/sys/module/wireguard") {
		lab.Skip(t, "needs a kernel without WireGuard, which wg-quick prefers")
	}
	q := &quick{side: prepareSide(t, culvert, host, portA), programs: t.TempDir()}
	q.file = filepath.Join(t.TempDir(), q.device+".conf")
	if err := os.Symlink(program(t, "culvert", "culvert/cmd/culvert"), filepath.Join(q.programs, "culvert-wg")); err != nil {
		t.Fatal(err)
	}
	hideKernelWireGuard(t, q.programs)
	return q
}

// hideKernelWireGuard keeps wg-quick from loading the kernel's module, where there is one, by an ip in front of the real one.
func hideKernelWireGuard(t *testing.T, folder string) {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join("/lib/modules", strings.TrimSpace(string(release)), "kernel/drivers/net/wireguard")
	if !exists(t, modules) {
		return
	}
	script := fmt.Sprintf(`#!/bin/sh
case "$*" in "link add "*" type wireguard") echo "Error: Unknown device type." >&2; exit 2 ;; esac
exec %s "$@"
`, lab.NeedProgram(t, "ip"))
	lab.WriteProgram(t, filepath.Join(folder, "ip"), []byte(script), 0o755)
}

// write writes the configuration file.
func (q *quick) write(address, extra string) {
	q.t.Helper()
	text := strings.Replace(strings.Replace(q.config(), "FwMark = 0\n", "", 1), "[Interface]\n", "[Interface]\nAddress = "+address+"\n"+extra, 1)
	if err := os.WriteFile(q.file, []byte(text), 0o600); err != nil {
		q.t.Fatal(err)
	}
}

// run runs wg-quick and returns all it printed.
func (q *quick) run(verb string) (string, int) {
	q.t.Helper()
	command := q.host.Command(q.t.Context(), "wg-quick", verb, q.file)
	command.Env = append(os.Environ(), "PATH="+q.programs+":/usr/local/sbin:/usr/sbin:/sbin:"+os.Getenv("PATH"),
		"WG_QUICK_USERSPACE_IMPLEMENTATION=culvert-wg")
	return output(q.t, q.host, command)
}

// must runs wg-quick and fails the test where it fails.
func (q *quick) mustRun(verb string) string {
	q.t.Helper()
	out, code := q.run(verb)
	if code != 0 {
		q.t.Fatalf("wg-quick %s ended with %d:\n%s", verb, code, out)
	}
	return out
}

// surroundings is what wg-quick changes around the device.
func surroundings(t *testing.T, host *lab.Host) string {
	t.Helper()
	var all strings.Builder
	for _, command := range [][]string{
		{"ip", "rule"}, {"ip", "-6", "rule"}, {"ip", "-br", "address", "show", "scope", "global"}, {"nft", "list", "ruleset"},
		{"ip", "route", "show", "table", "all", "scope", "link"},
	} {
		out, err := host.Output(host.Command(t.Context(), command[0], command[1:]...))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s:\n%s", strings.Join(command, " "), out)
	}
	return all.String()
}

// goneAfterDown checks that nothing of the device is left.
func (q *quick) goneAfterDown(before string) {
	q.t.Helper()
	if q.host.HasLink(q.device) {
		q.t.Errorf("the device is still there")
	}
	lab.Eventually(q.t, patience, "the sockets and the daemon are gone", func() bool {
		return !exists(q.t, q.socket()) && len(daemonsIn(q.t, q.host)) == 0
	})
	if after := surroundings(q.t, q.host); after != before {
		q.t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestWGQuick(t *testing.T) {
	t.Parallel()
	hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	wire := lab.Link(t, hostA, hostB)
	b := newSide(t, culvert, hostB, portB)
	q := newQuick(t, hostA)
	before := surroundings(t, hostA)
	innerB.addTo(b)
	hostB.AddAddr("lo", "10.77.0.1/32")
	b.addPeer(q.side, netip.AddrPort{}, innerA.allowed()...)
	q.peers = append(q.peers, &peer{
		publicKey: b.publicKey,
		endpoint:  netip.AddrPortFrom(ipv6.of(wire.B), portB),
		allowed:   append(innerB.allowed(), "10.77.0.0/16"),
	})
	q.write(innerA.v4.String()+"/32, "+innerA.v6.String()+"/128", "MTU = 1380\nPostUp = true\n")

	stripped := q.mustRun("strip")
	if strings.Contains(stripped, "Address") || !strings.Contains(stripped, q.privateKey) {
		t.Errorf("wg-quick strip printed\n%s", stripped)
	}
	for range 2 {
		q.mustRun("up")
		q.reaches(innerB.v4)
		q.reaches(innerB.v6)
		q.reaches(netip.MustParseAddr("10.77.0.1")) // by the route wg-quick makes
		b.pings(innerA.v4)
		if link := hostA.Shell("ip", "link", "show", q.device); !strings.Contains(link, "mtu 1380") {
			t.Errorf("the MTU was to be 1380:\n%s", link)
		}
		if out, code := q.run("up"); code == 0 || !strings.Contains(out, "already exists") {
			t.Errorf("a second wg-quick up ended with %d:\n%s", code, out)
		}
		q.mustRun("down")
		q.goneAfterDown(before)
	}

	// What was changed while it ran is in the file afterwards, and comes up from it.
	q.mustRun("up")
	_, added := newKey(t)
	q.wg("", "set", q.device, "peer", added, "allowed-ips", "10.88.0.0/16", "persistent-keepalive", "7")
	hostA.AddAddr(q.device, "10.9.0.33/32")
	q.mustRun("save")
	saved, err := os.ReadFile(q.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{added, "10.88.0.0/16", "10.9.0.33/32", q.privateKey, "MTU = 1380", "PostUp = true"} {
		if !strings.Contains(string(saved), want) {
			t.Errorf("wg-quick save wrote no %q:\n%s", want, saved)
		}
	}
	q.mustRun("down")
	q.goneAfterDown(before)
	q.mustRun("up")
	if _, ok := q.state().peers[added]; !ok {
		t.Error("the saved peer did not come up")
	}
	q.reaches(innerB.v4)
	q.mustRun("down")
	q.goneAfterDown(before)
}

// wg-quick down only deletes the device; what comes up right after it must not find the old daemon in its place.
func TestWGQuickRestart(t *testing.T) {
	t.Parallel()
	q := newQuick(t, lab.NewHost(t, "a"))
	before := surroundings(t, q.host)
	q.write(innerA.v4.String()+"/24", "")
	for range 10 {
		q.mustRun("up")
		q.mustRun("down")
	}
	q.goneAfterDown(before)
}

// AllowedIPs of everything: wg-quick marks the daemon's datagrams, and routes all others into the tunnel by policy.
func TestWGQuickDefaultRoute(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "nft")
	forFamilies(t, func(t *testing.T, outer family) {
		hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
		wire := lab.Link(t, hostA, hostB)
		hostA.AddRoute("default4", wire.B.V4.Addr().String(), "")
		hostA.AddRoute("default6", wire.B.V6.Addr().String(), "")
		// The endpoint is not on a link, so without the mark its datagrams would take the tunnel, too.
		endpoint, whole := netip.MustParseAddr("192.0.2.1"), "/32"
		if outer == ipv6 {
			endpoint, whole = netip.MustParseAddr("2001:db8:1::1"), "/128"
		}
		hostB.AddAddr("lo", endpoint.String()+whole)
		// Outside the wire's subnets, as any host of the internet.
		far := inner{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:77::1")}
		hostB.AddAddr("lo", far.v4.String()+"/32")
		hostB.AddAddr("lo", far.v6.String()+"/128")

		b := newSide(t, culvert, hostB, portB)
		innerB.addTo(b)
		q := newQuick(t, hostA)
		before := surroundings(t, hostA)
		b.addPeer(q.side, netip.AddrPort{}, innerA.allowed()...)
		q.peers = append(q.peers, &peer{
			publicKey: b.publicKey,
			endpoint:  netip.AddrPortFrom(endpoint, portB),
			allowed:   []string{"0.0.0.0/0", "::/0"},
		})
		q.write(innerA.v4.String()+"/32, "+innerA.v6.String()+"/128", "")
		q.mustRun("up")
		q.reaches(far.v4)
		q.reaches(far.v6)
		if received, _ := b.deviceCounters(); received < 2 {
			t.Errorf("only %d packets came through the tunnel; the pings went along the wire", received)
		}
		if got := b.of(q.side).endpoint; got != netip.AddrPortFrom(outer.of(wire.A), portA) {
			t.Errorf("the responder has the endpoint %v, want %v", got, netip.AddrPortFrom(outer.of(wire.A), portA))
		}
		if mark := q.state().mark; mark == "off" {
			t.Error("wg-quick's fwmark was not taken")
		}
		q.mustRun("down")
		q.goneAfterDown(before)
	})
}

// daemonsIn lists the processes in a host's namespace.
func daemonsIn(t *testing.T, host *lab.Host) (numbers []string) {
	t.Helper()
	out, err := exec.Command(lab.NeedProgram(t, "ip"), "netns", "pids", host.NetnsName()).Output()
	if err != nil {
		t.Fatal(err)
	}
	for number := range strings.FieldsSeq(string(out)) {
		// The thread that starts processes is one of this process.
		if number != fmt.Sprint(os.Getpid()) && !zombie(number) {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// zombie reports whether a process is over and only its entry is left.
func zombie(number string) bool {
	text, err := os.ReadFile("/proc/" + number + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(rest, "Z")
}
