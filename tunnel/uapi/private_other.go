//go:build unix && !linux

package uapi

import (
	"net"
	"syscall"
)

// listenPrivately makes a socket whose file has mode 0600 from its beginning on. The file's mode follows the umask, which is the whole process's:
// what else it makes meanwhile is private as well.
func listenPrivately(path string) (net.Listener, error) {
	before := syscall.Umask(0o177)
	defer syscall.Umask(before)
	return net.Listen("unix", path)
}
