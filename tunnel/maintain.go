package tunnel

import (
	"slices"
	"sync"
	"time"

	"culvert/crypto"
	"culvert/crypto/session"
	"culvert/tunnel/device"
	"culvert/tunnel/fragment"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
)

// This file is the control loop's part of the native wire: control messages in and out, the search for the path's MTU.

// fastSuites are the suites worth offering on this machine.
var fastSuites = sync.OnceValue(func() crypto.Suites { return session.MeasureSuites(newClock().now) })

// reassemblyTimeout is how long the fragments of a packet are waited for.
const reassemblyTimeout = time.Second

// newReassembler makes a receiver's memory for fragments; its bounds are those of docs/security.md.
func newReassembler() *fragment.Reassembler[*keypair] {
	return fragment.New[*keypair](fragment.Limits{
		PerKey:      16,
		PerKeyBytes: 256 << 10,
		Packets:     256,
		Bytes:       4 << 20,
		Timeout:     reassemblyTimeout,
	})
}

// countLost counts packets given up for their fragments.
func (t *Tunnel) countLost(lost fragment.Loss) {
	if n := lost.Expired + lost.Evicted; n > 0 {
		t.drops.add(DropInReassembly, n)
	}
	if n := lost.Duplicate + lost.Inconsistent; n > 0 {
		t.drops.add(DropInFragment, n)
	}
}

const (
	// moveEvery is how often a peer's change of address has the path's MTU searched for anew.
	moveEvery = time.Second
	// comeBackSpread is how much wider than other retries those are spread that a goodbye brings.
	comeBackSpread = 10
)

// begin starts a peer's control messages under a new session; the first says hello. The peer's lock is held.
func (c *control) begin(p *peer, kp *keypair, now time.Duration) {
	n := kp.native
	if n == nil {
		return
	}
	t := c.tunnel
	n.begun = true
	n.session = kp
	if err := n.sender.Restart(kp.serial, p.hello(), now); err != nil {
		t.debugf("%s: peer %s: no hello can be sent: %v", t.name(), shortKey(p.public), err)
	}
	n.latency.Begin(kp.serial, now)
	n.search.Begin(now)
	n.lanesUntil = now + laneActive
	n.learn()
	c.speak(p, now)
	if t.bridge != nil {
		t.bridge.wakeUp()
	}
}

// hello is what this end says of itself to a peer. The peer's lock is held.
func (p *peer) hello() message.Hello {
	t := p.tunnel
	p.saidRelays = p.relaysHere()
	return message.Hello{Agent: t.options.Agent, MTU: int(t.mtu.Load()), Layer: t.layer(), Relays: p.saidRelays}
}

// relaysHere reports whether frames that come from the peer are sent on to others, for all this end knows.
func (p *peer) relaysHere() bool {
	port := p.port.Load()
	return port != nil && port.spoke && len(p.tunnel.bridge.ports.Load().all) > 1
}

// sayRelays has the peer told where what hello said of relaying has changed.
func (p *peer) sayRelays() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.native.Load()
	if n == nil || n.session == nil || p.saidRelays == p.relaysHere() {
		return
	}
	// Where too much waits already, the next session's hello says it.
	_ = n.sender.Queue(p.hello(), p.tunnel.clock.now())
	p.tunnel.attention.add(p)
}

// farRelays notes whether this end is a spoke of the peer's.
func (p *peer) farRelays(relays bool) {
	if p.relays.Swap(relays) == relays || !relays {
		return
	}
	if port := p.port.Load(); port != nil && port.spoke && p.native.Load().admitRemark() {
		p.tunnel.logf("%s: peer %s and this end each have the other as a spoke: neither sends on for the other (spoke: true belongs to the hub's side alone)",
			p.tunnel.name(), shortKey(p.public))
	}
}

// maintain does what is due of a peer's control messages and returns when to come again, or 0.
func (c *control) maintain(p *peer, now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.native.Load()
	if n == nil || p.removed {
		return 0
	}
	t := c.tunnel
	onStream := n.stream.Load()
	if moved, after := n.moved.Swap(false), time.Duration(n.askAfter.Swap(0)); moved && n.begun {
		if !onStream {
			n.search.Moved(now)
		}
		n.latency.Moved(now + after)
		n.unproven = !onStream // nobody can pretend to be at the other end of a TCP connection
		n.waits = n.movedAt != 0 && now < n.movedAt+moveEvery
		if !n.waits {
			n.movedAt = now
		}
	}
	if n.waits && now >= n.movedAt+moveEvery {
		n.waits, n.movedAt = false, now
	}
	if size := n.tooBig.Swap(0); size > 0 {
		n.search.TooBig(int(size), now)
	}
	n.largest = t.largestDatagram()
	n.search.SetMax(n.largest, now)
	if expired(&n.maintain, now) {
		n.latency.Active(now)
		n.lanesUntil = now + laneActive
		if n.large.Swap(false) {
			n.search.Used(now)
		}
	}
	at := time.Duration(n.maintain.Load())
	kp := p.current.Load()
	if kp == nil || kp.native != n || !kp.maySend(now) { // nothing is due before the next session
		if n.pushing && n.session != nil {
			p.wantHandshake.Store(true)
			t.attention.add(p) // for another visit: this one is past where handshakes begin
		}
		n.sender.Pause()
		n.latency.Pause()
		n.session = nil
		n.learn()
		return at
	}
	if kp != n.session {
		c.begin(p, kp, now) // as responder; it is confirmed by now
	} else {
		c.speak(p, now)
	}
	p.doubt(n, now)
	n.learn()
	switch {
	case p.endpoint.Load() == nil: // whose coming is a visit
		return at
	case n.waits:
		return earlier(at, n.movedAt+moveEvery)
	}
	at = earlier(at, earlier(n.sender.Deadline(), n.latency.Deadline()))
	at = earlier(at, c.tendLanes(p, kp, now))
	if n.unproven || onStream { // an answer begins the search; a stream takes all sizes
		return at
	}
	return earlier(at, n.search.Deadline())
}

// speak sends the control messages that are due. The peer's lock is held.
func (c *control) speak(p *peer, now time.Duration) {
	n, kp, ep := p.native.Load(), p.current.Load(), p.endpoint.Load()
	// A peer may pretend to be now here, now there; what that makes this end send is bounded by time.
	if ep == nil || kp == nil || kp != n.session || n.waits || !kp.maySend(now) {
		return
	}
	if rtt, _, _, ok := n.latency.RTT(); ok {
		n.sender.SetRTT(rtt)
		n.search.SetRTT(rtt)
	}
	for number, m, ok := n.sender.Next(now); ok; number, m, ok = n.sender.Next(now) {
		c.tell(p, kp, kp.way(ep), number, m, now)
		p.schedule(p.timers.dataSent(now)) // it will be answered, or the far end has lost the session
	}
	if echo, ok := n.latency.Next(kp.Sent()+1-kp.probesSent, now); ok { // itself included
		c.tell(p, kp, kp.way(ep), 0, echo, now)
	}
	if n.unproven || n.stream.Load() { // an echo asks; probes are many times larger than what a forged address costs
		return
	}
	for size, id, ok := n.search.Next(now); ok; size, id, ok = n.search.Next(now) {
		c.probe(p, kp, kp.way(ep), size, id, now)
	}
}

// tell sends one control message. The peer's lock is held.
func (c *control) tell(p *peer, kp *keypair, w way, number uint64, m message.Message, now time.Duration) {
	content, err := message.Encode(c.content[:device.Headroom], number, m)
	if err != nil {
		c.tunnel.debugf("%s: peer %s: a control message cannot be sent: %v", c.tunnel.name(), shortKey(p.public), err)
		return
	}
	c.sealControl(p, kp, payload.Control, w, content, kp.native.limits().plaintext(), now)
}

// sealControl seals the control message that follows the headroom. The peer's lock is held.
func (c *control) sealControl(p *peer, kp *keypair, kind payload.Kind, w way, content []byte, limit int, now time.Duration) {
	size := len(content)
	c.content = slices.Grow(content, device.Tailroom)
	c.staged.buf = c.content[:size+device.Tailroom]
	messages, bytes, ok := c.staged.sealContent(kp, w, kind, device.Headroom, size, limit, 0)
	c.staged.buf = nil
	if ok && messages > 0 {
		p.sentDatagrams(kp, w, messages, bytes, now)
	}
}

// probe sends a message of exactly size bytes that is answered if it arrives. It goes alone, so that its failure is not that
// of others. The peer's lock is held.
func (c *control) probe(p *peer, kp *keypair, w way, size int, id uint64, now time.Duration) {
	c.batch.flush()
	plaintext := size - session.Overhead
	content, err := message.EncodeProbe(c.content[:device.Headroom], id, plaintext-payload.TrailerSize)
	if err != nil {
		return
	}
	c.sealControl(p, kp, payload.Control, w, content, plaintext, now)
	tooBig := c.batch.flushProbe()
	if w.lane != nil {
		return
	}
	kp.probesSent++
	if tooBig {
		kp.native.search.ProbeRefused(id, now)
	}
}

// control takes one control message from the queue. A peer is authenticated but not trusted: what is malformed is dropped.
func (c *control) control(m *controlMessage, now time.Duration) {
	t, kp := c.tunnel, m.keypair
	p, n := kp.peer, kp.native
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed || p.native.Load() != n || kp != p.current.Load() && kp != p.previous {
		t.drops.add(DropInExpired, 1)
		return
	}
	if kp == p.current.Load() && kp != n.session {
		c.begin(p, kp, now)
	}
	number, said, err := message.Decode(m.content)
	if err != nil {
		t.drops.add(DropInControl, 1)
		return
	}
	switch {
	case m.path.Remote.IsValid():
		c.pathMessage(p, kp, said, &m.path, now)
		return
	case m.lane != nil:
		c.laneSaid(p, m.lane, said, now)
	default:
		c.act(p, kp, number, said, now)
	}
	n.learn()
	c.speak(p, now)
	// What was just told or heard may have changed when to come again.
	p.visitAt.Store(0)
	t.attention.add(p)
}

// sayGoodbye tells peers on the native wire that nothing of this end will be there, so that they need not find out.
// Configuration is locked.
func (t *Tunnel) sayGoodbye(peers []*peer, reason uint64) {
	w, now := t.goodbyes, t.clock.now()
	for _, p := range peers {
		n, kp, ep := p.native.Load(), p.current.Load(), p.endpoint.Load()
		if n == nil || ep == nil || !kp.maySend(now) {
			continue
		}
		if w == nil {
			w = &outbound{tunnel: t, batch: newSendBatch(t, 4<<10), buf: make([]byte, device.Headroom+message.MinProbe+device.Tailroom)}
			t.goodbyes = w
		}
		content, err := message.Encode(w.buf[:device.Headroom], 0, message.Goodbye{Reason: reason})
		if err != nil || len(content)+device.Tailroom > len(w.buf) {
			continue
		}
		w.sealContent(kp, kp.way(ep), payload.Control, device.Headroom, len(content), n.limits().plaintext(), 0)
	}
	if w != nil {
		w.batch.flush()
	}
}

// nativeStatus is the native wire's part of the status. The lock is held.
func (p *peer) nativeStatus(now time.Duration) *NativeStatus {
	n := p.native.Load()
	if n == nil {
		return nil
	}
	s := &NativeStatus{
		Lanes:       p.laneStatus(now),
		PathMTU:     n.pathMTU(),
		InnerMTU:    p.tunnel.innerMTU(n.limits().packet()),
		PathSettled: n.limits().settled(),
		Agent:       n.hello.Agent,
		PeerMTU:     n.hello.MTU,
	}
	s.RTT, s.RTTDeviation, s.RTTMin, _ = n.latency.RTT()
	if loss, ok := n.latency.Loss(); ok {
		s.Loss = &loss.Fraction
	}
	return s
}

// act does what a control message says. The peer's lock is held.
func (c *control) act(p *peer, kp *keypair, number uint64, said message.Message, now time.Duration) {
	t, n, ep := c.tunnel, kp.native, p.endpoint.Load()
	if number != 0 {
		act, ack := n.receiver.Accept(kp.serial, number, now)
		if ack && ep != nil && kp.maySend(now) {
			c.tell(p, kp, kp.way(ep), 0, message.Ack{Number: number}, now)
		}
		if !act {
			return
		}
	}
	switch m := said.(type) {
	case message.Hello:
		n.hello = m
		p.farLayer(m.Layer)
		p.farRelays(m.Relays)
		if t.options.Greeted != nil && ep != nil && n.greeted != kp.serial {
			n.greeted = kp.serial
			t.options.Greeted(p.public, ep.Remote)
		}
	case message.Ack:
		n.sender.Acked(kp.serial, m.Number, now)
		n.pushing = n.pushing && n.sender.Waiting() > 0
	case message.Echo:
		received := kp.received.Load()
		received -= min(received, kp.probesReceived)
		n.latency.Heard(kp.serial, m, received, now)
		if ep != nil && kp.maySend(now) {
			c.tell(p, kp, kp.way(ep), 0, message.Reply{ID: m.ID, Received: received}, now)
		}
	case message.Reply:
		n.latency.Answered(kp.serial, m, now)
		n.unproven = n.unproven && n.latency.Last() == 0
	case message.Probe:
		kp.probesReceived++
		if ep != nil && kp.maySend(now) {
			c.tell(p, kp, kp.way(ep), 0, message.Probed(m), now)
		}
	case message.Probed:
		n.search.Acked(m.ID, now)
	case message.Push:
		if t.options.Pushed != nil {
			t.options.Pushed(p.public, m.Subject, m.Document)
		}
	case message.Goodbye:
		c.farewell(p, kp, now)
	case message.Moved:
		c.movedBeyond(p, m.Hops)
	}
}

// farewell forgets the sessions with a peer that says it is going. If it is to be kept in touch with, it is looked for at once.
func (c *control) farewell(p *peer, kp *keypair, now time.Duration) {
	t := c.tunnel
	// After both ends began at once the far end sends under the session that it began.
	if kp != p.current.Load() && (kp != p.previous || !kp.crossed.Load()) {
		return // it has come back already
	}
	t.debugf("%s: peer %s says goodbye", t.name(), shortKey(p.public))
	p.discard(p.current.Swap(nil))
	p.discard(p.previous)
	p.previous = nil
	if t.bridge != nil {
		t.bridge.wakeUp()
	}
	if p.next != nil || p.pending != nil || p.slot.responder != nil {
		return // it is coming back already
	}
	p.eraseKeys()
	p.timers.stop()
	p.timers.persist(now)
	if p.timers.interval.Load() != 0 || len(p.staged.packets) > 0 {
		p.timers.roundBegun(now)
		p.schedule(p.timers.initiationDue(now + time.Second + comeBackSpread*t.jitter())) // many may be told at once
	}
}
