//go:build unix && !linux

package privatesocket

import "net"

// Listen makes a unix socket whose file has mode 0600 from its beginning on. A socket has no mode of its own here.
func Listen(path string) (*net.UnixListener, error) { return listenByUmask(path) }
