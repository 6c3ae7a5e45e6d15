package transporttest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

	"culvert/transport"
)

// socket is an open port of a host. All its fields are under the network's lock.
type socket struct {
	host    *Host
	port    uint16
	mark    uint32
	whole   bool // what it sends is not to be fragmented
	closed  bool
	paused  bool // receivers are interrupted
	routes  chan struct{}
	steer   transport.Steering
	inboxes []*inbox // one for each worker

	counters transport.Counters
}

// inbox is what waits for one worker: queue[head:], queued bytes in all.
type inbox struct {
	*socket
	worker  int
	arrived *sync.Cond
	queue   []*datagram
	head    int
	queued  int
}

func (s *socket) Port() uint16 { return s.port }

// Interrupt implements [transport.Interrupter].
func (s *socket) Interrupt(on bool) error {
	s.host.network.mu.Lock()
	defer s.host.network.mu.Unlock()
	s.paused = on
	for _, b := range s.inboxes {
		b.arrived.Broadcast()
	}
	return nil
}

func (s *socket) SetMark(mark uint32) error {
	s.host.network.mu.Lock()
	defer s.host.network.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.mark = mark
	return nil
}

func (s *socket) SetDontFragment(on bool) error {
	s.host.network.mu.Lock()
	defer s.host.network.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.whole = on
	return nil
}

// Receivers returns one receiver for each worker, for both families.
func (s *socket) Receivers() []transport.Receiver {
	all := make([]transport.Receiver, len(s.inboxes))
	for i, in := range s.inboxes {
		all[i] = receiver{in}
	}
	return all
}

func (s *socket) NewSender() transport.Sender { return sender{s} }

func (s *socket) NewWorkerSender(int) transport.Sender { return sender{s} }

// inboxOf is where a datagram waits.
func (s *socket) inboxOf(d *datagram) *inbox {
	return s.inboxes[s.steer.Worker(d.data, len(s.inboxes))]
}

func (s *socket) SourceValid(e transport.Endpoint) bool {
	s.host.network.mu.Lock()
	defer s.host.network.mu.Unlock()
	return !e.Source.IsValid() || (e.Interface == 0 || e.Interface == hostInterface) && slices.Contains(s.host.addrs, e.Source)
}

func (s *socket) RouteChanges() <-chan struct{} { return s.routes }

func (s *socket) routesChanged() {
	select {
	case s.routes <- struct{}{}:
	default:
	}
}

func (s *socket) Counters() transport.Counters {
	s.host.network.mu.Lock()
	defer s.host.network.mu.Unlock()
	c := s.counters
	c.SegmentOffload, c.ReceiveOffload = true, true
	return c
}

func (s *socket) Close() error {
	n := s.host.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	delete(s.host.sockets, s.port)
	for _, in := range s.inboxes {
		for _, d := range in.queue[in.head:] {
			n.release(d)
		}
		in.queue, in.head, in.queued = nil, 0, 0
		in.arrived.Broadcast()
	}
	return nil
}

func (s *inbox) put(d *datagram) {
	if s.head > 0 && len(s.queue) == cap(s.queue) {
		s.queue = s.queue[:copy(s.queue, s.queue[s.head:])]
		s.head = 0
	}
	s.queue = append(s.queue, d)
	s.queued += len(d.data)
	s.arrived.Signal()
}

func (s *inbox) take() *datagram {
	d := s.queue[s.head]
	s.queue[s.head] = nil
	if s.head++; s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	}
	s.queued -= len(d.data)
	return d
}

type receiver struct{ *inbox }

func (r receiver) Worker() int { return r.worker }

var errReceiveBuffer = errors.New("transporttest: receive buffer smaller than transport.ReceiveBufferSize")

func (r receiver) Receive(trains []transport.Train) (int, error) {
	for i := range trains {
		if len(trains[i].Buf) < transport.ReceiveBufferSize {
			return 0, errReceiveBuffer
		}
	}
	if len(trains) == 0 {
		return 0, nil
	}
	n := r.host.network
	n.mu.Lock()
	defer n.mu.Unlock()
	for r.head == len(r.queue) && !r.closed && !r.paused {
		r.arrived.Wait()
	}
	if r.closed {
		return 0, net.ErrClosed
	}
	if r.paused {
		return 0, os.ErrDeadlineExceeded
	}
	r.counters.ReceivedCalls++
	filled := 0
	for filled < len(trains) && r.head < len(r.queue) {
		r.fill(&trains[filled])
		filled++
	}
	return filled, nil
}

// fill moves the next run of datagrams into t that came from one sender to one address, with one TOS, all of the size
// of the first but the last, which may be shorter: what GRO puts together.
func (s *inbox) fill(t *transport.Train) {
	first := s.take()
	*t = transport.Train{
		Buf: t.Buf,
		TOS: first.tos,
		Endpoint: transport.Endpoint{
			Remote:    first.from,
			Source:    first.to.Addr(),
			Interface: hostInterface,
		},
	}
	from, to, size := first.from, first.to, len(first.data)
	count := 0
	for d := first; ; d = s.take() {
		last := len(d.data) < size || size == 0
		t.N += copy(t.Buf[t.N:], d.data)
		s.counters.ReceivedDatagrams++
		s.counters.ReceivedBytes += uint64(len(d.data))
		s.host.network.release(d)
		count++
		if last || count == transport.MaxTrainSegments || s.head == len(s.queue) {
			break
		}
		next := s.queue[s.head]
		if next.from != from || next.to != to || next.tos != t.TOS || len(next.data) == 0 ||
			len(next.data) > size || t.N+len(next.data) > transport.MaxTrainBytes {
			break
		}
	}
	if count > 1 {
		t.Segment = size
	}
}

type sender struct{ *socket }

// errUnreachable is what a kernel without a route reports.
var errUnreachable = os.NewSyscallError("sendmmsg", syscall.ENETUNREACH)

func (s sender) Send(trains []transport.Train) (failed int) {
	n := s.host.network
	n.mu.Lock()
	defer n.mu.Unlock()
	s.counters.SentCalls++
	for i := range trains {
		t := &trains[i]
		if t.Err = s.send(t); t.Err != nil {
			failed++
			s.counters.SendErrors++
		}
	}
	n.run()
	return failed
}

// send sends the datagrams of one train.
func (s *socket) send(t *transport.Train) error {
	if err := t.Check(); err != nil {
		return err
	}
	for b, next := t.Next(0); b != nil; b, next = t.Next(next) {
		if s.closed {
			return net.ErrClosed
		}
		if err := s.sendOne(t, b); err != nil {
			return err
		}
	}
	return nil
}

func (s *socket) sendOne(t *transport.Train, b []byte) error {
	h, n := s.host, s.host.network
	from, err := s.source(t.Endpoint)
	if err != nil {
		n.counters.Unreachable++
		return err
	}
	if s.whole && h.mtu > 0 && packetBytes(t.Endpoint.Remote.Addr(), len(b)) > h.mtu {
		n.counters.TooBig++
		return transport.ErrTooBig
	}
	d := n.newDatagram()
	d.from = netip.AddrPortFrom(from, s.port)
	d.to, d.tos, d.whole = t.Endpoint.Remote, t.TOS, s.whole
	d.data = append(d.data[:0], b...)
	d.realm = h.realm()
	if h.behind != nil && h.behind.inside[d.to.Addr()] == nil {
		if !h.behind.outward(d) {
			n.counters.Unreachable++
			n.release(d)
			return errUnreachable
		}
		d.realm = n.realm
	}
	p := n.path(direction{h.number, n.target(d.realm, d.to)})
	link := &p.link
	if !p.set {
		link = &n.all
	}
	if link.Unreachable {
		n.counters.Unreachable++
		n.release(d)
		return errUnreachable
	}
	s.counters.SentDatagrams++
	s.counters.SentBytes += uint64(len(b))
	n.counters.Sent++
	if !n.runTaps(d) {
		n.counters.Tapped++
		n.release(d)
		return nil
	}
	n.cross(p, link, d)
	return nil
}

// source is the address to send from: the endpoint's where the host has it, or else the first of the family.
func (s *socket) source(e transport.Endpoint) (netip.Addr, error) {
	remote := e.Remote.Addr()
	if e.Source.IsValid() && e.Source.Is4() == remote.Is4() {
		if slices.Contains(s.host.addrs, e.Source) {
			return e.Source, nil
		}
		s.counters.SourceFallbacks++
	}
	a, ok := pickFamily(s.host.addrs, remote)
	if !ok {
		return a, errUnreachable
	}
	return a, nil
}
