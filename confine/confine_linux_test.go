package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/internal/lab"
)

// childEnv names the folder of a process that is confined and says what it can still do, one thing a line.
const childEnv = "CONFINE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		runtime.LockOSThread() // as the daemon's first thread is
		child(dir)
		os.Exit(0)
	}
	lab.Main(m)
}

func child(dir string) {
	files := []Path{{filepath.Join(dir, "read"), Read}, {filepath.Join(dir, "write"), Write}, {filepath.Join(dir, "absent"), Read},
		{"/dev/null", Device}, {"/proc", Read}}
	if os.Getenv("CONFINE_TEST_FILES") == "no" {
		files = nil
	}
	r := Apply(Options{Files: files})
	fmt.Printf("files: %s\ncalls: %s\n", r.Files, r.Calls)
	try := func(what string, err error) {
		switch {
		case errors.Is(err, unix.EACCES):
			fmt.Println(what, "EACCES")
		case errors.Is(err, unix.EPERM):
			fmt.Println(what, "EPERM")
		default:
			fmt.Println(what, err)
		}
	}
	readFile := func(p string) error { _, err := os.ReadFile(p); return err }
	try("read", readFile(filepath.Join(dir, "read", "file")))
	try("shadow", readFile("/etc/shadow"))
	try("secret", readFile(filepath.Join(dir, "secret")))
	try("write", os.WriteFile(filepath.Join(dir, "write", "new"), nil, 0o600))
	try("rename", os.Rename(filepath.Join(dir, "write", "new"), filepath.Join(dir, "write", "newer")))
	try("write elsewhere", os.WriteFile(filepath.Join(dir, "read", "new"), nil, 0o600))
	try("exec", exec.Command("/bin/true").Run())
	// On every thread, those made before and those made after.
	var all sync.WaitGroup
	var mu sync.Mutex
	kinds := map[string]bool{}
	for range 16 {
		all.Go(func() {
			runtime.LockOSThread()
			_, _, errno := unix.Syscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0)
			err := readFile(filepath.Join(dir, "secret"))
			mu.Lock()
			defer mu.Unlock()
			kinds[fmt.Sprint(errno == unix.EPERM, errors.Is(err, unix.EACCES))] = true
		})
	}
	all.Wait()
	fmt.Println("threads", kinds)
	for name, call := range map[string]uintptr{"ptrace": unix.SYS_PTRACE, "bpf": unix.SYS_BPF, "keyctl": unix.SYS_KEYCTL, "module": unix.SYS_DELETE_MODULE,
		"mount": unix.SYS_MOUNT, "perf": unix.SYS_PERF_EVENT_OPEN, "uring": unix.SYS_IO_URING_SETUP, "kexec": unix.SYS_KEXEC_LOAD, "userfaultfd": unix.SYS_USERFAULTFD} {
		_, _, errno := unix.Syscall(call, 0, 0, 0)
		try(name, errno)
	}
	_, err := net.Listen("tcp", "127.0.0.1:0")
	try("listen", err)
}

// run confines a process and returns what it says of itself.
func run(t *testing.T, env ...string) string {
	t.Helper()
	lab.NeedRoot(t) // for whom nothing is refused otherwise
	dir := t.TempDir()
	for _, d := range []string{"read", "write"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"secret", "read/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(lab.BuildTest(t, "culvert/confine"))
	cmd.Env = append(append(os.Environ(), childEnv+"="+dir), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// hold holds what the process said against what it has to say.
func hold(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if !strings.Contains("\n"+out, "\n"+want+"\n") {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}

var callsGone = []string{"calls: ", "ptrace EPERM", "bpf EPERM", "keyctl EPERM", "module EPERM", "mount EPERM", "perf EPERM", "uring EPERM", "kexec EPERM",
	"userfaultfd EPERM", "listen <nil>"}

// What was taken is gone, for root and on every thread, and what was left can be used.
func TestRightsAreGone(t *testing.T) {
	out := run(t)
	if strings.Contains(out, "files: the kernel has no Landlock") {
		lab.Skip(t, out)
	}
	hold(t, out, append(callsGone, "files: ", "read <nil>", "shadow EACCES", "secret EACCES", "write <nil>", "rename <nil>", "write elsewhere EACCES",
		"exec EACCES", "threads map[true true:true]")...)
}

// System calls alone: files stay as they are.
func TestCallsAlone(t *testing.T) {
	hold(t, run(t, "CONFINE_TEST_FILES=no"), append(callsGone, "files: ", "shadow <nil>", "secret <nil>", "exec <nil>", "threads map[true false:true]")...)
}

// The filter answers by the instruction set and number, and no longer than the kernel takes.
func TestFilter(t *testing.T) {
	p := filter(append(append(append([]uintptr{}, refused...), mounting...), modules...))
	if len(p) > unix.BPF_MAXINSNS {
		t.Fatalf("%d instructions", len(p))
	}
	decide := func(arch, number uint32) uint32 {
		var a uint32
		for at := 0; ; at++ {
			switch i := p[at]; i.Code {
			case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
				a = map[uint32]uint32{offsetNumber: number, offsetArch: arch}[i.K]
			case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
				yes := a == i.K
				if i.Code&unix.BPF_JGE == unix.BPF_JGE {
					yes = a >= i.K
				}
				if yes {
					at += int(i.Jt)
				} else {
					at += int(i.Jf)
				}
			case unix.BPF_RET | unix.BPF_K:
				return i.K
			default:
				t.Fatalf("instruction %d: code %#x", at, i.Code)
			}
		}
	}
	const eperm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for _, c := range refused {
		if got := decide(arch, uint32(c)); got != eperm {
			t.Errorf("call %d: %#x", c, got)
		}
	}
	for _, c := range []uint32{unix.SYS_READ, unix.SYS_SENDMMSG, unix.SYS_SOCKET, unix.SYS_SETNS, unix.SYS_EXECVE} {
		if got := decide(arch, c); got != unix.SECCOMP_RET_ALLOW {
			t.Errorf("call %d: %#x", c, got)
		}
		if got := decide(unix.AUDIT_ARCH_I386, c); got != eperm {
			t.Errorf("call %d of another instruction set: %#x", c, got)
		}
		if got := decide(arch, c|0x40000000); got != eperm {
			t.Errorf("call %d of x32: %#x", c, got)
		}
	}
}
