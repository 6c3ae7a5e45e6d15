package transport

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchMessages is how many messages one recvmmsg or sendmmsg carries at most.
const batchMessages = 64

// mmsghdr is struct mmsghdr of recvmmsg(2); the compiler pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// messages is the storage of one recvmmsg or sendmmsg call, wired together once so that a call only fills in what differs.
type messages struct {
	hdrs     [batchMessages]mmsghdr
	iovs     [batchMessages]unix.Iovec
	names    [batchMessages]sockaddr
	controls [batchMessages]controlBuffer
}

// wire points every header at its vector, name and control storage.
func (m *messages) wire() {
	for i := range m.hdrs {
		h := &m.hdrs[i].hdr
		h.Iov = &m.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&m.names[i]))
		h.Control = &m.controls[i][0]
	}
}

// mmsgCall is the shape of both system calls. Sockets hold them as values so that tests can put refusals in
// front of the kernel that no kernel at hand would give.
type mmsgCall func(fd uintptr, first *mmsghdr, n int) (done int, errno unix.Errno)

// Both calls do not wait, so Go's scheduler is not told of them: it would take the processor away from a worker that is in the kernel for
// more than 20 us, as with a batch of 200 KB, and keep a thread awake for that alone. A garbage collection waits so long at most.

func sendmmsg(fd uintptr, first *mmsghdr, n int) (int, unix.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(first)), uintptr(n),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(r), errno
}

func recvmmsg(fd uintptr, first *mmsghdr, n int) (int, unix.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(first)), uintptr(n),
		unix.MSG_DONTWAIT, 0, 0)
	return int(r), errno
}
