package tunnel

import (
	"net/netip"
	"time"

	"culvert/crypto"
	"culvert/crypto/session"
)

// Sighting is what is seen of a peer at a glance, by atomics alone: cheap enough to be asked for every second.
type Sighting struct {
	PublicKey crypto.PublicKey
	Connected bool           // it has been heard of lately: see [Tunnel.Sightings]
	Endpoint  netip.AddrPort // the zero value while unknown
	TCP       bool           // the endpoint is that of a TCP connection
}

const (
	// lostAfter is how long a peer may be silent: a session that nobody renews lasts so long, and where an end keeps it up by
	// keepalives it is renewed by then.
	lostAfter = session.RejectAfterTime
	// unansweredAfter and unansweredAttempts are when a peer counts as lost earlier, that this end wants something of.
	unansweredAfter    = 20 * time.Second
	unansweredAttempts = 3
)

// Sightings appends what is seen of each peer to list, in no order. A peer is connected from its first session on, and no longer when
// nothing authenticated has come of it for 180 s, or for 20 s with three initiations unanswered, or its keys have been erased.
func (t *Tunnel) Sightings(list []Sighting) []Sighting {
	now := t.clock.now()
	t.peersMu.RLock()
	defer t.peersMu.RUnlock()
	for _, p := range t.peers {
		s := Sighting{PublicKey: p.public}
		if heard := time.Duration(p.heardAt.Load()); heard != 0 && p.current.Load() != nil {
			silent := now - heard
			s.Connected = silent < lostAfter && (silent < unansweredAfter || p.timers.attempts.Load() < unansweredAttempts)
		}
		if ep := p.endpoint.Load(); ep != nil {
			s.Endpoint, s.TCP = ep.Remote, ep.Stream != 0
		}
		list = append(list, s)
	}
	return list
}

// IsUp reports whether the interface is up and the port open.
func (t *Tunnel) IsUp() bool { return t.bound.Load() != nil }
