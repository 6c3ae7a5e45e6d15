package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// A daemon that has given up files and system calls is upgraded, and so is the next: by the program in its place, and with no more filters than
// before. What it cannot start it says.
func TestUpgradeOfAConfinedDaemon(t *testing.T) {
	first, b := newSites(t)
	built := lab.Build(t, "culvert/cmd/culvert")
	content, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(t.TempDir(), "culvert")
	install := func(text []byte) { // as a package does
		t.Helper()
		lab.WriteProgram(t, place+".new", text, 0o755)
		if err := os.Rename(place+".new", place); err != nil {
			t.Fatal(err)
		}
	}
	install(content)
	a := &confinedSite{first, place}
	a.write(bodyA(b, ""))
	before := a.surroundings()
	a.must("up", a.file)
	b.must("up", b.file)
	a.isConfined()
	a.reaches("10.20.0.2")
	filters := func() string {
		t.Helper()
		return regexp.MustCompile(`Seccomp_filters:\t\d+`).FindString(read(t, fmt.Sprintf("/proc/%d/status", a.pid())))
	}
	had, good := filters(), a.pid()

	a.refused(exitFailure, "put the program into "+filepath.Dir(place), "upgrade", "site", "--program", built)
	install([]byte("#!/bin/sh\necho 'culvert: there is no command \"succeed\"' >&2\nexit 2\n"))
	a.refused(exitFailure, "cannot", "upgrade", "site") // the shell is out of reach, too
	install(content)
	text := read(t, a.file)
	a.site.write("    nonsense: 1\n")
	a.refused(exitConfig, "the new program refuses the file, and nothing was touched", "upgrade", "site")
	if err := os.WriteFile(a.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if now := a.pid(); now != good {
		t.Fatalf("process %d goes on, not %d", now, good)
	}
	end := numberedStream(t, a.host, b.host, "10.20.0.1", "10.20.0.2")
	for range 2 {
		install(content)
		a.upgraded("site")
		a.isConfined()
		if now := filters(); now != had {
			t.Errorf("%s, and %s before", now, had)
		}
	}
	if lost, sent := end(); lost != 0 || sent < 100 {
		t.Errorf("%d of twice %d packets were lost", lost, sent)
	}
	a.must("down", "site")
	a.same(before)
}

// The service manager hears who goes on, and is told by that from then on; also who goes on after all.
func TestUpgradeUnderAServiceManager(t *testing.T) {
	s := newSite(t, "heirs")
	order := filepath.Join(s.dir, "order")
	s.write("    addresses: [10.77.0.1/24]\n    peers: {a: {public_key: " + testPeer + ", allowed_ips: [10.77.0.2/32]}}\n")
	m := newServiceManager(t)
	cmd := s.command("up", "--foreground", s.file)
	cmd.Env = append(cmd.Environ(), "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=600000", betweenEnv+"="+order)
	log, err := os.Create(filepath.Join(s.dir, "log")) // a pipe would be waited for as long as anybody has it
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.host.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	m.next()
	m.expect("READY=1", "STATUS=1 tunnel, sessions with 0 of 1 peer")
	upgrade := func(text string, code int) {
		t.Helper()
		if err := os.WriteFile(order, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, got := s.culvert("upgrade", "site"); got != code {
			t.Fatalf("%d, %s", got, out)
		}
		m.expect("RELOADING=1", "MONOTONIC_USEC=[1-9][0-9]+", "STATUS=reloading")
		m.expect("READY=1", "STATUS=1 tunnel.*")
	}
	upgrade("new "+stageRuns, 1)
	m.ping() // it is the main process as it was
	upgrade("nobody dies", 0)
	m.expect("MAINPID=[1-9][0-9]*")
	m.expect("READY=1", "STATUS=1 tunnel, sessions with 0 of 1 peer")
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v:\n%s", err, read(t, log.Name()))
	}
	m.ping()
	m.ping()
	s.kill(s.pid(), syscall.SIGTERM)
	m.expect("STOPPING=1", "STATUS=taking everything away")
	if strings.Contains(s.host.Shell("ip", "-o", "link"), "wg0") {
		lab.Eventually(t, patience, "the device has gone", func() bool { return !s.host.HasLink("wg0") })
	}
}
