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
	if t.bound.Load() == nil { // down, or coming up
		p.schedule(p.timers.initiationSent(now, t.jitter()))
		return
	}
	if last != 0 && now-last < session.RekeyTimeout {
		// Often a response was just sent, and its session is about to be confirmed. Should that fail, what waits here needs
		// another initiation.
		if len(p.staged.packets) > 0 && p.timers.retransmit.Load() == 0 {
			p.schedule(p.timers.initiationDue(last + session.RekeyTimeout + t.jitter()))
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
	}
	p.lastInitiation.Store(int64(now))
	// Armed also where making the message fails, or a peer with a useless key would be tried again at once.
	p.schedule(p.timers.initiationSent(now, t.jitter()))
	index, err := t.indices.reserve(p)
	if err != nil {
		t.debugf("%s: peer %s: %v", t.name(), shortKey(p.public), err)
		return
	}
	msg, pending, err := p.remote.Initiate(c.buf[:0], index, p.nextTimestamp(t.clock.wall()), t.ephemeral)
	if err != nil {
		t.indices.release(index)
		t.debugf("%s: peer %s: cannot make an initiation: %v", t.name(), shortKey(p.public), err)
		return
	}
	p.cancelPending()
	p.pending = pending
	p.stamper.Stamp(msg, now)
	t.statistics.initiationsSent.Add(1)
	c.sendHandshake(p, msg, ep, now)
	t.debugf("%s: peer %s: initiation sent to %v", t.name(), shortKey(p.public), ep)
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
	if !c.admit(id, m, msg, now) {
		return
	}
	if kind == noise.TypeInitiation {
		c.initiation(id, m, msg, now)
	} else {
		c.response(m, msg, now)
	}
}

// underLoad reports whether handshakes are shed at now.
func (t *Tunnel) underLoad(now time.Duration) bool { return now < time.Duration(t.loadUntil.Load()) }

// admit sheds load (paper §5.3): while there is more than can be answered, a source has to show that it receives at its
// address, and then gets its share.
func (c *control) admit(id *identity, m *handshakeMessage, msg []byte, now time.Duration) bool {
	t := c.tunnel
	if len(t.handshakes) >= underLoadFrom {
		t.loadUntil.Store(int64(now + underLoadFor))
	}
	if !t.underLoad(now) {
		return true
	}
	if !id.checker.CheckMAC2(msg, m.endpoint.Remote, now) {
		t.drops.add(DropInUnderLoad, 1)
		reply, err := id.checker.Reply(c.buf[:0], msg, m.endpoint.Remote, now)
		if err != nil {
			return false
		}
		t.statistics.cookiesSent.Add(1)
		c.send(reply, &m.endpoint)
		return false
	}
	if !c.limiter.allow(m.endpoint.Remote.Addr(), now) {
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
	p := t.lookupPeer(responder.Static())
	if p == nil {
		t.drops.add(DropInUnknownPeer, 1)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed || p.remote == nil || t.identity.Load() != id {
		t.drops.add(DropInHandshake, 1)
		return
	}
	timestamp, err := responder.Verify(p.remote)
	if err != nil {
		t.drops.add(DropInHandshake, 1)
		return
	}
	if !timestamp.After(p.lastTimestamp) || p.lastConsumed != 0 && now-p.lastConsumed < initiationInterval {
		t.drops.add(DropInOldInitiation, 1)
		return
	}
	p.lastTimestamp, p.lastConsumed = timestamp, now
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
	remote := responder.RemoteIndex()
	if !c.derive(p, &keys, false, index, remote, now) {
		return
	}
	p.stamper.Stamp(answer, now)
	p.lastInitiation.Store(int64(now))
	t.statistics.responsesSent.Add(1)
	c.sendHandshake(p, answer, p.endpoint.Load(), now)
	t.debugf("%s: peer %s: initiation from %v answered", t.name(), shortKey(p.public), &m.endpoint)
}

// response completes a handshake this end began. A response that does not verify leaves the handshake waiting: anyone may
// send one who saw the initiation.
func (c *control) response(m *handshakeMessage, msg []byte, now time.Duration) {
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
	keys, remote, err := p.pending.Consume(msg, p.psk)
	if err != nil {
		t.drops.add(DropInHandshake, 1)
		return
	}
	p.pending = nil
	t.statistics.responsesReceived.Add(1)
	p.heardHandshake(m, now)
	if !c.derive(p, &keys, true, index, remote, now) {
		return
	}
	p.completed(now)
	t.debugf("%s: peer %s: handshake completed with %v", t.name(), shortKey(p.public), &m.endpoint)
}

// derive makes a session of a handshake's keys and puts it in its place; as initiator it sends at once what waited, or
// a keepalive, since only that lets the far end send. The peer's lock is held.
func (c *control) derive(p *peer, keys *noise.Keys, initiator bool, local, remote uint32, now time.Duration) bool {
	t := c.tunnel
	s, err := session.New(keys, crypto.ChaCha20Poly1305, initiator, local, remote, now)
	if err != nil {
		t.indices.release(local)
		t.drops.add(DropInHandshake, 1)
		return false
	}
	kp := &keypair{Session: s, peer: p}
	kp.unconfirmed.Store(!initiator)
	t.indices.establish(local, kp)
	if initiator {
		// What waited goes out before the datapath sees the session, so that nothing overtakes it.
		c.sealStaged(p, kp, now)
		p.install(kp)
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
