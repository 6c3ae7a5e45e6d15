package transport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// socketBuffer is the size asked for a socket's receive and send buffers: some milliseconds at 10 Gbit/s.
	socketBuffer = 7 << 20
	// portTries bounds the search for a port that is free on both families.
	portTries = 64
	// refusalsRemembered is how many trains in a row must be refused with an error that has other meanings as well
	// before UDP_SEGMENT is given up.
	refusalsRemembered = 8
)

// UDP is the kernel's network: UDP over IPv4 and IPv6 in the network namespace of the thread that calls Open.
type UDP struct{}

var _ Network = UDP{}

// family is one of a socket's two kernel sockets.
type family struct {
	file *os.File
	raw  syscall.RawConn
	v6   bool
	gso  bool // the kernel knows UDP_SEGMENT
	gro  bool // UDP_GRO is on

	out sendCounters
	in  receiveCounters
}

type udpSocket struct {
	v4, v6 *family  // nil where the host lacks the family
	joined []worker // what shares the port with these
	port   uint16
	logf   func(format string, args ...any)

	send, recv mmsgCall
	attach     attachFunc

	mark                atomic.Uint32
	dontFragment        atomic.Bool
	corruptsEqualTrains bool
	// segmentOff is set once UDP_SEGMENT was found unusable; refusals counts towards it.
	segmentOff atomic.Bool
	refusals   atomic.Int32
	sendErrors atomic.Uint64 // failed trains

	routes    *routeQueries // nil where netlink is out of reach
	watch     *routeWatch
	receivers []Receiver

	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error
}

type sendCounters struct {
	_                                 [64]byte // apart from what the receivers write
	datagrams, bytes, calls           atomic.Uint64
	segmentFallbacks, sourceFallbacks atomic.Uint64
	_                                 [64]byte
}

type receiveCounters struct {
	datagrams, bytes, calls atomic.Uint64
	truncated               atomic.Uint64
	_                       [64]byte
}

// Open binds o.Port on both families; a host without one of them gets the other alone. A port in use is an
// error that unwraps to EADDRINUSE. What SourceValid and RouteChanges need is opened along, in the same namespace.
func (UDP) Open(o Options) (Socket, error) {
	s := newUDPSocket(o)
	s.mark.Store(o.Mark)
	s.dontFragment.Store(o.DontFragment)
	if err := s.bind(o, openFamily); err != nil {
		return nil, err
	}
	if err := s.join(o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.makeReceivers()
	if !o.Unwatched {
		s.openRoutes()
	}
	return s, nil
}

// newUDPSocket is a socket with nothing open yet.
func newUDPSocket(o Options) *udpSocket {
	s := &udpSocket{
		logf:   o.Logf,
		send:   sendmmsg,
		recv:   recvmmsg,
		attach: attachSteering,
		closed: make(chan struct{}),
	}
	if s.logf == nil {
		s.logf = func(string, ...any) {}
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		s.corruptsEqualTrains = parseKernelRelease(unix.ByteSliceToString(name.Release[:])).corruptsEqualTrains()
	}
	return s
}

// makeReceivers makes a receiver for each kernel socket.
func (s *udpSocket) makeReceivers() {
	for i := range 1 + len(s.joined) {
		w := s.worker(i)
		for _, f := range []*family{w.v4, w.v6} {
			if f != nil {
				s.receivers = append(s.receivers, newReceiver(s, f, i))
			}
		}
	}
}

// openRoutes opens the netlink sockets. A process that may not have them (seccomp) still has a transport: stale
// sources are then found when the kernel refuses them.
func (s *udpSocket) openRoutes() {
	var err error
	if s.routes, err = openRouteQueries(); err != nil {
		s.logf("transport: routes cannot be queried: %v", err)
	}
	if s.watch, err = openRouteWatch(); err != nil {
		s.logf("transport: route changes cannot be watched: %v", err)
	}
}

// openFunc is openFamily, or what a test puts in its place for hosts it cannot have.
type openFunc func(v6 bool, o Options) (*family, error)

// bind opens both families on one port. With port 0 the first picks, and the search starts over where the
// other's is taken.
func (s *udpSocket) bind(o Options, open openFunc) error {
	var err error
	for range portTries {
		if err = s.bindOnce(o, open); err == nil {
			return nil
		}
		if o.Port != 0 || !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return err
}

func (s *udpSocket) bindOnce(o Options, open openFunc) error {
	v4, err4 := open(false, o)
	if err4 != nil && !familyMissing(err4) {
		return err4
	}
	if v4 != nil {
		var err error
		if o.Port, err = v4.port(); err != nil {
			return errors.Join(err, v4.file.Close())
		}
	}
	v6, err6 := open(true, o)
	if err6 != nil && (v4 == nil || !familyMissing(err6)) {
		if v4 != nil {
			return errors.Join(err6, v4.file.Close())
		}
		return errors.Join(err4, err6)
	}
	if v4 == nil {
		var err error
		if o.Port, err = v6.port(); err != nil {
			return errors.Join(err, v6.file.Close())
		}
	}
	s.v4, s.v6, s.port = v4, v6, o.Port
	return nil
}

// familyMissing tells errors of a host without a family from real ones.
func familyMissing(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) ||
		errors.Is(err, unix.EADDRNOTAVAIL)
}

// openFamily opens, sets up and binds the socket of one family.
func openFamily(v6 bool, o Options) (*family, error) {
	domain, network := unix.AF_INET, "udp4"
	var addr unix.Sockaddr = &unix.SockaddrInet4{Port: int(o.Port)}
	if v6 {
		domain, network = unix.AF_INET6, "udp6"
		addr = &unix.SockaddrInet6{Port: int(o.Port)}
	}
	fail := func(call string, err error) error {
		return fmt.Errorf("open %s port %d: %w", network, o.Port, os.NewSyscallError(call, err))
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fail("socket", err)
	}
	f := &family{v6: v6}
	if call, err := f.setOptions(fd, o); err != nil {
		unix.Close(fd)
		return nil, fail(call, err)
	}
	if err := unix.Bind(fd, addr); err != nil {
		unix.Close(fd)
		return nil, fail("bind", err)
	}
	f.file = os.NewFile(uintptr(fd), network)
	if f.raw, err = f.file.SyscallConn(); err != nil {
		return nil, errors.Join(fail("SyscallConn", err), f.file.Close())
	}
	return f, nil
}

// socketOption is one argument list of setsockopt, and what an error calls it.
type socketOption struct {
	name              string
	level, opt, value int
}

func (o socketOption) set(fd int) error { return unix.SetsockoptInt(fd, o.level, o.opt, o.value) }

func markOption(mark uint32) socketOption {
	return socketOption{"setsockopt SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(mark)}
}

// mtuDiscover is the option behind [Socket.SetDontFragment].
//
// Off is IP_PMTUDISC_DONT: outer packets leave without DF, so that a path narrower than the tunnel's MTU assumes costs
// fragments, not a black hole, and a forged "fragmentation needed" gains nothing but that. Over IPv6, where routers do not
// fragment, this host does, at the path MTU it has learned. It is what WireGuard does.
//
// On is IP_PMTUDISC_PROBE: DF, and the interface's MTU alone counts; the path MTU the kernel has learned, from whoever
// sent it the ICMP message, is passed over (IP_PMTUDISC_DO would heed it).
func (f *family) mtuDiscover(dontFragment bool) socketOption {
	o := socketOption{"setsockopt IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT}
	if f.v6 {
		o = socketOption{"setsockopt IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT}
	}
	if dontFragment {
		o.value = unix.IP_PMTUDISC_PROBE // the same number in both families
	}
	return o
}

// setOptions sets what must be there and tries what only helps.
//
// IP_RECVERR stays off: a queued ICMP error would fail the next, unrelated send.
//
// SO_REUSEADDR stays off: two daemons on one port would each get part of the datagrams. SO_REUSEPORT is on only where join
// says.
func (f *family) setOptions(fd int, o Options) (call string, err error) {
	for _, b := range []struct{ force, plain int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF},
		{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, b.force, socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, b.plain, socketBuffer) // the kernel caps it
		}
	}
	if o.joins {
		if err := sharePort.set(fd); err != nil {
			return sharePort.name, err
		}
	}
	options := []socketOption{
		{"setsockopt IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{"setsockopt IP_RECVTOS", unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
		f.mtuDiscover(o.DontFragment),
		{"setsockopt IP_RECVERR", unix.IPPROTO_IP, unix.IP_RECVERR, 0},
	}
	if f.v6 {
		options = []socketOption{
			{"setsockopt IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			{"setsockopt IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			{"setsockopt IPV6_RECVTCLASS", unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1},
			f.mtuDiscover(o.DontFragment),
			{"setsockopt IPV6_RECVERR", unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 0},
		}
	}
	if f.v6 && o.bound {
		options = options[1:] // it cannot be set any more
	}
	if o.Mark != 0 {
		options = append(options, markOption(o.Mark))
	}
	for _, o := range options {
		if err := o.set(fd); err != nil {
			return o.name, err
		}
	}
	_, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	f.gso = err == nil
	f.gro = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	return "", nil
}

// port asks the kernel for the bound port.
func (f *family) port() (port uint16, err error) {
	ctlErr := f.raw.Control(func(fd uintptr) {
		var sa unix.Sockaddr
		sa, err = unix.Getsockname(int(fd))
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			port = uint16(sa.Port)
		case *unix.SockaddrInet6:
			port = uint16(sa.Port)
		}
	})
	if err != nil {
		err = os.NewSyscallError("getsockname", err)
	}
	return port, errors.Join(ctlErr, err)
}

// families lists those that are open.
func (s *udpSocket) families() []*family {
	var fs []*family
	for i := range 1 + len(s.joined) {
		w := s.worker(i)
		for _, f := range []*family{w.v4, w.v6} {
			if f != nil {
				fs = append(fs, f)
			}
		}
	}
	return fs
}

func (s *udpSocket) Port() uint16 { return s.port }

func (s *udpSocket) SetMark(mark uint32) error {
	for _, f := range s.families() {
		if err := f.setOption(markOption(mark)); err != nil {
			return err
		}
	}
	s.mark.Store(mark)
	return nil
}

func (s *udpSocket) SetDontFragment(on bool) error {
	for _, f := range s.families() {
		if err := f.setOption(f.mtuDiscover(on)); err != nil {
			return err
		}
	}
	s.dontFragment.Store(on)
	return nil
}

// setOption sets an option of the open socket.
func (f *family) setOption(o socketOption) (err error) {
	if f.raw.Control(func(fd uintptr) { err = o.set(int(fd)) }) != nil {
		return net.ErrClosed
	}
	if err != nil {
		return os.NewSyscallError(o.name, err)
	}
	return nil
}

func (s *udpSocket) Receivers() []Receiver { return s.receivers }

func (s *udpSocket) NewSender() Sender { return s.NewWorkerSender(0) }

func (s *udpSocket) NewWorkerSender(worker int) Sender { return newUDPSender(s, s.worker(worker)) }

func (s *udpSocket) SourceValid(e Endpoint) bool {
	if !e.Source.IsValid() || s.routes == nil {
		return true
	}
	return s.routes.sourceValid(e, s.port, s.mark.Load())
}

func (s *udpSocket) RouteChanges() <-chan struct{} {
	if s.watch == nil {
		return nil
	}
	return s.watch.changes
}

func (s *udpSocket) Counters() Counters {
	var c Counters
	for _, f := range s.families() {
		c = c.Plus(Counters{
			SentDatagrams:     f.out.datagrams.Load(),
			SentBytes:         f.out.bytes.Load(),
			SentCalls:         f.out.calls.Load(),
			SegmentFallbacks:  f.out.segmentFallbacks.Load(),
			SourceFallbacks:   f.out.sourceFallbacks.Load(),
			ReceivedDatagrams: f.in.datagrams.Load(),
			ReceivedBytes:     f.in.bytes.Load(),
			ReceivedCalls:     f.in.calls.Load(),
			Truncated:         f.in.truncated.Load(),
			SegmentOffload:    f.gso && !s.segmentOff.Load(),
			ReceiveOffload:    f.gro,
		})
	}
	c.SendErrors = s.sendErrors.Load()
	return c
}

func (s *udpSocket) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		for _, f := range s.families() {
			s.closeErr = errors.Join(s.closeErr, f.file.Close())
		}
		if s.routes != nil {
			s.routes.close()
		}
		if s.watch != nil {
			s.watch.close()
		}
	})
	return s.closeErr
}

// Interrupt implements [Interrupter].
func (s *udpSocket) Interrupt(on bool) error {
	var until time.Time
	if on {
		until = time.Unix(1, 0)
	}
	var errs []error
	for _, f := range s.families() {
		errs = append(errs, f.file.SetReadDeadline(until))
	}
	return errors.Join(errs...)
}
