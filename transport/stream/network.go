package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"culvert/transport"
)

var (
	errReceiveBuffer = errors.New("stream: receive buffer smaller than transport.ReceiveBufferSize")
	errMoved         = errors.New("the local address of the connection has gone")
)

// Config says whether streams are accepted.
type Config struct {
	// Listen is the address and port where; an unspecified address stands for all of the host's, port 0 for nowhere.
	Listen netip.AddrPort
	// Certificate is what is shown to those who connect, see [SelfSigned].
	Certificate tls.Certificate
}

// Host is what streams need of a host: the kernel, or a host in memory. Its functions are called as the sockets of the network
// under it are opened, and later, from any thread.
type Host interface {
	// Listen accepts connections. The mark is that of what is sent.
	Listen(at netip.AddrPort, mark uint32) (net.Listener, error)
	// Dial connects.
	Dial(ctx context.Context, to netip.AddrPort, mark uint32) (net.Conn, error)
	// Lookup returns the addresses of a name, best first.
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
	// SetMark changes the mark of a connection or listener of its own.
	SetMark(of any, mark uint32) error
}

// Network is a network whose sockets have streams besides datagrams.
type Network struct {
	under transport.Network
	host  func() (Host, error) // that of the calling thread's network namespace
	last  atomic.Uint32        // number of the last stream

	mu     sync.Mutex
	config Config
	open   *socket // the last one opened

	inherited   net.Listener // nil: none, or taken
	inheritedAt netip.AddrPort
}

var _ transport.Network = (*Network)(nil)

// New wraps a network of the kernel's.
func New(under transport.Network) *Network { return NewOn(under, kernelHost) }

// NewOn is New for a host of the caller's; the function is called at each Open.
func NewOn(under transport.Network, host func() (Host, error)) *Network {
	return &Network{under: under, host: host}
}

// Configure changes where streams are accepted, at once where a socket is open and otherwise as soon as one is. On failure
// things are as they were: a [*ListenError], which unwraps to the kernel's, such as EADDRINUSE. Streams that were accepted before stay, unless none are
// to be accepted any more.
func (n *Network) Configure(c Config) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open != nil {
		if err := n.open.listen(c); err != nil {
			return err
		}
	}
	n.config = c
	return nil
}

// Open opens a socket of the network below, and accepts streams if that is configured. Streams move to it from the one opened
// before, but for one that is to have none.
func (n *Network) Open(o transport.Options) (transport.Socket, error) {
	if o.WithoutStreams {
		return n.under.Open(o)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	under, err := n.under.Open(o)
	if err != nil {
		return nil, err
	}
	host, err := n.host()
	if err != nil {
		under.Close()
		return nil, err
	}
	s := newSocket(n, under, host, o)
	before := n.open
	if before != nil { // it is closed once this one has taken its place, which needs its port
		before.pause()
	}
	if err := s.listen(n.config); err != nil {
		s.Close()
		if before != nil {
			before.resume(n.config)
		}
		return nil, err
	}
	n.open = s
	return s, nil
}

// closed forgets a socket.
func (n *Network) closed(s *socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == s {
		n.open = nil
	}
}

// number returns a number for a new stream, never zero.
func (n *Network) number() uint32 {
	for {
		if number := n.last.Add(1); number != 0 {
			return number
		}
	}
}

// ListenError says where streams could not be accepted.
type ListenError struct {
	At  netip.AddrPort
	Err error
}

func (e *ListenError) Error() string {
	return fmt.Sprintf("cannot listen on TCP port %d: %v", e.At.Port(), e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }
