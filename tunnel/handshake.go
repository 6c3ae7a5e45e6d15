package tunnel

import (
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/crypto/tai64n"
	"culvert/transport"
)

// initiationInterval is the shortest time between two initiations of one peer that are answered.
const initiationInterval = 20 * time.Millisecond

// timestampStep is more than what timestamps are coarsened to (2^24 ns).
const timestampStep = 20 * time.Millisecond

// identity is the tunnel's static key and what checks messages meant for it.
type identity struct {
	private crypto.PrivateKey
	noise   *noise.Identity
	checker *cookie.Checker
}

// initiate sends an initiation, unless one (or a response) was sent within RekeyTimeout.
func (c *control) initiate(p *peer, now time.Duration) {
	t := c.tunnel
	p.mu.Lock()
	defer p.mu.Unlock()
	last := time.Duration(p.lastInitiation.Load())
	if p.removed {
		return
	}
	if p.shutOut(t.clock.wall()) {
		t.drops.add(DropOutShut, p.clearStaged())
		return
	}
	if t.bound.Load() == nil { // down, or coming up
		p.timers.attempts.Add(1)
		p.schedule(p.timers.initiationSent(now, p.retryAfter()+t.jitter()))
		return
	}
	if last != 0 && now-last < p.retryAfter() {
		// Often a response was just sent, and its session is about to be confirmed. Should that fail, what waits here needs
		// another initiation, and so does a round of initiations that go unanswered while the far end's arrive.
		if (len(p.staged.packets) > 0 || p.timers.attempts.Load() > 0) && p.timers.retransmit.Load() == 0 {
			p.schedule(p.timers.initiationDue(last + p.retryAfter() + t.jitter()))
		}
		return
	}
	if p.remote == nil {
		t.drops.add(DropOutNoKey, p.clearStaged())
		return
	}
	ep := p.endpoint.Load()
	if ep == nil {
		t.drops.add(DropOutNoEndpoint, p.clearStaged())
		return
	}
	if p.timers.attempts.Load() > 0 {
		// The one before went unanswered. Traffic may ask for the next before the timer repeats it, so both come by here.
		p.forgetSource()
		ep = p.endpoint.Load()
		t.notifyFailing(p)
		p.streamUnanswered(now)
	}
	p.lastInitiation.Store(int64(now))
	p.timers.attempts.Add(1)
	// Armed also where making the message fails, or a peer with a useless key would be tried again at once.
	p.schedule(p.timers.initiationSent(now, p.retryAfter()+t.jitter()))
	index, err := t.indices.reserve(p)
	if err != nil {
		t.debugf("%s: peer %s: %v", t.name(), shortKey(p.public), err)
		return
	}
	begin := c.wireGuardInitiate
	if p.wire() == Culvert {
		begin = c.hybridInitiate
	}
	pending, err := begin(p, index, ep, now)
	if err != nil {
		t.indices.release(index)
		t.debugf("%s: peer %s: cannot make an initiation: %v", t.name(), shortKey(p.public), err)
		return
	}
	p.cancelPending()
	p.pending, p.pendingSince = pending, now
	t.statistics.initiationsSent.Add(1)
	t.debugf("%s: peer %s: initiation sent to %v", t.name(), shortKey(p.public), ep)
}

// wireGuardInitiate makes an initiation and sends it. The peer's lock is held.
func (c *control) wireGuardInitiate(p *peer, index uint32, ep *transport.Endpoint, now time.Duration) (pendingHandshake, error) {
	t := c.tunnel
	msg, pending, err := p.remote.Initiate(c.buf[:0], index, p.nextTimestamp(t.clock.wall()), t.ephemeral)
	if err != nil {
		return nil, err
	}
	p.stamper.Stamp(msg, now)
	c.sendHandshake(p, msg, ep, now)
	return wireGuardPending{pending}, nil
}

// retryAfter is how long after an initiation the next one may follow. On WireGuard's wire that is always the same; on the
// native one an initiation is two datagrams, so it starts with shorter times.
func (p *peer) retryAfter() time.Duration {
	if attempts := p.timers.attempts.Load(); p.wire() == Culvert && attempts <= 3 {
		return time.Second << max(attempts-1, 0)
	}
	return session.RekeyTimeout
}

// nextTimestamp returns the timestamp of an initiation made at the wall-clock time, but one later than the last one's in any
// case: the clock may have been set back, and the far end takes none that is not newer. The lock is held.
func (p *peer) nextTimestamp(wall time.Time) tai64n.Timestamp {
	ts := tai64n.From(wall)
	if !ts.After(p.sentTimestamp) {
		ts = tai64n.From(p.sentTimestamp.Time().Add(timestampStep))
	}
	p.sentTimestamp = ts
	return ts
}

// sendHandshake sends a handshake message to a peer.
func (c *control) sendHandshake(p *peer, msg []byte, ep *transport.Endpoint, now time.Duration) {
	p.sentPackets.Add(1)
	p.sentBytes.Add(uint64(len(msg)))
	p.timers.authenticatedSent()
	p.schedule(p.timers.traversed(now))
	c.send(msg, ep)
}

// send puts a handshake message into the batch.
func (c *control) send(msg []byte, ep *transport.Endpoint) {
	copy(c.batch.room(len(msg)), msg)
	c.batch.add(len(msg), ep, transport.TOSHandshake)
}

// handshake takes one handshake message from the queue. Whatever is wrong with it, nothing is answered.
func (c *control) handshake(m *handshakeMessage, now time.Duration) {
	t := c.tunnel
	msg := m.bytes[:m.size]
	id := t.identity.Load()
	kind, ok := noise.MessageType(msg)
	if !ok || id == nil || t.bound.Load() == nil { // queued before the key was removed or the interface went down
		t.drops.add(DropInHandshake, 1)
		return
	}
	if kind == noise.TypeCookieReply {
		c.cookieReply(m, msg, now)
		return
	}
	if kind == noise.TypeKEM { // it carries no mac2; its slot says that the first part was admitted
		c.kem(m, msg, now)
		return
	}
	if !c.admit(id, m, msg, kind, now) {
		return
	}
	switch kind {
	case noise.TypeInitiation:
		c.initiation(id, m, msg, now)
	case noise.TypeHybridInitiation:
		c.hybridInitiation(id, m, msg, now)
	default:
		c.response(m, msg, kind, now)
	}
}

// underLoad reports whether handshakes are shed at now.
func (t *Tunnel) underLoad(now time.Duration) bool { return now < time.Duration(t.loadUntil.Load()) }

// admit sheds load (paper §5.3): while there is more than can be answered, a source has to show that it receives at its
// address, and then gets its share. On the native wire a mac2 must be right or zero at any time.
func (c *control) admit(id *identity, m *handshakeMessage, msg []byte, kind uint8, now time.Duration) bool {
	t := c.tunnel
	if len(t.handshakes) >= underLoadFrom {
		t.loadUntil.Store(int64(now + underLoadFor))
	}
	loaded, why := t.underLoad(now), DropInUnderLoad
	proven := false
	if loaded {
		proven = id.checker.CheckMAC2(msg, m.endpoint.Remote, now)
	} else {
		proven, why = !hybrid(kind) || id.checker.AcceptsMAC2(msg, m.endpoint.Remote, now), DropInMAC2
	}
	if !proven {
		t.drops.add(why, 1)
		reply, err := id.checker.Reply(c.buf[:0], msg, m.endpoint.Remote, now)
		if err != nil {
			return false
		}
		t.statistics.cookiesSent.Add(1)
		c.send(reply, &m.endpoint)
		return false
	}
	if loaded && !c.limiter.allow(m.endpoint.Remote.Addr(), now) {
		t.drops.add(DropInRateLimit, 1)
		return false
	}
	return true
}

// initiation answers a peer that wants a session.
func (c *control) initiation(id *identity, m *handshakeMessage, msg []byte, now time.Duration) {
	t := c.tunnel
	responder, err := id.noise.ReadInitiation(msg)
	if err != nil {
		t.drops.add(DropInHandshake, 1)
		return
	}
	defer responder.Erase()
	p := t.lockCaller(id, responder.Static(), WireGuard, &m.endpoint)
	if p == nil {
		return
	}
	defer p.mu.Unlock()
	timestamp, err := responder.Verify(p.remote)
	if err != nil {
		t.drops.add(DropInHandshake, 1)
		return
	}
	if !p.acceptTimestamp(timestamp, now) {
		t.refuse(DropInOldInitiation, false, p.public, &m.endpoint, p.behind(timestamp))
		return
	}
	t.statistics.initiationsReceived.Add(1)
	p.heardHandshake(m, now)

	index, err := t.indices.reserve(p)
	if err != nil {
		return
	}
	answer, keys, err := responder.Respond(c.buf[:0], index, p.psk, t.ephemeral)
	if err != nil {
		t.indices.release(index)
		t.drops.add(DropInHandshake, 1)
		return
	}
	if !c.derive(p, &keys, derived{local: index, remote: responder.RemoteIndex()}, now) {
		return
	}
	c.respond(p, m, answer, now)
}

// lockCaller returns the peer of that key, locked, if it may begin a handshake on that wire with the tunnel as id; otherwise nil,
// and the reason is counted.
func (t *Tunnel) lockCaller(id *identity, static crypto.PublicKey, wire Wire, from *transport.Endpoint) *peer {
	p := t.lookupPeer(static)
	if p == nil {
		t.refuse(DropInUnknownPeer, false, static, from, 0)
		return nil
	}
	p.mu.Lock()
	switch {
	case p.removed || p.remote == nil || t.identity.Load() != id:
		t.drops.add(DropInHandshake, 1)
	case p.wire() != wire:
		t.refuse(DropInWire, false, static, from, 0)
	case p.shutOut(t.clock.wall()):
		t.refuse(DropInShut, false, static, from, 0)
	default:
		return p
	}
	p.mu.Unlock()
	return nil
}

const (
	// clockBehind is how much older than the last one's a timestamp has to be for the far end's clock to be remarked on: less is
	// what a network does that delays or repeats.
	clockBehind = 30 * time.Second
	// clockRemarkEvery is how often. Whoever has recorded initiations can repeat them.
	clockRemarkEvery = time.Hour
)

// acceptTimestamp takes the timestamp of a verified initiation, unless it is not newer than the last one's or comes too soon
// after it. The lock is held.
func (p *peer) acceptTimestamp(ts tai64n.Timestamp, now time.Duration) bool {
	if !ts.After(p.lastTimestamp) {
		p.clockRemark(ts, now)
		return false
	}
	if p.lastConsumed != 0 && now-p.lastConsumed < initiationInterval {
		return false
	}
	p.lastTimestamp, p.lastConsumed = ts, now
	return true
}

// behind is how much older an initiation's timestamp is than the last one's, 0 where it is newer. The lock is held.
func (p *peer) behind(ts tai64n.Timestamp) time.Duration {
	return max(0, p.lastTimestamp.Time().Sub(ts.Time()))
}

// clockRemark tells of a peer whose clock seems to have been set back, as of a machine that starts without one: nothing of what it sends
// is answered until its clock is right. The lock is held.
func (p *peer) clockRemark(ts tai64n.Timestamp, now time.Duration) {
	behind := p.behind(ts)
	if behind < clockBehind || p.clockTold != 0 && now-p.clockTold < clockRemarkEvery {
		return
	}
	p.clockTold = now
	p.tunnel.logf("%s: peer %s: an initiation that is %v older than its last one is refused: its clock has been set back, or somebody repeats old ones; "+
		"set its clock, or remove the peer here and add it again", p.tunnel.name(), shortKey(p.public), behind.Round(time.Second))
}

// respond sends the response to an initiation. The peer's lock is held.
func (c *control) respond(p *peer, m *handshakeMessage, answer []byte, now time.Duration) {
	t := c.tunnel
	p.stamper.Stamp(answer, now)
	p.lastInitiation.Store(int64(now))
	t.statistics.responsesSent.Add(1)
	c.sendHandshake(p, answer, p.endpoint.Load(), now)
	t.debugf("%s: peer %s: initiation from %v answered", t.name(), shortKey(p.public), &m.endpoint)
}

// response completes a handshake this end began. A response that does not verify leaves the handshake waiting: anyone may
// send one who saw the initiation.
func (c *control) response(m *handshakeMessage, msg []byte, kind uint8, now time.Duration) {
	t := c.tunnel
	index := noise.ReceiverIndex(msg)
	entry := t.indices.lookup(index)
	if entry == nil || entry.keypair != nil {
		t.drops.add(DropInIndex, 1)
		return
	}
	p := entry.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed || p.pending == nil || p.pending.LocalIndex() != index {
		t.drops.add(DropInIndex, 1)
		return
	}
	if hybrid(kind) != (p.wire() == Culvert) {
		t.drops.add(DropInWire, 1)
		return
	}
	keys, d, err := p.pending.consume(p, msg)
	if err != nil {
		t.refuse(DropInHandshake, true, p.public, &m.endpoint, 0)
		return
	}
	p.pending = nil
	t.statistics.responsesReceived.Add(1)
	p.heardHandshake(m, now)
	if !c.derive(p, &keys, d, now) {
		return
	}
	p.completed(now)
	t.debugf("%s: peer %s: handshake completed with %v", t.name(), shortKey(p.public), &m.endpoint)
}

// derived is what a finished handshake says of its session, besides the keys. The suite is the only one on WireGuard's wire.
type derived struct {
	suite         crypto.Suite
	initiator     bool
	local, remote uint32 // indices
	lanes         int    // up to 1: no further ones
}

// derive makes a session of a handshake's keys and puts it in its place; as initiator it sends at once what waited, or
// a keepalive, since only that lets the far end send. The peer's lock is held.
func (c *control) derive(p *peer, keys *noise.Keys, d derived, now time.Duration) bool {
	t := c.tunnel
	kp := &keypair{peer: p, native: p.native.Load()}
	err := kp.makeLanes(keys, &d, now)
	if err == nil {
		kp.Session, err = session.New(keys, d.suite, d.initiator, d.local, d.remote, now)
	}
	if err != nil {
		keys.Erase()
		t.indices.release(d.local)
		t.drops.add(DropInHandshake, 1)
		return false
	}
	if kp.native != nil {
		kp.serial = kp.native.known()
	}
	kp.unconfirmed.Store(!d.initiator)
	t.indices.establish(d.local, kp)
	if d.initiator {
		// What waited goes out before the datapath sees the session, so that nothing overtakes it.
		c.sealStaged(p, kp, now)
		p.install(kp)
		c.begin(p, kp, now)
		if ep := p.endpoint.Load(); kp.Sent() == 0 && ep != nil {
			if counter, ok := kp.Reserve(1, noise.TagSize); ok {
				c.sealKeepalive(p, kp, ep, counter, now)
			}
		}
	} else {
		p.install(kp)
	}
	p.schedule(p.timers.sessionDerived(now))
	return true
}

// heardHandshake notes an authenticated handshake message.
func (p *peer) heardHandshake(m *handshakeMessage, now time.Duration) {
	p.receivedPackets.Add(1)
	p.receivedBytes.Add(uint64(m.size))
	p.heard(&m.endpoint)
	p.timers.authenticatedReceived()
	p.schedule(p.timers.traversed(now))
}

// cookieReply keeps the cookie for the next initiation; it moves no endpoint.
func (c *control) cookieReply(m *handshakeMessage, msg []byte, now time.Duration) {
	t := c.tunnel
	entry := t.indices.lookup(noise.ReceiverIndex(msg))
	if entry == nil {
		t.drops.add(DropInIndex, 1)
		return
	}
	p := entry.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.stamper.ConsumeReply(msg, now); err != nil {
		t.drops.add(DropInCookie, 1)
		return
	}
	p.receivedPackets.Add(1)
	p.receivedBytes.Add(uint64(m.size))
	t.statistics.cookiesReceived.Add(1)
}
