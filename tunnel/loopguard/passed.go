package loopguard

// way is one of the ways a node passes a probe on.
type way uint8

const (
	deviceToPeers way = iota
	peerToDevice
	meshToPeers  // from a peer that is no spoke, to peers
	spokeToPeers // from a spoke, to peers
	bounce
	ways
)

const (
	sets = 64 // a power of two
	each = 8
)

// passed is a probe that was passed on.
type passed struct {
	origin, nonce, tags uint64
	shortest            [ways]uint8 // by way, the length of the shortest path passed on and 1; 0: not passed that way
}

func (e *passed) is(p *probe) bool {
	return e.origin == p.origin && e.nonce == p.nonce && e.tags == p.tags
}

// memory remembers what was passed on, in sets that follow from origin, nonce and tags. In a set the newest takes the place of the
// oldest; should that come again it is passed on again. Places are several so that two probes at the same time do not drive out
// each other: then both would wander until their paths are full.
type memory [sets]struct {
	probes [each]passed
	next   uint8
}

func set(p *probe) uint64 {
	const k1, k2, k3 = 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9 // odd, with their bits well spread
	h := (p.origin*k1 ^ p.nonce) * k2
	h = (h ^ h>>29 ^ p.tags) * k3
	return h >> 32 % sets
}

// find returns the probe's entry, nil where there is none.
func (m *memory) find(p *probe) *passed {
	s := &m[set(p)]
	for i := range s.probes {
		if s.probes[i].is(p) {
			return &s.probes[i]
		}
	}
	return nil
}

// new reports whether the probe has not been passed that way yet, or only with a longer path. Without the latter whoever is
// first could have a probe die early, by giving it a path that is full.
func (m *memory) new(p *probe, w way) bool {
	e := m.find(p)
	return e == nil || e.shortest[w] == 0 || p.length+1 < int(e.shortest[w])
}

// add notes that the probe, as it came, is passed that way.
func (m *memory) add(p *probe, w way) {
	e := m.find(p)
	if e == nil {
		s := &m[set(p)]
		e = &s.probes[s.next]
		*e = passed{origin: p.origin, nonce: p.nonce, tags: p.tags}
		s.next = (s.next + 1) % each
	}
	e.shortest[w] = uint8(p.length + 1)
}
