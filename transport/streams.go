package transport

import (
	"context"
	"errors"
	"net"
	"strconv"
)

// A Streamer is a Socket that carries datagrams over streams besides (TCP connections, package stream): for peers that UDP does
// not reach. A stream has a number, which no other of the Streamer's network has had for the last 2^32. A datagram that is sent to
// an Endpoint with that number goes over it, and one that came over it has such an Endpoint.
type Streamer interface {
	Socket
	// Dial opens a stream to a target. It blocks until the stream carries datagrams, ctx ends, or it has failed.
	Dial(ctx context.Context, to StreamTarget) (Stream, error)
	// InUse says whether e, an endpoint of a stream, is where a peer is sent to, because an authenticated message has come from
	// there or because this end has dialled it. Each true is followed by one false. A stream that nobody uses is closed after
	// a short time; one that another end has opened and that was never in use, after a shorter one.
	InUse(e Endpoint, used bool)
}

// A Stream is an open stream that this end has dialled.
type Stream interface {
	// Endpoint is the stream's: its number, and the address it leads to.
	Endpoint() Endpoint
	// Done is closed when the stream has ended, whoever ended it.
	Done() <-chan struct{}
	// Err says why, once Done is closed.
	Err() error
	// Close ends it.
	Close() error
}

// A StreamTarget is where a stream can be dialled.
type StreamTarget struct {
	Host string // a name, or an IP address without brackets
	Port uint16
}

// String gives host:port, IPv6 addresses in brackets.
func (t StreamTarget) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// Why a train was not sent over its stream.
var (
	// ErrStreamFull is the Err of a train that had no room among what waits to be sent over its stream: the stream is slower.
	ErrStreamFull = errors.New("transport: the stream takes no more at present")
	// ErrStreamGone is the Err of a train to a stream that has ended.
	ErrStreamGone = errors.New("transport: the stream has ended")
)

// StreamCounters are totals over a socket's streams, but for Open.
type StreamCounters struct {
	Open     uint64 // streams there are now
	Dialled  uint64 // that this end opened
	Accepted uint64 // that others opened, to the end of the TLS handshake
	Refused  uint64 // connections closed at once: too many of their address
	Evicted  uint64 // connections closed to make room before anything authenticated had come
	Failed   uint64 // connections whose TLS handshake failed, or that sent what are no datagrams
	Silent   uint64 // connections closed as nothing authenticated came in time, or nothing at all for long
	Stuck    uint64 // connections closed as they took nothing for long

	SentDatagrams, SentBytes         uint64
	ReceivedDatagrams, ReceivedBytes uint64
	Full                             uint64 // datagrams dropped as their stream took no more
}

// Plus returns the sum of both.
func (c StreamCounters) Plus(d StreamCounters) StreamCounters {
	c.Open += d.Open
	c.Dialled += d.Dialled
	c.Accepted += d.Accepted
	c.Refused += d.Refused
	c.Evicted += d.Evicted
	c.Failed += d.Failed
	c.Silent += d.Silent
	c.Stuck += d.Stuck
	c.SentDatagrams += d.SentDatagrams
	c.SentBytes += d.SentBytes
	c.ReceivedDatagrams += d.ReceivedDatagrams
	c.ReceivedBytes += d.ReceivedBytes
	c.Full += d.Full
	return c
}

// An Interrupter is a Socket whose receivers can be stopped without closing it: what has arrived stays there.
type Interrupter interface {
	// Interrupt has all receivers, also those that wait, return os.ErrDeadlineExceeded as long as it is on.
	Interrupt(on bool) error
}

// An IdleReceiver is a Receiver that may have nothing to receive for as long as it lives. Who drives it may put off what receiving
// takes until Wait returns.
type IdleReceiver interface {
	Receiver
	// Wait blocks until there is something to receive, or returns the error that Receive would.
	Wait() error
}
