package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// script writes a program that a site can be told to go on with.
func (s *site) script(text string) (path string) {
	s.t.Helper()
	path = filepath.Join(s.dir, "program")
	lab.WriteProgram(s.t, path, []byte("#!/bin/bash\n"+text+"\n"), 0o700)
	return path
}

// What is asked for while an upgrade is under way is done by who goes on, and the process before ends all the same.
func TestAskedDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	trying := filepath.Join(a.dir, "trying")
	// Long enough for what is asked meanwhile to be waiting.
	program := a.script(fmt.Sprintf("if [ \"$2\" = --try ]; then touch %s; sleep 0.5; fi\nexec -a culvert /proc/%d/exe \"$@\"", trying, os.Getpid()))
	body := bodyA(b, "")
	for i, ask := range []func(){
		func() { a.must("reload", "site") },
		func() { a.must("reload", "--dry-run", "site") },
		func() { a.kill(a.pid(), syscall.SIGHUP) },
	} {
		os.Remove(trying)
		old := a.pid()
		upgraded := make(chan string, 1)
		go func() {
			out, code := a.culvert("upgrade", "site", "--program", program)
			upgraded <- fmt.Sprint(code, " ", out)
		}()
		lab.Eventually(t, patience, "the program is tried", func() bool { _, err := os.Stat(trying); return err == nil })
		a.write(fmt.Sprintf("    mtu: %d\n", 1300+i) + body)
		ask()
		if out := <-upgraded; !strings.HasPrefix(out, "0 ") {
			t.Fatal(out)
		}
		a.ended(old)
		a.must("reload", "site")
		a.eventually("what the file says is so", fmt.Sprintf("mtu %d ", 1300+i), "ip", "link", "show", "wg0")
		a.reaches("10.20.0.2")
	}
	a.must("down", "site")
}

// A new process that cannot even begin leaves the instance as it was: its name, socket and log.
func TestUpgradeFailsEarly(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	before := a.surroundings()
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	pid := a.pid()
	log := filepath.Join(a.run, "run/culvert/site.log")
	text := read(t, log)
	if text == "" {
		t.Fatal("the log is empty")
	}
	if err := os.Rename(log, log+".real"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Base(log)+".real", log); err != nil {
		t.Fatal(err)
	}
	a.refused(1, "the old process goes on, and nothing was lost", "upgrade", "site")
	if now := a.pid(); now != pid {
		t.Errorf("process %d goes on, not %d", now, pid)
	}
	if err := os.Rename(log+".real", log); err != nil {
		t.Fatal(err)
	}
	a.upgraded("site")
	if now := read(t, log); !strings.HasPrefix(now, text) {
		t.Errorf("the log begins anew:\n%s", now)
	}
	a.must("down", "site")
	a.same(before)
}

// A program that is none is done with soon, whatever it does.
func TestUpgradeToNoProgram(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	pid := a.pid()
	for text, want := range map[string]string{
		"yes":                 "cannot go on", // its child has the pipe
		"echo hello":          "it does not say what it is",
		"echo '{}'":           "it does not say what it is",
		"exit 3":              "exit status 3",
		"kill -9 $$":          "killed",
		"echo no >&2\nexit 1": "cannot go on: no",
	} {
		a.refused(1, want, "upgrade", "site", "--program", a.script(text))
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil || len(children) != 0 {
			t.Errorf("%s: children %q, %v", text, children, err)
		}
	}
	a.must("reload", "site")
	a.reaches("10.20.0.2")
	a.must("down", "site")
}

// A new process that says nothing more holds the packets up for seconds, not for longer.
func TestUpgradeThatHangs(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	order := filepath.Join(a.dir, "order")
	a.env = append(a.env, betweenEnv+"="+order)
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	if err := os.WriteFile(order, []byte("stall "+stageEstate), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := a.pid()
	a.refused(1, "packets have waited for 3", "upgrade", "site")
	if now := a.pid(); now != pid {
		t.Errorf("process %d goes on, not %d", now, pid)
	}
	a.reaches("10.20.0.2")
	if n := a.tunnel().Handshakes.Completed; n > 2 {
		t.Errorf("%d handshakes: it was to go on with its sessions", n)
	}
	a.must("down", "site")
}
