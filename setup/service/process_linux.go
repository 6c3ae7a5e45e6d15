package service

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// markVariable is the variable of a service's environment that holds its mark.
const markVariable = "CULVERT_SERVICE"

// child is a program this process started.
type child struct {
	command *exec.Cmd
	start   uint64
	end     chan struct{}
	how     string
}

// newChild takes a command that was started.
func newChild(command *exec.Cmd) (*child, error) {
	c := &child{command: command, end: make(chan struct{})}
	var err error
	// Until it is waited for, its number is its own, also when it has ended.
	if c.start, err = startTime(command.Process.Pid); err != nil {
		err = errors.Join(err, command.Process.Kill())
		_ = command.Wait()
		return nil, err
	}
	go func() {
		err := command.Wait()
		c.how = "exit status 0"
		if err != nil {
			c.how = err.Error()
		}
		close(c.end)
	}()
	return c, nil
}

func (c *child) pid() int               { return c.command.Process.Pid }
func (c *child) started() uint64        { return c.start }
func (c *child) ended() <-chan struct{} { return c.end }
func (c *child) verdict() string        { return c.how }
func (c *child) terminate() error       { return c.signal(unix.SIGTERM) }
func (c *child) kill() error            { return c.signal(unix.SIGKILL) }

func (c *child) signal(s os.Signal) error {
	if err := c.command.Process.Signal(s); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// found is a program another process started, held by a descriptor of it.
type found struct {
	number int
	start  uint64
	fd     int // pidfd, open for as long as this process runs it
	end    chan struct{}
}

// find returns the process of that number where it is the one with that start time and mark.
func find(pid int, start uint64, mark string) (*found, bool) {
	if pid <= 0 {
		return nil, false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, false
	}
	// Looked at now that the number cannot pass to another process unseen: signals go to the descriptor.
	have, err := startTime(pid)
	if err != nil || start != 0 && have != start || !hasMark(pid, mark) {
		unix.Close(fd)
		return nil, false
	}
	return &found{number: pid, start: have, fd: fd, end: make(chan struct{})}, true
}

// watch closes ended when the process ends. The descriptor stays open: a signal to who has ended goes nowhere.
func (f *found) watch() {
	go func() {
		awaitExit(f.fd, -1)
		close(f.end)
	}()
}

// awaitExit waits until the process of a pidfd has ended; false where the time (negative: none) is over before.
func awaitExit(fd int, limit time.Duration) bool {
	ms := -1
	if limit >= 0 {
		ms = int(limit.Milliseconds())
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, ms)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}

func (f *found) pid() int               { return f.number }
func (f *found) started() uint64        { return f.start }
func (f *found) ended() <-chan struct{} { return f.end }
func (f *found) verdict() string        { return "how is not known, it was started by another supervisor" }
func (f *found) terminate() error       { return f.signal(unix.SIGTERM) }
func (f *found) kill() error            { return f.signal(unix.SIGKILL) }
func (f *found) close()                 { unix.Close(f.fd) }

func (f *found) signal(s unix.Signal) error {
	if err := unix.PidfdSendSignal(f.fd, s, nil, 0); !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}

// startTime is when a process was started, in clock ticks since boot (field 22 of proc_pid_stat(5)). One that has ended, and
// was not waited for, counts as gone only to those who look for its mark.
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field is a name in brackets, which may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const at = 22 - 3
	if len(fields) <= at {
		return 0, fmt.Errorf("/proc/%d/stat holds %q", pid, text)
	}
	return strconv.ParseUint(fields[at], 10, 64)
}

// hasMark reports whether the mark is in a process's environment as it was started. What has ended has none.
func hasMark(pid int, mark string) bool {
	of := "/proc/" + strconv.Itoa(pid)
	var environment []byte
	for waited := time.Duration(0); ; waited += time.Millisecond {
		patience := beginning(of) // asked first: it may be over by the time the other is read
		var err error
		if environment, err = os.ReadFile(of + "/environ"); err != nil {
			return false
		}
		if len(environment) > 0 || waited >= patience {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for v := range bytes.SplitSeq(environment, []byte{0}) {
		if string(v) == markVariable+"="+mark {
			return true
		}
	}
	return false
}

// beginning is how long a process (a folder of /proc) that shows no environment may be within execve(2): it is the new program already,
// and who started it may have been told that it runs, but the kernel shows neither its arguments nor, which comes next, its environment.
func beginning(of string) time.Duration {
	if _, err := os.Readlink(of + "/exe"); err != nil {
		return 0 // the kernel's own, and who has ended
	}
	arguments, err := os.ReadFile(of + "/cmdline")
	switch {
	case err != nil:
		return 0
	case len(arguments) == 0:
		return time.Second
	}
	return 10 * time.Millisecond // there are programs without an environment
}

// sweep ends every process that has the mark, and returns when they are gone.
func sweep(mark string) error {
	const passes = 100 // a process may have a child between being listed and being killed
	for range passes {
		left, err := marked(mark)
		if err != nil || len(left) == 0 {
			return err
		}
		for _, f := range left {
			err = errors.Join(err, f.kill())
			if !awaitExit(f.fd, stopLimit) {
				err = errors.Join(err, fmt.Errorf("process %d is still there %v after SIGKILL", f.number, stopLimit))
			}
			f.close()
		}
		if err != nil {
			return err
		}
	}
	return errors.New("its processes come back as fast as they are killed")
}

// marked finds the processes with a mark.
func marked(mark string) (list []*found, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !hasMark(pid, mark) {
			continue
		}
		if f, ok := find(pid, 0, mark); ok {
			list = append(list, f)
		}
	}
	return list, nil
}

// bootID names the kernel's run.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}

// netnsInode returns the number of a namespace by its file, "" being this thread's; 0 where there is none.
func netnsInode(path string) (uint64, error) {
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	var kind unix.Statfs_t
	if err := unix.Statfs(path, &kind); err != nil || kind.Type != unix.NSFS_MAGIC {
		return 0, nil // a file without a namespace mounted on it
	}
	return st.Ino, nil
}

// controlSocket is where teamd listens, seen from a process's own mounts.
func controlSocket(pid int, device string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), "root", teamdFolder, device+".sock")
}

// teamdFolder is where teamd has its control sockets, whatever it is told.
const teamdFolder = "/run/teamd"
