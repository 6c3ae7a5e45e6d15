package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"culvert/privatesocket"
)

// ErrRunning means another process holds the instance.
var ErrRunning = errors.New("already running")

// Listener is an instance's lock and control socket.
type Listener struct {
	Program string // the build, as "hello" tells it; to be set before Serve

	dir, name string
	lock      *os.File
	sock      *net.UnixListener
	patience  time.Duration // with a client that sends its request
	slots     chan struct{}
	captures  chan struct{}
	tellings  chan struct{}   // of events
	open      context.Context // until Close
	ending    context.CancelFunc
	clients   sync.WaitGroup
	mu        sync.Mutex
	held      []*net.UnixConn // of "down", left open to the end of the process
	closeOnce sync.Once
	closeErr  error
}

// Listen takes the instance called name: it creates dir (0700) where missing, locks NAME.lock and binds NAME.sock, which
// has mode 0600 from the moment it exists. A socket left by a killed process is replaced. ErrRunning where a live
// process has the lock.
func Listen(dir, name string) (*Listener, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%q cannot be the name of an instance: use 1 to 64 of a-z A-Z 0-9 _ = + . -, not a dot first", name)
	}
	if err := prepareDir(dir); err != nil {
		return nil, err
	}
	lock, err := awaitLock(dir, name)
	if err != nil {
		return nil, err
	}
	path := SocketPath(dir, name)
	// The lock is ours, so whatever lies here belonged to a process that is gone.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		lock.Close()
		return nil, fmt.Errorf("cannot take over the stale control socket: %w", err)
	}
	l, err := privatesocket.Listen(path)
	if err != nil {
		os.Remove(lock.Name())
		lock.Close()
		return nil, fmt.Errorf("cannot open the control socket: %w", err)
	}
	return newListener(dir, name, lock, l), nil
}

func newListener(dir, name string, lock *os.File, sock *net.UnixListener) *Listener {
	sock.SetUnlinkOnClose(false) // Close does it, in order, while the lock is held
	open, ending := context.WithCancel(context.Background())
	return &Listener{
		dir: dir, name: name, lock: lock, sock: sock, patience: requestTime,
		slots: make(chan struct{}, maxClients), captures: make(chan struct{}, maxCaptures), tellings: make(chan struct{}, maxEventStreams), open: open, ending: ending,
	}
}

func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the run directory: %w", err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("run directory %s is not a directory", dir)
	}
	sys := st.Sys().(*syscall.Stat_t)
	if uid := os.Geteuid(); int(sys.Uid) != uid && sys.Uid != 0 {
		return fmt.Errorf("run directory %s belongs to uid %d, not to uid %d: its owner could replace the control socket", dir, sys.Uid, uid)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("run directory %s is writable by others (mode %#o): run chmod go-w %s", dir, st.Mode().Perm(), dir)
	}
	return nil
}

// dyingTime is how long a lock without a daemon behind it is waited for.
const dyingTime = 3 * time.Second

// noticeTime is how long a daemon may take to notice that its interface is gone.
const noticeTime = time.Second

// awaitLock locks the instance. The kernel frees a killed process's lock only some time after everything else of it has
// gone, even its devices; so a lock whose holder does not answer is waited for.
func awaitLock(dir, name string) (*os.File, error) {
	start := time.Now()
	for end := start.Add(dyingTime); ; time.Sleep(20 * time.Millisecond) {
		lock, err := takeLock(lockPath(dir, name))
		if !errors.Is(err, ErrRunning) || time.Now().After(end) {
			return lock, err
		}
		// Also one that answers may be about to end: wg-quick deletes the interface and goes, and may start anew at once.
		ctx, cancel := context.WithTimeout(context.Background(), dyingTime)
		_, err = NewClient(dir, name).call(ctx, request{Op: OpHello}, dyingTime)
		cancel()
		if _, answered := errors.AsType[*Error](err); (err == nil || answered) && time.Since(start) > noticeTime {
			return nil, ErrRunning
		}
	}
}

// takeLock opens and locks path. A process that ends removes the file, so the file locked may be one that has just
// lost its name: then the lock says nothing and the next file is tried.
func takeLock(path string) (*os.File, error) {
	for range 100 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot open the lock file: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, ErrRunning
			}
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		mine, err1 := f.Stat()
		named, err2 := os.Lstat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, named) {
			return f, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("%s changes faster than it can be locked", path)
}

// Close stops listening, removes socket and lock file and frees the name. Captures end. Clients being served are not cut
// off: see Wait.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() {
		l.ending()
		l.closeErr = errors.Join(
			ignoreMissing(os.Remove(SocketPath(l.dir, l.name))),
			l.sock.Close(),
			ignoreMissing(os.Remove(lockPath(l.dir, l.name))),
			l.lock.Close(),
		)
	})
	return l.closeErr
}

// Wait waits until every client was answered, at most for the given time.
func (l *Listener) Wait(limit time.Duration) {
	done := make(chan struct{})
	go func() { l.clients.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// SocketPath is the control socket of the instance called name.
func SocketPath(dir, name string) string { return filepath.Join(dir, name+".sock") }

// Left reports whether anything lies in dir of a process that had the instance called name, or has it. One that was killed at its start
// may have left the lock alone.
func Left(dir, name string) bool {
	for _, path := range []string{SocketPath(dir, name), lockPath(dir, name)} {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return false
}

func lockPath(dir, name string) string { return filepath.Join(dir, name+".lock") }

// ValidName reports whether name can be an instance's: it becomes part of file names.
func ValidName(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '_', c == '=', c == '+', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}
