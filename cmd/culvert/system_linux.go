package main

import (
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const defaultRunDir = "/run/culvert"

// noTun says why no tun or tap can be opened; "" where one can.
func noTun() string { return openError("/dev/net/tun") }

// clockUnsynced reports whether the kernel says that nothing keeps its clock right (STA_UNSYNC, adjtimex(2)).
func clockUnsynced() bool {
	const unsync = 0x40
	var t syscall.Timex
	_, err := syscall.Adjtimex(&t)
	return err == nil && t.Status&unsync != 0
}

// monotonic is the assignment that tells the service manager at which time a reload began, in microseconds of the monotonic clock. It takes
// no earlier READY for its end then.
func monotonic() string {
	var ts syscall.Timespec
	const clockMonotonic = 1 // linux/time.h
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return "MONOTONIC_USEC=0"
	}
	return "MONOTONIC_USEC=" + strconv.FormatInt(ts.Nano()/int64(time.Microsecond), 10)
}

// markSocket has the datagrams of a socket carry a mark.
func markSocket(fd int, mark uint32) error {
	return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_MARK, int(mark))
}

// duplicate makes one descriptor another one's.
func duplicate(from, to int) error { return syscall.Dup3(from, to, 0) }

// endsWithThread is of a process that gets SIGTERM when the thread that started it ends.
func endsWithThread() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
