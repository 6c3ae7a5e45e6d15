package stream

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"culvert/transport"
)

// socket is a socket of the network below, with streams.
type socket struct {
	transport.Socket
	network *Network
	host    Host
	logf    func(format string, args ...any)

	table     *table
	postbox   *postbox
	receivers []transport.Receiver
	mark      atomic.Uint32

	listening sync.Mutex // guards what follows
	listener  net.Listener
	config    Config
	server    atomic.Pointer[tls.Config]

	closed    chan struct{}
	closeOnce sync.Once
	work      sync.WaitGroup

	streams struct {
		dialled, accepted, refused, evicted, failed, silent, stuck atomic.Uint64
	}
	out struct{ datagrams, bytes, full atomic.Uint64 }
	in  struct{ datagrams, bytes atomic.Uint64 }
}

var _ transport.Streamer = (*socket)(nil)

func newSocket(n *Network, under transport.Socket, host Host, o transport.Options) *socket {
	s := &socket{Socket: under, network: n, host: host, logf: o.Logf, postbox: newPostbox(), closed: make(chan struct{})}
	if s.logf == nil {
		s.logf = func(string, ...any) {}
	}
	s.table = newTable(s)
	s.mark.Store(o.Mark)
	s.receivers = append(slices.Clone(under.Receivers()), &receiver{socket: s})
	return s
}

// Receivers returns those of the socket below and one more, which is worker 0's.
func (s *socket) Receivers() []transport.Receiver { return s.receivers }

func (s *socket) NewSender() transport.Sender {
	return &sender{socket: s, datagrams: s.Socket.NewSender()}
}

// NewWorkerSender is NewSender for a worker's datagrams; streams are shared by all.
func (s *socket) NewWorkerSender(worker int) transport.Sender {
	return &sender{socket: s, datagrams: s.Socket.NewWorkerSender(worker)}
}

// SetMark changes the mark of what is sent by either way.
func (s *socket) SetMark(mark uint32) error {
	if err := s.Socket.SetMark(mark); err != nil {
		return err
	}
	s.mark.Store(mark)
	s.table.each(func(c *conn) { s.setMark(c.raw, mark) })
	s.listening.Lock()
	defer s.listening.Unlock()
	if s.listener != nil {
		s.setMark(s.listener, mark)
	}
	return nil
}

func (s *socket) setMark(of any, mark uint32) {
	if err := s.host.SetMark(of, mark); err != nil {
		s.logf("the mark of a TCP connection cannot be changed: %v", err)
	}
}

// SourceValid asks the socket below. A stream whose local address has gone is closed, and so no more the endpoint of
// anybody: it has no source that could be left out.
func (s *socket) SourceValid(e transport.Endpoint) bool {
	if e.Stream == 0 {
		return s.Socket.SourceValid(e)
	}
	s.table.sourceGone(e, s.Socket.SourceValid)
	return true
}

func (s *socket) InUse(e transport.Endpoint, used bool) { s.table.inUse(e.Stream, used) }

func (s *socket) Counters() transport.Counters {
	c := s.Socket.Counters()
	s.table.mu.Lock()
	open := len(s.table.all)
	s.table.mu.Unlock()
	c.Streams = transport.StreamCounters{
		Open:              uint64(open),
		Dialled:           s.streams.dialled.Load(),
		Accepted:          s.streams.accepted.Load(),
		Refused:           s.streams.refused.Load(),
		Evicted:           s.streams.evicted.Load(),
		Failed:            s.streams.failed.Load(),
		Silent:            s.streams.silent.Load(),
		Stuck:             s.streams.stuck.Load(),
		SentDatagrams:     s.out.datagrams.Load(),
		SentBytes:         s.out.bytes.Load(),
		ReceivedDatagrams: s.in.datagrams.Load(),
		ReceivedBytes:     s.in.bytes.Load(),
		Full:              s.out.full.Load(),
	}
	return c
}

// Close ends all receivers and streams.
func (s *socket) Close() error {
	err := s.Socket.Close()
	s.closeOnce.Do(func() {
		s.table.drain()
		close(s.closed)
		s.pause()
		s.table.close()
		s.postbox.close()
		s.work.Wait()
		if c, ok := s.host.(interface{ Close() error }); ok {
			c.Close()
		}
		go s.network.closed(s) // which may be opening the next one
	})
	return err
}

// newConn makes a connection of an open TCP connection, and takes it up.
func (s *socket) newConn(raw net.Conn, dialled bool) *conn {
	remote, local := addrPort(raw.RemoteAddr()), addrPort(raw.LocalAddr()).Addr()
	c := &conn{
		socket:   s,
		raw:      raw,
		endpoint: transport.Endpoint{Remote: remote, Stream: s.network.number()},
		local:    local,
		from:     addressOf(remote.Addr()),
		dialled:  dialled,
		queue:    newQueue(),
		inbox:    inbox{room: make(chan struct{}, 1)},
		done:     make(chan struct{}),
		used:     make(chan struct{}),
	}
	if !s.table.add(c) {
		raw.Close()
		return nil
	}
	return c
}

// addrPort is the address of one end of a TCP connection.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// sender sends trains of datagrams below, and those of streams into their queues.
type sender struct {
	socket    *socket
	datagrams transport.Sender
	last      *conn // the stream last sent over
}

// Send finds the runs of trains of either kind. It takes no lock, and copies nothing, for what goes by datagrams.
func (s *sender) Send(trains []transport.Train) (failed int) {
	from := 0
	for i := range trains {
		if trains[i].Endpoint.Stream == 0 {
			continue
		}
		if from < i {
			failed += s.datagrams.Send(trains[from:i])
		}
		from = i + 1
		if trains[i].Err = s.stream(&trains[i]); trains[i].Err != nil {
			failed++
		}
	}
	if from < len(trains) {
		failed += s.datagrams.Send(trains[from:])
	}
	return failed
}

// stream sends a train over its stream.
func (s *sender) stream(t *transport.Train) error {
	if err := t.Check(); err != nil {
		return err
	}
	c := s.last
	if c == nil || c.endpoint.Stream != t.Endpoint.Stream {
		if c = s.socket.table.find(t.Endpoint.Stream); c == nil {
			return transport.ErrStreamGone
		}
		s.last = c
	}
	err := c.queue.put(t)
	switch err {
	case nil:
		s.socket.out.datagrams.Add(uint64(t.Datagrams()))
		s.socket.out.bytes.Add(uint64(t.N))
	case transport.ErrStreamFull:
		s.socket.out.full.Add(uint64(t.Datagrams()))
	default:
		s.last = nil
	}
	return err
}

// Interrupt implements [transport.Interrupter].
func (s *socket) Interrupt(on bool) error {
	i, ok := s.Socket.(transport.Interrupter)
	if !ok {
		return errors.ErrUnsupported
	}
	s.postbox.pause(on)
	return i.Interrupt(on)
}
