package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// background starts a side's daemon the way wg-quick does: the command returns and the daemon stays. It returns the
// command's output and exit code.
func background(t *testing.T, s *side, environment ...string) (string, int) {
	t.Helper()
	link := filepath.Join(t.TempDir(), "culvert-wg")
	if err := os.Symlink(program(t, "culvert", "culvert/cmd/culvert"), link); err != nil {
		t.Fatal(err)
	}
	command := s.host.Command(t.Context(), link, s.device)
	command.Env = append(os.Environ(), environment...)
	return output(t, s.host, command)
}

// mustBackground is background that must succeed; it returns the daemon's process number.
func mustBackground(t *testing.T, s *side) int {
	t.Helper()
	if out, code := background(t, s); code != 0 {
		t.Fatalf("culvert-wg ended with %d:\n%s", code, out)
	}
	daemons := daemonsIn(t, s.host)
	if len(daemons) != 1 {
		t.Fatalf("the processes %v are in the namespace, want one daemon", daemons)
	}
	number, err := strconv.Atoi(daemons[0])
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func signalProcess(t *testing.T, number int, signal syscall.Signal) {
	t.Helper()
	process, err := os.FindProcess(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// gone waits until the daemon has ended and looks that it left nothing behind.
func gone(t *testing.T, s *side, number int) {
	t.Helper()
	lab.Eventually(t, patience, "the daemon ends", func() bool { return zombie(strconv.Itoa(number)) })
	if s.host.HasLink(s.device) {
		t.Error("the device is still there")
	}
	for _, folder := range []string{"run/wireguard", "run/culvert"} {
		entries, err := os.ReadDir(filepath.Join(s.run, folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.Type()&os.ModeSocket != 0 {
				t.Errorf("the socket /%s/%s is still there", folder, entry.Name())
			}
		}
	}
}

// The command returns when the daemon can be configured, not before: whatever comes next finds device and socket.
func TestDaemonReturnsWhenReady(t *testing.T) {
	t.Parallel()
	s := prepareSide(t, culvert, lab.NewHost(t, "a"), portA)
	for i := range 10 {
		s.device = fmt.Sprintf("wg%d", i)
		number := mustBackground(t, s)
		if shown := s.wg("", "show", s.device); !strings.HasPrefix(shown, "interface: "+s.device) {
			t.Errorf("wg show printed\n%s", shown)
		}
		if !s.host.HasLink(s.device) {
			t.Error("there is no device")
		}
		info, err := os.Lstat(s.socket())
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("the socket has the mode %v, want that of a socket only its owner may use", info.Mode())
		}
		signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}
		signalProcess(t, number, signals[i%len(signals)])
		gone(t, s, number)
	}
}

func TestStaleSocketIsTakenOver(t *testing.T) {
	t.Parallel()
	s := prepareSide(t, culvert, lab.NewHost(t, "a"), portA)
	number := mustBackground(t, s)
	signalProcess(t, number, syscall.SIGKILL)
	lab.Eventually(t, patience, "the killed daemon is gone", func() bool {
		return zombie(strconv.Itoa(number)) && !s.host.HasLink(s.device)
	})
	if !exists(t, s.socket()) {
		t.Fatal("the killed daemon has left no socket: the test proves nothing")
	}
	number = mustBackground(t, s)
	s.apply()
	signalProcess(t, number, syscall.SIGTERM)
	gone(t, s, number)
}

func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	s := prepareSide(t, culvert, lab.NewHost(t, "a"), portA)
	number := mustBackground(t, s)
	s.apply()
	out, code := background(t, s)
	if code != 1 || !strings.Contains(out, s.device) {
		t.Errorf("a second daemon ended with %d and said\n%s", code, out)
	}
	if got := s.state().publicKey; got != s.publicKey {
		t.Errorf("the first daemon now has the public key %s, want %s", got, s.publicKey)
	}
	signalProcess(t, number, syscall.SIGTERM)
	gone(t, s, number)
}

// A device of that name which is none of ours stays as it is.
func TestForeignDeviceIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := prepareSide(t, culvert, lab.NewHost(t, "a"), portA)
	s.host.Shell("ip", "link", "add", s.device, "type", "bridge")
	out, code := background(t, s)
	if code != 1 || !strings.Contains(out, s.device) {
		t.Errorf("culvert-wg ended with %d and said\n%s", code, out)
	}
	if shown := s.host.Shell("ip", "-d", "link", "show", s.device); !strings.Contains(shown, "bridge") {
		t.Errorf("the bridge is now\n%s", shown)
	}
	if exists(t, s.socket()) {
		t.Error("a socket was left behind")
	}
}

// The daemon goes with its device.
func TestDeletedDeviceEndsTheDaemon(t *testing.T) {
	t.Parallel()
	s := prepareSide(t, culvert, lab.NewHost(t, "a"), portA)
	number := mustBackground(t, s)
	s.apply()
	s.host.Up(s.device)
	s.host.DeleteLink(s.device)
	gone(t, s, number)
}

// The variables wireguard-go knows.
func TestForegroundByEnvironment(t *testing.T) {
	t.Parallel()
	foreground := culvert
	s := prepareSide(t, foreground, lab.NewHost(t, "a"), portA)
	command := s.host.Command(t.Context(), program(t, "culvert", "culvert/cmd/culvert"), "wg", s.device)
	command.Env = append(os.Environ(), "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error")
	if err := s.host.Start(command); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, patience, "the socket answers", func() bool {
		_, err := askUAPI(s.socket(), "get=1\n\n")
		return err == nil
	})
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("after SIGTERM it ended with %v", err)
	}
	gone(t, s, command.Process.Pid)
}
