package main

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// niceOf returns the nice value of a thread; 0 is the calling one.
func niceOf(tid int) (int, error) {
	raw, err := syscall.Getpriority(syscall.PRIO_PROCESS, tid)
	return 20 - raw, os.NewSyscallError("getpriority", err) // the system call counts from 40 down to 1
}

// setNice gives every thread of the process a nice value, and its scheduling group as well where the process leads a session: the kernel may weigh
// sessions against each other (sched(7), "The autogroup feature"), and the threads' own values count within theirs alone.
func setNice(nice int) error {
	// A thread has the value of the one that made it, so those made meanwhile by threads that were still to be done are found the next time.
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		changed := false
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if now, err := niceOf(tid); err != nil || now == nice {
				continue // it has ended, or is done
			}
			switch err := syscall.Setpriority(syscall.PRIO_PROCESS, tid, nice); {
			case errors.Is(err, syscall.ESRCH):
			case err != nil:
				return os.NewSyscallError("setpriority", err)
			default:
				changed = true
			}
		}
		if !changed {
			break
		}
	}
	if session, _, errno := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0); errno == 0 && int(session) == os.Getpid() {
		_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0) // kernels without, and cgroups, do otherwise
	}
	return nil
}
