// Package transport carries datagrams over the underlay in batches.
//
// The engine sees three small interfaces: a [Network] opens a [Socket] on a port, the socket has one or more
// [Receiver] (each driven by one goroutine) and any number of [Sender] (each owned by one goroutine). The unit
// of exchange is the [Train]: datagrams of one size, back to back in one buffer, to or from one [Endpoint], which is
// what UDP_SEGMENT sends and UDP_GRO hands over. [UDP] is the kernel's network; package transporttest has one in
// memory with loss, delay, reordering, duplication and address translation.
package transport

import (
	"net/netip"
	"strconv"
)

const (
	// MaxTrainBytes bounds the bytes of one train: the payload of the largest UDP datagram over IPv4.
	MaxTrainBytes = 65535 - 20 - 8
	// MaxTrainSegments bounds the datagrams of one train (UDP_MAX_SEGMENTS of kernels before 6.9).
	MaxTrainSegments = 64
	// ReceiveBufferSize is the size each receive buffer must have: any UDP payload fits.
	ReceiveBufferSize = 65535
)

// TOS values of handshake messages and the ECN field (RFC 3168). The value set on a train is the whole former TOS
// byte or traffic class.
const (
	TOSHandshake = 0x88 // DSCP AF41 (RFC 2597), not ECN-capable
	ECNMask      = 0x03
	ECNNotECT    = 0x00
	ECNECT1      = 0x01
	ECNECT0      = 0x02
	ECNCE        = 0x03
)

// Endpoint is where a peer's datagrams go to and come from: the remote address and, once something was received,
// the local address it came to ("sticky source"), so that answers leave from there. It is a comparable value.
type Endpoint struct {
	// Remote is the peer's address and port, unmapped (never ::ffff:a.b.c.d); an IPv6 link-local one carries its zone
	// as a decimal interface index.
	Remote netip.AddrPort
	// Source is the local address to send from; the zero Addr leaves the choice to the kernel's routing.
	Source netip.Addr
	// Interface is the index of the interface Source was learned on; 0 where Source is unset.
	Interface int32
	// Stream is the number of the stream (see [Streamer]) that leads to Remote, the far end of its TCP connection; 0 where
	// datagrams do. A stream's endpoint has no Source.
	Stream uint32
}

// String returns the remote address and port, the form shown to users.
func (e Endpoint) String() string {
	if e.Stream != 0 {
		return e.Remote.String() + " over TCP"
	}
	return e.Remote.String()
}

// WithoutSource returns e with the sticky source forgotten.
func (e Endpoint) WithoutSource() Endpoint { return Endpoint{Remote: e.Remote, Stream: e.Stream} }

// Train is one or more datagrams to or from one endpoint.
type Train struct {
	// Buf holds the datagrams back to back in Buf[:N]. The caller provides and keeps the storage; for receiving
	// len(Buf) must be ReceiveBufferSize.
	Buf []byte
	N   int
	// Segment is the size of every datagram but the last, which may be shorter but not empty. 0, or a value of N or
	// more, means a single datagram.
	Segment  int
	Endpoint Endpoint
	// TOS is the outer TOS byte / traffic class; on receive only the ECN bits are meaningful.
	TOS uint8
	// Err is set by Send: nil, or why (part of) this train was not sent.
	Err error
}

// Datagrams returns how many datagrams the train holds.
func (t *Train) Datagrams() int {
	if t.N == 0 {
		return 0
	}
	if t.Segment <= 0 || t.Segment >= t.N {
		return 1
	}
	return (t.N + t.Segment - 1) / t.Segment
}

// Next returns the datagram that starts at offset off, and the offset of the one after it; an off of N or more ends
// the walk with nil.
func (t *Train) Next(off int) (datagram []byte, next int) {
	if off >= t.N {
		return nil, off
	}
	end := t.N
	if t.Segment > 0 && off+t.Segment < end {
		end = off + t.Segment
	}
	return t.Buf[off:end:end], end
}

// Options say how a socket is opened.
type Options struct {
	// Port is the local UDP port, the same for both families; 0 picks a free one.
	Port uint16
	// Mark is the fwmark of outgoing datagrams (SO_MARK), 0 for none.
	Mark uint32
	// DontFragment is what SetDontFragment changes later.
	DontFragment bool
	// Workers is how many receivers of each family share the port, each for a goroutine of its own; 0 and 1 are one.
	Workers int
	// Steering says which worker a datagram goes to.
	Steering Steering
	// Unwatched leaves out what SourceValid and RouteChanges need, which then know nothing.
	Unwatched bool
	// WithoutStreams leaves out the streams of a network that has them (see [Streamer]).
	WithoutStreams bool
	// Logf, when not nil, receives the rare remarks of a socket (such as an offload found unusable, once).
	Logf func(format string, args ...any)

	joins bool // further sockets are to share the port with one that is bound
	bound bool // the socket is one that another process has bound
}

// Steering divides datagrams among the workers of a port, by their content: those whose first byte is First go to worker
// (byte At) >> Shift, modulo the number of workers; all others, shorter ones included, go to worker 0. Where the kernel
// cannot do that, it goes by addresses and ports.
type Steering struct {
	First uint8
	At    uint8
	Shift uint8
}

// Worker returns the worker that a datagram goes to, of as many as there are.
func (s Steering) Worker(datagram []byte, workers int) int {
	if workers <= 1 || len(datagram) <= int(s.At) || datagram[0] != s.First {
		return 0
	}
	return int(datagram[s.At]>>s.Shift) % workers
}

// Network opens sockets.
type Network interface {
	Open(Options) (Socket, error)
}

// Socket is one open UDP port, on both families where the host has both. Its methods may be called concurrently.
type Socket interface {
	// Port returns the bound port.
	Port() uint16
	// SetMark changes the fwmark of what is sent from now on.
	SetMark(mark uint32) error
	// SetDontFragment says whether what is sent from now on may be fragmented. With on, each datagram leaves as one packet,
	// over IPv4 with DF: one larger than the MTU of the interface fails with [ErrTooBig], and one larger than the path
	// takes is lost. What ICMP says of the path is not believed (RFC 8899 section 4.6.2, IP_PMTUDISC_PROBE), so that a forged
	// message cannot make sends fail; the caller finds out by probes of its own. Without, what is too large is fragmented
	// on the way.
	//
	// Datagrams being sent while it changes go either way.
	SetDontFragment(on bool) error
	// Receivers returns the socket's receivers. Each may be used by one goroutine at a time.
	Receivers() []Receiver
	// NewSender returns a sender with scratch space of its own, for one goroutine at a time.
	NewSender() Sender
	// NewWorkerSender is NewSender for one of the workers: what it sends leaves from the same port as all, but shares no
	// kernel socket with what the others send.
	NewWorkerSender(worker int) Sender
	// SourceValid reports whether the route to e.Remote still leaves through e.Interface with e.Source being
	// one of this host's addresses.
	SourceValid(e Endpoint) bool
	// RouteChanges signals (without blocking, coalescing) after routes or addresses of the host have changed.
	// nil where the network cannot tell.
	RouteChanges() <-chan struct{}
	// Counters returns a snapshot of the socket's counters.
	Counters() Counters
	// Close ends all receivers, which return net.ErrClosed. It may be called more than once.
	Close() error
}

// Receiver receives trains.
type Receiver interface {
	// Receive blocks until at least one train is there and fills trains[:n] (N, Segment, Endpoint, TOS). A train may
	// hold nothing (N of 0: an empty datagram, or one dropped as truncated). It allocates nothing. Errors that a later call may not meet again (such as ECONNREFUSED or ENOMEM) are survived inside;
	// what is returned ends the receiver: net.ErrClosed after Close.
	Receive(trains []Train) (n int, err error)
	// Worker is whose of [Options].Workers it is, from 0.
	Worker() int
}

// Sender sends trains.
type Sender interface {
	// Send sends every train it can; a failure of one does not hold back the rest. It returns the number of trains
	// with Err set. A train whose Segment is too big fails as a whole, a shorter last datagram included. Send allocates
	// nothing when nothing fails but by ErrTooBig, and does not keep the buffers.
	Send(trains []Train) (failed int)
}

// Counters are totals since the socket was opened.
type Counters struct {
	SentDatagrams, SentBytes         uint64
	SentCalls                        uint64 // system calls used for sending
	ReceivedDatagrams, ReceivedBytes uint64
	ReceivedCalls                    uint64
	SegmentFallbacks                 uint64 // trains sent singly after UDP_SEGMENT was refused
	SourceFallbacks                  uint64 // sends repeated without a sticky source that had become invalid
	SendErrors                       uint64
	Truncated                        uint64 // received datagrams dropped as larger than the buffer
	SegmentOffload, ReceiveOffload   bool   // UDP_SEGMENT and UDP_GRO in use
	Streams                          StreamCounters
}

// Plus returns the sum of both; an offload is in use where it is in either.
func (c Counters) Plus(d Counters) Counters {
	c.SentDatagrams += d.SentDatagrams
	c.SentBytes += d.SentBytes
	c.SentCalls += d.SentCalls
	c.ReceivedDatagrams += d.ReceivedDatagrams
	c.ReceivedBytes += d.ReceivedBytes
	c.ReceivedCalls += d.ReceivedCalls
	c.SegmentFallbacks += d.SegmentFallbacks
	c.SourceFallbacks += d.SourceFallbacks
	c.SendErrors += d.SendErrors
	c.Truncated += d.Truncated
	c.SegmentOffload = c.SegmentOffload || d.SegmentOffload
	c.ReceiveOffload = c.ReceiveOffload || d.ReceiveOffload
	c.Streams = c.Streams.Plus(d.Streams)
	return c
}

// ParseEndpoint parses "addr:port" or "[addr%zone]:port" with a numeric address. A zone must be a decimal interface
// index. An IPv4-mapped IPv6 address is unmapped.
func ParseEndpoint(s string) (Endpoint, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return Endpoint{}, err
	}
	if z := ap.Addr().Zone(); z != "" {
		if _, err := strconv.ParseUint(z, 10, 31); err != nil {
			return Endpoint{}, &ZoneError{Zone: z}
		}
	}
	return Endpoint{Remote: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}, nil
}

// ZoneError reports an IPv6 zone that is not an interface index.
type ZoneError struct{ Zone string }

func (e *ZoneError) Error() string {
	return "IPv6 zone " + strconv.Quote(e.Zone) + " is not an interface index"
}
