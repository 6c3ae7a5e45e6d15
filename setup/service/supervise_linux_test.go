package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/service"
	"golang.org/x/sys/unix"
)

// superviseEnv makes this test binary the supervisor of the state directory it names.
const superviseEnv = "CULVERT_TEST_SUPERVISE"

func TestMain(m *testing.M) {
	dir := os.Getenv(superviseEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	os.Unsetenv(superviseEnv)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	began := time.Now()
	err := service.Supervise(ctx, service.Options{Dir: dir, Now: func() time.Duration { return time.Since(began) },
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
		os.Exit(1)
	}
}

// keeper is an instance's kernel part with supervisors that write a log the test can read.
type keeper struct {
	*service.Kernel
	t     *testing.T
	dir   string
	logTo string

	mu      sync.Mutex
	started []*exec.Cmd
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{t: t, dir: filepath.Join(t.TempDir(), "state"), logTo: filepath.Join(t.TempDir(), "log")}
	k.Kernel = service.New(k.dir, k.supervisor)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the supervisors' log:\n%s", k.log())
		}
		// Whatever became of the test, nothing of it goes on.
		k.signal(syscall.SIGTERM)
		lab.Eventually(t, 20*time.Second, "the supervisors have ended", func() bool { return !k.alive() })
		list, err := k.Status(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, s := range list {
			if _, err := k.Do(context.Background(), &plan.Step{Op: plan.Delete, ID: s.ID}); err != nil {
				t.Error(err)
			}
		}
	})
	return k
}

func (k *keeper) supervisor() *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		k.t.Error(err)
	}
	log, err := os.OpenFile(k.logTo, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		k.t.Error(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), superviseEnv+"="+k.dir)
	cmd.Stderr = log
	k.mu.Lock()
	defer k.mu.Unlock()
	k.started = append(k.started, cmd)
	return cmd
}

func (k *keeper) log() string {
	text, _ := os.ReadFile(k.logTo)
	return string(text)
}

// pid is that of the supervisor, found by the lock it has, 0 where there is none.
func (k *keeper) pid() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.started {
		if c.Process != nil && syscall.Kill(c.Process.Pid, 0) == nil {
			return c.Process.Pid
		}
	}
	return 0
}

func (k *keeper) alive() bool { return k.pid() != 0 }

func (k *keeper) signal(s syscall.Signal) {
	if pid := k.pid(); pid != 0 {
		_ = syscall.Kill(pid, s)
	}
}

// killSupervisor does what a crash does.
func (k *keeper) killSupervisor() {
	k.t.Helper()
	if !k.alive() {
		k.t.Fatal("no supervisor runs")
	}
	k.signal(syscall.SIGKILL)
	lab.Eventually(k.t, 10*time.Second, "the supervisor has ended", func() bool { return !k.alive() })
}

// create creates a thing and returns what runs then.
func (k *keeper) create(id model.ID, fields model.Fields) service.Status {
	k.t.Helper()
	if _, err := k.Do(k.t.Context(), &plan.Step{Op: plan.Create, ID: id, Fields: fields}); err != nil {
		k.t.Fatal(err)
	}
	return k.status(id)
}

func (k *keeper) delete(id model.ID) {
	k.t.Helper()
	if _, err := k.Do(k.t.Context(), &plan.Step{Op: plan.Delete, ID: id}); err != nil {
		k.t.Fatal(err)
	}
}

// read returns what the kernel part reads.
func (k *keeper) read() map[model.ID]*model.Object {
	k.t.Helper()
	s, err := k.Read(k.t.Context(), model.Scope{})
	if err != nil {
		k.t.Fatal(err)
	}
	return s.Objects
}

// status returns what is known of one thing.
func (k *keeper) status(id model.ID) service.Status {
	k.t.Helper()
	list, err := k.Status(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	for _, s := range list {
		if s.ID == id {
			return s
		}
	}
	return service.Status{}
}

// gone checks that no process and no file is left.
func (k *keeper) gone(pids ...int) {
	k.t.Helper()
	for _, pid := range pids {
		if pid > 0 && isRunning(pid) {
			k.t.Errorf("process %d still runs", pid)
		}
	}
	if _, err := os.Lstat(k.dir); !os.IsNotExist(err) {
		out, _ := exec.Command("find", k.dir).CombinedOutput()
		k.t.Errorf("files are left:\n%s", out)
	}
	if k.alive() {
		lab.Eventually(k.t, 5*time.Second, "the supervisor has been waited for", func() bool { return !k.alive() })
	}
}

func jsonList(t *testing.T, list ...string) model.Value {
	t.Helper()
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return model.Value(text)
}

// isRunning reports whether a process is there and no zombie.
func isRunning(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// netnsOf returns the number of a process's network namespace.
func netnsOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// output runs a program and returns what it wrote to stdout; the error holds what it wrote to stderr.
func output(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return out, err
}
