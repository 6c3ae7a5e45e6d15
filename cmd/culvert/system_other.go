//go:build unix && !linux

package main

import (
	"errors"
	"fmt"
	"syscall"
)

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
