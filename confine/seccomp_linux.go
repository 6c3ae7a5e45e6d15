package confine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused are system calls that neither the daemon nor any program that it starts has a use for, and that a break-in would: to look into other
// processes, to load code into the kernel, to reach parts of it that often had holes, to set the clock.
var refused = append([]uintptr{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_MADVISE,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_SYSLOG, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_PIVOT_ROOT, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
}, refusedHere...)

var (
	mounting = []uintptr{unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSMOUNT,
		unix.SYS_FSCONFIG, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR}
	modules = []uintptr{unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE}
)

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offsetNumber = 0
	offsetArch   = 4
)

// filter is a program that refuses the given system calls with EPERM, and all that another instruction set, or x32, would make of numbers.
func filter(calls []uintptr) []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	ret := func(what uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what} }
	refuse := ret(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	jump := func(op uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	const x32 = 0x40000000
	p := []unix.SockFilter{
		load(offsetArch), jump(unix.BPF_JEQ, arch, 1, 0), refuse,
		load(offsetNumber), jump(unix.BPF_JGE, x32, 0, 1), refuse,
	}
	for _, c := range calls {
		p = append(p, jump(unix.BPF_JEQ, uint32(c), 0, 1), refuse)
	}
	return append(p, ret(unix.SECCOMP_RET_ALLOW))
}

// seccomp refuses the process, all its threads, system calls.
func seccomp(calls []uintptr) error {
	program := filter(calls)
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	runtime.LockOSThread() // the kernel asks for no_new_privs of the thread that brings the filter, and gives it to the others
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	if thread != 0 { // seccomp(2), SECCOMP_FILTER_FLAG_TSYNC
		return fmt.Errorf("seccomp: thread %d has a filter of its own, and cannot be given this one", thread)
	}
	return nil
}

// Apply takes what is not in the options.
func Apply(o Options) (r Result) {
	if o.Files != nil {
		if err := landlock(o.Files); err != nil {
			r.Files = err.Error()
		}
	}
	if o.Refused != "" && o.Refused == Calls(o) {
		return r
	}
	if err := seccomp(callsOf(o)); err != nil {
		r.Calls = err.Error()
	}
	return r
}

// callsOf are the system calls that are refused with the options.
func callsOf(o Options) []uintptr {
	calls := append([]uintptr(nil), refused...)
	if !o.Mounts {
		calls = append(calls, mounting...)
	}
	if !o.Modules {
		calls = append(calls, modules...)
	}
	return calls
}

// Calls names the system calls that are refused with the options: others have another name.
func Calls(o Options) string {
	sum := sha256.Sum256(fmt.Append(nil, callsOf(o)))
	return hex.EncodeToString(sum[:])
}
