//go:build unix && !linux

package control

import (
	"net"
	"syscall"
)

// ListenPrivately makes a unix socket whose file has mode 0600 from its beginning on. A socket has no mode of its own here, and its file's
// follows the umask, which is the whole process's: what else it makes meanwhile is private as well.
func ListenPrivately(path string) (*net.UnixListener, error) {
	before := syscall.Umask(0o177)
	defer syscall.Umask(before)
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}
