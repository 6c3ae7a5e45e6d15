package transport

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errReceiveBuffer is a caller's mistake.
var errReceiveBuffer = errors.New("transport: receive buffer smaller than ReceiveBufferSize")

// Pauses between receives that keep failing.
const (
	firstReceivePause = time.Millisecond
	lastReceivePause  = 200 * time.Millisecond
)

// udpReceiver receives from one family's socket.
type udpReceiver struct {
	socket *udpSocket
	family *family
	worker int
	messages
	zones zones

	// Arguments and results of poll, which is made once: a closure per call would allocate.
	want  int
	got   int
	errno unix.Errno
	calls uint64
	poll  func(fd uintptr) (done bool)
}

func newReceiver(s *udpSocket, f *family, worker int) *udpReceiver {
	r := &udpReceiver{socket: s, family: f, worker: worker}
	r.wire()
	r.poll = func(fd uintptr) bool {
		r.calls++
		r.got, r.errno = r.socket.recv(fd, &r.hdrs[0], r.want)
		return r.errno != unix.EAGAIN
	}
	return r
}

// Worker implements [Receiver].
func (r *udpReceiver) Worker() int { return r.worker }

// Receive fills at most as many trains as one system call takes. A train may come back with N of 0: an empty
// datagram, or one dropped as too large.
func (r *udpReceiver) Receive(trains []Train) (int, error) {
	if len(trains) == 0 {
		return 0, nil
	}
	trains = trains[:min(len(trains), batchMessages)]
	pause := time.Duration(0)
	for {
		if err := r.prepare(trains); err != nil {
			return 0, err
		}
		err := r.family.raw.Read(r.poll)
		r.family.in.calls.Add(r.calls)
		r.calls = 0
		switch {
		case err != nil:
			select {
			case <-r.socket.closed:
				return 0, net.ErrClosed
			default:
				return 0, err
			}
		case r.errno == 0:
			if r.fill(trains[:r.got]) > 0 {
				return r.got, nil
			}
			pause = 0
		case receiveFatal(r.errno):
			return 0, os.NewSyscallError("recvmmsg", r.errno)
		case r.errno == unix.EINTR:
		default:
			// An error of the network or a shortage of memory: it passes. The first try again is at once, since
			// an error pending on a socket is gone once reported.
			if pause > 0 && !r.sleep(pause) {
				return 0, net.ErrClosed
			}
			pause = min(max(2*pause, firstReceivePause), lastReceivePause)
		}
	}
}

// sleep waits and reports whether the socket is still open.
func (r *udpReceiver) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.socket.closed:
		return false
	case <-t.C:
		return true
	}
}

// receiveFatal tells errors that say the call itself is wrong, and so would be met for ever.
func receiveFatal(errno unix.Errno) bool {
	switch errno {
	case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM, unix.EACCES:
		return true
	}
	return false
}

// prepare points the messages at the trains' buffers and undoes what the last call wrote.
func (r *udpReceiver) prepare(trains []Train) error {
	for i := range trains {
		buf := trains[i].Buf
		if len(buf) < ReceiveBufferSize {
			return errReceiveBuffer
		}
		r.iovs[i].Base = &buf[0]
		r.iovs[i].SetLen(len(buf))
		h := &r.hdrs[i].hdr
		h.Namelen = uint32(len(r.names[i]))
		h.SetControllen(controlBytes)
		h.Flags = 0
	}
	r.want = len(trains)
	return nil
}

// fill describes the received messages in trains and returns how many of them were not dropped.
func (r *udpReceiver) fill(trains []Train) (kept int) {
	var datagrams, bytes, truncated uint64
	for i := range trains {
		t := &trains[i]
		h := &r.hdrs[i]
		t.N, t.Segment, t.TOS, t.Err = 0, 0, 0, nil
		t.Endpoint = Endpoint{}
		if h.hdr.Flags&unix.MSG_TRUNC != 0 {
			truncated++
			continue
		}
		kept++
		t.Endpoint.Remote = r.names[i].get(h.hdr.Namelen, &r.zones)
		c := parseControl(r.controls[i][:min(int(h.hdr.Controllen), controlBytes)])
		t.N = min(int(h.len), len(t.Buf))
		if c.segment < t.N {
			t.Segment = c.segment
		}
		t.TOS = c.tos
		t.Endpoint.Source, t.Endpoint.Interface = c.source, c.index
		datagrams += uint64(max(t.Datagrams(), 1))
		bytes += uint64(t.N)
	}
	in := &r.family.in
	in.datagrams.Add(datagrams)
	in.bytes.Add(bytes)
	if truncated > 0 {
		in.truncated.Add(truncated)
	}
	return kept
}
