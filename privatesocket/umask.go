//go:build unix

package privatesocket

import (
	"net"
	"sync"
	"syscall"
)

// changing is held while the umask is another one: of two that change it at once the later could set back what it found to be the earlier's.
var changing sync.Mutex

// listenByUmask makes a socket whose file's mode follows the umask. That is the whole process's: what else it makes meanwhile is private as well.
func listenByUmask(path string) (*net.UnixListener, error) {
	changing.Lock()
	defer changing.Unlock()
	before := syscall.Umask(0o177)
	defer syscall.Umask(before)
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}
