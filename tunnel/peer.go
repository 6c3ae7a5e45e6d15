package tunnel

import (
	"sync"
	"sync/atomic"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/tai64n"
	"culvert/transport"
	"culvert/tunnel/access"
	"culvert/tunnel/device"
)

// peer is one remote end. The datapath reads its atomics; everything else is behind its lock. It has no goroutine: the
// control loop visits it when a deadline is due or the datapath asks (see attention).
type peer struct {
	tunnel *Tunnel
	public crypto.PublicKey

	endpoint atomic.Pointer[transport.Endpoint] // nil while unknown
	refused  atomic.Pointer[transport.Endpoint] // whose source address the routes have made wrong
	left     bool                               // takes no endpoint any more; guarded by the endpoint set's lock
	current  atomic.Pointer[keypair]            // what is sent with; nil without a session
	waiting  atomic.Bool                        // packets are staged, and go before any other
	timers   timers
	native   atomic.Pointer[native] // nil on WireGuard's wire

	sentBytes, sentPackets         atomic.Uint64 // UDP payload bytes; messages
	receivedBytes, receivedPackets atomic.Uint64

	visitAt         atomic.Int64 // when the control loop looks next, 0: not planned
	attended        atomic.Bool  // in the control loop's list
	wantHandshake   atomic.Bool  // asked of the control loop
	wantKeepalive   atomic.Bool  // asked of the control loop
	lastInitiation  atomic.Int64 // when an initiation or response was last sent, 0: never
	lastHandshake   atomic.Int64 // when a handshake last completed, in Unix nanoseconds, 0: never
	askedLastMinute atomic.Bool  // a new handshake was asked for on receiving under an old session
	notifying       atomic.Bool  // Options.HandshakeFailing is under way
	heardAt         atomic.Int64 // when something authenticated last came in, 0: never

	streams streams // where UDP does not reach it

	relays atomic.Bool          // says that this end is a spoke of its
	port   atomic.Pointer[port] // how its frames are treated; nil where the device carries IP packets

	announcement announcement // where this end is

	access atomic.Pointer[access.State] // what it may do; nil where that is everything its allowed IPs let it

	askedAt    time.Duration // when an answer was last asked for, 0: never; both the control loop's own
	wasReached bool

	mu            sync.Mutex
	removed       bool
	remote        *noise.Remote // nil without a private key
	psk           crypto.PresharedKey
	stamper       *cookie.Stamper
	next          *keypair
	previous      *keypair
	pending       pendingHandshake // awaits a response; nil: none
	pendingSince  time.Duration    // when its initiation was sent
	slot          slot             // awaits the second part of an initiation
	lastTimestamp tai64n.Timestamp
	clockTold     time.Duration    // when its clock was remarked on
	sentTimestamp tai64n.Timestamp // of the last initiation sent
	lastConsumed  time.Duration    // when an initiation was last accepted
	staged        staged
	saidRelays    bool // in the last hello

	allowed prefixSet // guarded by the tunnel's configuration lock

	heapIndex int           // place in the control loop's agenda, -1: not there
	heapAt    time.Duration // both the control loop's own
}

// schedule sees to it that the control loop visits the peer by at; 0 is no time.
func (p *peer) schedule(at time.Duration) {
	if at == 0 {
		return
	}
	if v := p.visitAt.Load(); v != 0 && v <= int64(at) {
		return
	}
	p.tunnel.attention.add(p)
}

// requestHandshake asks the control loop for a new session, unless an initiation is under way.
func (p *peer) requestHandshake(now time.Duration) {
	if last := p.lastInitiation.Load(); last != 0 && now-time.Duration(last) < p.retryAfter() {
		return
	}
	if p.wantHandshake.CompareAndSwap(false, true) {
		p.tunnel.attention.add(p)
	}
}

// stage keeps a packet until there is a session, and asks for one. Where a session has come up meanwhile it returns that
// instead, and the packet is the caller's to send.
func (p *peer) stage(packet []byte, o device.Offload, now time.Duration) *keypair {
	p.mu.Lock()
	kp := p.current.Load()
	ready := kp.maySend(now)
	switch {
	case p.removed:
		p.mu.Unlock()
		p.tunnel.drops.add(DropOutPeerRemoved, 1)
		return nil
	case ready && len(p.staged.packets) == 0:
		p.mu.Unlock()
		return kp
	}
	lost, why := p.staged.push(packet, o, now, &p.tunnel.stagedBytes)
	p.waiting.Store(len(p.staged.packets) > 0)
	p.mu.Unlock()
	if lost > 0 {
		p.tunnel.drops.add(why, lost)
	}
	switch {
	case ready:
		p.tunnel.attention.add(p) // what waits goes first
	case p.timers.retransmit.Load() != 0:
		p.requestHandshake(now)
	case p.wantHandshake.CompareAndSwap(false, true):
		// No initiation will be repeated. Even where a response was sent just now its confirmation may be lost, and
		// then nothing else would ever send this packet.
		p.tunnel.attention.add(p)
	}
	return nil
}

// clearStaged drops all staged packets and returns how many there were. The lock is held.
func (p *peer) clearStaged() int {
	n := p.staged.clear(&p.tunnel.stagedBytes)
	p.waiting.Store(false)
	return n
}

// wire is the protocol spoken with the peer.
func (p *peer) wire() Wire {
	if p.native.Load() != nil {
		return Culvert
	}
	return WireGuard
}

// samePath reports whether two endpoints are the same, as far as is known: a source address may not be.
func samePath(a, b *transport.Endpoint) bool {
	return a != nil && a.Remote == b.Remote && a.Stream == b.Stream && (!a.Source.IsValid() || !b.Source.IsValid() || a.Source == b.Source)
}

// setEndpoint changes where the peer is sent to; nil forgets it.
func (p *peer) setEndpoint(ep *transport.Endpoint) {
	old := p.endpoint.Load()
	if n := p.native.Load(); n != nil {
		n.overStream(ep != nil && ep.Stream != 0)
	}
	p.tunnel.endpoints.set(p, ep)
	if ep != nil && !samePath(old, ep) {
		p.pathChanged()
		p.current.Load().followPeer(ep)
	}
}

// pathChanged notes that another path, which may take less, leads to the peer from now on.
func (p *peer) pathChanged() {
	if n := p.native.Load(); n != nil {
		n.moved.Store(true)
		p.tunnel.attention.add(p)
	}
}

// heard moves the peer to the endpoint an authenticated message came from. A source address that changed routes have made
// wrong is not taken up again from what is still under way to it.
func (p *peer) heard(ep *transport.Endpoint) {
	old := p.endpoint.Load()
	if old != nil && (*old == *ep || !p.mayFollow(old, ep)) {
		return
	}
	if r := p.refused.Load(); r != nil && *r == *ep {
		if plain := ep.WithoutSource(); old == nil || *old != plain {
			p.setEndpoint(&plain)
		}
		return
	}
	moved := *ep // ep belongs to the caller's batch
	p.setEndpoint(&moved)
}

// checkSource drops the sticky source address where routes have made it wrong, and forgives it where they have made it right
// again; valid tells of an endpoint. The peer is one of so many that are looked at.
func (p *peer) checkSource(valid func(transport.Endpoint) bool, now time.Duration, of int) {
	if r := p.refused.Load(); r != nil && valid(*r) {
		p.refused.CompareAndSwap(r, nil)
	}
	p.routesChanged(valid)
	p.current.Load().checkSources(valid)
	if ep := p.endpoint.Load(); ep != nil && ep.Source.IsValid() && !valid(*ep) {
		p.refused.Store(ep)
		p.forgetSource()
		if n := p.native.Load(); n != nil {
			n.askAfter.Store(int64(p.tunnel.spread(of, announceTogether)))
		}
		p.pathChanged()
		p.announcement.until.Store(int64(now + announceFor))
	}
	if now < time.Duration(p.announcement.until.Load()) {
		p.announce(now, of)
	}
}

// forgetSource drops the sticky source address: what made it right may have changed.
func (p *peer) forgetSource() {
	ep := p.endpoint.Load()
	if ep == nil || !ep.Source.IsValid() {
		return
	}
	plain := ep.WithoutSource()
	p.endpoint.CompareAndSwap(ep, &plain)
}

// install puts a new keypair in its place. The lock is held.
func (p *peer) install(kp *keypair) {
	if !kp.Initiator {
		p.discard(p.next)
		p.next = kp // and previous stays until kp is confirmed: the far end may be sending under it
		return
	}
	current := p.current.Load()
	if p.next != nil {
		p.discard(current)
		current, p.next = p.next, nil
		current.unconfirmed.Store(false) // it is in its place, and confirming changes nothing any more
	}
	if current != nil && !current.Initiator && current.Created >= p.pendingSince {
		// Both ends were initiator at once; the far end may send under either. Each is initiator of its own session now, and
		// at its end both would rekey and cross again. So one of them is patient.
		if id := p.tunnel.identity.Load(); id != nil && id.noise.Public().Compare(p.public) > 0 {
			kp.patience = crossedPatience
		}
		current.crossed.Store(true)
		p.discard(p.previous)
		p.previous = current
	} else {
		p.keepPrevious(current)
	}
	p.current.Store(kp)
}

// keepPrevious makes the keypair that was current so far the previous one, unless the far end sends under the one before
// that: after both ends began at once, each sends under its own until the next. The lock is held.
func (p *peer) keepPrevious(current *keypair) {
	keep, drop := current, p.previous
	if p.previous != nil && p.previous.crossed.Load() && p.previous.wasHeard() {
		keep, drop = p.previous, current
		keep.crossed.Store(false)
	}
	p.previous = keep
	p.discard(drop)
}

// confirm makes next current, as something has come in under it. Called by the receiving worker.
func (p *peer) confirm(kp *keypair, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next != kp {
		return
	}
	p.keepPrevious(p.current.Load())
	p.next = nil
	kp.unconfirmed.Store(false)
	p.current.Store(kp)
	p.heardAt.Store(int64(now))
	p.completed(now)
	if len(p.staged.packets) > 0 || p.tunnel.bridge != nil { // whose interface has a carrier from now on
		p.tunnel.attention.add(p)
	}
}

// completed notes a handshake both ends know to be complete.
func (p *peer) completed(now time.Duration) {
	p.timers.handshakeCompleted()
	p.streamAnswered(now)
	p.askedLastMinute.Store(false)
	p.lastHandshake.Store(p.tunnel.clock.wall().UnixNano())
	p.tunnel.statistics.completed.Add(1)
}

// discard erases a keypair and frees its index.
func (p *peer) discard(kp *keypair) {
	if kp == nil {
		return
	}
	p.tunnel.indices.release(kp.LocalIndex)
	kp.Erase()
}

// cancelPending ends the handshake that awaits a response. The lock is held.
func (p *peer) cancelPending() {
	if p.pending == nil {
		return
	}
	p.tunnel.indices.release(p.pending.LocalIndex())
	p.pending.Erase()
	p.pending = nil
}

// eraseKeys forgets all sessions and the handshake under way. The lock is held.
func (p *peer) eraseKeys() {
	p.cancelPending()
	p.eraseSlot()
	p.discard(p.next)
	p.discard(p.current.Swap(nil))
	p.discard(p.previous)
	p.next, p.previous = nil, nil
	p.lastInitiation.Store(0)
}

// retireKeys lets no session send any more: the next packet makes a new one. The lock is held.
func (p *peer) retireKeys() {
	p.cancelPending()
	p.eraseSlot()
	p.discard(p.next)
	p.next = nil
	if kp := p.current.Load(); kp != nil {
		kp.retired.Store(true)
	}
	p.lastInitiation.Store(0)
}

// eraseSecrets erases what is left of a stopped peer: the PSK, the shared secret of the static keys, cookies.
func (p *peer) eraseSecrets() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.psk.Zero()
	p.stamper.Erase()
	if p.remote != nil {
		p.remote.Erase()
		p.remote = nil
	}
}

// stop ends everything that runs for the peer: the tunnel goes down, or the peer away.
func (p *peer) stop(why DropReason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timers.stop()
	p.eraseKeys()
	p.leaveStreams()
	if n := p.clearStaged(); n > 0 {
		p.tunnel.drops.add(why, n)
	}
}
