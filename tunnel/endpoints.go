package tunnel

import (
	"net/netip"
	"sync"

	"culvert/transport"
)

// endpointSet counts the peers at each remote address, for the routing-loop check alone. It is asked only for packets that
// come from this tunnel's own port.
type endpointSet struct {
	mu    sync.RWMutex
	peers map[netip.AddrPort]int
}

func (s *endpointSet) init() { s.peers = make(map[netip.AddrPort]int) }

// set changes p's endpoint; nil forgets it. A peer that has left keeps none.
func (s *endpointSet) set(p *peer, to *transport.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.left {
		to = nil
	}
	from := p.endpoint.Swap(to)
	if from != nil {
		if s.peers[from.Remote]--; s.peers[from.Remote] <= 0 {
			delete(s.peers, from.Remote)
		}
	}
	if to != nil {
		s.peers[to.Remote]++
	}
}

// leave forgets p's endpoint for good.
func (s *endpointSet) leave(p *peer) {
	s.mu.Lock()
	p.left = true
	s.mu.Unlock()
	s.set(p, nil)
}

func (s *endpointSet) has(a netip.AddrPort) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.peers[a] > 0
}
