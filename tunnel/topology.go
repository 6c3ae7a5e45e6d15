package tunnel

import (
	"time"

	"culvert/tunnel/ethernet"
	"culvert/tunnel/message"
)

// This file is what a tunnel does when the tree changes that the networks it joins span: it forgets where stations are. Where one of
// the networks has another way in, its stations may be behind another peer from now on, and would not be reached before they sent
// something to everybody. That a tree has changed is told by
//
//   - spanning tree, whose messages cross a tunnel of several ends where link-local frames do, though the ends are no bridges of
//     the tree: a bridge does the same (IEEE 802.1D-2004 §17.11, IEEE 802.1D-1998 §8.3.5)
//   - ends that block their interface because of a loop, or open it again (compare RFC 4762 §6.2)
//   - a peer's silence: what was behind it is forgotten.

// forgetEvery is the time between two of it at least. A topology change is told every hello time for as long as half a minute.
const forgetEvery = time.Second

// An end says movedTold times, bridgeEvery apart as messages may be lost, that it has blocked or opened its interface. Others send that on
// movedHops times at most: relays form a tree (a hub, or hubs of hubs), and where they do not it ends all the same.
const (
	movedTold = 3
	movedHops = 4
)

// topology is what the control loop knows of it.
type topology struct {
	forgotAt time.Duration // when stations' places were last forgotten, 0: never
	tell     int           // how often to tell peers that this end's interface was blocked or opened
	toldAt   time.Duration // last

	// What peers have said since.
	hops uint64 // how often the message may still be sent on
	from *peer  // nil: several
}

const (
	bridgeGroup ethernet.Address = 0x0180_c200_0000 // of IEEE 802.1Q-2018 table 8-1

	// Places in a BPDU, behind the header's length field (IEEE 802.1D-2004 §9.3).
	bpduLLC   = 0
	bpduType  = 6
	bpduFlags = 7

	bpduConfiguration  = 0
	bpduRapid          = 2 // and that of multiple trees
	bpduTopologyChange = 0x80

	topologyChangeFlag = 1
)

// topologyChange reports whether a frame is spanning tree's and tells of a topology change.
func topologyChange(frame []byte, h *ethernet.Header) bool {
	if h.Dst != bridgeGroup || len(frame) < h.Payload+bpduType+1 {
		return false
	}
	b := frame[h.Payload:]
	if b[bpduLLC] != 0x42 || b[1] != 0x42 || b[2] != 0x03 || b[3] != 0 || b[4] != 0 {
		return false
	}
	switch b[bpduType] {
	case bpduTopologyChange:
		return true
	case bpduConfiguration, bpduRapid:
		return len(b) > bpduFlags && b[bpduFlags]&topologyChangeFlag != 0
	}
	return false
}

// topologyChanged has the control loop forget where stations are.
func (b *bridge) topologyChanged() {
	if !b.changed.Load() && b.changed.CompareAndSwap(false, true) {
		b.wakeUp()
	}
}

// movedBeyond notes that a peer says that stations may be elsewhere.
func (c *control) movedBeyond(p *peer, hops uint64) {
	b := c.tunnel.bridge
	if b == nil {
		return
	}
	s := &c.topology
	if s.hops > 0 && s.from != p {
		s.from = nil
	} else {
		s.from = p
	}
	s.hops = max(s.hops, min(hops, movedHops))
	b.topologyChanged()
}

// followTopology forgets where stations are, and tells peers, if that is due.
func (c *control) followTopology(now time.Duration) {
	s, b := &c.topology, c.tunnel.bridge
	if s.tell > 0 && (s.tell == movedTold || now-s.toldAt >= bridgeEvery) {
		s.tell--
		s.toldAt = now
		c.tellMoved(nil, movedHops, now)
	}
	// bridgeEvery is no longer than forgetEvery, so what is not due yet is looked at again in time.
	if s.forgotAt != 0 && now-s.forgotAt < forgetEvery || !b.changed.Swap(false) {
		return
	}
	s.forgotAt = now
	b.forgetLearned()
	if s.hops > 0 {
		c.tellMoved(s.from, s.hops-1, now)
	}
	s.hops, s.from = 0, nil
}

// tellMoved tells all peers that a broadcast from there goes to; nil is this end, or several peers.
func (c *control) tellMoved(from *peer, hops uint64, now time.Duration) {
	for _, q := range c.tunnel.bridge.ports.Load().all {
		if from == nil || q != from && from.reaches(q) {
			c.tellMovedTo(q, hops, now)
		}
	}
}

func (c *control) tellMovedTo(p *peer, hops uint64, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kp, ep := p.current.Load(), p.endpoint.Load()
	if ep != nil && !p.removed && kp.maySend(now) && kp.native != nil {
		c.tell(p, kp, kp.way(ep), 0, message.Moved{Hops: hops}, now)
	}
}
