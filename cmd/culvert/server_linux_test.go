package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/control"
	"culvert/internal/lab"
)

// membership is a server and two hosts that may become its clients.
type membership struct {
	t          *testing.T
	server     *site
	alice, bob *site
}

// state is where the site's instances keep what outlives them.
func (s *site) state() string { return filepath.Join(s.dir, "state") }

func newJoined(t *testing.T) *membership {
	t.Helper()
	j := &membership{t: t, server: newSite(t, "srv"), alice: newSite(t, "ali"), bob: newSite(t, "bob")}
	lab.Link(t, j.server.host, j.alice.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	lab.Link(t, j.server.host, j.bob.host, lab.Addresses("198.51.100.1/24", "198.51.100.2/24"))
	for _, s := range []*site{j.server, j.alice, j.bob} {
		s.env = []string{stateDirEnv + "=" + s.state()}
	}
	j.bob.host.AddRoute("192.0.2.0/24", "198.51.100.1", "")
	j.configure("")
	return j
}

func (j *membership) configure(more string) {
	j.server.write(`    listen: 2000
    addresses: [10.20.0.1/24, "fd20::1/64", 10.30.0.1/32, 10.31.0.1/32]
    server:
      endpoints: ["192.0.2.1:2000"]
      push: {routes: [10.30.0.0/16], mtu: 1300}
      groups:
        staff: {routes: [10.30.0.0/16, 10.31.0.0/16]}
` + more)
}

// invite returns the link.
func (j *membership) invite(args ...string) string {
	j.t.Helper()
	out := j.server.must(append([]string{"invite"}, args...)...)
	link, _, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(link, "culvert://192.0.2.1:2000/#") {
		j.t.Fatalf("invite printed %q", out)
	}
	return link
}

// join runs the command with a link on its input.
func (s *site) join(link string, args ...string) (out string, code int) {
	s.t.Helper()
	cmd := s.command(append([]string{"join", "-", "--name", "vpn0", "--dir", s.dir}, args...)...)
	cmd.Stdin = strings.NewReader(link + "\n")
	return s.finish(cmd)
}

func (j *membership) clients() (list struct {
	Clients     []control.ServerClient
	Invitations []control.Invited
}) {
	j.t.Helper()
	if err := json.Unmarshal([]byte(j.server.must("client", "list", "--json")), &list); err != nil {
		j.t.Fatal(err)
	}
	return list
}

func (s *site) eventually(what, want, command string, args ...string) {
	s.t.Helper()
	lab.Eventually(s.t, patience, what, func() bool { return strings.Contains(s.host.Shell(command, args...), want) })
}

// The whole way: by a link each two clients join, are told what to set up, and stay with it over a restart; a used link is good for
// nothing; who is revoked is out.
func TestServerAndClients(t *testing.T) {
	t.Parallel()
	j := newJoined(t)
	j.server.must("up", j.server.file)
	link := j.invite("alice", "--group", "staff")
	if l := j.clients(); len(l.Clients) != 0 || len(l.Invitations) != 1 || l.Invitations[0].Name != "alice" {
		t.Errorf("invited: %+v", l)
	}
	before := j.alice.surroundings()

	// A mistyped link is refused before anything is done.
	wrong := link[:len(link)-8] + "AAAAAAAA"
	if out, code := j.alice.join(wrong); code != 1 || !strings.Contains(out, "mistyped") || strings.Contains(out, link[len(link)-40:]) {
		t.Errorf("a mistyped link: %d, %s", code, out)
	}
	if out, code := j.alice.join(link); code != 0 {
		t.Fatalf("join: %d\n%s\nserver:\n%s", code, out, read(t, filepath.Join(j.server.run, "run/culvert/site.log")))
	}
	if st, err := os.Stat(filepath.Join(j.alice.dir, "vpn0.key")); err != nil || st.Mode() != 0o600 {
		t.Errorf("the client's key: %v, %v", st, err)
	}
	j.alice.eventually("addresses", "10.20.0.2/24", "ip", "-br", "address", "show", "vpn0")
	j.alice.eventually("IPv6 addresses", "fd20::2/64", "ip", "-br", "address", "show", "vpn0")
	j.alice.eventually("routes", "10.31.0.0/16 dev vpn0", "ip", "route")
	j.alice.eventually("the MTU", "mtu 1300", "ip", "link", "show", "vpn0")
	j.alice.reaches("10.20.0.1")
	j.alice.reaches("10.31.0.1")
	j.alice.reaches("fd20::1")
	if err := j.server.host.Ping(netip.MustParseAddr("10.20.0.2")); err != nil {
		t.Error(err)
	}

	// The link again, elsewhere: first it is told so, and nothing is left behind.
	if out, code := j.bob.join(link, "--no-up"); code != 1 || !strings.Contains(out, "used up") {
		t.Errorf("a used link: %d, %s", code, out)
	}
	for _, name := range []string{"vpn0.key", "vpn0.yaml"} {
		if _, err := os.Stat(filepath.Join(j.bob.dir, name)); err == nil {
			t.Errorf("a refused join has left %s", name)
		}
	}
	if out, code := j.bob.join(j.invite("bob")); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	j.bob.reaches("10.30.0.1")
	if out := j.bob.host.Shell("ip", "route"); strings.Contains(out, "10.31.0.0/16") {
		t.Errorf("bob is not staff, and has\n%s", out)
	}
	if l := j.clients(); len(l.Clients) != 2 || len(l.Invitations) != 0 || l.Clients[0].Name != "alice" || l.Clients[0].Group != "staff" ||
		l.Clients[0].Endpoint == "" || l.Clients[0].JoinedFrom == "" {
		t.Errorf("joined: %+v", l)
	}

	// What changes is pushed at once.
	j.configure("      clients: {bob: {routes: [10.31.0.0/16]}}\n")
	j.server.must("reload", "site")
	j.bob.eventually("the changed routes", "10.31.0.0/16 dev vpn0", "ip", "route")
	j.bob.reaches("10.31.0.1")
	if out := j.bob.host.Shell("ip", "route"); strings.Contains(out, "10.30.0.0/16") {
		t.Errorf("bob has still\n%s", out)
	}

	// A restart of the server, and then of a client: everybody has what it had.
	j.server.must("down", "site")
	j.server.must("up", j.server.file)
	j.alice.reaches("10.31.0.1")
	j.bob.reaches("10.31.0.1")
	j.bob.must("down", "vpn0")
	j.bob.must("up", filepath.Join(j.bob.dir, "vpn0.yaml"))
	j.bob.reaches("10.31.0.1")
	if l := j.clients(); l.Clients[0].Addresses[0] != netip.MustParseAddr("10.20.0.2") || l.Clients[1].Addresses[0] != netip.MustParseAddr("10.20.0.3") {
		t.Errorf("after restarts: %+v", l)
	}

	// Revoked, at once; the addresses stay with the name.
	j.server.must("client", "revoke", "alice")
	if err := j.server.host.Ping(netip.MustParseAddr("10.20.0.2")); err == nil {
		t.Error("a revoked client is reached")
	}
	if err := j.alice.host.Ping(netip.MustParseAddr("10.20.0.1")); err == nil {
		t.Error("a revoked client reaches the server")
	}
	if err := j.bob.host.Ping(netip.MustParseAddr("10.31.0.1")); err != nil {
		t.Errorf("the other client: %v", err)
	}
	j.server.refused(1, "no such client", "client", "revoke", "alice")
	j.alice.must("down", "vpn0")
	j.alice.same(before)
	for _, name := range []string{"vpn0.key", "vpn0.yaml"} {
		if err := os.Remove(filepath.Join(j.alice.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := j.alice.join(j.invite("alice")); code != 0 {
		t.Fatalf("joining again: %d\n%s", code, out)
	}
	j.alice.eventually("the addresses from before", "10.20.0.2/24", "ip", "-br", "address", "show", "vpn0")

	// A client for an app that speaks WireGuard, which is another culvert here.
	conf := j.server.must("client", "add", "phone", "--wireguard")
	for _, want := range []string{"Address = 10.20.0.4/24, fd20::4/64\n", "Endpoint = 192.0.2.1:2000\n", "AllowedIPs = 10.20.0.0/24, fd20::/64, 10.30.0.0/16\n", "MTU = 1300\n"} {
		if !strings.Contains(conf, want) {
			t.Errorf("the file for an app lacks %q:\n%s", want, conf)
		}
	}
	j.alice.must("down", "vpn0")
	path := filepath.Join(j.alice.dir, "phone.conf")
	if err := os.WriteFile(path, []byte(conf[strings.Index(conf, "[Interface]"):]), 0o600); err != nil {
		t.Fatal(err)
	}
	j.alice.must("up", path)
	j.alice.reaches("10.30.0.1")

	// Nothing of the links is anywhere.
	secret := link[strings.Index(link, "#")+1:]
	state := j.server.state()
	for _, path := range []string{filepath.Join(j.server.run, "run/culvert/site.log"), filepath.Join(state, ".server/site.audit.jsonl"), filepath.Join(state, ".server/site.db")} {
		if strings.Contains(read(t, path), secret[20:60]) {
			t.Errorf("%s holds the link", path)
		}
	}
	audit := read(t, filepath.Join(state, ".server/site.audit.jsonl"))
	for _, want := range []string{`"event":"invited"`, `"event":"joined","tunnel":"wg0","client":"alice"`, `"event":"refused"`, `"event":"connected"`, `"event":"revoked"`, `"event":"added"`} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit log lacks %s:\n%s", want, audit)
		}
	}
}
