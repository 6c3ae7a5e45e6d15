package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/succession"
)

// betweenEnv names a file that says at which stage of an upgrade somebody dies, or nothing gets through any more: "new STAGE", "old STAGE",
// "stall STAGE".
const betweenEnv = "CULVERT_TEST_BETWEEN"

// directEnv names the process that stands between already: its child is the program itself.
const directEnv = "CULVERT_TEST_DIRECT"

// isBetween reports whether this process is to stand between.
func isBetween() bool {
	return os.Getenv(betweenEnv) != "" && slices.Contains(os.Args, succeedCommand) && !slices.Contains(os.Args, "--try") &&
		os.Getenv(directEnv) != strconv.Itoa(os.Getppid())
}

// standBetween is what stands between the two processes of an upgrade, in the place of the new one: it passes on what they say, and kills one of
// them at the stage that it is told.
func standBetween() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "between:", err)
		return 1
	}
	text, err := os.ReadFile(os.Getenv(betweenEnv))
	if err != nil {
		return fail(err)
	}
	order := strings.Fields(string(text))
	old, err := succession.Of(os.NewFile(3, "old"))
	if err != nil {
		return fail(err)
	}
	own, other, err := succession.Pair()
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.ExtraFiles = []*os.File{other}
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", directEnv, os.Getpid()))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	other.Close()
	parent := os.Getppid()
	pass := func(from, to *succession.Conn) {
		for {
			var m successionMessage
			files, err := from.Receive(&m, time.Time{})
			if err != nil {
				if err != io.EOF {
					fmt.Fprintln(os.Stderr, "between:", err)
				}
				to.Close()
				return
			}
			if m.Stage == order[1] && order[0] == "new" {
				cmd.Process.Kill()
				cmd.Wait()
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			if m.Stage == order[1] && order[0] == "stall" {
				select {}
			}
			if m.Stage == order[1] && order[0] == "old" {
				syscall.Kill(parent, syscall.SIGKILL)
			}
			to.Send(m, files...)
			succession.CloseAll(files)
		}
	}
	go pass(old, own)
	pass(own, old)
	cmd.Wait()
	return 0
}

// Whoever is killed at whatever stage, the other goes on, as long as it has all there is: and before the new one was told to go on without a
// packet lost.
func TestUpgradeSurvivesKills(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	order := filepath.Join(a.dir, "order")
	a.env = append(a.env, betweenEnv+"="+order)
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	up := a.surroundings()
	upgrade := func(who, stage string) (out string, code int) {
		t.Helper()
		if err := os.WriteFile(order, []byte(who+" "+stage), 0o600); err != nil {
			t.Fatal(err)
		}
		return a.culvert("upgrade", "site")
	}
	pid := a.pid()
	end := numberedStream(t, a.host, b.host, "10.20.0.1", "10.20.0.2")
	for _, stage := range []string{stageBegin, stageHere, stageStores, stageHolds, stageEstate, stageFiles, stageReady} {
		if out, code := upgrade("new", stage); code != 1 || !strings.Contains(out, "the old process goes on, and nothing was lost") {
			t.Errorf("the new one killed at %s: %d, %s", stage, code, out)
		}
		if now := a.pid(); now != pid {
			t.Fatalf("process %d goes on, not %d", now, pid)
		}
	}
	if lost, sent := end(); lost != 0 || sent < 100 {
		t.Errorf("%d of twice %d packets were lost", lost, sent)
	}
	for _, stage := range []string{stageGo, stageRuns} {
		completed := a.tunnel().Handshakes.Completed
		if out, code := upgrade("new", stage); code != 1 || !strings.Contains(out, "the old process goes on, with new sessions") {
			t.Errorf("the new one killed at %s: %d, %s", stage, code, out)
		}
		a.reaches("10.20.0.2")
		if now := a.tunnel().Handshakes.Completed; a.pid() != pid || now == completed {
			t.Errorf("killed at %s: process %d, %d handshakes", stage, a.pid(), now-completed)
		}
	}
	a.same(up)
	a.must("reload", "site")

	// The old one dies.
	end = numberedStream(t, a.host, b.host, "fd20::1", "fd20::2")
	for _, stage := range []string{stageReady, stageGo, stageRuns} {
		old := a.pid()
		upgrade("old", stage)
		a.ended(old)
		a.reaches("10.20.0.2")
		if a.pid() == old {
			t.Errorf("killed at %s, process %d goes on", stage, old)
		}
	}
	if lost, sent := end(); lost != 0 || sent < 100 {
		t.Errorf("%d of twice %d packets were lost", lost, sent)
	}
	a.same(up)
	old := a.pid()
	upgrade("old", stageStores) // it has not handed over anything yet
	a.ended(old)
	a.eventually("the device has gone", "does not exist", "sh", "-c", "ip link show wg0 2>&1 || true")
	a.must("up", a.file)
	a.reaches("10.20.0.2")
	a.must("down", "site")
}
