package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"culvert/crypto"
	"culvert/internal/lab"
	"culvert/tunnel"
	"culvert/tunnel/access"
)

// What a machine does to a running daemon: each time traffic stops, is counted or is not missed, and comes back by itself.
func TestFaultsOfTheMachine(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	pid := a.pid()
	descriptors := a.descriptors(pid)
	failed := func() uint64 { return a.tunnel().Drops["out: send failed"] }

	// A packet filter refuses what is sent: EPERM.
	before := failed()
	a.wall(true)
	a.silent("10.20.0.2")
	if failed() == before {
		t.Error("a filter: nothing counted")
	}
	a.wall(false)
	a.reaches("10.20.0.2")

	// The underlay goes down, its address goes, it is deleted and comes anew: ENETUNREACH, ENETDOWN, EADDRNOTAVAIL, ENODEV.
	before = failed()
	a.host.Down("eth0")
	a.silent("10.20.0.2")
	if failed() == before {
		t.Error("the underlay down: nothing counted")
	}
	a.host.Up("eth0")
	a.reaches("10.20.0.2")
	a.host.DeleteLink("eth0")
	a.silent("10.20.0.2")
	lab.Link(t, a.host, b.host, lab.Names("eth0", "eth0"), lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	a.reaches("10.20.0.2")

	// Nobody listens at the far end's port, which says so: ECONNREFUSED.
	b.must("down", "site")
	a.silent("10.20.0.2")
	b.must("up", b.file)
	a.reaches("10.20.0.2")

	// More changes of the network than the daemon hears of: it is stopped meanwhile, as by a machine under load.
	a.kill(pid, syscall.SIGSTOP)
	var changes strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&changes, "route add 198.51.%d.%d/32 dev lo\n", i>>8, i&255)
	}
	changes.WriteString("link set wg0 down\nlink set wg0 mtu 1300\nlink set wg0 up\n")
	list := filepath.Join(a.dir, "changes")
	if err := os.WriteFile(list, []byte(changes.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	a.host.Shell("ip", "-batch", list)
	a.kill(pid, syscall.SIGCONT)
	lab.Eventually(t, patience, "the MTU that was set meanwhile", func() bool { return a.tunnel().MTU == 1300 })
	a.eventually("the address that went with the link", "10.20.0.1", "ip", "-br", "address", "show", "wg0")
	a.reaches("10.20.0.2")

	// No descriptor is left: packets go on, a reload fails as a whole, and commands are answered once there are some.
	prlimit := lab.NeedProgram(t, "prlimit")
	a.host.Shell(prlimit, "--pid", fmt.Sprint(pid), fmt.Sprintf("--nofile=%d:4096", a.descriptors(pid)))
	good := read(t, a.file)
	if err := os.WriteFile(a.file, []byte(good+"  wg1: {private_key_file: key, listen: 3000}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.kill(pid, syscall.SIGHUP)
	log := filepath.Join(a.run, "run/culvert/site.log")
	lab.Eventually(t, patience, "an error in the log", func() bool { return strings.Contains(read(t, log), "cannot reload") })
	if text := read(t, log); !strings.Contains(text, "too many open files") || strings.Contains(text, "panic") {
		t.Errorf("the log:\n%s", text)
	}
	a.reaches("10.20.0.2")
	answer := a.command("status")
	if err := a.host.Start(answer); err != nil {
		t.Fatal(err)
	}
	a.host.Shell(prlimit, "--pid", fmt.Sprint(pid), "--nofile=1024:4096")
	if err := answer.Wait(); err != nil {
		t.Errorf("status, asked while there was no descriptor: %v", err)
	}
	if err := os.WriteFile(a.file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	a.must("reload", "site")

	if n := a.descriptors(pid); a.pid() != pid || n > descriptors+2 {
		t.Errorf("process %d has become %d, with %d descriptors instead of %d", pid, a.pid(), n, descriptors)
	}
	if tun := a.tunnel(); len(tun.Peers) != 1 {
		t.Errorf("in the end: %+v", tun)
	}
	a.must("down", "site")
	b.must("down", "site")
}

// silent pings once, which gets no answer.
func (s *site) silent(to string) {
	s.t.Helper()
	cmd := s.host.Command(s.t.Context(), "ping", "-c", "2", "-i", "0.3", "-W", "1", to)
	if err := s.host.Run(cmd); err == nil {
		s.t.Errorf("a ping to %s is answered", to)
	}
}

// descriptors counts a process's open files.
func (s *site) descriptors(pid int) int {
	s.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(list)
}

// A server whose disk is full serves who is there; what it cannot keep it does not do, and says so. With room again all is as ever.
func TestServerOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := lab.SmallDisk(t, 256<<10)
	j := newJoined(t)
	state := filepath.Join(disk, "state")
	j.server.env = []string{stateDirEnv + "=" + state}
	j.server.must("up", j.server.file)
	if out, code := j.alice.join(j.invite("alice")); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	j.alice.reaches("10.20.0.1")
	link := j.invite("bob")
	audit := filepath.Join(state, ".server", "site.audit.jsonl")
	lines := strings.Count(read(t, audit), "\n")

	free := lab.FillUp(t, disk)
	var out string
	code := 0
	for i := range 200 { // until the pages that the store has in hand are used up
		if out, code = j.server.culvert("invite", fmt.Sprint("guest", i)); code != 0 {
			break
		}
	}
	if code != 1 || !strings.Contains(out, "no space left on device") || strings.Count(out, "\n") > 3 {
		t.Errorf("invite on a full disk: %d\n%s", code, out)
	}
	// Whoever joins now is in for good where the store has a page left, and not at all where it has none.
	out, code = j.bob.join(link)
	joined := code == 0
	if list := j.clients(); joined != (len(list.Clients) == 2) || code > 1 || strings.Count(out, "\n") > 3 {
		t.Errorf("join on a full disk: %d, %s\n%+v", code, out, list)
	}
	j.alice.reaches("10.20.0.1")
	j.server.must("reload", "site")
	if log := read(t, filepath.Join(j.server.run, "run/culvert/site.log")); strings.Contains(log, "panic") {
		t.Errorf("the log:\n%s", log)
	}

	free()
	if !joined {
		if out, code := j.bob.join(link); code != 0 {
			t.Errorf("with room again: %d\n%s", code, out)
		}
	}
	j.invite("carol")
	j.bob.reaches("10.20.0.1")
	whole := 0
	for line := range strings.Lines(read(t, audit)) {
		if strings.HasPrefix(line, "{") && strings.HasSuffix(line, "}\n") {
			whole++
		}
	}
	if whole <= lines {
		t.Errorf("%d whole lines in the audit log, %d before:\n%s", whole, lines, read(t, audit))
	}
	j.server.must("down", "site")
	j.server.must("up", j.server.file)
	if list := j.clients(); len(list.Clients) != 2 {
		t.Errorf("started again: %+v", list)
	}
	for _, s := range []*site{j.server, j.alice, j.bob} {
		s.culvert("down", map[bool]string{true: "site", false: "vpn0"}[s == j.server])
	}
}

// What has no room for its socket, its log or its journal does not start, with one error and nothing left behind.
func TestUpOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := lab.SmallDisk(t, 64<<10)
	a, _ := newSites(t)
	before := a.surroundings()
	a.env = []string{runDirEnv + "=" + filepath.Join(disk, "run"), stateDirEnv + "=" + filepath.Join(disk, "state")}
	if err := os.WriteFile(a.file, []byte(read(t, a.file)+"links:\n  br0: {type: bridge}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	free := lab.FillUp(t, disk)
	out, code := a.culvert("up", a.file)
	if code != 1 || !strings.Contains(out, "no space left on device") || strings.Count(strings.TrimSpace(out), "\n") > 2 {
		t.Errorf("up on a full disk: %d\n%s", code, out)
	}
	t.Log(out)
	a.same(before)
	free()
	a.must("up", a.file)
	a.must("down", "site")
	a.same(before)
}

// A bridge that is deleted under its tunnel is told of, the tunnel goes on, and a reload makes it anew.
func TestDeletedBridge(t *testing.T) {
	t.Parallel()
	a, _ := newSites(t)
	text := strings.Replace(read(t, a.file), "wg0:\n", "wg0:\n    mode: tap\n", 1)
	text = strings.NewReplacer(", allowed_ips: [10.20.0.2/32, \"fd20::2/128\"]", "").Replace(text)
	if err := os.WriteFile(a.file, []byte(text+"links:\n  br0: {type: bridge, ports: [wg0]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.env = []string{stateDirEnv + "=" + a.state()}
	a.must("up", a.file)
	pid := a.pid()
	a.host.Shell("ip", "link", "del", "br0")
	lab.Eventually(t, patience, "drift", func() bool { return strings.Contains(a.must("status"), "drift: br0: gone") })
	if a.pid() != pid {
		t.Error("the daemon is another")
	}
	a.must("reload", "site")
	if out := a.host.Shell("ip", "-br", "link", "show", "master", "br0"); !strings.Contains(out, "wg0") {
		t.Errorf("ports after the reload: %s", out)
	}
	lab.Eventually(t, patience, "no drift", func() bool { return !strings.Contains(a.must("status"), "drift: ") })
	a.must("down", "site")
}

// On a full disk the last whole file of what is used of quotas stays, and the log loses lines and nothing else.
func TestUsageOnAFullDisk(t *testing.T) {
	disk := lab.SmallDisk(t, 32<<10)
	path := filepath.Join(disk, ".usage", "site.json")
	said := ""
	s := openUsage(path, func(format string, args ...any) { said += fmt.Sprintf(format, args...) })
	used := func(bytes uint64) tunnel.Status {
		return tunnel.Status{Peers: []tunnel.PeerStatus{{PublicKey: crypto.PublicKey{1}, Access: &access.Status{Quota: 1 << 40, Used: access.Usage{Bytes: bytes}}}}}
	}
	s.note("wg0", used(1))
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	before := read(t, path)
	f, err := os.OpenFile(logPath(disk, "site"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log := newLog(&logFile{f: f}, slog.LevelInfo)
	log.Info("before")
	free := lab.FillUp(t, disk)
	for range 200 {
		log.Info("it is full, which fills the last page")
	}
	s.note("wg0", used(2))
	if err := s.save(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("saved on a full disk: %v", err)
	}
	if now := read(t, path); now != before {
		t.Errorf("the file has become %q", now)
	}
	if list, _ := filepath.Glob(filepath.Join(disk, ".usage", ".new-*")); len(list) != 0 {
		t.Errorf("left: %q", list)
	}
	free()
	log.Info("room again")
	if text := read(t, f.Name()); !strings.Contains(text, "before") || !strings.Contains(text, `msg="room again"`) {
		t.Errorf("the log is\n%s", text)
	}
	if err := s.save(); err != nil {
		t.Error(err)
	}
	if again := openUsage(path, t.Logf); again.used["wg0"][crypto.PublicKey{1}].Bytes != 2 || said != "" {
		t.Errorf("kept: %+v, said %q", again.used, said)
	}
}
