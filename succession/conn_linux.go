package succession

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxMessage = 64 << 10
	// MaxFiles is how many descriptors one message may have (SCM_MAX_FD of the kernel is 253).
	MaxFiles = 200
)

// Conn is one end.
type Conn struct{ c *net.UnixConn }

// Pair returns one end, and the other as a file that a process started with it makes a Conn of.
func Pair() (own *Conn, other *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	other = os.NewFile(uintptr(fds[1]), "successor")
	own, err = Of(os.NewFile(uintptr(fds[0]), "predecessor"))
	if err != nil {
		other.Close()
		return nil, nil, err
	}
	return own, other, nil
}

// Of makes an end of a file, which is closed.
func Of(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%s is no unix socket", f.Name())
	}
	return &Conn{u}, nil
}

// Close ends it; the other end reads io.EOF.
func (c *Conn) Close() error { return c.c.Close() }

// Send sends a message and copies of descriptors. The caller keeps the files.
func (c *Conn) Send(message any, files ...*os.File) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(b) > maxMessage || len(files) > MaxFiles {
		return fmt.Errorf("a message of %d bytes with %d descriptors is too long", len(b), len(files))
	}
	return withFDs(files, nil, func(fds []int) error {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		_, _, err := c.c.WriteMsgUnix(b, rights, nil)
		return err
	})
}

// withFDs calls f with the files' descriptors, which stay open and non-blocking meanwhile.
func withFDs(files []*os.File, fds []int, f func([]int) error) (err error) {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = withFDs(files[1:], append(fds, int(fd)), f) }); e != nil {
		return e
	}
	return err
}

// Receive takes the next message into one, until a time; the zero time is never. Its descriptors are the caller's. Where it fails there are
// none; io.EOF where the other end is closed.
func (c *Conn) Receive(message any, until time.Time) (files []*os.File, err error) {
	if err := c.c.SetReadDeadline(until); err != nil {
		return nil, err
	}
	buf, oob := make([]byte, maxMessage+1), make([]byte, unix.CmsgSpace(4*MaxFiles))
	n, oobn, flags, _, err := c.c.ReadMsgUnix(buf, oob)
	if errors.Is(err, unix.ECONNRESET) { // it was closed with something unread
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	controls, err := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range controls {
		fds, e := unix.ParseUnixRights(&controls[i])
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "inherited"))
		}
	}
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0:
		err = fmt.Errorf("not all descriptors could be taken: raise the limit of open files (ulimit -n, LimitNOFILE)")
	case flags&unix.MSG_TRUNC != 0 || n > maxMessage:
		err = fmt.Errorf("a message longer than %d bytes", maxMessage)
	default:
		err = json.Unmarshal(buf[:n], message)
	}
	if err != nil {
		CloseAll(files)
		return nil, err
	}
	return files, nil
}

// CloseAll closes files.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// Copy returns a descriptor of one's own of an open file. (Its method Fd would have the file block, for everybody who has it.)
func Copy(f syscall.Conn) (fd int, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := c.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 3) }); e != nil {
		return -1, e
	}
	return fd, os.NewSyscallError("fcntl", err)
}
