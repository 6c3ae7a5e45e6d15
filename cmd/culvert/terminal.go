package main

import (
	"os"
	"syscall"
	"unsafe"
)

// hasWindow reports whether f is a terminal: TIOCGWINSZ answers (ioctl_tty(2)).
func hasWindow(f *os.File) bool {
	_, ok := windowSize(f)
	return ok
}

// windowSize is how many columns a terminal has, 0 where it does not say; false where f is none.
func windowSize(f *os.File) (columns int, ok bool) {
	var size [4]uint16 // struct winsize: rows, columns, and both in pixels
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	return int(size[1]), errno == 0
}
