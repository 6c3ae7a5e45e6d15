package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"culvert/internal/lab"
)

// typist is somebody at a terminal at which a command runs.
type typist struct {
	t    *testing.T
	cmd  *exec.Cmd
	keys *os.File      // the master side
	done chan struct{} // closed once all is read that was written

	mu    sync.Mutex
	shown strings.Builder
}

// atTerminal starts a command of the site at a terminal of its own (pty(7)), which is what ctrl-C reaches it by.
func (s *site) atTerminal(args ...string) *typist { s.t.Helper(); return s.atTerminalOf(0, args...) }

// atTerminalOf is atTerminal with so many columns; with 0 it does not say how many.
func (s *site) atTerminalOf(columns uint16, args ...string) *typist {
	s.t.Helper()
	const lock, number = 0x40045431, 0x80045430 // TIOCSPTLCK, TIOCGPTN: ioctl_tty(2)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { master.Close() })
	var off, n int32
	conn, err := master.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	size := [4]uint16{24, columns}
	var errno, errno2, errno3 syscall.Errno
	if err := conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, lock, uintptr(unsafe.Pointer(&off)))
		_, _, errno2 = syscall.Syscall(syscall.SYS_IOCTL, fd, number, uintptr(unsafe.Pointer(&n)))
		_, _, errno3 = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size)))
	}); err != nil || errno != 0 || errno2 != 0 || errno3 != 0 {
		s.t.Fatal(err, errno, errno2, errno3)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer slave.Close()
	y := &typist{t: s.t, cmd: s.command(args...), keys: master, done: make(chan struct{})}
	y.cmd.Stdin, y.cmd.Stdout, y.cmd.Stderr = slave, slave, slave
	y.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.host.Start(y.cmd); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(y.done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf) // EIO once nobody has the other side open
			y.mu.Lock()
			y.shown.Write(buf[:n])
			y.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return y
}

func (y *typist) text() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.shown.String()
}

// sees waits until a text has been shown that many times.
func (y *typist) sees(text string, times int) {
	y.t.Helper()
	lab.Eventually(y.t, patience, fmt.Sprintf("%q is shown %d times", text, times), func() bool { return strings.Count(y.text(), text) >= times })
}

func (y *typist) types(keys string) {
	y.t.Helper()
	if _, err := y.keys.WriteString(keys); err != nil {
		y.t.Fatal(err)
	}
}

// ends waits for the command and returns its exit code, or the signal that ended it.
func (y *typist) ends() (code int, by syscall.Signal) {
	y.t.Helper()
	err := y.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		y.t.Fatal(err)
	}
	if w := y.cmd.ProcessState.Sys().(syscall.WaitStatus); w.Signaled() {
		return -1, w.Signal()
	}
	return y.cmd.ProcessState.ExitCode(), 0
}

// At a terminal a code is asked for by up, join and signin, and again after a wrong one. What is typed is shown, for it is good once. Ctrl-C ends
// the question and leaves the tunnel, which carries nothing.
func TestSignInAtATerminal(t *testing.T) {
	t.Parallel()
	j := newJoined(t)
	j.configure("        field: {sign_in: {totp: true, lasts: 1h}}\n")
	j.server.must("up", j.server.file)
	link := j.invite("alice", "--group", "field")
	app := newAuthenticator(t, j.server.must("client", "totp", "alice"))
	const prompt = "code of your authenticator for vpn0: "

	y := j.alice.atTerminal("join", "-", "--name", "vpn0", "--dir", j.alice.dir)
	y.types(link + "\n")
	y.sees(prompt, 1)
	y.types("\x03")
	if code, by := y.ends(); code == 0 {
		t.Errorf("ctrl-C at join: %d, %v\n%s", code, by, y.text())
	}
	waits := "waits for sign-in (culvert signin vpn0)"
	if out := j.alice.must("status"); !strings.Contains(out, waits) {
		t.Errorf("after ctrl-C:\n%s", out)
	}
	j.alice.must("down", "vpn0")

	y = j.alice.atTerminal("up", filepath.Join(j.alice.dir, "vpn0.yaml"))
	y.sees(prompt, 1)
	y.types("\x03")
	if code, by := y.ends(); code == 0 {
		t.Errorf("ctrl-C at up: %d, %v\n%s", code, by, y.text())
	}
	if out := j.alice.must("status"); !strings.Contains(out, waits) {
		t.Errorf("after ctrl-C:\n%s", out)
	}
	if pings(t, j.alice, "10.20.0.1") {
		t.Error("something passes")
	}

	y = j.alice.atTerminal("signin", "vpn0")
	y.sees(prompt, 1)
	y.types("\n")
	if code, _ := y.ends(); code != 1 || !strings.Contains(y.text(), "no code was given") {
		t.Errorf("nothing typed: %d\n%s", code, y.text())
	}
	y = j.alice.atTerminal("signin", "vpn0")
	y.sees(prompt, 1)
	y.types("000 000\n")
	y.sees("000 000", 1)
	y.sees("the code is wrong, or was used before", 1)
	y.sees(prompt, 2)
	y.types(app.code(0) + "\n")
	if code, _ := y.ends(); code != 0 {
		t.Errorf("a right code: %d\n%s", code, y.text())
	}
	y.sees("signed in until ", 1)
	j.alice.reaches("10.20.0.1")
}
