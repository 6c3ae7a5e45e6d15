package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// Files returns descriptors of the lock and of the socket, for [Inherit] in another process. The caller closes them.
func (l *Listener) Files() (lock, socket *os.File, err error) {
	if socket, err = l.sock.File(); err != nil {
		return nil, nil, err
	}
	raw, err := l.lock.SyscallConn()
	if err == nil {
		var fd uintptr
		var errno syscall.Errno
		err = raw.Control(func(own uintptr) {
			fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, own, syscall.F_DUPFD_CLOEXEC, 3)
		})
		if err == nil && errno != 0 {
			err = os.NewSyscallError("fcntl", errno)
		}
		lock = os.NewFile(fd, l.lock.Name())
	}
	if err != nil {
		socket.Close()
		return nil, nil, err
	}
	return lock, socket, nil
}

// Inherit is [Listen] for the process that goes on with an instance: with the lock and the socket of the one before, where both are those that
// have the instance's names. The descriptors are the listener's from then on.
func Inherit(dir, name string, lock, socket *os.File) (*Listener, error) {
	defer socket.Close()
	fail := func(err error) (*Listener, error) {
		lock.Close()
		return nil, fmt.Errorf("go on with the control socket of %s: %w", name, err)
	}
	mine, err1 := lock.Stat()
	named, err2 := os.Lstat(lockPath(dir, name))
	if err := errors.Join(err1, err2); err != nil {
		return fail(err)
	}
	if !os.SameFile(mine, named) {
		return fail(errors.New("the lock is another one"))
	}
	l, err := net.FileListener(socket)
	if err != nil {
		return fail(err)
	}
	sock, ok := l.(*net.UnixListener)
	if !ok || sock.Addr().String() != SocketPath(dir, name) {
		l.Close()
		return fail(errors.New("the socket is another one"))
	}
	return newListener(dir, name, lock, sock), nil
}

// Pause has no client accepted as long as it is on: those that call wait.
func (l *Listener) Pause(on bool) {
	var until time.Time
	if on {
		until = time.Unix(1, 0)
	}
	l.sock.SetDeadline(until)
}

// Leave stops listening as Close does, and leaves socket, lock and name to the process that goes on with them.
func (l *Listener) Leave() error {
	l.closeOnce.Do(func() {
		l.ending()
		l.closeErr = errors.Join(l.sock.Close(), l.lock.Close())
	})
	return l.closeErr
}
