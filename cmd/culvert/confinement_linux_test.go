package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/config"
	"culvert/control"
	"culvert/internal/lab"
)

// confinedSite is a site whose daemon takes files from itself: a program built as it is released, without cgo.
type confinedSite struct {
	*site
	program string
}

func (s *confinedSite) must(args ...string) string {
	s.t.Helper()
	cmd := s.command(args...)
	cmd.Path = s.program
	out, code := s.finish(cmd)
	if code != 0 {
		s.t.Fatalf("culvert %v ended with %d:\n%s", args, code, out)
	}
	return out
}

// write puts "confine: files" before the file.
func (s *confinedSite) write(body string) {
	s.t.Helper()
	s.site.write(body)
	text := read(s.t, s.file)
	if err := os.WriteFile(s.file, []byte(strings.Replace(text, "tunnels:", "confine: files\ntunnels:", 1)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// threads checks what the kernel says of every thread of a process.
func (s *confinedSite) threads(pid int) {
	s.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		s.t.Fatalf("no threads: %v", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(text), want) {
				s.t.Errorf("%s lacks %q", task, want)
			}
		}
	}
}

func (s *confinedSite) isConfined() {
	s.t.Helper()
	all := s.status()
	if len(all) != 1 || all[0].Confinement == nil {
		s.t.Fatalf("status: %+v", all)
	}
	c := *all[0].Confinement
	if strings.Contains(c.Files, "the kernel has no Landlock") {
		lab.Skip(s.t, c.Files)
	}
	if c != (control.Confinement{Files: inForce, Calls: inForce}) {
		s.t.Fatalf("confinement: %+v", c)
	}
	s.threads(all[0].PID)
}

// A daemon that has given up files and system calls carries packets, reads its file again and takes everything away; what is outside its
// folders root itself cannot have it open.
func TestConfinedDaemon(t *testing.T) {
	first, b := newSites(t)
	a := &confinedSite{first, lab.Build(t, "culvert/cmd/culvert")}
	a.write(bodyA(b, ""))
	before := a.surroundings()
	a.must("up", a.file)
	b.must("up", b.file)
	a.isConfined()
	a.reaches("10.20.0.2")
	if out := a.must("status"); !strings.Contains(out, "confinement: files confined, system calls confined\n") {
		t.Errorf("status:\n%s", out)
	}

	good := read(t, a.file)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "key"), []byte(read(t, filepath.Join(a.dir, "key"))), 0o600); err != nil {
		t.Fatal(err)
	}
	change := func(old, text string) {
		t.Helper()
		if err := os.WriteFile(a.file, []byte(strings.Replace(good, old, text, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/etc/shadow", filepath.Join(outside, "key")} {
		change("private_key_file: key", "private_key_file: "+path)
		a.refused(exitConfig, "the key file "+path+" may not be read by this user", "reload", "site")
		a.refused(exitConfig, "no files but in the folders", "reload", "site")
	}
	for what, to := range map[string][2]string{
		"name servers of wg0":    {"    listen: 1000\n", "    listen: 1000\n    dns: {servers: [10.20.0.2]}\n"},
		"commands of wg0":        {"    listen: 1000\n", "    listen: 1000\n    hooks: {post_down: [\"true\"]}\n"},
		"network namespace blue": {"tunnels:\n", "netns: [blue]\ntunnels:\n"},
	} {
		change(to[0], to[1])
		a.refused(exitFailure, what+": the daemon has given up the files for that", "reload", "site")
		a.refused(exitFailure, "culvert down site, then culvert up", "reload", "site")
	}

	change("    peers:\n", "    peers:\n      c: {public_key: \""+testPeer+"\", allowed_ips: [10.40.0.0/16]}\n")
	a.site.must("reload", "site")
	if err := a.host.Ping(netip.MustParseAddr("10.20.0.2")); err != nil {
		t.Error(err)
	}
	if n := len(a.tunnel().Peers); n != 2 {
		t.Errorf("%d peers after the reload", n)
	}
	a.isConfined()
	a.must("down", "site")
	a.same(before)

	// One that wg configures has nothing to ask of files at all.
	a.must("wg", "wgc0")
	a.isConfined()
	a.site.must("down", "wgc0")
	a.same(before)
}

// A daemon that has given up files makes, mends, changes and takes away the network around its tunnels all the same: bridges, veths,
// routes, rules, NAT, sysctls, a server's forwarding. What has files of the machine's opened, a reload is refused.
func TestConfinedNetwork(t *testing.T) {
	s := newSite(t, "net")
	a := &confinedSite{s, lab.Build(t, "culvert/cmd/culvert")}
	const around = `links:
  br0: {type: bridge, addresses: [10.79.0.1/24]}
  v7: {type: veth, mtu: 1400, addresses: [10.79.7.1/24], peer: {name: v8}}
rules:
  - {from: 10.79.0.0/24, table: 100, priority: 1000}
routes:
  - {to: 10.80.0.0/16, gateway: 10.79.0.9, link: br0, table: 100}
nat:
  - {out: br0, sources: [10.20.0.0/24]}
sysctl:
  - {name: net.ipv4.conf.br0.forwarding, value: 1}
`
	a.write("    listen: 1000\n    addresses: [10.20.0.1/24]\n    kill_switch: true\n    server: {forward: true, nat: true}\n")
	text := read(t, a.file)
	write := func(around string) {
		t.Helper()
		if err := os.WriteFile(a.file, []byte(text+around), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := a.surroundings()
	write(around)
	a.must("up", a.file)
	a.isConfined()
	plan := func(want string) {
		t.Helper()
		if out := a.must("reload", "--dry-run", "site"); out != want {
			t.Errorf("a dry run says:\n%s\nwant:\n%s", out, want)
		}
	}
	const nothing = "nothing to do: site runs as its file says\n"
	plan(nothing)
	a.host.Shell("ip", "link", "del", "br0") // with its route and sysctl
	a.must("reload", "site")
	plan(nothing)
	write(strings.NewReplacer("mtu: 1400", "mtu: 1300", "10.79.0.1/24", "10.79.0.2/24", "table: 100", "table: 101", "value: 1", "value: 0").Replace(around) +
		"  - {name: net.ipv4.ip_forward, value: 1}\n")
	a.must("reload", "site")
	plan(nothing)
	if out := a.host.Shell("ip", "-d", "link", "show", "v7"); !strings.Contains(out, "mtu 1300") {
		t.Errorf("v7 is:\n%s", out)
	}
	for what, more := range map[string]string{"network namespace blue": "netns: {blue: {}}\n"} {
		write(around + more)
		a.refused(exitFailure, what+": the daemon has given up the files for that", "reload", "site")
	}
	write("") // the server's forwarding stays
	a.must("reload", "site")
	plan(nothing)
	a.isConfined()
	a.must("down", "site")
	a.same(before)

	// Without any at its start, and some by a reload.
	a.write("    listen: 1000\n")
	text = read(t, a.file)
	a.must("up", a.file)
	a.isConfined()
	write(around)
	a.must("reload", "site")
	plan(nothing)
	a.must("down", "site")
	a.same(before)
}

// By itself root's daemon gives up system calls alone, and with commands of the user's nothing; the status says so.
func TestConfinementByItself(t *testing.T) {
	s := newSite(t, "byitself")
	says := func(text, files, calls string) {
		t.Helper()
		if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.must("up", s.file)
		c := s.status()[0].Confinement
		if c == nil || !strings.HasPrefix(c.Files, files) || c.Calls != calls {
			t.Errorf("confinement: %+v\n%s", c, text)
		}
		s.must("down", "site")
	}
	const tunnel = "version: 1\ntunnels:\n  wg0:\n    private_key_file: key\n"
	says(tunnel, "open: the process has CAP_SYS_ADMIN", inForce)
	says(tunnel+"    hooks: {post_up: [\"true\"]}\n", "open: commands of wg0", "open: commands of wg0")
	says("confine: false\n"+tunnel, "open: the file says confine: false", "open: the file says confine: false")

	// A command that comes by a reload is told what it cannot do.
	if err := os.WriteFile(s.file, []byte(tunnel), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must("up", s.file)
	s.write("    hooks: {post_down: [\"true\"]}\n")
	if out := s.must("reload", "site"); !strings.Contains(out, "commands of wg0: they cannot use what the daemon has given up") {
		t.Errorf("reload said:\n%s", out)
	}
	s.must("down", "site")
}

// Each thing that needs the machine's files, or programs, is known of.
func TestNeedsFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		lab.Skip(t, "name servers are told of by files as root alone")
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("cCAsyPDD9vdBQpWtFbFOYKrwZTNDUBFsJ6A1NuHCc1U=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const tunnel = "tunnels:\n  wg0:\n    private_key_file: key\n"
	for _, c := range []struct{ text, files, commands string }{
		{tunnel, "", ""},
		{tunnel + "    dns: {servers: [10.0.0.1]}\n", "name servers of wg0", ""},
		{tunnel + "    hooks: {pre_up: [\"true\"]}\n", "commands of wg0", "commands of wg0"},
		{"on: [{events: [peer], run: [/bin/true]}]\n" + tunnel, "programs at events", "programs at events"},
		{"netns: [blue]\n" + tunnel, "network namespace blue", ""},
		{"links:\n  br0: {type: bridge}\n" + tunnel, "", ""},
		{"links:\n  t0: {type: team, runner: roundrobin}\n" + tunnel, "team t0", ""},
	} {
		path := filepath.Join(dir, "site.yaml")
		if err := os.WriteFile(path, []byte("version: 1\n"+c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := config.Load(path)
		if err != nil {
			t.Errorf("%v\n%s", err, c.text)
			continue
		}
		if files, commands := needsFiles(file), commandsOf(file); files != c.files || commands != c.commands {
			t.Errorf("files %q, commands %q\n%s", files, commands, c.text)
		}
	}
}
