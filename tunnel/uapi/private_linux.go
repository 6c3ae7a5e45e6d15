package uapi

import (
	"context"
	"net"
	"syscall"
)

// listenPrivately makes a socket whose file has mode 0600 from its beginning on.
func listenPrivately(path string) (net.Listener, error) {
	config := net.ListenConfig{Control: ownerOnly}
	return config.Listen(context.Background(), "unix", path)
}

// ownerOnly gives a socket that is not bound yet mode 0600: its file is born with the socket's mode, less the umask, which
// is nowhere documented (net/unix/af_unix.c, unix_bind_bsd).
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return err
}
