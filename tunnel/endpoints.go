package tunnel

import (
	"net/netip"
	"slices"
	"sync"

	"culvert/transport"
)

// endpointSet knows the peers at each remote address, for the routing-loop check alone. It is asked only for packets that
// come from this tunnel's own port.
type endpointSet struct {
	mu    sync.RWMutex
	peers map[netip.AddrPort][]*peer
}

func (s *endpointSet) init() { s.peers = make(map[netip.AddrPort][]*peer) }

// set changes p's endpoint; nil forgets it. A peer that has left keeps none.
func (s *endpointSet) set(p *peer, to *transport.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.left {
		to = nil
	}
	from := p.endpoint.Swap(to)
	p.streams.moved(p.tunnel, from, to)
	if from != nil {
		at := s.peers[from.Remote]
		if i := slices.Index(at, p); i >= 0 {
			at = slices.Delete(at, i, i+1)
		}
		if len(at) == 0 {
			delete(s.peers, from.Remote)
		} else {
			s.peers[from.Remote] = at
		}
	}
	if to != nil {
		s.peers[to.Remote] = append(s.peers[to.Remote], p)
	}
}

// leave forgets p's endpoint for good.
func (s *endpointSet) leave(p *peer) {
	s.mu.Lock()
	p.left = true
	s.mu.Unlock()
	s.set(p, nil)
}

// any reports whether match says yes to one of the peers at a.
func (s *endpointSet) any(a netip.AddrPort, match func(*peer) bool) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.ContainsFunc(s.peers[a], match)
}
