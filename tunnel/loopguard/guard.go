package loopguard

import (
	"time"

	"culvert/tunnel/ethernet"
)

const (
	// Interval is the time between two probes of a node that is open.
	Interval = time.Second
	// BlockedInterval is the same while it is blocked: then it takes the loss of all probes within Hold to open a loop again.
	BlockedInterval = 500 * time.Millisecond
	// Spacing is the time between two probes at least.
	Spacing = 100 * time.Millisecond
	// Hold is how long a node stays blocked after its last probe that came back.
	Hold = 5 * time.Second
	// Lifetime is how long a probe may be on its way to count.
	Lifetime = 4 * time.Second

	// settle is how long a node that was blocked when it lost its last peer stays blocked once it reaches one again.
	settle = 2 * time.Second
	// quiet is for how long frames must not have come back from the network before that is told again.
	quiet = time.Minute

	maxSent = 64 // more than are sent within a Lifetime
)

// sent is a probe under way.
type sent struct {
	nonce uint64
	at    time.Duration // 0: none
	back  [2]bool       // it has come back, once: from the network, from a peer
}

const (
	fromNetwork = iota
	fromPeers
)

// Guard is one node.
type Guard struct {
	id     uint64
	source ethernet.Address
	random func() uint64

	enabled, reached, blocked bool

	due   time.Duration // of the next probe
	last  time.Duration // when the last was sent; 0: never
	until time.Duration // end of the block

	sent [maxSent]sent
	next int // where the next one goes

	passed               memory
	fromDevice, fromPeer bucket

	loops, localLoops uint64
	localLoopAt       time.Duration // when frames last came back from the network; 0: never
	events            []Event

	own, relay, bounce, write [MaxFrame]byte
}

// New returns a node that is open, reaches no peer, and looks for loops. id should be random and other at each start (0 counts as
// 1). random returns numbers that nobody can predict.
func New(id uint64, random func() uint64) *Guard {
	id = max(id, 1)
	return &Guard{id: id, source: sourceOf(id), random: random, enabled: true}
}

// ID returns the node's id.
func (g *Guard) ID() uint64 { return g.id }

// Blocked reports whether no frame but probes may cross between the interface and the peers. It changes in any call that takes
// now.
func (g *Guard) Blocked() bool { return g.blocked }

// Loops returns how often the node has been blocked.
func (g *Guard) Loops() uint64 { return g.loops }

// LocalLoops returns how many of the node's probes its own network brought back through no tunnel.
func (g *Guard) LocalLoops() uint64 { return g.localLoops }

// Enabled reports whether the node looks for loops.
func (g *Guard) Enabled() bool { return g.enabled }

// SetEnabled turns looking for loops on or off. A node that does not look goes on passing the probes of others: the caller
// must go on handing them over.
func (g *Guard) SetEnabled(enabled bool, now time.Duration) {
	if enabled == g.enabled {
		return
	}
	g.enabled = enabled
	if enabled {
		g.schedule(now)
	} else {
		g.release()
	}
}

// SetReached says whether any peer is reached. The first probe is due at once.
func (g *Guard) SetReached(reached bool, now time.Duration) {
	if reached == g.reached {
		return
	}
	g.reached = reached
	if !reached {
		return
	}
	// What was blocked stays so for a moment, as the loop has most likely come back with the peer.
	g.until = max(g.until, now+settle)
	g.schedule(now)
}

// Suspect says that there may be a new loop: addresses turn up now at the interface and now behind a peer, or another peer is
// reached. The next probe is due at once, or Spacing after the last. It may be said as often as one likes.
func (g *Guard) Suspect(now time.Duration) { g.schedule(now) }

// schedule has a probe sent as soon as may be.
func (g *Guard) schedule(now time.Duration) {
	if g.last != 0 {
		now = max(now, g.last+Spacing)
	}
	if g.due == 0 || now < g.due {
		g.due = now
	}
}

// Deadline returns when Next is to be called, which may be in the past; 0: not until something else has been called.
func (g *Guard) Deadline() time.Duration {
	switch {
	case !g.reached || !g.enabled:
		return 0
	case g.blocked:
		return min(g.due, g.until)
	}
	return g.due
}

// Next ends a block whose time is over, and returns the probe to write to the interface where one is due. The frame is valid
// until the next call of Next.
func (g *Guard) Next(now time.Duration) (frame []byte, ok bool) {
	g.expire(now)
	if !g.reached || !g.enabled || now < g.due {
		return nil, false
	}
	p := probe{origin: g.id, nonce: g.random()}
	g.sent[g.next] = sent{nonce: p.nonce, at: now}
	g.next = (g.next + 1) % maxSent
	g.last = now
	g.due = now + g.interval()
	return p.put(&g.own, g.source), true
}

func (g *Guard) interval() time.Duration {
	if g.blocked {
		return BlockedInterval
	}
	return Interval
}

// expire opens the node when its probes have stayed away long enough. Without a peer there is no telling.
func (g *Guard) expire(now time.Duration) {
	if g.blocked && g.reached && now >= g.until {
		g.release()
	}
}

func (g *Guard) release() {
	if g.blocked {
		g.blocked = false
		g.say(Event{Kind: Released})
	}
}

// Verdict is what to do with a probe. All frames are valid until the next call of FromDevice or FromPeer; nil: nothing to
// send. They cross whether or not the node is blocked.
type Verdict struct {
	// Relay goes to the peers that a broadcast would go to.
	Relay []byte
	// Bounce goes to all other peers but the one that the probe came from.
	Bounce []byte
	// Write goes to the interface.
	Write []byte
	// Malformed says that it is no probe, or none that can have come from there; nothing is to be sent then.
	Malformed bool
}

// FromDevice takes a probe that was read from the interface. Its tags are to be what a frame's are inside, after those that
// the ingress port adds.
func (g *Guard) FromDevice(frame []byte, now time.Duration) (v Verdict) {
	g.expire(now)
	var p probe
	// Each crossing changes sides, and it started on the network's.
	if !p.read(frame) || p.crossings()%2 != 0 {
		return Verdict{Malformed: true}
	}
	if p.origin == g.id {
		g.reflected(&p, now)
		return v
	}
	if !g.reached || p.bounced || !g.crosses(&p) || !g.passed.new(&p, deviceToPeers) || !g.fromDevice.take(now) {
		return v
	}
	g.passed.add(&p, deviceToPeers)
	p.path[p.length] = hop{id: g.id, crossed: true}
	p.length++
	v.Relay = p.put(&g.relay, g.source)
	return v
}

// FromPeer takes a probe that came from a peer; spoke says whether frames from this peer are relayed to all others. Its tags
// are to be what a frame's are inside, after those that the ingress port adds.
func (g *Guard) FromPeer(frame []byte, spoke bool, now time.Duration) (v Verdict) {
	g.expire(now)
	var p probe
	if !p.read(frame) || p.crossings()%2 != 1 {
		return Verdict{Malformed: true}
	}
	if p.origin == g.id {
		g.returned(&p, now)
		return v
	}
	if p.bounced || p.length == MaxPath || p.has(g.id) {
		return v
	}
	onward := meshToPeers
	if spoke {
		onward = spokeToPeers
	}
	relays, writes := g.passed.new(&p, onward), g.crosses(&p) && g.passed.new(&p, peerToDevice)
	bounces := !spoke && g.passed.new(&p, bounce)
	if !relays && !writes && !bounces || !g.fromPeer.take(now) {
		return v
	}
	out := p
	out.path[out.length] = hop{id: g.id}
	out.length++
	if relays {
		g.passed.add(&p, onward)
		v.Relay = out.put(&g.relay, g.source)
	}
	if bounces {
		g.passed.add(&p, bounce)
		out.bounced = true
		v.Bounce = out.put(&g.bounce, g.source)
		out.bounced = false
	}
	if writes {
		g.passed.add(&p, peerToDevice)
		out.path[p.length].crossed = true
		v.Write = out.put(&g.write, g.source)
	}
	return v
}

// crosses reports whether another node's probe may cross between the interface and the peers: one that could not make its
// origin the highest of a cycle need not.
func (g *Guard) crosses(p *probe) bool {
	return (g.id < p.origin || !g.enabled) && p.length < MaxPath && !p.has(g.id)
}

// returned takes one's own probe from a peer.
func (g *Guard) returned(p *probe, now time.Duration) {
	// In another VLAN than it was sent it has not come back to where it started.
	if !g.enabled || !p.untagged() || !g.takeBack(p.nonce, fromPeers, now) {
		return
	}
	g.until = now + Hold
	if g.blocked {
		return
	}
	g.blocked = true
	g.loops++
	g.due = min(g.due, g.last+BlockedInterval)
	others := make([]uint64, 0, MaxPath)
	for _, h := range p.path[:p.length] {
		if h.crossed {
			others = append(others, h.id)
		}
	}
	g.say(Event{Kind: Blocked, Others: others})
}

// takeBack reports whether a probe with this nonce was sent not long ago and has not come back from there yet, and notes that it
// has.
func (g *Guard) takeBack(nonce uint64, from int, now time.Duration) bool {
	for i := range g.sent {
		s := &g.sent[i]
		if s.at != 0 && s.nonce == nonce && now-s.at <= Lifetime && !s.back[from] {
			s.back[from] = true
			return true
		}
	}
	return false
}

// reflected takes one's own probe from the interface. Where it crossed other nodes these are in a loop and this one is not.
func (g *Guard) reflected(p *probe, now time.Duration) {
	if p.length != 0 || !g.enabled || !g.takeBack(p.nonce, fromNetwork, now) {
		return
	}
	g.localLoops++
	if g.localLoopAt == 0 || now-g.localLoopAt > quiet {
		g.say(Event{Kind: LocalLoop})
	}
	g.localLoopAt = now
}
