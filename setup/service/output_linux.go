package service

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// output reads what a service writes. It goes through a FIFO, which the service has open in both directions: so a write never fails
// for want of a reader, and what is written while there is none (at most what a pipe holds, 64 KiB) is read by the next. The
// service's end does not block: a service that says more than is read loses that, and does not stop.
type output struct {
	file *os.File
	raw  syscall.RawConn
	to   io.Writer
	done chan struct{}

	mu     sync.Mutex // held from a read to the end of its processing
	buffer [4096]byte
}

// openOutput opens the FIFO of that path, made where it is not there, and copies what comes out to to.
func openOutput(path string, to io.Writer) (*output, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	f, err := openFIFO(path)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	o := &output{file: f, raw: raw, to: to, done: make(chan struct{})}
	go o.copy()
	return o, nil
}

// openFIFO opens a FIFO for reading and writing; the descriptor does not block.
func openFIFO(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.Join(err, errors.New("not a FIFO"))}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (o *output) copy() {
	defer close(o.done)
	for o.raw.Read(func(fd uintptr) bool { return o.pass(int(fd)) }) == nil {
	}
}

// pass hands on a piece of what is there; false where there is nothing.
func (o *output) pass(fd int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := unix.Read(fd, o.buffer[:])
	if err != nil || n <= 0 {
		return false
	}
	_, _ = o.to.Write(o.buffer[:n])
	return true
}

// drain hands on all that has been written so far.
func (o *output) drain() {
	_ = o.raw.Control(func(fd uintptr) {
		const pieces = 64 // more than a pipe holds: for a service that goes on writing
		for range pieces {
			if !o.pass(int(fd)) {
				return
			}
		}
	})
}

func (o *output) close() {
	o.drain()
	o.file.Close()
	<-o.done
}
