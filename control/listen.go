package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// ErrRunning means another process holds the instance.
var ErrRunning = errors.New("already running")

// Service answers the operations. Its methods may be called concurrently.
type Service interface {
	Status() Instance
	// Reload returns remarks for the user.
	Reload(ctx context.Context) (remarks []string, err error)
	// Down asks the daemon to end and returns once everything it made is gone, with what could not be undone.
	Down(ctx context.Context) error
}

// Confirmer is a [Service] that has a change on trial.
type Confirmer interface {
	// Confirm keeps the change.
	Confirm() error
}

// Listener is an instance's lock and control socket.
type Listener struct {
	dir, name string
	lock      *os.File
	sock      *net.UnixListener
	slots     chan struct{}
	captures  chan struct{}
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
	lc := net.ListenConfig{Control: privateSocket}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		os.Remove(lock.Name())
		lock.Close()
		return nil, fmt.Errorf("cannot open the control socket: %w", err)
	}
	sock := l.(*net.UnixListener)
	sock.SetUnlinkOnClose(false) // Close does it, in order, while the lock is held
	open, ending := context.WithCancel(context.Background())
	return &Listener{
		dir: dir, name: name, lock: lock, sock: sock,
		slots: make(chan struct{}, maxClients), captures: make(chan struct{}, maxCaptures), open: open, ending: ending,
	}, nil
}

// privateSocket sets a socket's mode before it is bound: Linux gives the file the mode of the socket's own inode
// (net/unix/af_unix.c, unix_bind_bsd), so that there is no moment in which others could connect.
func privateSocket(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
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
		if _, err := call(dir, name, OpStatus, dyingTime); err == nil && time.Since(start) > noticeTime {
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

// Serve answers clients until Close. It is to be called once.
func (l *Listener) Serve(s Service) {
	for {
		c, err := l.sock.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(50 * time.Millisecond) // out of descriptors: others must finish first
			continue
		}
		select {
		case l.slots <- struct{}{}:
			l.clients.Go(func() {
				defer func() { <-l.slots }()
				l.serveOne(c, s)
			})
		default:
			c.Close()
		}
	}
}

func (l *Listener) serveOne(c *net.UnixConn, s Service) {
	down := false
	defer func() {
		if !down {
			c.Close()
			return
		}
		l.mu.Lock()
		l.held = append(l.held, c) // referenced, or the garbage collector would close it
		l.mu.Unlock()
	}()
	c.SetReadDeadline(time.Now().Add(requestTime))
	var req request
	resp := response{Version: Version}
	if err := allowed(c); err != nil {
		resp.Error, resp.Code = err.Error(), 1
	} else if line, err := readLine(c, maxRequest); err != nil {
		resp.Error, resp.Code = "request: "+err.Error(), 1
	} else if err := json.Unmarshal(line, &req); err != nil {
		resp.Error, resp.Code = "the request is not valid JSON", 1
	} else if req.Version != Version {
		resp.Error, resp.Code = fmt.Sprintf("the running daemon speaks version %d of the control protocol, this command version %d: restart the daemon", Version, req.Version), 1
	} else if req.Op == OpCapture {
		l.serveCapture(c, req.Capture, s)
		return
	} else {
		down = req.Op == OpDown
		l.answer(&req, s, &resp)
	}
	out, err := json.Marshal(resp)
	if err != nil {
		out, _ = json.Marshal(response{Version: Version, Error: "cannot encode the answer: " + err.Error(), Code: 1})
	}
	c.SetWriteDeadline(time.Now().Add(answerTime))
	c.Write(append(out, '\n'))
	// After "down" the connection is left to the end of the process: see the package comment.
}

func (l *Listener) answer(req *request, s Service, resp *response) {
	var err error
	switch req.Op {
	case OpStatus:
		in := s.Status()
		resp.Instance = &in
	case OpReload:
		resp.Remarks, err = s.Reload(context.Background())
	case OpDown:
		err = s.Down(context.Background())
	case OpClients:
		resp.Clients, err = keepClients(s, req.Clients)
	case OpSignIn:
		resp.SignIn, err = signIn(s, req.SignIn)
	case OpConfirm:
		if c, ok := s.(Confirmer); ok {
			err = c.Confirm()
		} else {
			err = errors.New("no change waits to be confirmed")
		}
	default:
		err = fmt.Errorf("the running daemon does not know the operation %.32q", req.Op)
	}
	if err != nil {
		resp.Error, resp.Code = err.Error(), 1
		if e, ok := errors.AsType[*Error](err); ok {
			resp.Code = e.Code
		}
	}
}

// allowed refuses clients that are neither root nor the daemon's own user, should the socket's mode ever be changed.
func allowed(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *syscall.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("uid %d may not control this daemon", cred.Uid)
	}
	return nil
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

// readLine reads up to a newline, at most limit bytes.
func readLine(r io.Reader, limit int) ([]byte, error) {
	br := bufio.NewReader(io.LimitReader(r, int64(limit)+1))
	line, err := br.ReadBytes('\n')
	if err == nil {
		return line[:len(line)-1], nil
	}
	if len(line) > limit {
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	return nil, err
}
