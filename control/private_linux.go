package control

import (
	"context"
	"net"
	"syscall"
)

// ListenPrivately makes a unix socket whose file has mode 0600 from its beginning on: others cannot connect at any moment.
func ListenPrivately(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: privateSocket}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// privateSocket sets a socket's mode before it is bound: Linux gives the file the mode of the socket's own inode
// (net/unix/af_unix.c, unix_bind_bsd), less the umask.
func privateSocket(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}
