package tunnel

import (
	"errors"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/device"
	"culvert/tunnel/loopguard"
	"culvert/tunnel/switching"
)

const (
	// handshakeQueue bounds the handshake messages that wait, about 1.3 KiB each. From an eighth of it on the tunnel is
	// under load, and stays so for underLoadFor.
	handshakeQueue = 1024
	underLoadFrom  = handshakeQueue / 8
	crowdedFrom    = handshakeQueue / 2 // places from here on are for those who hold a cookie
	underLoadFor   = time.Second
)

// handshakeMessage is a handshake message, copied off the datapath.
type handshakeMessage struct {
	endpoint transport.Endpoint
	size     int
	bytes    [maxHandshake]byte
}

// maxHandshake is the size of the longest handshake message.
const maxHandshake = noise.KEMSize

// queueHandshake hands a handshake message to the control loop. Called by receiving workers: what is certainly not ours
// (a wrong mac1, an index nobody has) is dropped before it takes up a place, and from half full on what anybody can make.
func (t *Tunnel) queueHandshake(msg []byte, kind uint8, from *transport.Endpoint, now time.Duration) {
	id := t.identity.Load()
	switch kind {
	case noise.TypeInitiation, noise.TypeResponse, noise.TypeHybridInitiation, noise.TypeKEM, noise.TypeHybridResponse:
		if id == nil || !id.checker.CheckMAC1(msg) {
			t.drops.add(DropInMAC1, 1)
			return
		}
	}
	switch kind {
	case noise.TypeResponse, noise.TypeHybridResponse, noise.TypeCookieReply:
		if t.indices.lookup(noise.ReceiverIndex(msg)) == nil {
			t.drops.add(DropInIndex, 1)
			return
		}
	}
	if len(t.handshakes) >= crowdedFrom {
		switch kind {
		case noise.TypeInitiation, noise.TypeHybridInitiation:
			if !id.checker.CheckMAC2(msg, from.Remote, now) {
				t.drops.add(DropInQueueFull, 1)
				return
			}
		case noise.TypeKEM:
			if !t.expected.take(slotKey{from.Remote, noise.SenderIndex(msg)}) {
				t.drops.add(DropInKEM, 1)
				return
			}
		}
	}
	if kind == noise.TypeHybridInitiation {
		t.expected.note(slotKey{from.Remote, noise.SenderIndex(msg)})
	}
	m := handshakeMessage{endpoint: *from, size: len(msg)}
	copy(m.bytes[:], msg)
	select {
	case t.handshakes <- m:
	default:
		t.drops.add(DropInQueueFull, 1)
	}
}

// control is the control loop: the one goroutine that runs handshakes, timers and the interface's coming and going.
type control struct {
	tunnel *Tunnel
	agenda agenda
	spare  []*peer
	pause  <-chan struct{}

	batch  *sendBatch
	staged outbound // seals what waited for a handshake, as the datapath would have, and control messages
	nonce  session.Nonce
	buf    [noise.HybridInitiationSize + noise.KEMSize]byte

	content []byte // the control message being sent, behind device.Headroom

	limiter rateLimiter
	slots   slotTable // second parts of initiations that are waited for

	// Where the device carries Ethernet frames.
	guard       *loopguard.Guard
	bridgeAt    time.Duration // when the bridge is to be looked at
	forgotten   []switching.Port
	carrierTold bool // that it cannot be set
	// carrierUnsure: another tunnel has set it.
	carrierUnsure bool
	topology      topology

	// Ports for lanes are wanted, when to try again, and whether it was said that there are none.
	wantLanePorts bool
	lanePortsAt   time.Duration
	lanePortsTold bool

	// The interface is up but its port could not be opened: when to try again, and why not last time.
	retryPortAt time.Duration
	portError   string
	wasUp       bool // the interface has been up before; its first state may be down
}

// retryPortEvery is how long a port that could not be opened is left alone.
const retryPortEvery = 2 * time.Second

// controlBatch is the control loop's send buffer: one peer's staged packets, segmented, and some more.
const controlBatch = 2 * transport.MaxTrainBytes

func newControl(t *Tunnel) *control {
	c := &control{tunnel: t, pause: t.pause.Load().begun, batch: newSendBatch(t, controlBatch), content: make([]byte, device.Headroom, 4<<10), slots: make(slotTable)}
	c.staged = outbound{tunnel: t, queue: t.queues[0], batch: c.batch}
	if t.bridge != nil {
		c.guard = loopguard.New(unpredictable(), unpredictable)
	}
	return c
}

// run is the loop; it ends when the tunnel closes.
func (c *control) run() {
	t := c.tunnel
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	events := t.device.Events()
	var probes chan probeMessage // nil, and so never ready, where there are no frames
	var bridge chan struct{}
	if t.bridge != nil {
		probes, bridge = t.bridge.probes, t.bridge.wake
		c.maintainBridge(t.clock.now())
	}
	for {
		c.batch.flush()
		if c.wantLanePorts {
			c.openLanePorts(t.clock.now())
		}
		timer.Reset(c.wait())
		select {
		case <-t.closing:
			return
		case <-t.pings:
		case <-t.woken: // wait by the clock as it is now
		case <-c.pause:
			c.drain()
			return
		case m := <-t.handshakes:
			c.handshake(&m, t.clock.now())
		case m := <-t.controls:
			c.control(&m, t.clock.now())
		case m := <-probes:
			c.loopProbe(&m, t.clock.now())
		case <-bridge:
			c.maintainBridge(t.clock.now())
		case <-t.attention.wake:
			now := t.clock.now()
			c.spare = t.attention.take(c.spare)
			for i, p := range c.spare {
				c.visit(p, now)
				c.spare[i] = nil
			}
		case <-timer.C:
			now := t.clock.now()
			for at := c.agenda.first(); at != 0 && at <= now; at = c.agenda.first() {
				c.visit(c.agenda[0], now)
			}
			if c.retryPortAt != 0 && c.retryPortAt <= now {
				c.openPort(now)
			}
			if c.bridgeAt != 0 && c.bridgeAt <= now {
				c.maintainBridge(now)
			}
		case e, ok := <-events:
			if !ok {
				t.fail(errDeviceGone)
				return
			}
			c.deviceEvent(e)
		}
	}
}

// wait returns how long until the first peer, or the port, is due.
func (c *control) wait() time.Duration {
	at := earlier(earlier(c.agenda.first(), c.retryPortAt), c.bridgeAt)
	if at == 0 {
		return time.Hour
	}
	return max(0, at-c.tunnel.clock.now())
}

// deviceEvent follows the interface.
func (c *control) deviceEvent(e device.Event) {
	t := c.tunnel
	switch e {
	case device.EventUp:
		c.openPort(t.clock.now())
		if c.wasUp && t.options.LinkUp != nil {
			go t.options.LinkUp()
		}
		c.wasUp = true
	case device.EventDown:
		c.retryPortAt, c.portError = 0, ""
		t.down()
	case device.EventMTU:
		t.readMTU()
	}
}

// openPort opens the UDP port, now that the interface is up. Where another program has the port, or no descriptor is free,
// it is tried again until it works or the interface goes down.
func (c *control) openPort(now time.Duration) {
	t := c.tunnel
	err := t.up()
	if errors.Is(err, ErrSuspended) { // Resume sees to it
		return
	}
	if err == nil {
		if c.portError != "" {
			t.logf("%s: the UDP port is open now", t.name())
		}
		c.retryPortAt, c.portError = 0, ""
		return
	}
	c.retryPortAt = now + retryPortEvery
	if text := err.Error(); text != c.portError {
		c.portError = text
		t.logf("%s: cannot open the UDP port, trying again every %v: %v", t.name(), retryPortEvery, err)
	}
}

// visit does what is due for p and plans the next visit. Everything the peer was asked to attend to is settled here.
func (c *control) visit(p *peer, now time.Duration) {
	// First the plan, then the deadlines: one that is armed from here on finds no plan and asks for another visit.
	p.visitAt.Store(0)
	look := p.lookAccess(now)
	do := p.timers.expire(now)
	if do.erase {
		p.mu.Lock()
		p.eraseKeys()
		p.mu.Unlock()
	}
	if do.giveUp {
		c.giveUp(p)
	}
	if do.retry {
		c.initiate(p, now)
	}
	if p.wantHandshake.Swap(false) || do.newHandshake {
		if do.newHandshake {
			p.forgetSource()
		}
		p.timers.roundBegun(now)
		c.initiate(p, now)
	}
	c.sendStaged(p, now)
	tell := p.announcement.due(time.Duration(p.heardAt.Load()), now)
	if p.wantKeepalive.Swap(false) || do.keepalive || tell {
		c.keepalive(p, now)
		if do.again {
			p.timers.keepaliveAgain(now)
		}
		p.timers.persist(now)
	}
	next := earlier(c.followStream(p, now), earlier(p.timers.next(), look))
	next = earlier(next, time.Duration(p.announcement.at.Load()))
	next = earlier(next, earlier(c.slots.expire(p, now), c.maintain(p, now)))
	p.visitAt.Store(int64(next))
	c.agenda.plan(p, next)
}

// earlier returns the earlier of two deadlines, of which 0 is none.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// giveUp drops what waited for a handshake that never completed.
func (c *control) giveUp(p *peer) {
	t := c.tunnel
	p.mu.Lock()
	p.cancelPending()
	n := p.clearStaged()
	p.mu.Unlock()
	t.drops.add(DropOutHandshake, n)
	t.debugf("%s: peer %s: no answer for %v, giving up until there is traffic", t.name(), shortKey(p.public), session.RekeyAttemptTime)
}

// sendStaged sends what waits for a session, if there is one now.
func (c *control) sendStaged(p *peer, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if kp := p.current.Load(); len(p.staged.packets) > 0 && kp.maySend(now) {
		c.sealStaged(p, kp, now)
	}
}

// sealStaged seals all staged packets under kp. The peer's lock is held.
func (c *control) sealStaged(p *peer, kp *keypair, now time.Duration) {
	t := c.tunnel
	ep := p.endpoint.Load()
	waiting := p.staged.packets
	p.staged.packets = nil
	p.staged.clear(&t.stagedBytes)
	if ep == nil {
		t.drops.add(DropOutNoEndpoint, len(waiting))
		p.waiting.Store(false)
		return
	}
	for i := range waiting {
		s := &waiting[i]
		if t.bridge != nil && now-s.at > maxStagedFrame {
			t.drops.add(DropOutHandshake, 1)
			continue
		}
		c.staged.buf = s.buf
		if !c.staged.sealPacket(p, kp, ep, s.lo, s.hi, s.offload, now) {
			t.drops.add(DropOutHandshake, 1)
		}
	}
	c.staged.buf = nil
	c.batch.flush()
	p.waiting.Store(false)
}

// keepalive sends an empty data message, or asks for a session to send it under.
func (c *control) keepalive(p *peer, now time.Duration) {
	ep, kp := p.endpoint.Load(), p.current.Load()
	if ep == nil {
		return
	}
	if c.tunnel.bridge != nil { // whose carrier depends on the answer
		p.mu.Lock()
		sent := c.echo(p, now)
		p.mu.Unlock()
		if sent {
			return
		}
	}
	counter, ok := uint64(0), false
	if kp.maySend(now) {
		counter, ok = kp.Reserve(1, noise.TagSize)
	}
	if !ok {
		p.timers.roundBegun(now)
		c.initiate(p, now)
		return
	}
	c.sealKeepalive(p, kp, ep, counter, now)
}

// sealKeepalive puts an empty data message into the batch.
func (c *control) sealKeepalive(p *peer, kp *keypair, ep *transport.Endpoint, counter uint64, now time.Duration) {
	size := kp.Seal(c.batch.room(session.Overhead), counter, nil, &c.nonce)
	if size == 0 { // the session has been erased this moment
		return
	}
	c.batch.add(size, ep, 0)
	p.sentDatagrams(kp, kp.way(ep), 1, size, now)
}

// notifyFailing tells the owner that a peer does not answer.
func (t *Tunnel) notifyFailing(p *peer) {
	if t.options.HandshakeFailing == nil || !p.notifying.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer p.notifying.Store(false)
		t.options.HandshakeFailing(p.public)
	}()
}
