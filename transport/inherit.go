package transport

import "os"

// A Bequeather is a Socket that another process can go on with.
type Bequeather interface {
	// Files returns descriptors of it, for [Inherit] in the other process. The caller closes them. What has arrived waits in the socket as long
	// as anybody has them open.
	Files() ([]SocketFile, error)
}

// SocketFile is the descriptor of one kernel socket of a [Socket].
type SocketFile struct {
	File   *os.File
	Worker int
	V6     bool
}
