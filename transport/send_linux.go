package transport

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// errNoFamily is the error of trains to a family that the host lacks.
var errNoFamily = os.NewSyscallError("sendmmsg", unix.EAFNOSUPPORT)

// udpSender sends through both families' sockets.
type udpSender struct {
	socket *udpSocket
	worker worker
	out    *outbox
}

func newUDPSender(s *udpSocket, w worker) *udpSender {
	return &udpSender{socket: s, worker: w, out: newOutbox(s)}
}

func (s *udpSender) Send(trains []Train) (failed int) {
	v4, v6 := false, false
	for i := range trains {
		t := &trains[i]
		t.Err = t.Check()
		if t.Err != nil {
			continue
		}
		if t.Endpoint.Remote.Addr().Is4() {
			v4 = true
		} else {
			v6 = true
		}
	}
	if v4 {
		s.sendFamily(s.worker.v4, trains, false)
	}
	if v6 {
		s.sendFamily(s.worker.v6, trains, true)
	}
	for i := range trains {
		if trains[i].Err != nil {
			failed++
		}
	}
	if failed > 0 {
		s.socket.sendErrors.Add(uint64(failed))
	}
	return failed
}

// sendFamily sends those trains that are of the family, several to a system call, in their order.
func (s *udpSender) sendFamily(f *family, trains []Train, v6 bool) {
	o := s.out
	o.open(f, trains)
	for i := range trains {
		t := &trains[i]
		if t.Err != nil || t.N == 0 || t.Endpoint.Remote.Addr().Is4() == v6 {
			continue
		}
		if f == nil {
			t.Err = errNoFamily
			continue
		}
		o.addTrain(i)
	}
	o.flush()
	o.close()
}

// message is one message of an outbox: a train sent as one with UDP_SEGMENT, or a datagram of one.
type message struct {
	train         int // index into trains
	off, end      int // its bytes in the train
	segment       int // 0 for a single datagram
	source        bool
	sourceRefused bool // it had a source, and goes without after a refusal
	again         bool // it was tried again after an error pending on the socket
}

// outbox gathers messages for one family's socket and gets them sent.
type outbox struct {
	socket *udpSocket
	family *family
	trains []Train
	messages
	msgs [batchMessages]message
	n    int // messages gathered
	at   int // messages of these done with
	sent int // messages that went out since open

	// Arguments and results of try and wait, which are made once: a closure per call would allocate.
	done  int
	errno unix.Errno
	calls uint64
	try   func(fd uintptr)
	wait  func(fd uintptr) (done bool)

	// singles is where a train goes that was refused as one; made when first needed.
	singles *outbox
}

func newOutbox(s *udpSocket) *outbox {
	o := &outbox{socket: s}
	o.wire()
	o.try = func(fd uintptr) {
		o.calls++
		o.done, o.errno = o.socket.send(fd, &o.hdrs[o.at], o.n-o.at)
	}
	o.wait = func(fd uintptr) bool {
		o.try(fd)
		return o.errno != unix.EAGAIN
	}
	return o
}

func (o *outbox) open(f *family, trains []Train) {
	o.family, o.trains, o.n, o.at, o.sent = f, trains, 0, 0, 0
}

func (o *outbox) close() { o.trains, o.family = nil, nil }

// addTrain gathers trains[i], as one message where it can be.
func (o *outbox) addTrain(i int) {
	t := &o.trains[i]
	if t.Datagrams() == 1 {
		o.add(message{train: i, end: t.N, source: sourceFits(t.Endpoint)})
		return
	}
	offload := o.family.gso && !o.socket.segmentOff.Load()
	if offload && !(o.socket.corruptsEqualTrains && t.N%t.Segment == 0) {
		o.add(message{train: i, end: t.N, segment: t.Segment, source: sourceFits(t.Endpoint)})
		return
	}
	if !offload {
		o.family.out.segmentFallbacks.Add(1)
	}
	o.addSingles(i, sourceFits(t.Endpoint))
}

// addSingles gathers each datagram of trains[i] as a message.
func (o *outbox) addSingles(i int, source bool) {
	t := &o.trains[i]
	for off := 0; off < t.N; {
		end := min(off+t.Segment, t.N)
		o.add(message{train: i, off: off, end: end, source: source})
		off = end
	}
}

// sourceFits tells whether the endpoint has a source of its remote's family.
func sourceFits(e Endpoint) bool {
	return e.Source.IsValid() && e.Source.Is4() == e.Remote.Addr().Is4()
}

func (o *outbox) add(m message) {
	if o.n == batchMessages {
		o.flush()
	}
	i := o.n
	o.n++
	o.msgs[i] = m
	t := &o.trains[m.train]
	o.iovs[i].Base = &t.Buf[m.off]
	o.iovs[i].SetLen(m.end - m.off)
	o.hdrs[i].hdr.Namelen = o.names[i].put(t.Endpoint.Remote)
	o.putControl(i)
}

// putControl writes the control messages of message i as its state asks for.
func (o *outbox) putControl(i int) {
	m := &o.msgs[i]
	t := &o.trains[m.train]
	h := &o.hdrs[i].hdr
	h.SetControllen(o.controls[i].put(t.Endpoint, m.source, t.TOS, m.segment))
}

// flush sends what was gathered; a message that cannot be sent is noted on its train and does not hold back the rest.
func (o *outbox) flush() {
	if o.n == 0 {
		return
	}
	var datagrams, bytes uint64
	for o.at = 0; o.at < o.n; {
		if !o.sendmmsg() {
			for ; o.at < o.n; o.at++ {
				o.fail(net.ErrClosed)
			}
			break
		}
		if o.errno != 0 {
			o.refused(o.errno)
			continue
		}
		for range o.done {
			m := &o.msgs[o.at]
			bytes += uint64(m.end - m.off)
			datagrams += o.delivered(m)
			o.at++
		}
	}
	for i := range o.n {
		o.iovs[i].Base = nil // the buffers are the caller's
	}
	o.n, o.at = 0, 0
	out := &o.family.out
	out.datagrams.Add(datagrams)
	out.bytes.Add(bytes)
	out.calls.Add(o.calls)
	o.calls = 0
}

// sendmmsg makes one call that got somewhere, waiting for room in the socket's buffer. It reports false once the
// socket is closed.
//
// The first try holds the descriptor only by reference, so that senders do not wait for each other; the wait takes
// the descriptor's write lock.
func (o *outbox) sendmmsg() bool {
	if o.family.raw.Control(o.try) != nil {
		return false
	}
	if o.errno == unix.EAGAIN && o.family.raw.Write(o.wait) != nil {
		return false
	}
	if o.errno == 0 && o.done <= 0 {
		o.errno = unix.EIO // no kernel does this; without it the loop would not end
	}
	return true
}

// delivered accounts for a message that went out and returns its datagrams.
func (o *outbox) delivered(m *message) uint64 {
	o.sent++
	if m.sourceRefused {
		o.family.out.sourceFallbacks.Add(1)
	}
	if m.segment == 0 {
		return 1
	}
	if o.socket.refusals.Load() != 0 {
		o.socket.refusals.Store(0)
	}
	return uint64((m.end - m.off + m.segment - 1) / m.segment)
}

// refused deals with the first message not done with having been refused: it is changed to be tried again, each
// change at most once, or it has failed. ENOBUFS fails at once: whoever sent too much would only send more.
func (o *outbox) refused(errno unix.Errno) {
	m := &o.msgs[o.at]
	switch {
	case errno == unix.EINTR:
	case socketErrno(errno) && !m.again:
		m.again = true
	case m.source && sourceErrno(errno):
		m.source, m.sourceRefused = false, true
		o.putControl(o.at)
	case errno == unix.EMSGSIZE && (m.segment == 0 || o.socket.dontFragment.Load()):
		o.tooBig(m)
	case m.segment > 0 && segmentErrno(errno):
		o.sendSingly(m, errno)
		o.at++
	default:
		o.fail(os.NewSyscallError("sendmmsg", errno))
		o.at++
	}
}

// tooBig fails the current message, and with it what is left of its train: no datagram of one is larger than its first.
func (o *outbox) tooBig(m *message) {
	o.fail(ErrTooBig)
	for o.at++; o.at < o.n && o.msgs[o.at].train == m.train; o.at++ {
	}
}

// socketErrno tells errors that an earlier datagram's fate left on the socket; reported once, they are gone.
func socketErrno(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.ECONNRESET, unix.EHOSTDOWN, unix.EPROTO, unix.ENOPROTOOPT:
		return true
	}
	return false
}

// sourceErrno tells errors that a source address can cause which is no longer there: EINVAL from the route lookup
// (IPv4) or the control message (IPv6), ENODEV for the interface of a link-local one, and no route where policy
// routing goes by source.
func sourceErrno(errno unix.Errno) bool {
	switch errno {
	case unix.EINVAL, unix.EADDRNOTAVAIL, unix.ENODEV, unix.ENXIO, unix.ENETUNREACH, unix.EHOSTUNREACH:
		return true
	}
	return false
}

// segmentErrno tells errors that UDP_SEGMENT can cause: EIO where the interface has no checksum offload or the route
// is IPsec's, EMSGSIZE (EINVAL from older kernels) where a segment exceeds the MTU, whether or not it might be fragmented,
// EINVAL and EOPNOTSUPP where the kernel or a driver knows it only in part.
func segmentErrno(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.EINVAL, unix.EOPNOTSUPP, unix.EMSGSIZE:
		return true
	}
	return false
}

// sendSingly sends the datagrams of a refused train one by one, and remembers the refusal if that went better.
func (o *outbox) sendSingly(m *message, errno unix.Errno) {
	if o.singles == nil {
		o.singles = newOutbox(o.socket)
	}
	s := o.singles
	s.open(o.family, o.trains)
	// A source taken out before this refusal was wrongly suspected if the error can be the segment's just as well.
	s.addSingles(m.train, m.source || m.sourceRefused && errno == unix.EINVAL)
	s.flush()
	sent := s.sent > 0
	s.close()
	if !sent {
		return
	}
	o.family.out.segmentFallbacks.Add(1)
	o.socket.segmentRefused(errno)
}

// segmentRefused remembers that UDP_SEGMENT failed where single datagrams did not. EMSGSIZE is a matter of one
// path; so can EINVAL be, which older kernels use for that as well, but not time after time.
func (s *udpSocket) segmentRefused(errno unix.Errno) {
	switch errno {
	case unix.EMSGSIZE:
		return
	case unix.EINVAL:
		if s.refusals.Add(1) < refusalsRemembered {
			return
		}
	}
	if !s.segmentOff.Swap(true) {
		s.logf("transport: segmentation offload (UDP_SEGMENT) refused: %v; datagrams are sent singly from now on", errno)
	}
}

// fail notes the first error of the current message's train.
func (o *outbox) fail(err error) {
	if t := &o.trains[o.msgs[o.at].train]; t.Err == nil {
		t.Err = err
	}
}
