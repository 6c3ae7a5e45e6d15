package tunnel

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"culvert/tunnel/device"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
	"culvert/tunnel/switching"
)

// This file is the control loop's part of a tunnel that carries frames: whether its peers are reached, which the interface's
// carrier tells everybody on it, and loops.

const (
	// bridgeEvery is how often the control loop looks at the bridge.
	bridgeEvery = time.Second
	// silentAfter is how many keepalive intervals a peer may be silent, and silentSlack how much longer, before it counts as
	// lost: each interval asks it for an answer, and one or two answers may get lost.
	silentAfter = 3
	silentSlack = time.Second
)

// unpredictable is 64 bits that nobody can foretell.
func unpredictable() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	return binary.LittleEndian.Uint64(b[:])
}

// reached reports whether the peer answers. A peer without persistent keepalive is not asked, so it counts as reached as long
// as its address is known.
func (p *peer) reached(now time.Duration) bool {
	interval := time.Duration(p.timers.interval.Load())
	if interval == 0 {
		return p.endpoint.Load() != nil
	}
	heard := time.Duration(p.heardAt.Load())
	return p.current.Load().maySend(now) && heard != 0 && now-heard < silentAfter*interval+silentSlack
}

// ask sends a peer an echo, which it answers, where nothing has come from it for its keepalive interval.
func (c *control) ask(p *peer, now time.Duration) {
	interval := time.Duration(p.timers.interval.Load())
	if interval == 0 || now-time.Duration(p.heardAt.Load()) < interval || p.askedAt != 0 && now-p.askedAt < interval {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.echo(p, now)
}

// echo sends an echo besides those that measure, which an answer from the peer follows. The peer's lock is held.
func (c *control) echo(p *peer, now time.Duration) bool {
	kp, ep := p.current.Load(), p.endpoint.Load()
	if ep == nil || p.removed || !kp.maySend(now) || kp.native == nil {
		return false
	}
	p.askedAt = now
	c.tell(p, kp, kp.way(ep), 0, message.Echo{Sent: kp.Sent() + 1 - kp.probesSent}, now)
	p.schedule(p.timers.dataSent(now)) // without an answer the session is made anew
	return true
}

// maintainBridge does what is due of the bridge.
func (c *control) maintainBridge(now time.Duration) {
	t := c.tunnel
	b := t.bridge
	if b == nil {
		return
	}
	c.bridgeAt = now + bridgeEvery
	if t.waits.Load() { // the carrier is as the tunnel before has set it, and stays so
		c.carrierUnsure = true
		return
	}
	b.table.Sweep(now)
	c.readAddress()
	b.neighbours.Sweep(now)
	reached := false
	for _, p := range b.ports.Load().all {
		c.ask(p, now)
		port := p.port.Load()
		isKept := port.change.Held && p.current.Load().maySend(now)
		if port.change.Held && !isKept {
			c.forgotten = append(c.forgotten, port.number)
		}
		is := p.reached(now)
		reached = reached || is
		if is != p.wasReached {
			p.wasReached = is
			if is {
				b.suspected.Store(true) // that there is another way to it
				t.logf("%s: peer %s is reached", t.name(), shortKey(p.public))
			} else {
				t.logf("%s: peer %s does not answer", t.name(), shortKey(p.public))
				if !isKept {
					c.forgotten = append(c.forgotten, port.number) // who was behind it may have another way
				}
			}
		}
	}
	b.table.Forget(c.forgotten...)
	c.forgotten = c.forgotten[:0]
	c.setCarrier(reached || b.keepCarrier.Load())
	c.guard.SetEnabled(!b.keepLoops.Load(), now)
	c.guard.SetReached(reached, now)
	if b.suspected.Swap(false) {
		c.guard.Suspect(now)
	}
	for frame, ok := c.guard.Next(now); ok; frame, ok = c.guard.Next(now) {
		c.writeFrame(frame)
	}
	c.followGuard()
	c.followTopology(now)
	c.bridgeAt = earlier(c.bridgeAt, c.guard.Deadline())
}

// readAddress follows the interface's own address.
func (c *control) readAddress() {
	d, ok := c.tunnel.device.(device.HardwareAddresser)
	if !ok {
		return
	}
	if a, err := d.HardwareAddress(); err == nil {
		c.tunnel.bridge.own.Store(uint64(ethernet.AddressAt(a[:])))
	}
}

// setCarrier turns the interface's carrier on or off.
func (c *control) setCarrier(on bool) {
	t := c.tunnel
	d, ok := t.device.(device.CarrierSetter)
	if !ok || t.bridge.carrier.Load() == on && !c.carrierUnsure {
		return
	}
	if err := d.SetCarrier(on); err != nil {
		if !c.carrierTold {
			c.carrierTold = true
			t.logf("%s: the interface's carrier cannot be set: %v", t.name(), err)
		}
		return
	}
	c.carrierUnsure = false
	t.bridge.carrier.Store(on)
}

// loopProbe takes one loop probe from the queue and passes it on the way that a broadcast takes.
func (c *control) loopProbe(m *probeMessage, now time.Duration) {
	if m.from == nil {
		v := c.guard.FromDevice(m.bytes[room:room+m.size], now)
		if v.Malformed {
			c.tunnel.drops.add(DropOutProbe, 1)
		}
		c.spread(nil, v.Relay, now)
	} else if port := m.from.port.Load(); port != nil {
		lo, hi := room, room+m.size
		if h, ok := ethernet.Parse(m.bytes[lo:hi]); ok && port.vlans != switching.None {
			vlan, action, ok := port.vlans.Ingress(h)
			if !ok {
				c.tunnel.drops.add(DropInVLAN, 1)
				return
			}
			lo = retag(m.bytes[:], lo, hi, action, vlan, &device.Offload{})
		}
		v := c.guard.FromPeer(m.bytes[lo:hi], m.from.relayed(), now)
		if v.Malformed {
			c.tunnel.drops.add(DropInProbe, 1)
		}
		c.spread(m.from, v.Relay, now)
		c.bounce(m.from, v.Bounce, now)
		if v.Write != nil {
			c.writeFrame(v.Write)
		}
	}
	c.followGuard()
	c.bridgeAt = earlier(c.bridgeAt, c.guard.Deadline())
}

// spread sends a probe to all peers that a broadcast from there goes to; nil is the device.
func (c *control) spread(from *peer, frame []byte, now time.Duration) {
	if frame == nil {
		return
	}
	for _, q := range c.tunnel.bridge.ports.Load().all {
		if from == nil || q != from && from.reaches(q) {
			c.sendFrame(q, frame, now)
		}
	}
}

// bounce sends a probe to all other peers that a broadcast does not go to.
func (c *control) bounce(from *peer, frame []byte, now time.Duration) {
	if frame == nil {
		return
	}
	for _, q := range c.tunnel.bridge.ports.Load().all {
		if q != from && !from.reaches(q) {
			c.sendFrame(q, frame, now)
		}
	}
}

// followGuard does what the guard has found: it blocks the interface or opens it again, and says so.
func (c *control) followGuard() {
	t := c.tunnel
	b := t.bridge
	b.loops.Store(c.guard.Loops())
	for e, ok := c.guard.Event(); ok; e, ok = c.guard.Event() {
		t.logf("%s: %v", t.name(), e)
	}
	if blocked := c.guard.Blocked(); b.blocked.Load() != blocked {
		b.blocked.Store(blocked)
		b.forgetLearned() // whoever was reached through the tunnel is elsewhere now, or the other way round
		c.topology.tell = movedTold
		b.wakeUp()
	}
}

// writeFrame writes a frame to the device, as one from a peer.
func (c *control) writeFrame(frame []byte) {
	c.content = append(c.content[:device.Headroom], frame...)
	_ = c.tunnel.queues[0].Write(c.content, device.Headroom, len(c.content), device.Offload{}) // the next comes in a second
	c.content = c.content[:device.Headroom]
}

// sendFrame sends a frame of a single size that every path takes to a peer, if there is a session.
func (c *control) sendFrame(p *peer, frame []byte, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kp, ep := p.current.Load(), p.endpoint.Load()
	if ep == nil || p.removed || !kp.maySend(now) || kp.native == nil {
		return
	}
	c.content = append(append(c.content[:0], make([]byte, room)...), frame...)
	lo, hi := room, len(c.content)
	if h, ok := ethernet.Parse(frame); ok {
		if vlans := p.port.Load().vlans; vlans != switching.None {
			action, ok := vlans.Egress(h.VLAN, h.Tags)
			if !ok {
				return
			}
			lo = retag(c.content, lo, hi, action, h.VLAN, &device.Offload{})
		}
	}
	c.content = append(c.content, make([]byte, device.Tailroom)...)
	c.staged.buf = c.content
	messages, bytes, ok := c.staged.sealContent(kp, kp.way(ep), payload.Ethernet, lo, hi, kp.native.limits().plaintext(), 0)
	c.staged.buf = nil
	if ok && messages > 0 {
		p.sentDatagrams(kp, kp.way(ep), messages, bytes, now)
	}
	c.content = c.content[:device.Headroom]
}
