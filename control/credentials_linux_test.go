package control

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// connectAs connects as another user, and returns what is answered to a request.
func connectAs(t *testing.T, uid int, path, line string) (string, error) {
	t.Helper()
	type result struct {
		answer string
		err    error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with what it has become
		answer, err := func() (string, error) {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				return "", errno
			}
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				return "", err
			}
			defer syscall.Close(fd)
			if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
				return "", err
			}
			syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 30})
			syscall.Sendto(fd, []byte(line), syscall.MSG_NOSIGNAL, nil) // the daemon may have closed already
			var all []byte
			for b := make([]byte, 4096); ; {
				n, err := syscall.Read(fd, b)
				if n <= 0 {
					return string(all), err
				}
				all = append(all, b[:n]...)
			}
		}()
		done <- result{answer, err}
	}()
	r := <-done
	return r.answer, r.err
}

// The socket's mode keeps other users out, and where somebody has changed that, the daemon does: with a reason, before it reads
// anything of them, and without a place taken.
func TestOtherUsers(t *testing.T) {
	lab.NeedRoot(t) // who can become another user
	const nobody = 65534
	s := &service{reload: func() ([]string, error) { return nil, errors.New("should not have been called") }}
	parent, err := os.MkdirTemp("", "culvert-control-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(parent)
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := parent + "/run"
	l, err := Listen(dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go l.Serve(s)
	const line = "{\"version\":1,\"op\":\"reload\"}\n"
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if answer, err := connectAs(t, nobody, SocketPath(dir, "wg0"), line); !errors.Is(err, syscall.EACCES) {
		t.Errorf("with the socket's own mode: %q, %v, want EACCES", answer, err)
	}
	if err := os.Chmod(SocketPath(dir, "wg0"), 0o666); err != nil {
		t.Fatal(err)
	}
	for range 2 * maxClients {
		answer, err := connectAs(t, nobody, SocketPath(dir, "wg0"), line)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) || !strings.Contains(answer, "uid 65534 may not control this daemon") ||
			!strings.Contains(answer, `"reason":"refused"`) {
			t.Fatalf("another user was answered %q, %v", answer, err)
		}
	}
	if len(l.slots) != 0 || s.reloads.Load() != 0 {
		t.Errorf("%d places taken, %d reloads", len(l.slots), s.reloads.Load())
	}
	if _, err := NewClient(dir, "wg0").Status(t.Context()); err != nil {
		t.Errorf("root is not served: %v", err)
	}
}
