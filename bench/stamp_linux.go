package main

import (
	"encoding/binary"
	"net"
	"os"
	"syscall"
)

// stampArrivals has the kernel say when each packet arrived.
func stampArrivals(conn *net.IPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1))
	}); cerr != nil {
		return cerr
	}
	return err
}

// arrival returns what the kernel said, in nanoseconds since 1970.
func arrival(control []byte) (at int64, ok bool) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			seconds, rest := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return int64(seconds)*1e9 + int64(rest), true
		}
	}
	return 0, false
}
