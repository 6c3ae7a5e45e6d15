package uapi

import (
	"errors"
	"fmt"
	"syscall"

	"culvert/tunnel"
)

// RequestError reports a request that cannot be granted as it stands. It never quotes a value, so it may be logged.
type RequestError struct {
	Line   int    // of the operation, its first line (set=1) being 1
	Key    string // what stands before the '=', empty where that is no known key
	Reason string
	Errno  syscall.Errno
}

func (e *RequestError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return fmt.Sprintf("line %d: %s: %s", e.Line, e.Key, e.Reason)
}

// Unwrap returns the errno the client is told.
func (e *RequestError) Unwrap() error { return e.Errno }

// errnoOf returns the number that tells a client of err: 0 for nil, EINVAL for what the engine finds invalid, the errno inside
// err, or EIO where there is none.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errors.Is(err, tunnel.ErrInvalidChange) {
		return syscall.EINVAL
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errno != 0 {
		return errno
	}
	return syscall.EIO
}
