package setup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/setup/thread"
)

// errOtherNamespace refuses what was meant for an earlier namespace of the same name.
var errOtherNamespace = errors.New("another namespace has that name by now")

// ErrExited is returned by [Namespace.Do] when its function ended its goroutine (runtime.Goexit, as t.FailNow does).
var ErrExited = errors.New("the function ended its goroutine")

// Namespace is a named network namespace, as made by "ip netns add". Its methods may be called concurrently.
type Namespace struct {
	name string
	fd   int // the namespace itself; keeps it alive until Delete

	mu       sync.Mutex
	launcher *launcher // started by the first Start
	mounts   []string  // what PrivateMounts asked for
	deleted  bool
}

// NewNamespace makes the network namespace of that name, its loopback interface up. The name shows up in
// "ip netns list"; one that exists already is refused with os.ErrExist.
func NewNamespace(name string) (*Namespace, error) {
	return makeNamespace(name, func() error { return nil })
}

// MakeNamespace is like [NewNamespace] but keeps nothing open. It calls prepare on a thread in the new namespace before that gets its
// name; where prepare fails there will be none.
func MakeNamespace(name string, prepare func() error) error {
	n, err := makeNamespace(name, prepare)
	if err != nil {
		return err
	}
	unix.Close(n.fd)
	return nil
}

func makeNamespace(name string, prepare func() error) (*Namespace, error) {
	if err := checkNamespaceName(name); err != nil {
		return nil, &OpError{Op: "create namespace", Item: name, Err: err}
	}
	fail := func(err error) (*Namespace, error) {
		return nil, &OpError{Op: "create namespace", Item: name, Err: err, Hint: permissionHint(err)}
	}
	if err := shareNetnsDir(); err != nil {
		return fail(err)
	}
	path := filepath.Join(netnsDir, name)
	n := &Namespace{name: name, fd: -1}
	named := false
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
		if err := prepare(); err != nil {
			return err
		}
		// Only now: whoever is killed between this and the mount leaves an empty file, and making a namespace takes a while.
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f.Close()
		named = true
		if err := unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
		n.fd, err = openThreadNetns()
		return err
	})
	if err != nil {
		if n.fd >= 0 {
			unix.Close(n.fd)
		}
		if named {
			removeNamespaceFile(name)
		}
		return fail(err)
	}
	return n, nil
}

func checkNamespaceName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return errors.New("not a usable name")
	case len(name) > 200:
		return errors.New("the name is longer than 200 bytes")
	case strings.ContainsAny(name, "/\x00\n"):
		return errors.New("the name contains a slash, a newline or a zero byte")
	}
	return nil
}

// shareNetnsDir makes the directory of named namespaces and lets mounts in it propagate to other mount namespaces,
// without which a namespace deleted here would live on in every mount namespace copied meanwhile.
func shareNetnsDir() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(netnsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Two processes at once would stack two bind mounts and hide each other's namespaces.
	if err := flock(int(dir.Fd())); err != nil {
		return fmt.Errorf("lock %s: %w", netnsDir, err)
	}
	err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return wrapMount(err)
	}
	if err := unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return wrapMount(err)
	}
	return wrapMount(unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, ""))
}

func wrapMount(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mount %s: %w", netnsDir, err)
}

// flock takes the exclusive lock on a descriptor; closing it releases the lock.
func flock(fd int) error {
	for {
		err := unix.Flock(fd, unix.LOCK_EX)
		if err != unix.EINTR {
			return err
		}
	}
}

func removeNamespaceFile(name string) error {
	path := filepath.Join(netnsDir, name)
	// EINVAL: the file is there but nothing is mounted on it; ENOENT: both are gone.
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err == unix.EINVAL || err == unix.ENOENT {
		err = nil
	}
	if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) && err == nil {
		err = rerr
	}
	return err
}

// Name returns the namespace's name.
func (n *Namespace) Name() string { return n.name }

// Path returns the file the namespace is mounted on, which open(2), setns(2) and [L3] take.
func (n *Namespace) Path() string { return filepath.Join(netnsDir, n.name) }

// Do runs f on a thread of its own inside the namespace and returns its error; the thread ends with f. Sockets and
// devices opened by f stay in the namespace and may be used anywhere afterwards. Goroutines started by f run outside
// (that includes net.Dial to a name or to several addresses). A process started by f with Pdeathsig set would end with
// the thread: use [Namespace.Start].
func (n *Namespace) Do(f func() error) error {
	fd, err := n.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return inNamespace(fd, f)
}

// open returns a descriptor of the namespace that the caller has to close: n.fd itself may be closed, and its number
// reused, at any moment.
func (n *Namespace) open() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := os.ErrClosed
	if !n.deleted {
		var fd int
		if fd, err = unix.FcntlInt(uintptr(n.fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			return fd, nil
		}
	}
	return -1, &OpError{Op: "enter namespace", Item: n.name, Err: err}
}

// onThread runs f on a new thread, which is thrown away afterwards: whatever f did to its namespaces ends with it.
func onThread(f func() error) error {
	err := ErrExited
	thread.Run(func() { err = f() })
	return err
}

// enter moves the calling thread to the network namespace ns refers to. Where it is already there nothing is done, so
// that acting in one's own namespace takes no CAP_SYS_ADMIN.
func enter(ns int) error {
	var want, have unix.Stat_t
	if err := unix.Fstat(ns, &want); err != nil {
		return err
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &have); err != nil {
		return err
	}
	if want.Dev == have.Dev && want.Ino == have.Ino {
		return nil
	}
	return unix.Setns(ns, unix.CLONE_NEWNET)
}

// openThreadNetns opens the network namespace of the calling thread.
func openThreadNetns() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open this thread's network namespace: %w", err)
	}
	return fd, nil
}

// openNetns opens a namespace's file, or the calling thread's namespace for "".
func openNetns(path string) (int, error) {
	if path == "" {
		return openThreadNetns()
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open namespace %s: %w", path, err)
	}
	return fd, nil
}

// inNamespace runs f on a thread in the namespace netns refers to: netlink sockets and /proc/sys/net are those of the
// thread that opens them.
func inNamespace(netns int, f func() error) error {
	return onThread(func() error {
		if err := enter(netns); err != nil {
			return &OpError{Op: "enter the network namespace", Err: err, Hint: permissionHint(err)}
		}
		return f()
	})
}

// PrivateMounts gives the processes started by [Namespace.Start] a mount namespace of their own, in which each of dirs
// is an empty directory in memory and /sys shows the namespace's devices: so that two daemons that keep a socket under
// the same path do not meet. It returns the root directory as seen from there, in a form that every process may open;
// it is valid until Delete. It must be called before the first Start.
func (n *Namespace) PrivateMounts(dirs ...string) (root string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.launcher != nil || n.deleted {
		return "", &OpError{Op: "make mounts private in namespace", Item: n.name,
			Err: errors.New("a process was started already")}
	}
	n.mounts = dirs
	l, err := n.startLauncher()
	if err != nil {
		return "", err
	}
	return l.root, nil
}

// Start starts cmd inside the namespace. Unless the caller set another signal it is killed when this process ends, in
// whatever way, or the namespace is deleted.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	n.mu.Lock()
	l, err := n.startLauncher()
	n.mu.Unlock()
	if err != nil {
		return err
	}
	attr := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	if attr.Pdeathsig == 0 {
		attr.Pdeathsig = syscall.SIGKILL
	}
	cmd.SysProcAttr = &attr
	result := make(chan error, 1)
	select {
	case l.start <- startRequest{cmd, result}:
		return <-result
	case <-l.quit:
		return &OpError{Op: "start " + cmd.Path + " in namespace", Item: n.name, Err: os.ErrClosed}
	}
}

// launcher is the thread processes are started from. It lives as long as the namespace, since a parent-death signal
// is sent when the thread that forked ends, not the process (prctl(2), PR_SET_PDEATHSIG).
type launcher struct {
	start chan startRequest
	quit  chan struct{}
	root  string
}

type startRequest struct {
	cmd    *exec.Cmd
	result chan<- error
}

// startLauncher returns the namespace's launcher, started when needed. n.mu is held.
func (n *Namespace) startLauncher() (*launcher, error) {
	if n.deleted {
		return nil, &OpError{Op: "start a process in namespace", Item: n.name, Err: os.ErrClosed}
	}
	if n.launcher != nil {
		return n.launcher, nil
	}
	l := &launcher{start: make(chan startRequest), quit: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := enter(n.fd)
		if err == nil && n.mounts != nil {
			err = privateMounts(n.mounts)
		}
		l.root = fmt.Sprintf("/proc/%d/task/%d/root", os.Getpid(), unix.Gettid())
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case r := <-l.start:
				r.result <- r.cmd.Start()
			case <-l.quit:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		return nil, &OpError{Op: "enter namespace", Item: n.name, Err: err, Hint: permissionHint(err)}
	}
	n.launcher = l
	return l, nil
}

// privateMounts gives the calling thread a mount namespace of its own with dirs empty.
func privateMounts(dirs []string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	// Mounts made from here on must not propagate back.
	if err := unix.Mount("", "/", "none", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("detach mounts: %w", err)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	// sysfs shows the devices of the network namespace it was mounted from. Few programs look there, so a refusal
	// (a container without the right to) is no reason to fail.
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}

// Kill ends every process in the namespace, however it came there, except this one, and waits until they are gone.
func (n *Namespace) Kill() error {
	fd, err := n.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &OpError{Op: "kill the processes of namespace", Item: n.name, Err: err}
	}
	if err := killInNetns(st.Dev, st.Ino); err != nil {
		return &OpError{Op: "kill the processes of namespace", Item: n.name, Err: err}
	}
	return nil
}

// killTimeout bounds the wait for killed processes to leave.
const killTimeout = 10 * time.Second

// killInNetns kills every process whose network namespace is the given one until a whole pass over /proc finds none
// (a process may fork between being listed and being killed).
func killInNetns(dev, ino uint64) error {
	for end := time.After(killTimeout); ; {
		left, err := killPass(dev, ino)
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-end:
			return fmt.Errorf("%d processes are still there %v after SIGKILL", left, killTimeout)
		case <-time.After(time.Millisecond):
		}
	}
}

func killPass(dev, ino uint64) (left int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !inNetns(pid, dev, ino) {
			continue
		}
		left++
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Looked at again now that the number cannot pass to another process.
		if inNetns(pid, dev, ino) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
	return left, nil
}

// inNetns reports whether the process is in the namespace; a zombie no longer is.
func inNetns(pid int, dev, ino uint64) bool {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/net", &st); err != nil {
		return false
	}
	return st.Dev == dev && st.Ino == ino
}

// Delete takes the namespace away: its name at once, the namespace itself with its devices as soon as no process
// and no socket is left in it. Processes started by [Namespace.Start] are killed. Deleting twice is no error.
func (n *Namespace) Delete() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.deleted {
		return nil
	}
	n.deleted = true
	if n.launcher != nil {
		close(n.launcher.quit)
	}
	unix.Close(n.fd)
	if err := removeNamespaceFile(n.name); err != nil {
		return &OpError{Op: "delete namespace", Item: n.name, Err: err}
	}
	return nil
}

// DeleteNamespace takes the name of a namespace away, whoever made it: the namespace itself goes as soon as no process and no socket is
// left in it. One that is gone is no error.
func DeleteNamespace(name string) error {
	err := checkNamespaceName(name)
	if err == nil {
		err = removeNamespaceFile(name)
	}
	if err != nil {
		return &OpError{Op: "delete namespace", Item: name, Err: err, Hint: permissionHint(err)}
	}
	return nil
}

// ReapNamespaces deletes the named namespaces left behind by processes that were killed: those called
// prefix + pid, or prefix + pid + "-" + anything, whose pid alive denies; the processes in them are killed. It
// returns the names of those deleted. A nil alive asks the kernel.
func ReapNamespaces(prefix string, alive func(pid int) bool) (deleted []string, err error) {
	if prefix == "" {
		return nil, &OpError{Op: "reap namespaces", Err: errors.New("no prefix given")}
	}
	if alive == nil {
		alive = processAlive
	}
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &OpError{Op: "reap namespaces", Item: prefix, Err: err}
	}
	var errs []error
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(digits)
		if err != nil || pid <= 0 || alive(pid) {
			continue
		}
		if err := reapNamespace(e.Name()); err != nil {
			errs = append(errs, &OpError{Op: "reap namespace", Item: e.Name(), Err: err, Hint: permissionHint(err)})
			continue
		}
		deleted = append(deleted, e.Name())
	}
	return deleted, errors.Join(errs...)
}

func reapNamespace(name string) error {
	var st unix.Stat_t
	var fs unix.Statfs_t
	path := filepath.Join(netnsDir, name)
	// A file without a namespace mounted on it is what a process killed halfway through creation leaves.
	if unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC && unix.Stat(path, &st) == nil {
		if err := killInNetns(st.Dev, st.Ino); err != nil {
			return err
		}
	}
	return removeNamespaceFile(name)
}

func processAlive(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || err == unix.EPERM
}

// permissionHint says what to do about a refusal for lack of rights; "" for any other error.
func permissionHint(err error) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
	}
	return ""
}
