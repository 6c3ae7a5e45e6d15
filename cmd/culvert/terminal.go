package main

import (
	"os"
	"syscall"
	"unsafe"
)

// hasWindow reports whether f is a terminal: TIOCGWINSZ answers (ioctl_tty(2)).
func hasWindow(f *os.File) bool {
	var size [4]uint16
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	return errno == 0
}
