package uapi

import "culvert/tunnel"

// Engine is the tunnel as this package needs it. Both methods may be called concurrently.
type Engine interface {
	// Configure applies a change as a whole. It must not keep the change or anything it points to: the keys in it are erased
	// after it returns. Its error decides the answer's errno: a [syscall.Errno] found by unwrapping, EIO without one.
	Configure(tunnel.Change) error
	// Status returns a snapshot, which the caller does not modify.
	Status() tunnel.Status
}
