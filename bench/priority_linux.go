package main

import (
	"os"
	"strconv"
	"syscall"
)

// daemonNice is the nice value that culvert gives its daemons. What stands for one here has it as well: else the relay would be no
// ceiling, but a tunnel that waits longer for a processor.
const daemonNice = -10

// raisePriority gives every thread of this process daemonNice, and so those that they start. Nothing changes without the right to
// it, or where the process was started with a nice value, as with culvert itself.
func raisePriority() error {
	if own, err := niceOf(0); err != nil || own != 0 {
		return err
	}
	for changed := true; changed; { // threads that were started meanwhile are found the next time
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		changed = false
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if now, err := niceOf(tid); err != nil || now == daemonNice {
				continue // it has ended, or is done
			}
			if err := syscall.Setpriority(syscall.PRIO_PROCESS, tid, daemonNice); err == syscall.EPERM || err == syscall.EACCES {
				return nil
			}
			changed = true
		}
	}
	return nil
}

// niceOf returns the nice value of a thread; 0 is the calling one.
func niceOf(tid int) (int, error) {
	raw, err := syscall.Getpriority(syscall.PRIO_PROCESS, tid)
	return 20 - raw, err // the system call counts from 40 down to 1
}
