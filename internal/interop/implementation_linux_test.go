package interop

import (
	"bufio"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/internal/lab"
)

// An implementation is one WireGuard: how a device of it comes up in a host.
type implementation struct {
	name string
	// command returns the daemon in the foreground; nil for the kernel, which has no daemon.
	command func(t *testing.T, s *side) *exec.Cmd
	// wandering: it does not stay with the source address it was spoken to on (wireguard-go 0.0.20250522 on Linux 6.18 was seen to
	// answer from the primary address).
	wandering bool
	// mixesFamilies: after a change of the endpoint's family the first datagrams go to a mangled address (the same one, seen asking for
	// the neighbour fd01:: instead of fd01::2).
	mixesFamilies bool
	// hurried: it may begin a second handshake 5 s after the first although that was answered (the same one; an answer that is faster
	// than the sender's own return does not stop the timer).
	hurried bool
}

var (
	culvert = implementation{name: "culvert", command: func(t *testing.T, s *side) *exec.Cmd {
		return s.host.Command(t.Context(), program(t, "culvert", "culvert/cmd/culvert"), "wg", "-f", s.device)
	}}
	wireguardGo = implementation{name: "wireguard-go", wandering: true, mixesFamilies: true, hurried: true, command: func(t *testing.T, s *side) *exec.Cmd {
		return s.host.Command(t.Context(), program(t, "wireguard", "golang.zx2c4.com/wireguard"), "-f", s.device)
	}}
	kernel = implementation{name: "kernel"}
)

// A pair is who begins and who answers.
type pair struct{ initiator, responder implementation }

func (p pair) String() string { return p.initiator.name + "/" + p.responder.name }

// forPairs runs a test for every pair, side by side.
func forPairs(t *testing.T, test func(t *testing.T, p pair)) {
	t.Helper()
	t.Parallel()
	for _, p := range pairs(t) {
		t.Run(p.initiator.name+"-to-"+p.responder.name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

func pairs(t *testing.T) []pair {
	t.Helper()
	list := os.Getenv("CULVERT_INTEROP_PAIRS")
	if list == "" {
		return []pair{{culvert, wireguardGo}, {wireguardGo, culvert}, {culvert, culvert}}
	}
	known := map[string]implementation{culvert.name: culvert, wireguardGo.name: wireguardGo, kernel.name: kernel}
	var chosen []pair
	for word := range strings.FieldsSeq(list) {
		initiator, responder, _ := strings.Cut(word, "/")
		p := pair{known[initiator], known[responder]}
		if p.initiator.name == "" || p.responder.name == "" {
			t.Fatalf("CULVERT_INTEROP_PAIRS: %q is no pair", word)
		}
		chosen = append(chosen, p)
	}
	return chosen
}

// program returns a daemon: from the folder of programs already built, or built now.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	if folder := os.Getenv("CULVERT_INTEROP_PROGRAMS"); folder != "" {
		return filepath.Join(folder, name)
	}
	return lab.Build(t, pkg)
}

// daemon is a running userspace implementation. Its log is shown when the test fails.
type daemon struct {
	command *exec.Cmd
	ended   chan struct{} // closed when the process is gone
	mu      sync.Mutex
	log     strings.Builder
}

func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

func (d *daemon) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

// startDaemon starts a side's daemon and returns when its control socket answers.
func startDaemon(t *testing.T, s *side) *daemon {
	t.Helper()
	d := &daemon{command: s.implementation.command(t, s), ended: make(chan struct{})}
	d.command.Env = append(os.Environ(), "LOG_LEVEL=verbose", "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1")
	d.command.Stdout, d.command.Stderr = d, d
	if err := s.host.Start(d.command); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.ended)
		d.command.Wait()
	}()
	t.Cleanup(func() {
		d.command.Process.Kill()
		<-d.ended
		if t.Failed() {
			t.Logf("%s on %s wrote:\n%s", s.implementation.name, s.host.Name, lastLines(d.text(), 60))
		}
	})
	lab.Eventually(t, 30*time.Second, s.implementation.name+" answers on its socket", func() bool {
		select {
		case <-d.ended:
			t.Fatalf("%s on %s ended at once:\n%s", s.implementation.name, s.host.Name, d.text())
		default:
		}
		_, err := askUAPI(s.socket(), "get=1\n\n")
		return err == nil
	})
	return d
}

// stop ends the daemon with a signal and waits for it.
func (d *daemon) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := d.command.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("the daemon is still there 30 s after %v", signal)
	}
}

// askUAPI does one exchange of the cross-platform userspace API and returns the answer's lines.
func askUAPI(socket, request string) ([]string, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return nil, err
	}
	var lines []string
	for scanner := bufio.NewScanner(conn); scanner.Scan(); {
		if scanner.Text() == "" {
			return lines, nil
		}
		lines = append(lines, scanner.Text())
	}
	return nil, errors.New("the answer has no end")
}

func exists(t *testing.T, file string) bool {
	t.Helper()
	_, err := os.Lstat(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
