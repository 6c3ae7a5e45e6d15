package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errNotRunning says that nobody supervises.
var errNotRunning = errors.New("no supervisor is running")

// client talks to the supervisor of a state directory, and starts it.
type client struct {
	dir string
	// supervisor returns the command that runs [Supervise] for dir.
	supervisor func() *exec.Cmd
}

// startRetry is the time between two attempts while somebody else holds the lock.
const startRetry = 5 * time.Millisecond

// socketPath runs f with a path of the socket that is short enough for one (sockaddr_un has room for 107 bytes).
func (c *client) socketPath(f func(path string) error) error {
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/socket")
}

// ask sends a request to a supervisor that runs.
func (c *client) ask(ctx context.Context, q request) (reply response, err error) {
	for {
		reply, err = c.once(ctx, q)
		// The answer of one that is just ending, or none where it was killed.
		if err == nil && !reply.Retry || err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
			return reply, err
		}
		if err := pause(ctx); err != nil {
			return reply, err
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(startRetry):
		return nil
	}
}

func (c *client) once(ctx context.Context, q request) (reply response, err error) {
	var conn net.Conn
	err = c.socketPath(func(path string) error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", path)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return reply, errNotRunning
	}
	if err != nil {
		return reply, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	q.Version = protocol
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return reply, errors.Join(err, ctx.Err())
	}
	if err := receive(conn, maxList, &reply); err != nil {
		return reply, errors.Join(err, ctx.Err())
	}
	if reply.Ending {
		_, _ = io.Copy(io.Discard, conn) // ends with the process
	}
	if reply.Version != protocol {
		return reply, fmt.Errorf("the supervisor (process %d) speaks protocol %d, not %d: another version of culvert started it; "+
			"end it with SIGTERM and apply again", reply.PID, reply.Version, protocol)
	}
	if reply.Error != "" {
		return reply, errors.New(reply.Error)
	}
	return reply, nil
}

// maxStarts bounds the supervisors that one request starts: one may be killed, or be just ending for want of work.
const maxStarts = 3

// askStarting sends a request to the supervisor, started where none runs.
func (c *client) askStarting(ctx context.Context, q request) (response, error) {
	for starts := 0; ; {
		reply, err := c.ask(ctx, q)
		if !errors.Is(err, errNotRunning) {
			return reply, err
		}
		switch lock, err := c.lock(); {
		case err == nil && starts == maxStarts:
			defer lock.Close()
			_ = c.tidy()
			return reply, fmt.Errorf("the supervisor was started %d times and ended before it answered: its log says more", starts)
		case err == nil:
			starts++
			err = c.start(lock)
			lock.Close()
			if err != nil {
				return reply, fmt.Errorf("cannot start the supervisor: %w", err)
			}
		case !errors.Is(err, unix.EWOULDBLOCK):
			return reply, err
		}
		if err := pause(ctx); err != nil {
			return reply, err
		}
	}
}

// lock takes the lock where nobody has it, EWOULDBLOCK otherwise.
func (c *client) lock() (*os.File, error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(c.dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) { // a supervisor has just removed the directory
		return nil, unix.EWOULDBLOCK
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	have, err := f.Stat()
	if err == nil {
		var want os.FileInfo
		if want, err = os.Stat(path); err == nil && os.SameFile(have, want) {
			return f, nil
		}
	}
	f.Close() // the lock of a file that is no longer there
	return nil, unix.EWOULDBLOCK
}

// start starts a supervisor. The lock is its own from now on, since a lock belongs to the open file, and requests that come before it
// serves wait at the socket.
func (c *client) start(lock *os.File) error {
	path := filepath.Join(c.dir, "socket")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var socket *net.UnixListener
	err := c.socketPath(func(path string) (err error) {
		socket, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return err
	}
	socket.SetUnlinkOnClose(false)
	defer socket.Close()
	if err := os.Chmod(path, 0o600); err != nil { // the directory is closed to others before
		return err
	}
	file, err := socket.File()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := c.supervisor()
	cmd.ExtraFiles = []*os.File{lock, file} // lockDescriptor, socketDescriptor
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// tidy takes the directory away where nothing is kept in it. The caller has the lock.
func (c *client) tidy() (err error) {
	for _, kind := range []string{processes, handovers} {
		if _, err := os.Stat(filepath.Join(c.dir, kind)); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	for _, name := range []string{"socket", "lock"} {
		if rerr := os.Remove(filepath.Join(c.dir, name)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	_ = os.Remove(c.dir) // where nobody else has files in it
	return err
}
