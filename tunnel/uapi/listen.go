//go:build unix

package uapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"culvert/privatesocket"
)

// DefaultFolder is where wg looks for sockets.
const DefaultFolder = "/var/run/wireguard"

// lockName is the file in the folder that is locked while a socket is put up or taken away. wg takes only *.sock for
// interfaces.
const lockName = ".culvert.lock"

// Listener is the configuration socket of one interface. Closing it removes the socket's file, unless that has been replaced
// by another's.
type Listener struct {
	socket *net.UnixListener
	folder string
	path   string      // empty where the socket is not this folder's
	own    fs.FileInfo // the socket's file
	watch  *watch

	once sync.Once
	err  error
}

var _ net.Listener = (*Listener)(nil)

// Listen opens the socket of the interface name in folder, which is created with mode 0755 where it is missing. The socket
// appears under its name only when it has mode 0600 and is listening. The socket of a run that was killed is replaced; where
// a running process answers, the error unwraps to EADDRINUSE.
//
// The folder must be a real folder, not a symbolic link, owned by root or the caller and writable by its owner alone.
func Listen(folder, name string) (*Listener, error) {
	folder = filepath.Clean(folder)
	path, err := socketPath(folder, name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lockFolder(folder)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkReplaceable(path); err != nil {
		return nil, err
	}
	return listen(folder, path, stagingPath(folder, name))
}

// listen makes the socket under the path staging and renames it to path. The folder is locked.
func listen(folder, path, staging string) (*Listener, error) {
	// What a run killed just here has left behind.
	if err := os.Remove(staging); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	socket, err := privatesocket.Listen(staging)
	if err != nil {
		return nil, err
	}
	socket.SetUnlinkOnClose(false)
	fail := func(err error) (*Listener, error) {
		os.Remove(staging)
		socket.Close()
		return nil, err
	}
	// For a file system that does otherwise: nobody knows the name yet.
	if err := os.Chmod(staging, 0o600); err != nil {
		return fail(err)
	}
	own, err := os.Lstat(staging)
	if err != nil {
		return fail(err)
	}
	if own.Mode() != fs.ModeSocket|0o600 {
		return fail(fmt.Errorf("%s: mode %v where %v was asked for", staging, own.Mode(), fs.ModeSocket|0o600))
	}
	if err := os.Rename(staging, path); err != nil {
		return fail(err)
	}
	return &Listener{socket: socket, folder: folder, path: path, own: own, watch: startWatch(path, own)}, nil
}

// Adopt takes over a listening socket that another process has opened, such as the one named by WG_UAPI_FD; f is closed. Where
// the socket was bound as that of the interface name in folder, its file is watched, and removed on Close; a socket from
// elsewhere is served without its file being touched.
func Adopt(f *os.File, folder, name string) (*Listener, error) {
	defer f.Close()
	folder = filepath.Clean(folder)
	path, err := socketPath(folder, name)
	if err != nil {
		return nil, err
	}
	inherited, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	socket, ok := inherited.(*net.UnixListener)
	if !ok {
		inherited.Close()
		return nil, fmt.Errorf("inherited socket: not a unix socket: %w", syscall.ENOTSOCK)
	}
	socket.SetUnlinkOnClose(false)
	l := &Listener{socket: socket, folder: folder, watch: startWatch("", nil)}
	if bound := socket.Addr().String(); bound != path && bound != stagingPath(folder, name) {
		return l, nil
	}
	own, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Removed before anybody could watch it: startWatch finds that out.
	case err != nil:
		socket.Close()
		return nil, err
	}
	l.path, l.own, l.watch = path, own, startWatch(path, own)
	return l, nil
}

// socketPath returns where wg looks for the socket of the interface name.
func socketPath(folder, name string) (string, error) {
	if name == "" || name == "." || name == ".." || len(name) > 15 || strings.ContainsAny(name, "/ \t\n\v\f\r\x00") {
		return "", fmt.Errorf("interface name %q: %w", name, syscall.EINVAL)
	}
	path := filepath.Join(folder, name+".sock")
	if longest := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > longest {
		return "", fmt.Errorf("%s: longer than the %d bytes of a unix socket's path: %w", path, longest, syscall.ENAMETOOLONG)
	}
	return path, nil
}

// stagingPath is where a socket is made before it gets its name. It is no longer than that, and wg does not list it.
func stagingPath(folder, name string) string { return filepath.Join(folder, "."+name+".new") }

// lockFolder checks that nobody else can write to folder and locks it against other instances of this package. The lock is on
// a file that only its owner can open, as anybody could hold a lock on the folder itself.
func lockFolder(folder string) (unlock func(), err error) {
	info, err := os.Lstat(folder)
	if err != nil {
		return nil, err
	}
	refuse := func(why string) (func(), error) {
		return nil, fmt.Errorf("%s: %s: %w", folder, why, syscall.EPERM)
	}
	switch owner := info.Sys().(*syscall.Stat_t).Uid; {
	case info.Mode()&fs.ModeSymlink != 0:
		return refuse("is a symbolic link")
	case !info.IsDir():
		return refuse("is not a folder")
	case info.Mode()&0o022 != 0:
		return refuse("is writable by others than its owner")
	case owner != 0 && int(owner) != os.Geteuid():
		return refuse("belongs to another user")
	}
	lock, err := os.OpenFile(filepath.Join(folder, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		lock.Close()
		return nil, &os.PathError{Op: "flock", Path: lock.Name(), Err: err}
	}
	return func() { lock.Close() }, nil
}

// checkReplaceable returns nil where there is nothing at path, or a socket that nobody listens on.
func checkReplaceable(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s: exists and is not a socket: %w", path, syscall.EEXIST)
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.EAGAIN): // a full backlog is that of a living process
		return err
	}
	return fmt.Errorf("%s: already in use by a running process: %w", path, syscall.EADDRINUSE)
}

// Accept waits for a client.
func (l *Listener) Accept() (net.Conn, error) { return l.socket.Accept() }

// Addr returns the address the socket was bound to, which is not the name it is reached by: that is [Listener.Path].
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// Path returns the path of the socket's file, empty for an adopted socket from elsewhere.
func (l *Listener) Path() string { return l.path }

// Removed returns a channel that is closed once the socket's file has been removed or replaced by somebody else, which is how
// wg-quick asks a userspace daemon to end. Close and Handover don't close it.
func (l *Listener) Removed() <-chan struct{} { return l.watch.removed }

// Close ends listening and removes the socket's file where it is still this socket's.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.watch.stop()
		var remove error
		if l.path != "" {
			remove = l.remove()
		}
		l.err = errors.Join(remove, l.socket.Close())
	})
	return l.err
}

func (l *Listener) remove() error {
	if unlock, err := lockFolder(l.folder); err == nil {
		defer unlock() // otherwise the folder is in others' hands, and the lock would keep none of them away
	}
	if info, err := os.Lstat(l.path); err != nil || !os.SameFile(info, l.own) {
		return nil
	}
	if err := os.Remove(l.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// File returns a descriptor of the socket for another process, which takes it with [Adopt], while this one goes on listening. The caller
// closes it.
func (l *Listener) File() (*os.File, error) { return l.socket.File() }

// Handover returns the socket for a child process, which takes it with [Adopt], and closes the listener without
// removing its file. The child inherits clients that are waiting to be accepted.
func (l *Listener) Handover() (*os.File, error) {
	f, err := l.socket.File()
	if err != nil {
		return nil, err
	}
	done := false
	l.once.Do(func() {
		done = true
		l.watch.stop()
		l.err = l.socket.Close()
	})
	if !done {
		f.Close()
		return nil, net.ErrClosed
	}
	return f, l.err
}
