package transporttest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// TCP is a network of TCP connections in memory, for package stream: hosts that listen and dial, connections without delay
// and without buffers, so that under testing/synctest every wait is a durable one. Its methods may be called concurrently.
type TCP struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*listener
	names     map[string][]netip.Addr
	conns     map[*tcpConn]struct{}
	refused   bool
	lastPort  uint16
	dials     []netip.AddrPort
}

// NewTCP returns a network on which nobody listens.
func NewTCP() *TCP {
	return &TCP{listeners: map[netip.AddrPort]*listener{}, names: map[string][]netip.Addr{}, conns: map[*tcpConn]struct{}{}}
}

// Name gives a name addresses.
func (n *TCP) Name(name string, addrs ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[name] = addrs
}

// Refuse has all dialling refused, or no more.
func (n *TCP) Refuse(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = on
}

// Cut ends all connections there are, as a reset would.
func (n *TCP) Cut() {
	n.mu.Lock()
	conns := n.conns
	n.conns = map[*tcpConn]struct{}{}
	n.mu.Unlock()
	for c := range conns {
		c.Conn.Close()
	}
}

// Dials returns where was dialled to so far, in order.
func (n *TCP) Dials() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]netip.AddrPort(nil), n.dials...)
}

// Open returns how many connections there are, each end counted.
func (n *TCP) Open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// Host is the host of that address.
func (n *TCP) Host(addr netip.Addr) *TCPHost { return &TCPHost{network: n, addr: addr} }

// TCPHost is a host of a [TCP].
type TCPHost struct {
	network *TCP
	addr    netip.Addr
	mu      sync.Mutex
	mark    uint32
}

// Mark returns the mark last given.
func (h *TCPHost) Mark() uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mark
}

// SetMark notes the mark.
func (h *TCPHost) SetMark(_ any, mark uint32) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mark = mark
	return nil
}

// Listen listens on the host's own address, at the port.
func (h *TCPHost) Listen(at netip.AddrPort, mark uint32) (net.Listener, error) {
	h.SetMark(nil, mark)
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	at = netip.AddrPortFrom(h.addr, at.Port())
	if n.listeners[at] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	l := &listener{network: n, at: at, pending: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[at] = l
	return l, nil
}

// Dial connects to whoever listens there.
func (h *TCPHost) Dial(ctx context.Context, to netip.AddrPort, mark uint32) (net.Conn, error) {
	h.SetMark(nil, mark)
	n := h.network
	n.mu.Lock()
	n.dials = append(n.dials, to)
	l := n.listeners[to]
	if l == nil || n.refused {
		n.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	if n.lastPort++; n.lastPort < 40000 {
		n.lastPort = 40000
	}
	from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.addr, n.lastPort))
	there := net.TCPAddrFromAddrPort(to)
	a, b := net.Pipe()
	near := &tcpConn{Conn: a, network: n, local: from, remote: there}
	far := &tcpConn{Conn: b, network: n, local: there, remote: from}
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	n.mu.Unlock()
	select {
	case l.pending <- far:
		return near, nil
	case <-l.closed:
		near.Close()
		far.Close()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	case <-ctx.Done():
		near.Close()
		far.Close()
		return nil, ctx.Err()
	}
}

var errNoSuchHost = errors.New("no such host")

// Lookup returns the addresses of a name.
func (h *TCPHost) Lookup(_ context.Context, name string) ([]netip.Addr, error) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	if addrs, ok := h.network.names[name]; ok {
		return addrs, nil
	}
	return nil, errNoSuchHost
}

type listener struct {
	network *TCP
	at      netip.AddrPort
	pending chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.pending:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, l.at)
		l.network.mu.Unlock()
		close(l.closed)
	})
	return nil
}

type tcpConn struct {
	net.Conn
	network       *TCP
	local, remote net.Addr
}

func (c *tcpConn) LocalAddr() net.Addr  { return c.local }
func (c *tcpConn) RemoteAddr() net.Addr { return c.remote }

func (c *tcpConn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}
