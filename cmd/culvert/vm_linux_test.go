package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/control"
	"culvert/internal/lab"
)

// fakeInstance answers for a daemon whose tunnels the test makes itself.
type fakeInstance struct {
	mu sync.Mutex
	in control.Instance
}

func (f *fakeInstance) change(change func(*control.Instance)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.in)
}

func (f *fakeInstance) Status() (in control.Instance) {
	f.change(func(now *control.Instance) { in = *now })
	in.Tunnels = slices.Clone(in.Tunnels)
	return in
}

func (f *fakeInstance) Reload(context.Context) ([]string, error) { return nil, nil }
func (f *fakeInstance) Down(context.Context) error               { return nil }

// vmSite is a site where the instance office "runs", with a tap office.
type vmSite struct {
	*site
	instance *fakeInstance
	tunnel   *os.File // the tunnel's end of the tap
}

func newVMSite(t *testing.T) *vmSite {
	t.Helper()
	s := &vmSite{site: newSite(t, "vm")}
	s.tunnel = s.host.OpenTap("office")
	s.host.Sysctl("net/ipv6/conf/office/disable_ipv6", "1")
	s.host.Up("office")
	daemon := s.host.Command(t.Context(), "sleep", "3600")
	if err := s.host.Start(daemon); err != nil {
		t.Fatal(err)
	}
	s.instance = &fakeInstance{in: control.Instance{Name: "office", Kind: "up", PID: daemon.Process.Pid,
		Tunnels: []control.Tunnel{{Interface: "office", Mode: "tap", PublicKey: s.pub}}}}
	l, err := control.Listen(filepath.Join(s.run, "run/culvert"), "office")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		l.Serve(s.instance)
	}()
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	return s
}

// ports is what the host has of devices and of what is hung on office.
func (s *vmSite) ports() string {
	return s.host.Shell("sh", "-c", "ls /sys/class/net; tc qdisc show dev office; tc filter show dev office ingress")
}

// start starts this program; what it writes comes into the buffer.
func (s *vmSite) start(args ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	cmd, out := s.command(args...), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := s.host.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	return cmd, out
}

func (s *vmSite) await(file string) string {
	s.t.Helper()
	var text []byte
	lab.Eventually(s.t, patience, file+" is written", func() bool {
		text, _ = os.ReadFile(filepath.Join(s.dir, file))
		return bytes.HasSuffix(text, []byte("\n"))
	})
	return strings.TrimSpace(string(text))
}

// A command has the port as a descriptor or a name, and the same words in its arguments and its environment.
func TestVMRunsACommand(t *testing.T) {
	t.Parallel()
	s := newVMSite(t)
	before := s.ports()
	const show = `echo "$CULVERT_TAP_NAME $CULVERT_TAP_MAC $CULVERT_TAP_MTU fd=$CULVERT_TAP_FD; $*"; ip -br link show "$CULVERT_TAP_NAME"
ls /proc/self/fd; exit 7`
	s.host.SetMTU("office", 1400)
	var macs []string
	for _, test := range []struct {
		options []string
		name    string
		fd      string
	}{
		{nil, "vmtap0", "3"},
		{[]string{"office"}, "vmtap0", "3"},
		{[]string{"--macvtap", "guest1"}, "guest1", "3"},
		{[]string{"--tap", "guest2"}, "guest2", ""},
	} {
		arg := "on {name} {mac} {mtu}"
		if test.fd != "" {
			arg += " fd {fd}"
		}
		out, code := s.culvert(append(append([]string{"vm", "office"}, test.options...), "--", "sh", "-c", show, "sh", arg)...)
		fields := strings.Fields(out)
		if code != 7 || len(fields) < 4 {
			t.Fatalf("%v: it ended with %d:\n%s", test.options, code, out)
		}
		mac := fields[1]
		macs = append(macs, mac)
		want := fmt.Sprintf("%s %s 1400 fd=%s; on %[1]s %[2]s 1400", test.name, mac, test.fd)
		if test.fd != "" {
			want += " fd " + test.fd
		}
		if !strings.HasPrefix(out, want+"\n") || !strings.Contains(out, "\n"+test.name) {
			t.Errorf("%v: it wrote\n%swant\n%s", test.options, out, want)
		}
		if hw, err := net.ParseMAC(mac); err != nil || hw[0]&3 != 2 || mac != macs[0] {
			t.Errorf("%v: the machine's address is %s, %v, want a locally administered one, always the same", test.options, mac, err)
		}
		if after := s.ports(); after != before {
			t.Errorf("%v: before:\n%s\nafter:\n%s", test.options, before, after)
		}
	}
	if out, code := s.culvert("vm", "office", "--", "sh", "-c", "kill -USR1 $$"); code != 128+int(syscall.SIGUSR1) {
		t.Errorf("a command that a signal ended: %d:\n%s", code, out)
	}
	if out, code := s.culvert("vm", "office", "--", "true"); code != 0 || out != "" {
		t.Errorf("it ended with %d and wrote %q", code, out)
	}
	if after := s.ports(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestVMRefusals(t *testing.T) {
	t.Parallel()
	s := newVMSite(t)
	s.host.Shell("ip", "tuntap", "add", "mode", "tap", "name", "taken")
	s.host.Shell("ip", "tuntap", "add", "mode", "tun", "name", "wg0")
	add := func(t control.Tunnel) {
		s.instance.change(func(in *control.Instance) { in.Tunnels = append(in.Tunnels, t) })
	}
	add(control.Tunnel{Interface: "wg0", Mode: "tun"})
	before := s.ports()
	plain := filepath.Join(s.dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(1, "nothing called home is running", "vm", "home", "--", "true")
	s.refused(1, "office has no tunnel lab", "vm", "office", "lab", "--", "true")
	s.refused(1, "it is a tun, not a tap", "vm", "office", "wg0", "--", "true")
	for _, option := range []string{"--tap", "--macvtap"} {
		s.refused(1, "already", "vm", "office", option, "taken", "--", "true")
	}
	s.refused(127, "not found", "vm", "office", "--", "culvert-has-no-such-command")
	s.refused(127, "no such file", "vm", "office", "--", "/nonexistent/command")
	s.refused(126, "permission denied", "vm", "office", "--", plain)
	s.refused(1, "no socket", "vm", "office", "--socket", plain)
	if after := s.ports(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	s.host.OpenTap("second")
	add(control.Tunnel{Interface: "second", Mode: "tap"})
	s.refused(1, "culvert vm office office|second", "vm", "office", "--", "true")
	s.instance.change(func(in *control.Instance) { in.Tunnels = in.Tunnels[1:2] })
	s.refused(1, "mode: tap", "vm", "office", "--", "true")
	s.instance.change(func(in *control.Instance) { in.PID = os.Getpid() })
	s.refused(1, fmt.Sprintf("nsenter --net=/proc/%d/ns/net", os.Getpid()), "vm", "office", "--", "true")
}

// Signals are the command's, and however it ends the port goes.
func TestVMPassesSignalsOn(t *testing.T) {
	t.Parallel()
	for _, option := range []string{"--macvtap", "--tap"} {
		for sig, name := range map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGINT: "INT", syscall.SIGHUP: "HUP"} {
			s := newVMSite(t)
			before := s.ports()
			cmd, out := s.start("vm", "office", option, "vm1", "--", "sh", "-c",
				"trap 'echo got "+name+" > got; kill -KILL $sleep; exit 5' "+name+"; sleep 3600 & sleep=$!; echo up > up; wait")
			s.await("up")
			if !s.host.HasLink("vm1") {
				t.Error("there is no port")
			}
			s.kill(cmd.Process.Pid, sig)
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 5 {
				t.Errorf("%s, %v: it ended with %d:\n%s", option, sig, code, out)
			}
			if got := s.await("got"); got != "got "+name {
				t.Errorf("%v: the command %s", sig, got)
			}
			if after := s.ports(); after != before {
				t.Errorf("%s, %v: before:\n%s\nafter:\n%s", option, sig, before, after)
			}
		}
	}
}

// The command of a killed one is told to end, and the port goes with the next start.
func TestVMKilled(t *testing.T) {
	t.Parallel()
	for _, option := range []string{"--macvtap", "--tap"} {
		s := newVMSite(t)
		before := s.ports()
		cmd, _ := s.start("vm", "office", option, "vm1", "--", "sh", "-c",
			"trap 'echo ended > ended; kill -KILL $sleep; exit' TERM; sleep 3600 & sleep=$!; echo up > up; wait")
		s.await("up")
		s.kill(cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		s.await("ended")
		if !s.host.HasLink("vm1") {
			t.Fatal("the port went by itself; nothing is shown")
		}
		s.must("vm", "office", "--tap", "vm2", "--", "true")
		if after := s.ports(); after != before {
			t.Errorf("%s: before:\n%s\nafter:\n%s", option, before, after)
		}
	}
}

// receiveDescriptor is what a launcher does.
func receiveDescriptor(t *testing.T, path string) *os.File {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data, oob := make([]byte, 8), make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(data, oob)
	if err != nil || n != 1 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v, %v", fds, err)
	}
	syscall.CloseOnExec(fds[0])
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "macvtap")
	t.Cleanup(func() { f.Close() })
	return f
}

func TestVMSocket(t *testing.T) {
	t.Parallel()
	s := newVMSite(t)
	before := s.ports()
	path := filepath.Join(s.dir, "vm.sock")
	listens := func() bool {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	// A killed one's socket is in the way of nobody.
	killed, _ := s.start("vm", "office", "--socket", path)
	lab.Eventually(t, patience, "it listens", listens)
	s.kill(killed.Process.Pid, syscall.SIGKILL)
	_ = killed.Wait()

	cmd, out := s.start("vm", "office", "--macvtap", "vm1", "--socket", path)
	lab.Eventually(t, patience, "it listens", listens)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st.Mode(), err)
	}
	s.refused(1, "room for one", "vm", "office", "--", "true")
	frame := append(bytes.Repeat([]byte{0xff}, 6), "\x52\x54\x00\x00\x00\x01\x88\xb5 to all"...)
	frame = append(frame, make([]byte, 60)...)
	for range 2 { // each client gets it
		f := receiveDescriptor(t, path)
		const header = 10 // virtio-net's
		for _, way := range []struct {
			from, to      *os.File
			before, after int
		}{{f, s.tunnel, header, 0}, {s.tunnel, f, 0, header}} {
			if _, err := way.from.Write(append(make([]byte, way.before), frame...)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 2000)
			if err := way.to.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			n, err := way.to.Read(got)
			if err != nil || !bytes.Equal(got[way.after:n], frame) {
				t.Errorf("%x came through, %v, want %x", got[:n], err, frame)
			}
		}
		f.Close()
	}
	s.kill(cmd.Process.Pid, syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(out.String(), "vm1, MTU 1500, is handed over at "+path) {
		t.Errorf("it wrote %q", out)
	}
	if exists(path) {
		t.Error("the socket is left")
	}
	if after := s.ports(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A macvtap goes with the tunnel's interface: whoever starts it is told.
func TestVMSurvivesTheTunnel(t *testing.T) {
	t.Parallel()
	s := newVMSite(t)
	path := filepath.Join(s.dir, "vm.sock")
	handing, _ := s.start("vm", "office", "--socket", path)
	lab.Eventually(t, patience, "it listens", func() bool { return exists(path) })
	s.tunnel.Close()
	if err := handing.Wait(); err == nil {
		t.Error("it ended with 0")
	}
	tunnel := s.host.OpenTap("office")
	s.host.Up("office")
	cmd, out := s.start("vm", "office", "--", "sh", "-c", "echo up > up; exec sleep 3600")
	s.await("up")
	tunnel.Close()
	lab.Eventually(t, patience, "the port has gone", func() bool { return !s.host.HasLink("vmtap0") })
	time.Sleep(200 * time.Millisecond) // for the word of it, whose buffer is not to be read before the end
	s.kill(cmd.Process.Pid, syscall.SIGTERM)
	if _ = cmd.Wait(); !strings.Contains(out.String(), "the port is gone") || !strings.Contains(out.String(), "--tap") {
		t.Errorf("it wrote %q", out)
	}
}
