package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// cpuSet is a set of up to 1024 processors (sched_setaffinity(2)).
type cpuSet [16]uint64

// startPinned starts a command that runs on some of the processors this program may use, counted from 0 and around.
func startPinned(cmd *exec.Cmd, cores ...int) error {
	started := make(chan error, 1)
	go func() {
		// The child takes the thread's processors over. The thread is not used again: it ends with its goroutine.
		runtime.LockOSThread()
		started <- func() error {
			var all, some cpuSet
			if err := affinity(syscall.SYS_SCHED_GETAFFINITY, &all); err != nil {
				return err
			}
			var usable []int
			for cpu := range len(all) * 64 {
				if all[cpu/64]>>(cpu%64)&1 == 1 {
					usable = append(usable, cpu)
				}
			}
			for _, core := range cores {
				cpu := usable[core%len(usable)]
				some[cpu/64] |= 1 << (cpu % 64)
			}
			if err := affinity(syscall.SYS_SCHED_SETAFFINITY, &some); err != nil {
				return err
			}
			return cmd.Start()
		}()
	}()
	return <-started
}

// affinity gets or sets the calling thread's processors.
func affinity(call uintptr, set *cpuSet) error {
	if _, _, errno := syscall.RawSyscall(call, 0, unsafe.Sizeof(*set), uintptr(unsafe.Pointer(set))); errno != 0 {
		return fmt.Errorf("processors of a thread: %w", errno)
	}
	return nil
}

// ownCPU is the CPU time this process has used, to the microsecond.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
