package handover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup/handover"
	"golang.org/x/sys/unix"
)

// receiveEnv makes this test binary receive at the socket it names and say what it got.
const receiveEnv = "CULVERT_TEST_RECEIVE"

func TestMain(m *testing.M) {
	socket := os.Getenv(receiveEnv)
	if socket == "" {
		os.Exit(m.Run())
	}
	offer, files, err := handover.Receive(context.Background(), socket)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("received", len(files), offer.Device)
}

// receiver returns a process of another user that asks at a socket.
func receiver(t *testing.T, socket string, uid, gid uint32, groups ...uint32) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A copy others may run.
	path := filepath.Join(filepath.Dir(socket), "receiver")
	if _, err := os.Stat(path); err != nil {
		data, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		lab.WriteProgram(t, path, data, 0o755)
	}
	cmd := exec.Command(path)
	cmd.Env = []string{receiveEnv + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	return cmd
}

// folder is one that others may enter, for sockets.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "handover")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

type log struct {
	t  *testing.T
	mu sync.Mutex
	b  strings.Builder
}

func (l *log) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.b, format+"\n", args...)
}

func (l *log) text() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// listen begins a hand-over that ends with the test.
func listen(t *testing.T, d handover.Device) (*handover.Listener, *log) {
	t.Helper()
	g := &log{t: t}
	l, err := handover.Listen(d, nil, g.printf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, g
}

func withTap(t *testing.T, arguments ...string) *lab.Host {
	t.Helper()
	lab.NeedTun(t)
	h := lab.NewHost(t, "vm")
	h.Shell("ip", append([]string{"tuntap", "add", "name", "vnet1", "mode", "tap"}, arguments...)...)
	h.Shell("ip", "link", "set", "vnet1", "up")
	return h
}

func close(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func TestTapIsHandedOver(t *testing.T) {
	t.Parallel()
	h := withTap(t, "vnet_hdr")
	socket := filepath.Join(folder(t), "deep", "er", "vm1.sock")
	l, _ := listen(t, handover.Device{Netns: h.Namespace.Name(), Name: "vnet1", Queues: 1, Socket: socket})
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v, want mode 0600", st.Mode(), err)
	}
	carrier := func() bool { return !strings.Contains(h.Shell("ip", "link", "show", "vnet1"), "NO-CARRIER") }
	// The kernel shows a change of carrier a moment later.
	lab.Eventually(t, 10*time.Second, "no carrier before anybody has the tap", func() bool { return !carrier() })
	offer, files, err := handover.Receive(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer close(files)
	if len(files) != 1 || offer.Device != "vnet1" || offer.Kind != "tap" || !offer.VNetHdr || offer.MTU != 1500 || offer.Queues != 1 {
		t.Errorf("%d files, %+v", len(files), offer)
	}
	if flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, err)
	}
	lab.Eventually(t, 10*time.Second, "the tap has carrier", carrier)
	// It works: what the host sends to the tap comes out behind a virtio-net header.
	frame := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, 0x88, 0xb5, 'h', 'i')
	frame = append(frame, make([]byte, 60-len(frame))...)
	sendFrame(t, h, "vnet1", frame)
	if got := readFrame(t, files, frame[:16]); len(got) != 10+len(frame) {
		t.Errorf("%d bytes, want a header of 10 and %d", len(got), len(frame))
	}
	// Nobody else gets a part of the frames.
	if _, more, err := handover.Receive(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "device or resource busy") {
		t.Errorf("a second receiver: %d files, %v", len(more), err)
	}
	// Until the first has ended.
	close(files)
	lab.Eventually(t, 5*time.Second, "the next one gets it", func() bool {
		_, files, err = handover.Receive(t.Context(), socket)
		return err == nil
	})
	close(files)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{socket, filepath.Dir(socket), filepath.Dir(filepath.Dir(socket))} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left", path)
		}
	}
}

// sendFrame sends a frame out by a device.
func sendFrame(t *testing.T, h *lab.Host, device string, frame []byte) {
	t.Helper()
	h.Must(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
}

// readFrame reads from any of the queues until a frame comes with that beginning.
func readFrame(t *testing.T, queues []*os.File, beginning []byte) []byte {
	t.Helper()
	buffer := make([]byte, 4096)
	poll := make([]unix.PollFd, len(queues))
	for i, f := range queues {
		poll[i] = unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLIN}
	}
	for range 100 {
		if n, err := unix.Poll(poll, 5000); err != nil || n == 0 {
			t.Fatalf("no frame: %v", err)
		}
		for i, f := range queues {
			if poll[i].Revents == 0 {
				continue
			}
			n, err := f.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(buffer[:n], beginning) {
				return buffer[:n]
			}
		}
	}
	t.Fatal("a hundred other frames")
	return nil
}

func TestSeveralQueues(t *testing.T) {
	t.Parallel()
	h := withTap(t, "multi_queue")
	socket := filepath.Join(folder(t), "vm.sock")
	listen(t, handover.Device{Netns: h.Namespace.Name(), Name: "vnet1", Queues: 4, Socket: socket})
	offer, files, err := handover.Receive(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer close(files)
	if len(files) != 4 || offer.Queues != 4 || offer.VNetHdr {
		t.Errorf("%d files, %+v", len(files), offer)
	}
	if _, _, err := handover.Receive(t.Context(), socket); err == nil {
		t.Error("a second receiver got queues")
	}
}

func TestMacvtapIsHandedOver(t *testing.T) {
	t.Parallel()
	a, b := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	for _, h := range []*lab.Host{a, b} { // devices of one index in both
		h.Shell("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
		h.Shell("ip", "link", "set", "eth0", "up")
		h.Shell("ip", "link", "set", "far", "up")
		if err := h.Run(h.Command(t.Context(), "ip", "link", "add", "link", "eth0", "name", "macvtap0", "type", "macvtap", "mode", "bridge")); err != nil {
			lab.Skip(t, "needs macvtap: "+err.Error())
		}
		h.Shell("ip", "link", "set", "macvtap0", "up")
	}
	for _, h := range []*lab.Host{a, b} {
		socket := filepath.Join(folder(t), "vm.sock")
		_, g := listen(t, handover.Device{Netns: h.Namespace.Name(), Name: "macvtap0", Queues: 2, Socket: socket})
		offer, files, err := handover.Receive(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		defer close(files)
		if len(files) != 2 || offer.Kind != "macvtap" || !strings.Contains(h.Shell("ip", "link", "show", "macvtap0"), offer.MAC) {
			t.Errorf("%d files, %+v", len(files), offer)
		}
		frame := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, 0x88, 0xb5)
		frame = append(append(frame, h.Name...), make([]byte, 60)...)
		sendFrame(t, h, "far", frame)
		readFrame(t, files, frame[:15])
		// A macvtap would let everybody in: who has it is found in /proc.
		_, _, err = handover.Receive(t.Context(), socket)
		if want := fmt.Sprintf("process %d has it open", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q\n%s", err, want, g.text())
		}
	}
}

func TestWhoMayHaveIt(t *testing.T) {
	t.Parallel()
	const user, group, stranger = 60001, 60002, 60003
	id := func(n uint32) *uint32 { return &n }
	h := withTap(t)
	for name, c := range map[string]struct {
		device handover.Device
		cmd    func(socket string) *exec.Cmd
		says   string
	}{
		"root":                                   {handover.Device{}, func(s string) *exec.Cmd { return receiver(t, s, 0, 0) }, "received 1 vnet1"},
		"the socket's mode keeps a stranger out": {handover.Device{}, func(s string) *exec.Cmd { return receiver(t, s, stranger, stranger) }, "permission denied"},
		"whatever the mode, a stranger gets nothing": {handover.Device{Mode: 0o666}, func(s string) *exec.Cmd { return receiver(t, s, stranger, stranger) },
			"of user 60003 may not have vnet1"},
		"the owner": {handover.Device{Owner: id(user)}, func(s string) *exec.Cmd { return receiver(t, s, user, stranger) }, "received 1 vnet1"},
		"a member of the group": {handover.Device{Mode: 0o660, Group: id(group)}, func(s string) *exec.Cmd { return receiver(t, s, stranger, group) },
			"received 1 vnet1"},
		"another member": {handover.Device{Mode: 0o660, Group: id(group)}, func(s string) *exec.Cmd { return receiver(t, s, stranger, stranger, 5, group) },
			"received 1 vnet1"},
		"a group that may not write": {handover.Device{Mode: 0o606, Group: id(group)}, func(s string) *exec.Cmd { return receiver(t, s, stranger, group) }, "permission denied"},
	} {
		d := c.device
		d.Netns, d.Name, d.Queues, d.Socket = h.Namespace.Name(), "vnet1", 1, filepath.Join(folder(t), "vm.sock")
		l, _ := listen(t, d)
		var out []byte
		lab.Eventually(t, 5*time.Second, "the one before has ended", func() bool {
			out, _ = c.cmd(d.Socket).CombinedOutput()
			return !strings.Contains(string(out), "busy")
		})
		if !strings.Contains(string(out), c.says) {
			t.Errorf("%s: %s, want %q", name, out, c.says)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSilentReceiver: somebody who connects and does nothing does not keep others out for long.
func TestSilentReceiver(t *testing.T) {
	t.Parallel()
	h := withTap(t)
	socket := filepath.Join(folder(t), "vm.sock")
	listen(t, handover.Device{Netns: h.Namespace.Name(), Name: "vnet1", Queues: 1, Socket: socket})
	silent, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	lab.Eventually(t, 10*time.Second, "another gets an answer", func() bool {
		_, _, err := handover.Receive(t.Context(), socket)
		// The silent one's descriptors are in its socket's buffer: the tap is his.
		return err != nil && strings.Contains(err.Error(), "busy")
	})
	silent.Close()
	lab.Eventually(t, 10*time.Second, "another gets the tap", func() bool {
		_, files, err := handover.Receive(t.Context(), socket)
		close(files)
		return err == nil
	})
}

func TestForeignFilesStay(t *testing.T) {
	t.Parallel()
	lab.NeedRoot(t)
	socket := filepath.Join(folder(t), "vm.sock")
	d := handover.Device{Name: "vnet1", Queues: 1, Socket: socket}
	if err := os.WriteFile(socket, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := handover.Listen(d, nil, t.Logf); err == nil || !strings.Contains(err.Error(), "is not culvert's") {
		t.Errorf("%v", err)
	}
	if _, err := handover.Listen(d, &handover.Mark{Dev: 1, Inode: 2}, t.Logf); err == nil {
		t.Error("a stale mark of another file removed this one")
	}
	if text, err := os.ReadFile(socket); string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
	os.Remove(socket)
	l, err := handover.Listen(d, nil, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	// What an earlier process left is replaced, by its mark.
	mark := l.Mark()
	l2, err := handover.Listen(d, &mark, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("the first one's end removed the second one's socket: %v", err)
	}
	if err := l2.Close(); err != nil {
		t.Error(err)
	}
	// Nor does the end remove what somebody has put in its place.
	l, err = handover.Listen(d, nil, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(socket)
	os.WriteFile(socket, []byte("precious"), 0o644)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(socket); string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestListenRefuses(t *testing.T) {
	for name, d := range map[string]handover.Device{
		"a relative path":    {Name: "x", Queues: 1, Socket: "vm.sock"},
		"no queue":           {Name: "x", Socket: filepath.Join(t.TempDir(), "s")},
		"too many":           {Name: "x", Queues: 254, Socket: filepath.Join(t.TempDir(), "s")},
		"a strange mode":     {Name: "x", Queues: 1, Mode: os.ModeSetuid | 0o600, Socket: filepath.Join(t.TempDir(), "s")},
		"a path too long":    {Name: "x", Queues: 1, Socket: filepath.Join(t.TempDir(), strings.Repeat("x", 120))},
		"below a plain file": {Name: "x", Queues: 1, Socket: "/proc/version/s"},
	} {
		if l, err := handover.Listen(d, nil, t.Logf); err == nil {
			t.Errorf("%s: no error", name)
			l.Close()
		}
	}
}

// TestWrongDevices: the answer says what is wrong.
func TestWrongDevices(t *testing.T) {
	t.Parallel()
	h := withTap(t)
	h.Shell("ip", "tuntap", "add", "name", "tun1", "mode", "tun")
	for name, c := range map[string]struct {
		device handover.Device
		says   string
	}{
		"missing":        {handover.Device{Name: "nothing"}, "Link not found"},
		"no device's":    {handover.Device{Name: "lo"}, "which no virtual machine can have"},
		"a tun":          {handover.Device{Name: "tun1"}, "it is a tun"},
		"another by now": {handover.Device{Name: "vnet1", Index: 1}, "by now, not 1"},
		"single queue":   {handover.Device{Name: "vnet1", Queues: 2}, "2 queues of a tap that has one"},
	} {
		d := c.device
		d.Netns, d.Queues, d.Socket = h.Namespace.Name(), max(1, d.Queues), filepath.Join(folder(t), "vm.sock")
		listen(t, d)
		if _, _, err := handover.Receive(t.Context(), d.Socket); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// TestStrangeAnswers: who listens at a socket may be anybody.
func TestStrangeAnswers(t *testing.T) {
	before := descriptors(t)
	for name, c := range map[string]struct {
		answer string
		files  int
		says   string
	}{
		"nothing":             {"", 0, "EOF"},
		"no JSON":             {"hello\n", 0, "not understood"},
		"no end":              {`{"queues":1}`, 1, "cut short"},
		"no descriptors":      {`{"queues":1}` + "\n", 0, "0 descriptors came"},
		"another number":      {`{"queues":1}` + "\n", 2, "2 descriptors came"},
		"an error with files": {`{"error":"go away"}` + "\n", 1, "go away"},
		"too long":            {strings.Repeat("x", 10000) + "\n", 0, "cut short"},
	} {
		socket := filepath.Join(folder(t), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			var rights []byte
			if c.files > 0 {
				rights = unix.UnixRights(make([]int, c.files)...)
			}
			if c.answer != "" {
				conn.WriteMsgUnix([]byte(c.answer), rights, nil)
			}
			conn.Close()
		}()
		if _, files, err := handover.Receive(t.Context(), socket); err == nil || !strings.Contains(err.Error(), c.says) || files != nil {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		l.Close()
	}
	lab.Eventually(t, 5*time.Second, "no descriptor stays open", func() bool { return descriptors(t) <= before })
	// A silent one is waited for as long as the caller wants.
	socket := filepath.Join(folder(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := handover.Receive(ctx, socket); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
