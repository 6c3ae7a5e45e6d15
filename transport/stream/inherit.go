package stream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"culvert/transport"
)

// Listener returns a descriptor of where streams are accepted, for [Network.Inherit] in another process, and its address; nil where none are. The
// caller closes it. Streams that are open end with the process.
func (n *Network) Listener() (*os.File, netip.AddrPort, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == nil {
		return nil, netip.AddrPort{}, nil
	}
	n.open.listening.Lock()
	defer n.open.listening.Unlock()
	if n.open.listener == nil {
		return nil, netip.AddrPort{}, nil
	}
	l, ok := n.open.listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, netip.AddrPort{}, errors.ErrUnsupported
	}
	f, err := l.File()
	return f, n.open.config.Listen, err
}

// Inherit has streams accepted at a listener that another process has opened at an address, when that is configured. The descriptor is the
// network's from then on.
func (n *Network) Inherit(f *os.File, at netip.AddrPort) error {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("go on at TCP port %d: %w", at.Port(), err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return fmt.Errorf("go on at TCP port %d: not a socket of TCP", at.Port())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inherited, n.inheritedAt = tcp, at
	return nil
}

// listenOn opens a listener, or takes the one that was inherited. The lock is held.
func (n *Network) listenOn(h Host, at netip.AddrPort, mark uint32) (net.Listener, error) {
	l := n.inherited
	if l == nil {
		return h.Listen(at, mark)
	}
	n.inherited = nil
	if n.inheritedAt != at {
		l.Close()
		return h.Listen(at, mark)
	}
	return l, h.SetMark(l, mark)
}

// Files implements [transport.Bequeather] for the datagrams.
func (s *socket) Files() ([]transport.SocketFile, error) {
	b, ok := s.Socket.(transport.Bequeather)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return b.Files()
}
