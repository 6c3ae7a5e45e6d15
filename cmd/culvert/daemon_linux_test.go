package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/control"
	"culvert/internal/lab"
)

const patience = 60 * time.Second

// site is a host with a configuration file.
type site struct {
	t    *testing.T
	host *lab.Host
	run  string // root directory of the host's processes
	dir  string // with the file
	file string
	pub  string
	env  []string // of its commands, besides that of the test
}

// newSite makes a host whose file has the given body for the tunnel wg0; peers may be added later with write.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	lab.NeedTun(t)
	h := lab.NewHost(t, name)
	s := &site{t: t, host: h, run: h.PrivateRun(), dir: t.TempDir()}
	s.file = filepath.Join(s.dir, "site.yaml")
	s.env = []string{stateDirEnv + "=" + s.state()} // what is left in the machine's own is nobody's here
	s.resolvConf("")                                // nor is the machine's own to be written, whatever a server pushes
	key := s.must("genkey")
	if err := os.WriteFile(filepath.Join(s.dir, "key"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := s.command("pubkey")
	cmd.Stdin = strings.NewReader(key)
	out, err := h.Output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	s.pub = strings.TrimSpace(string(out))
	return s
}

func (s *site) write(body string) {
	s.t.Helper()
	text := "version: 1\ntunnels:\n  wg0:\n    private_key_file: key\n" + body
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// command is this program, to be run on the host.
func (s *site) command(args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := s.host.Command(s.t.Context(), exe, args...)
	cmd.Args[0] = "culvert"
	cmd.Dir = s.dir
	if s.env != nil {
		cmd.Env = append(cmd.Environ(), s.env...)
	}
	return cmd
}

// culvert runs this program on the host and returns what it wrote, and its exit code.
func (s *site) culvert(args ...string) (out string, code int) {
	s.t.Helper()
	return s.finish(s.command(args...))
}

func (s *site) finish(cmd *exec.Cmd) (out string, code int) {
	s.t.Helper()
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := s.host.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		e, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			s.t.Fatal(err)
		}
		return b.String(), e.ExitCode()
	}
	return b.String(), 0
}

func (s *site) must(args ...string) string {
	s.t.Helper()
	out, code := s.culvert(args...)
	if code != 0 {
		s.t.Fatalf("culvert %v ended with %d:\n%s", args, code, out)
	}
	return out
}

// refused runs this program, which must end with the given code and a message.
func (s *site) refused(code int, message string, args ...string) {
	s.t.Helper()
	out, got := s.culvert(args...)
	if got != code || !strings.Contains(out, message) {
		s.t.Errorf("culvert %v ended with %d, want %d and %q:\n%s", args, got, code, message, out)
	}
}

func (s *site) status() []control.Instance {
	s.t.Helper()
	var all []control.Instance
	if err := json.Unmarshal([]byte(s.must("status", "--json")), &all); err != nil {
		s.t.Fatal(err)
	}
	return all
}

func (s *site) tunnel() control.Tunnel {
	s.t.Helper()
	all := s.status()
	if len(all) != 1 || len(all[0].Tunnels) != 1 {
		s.t.Fatalf("running: %+v", all)
	}
	return all[0].Tunnels[0]
}

// surroundings is everything a daemon could leave behind on the host.
func (s *site) surroundings() string {
	s.t.Helper()
	var all strings.Builder
	for _, args := range [][]string{
		{"-br", "link"}, {"-br", "address", "show", "scope", "global"}, {"rule"}, {"-6", "rule"},
		{"route", "show", "table", "all", "scope", "link"}, {"-6", "route", "show", "table", "all", "proto", "boot"},
	} {
		fmt.Fprintf(&all, "ip %s:\n%s", strings.Join(args, " "), s.host.Shell("ip", args...))
	}
	if out, err := s.host.Output(s.host.Command(s.t.Context(), "nft", "list", "ruleset")); err == nil {
		fmt.Fprintf(&all, "nft:\n%s", out)
	}
	for _, dir := range []string{"run/culvert", "run/wireguard"} {
		entries, err := os.ReadDir(filepath.Join(s.run, dir))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !strings.HasSuffix(e.Name(), ".log") {
				fmt.Fprintf(&all, "/%s/%s\n", dir, e.Name())
			}
		}
	}
	return all.String()
}

// same checks that nothing was left behind.
func (s *site) same(before string) {
	s.t.Helper()
	if after := s.surroundings(); after != before {
		s.t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// pid is the running daemon's.
func (s *site) pid() int {
	s.t.Helper()
	all := s.status()
	if len(all) != 1 {
		s.t.Fatalf("running: %+v", all)
	}
	return all[0].PID
}

func (s *site) ended(pid int) {
	s.t.Helper()
	lab.Eventually(s.t, patience, "the daemon has ended", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return true
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(rest, "Z")
	})
}

func (s *site) kill(pid int, sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatal(err)
	}
}

// reaches pings until a reply comes: a handshake may be under way.
func (s *site) reaches(to string) {
	s.t.Helper()
	lab.Eventually(s.t, patience, "a ping to "+to, func() bool { return s.host.Ping(netip.MustParseAddr(to)) == nil })
}

// newSites makes two sites joined by a wire, with each other as peers.
func newSites(t *testing.T) (a, b *site) {
	t.Helper()
	a, b = newSite(t, "a"), newSite(t, "b")
	lab.Link(t, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	a.write(bodyA(b, ""))
	b.write(`    listen: 2000
    addresses: [10.20.0.2/24, "fd20::2/64", 10.30.0.1/32]
    peers:
      a: {public_key: "` + a.pub + `", allowed_ips: [10.20.0.1/32, "fd20::1/128", 10.21.0.1/32]}
`)
	return a, b
}

// bodyA is the tunnel of site a: b is its peer, and more may be added.
func bodyA(b *site, more string) string {
	return `    listen: 1000
    addresses: [10.20.0.1/24, "fd20::1/64"]
    peers:
      b: {public_key: "` + b.pub + `", allowed_ips: [10.20.0.2/32, "fd20::2/128"], endpoints: ["192.0.2.2:2000"]}
` + more
}

func TestUpStatusReloadDown(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	before := a.surroundings()
	if out := a.must("up", a.file); out != "" {
		t.Errorf("up said %q", out)
	}
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	a.reaches("fd20::2")
	for path, mode := range map[string]os.FileMode{
		"run/culvert/site.sock": 0o600 | os.ModeSocket, "run/wireguard/wg0.sock": 0o600 | os.ModeSocket, "run/culvert/site.log": 0o600,
	} {
		if st, err := os.Lstat(filepath.Join(a.run, path)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}

	text := a.must("status")
	key := strings.TrimSpace(read(t, filepath.Join(a.dir, "key")))
	for _, want := range []string{"interface: wg0", "  public key: " + a.pub, "peer: " + b.pub, "  latest handshake: ", "  endpoint: 192.0.2.2:2000"} {
		if !strings.Contains(text, want) {
			t.Errorf("status lacks %q:\n%s", want, text)
		}
	}
	if all := text + a.must("status", "--json") + read(t, filepath.Join(a.run, "run/culvert/site.log")); strings.Contains(all, key) {
		t.Error("status or log hold the private key")
	}
	if wg, err := exec.LookPath("wg"); err == nil {
		if out := a.host.Shell(wg, "show", "wg0"); !strings.Contains(out, b.pub) {
			t.Errorf("wg shows\n%s", out)
		}
	}

	a.refused(1, "site is already running", "up", a.file)
	a.refused(1, "site is already running", "up", "-f", a.file)
	a.reaches("10.20.0.2")

	// A wrong file changes nothing.
	good := read(t, a.file)
	shape := a.surroundings()
	if err := os.WriteFile(a.file, []byte(good+"    color: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.refused(78, "site.yaml:", "reload", "site")
	a.same(shape)

	// Another peer, address and route, live: the session with b goes on.
	a.write(strings.Replace(strings.Replace(bodyA(b, `      c: {public_key: "`+testPeer+`", allowed_ips: [10.40.0.0/16]}
`), "addresses: [", "addresses: [10.21.0.1/32, ", 1), "allowed_ips: [10.20.0.2/32", "allowed_ips: [10.30.0.0/16, 10.20.0.2/32", 1))
	a.must("reload", "site")
	handshakes := a.tunnel().Handshakes.Completed
	if err := a.host.Ping(netip.MustParseAddr("10.30.0.1")); err != nil { // at once: there is a session
		t.Error(err)
	}
	if tun := a.tunnel(); len(tun.Peers) != 2 || tun.Handshakes.Completed != handshakes {
		t.Errorf("after the reload: %+v", tun)
	}
	if out := a.host.Shell("ip", "route"); !strings.Contains(out, "10.40.0.0/16 dev wg0") || !strings.Contains(out, "10.30.0.0/16 dev wg0") {
		t.Errorf("routes:\n%s", out)
	}
	// And back, by a signal.
	if err := os.WriteFile(a.file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	a.kill(a.pid(), syscall.SIGHUP)
	lab.Eventually(t, patience, "the file is read again", func() bool { return len(a.tunnel().Peers) == 1 })
	a.same(shape)
	if err := a.host.Ping(netip.MustParseAddr("10.20.0.2")); err != nil {
		t.Error(err)
	}

	pid := a.pid()
	a.must("down", "site")
	if err := syscall.Kill(pid, 0); err == nil {
		stat := read(t, "/proc/"+strconv.Itoa(pid)+"/stat")
		if !strings.Contains(stat, ") Z") {
			t.Errorf("down returned before the daemon had ended: %s", stat)
		}
	}
	a.same(before)
	a.refused(1, "nothing called site is running", "down", "site")
}

// newTaps is newSites with taps, which carry Ethernet frames.
func newTaps(t *testing.T) (a, b *site) {
	t.Helper()
	a, b = newSite(t, "a"), newSite(t, "b")
	lab.Link(t, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	a.write(tapA(b))
	b.write(`    mode: tap
    listen: 2000
    mac: "52:54:00:00:00:02"
    addresses: [10.20.0.2/24, "fd20::2/64"]
    peers:
      a: {public_key: "` + a.pub + `"}
`)
	return a, b
}

func tapA(b *site) string {
	return `    mode: tap
    listen: 1000
    mac: "52:54:00:00:00:01"
    queues: 2
    addresses: [10.20.0.1/24, "fd20::1/64"]
    peers:
      b: {public_key: "` + b.pub + `", endpoints: ["192.0.2.2:2000"]}
`
}

// A tap goes its whole life: ARP and neighbour discovery cross, the carrier follows the peer, a reload changes the switch, and
// nothing is left.
func TestTapUpStatusReloadDown(t *testing.T) {
	t.Parallel()
	a, b := newTaps(t)
	before := a.surroundings()
	a.must("up", a.file)
	if tun := a.tunnel(); tun.Mode != "tap" || tun.MTU != 1500 || tun.Switch == nil || tun.Switch.Carrier {
		t.Errorf("alone: %+v, switch %+v", tun, tun.Switch)
	}
	if link := a.host.Shell("ip", "-o", "link", "show", "wg0"); !strings.Contains(link, "52:54:00:00:00:01") || !strings.Contains(link, "NO-CARRIER") ||
		!strings.Contains(link, "mtu 1500") {
		t.Errorf("the interface alone: %s", link)
	}
	b.must("up", b.file)
	lab.Eventually(t, patience, "the carrier is on", func() bool { return a.tunnel().Switch.Carrier && b.tunnel().Switch.Carrier })
	a.reaches("10.20.0.2")
	a.reaches("fd20::2")
	if out := a.host.Shell("ip", "neigh", "show", "10.20.0.2"); !strings.Contains(out, "52:54:00:00:00:02") {
		t.Errorf("the neighbour is %s", out)
	}
	if text := a.must("status"); !strings.Contains(text, "  mode: tap (Ethernet), carrier on\n") || !strings.Contains(text, "  port: answers") ||
		strings.Contains(text, "allowed ips") {
		t.Errorf("status shows\n%s", text)
	}
	a.must("status", "site", "--macs")

	// The switch and its ports change while the tunnel is up, and the session goes on; the device's own does not.
	up := a.surroundings()
	handshakes := a.tunnel().Handshakes.Completed
	a.write(strings.Replace(tapA(b), "    peers:", "    switch: {ageing: 30s, link_local: true}\n    carrier: on\n    peers:", 1))
	a.must("reload", "site")
	if err := a.host.Ping(netip.MustParseAddr("10.20.0.2")); err != nil {
		t.Error(err)
	}
	if n := a.tunnel().Handshakes.Completed; n != handshakes {
		t.Errorf("%d handshakes, before the reload %d", n, handshakes)
	}
	a.write(strings.Replace(tapA(b), "00:01", "00:09", 1))
	a.refused(1, "site.yaml:7:10: tunnel wg0 cannot change its interface's MAC address while it is up", "reload", "site")
	a.write(bodyA(b, ""))
	a.refused(1, "tunnel wg0 cannot change its mode from tap to tun while it is up", "reload", "site")
	a.write(tapA(b))
	a.must("reload", "site")
	a.same(up)
	a.reaches("10.20.0.2")

	// The kernel takes IPv6 addresses from an interface that goes down; the daemon puts them back.
	a.host.Shell("ip", "link", "set", "wg0", "down")
	a.host.Shell("ip", "link", "set", "wg0", "up")
	lab.Eventually(t, patience, "all is back", func() bool { return a.surroundings() == up })
	a.reaches("fd20::2")

	// A peer that is gone takes the carrier with it.
	b.must("down", "site")
	lab.Eventually(t, patience, "the carrier is off", func() bool { return !a.tunnel().Switch.Carrier })
	a.must("down", "site")
	a.same(before)
}

// A default route and its rules, and that they go.
func TestDefaultRouteComesAndGoes(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.write(strings.Replace(bodyA(b, ""), "10.20.0.2/32", "0.0.0.0/0", 1))
	before := a.surroundings()
	b.must("up", b.file)
	a.must("up", a.file)
	if rules := a.host.Shell("ip", "rule"); !strings.Contains(rules, "not from all fwmark") || !strings.Contains(rules, "suppress_prefixlength 0") {
		t.Errorf("rules:\n%s", rules)
	}
	if a.tunnel().FwMark == 0 {
		t.Error("the tunnel's packets carry no fwmark")
	}
	a.reaches("10.30.0.1") // only the default route leads there
	a.kill(a.pid(), syscall.SIGTERM)
	lab.Eventually(t, patience, "all is as before", func() bool { return a.surroundings() == before })
}

// The kernel drops routes and IPv6 addresses of an interface that goes down; the daemon puts them back.
func TestAddressesAndRoutesComeBackWithTheLink(t *testing.T) {
	t.Parallel()
	for name, routes := range map[string]string{"default route": "0.0.0.0/0", "routes": "10.30.0.0/16"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newSites(t)
			a.write(strings.Replace(bodyA(b, ""), "10.20.0.2/32", "10.20.0.2/32, "+routes, 1))
			before := a.surroundings()
			b.must("up", b.file)
			a.must("up", a.file)
			up := a.surroundings()
			a.host.Shell("ip", "link", "set", "wg0", "down")
			if a.surroundings() == up {
				t.Fatal("nothing was lost")
			}
			a.host.Shell("ip", "link", "set", "wg0", "up")
			lab.Eventually(t, patience, "all is back", func() bool { return a.surroundings() == up })
			a.reaches("fd20::2")
			a.reaches("10.30.0.1")
			a.must("down", "site")
			a.same(before)
		})
	}
}

// An instance killed without a chance to clean up does not stand in the next one's way.
func TestUpAfterKill(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.write(strings.Replace(bodyA(b, ""), "10.20.0.2/32", "0.0.0.0/0", 1))
	before := a.surroundings()
	b.must("up", b.file)
	for range 3 {
		a.must("up", a.file)
		pid := a.pid()
		a.kill(pid, syscall.SIGKILL)
		a.ended(pid)
		a.refused(1, "nothing called site is running", "status", "site")
	}
	a.must("up", a.file)
	a.reaches("10.20.0.2")
	a.must("down", a.file)
	a.same(before)
}

// A name service that fails does not keep the tunnel from coming up, nor from using the next endpoint of the list.
func TestUpWithoutDNS(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.write(strings.Replace(bodyA(b, ""), `endpoints: ["`, `endpoints: ["nowhere.invalid:7", "`, 1))
	b.must("up", b.file)
	a.must("up", a.file)
	a.reaches("10.20.0.2")
	a.must("down", "site")
}

// foreground starts "up -f" and returns when it serves.
func (s *site) foreground() (cmd *exec.Cmd, log *bytes.Buffer) {
	s.t.Helper()
	cmd, log = s.command("up", "-f", s.file), new(bytes.Buffer)
	cmd.Stderr = log
	if err := s.host.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	lab.Eventually(s.t, patience, "the tunnel is up", func() bool {
		out, code := s.culvert("status", "--json", "site")
		return code == 0 && strings.Contains(out, `"up": true`)
	})
	return cmd, log
}

func TestForegroundEndsOnSignal(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		a, _ := newSites(t)
		before := a.surroundings()
		cmd, log := a.foreground()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v\n%s", sig, err, log)
		}
		a.same(before)
	}
}

// A device deleted under the daemon ends it, with one error, and all else is taken away.
func TestDeletedDeviceEndsUp(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.write(strings.Replace(bodyA(b, ""), "10.20.0.2/32", "0.0.0.0/0", 1))
	before := a.surroundings()
	cmd, log := a.foreground()
	a.host.DeleteLink("wg0")
	err := cmd.Wait()
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok || e.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	if n := strings.Count(log.String(), "culvert: "); n != 1 || !strings.Contains(log.String(), "tunnel wg0 has ended") {
		t.Errorf("it said\n%s", log)
	}
	a.same(before)
}

// What cannot be had is one clear error, and nothing is left behind.
func TestUpFails(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.host.Shell("ip", "link", "add", "taken", "type", "bridge")
	before := a.surroundings()
	other := b.pub

	var port *os.File
	a.host.Must(func() error {
		fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		port = os.NewFile(uintptr(fd), "port")
		return syscall.Bind(fd, &syscall.SockaddrInet6{Port: 1000})
	})
	a.refused(1, "cannot open UDP port 1000", "up", a.file)
	a.same(before)
	port.Close()

	for name, text := range map[string]string{
		"a tunnel of a taken name": strings.Replace(read(t, a.file), "wg0:", "taken:", 1),
		"a second tunnel that cannot be": read(t, a.file) + `  taken:
    wire: wireguard
    private_key_file: key
    peers:
      x: {public_key: "` + other + `", allowed_ips: [10.50.0.0/16]}
`,
	} {
		path := filepath.Join(a.dir, "fails.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, code := a.culvert("up", path)
		if code != 1 || !strings.Contains(out, "tunnel taken: ") || !strings.Contains(out, "hint: ") {
			t.Errorf("%s: ended with %d:\n%s", name, code, out)
		}
		a.same(before)
	}

	// A route that somebody else has: the error tells the line.
	a.host.Shell("ip", "route", "add", "10.50.0.0/16", "dev", "lo")
	taken := a.surroundings()
	a.write(bodyA(b, `      c:
        public_key: "`+testPeer+`"
        allowed_ips:
          - 10.50.0.0/16
`))
	a.refused(1, "site.yaml:12:13: add route 10.50.0.0/16 dev wg0: ", "up", a.file)
	a.same(taken)
	a.host.Shell("ip", "route", "del", "10.50.0.0/16", "dev", "lo")

	if err := os.WriteFile(filepath.Join(a.dir, "hook.conf"), []byte("[Interface]\nPrivateKey = "+testPrivate+"\nAddress = 10.9.9.9/32\nPostUp = exit 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.refused(1, "exit status 7", "up", filepath.Join(a.dir, "hook.conf"))
	a.same(before)
}

// Out of file descriptors at any point: one clear error, nothing left behind.
func TestUpWithFewDescriptors(t *testing.T) {
	t.Parallel()
	a, _ := newSites(t)
	before := a.surroundings()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for n := 8; ; n++ {
		if n > 100 {
			t.Fatal("a daemon needs more than 100 descriptors?")
		}
		cmd := a.host.Command(t.Context(), "sh", "-c", fmt.Sprintf("ulimit -n %d; exec -a culvert %s up %s", n, exe, a.file))
		if bash, err := exec.LookPath("bash"); err == nil {
			cmd.Path, cmd.Args[0] = bash, "bash" // exec -a
		} else {
			lab.Skip(t, "needs bash")
		}
		out, code := a.finish(cmd)
		if code == 0 {
			break
		}
		failed++
		if code != 1 || !strings.Contains(out, "too many open files") || strings.Contains(out, "goroutine") || !strings.Contains(out, "ulimit -n") {
			t.Errorf("with %d descriptors it ended with %d:\n%s", n, code, out)
		}
		a.same(before)
	}
	if failed == 0 {
		t.Error("it never ran out of descriptors")
	}
	a.must("down", "site")
	a.same(before)
}

// The interface's socket for wg is also how wg-quick ends a daemon.
func TestWGEndsWithItsSocket(t *testing.T) {
	t.Parallel()
	s := newSite(t, "a")
	before := s.surroundings()
	for range 2 { // the second time with what the first left, which is nothing
		if out := s.must("wg", "cvwg0"); out != "" {
			t.Errorf("wg said %q", out)
		}
		pid := s.pid()
		if all := s.status(); all[0].Kind != "wg" || all[0].Name != "cvwg0" {
			t.Errorf("status %+v", all)
		}
		s.refused(1, "already running", "wg", "cvwg0")
		s.refused(1, "wg configures it", "reload", "cvwg0")
		if err := os.Remove(filepath.Join(s.run, "run/wireguard/cvwg0.sock")); err != nil {
			t.Fatal(err)
		}
		s.ended(pid)
		s.same(before)
	}
	s.must("wg", "cvwg0")
	s.must("down", "cvwg0")
	s.same(before)
}

// Descriptors of the caller are used in place of own ones, in the background as well.
func TestWGInheritsSocket(t *testing.T) {
	t.Parallel()
	s := newSite(t, "a")
	path := filepath.Join(s.dir, "given.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	given := os.NewFile(uintptr(fd), "given")
	defer given.Close()
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 8)); err != nil {
		t.Fatal(err)
	}
	cmd := s.command("wg", "cvwg0")
	cmd.ExtraFiles = []*os.File{given}
	cmd.Env = append(os.Environ(), "WG_UAPI_FD=3")
	if out, code := s.finish(cmd); code != 0 {
		t.Fatalf("it ended with %d:\n%s", code, out)
	}
	c, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	client := os.NewFile(uintptr(c), "client")
	defer client.Close()
	if err := syscall.Connect(c, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteString("get=1\n\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, err := client.Read(answer)
	if err != nil || !strings.Contains(string(answer[:n]), "errno=0") {
		t.Errorf("answer %q, %v", answer[:n], err)
	}
	s.must("down", "cvwg0")
}
