package tunnel

import (
	"net/netip"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/transport"
)

// This file is the native wire's handshake (docs/protocol.md): an initiation in two parts, types 5 and 6, and its response,
// type 7. The responder keeps what the first part proved until the second is there, in one slot per peer.

// slotLifetime is how long the second part of an initiation is waited for.
const slotLifetime = 5 * time.Second

// layer is what this tunnel's device carries, as the wire has it.
func (t *Tunnel) layer() uint8 {
	if t.bridge != nil {
		return noise.LayerEthernet
	}
	return noise.LayerIP
}

// slot holds a verified first part. The peer's lock guards it.
type slot struct {
	key       slotKey
	responder *noise.HybridResponder // nil: erased
	offer     noise.Parameters
	identity  *identity
	until     time.Duration
}

// slotKey finds the slot that a second part belongs to: its sender index, and the address that the first part came from.
type slotKey struct {
	remote netip.AddrPort
	index  uint32
}

// slotTable finds peers by their slots. It belongs to the control loop. Each peer has one entry at most; one whose slot has
// been erased meanwhile is harmless, and goes at the next visit.
type slotTable map[slotKey]*peer

// fill puts a verified first part into p's slot, in place of the one before. The peer's lock is held.
func (t slotTable) fill(p *peer, s slot) {
	t.empty(p)
	t[s.key] = p // two peers at one address with one index of 2^32: the later one wins, the other begins anew
	p.slot = s
}

// empty erases p's slot. The peer's lock is held.
func (t slotTable) empty(p *peer) {
	if t[p.slot.key] == p {
		delete(t, p.slot.key)
	}
	p.eraseSlot()
	p.slot = slot{}
}

// expire empties p's slot where its time is over or it was erased, and returns when that will be, or 0.
func (t slotTable) expire(p *peer, now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.slot.until == 0:
		return 0
	case p.slot.responder == nil || p.slot.until <= now:
		t.empty(p)
		return 0
	}
	return p.slot.until
}

// eraseSlot erases the secrets in the slot. The lock is held.
func (p *peer) eraseSlot() {
	if p.slot.responder != nil {
		p.slot.responder.Erase()
		p.slot.responder = nil
	}
}

// hybridInitiate makes both parts of an initiation and sends them. The peer's lock is held.
func (c *control) hybridInitiate(p *peer, index uint32, ep *transport.Endpoint, now time.Duration) (pendingHandshake, error) {
	t := c.tunnel
	offer := noise.Parameters{Suites: t.suites, Layer: t.layer(), Lanes: t.lanesWanted()}
	parts, pending, err := p.remote.InitiateHybrid(c.buf[:0], index, p.nextTimestamp(t.clock.wall()), offer, t.randomness())
	if err != nil {
		return nil, err
	}
	first, second := parts[:noise.HybridInitiationSize], parts[noise.HybridInitiationSize:]
	p.stamper.Stamp(first, now)
	p.stamper.StampKEM(second)
	c.sendHandshake(p, first, ep, now)
	c.sendHandshake(p, second, ep, now)
	return hybridPending{pending, offer}, nil
}

// randomness is what handshakes of the native wire draw from.
func (t *Tunnel) randomness() noise.Randomness { return noise.Randomness{Ephemeral: t.ephemeral} }

// hybridInitiation verifies the first part of a peer's initiation and puts it into the peer's slot. Nothing is answered.
func (c *control) hybridInitiation(id *identity, m *handshakeMessage, msg []byte, now time.Duration) {
	t := c.tunnel
	responder, err := id.noise.ReadHybridInitiation(msg)
	if err != nil {
		t.drops.add(DropInHandshake, 1)
		return
	}
	p := t.lockCaller(id, responder.Static(), Culvert, &m.endpoint)
	if p == nil {
		responder.Erase()
		return
	}
	defer p.mu.Unlock()
	timestamp, offer, err := responder.Verify(p.remote)
	if err != nil {
		t.drops.add(DropInHandshake, 1)
		return
	}
	if !p.acceptTimestamp(timestamp, now) {
		responder.Erase()
		t.refuse(DropInOldInitiation, false, p.public, &m.endpoint, p.behind(timestamp))
		return
	}
	p.receivedPackets.Add(1)
	p.receivedBytes.Add(uint64(len(msg)))
	until := now + slotLifetime
	c.slots.fill(p, slot{
		key:       slotKey{m.endpoint.Remote, responder.RemoteIndex()},
		responder: responder,
		offer:     offer,
		identity:  id,
		until:     until,
	})
	p.schedule(until)
}

// kem takes the second part of an initiation and answers both. One that does not verify leaves the slot as it is: anyone may
// send one who saw the first part.
func (c *control) kem(m *handshakeMessage, msg []byte, now time.Duration) {
	t := c.tunnel
	p := c.slots[slotKey{m.endpoint.Remote, noise.SenderIndex(msg)}]
	if p == nil {
		t.drops.add(DropInKEM, 1)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := &p.slot; p.removed || p.remote == nil || s.responder == nil || s.until <= now || s.identity != t.identity.Load() {
		c.slots.empty(p)
		t.drops.add(DropInKEM, 1)
		return
	}
	responder := p.slot.responder
	if err := responder.ReadKEM(msg); err != nil {
		t.drops.add(DropInHandshake, 1)
		return
	}
	offer := p.slot.offer
	defer c.slots.empty(p)
	suite, ok := t.suites.Choose(offer.Suites)
	if !ok {
		t.drops.add(DropInHandshake, 1)
		return
	}
	t.statistics.initiationsReceived.Add(1)
	p.heardHandshake(m, now)
	index, err := t.indices.reserve(p)
	if err != nil {
		return
	}
	chosen := noise.Parameters{Suites: crypto.SuitesOf(suite), Layer: t.layer(), Lanes: t.lanesWanted()}
	answer, keys, err := responder.Respond(c.buf[:0], index, p.psk, chosen, t.randomness())
	if err != nil {
		t.indices.release(index)
		t.drops.add(DropInHandshake, 1)
		return
	}
	p.farLayer(offer.Layer)
	if !c.derive(p, &keys, derived{suite: suite, local: index, remote: responder.RemoteIndex(), lanes: chosen.LanesWith(offer)}, now) {
		return
	}
	c.respond(p, m, answer, now)
}

// farLayer notes what the far end's device carries, and says so once where it is not what this end's carries.
func (p *peer) farLayer(far uint8) {
	n, layer := p.native.Load(), p.tunnel.layer()
	if far == layer || n.layerTold {
		return
	}
	n.layerTold = true // once, however often the peer says so
	p.tunnel.logf("%s: peer %s carries %s and this tunnel %s: nothing will pass between them until both have the same mode",
		p.tunnel.name(), shortKey(p.public), layerName(far), layerName(layer))
}

// layerName is for people.
func layerName(l uint8) string {
	switch l {
	case noise.LayerIP:
		return "IP packets (tun)"
	case noise.LayerEthernet:
		return "Ethernet frames (tap)"
	}
	return "something unknown"
}
