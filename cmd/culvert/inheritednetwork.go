package main

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"culvert/transport"
)

// inheritedNetwork is a network in which a tunnel's ports are open already.
type inheritedNetwork struct {
	transport.Network

	mu    sync.Mutex
	port  transport.Socket
	lanes []transport.Socket
}

// take makes sockets of descriptors.
func (n *inheritedNetwork) take(list []socketEstate, files []*os.File, o transport.Options) (transport.Socket, error) {
	sockets := make([]transport.SocketFile, len(list))
	for i := range list {
		sockets[i] = transport.SocketFile{File: files[i], Worker: list[i].Worker, V6: list[i].V6}
	}
	return transport.Inherit(sockets, o)
}

// Open returns what is open already of what is asked for.
func (n *inheritedNetwork) Open(o transport.Options) (transport.Socket, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var s transport.Socket
	switch {
	case !o.Unwatched && n.port != nil:
		s, n.port = n.port, nil
		if o.Port != 0 && o.Port != s.Port() {
			s.Close()
			return n.Network.Open(o)
		}
	case o.Unwatched && len(n.lanes) > 0:
		s, n.lanes = n.lanes[0], n.lanes[1:]
	default:
		return n.Network.Open(o)
	}
	if err := errors.Join(s.SetMark(o.Mark), s.SetDontFragment(o.DontFragment)); err != nil {
		s.Close()
		return nil, fmt.Errorf("a port that was open: %w", err)
	}
	return s, nil
}

// close closes what nobody has asked for.
func (n *inheritedNetwork) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.port != nil {
		n.port.Close()
	}
	for _, s := range n.lanes {
		s.Close()
	}
	n.port, n.lanes = nil, nil
}
