package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup"
	"culvert/tunnel/loopguard"
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
	e := r.Ethernet
	if (e != nil) != (devices == "tap") || e != nil && (len(e.Neighbour) != 17 || e.EtherType != localExperimental || e.Switch == nil || !e.Switch.Carrier) {
		t.Errorf("of Ethernet it shows %+v", e)
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

// writeProbes has an end write what starts like a loop probe to its interface, as a tunnel does there, and much more often.
func writeProbes(t *testing.T, e *demoEnd) (stop func()) {
	t.Helper()
	var out *os.File
	if err := e.namespace.Do(func() (err error) {
		out, err = setup.OpenFrames("demo", loopguard.EtherType)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	frame := binary.BigEndian.AppendUint64(nil, uint64(loopguard.Destination)<<16|0x0263)
	frame = append(binary.BigEndian.AppendUint16(append(frame, 0, 0, 0, 1), loopguard.EtherType), "cvlp"...)
	frame = append(frame, make([]byte, 60-len(frame))...)
	ctx, cancel := context.WithCancel(t.Context())
	var sender sync.WaitGroup
	sender.Go(func() {
		defer out.Close()
		for ctx.Err() == nil {
			if _, err := out.Write(frame); err != nil && !errors.Is(err, syscall.ENOBUFS) {
				t.Error(err)
				return
			}
		}
	})
	return func() {
		cancel()
		sender.Wait()
	}
}

// What the demo looks for is found on a wire, and missed where there is none.
func TestEthernetSigns(t *testing.T) {
	lab.NeedNetns(t)
	a := &demoEnd{letter: "a", inner: netip.MustParseAddr("10.77.0.1")}
	b := &demoEnd{letter: "b", inner: netip.MustParseAddr("10.77.0.2")}
	var ends []setup.VethEnd
	for _, e := range []*demoEnd{a, b} {
		var err error
		if e.namespace, err = setup.NewNamespace(fmt.Sprintf("culvert-test-signs-%d-%s", os.Getpid(), e.letter)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.namespace.Delete(); err != nil {
				t.Error(err)
			}
		})
		ends = append(ends, setup.VethEnd{Namespace: e.namespace, Name: "demo", Addresses: []netip.Prefix{netip.PrefixFrom(e.inner, 24)}})
	}
	if err := setup.VethPair(ends[0], ends[1], 0); err != nil {
		t.Fatal(err)
	}
	lab.NeedProgram(t, "ip")
	for _, state := range []string{"down", "up"} { // the cable's other end
		if err := b.namespace.Do(func() error { return exec.Command("ip", "link", "set", "demo", state).Run() }); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, patience, "the end to see that the other is "+state, func() bool {
			running, err := a.running()
			return err == nil && running == (state == "up")
		})
	}
	if found, err := a.resolved(b); err == nil || !strings.Contains(err.Error(), "the neighbour table has \"\" for 10.77.0.2") {
		t.Errorf("before anything was sent: %v, %v", found, err)
	}
	if err := a.namespace.Do(func() error { // ARP, and an answer that nobody listens
		c, err := net.Dial("udp4", "10.77.0.2:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(patience))
		c.Read(make([]byte, 1))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	to, err := a.resolved(b)
	if err != nil {
		t.Fatal(err)
	}
	stop := writeProbes(t, a)
	if err := crossFrame(t.Context(), a, b, to); err != nil {
		t.Error(err)
	}
	stop()
	if err := crossFrame(t.Context(), a, b, net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0}); err != nil { // taken by a raw socket all the same
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := crossFrame(ctx, a, a, to); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("to itself: %v", err)
	}
}

func TestDemoTap(t *testing.T) {
	lab.NeedNetns(t)
	lab.NeedTun(t)
	before := interfaces(t)
	cmd := demoCommand(t, "--mode", "tap", "--duration", "500ms", "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	checkDemo(t, out, "tap", "culvert", 2)
	if left := leftovers(t, cmd.Process.Pid); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if out, err = demoCommand(t, "--mode", "tap", "--duration", "100ms").CombinedOutput(); err != nil ||
		!bytes.Contains(out, []byte("a frame of EtherType 0x88b6, which is not IP, crossed")) || !bytes.Contains(out, []byte("TCP, one flow")) {
		t.Errorf("%v\n%s", err, out)
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

// withoutRoot makes a command one of an ordinary user.
func withoutRoot(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if os.Geteuid() == 0 {
		// The program must lie where others than root can reach it.
		dir, err := os.MkdirTemp("", "culvert-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		program, err := os.ReadFile(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(dir, "culvert")
		lab.WriteProgram(t, cmd.Path, program, 0o755)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		cmd.Dir = "/"
	}
}

// Network stacks in memory know no Ethernet.
func TestDemoTapWithoutRoot(t *testing.T) {
	cmd := demoCommand(t, "--mode", "tap")
	withoutRoot(t, cmd)
	out, err := cmd.CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 1 || !strings.Contains(string(out), "culvert: --mode tap needs root and /dev/net/tun: not root\n") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// Without root both ends are in memory, and it says so.
func TestDemoWithoutRoot(t *testing.T) {
	cmd := demoCommand(t, "--duration", "300ms")
	withoutRoot(t, cmd)
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
