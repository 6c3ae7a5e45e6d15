package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// resolvConf gives the site a resolv.conf of its own, and returns its path.
func (s *site) resolvConf(text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, "resolv.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.host.Shell("mount", "--bind", path, "/etc/resolv.conf")
	return path
}

// What a server pushes of name servers and full tunnels is set up as if the client's file said it: as part of the plan, changed and taken
// back with the server's mind, with the tunnel, and after a crash.
func TestPushedToTheMachine(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "nft")
	j := newJoined(t)
	const away, own = "203.0.113.80", "nameserver 192.0.2.53\n"
	j.server.host.AddAddr("lo", away+"/32")
	j.alice.host.AddRoute("0.0.0.0/0", "192.0.2.1", "")
	resolv := j.alice.resolvConf(own)
	before := j.alice.surroundings()
	push := func(more string) {
		j.server.write(`    listen: 2000
    addresses: [10.20.0.1/24, "fd20::1/64"]
    server:
      endpoints: ["192.0.2.1:2000"]
      push: {routes: [10.30.0.0/16]` + more + `}
`)
	}
	push(", full_tunnel: true, dns: {servers: [10.20.0.1], search: [corp.example]}")
	j.server.must("up", j.server.file)
	if out, code := j.alice.join(j.invite("alice")); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	file := filepath.Join(j.alice.dir, "vpn0.yaml")
	by := func(device, to string) {
		t.Helper()
		j.alice.eventually(to+" by "+device, " dev "+device+" ", "ip", "route", "get", to)
	}
	resolves := func(want string) {
		t.Helper()
		lab.Eventually(t, patience, "resolv.conf says "+want, func() bool { return strings.Contains(read(t, resolv), want) })
	}
	asBefore := func(what string) {
		t.Helper()
		j.alice.same(before)
		if text := read(t, resolv); text != own {
			t.Errorf("%s: resolv.conf says\n%s", what, text)
		}
	}
	by("vpn0", away)
	resolves("nameserver 10.20.0.1\n")
	resolves("search corp.example")
	j.alice.reaches(away)
	lab.Eventually(t, patience, "status shows a network without drift", func() bool { // what is in force is looked at again before it does
		out := j.alice.must("status")
		return strings.Contains(out, "network: vpn0") && !strings.Contains(out, "drift")
	})

	// A reload of the client's file changes nothing of it, and what the file says goes before.
	j.alice.must("reload", "vpn0")
	by("vpn0", away)
	text := read(t, file)
	rewrite := func(more string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Replace(text, "    peers:", more+"    peers:", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		j.alice.must("reload", "vpn0")
	}
	rewrite("    except: [203.0.113.0/24]\n    dns: {servers: [10.20.0.9]}\n")
	by("vpn0", "198.51.100.77")
	if out := j.alice.host.Shell("ip", "route", "get", away); strings.Contains(out, "vpn0") {
		t.Errorf("excepted: %s", out)
	}
	resolves("nameserver 10.20.0.9\n")
	rewrite("    full_tunnel: false\n")
	if out := j.alice.host.Shell("ip", "route", "get", away); strings.Contains(out, "vpn0") {
		t.Errorf("full_tunnel: false: %s", out)
	}
	rewrite("")
	by("vpn0", away)
	resolves("nameserver 10.20.0.1\n")

	// Killed, and up again; then down.
	pid := j.alice.pid()
	j.alice.kill(pid, syscall.SIGKILL)
	j.alice.ended(pid)
	j.alice.must("up", file)
	by("vpn0", away)
	resolves("nameserver 10.20.0.1\n")
	j.alice.reaches(away)
	j.alice.must("down", "vpn0")
	asBefore("down")

	// The server changes its mind, both ways.
	j.alice.must("up", file)
	by("vpn0", away)
	push("")
	j.server.must("reload", "site")
	j.alice.eventually("no full tunnel", " via 192.0.2.1 ", "ip", "route", "get", away)
	resolves(own)
	by("vpn0", "10.30.0.1")
	push(", full_tunnel: true, dns: {servers: [10.20.0.1]}")
	j.server.must("reload", "site")
	by("vpn0", away)
	resolves("nameserver 10.20.0.1\n")

	// Not accepted.
	text = strings.Replace(text, "pull: true", "pull: true\n        accept: {full_tunnel: false, dns: false}", 1)
	rewrite("")
	j.alice.eventually("no full tunnel", " via 192.0.2.1 ", "ip", "route", "get", away)
	resolves(own)
	j.alice.must("down", "vpn0")
	asBefore("down at last")
}
