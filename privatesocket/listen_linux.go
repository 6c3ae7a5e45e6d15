package privatesocket

import (
	"context"
	"net"
	"syscall"
)

// Listen makes a unix socket whose file has mode 0600 from its beginning on.
func Listen(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: ownerOnly}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// ownerOnly sets a socket's mode before it is bound: Linux gives the file the mode of the socket's own inode, less the umask, which is nowhere
// documented (net/unix/af_unix.c, unix_bind_bsd).
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}
