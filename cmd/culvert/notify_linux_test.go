package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
)

// serviceManager takes messages as systemd does.
type serviceManager struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &serviceManager{t, c, path}
}

// next is the next message, its assignments apart.
func (m *serviceManager) next() []string {
	m.t.Helper()
	b := make([]byte, 4096)
	m.socket.SetReadDeadline(time.Now().Add(patience))
	n, err := m.socket.Read(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Split(string(b[:n]), "\n")
}

// expect reads messages until one that is not of a kind that may come at any time, and holds it against patterns of its assignments.
func (m *serviceManager) expect(patterns ...string) {
	m.t.Helper()
	for {
		got := m.next()
		if len(got) == 1 && (got[0] == "WATCHDOG=1" || strings.HasPrefix(got[0], "STATUS=") && patterns[0] != "STATUS=.*") {
			continue
		}
		ok := len(got) == len(patterns)
		for i := range got {
			ok = ok && regexp.MustCompile("^"+patterns[i]+"$").MatchString(got[i])
		}
		if !ok {
			m.t.Fatalf("told %q, want %q", got, patterns)
		}
		return
	}
}

// ping waits for a sign that the daemon gets on.
func (m *serviceManager) ping() {
	m.t.Helper()
	for !slices.Equal(m.next(), []string{"WATCHDOG=1"}) {
	}
}

// A daemon tells a service manager what it does, in the order in which it does it: by what systemd calls Type=notify-reload.
func TestServiceManagerIsTold(t *testing.T) {
	s := newSite(t, "told")
	s.write("    addresses: [10.77.0.1/24]\n    peers: {a: {public_key: " + testPeer + ", allowed_ips: [10.77.0.2/32]}}\n")
	m := newServiceManager(t)
	cmd := s.command("up", "--foreground", s.file)
	cmd.Env = append(cmd.Environ(), "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=600000")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := s.host.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	if got := m.next(); !slices.Equal(got, []string{"STATUS=starting"}) {
		t.Errorf("first told %q", got)
	}
	m.expect("READY=1", "STATUS=1 tunnel, sessions with 0 of 1 peer")
	s.must("status", "site") // it is what it says
	m.ping()
	m.ping()

	reloading := []string{"RELOADING=1", "MONOTONIC_USEC=[1-9][0-9]+", "STATUS=reloading"}
	s.write("    addresses: [10.77.0.1/24]\n    peers: {a: {public_key: " + testPeer + "}, b: {public_key: " + testPeer2 + "}}\n")
	cmd.Process.Signal(syscall.SIGHUP)
	m.expect(reloading...)
	m.expect("READY=1", "STATUS=1 tunnel, sessions with 0 of 2 peers")
	s.write("    nonsense: 1\n")
	cmd.Process.Signal(syscall.SIGHUP)
	m.expect(reloading...)
	m.expect("READY=1", "STATUS=1 tunnel, sessions with 0 of 2 peers; the last reload failed: .*site.yaml:5:5: .*")
	s.refused(exitConfig, "nonsense", "reload", "site") // by the command it is told as well
	m.expect(reloading...)
	m.expect("READY=1", "STATUS=.*failed.*")
	m.ping()

	cmd.Process.Signal(syscall.SIGTERM)
	m.expect("STOPPING=1", "STATUS=taking everything away")
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v:\n%s", err, log.Bytes())
	}
}

// What hooks and other programs of the daemon are told nothing of: they would speak for it.
func TestServiceManagerIsNotPassedOn(t *testing.T) {
	s := newSite(t, "passed")
	seen := filepath.Join(s.dir, "seen")
	conf := filepath.Join(s.dir, "wg0.conf")
	key, err := os.ReadFile(filepath.Join(s.dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.77.0.1/24\nPostUp = env > %s\n", strings.TrimSpace(string(key)), seen)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newServiceManager(t)
	cmd := s.command("up", "--foreground", conf)
	cmd.Env = append(cmd.Environ(), "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=60000000", "WATCHDOG_PID=1")
	if err := s.host.Start(cmd); err != nil {
		t.Fatal(err)
	}
	m.next()
	m.expect("READY=1", "STATUS=1 tunnel, sessions with 0 of 0 peers")
	if text := read(t, seen); !strings.Contains(text, "WG_QUICK_INTERFACE=wg0") || strings.Contains(text, "NOTIFY_SOCKET") || strings.Contains(text, "WATCHDOG") {
		t.Errorf("a hook sees:\n%s", text)
	}
	s.must("down", "wg0")
	m.expect("STOPPING=1", "STATUS=.*")
	cmd.Wait()
}

// unit is the one of the repository.
const unit = "../../dist/systemd/culvert@.service"

// The unit is understood, whole, by the systemd there is, and leaves the daemon little to do harm with.
func TestUnit(t *testing.T) {
	analyze := lab.NeedProgram(t, "systemd-analyze")
	run := func(args ...string) string {
		cmd := exec.Command(analyze, args...)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=cat")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("systemd-analyze %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	out := run("security", "--offline=true", "--threshold=20", unit) // it fails above 2.0
	if !strings.Contains(out, "Overall exposure level for culvert@") {
		t.Errorf("it says:\n%s", out)
	}
	t.Log(regexp.MustCompile("Overall.*").FindString(out))
	for line := range strings.Lines(out) {
		// systemd before 253 does not know this one.
		if strings.Contains(line, unit[6:]) && strings.Contains(line, "ignoring") && !strings.Contains(line, "notify-reload") {
			t.Error(line)
		}
	}
	// The only capability is that which the text says.
	text := read(t, unit)
	for _, want := range []string{"\nType=notify-reload\n", "\nRestartPreventExitStatus=78\n", "\nCapabilityBoundingSet=CAP_NET_ADMIN\n",
		"\nDeviceAllow=/dev/net/tun rw\n", "\nWatchdogSec="} {
		if !strings.Contains(text, want) {
			t.Errorf("the unit has no line %q", strings.TrimSpace(want))
		}
	}
	// Drop-ins are read on top of it.
	for _, d := range []dropIn{lowPorts, wide} {
		dir := t.TempDir()
		file := filepath.Join(dir, "culvert@.service")
		if err := os.WriteFile(file, []byte(text+read(t, filepath.Join(filepath.Dir(unit), string(d)))), 0o600); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(run("security", "--offline=true", file)) {
			if strings.Contains(line, dir) && !strings.Contains(line, "notify-reload") {
				t.Errorf("%s: %s", d, line)
			}
		}
	}
}
