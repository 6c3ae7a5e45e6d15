package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"culvert/setup/thread"
)

// receiveLength is room for the longest part of a listing (the kernel's NLMSG_GOODSIZE is far below).
const receiveLength = 256 << 10

// timeout bounds the wait for one answer, in seconds. The kernel answers within the request; it may wait for others that change links.
const timeout = 60

// dumpAttempts bounds how often a listing is asked for again that changed while the kernel was giving it.
const dumpAttempts = 20

// ErrInterrupted is what a listing fails with that changed again and again while it was given.
var ErrInterrupted = errors.New("what was listed kept changing")

// Conn is a socket in one network namespace. It keeps the namespace alive. Its methods may be called concurrently.
type Conn struct {
	mu     sync.Mutex
	fd     int
	port   uint32
	seq    uint32
	buffer []byte
}

// Open opens a socket in the namespace of the calling thread.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	c := &Conn{fd: fd, buffer: make([]byte, receiveLength)}
	if err := c.prepare(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("prepare a netlink socket: %w", err)
	}
	return c, nil
}

func (c *Conn) prepare() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		return err
	}
	c.port = name.(*unix.SockaddrNetlink).Pid
	// The kernel's own sentence comes along with a refusal; without the request, which is known here.
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	limit := unix.Timeval{Sec: timeout}
	return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
}

// OpenAt opens a socket in the namespace a descriptor refers to.
func OpenAt(netns int) (c *Conn, err error) {
	thread.Run(func() {
		if err = enter(netns); err == nil {
			c, err = Open()
		}
	})
	return c, err
}

// enter moves the calling thread into a namespace, unless it is there: that takes no right.
func enter(netns int) error {
	var want, have unix.Stat_t
	if err := unix.Fstat(netns, &want); err != nil {
		return err
	}
	if unix.Stat("/proc/thread-self/ns/net", &have) == nil && want.Dev == have.Dev && want.Ino == have.Ino {
		return nil
	}
	return unix.Setns(netns, unix.CLONE_NEWNET)
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Do sends a request and waits for its acknowledgement. The body is the message without its netlink header.
func (c *Conn) Do(kind, flags uint16, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ask(kind, flags|unix.NLM_F_ACK, body, func([]byte) {})
}

// Get sends a request that is answered by one message, and returns it.
func (c *Conn) Get(kind uint16, body []byte) (answer []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.ask(kind, unix.NLM_F_ACK, body, func(b []byte) { answer = append([]byte(nil), b...) })
	return answer, err
}

// Dump returns the messages of a listing, complete.
func (c *Conn) Dump(kind uint16, body []byte) (messages [][]byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range dumpAttempts {
		messages = messages[:0]
		err = c.ask(kind, unix.NLM_F_DUMP, body, func(b []byte) { messages = append(messages, append([]byte(nil), b...)) })
		if !errors.Is(err, ErrInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return messages, nil
}

// ask sends a request and calls each with the content of every message of the answer, which is valid only until it returns.
func (c *Conn) ask(kind, flags uint16, body []byte, each func([]byte)) error {
	c.seq++
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(len(b)+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], c.seq)
	if err := retry(func() error {
		return unix.Sendto(c.fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return err
	}
	interrupted := false
	for {
		var n int
		var from unix.Sockaddr
		err := retry(func() (err error) {
			n, from, err = unix.Recvfrom(c.fd, c.buffer, 0)
			return err
		})
		if err != nil {
			return err
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not the kernel
		}
		done, err := c.take(c.buffer[:n], each, &interrupted)
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	if interrupted {
		return ErrInterrupted
	}
	return nil
}

// take goes through the messages of one datagram; done says that the answer ended with it.
func (c *Conn) take(b []byte, each func([]byte), interrupted *bool) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return false, fmt.Errorf("a netlink message of %d bytes in %d", length, len(b))
		}
		kind, flags, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:])
		message := b[unix.SizeofNlMsghdr:length]
		b = b[min((length+3)&^3, len(b)):]
		if seq != c.seq {
			continue // late, of a request that was given up
		}
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			*interrupted = true
		}
		if kind == unix.NLMSG_ERROR || kind == unix.NLMSG_DONE {
			return true, refusal(kind, flags, message)
		}
		each(message)
	}
	return false, nil
}

// refusal returns what an acknowledgement, or the end of a listing, says: nil where all is well.
func refusal(kind, flags uint16, message []byte) error {
	if len(message) < 4 {
		return nil
	}
	errno := -int32(binary.NativeEndian.Uint32(message))
	if errno <= 0 {
		return nil
	}
	rest := message[4:]
	if kind == unix.NLMSG_ERROR {
		// The header of the request; NETLINK_CAP_ACK leaves out the rest of it.
		rest = rest[min(unix.SizeofNlMsghdr, len(rest)):]
	}
	err := &Refusal{Errno: unix.Errno(errno)}
	if flags&unix.NLM_F_ACK_TLVS != 0 {
		const text = 1 // NLMSGERR_ATTR_MSG
		err.Text = Text(Parse(rest)[text])
	}
	return err
}

// Refusal is the kernel's answer to a request it does not carry out.
type Refusal struct {
	Errno unix.Errno
	Text  string // the kernel's own; may be empty
}

// NotSupported is ENOTSUPP, which the kernel keeps for itself (include/linux/errno.h) and some drivers answer with all the same: ipvlan for
// the mode l3s.
const NotSupported = unix.Errno(524)

func (r *Refusal) Error() string {
	text := r.Errno.Error()
	if r.Errno == NotSupported {
		text = unix.EOPNOTSUPP.Error() // it has no words of its own
	}
	if r.Text != "" {
		text += ": " + r.Text
	}
	return text
}

func (r *Refusal) Unwrap() error { return r.Errno }

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
