//go:build unix && !linux

package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

const defaultRunDir = "/var/run/culvert"

// noTun knows no reason beforehand.
func noTun() string { return "" }

// niceOf returns the nice value of the process.
func niceOf(int) (int, error) {
	nice, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	return nice, os.NewSyscallError("getpriority", err)
}

// setNice gives the process a nice value, which all its threads have here.
func setNice(nice int) error {
	return os.NewSyscallError("setpriority", syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice))
}

// clockUnsynced is not known here.
func clockUnsynced() bool { return false }

// monotonic says nothing: there is no systemd here.
func monotonic() string { return "MONOTONIC_USEC=0" }

// markSocket needs Linux. Without a mark to set there is nothing to do.
func markSocket(_ int, mark uint32) error {
	if mark == 0 {
		return nil
	}
	return fmt.Errorf("packets with a mark need Linux: %w", errors.ErrUnsupported)
}

// duplicate makes one descriptor another one's.
func duplicate(from, to int) error { return syscall.Dup2(from, to) }

// endsWithThread needs Linux, as all that it is used for does.
func endsWithThread() *syscall.SysProcAttr { return nil }
