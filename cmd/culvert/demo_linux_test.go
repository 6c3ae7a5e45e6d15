package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// demoCommand is "culvert demo", in the test's own namespace.
func demoCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, append([]string{"demo"}, args...)...)
	cmd.Args[0] = "culvert"
	return cmd
}

// leftovers are the namespaces and directories of the demo run by a process.
func leftovers(t *testing.T, pid int) (found []string) {
	t.Helper()
	for _, pattern := range []string{"/run/netns/", os.TempDir() + "/"} {
		list, err := filepath.Glob(pattern + demoPrefix + strconv.Itoa(pid) + "-*")
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, list...)
	}
	return found
}

func interfaces(t *testing.T) string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}

func checkDemo(t *testing.T, out []byte, devices, wire string, daemons int) {
	t.Helper()
	var r demoResult
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if r.Devices != devices || r.Wire != wire || r.Suite == "" || r.PostQuantum != (wire == "culvert") || (r.PathMTU > 0) != r.PostQuantum ||
		(r.TunnelRTT > 0) != r.PostQuantum || r.FirstPing <= 0 || r.RTT.Count == 0 || r.RTT.Min > r.RTT.Mean || r.RTT.Mean > r.RTT.Max ||
		r.Bytes == 0 || r.Rate <= 0 || r.Seconds <= 0 || len(r.PeakRSS) != daemons || r.PeakRSS[0] == 0 {
		t.Errorf("the result is %s", out)
	}
}

func TestDemo(t *testing.T) {
	lab.NeedNetns(t)
	lab.NeedTun(t)
	before := interfaces(t)
	for wire, args := range map[string][]string{"culvert": nil, "wireguard": {"--wire", "wireguard"}} {
		cmd := demoCommand(t, append(args, "--duration", "500ms", "--json")...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", wire, err, stderr.Bytes())
		}
		checkDemo(t, out, "tun", wire, 2)
		if left := leftovers(t, cmd.Process.Pid); left != nil {
			t.Errorf("left behind: %v", left)
		}
	}
	if after := interfaces(t); after != before {
		t.Errorf("interfaces before: %s, after: %s", before, after)
	}
}

// untilMeasuring starts a long demo and returns when TCP flows, with what it prints from then on still to be read.
func untilMeasuring(t *testing.T) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := demoCommand(t, "--duration", "1h")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	var seen bytes.Buffer
	for buf := make([]byte, 4096); !strings.Contains(seen.String(), "\nTCP "); {
		n, err := out.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v after\n%s", err, &seen)
		}
	}
	return cmd, out
}

func TestDemoInterrupted(t *testing.T) {
	lab.NeedNetns(t)
	lab.NeedTun(t)
	cmd, out := untilMeasuring(t)
	if leftovers(t, cmd.Process.Pid) == nil {
		t.Fatal("there are no namespaces: the test proves nothing")
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	if left := leftovers(t, cmd.Process.Pid); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// The next demo takes away what a killed one had no chance to; its daemons end with it.
func TestKilledDemoIsReaped(t *testing.T) {
	lab.NeedNetns(t)
	lab.NeedTun(t)
	cmd, _ := untilMeasuring(t)
	pid := cmd.Process.Pid
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if leftovers(t, pid) == nil {
		t.Fatal("the killed demo left nothing: the test proves nothing")
	}
	if out, err := demoCommand(t, "--duration", "100ms").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left := leftovers(t, pid); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// Without root both ends are in memory, and it says so.
func TestDemoWithoutRoot(t *testing.T) {
	cmd := demoCommand(t, "--duration", "300ms")
	if os.Geteuid() == 0 {
		// The program must lie where others than root can reach it.
		dir, err := os.MkdirTemp("", "culvert-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		program, err := os.ReadFile(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(dir, "culvert")
		if err := os.WriteFile(cmd.Path, program, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		cmd.Dir = "/"
	}
	text := *cmd
	out, err := text.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "network stacks in memory") || !strings.Contains(string(out), "TCP, one flow") ||
		!strings.Contains(string(out), "culvert (X25519 + ML-KEM-768, ") {
		t.Errorf("%v:\n%s", err, out)
	}
	asJSON := *cmd
	asJSON.Args = append(asJSON.Args, "--json")
	if out, err = asJSON.Output(); err != nil {
		t.Fatal(err)
	}
	checkDemo(t, out, "memory", "culvert", 1)
	cmd.Args = append(cmd.Args, "--json", "--wire", "wireguard")
	if out, err = cmd.Output(); err != nil {
		t.Fatal(err)
	}
	checkDemo(t, out, "memory", "wireguard", 1)
}

// Also at its very start, when the daemons are not up yet, what an interrupted demo says is true.
func TestDemoInterruptedAtStart(t *testing.T) {
	lab.NeedNetns(t)
	lab.NeedTun(t)
	cmd := demoCommand(t)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	if line, err := out.ReadString('\n'); err != nil || !strings.HasPrefix(line, "two namespaces") {
		t.Fatalf("first it said %q (%v)", line, err)
	}
	cmd.Process.Signal(os.Interrupt)
	io.Copy(io.Discard, out)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || stderr.String() != "culvert: interrupted; everything was taken away\n" {
		t.Errorf("it ended with %d and said %q", code, stderr.String())
	}
	if left := leftovers(t, cmd.Process.Pid); left != nil {
		t.Errorf("left behind: %v", left)
	}
}
