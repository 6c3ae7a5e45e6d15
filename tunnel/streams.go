package tunnel

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/device"
	"culvert/tunnel/fallback"
	"culvert/tunnel/message"
	"culvert/tunnel/pathmtu"
	"culvert/tunnel/payload"
)

// This file is how a peer is reached over a stream where UDP does not get through (docs/protocol.md, "Over TCP"). Package fallback
// decides; the socket's streams (transport.Streamer) carry. An end that others dial needs none of it but roaming: where the
// last authenticated message came from is where the peer is.

// switchesTold is how often at most a peer's change from one way to the other is logged.
const switchesTold = time.Minute

// streams is what a peer has of them.
type streams struct {
	own    atomic.Uint32                      // number of the stream that this end has dialled and sends over, 0: none
	left   atomic.Uint32                      // number of the last one that it has left, 0: none
	direct atomic.Pointer[transport.Endpoint] // where datagrams went before a stream, nil: nowhere
	routes atomic.Bool                        // routes or addresses have changed since the last visit
	heard  atomic.Bool                        // datagrams may get through again
	gone   atomic.Bool                        // the stream sent over has ended
	stale  atomic.Bool                        // the machine was suspended for longer than the stream lasts

	dialler *dialler // nil where none are dialled; the peer's lock guards it
}

// dialler is the state of a peer to which streams are dialled.
type dialler struct {
	machine fallback.Machine
	targets []transport.StreamTarget
	turn    int              // of the target dialled next
	stream  transport.Stream // that is sent over, nil: none
	result  *dialResult      // of the last attempt, not looked at yet
	attempt uint64           // number of the attempt under way
	cancel  context.CancelFunc

	failureTold bool          // since a stream was last open
	overTold    bool          // that a stream is in use, to the log or, when that was told a moment ago, to the finer one
	inLog       bool          // to the log
	toldAt      time.Duration // when that was last in the log, 0: never
}

type dialResult struct {
	target transport.StreamTarget
	stream transport.Stream
	err    error
}

// moved notes that the peer's endpoint is another one: the streams are told who uses them, and where to return to is kept.
// The endpoint set's lock is held.
func (s *streams) moved(t *Tunnel, from, to *transport.Endpoint) {
	before, after := streamOf(from), streamOf(to)
	if before == after {
		return
	}
	if before == 0 && from != nil {
		plain := from.WithoutSource()
		s.direct.Store(&plain)
	}
	b := t.bound.Load()
	if b == nil {
		return
	}
	socket, ok := b.socket.(transport.Streamer)
	if !ok {
		return
	}
	if after != 0 {
		socket.InUse(*to, true)
	}
	if before != 0 {
		socket.InUse(*from, false)
	}
}

// streamOf returns the number of an endpoint's stream, or 0.
func streamOf(ep *transport.Endpoint) uint32 {
	if ep == nil {
		return 0
	}
	return ep.Stream
}

// mayFollow reports whether an authenticated message from ep moves the peer there from old. A stream that this end has dialled is
// left by its own decision alone, since that the far end's datagrams get through does not say that this end's do. But where
// both ends have dialled, that of the end with the lesser key is used by both. Nor does a message over a stream that was left bring it
// back: the far end sent it before it learned of that, and would follow this end there again.
func (p *peer) mayFollow(old, ep *transport.Endpoint) bool {
	if ep.Stream != 0 && ep.Stream == p.streams.left.Load() {
		return false
	}
	own := p.streams.own.Load()
	if own == 0 || old.Stream != own {
		return true
	}
	if ep.Stream != 0 {
		id := p.tunnel.identity.Load()
		return id != nil && p.public.Compare(id.noise.Public()) < 0
	}
	p.datagramsMayWork()
	return false
}

// datagramsMayWork has datagrams tried soon, where a stream is in use.
func (p *peer) datagramsMayWork() {
	if !p.streams.heard.Swap(true) {
		p.tunnel.attention.add(p)
	}
}

// late reports whether msg, authenticated under k, was overtaken by others that went the other way, by datagrams or over a
// stream: that it comes from there does not say that the peer is there now (compare RFC 9000 section 9.3). Where handshakes
// crossed the far end goes on sending under the session that it began.
func (k *keypair) late(ep *transport.Endpoint, msg []byte) bool {
	old := k.peer.endpoint.Load()
	if old == nil || old.Stream == ep.Stream {
		return false
	}
	return !k.Newest(msg) || k != k.peer.current.Load() && !k.unconfirmed.Load() && !k.crossed.Load()
}

// overStream notes whether the peer is reached over a stream. Where it is no more, what is sent is at once no longer than any
// path takes.
func (n *native) overStream(on bool) {
	if n.stream.Swap(on) && !on {
		n.found.Store(uint32(limitsOf(pathmtu.Base-session.Overhead, false)))
	}
}

// streamSize is the length of the longest message over a stream.
func (n *native) streamSize() int { return min(n.largest, pathmtu.Largest) }

// pathMTU is the length of the longest message known to arrive. The peer's lock is held.
func (n *native) pathMTU() int {
	if n.stream.Load() {
		return n.streamSize()
	}
	return n.search.Size()
}

// streamGone notes that what was sent over an endpoint's stream went nowhere.
func (t *Tunnel) streamGone(ep *transport.Endpoint) {
	t.endpoints.any(ep.Remote, func(p *peer) bool {
		if streamOf(p.endpoint.Load()) == ep.Stream {
			p.streams.gone.Store(true)
			t.attention.add(p)
		}
		return false
	})
}

// routesChanged notes that routes or addresses of this host have changed. valid is asked about a stream, which ends where its
// own address has gone.
func (p *peer) routesChanged(valid func(transport.Endpoint) bool) {
	if ep := p.endpoint.Load(); streamOf(ep) != 0 {
		valid(*ep)
		p.tunnel.attention.add(p)
	}
	p.streams.routes.Store(true)
}

// configureEndpoint moves the peer to an endpoint that was configured. While a stream is in use it is tried first.
func (p *peer) configureEndpoint(ep *transport.Endpoint) {
	if own := p.streams.own.Load(); own != 0 && streamOf(p.endpoint.Load()) == own {
		p.streams.direct.Store(ep)
		p.datagramsMayWork()
		return
	}
	p.setEndpoint(ep)
}

// setStreams changes where streams to the peer are dialled; none ends those there are.
func (p *peer) setStreams(targets []transport.StreamTarget) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.streams.dialler
	switch {
	case len(targets) == 0 && d == nil:
	case len(targets) == 0:
		p.leaveStreams()
		p.streams.dialler = nil
	case d == nil:
		p.streams.dialler = &dialler{targets: slices.Clone(targets)}
	case !slices.Equal(d.targets, targets):
		d.targets, d.turn = slices.Clone(targets), 0
		d.machine.Moved(p.tunnel.clock.now())
	}
	p.tunnel.attention.add(p)
}

// streamUnanswered notes that an initiation went unanswered. The lock is held.
func (p *peer) streamUnanswered(now time.Duration) {
	if d := p.streams.dialler; d != nil && p.wire() == Culvert {
		d.machine.Unanswered(now)
	}
}

// doubt has a handshake tried where the peer answers no echo any more, and none is under way: one way may be blocked, and
// the session that would otherwise show it at its renewal may last for two minutes. The lock is held.
func (p *peer) doubt(n *native, now time.Duration) {
	d := p.streams.dialler
	if d != nil && n.latency.Silent() && p.timers.retransmit.Load() == 0 && d.machine.Doubt(now) {
		p.tunnel.debugf("%s: peer %s: answers no echo; trying a handshake", p.tunnel.name(), shortKey(p.public))
		p.beginAnew()
	}
}

// streamAnswered notes that a handshake was completed. The lock is held.
func (p *peer) streamAnswered(now time.Duration) {
	if d := p.streams.dialler; d != nil {
		d.machine.Answered(now)
		p.tunnel.attention.add(p)
	}
}

// leaveStreams ends all that the peer has of streams: it is stopped, or they are not to be used any more. The lock is held.
func (p *peer) leaveStreams() {
	if d := p.streams.dialler; d != nil {
		d.giveUp()
		d.machine.Reset(p.tunnel.clock.now())
	}
	p.leaveStream()
}

// giveUp ends the attempt under way.
func (d *dialler) giveUp() {
	d.attempt++
	if d.cancel != nil {
		d.cancel()
		d.cancel = nil
	}
	if d.result != nil && d.result.stream != nil {
		d.result.stream.Close()
	}
	d.result = nil
}

// leaveOwn notes that this end does not send over the stream that it has dialled any more.
func (s *streams) leaveOwn() {
	if n := s.own.Swap(0); n != 0 {
		s.left.Store(n)
	}
}

// leaveStream has the peer sent datagrams again, and closes the stream that this end has dialled. The lock is held.
func (p *peer) leaveStream() {
	p.streams.leaveOwn()
	if streamOf(p.endpoint.Load()) != 0 {
		p.setEndpoint(p.streams.direct.Load())
	}
	if d := p.streams.dialler; d != nil && d.stream != nil {
		d.stream.Close()
		d.stream = nil
	}
}

// beginAnew has a handshake made at once, where the peer is sent to now. The lock is held.
func (p *peer) beginAnew() {
	p.lastInitiation.Store(0)
	p.timers.attempts.Store(0)
	p.wantHandshake.Store(true)
	p.tunnel.attention.add(p)
}

// followStream does what is due of a peer's streams and returns when to come again, or 0.
func (c *control) followStream(p *peer, now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.streams
	own, at := s.own.Load(), streamOf(p.endpoint.Load())
	if s.gone.Swap(false) && at != own && at != 0 { // one that the peer has dialled; it will come again
		p.setEndpoint(s.direct.Load())
	}
	d := s.dialler
	if d == nil || p.removed || c.tunnel.bound.Load() == nil || p.wire() != Culvert {
		return 0
	}
	if s.routes.Swap(false) {
		d.machine.Moved(now)
	}
	if s.heard.Swap(false) {
		d.machine.Hint(now)
	}
	if own != 0 && at != own { // the stream that the peer has dialled is used instead
		s.leaveOwn()
		d.stream = nil // what is on its way over it is to arrive; it is closed when nobody has used it for a while
		d.machine.Reset(now)
	}
	if r := d.result; r != nil {
		d.result, d.cancel = nil, nil
		c.dialled(p, d, r, now)
	}
	if s.stale.Swap(false) && d.stream != nil {
		d.stream.Close()
	}
	if d.stream != nil && ended(d.stream) {
		c.tunnel.debugf("%s: peer %s: the stream to %v has ended: %v", c.tunnel.name(), shortKey(p.public), d.stream.Endpoint().Remote, d.stream.Err())
		p.leaveStream()
		d.machine.Ended(now)
		p.beginAnew()
	}
	for do, id := d.machine.Next(now); do != fallback.None; do, id = d.machine.Next(now) {
		switch do {
		case fallback.Dial:
			c.dial(p, d, now)
		case fallback.Cancel:
			d.giveUp()
		case fallback.Leave:
			p.leaveStream()
			p.beginAnew()
		case fallback.Probe:
			c.probePath(p, id, now)
		case fallback.Keep:
			p.wantKeepalive.Store(true)
			c.tunnel.attention.add(p)
		}
	}
	if d.machine.State() == fallback.Stream && !d.overTold {
		c.tellOver(p, d, now)
	}
	return d.machine.Deadline()
}

func ended(s transport.Stream) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

// tellOver logs that a peer is reached over a stream, unless that was logged a moment ago.
func (c *control) tellOver(p *peer, d *dialler, now time.Duration) {
	logf := c.tunnel.debugf
	d.overTold, d.inLog = true, d.toldAt == 0 || now-d.toldAt >= switchesTold
	if d.inLog {
		d.toldAt, logf = now, c.tunnel.logf
	}
	logf("%s: peer %s: UDP does not get through; over TCP to %v now", c.tunnel.name(), shortKey(p.public), d.stream.Endpoint().Remote)
}

// tellReturned logs that a peer is reached by datagrams again, where the other was logged.
func (c *control) tellReturned(p *peer, d *dialler, to netip.AddrPort) {
	logf := c.tunnel.debugf
	if d.inLog {
		logf = c.tunnel.logf
	}
	d.overTold, d.inLog = false, false
	logf("%s: peer %s: UDP gets through again, to %v", c.tunnel.name(), shortKey(p.public), to)
}

// dial begins to open a stream to the peer's next target. The peer's lock is held.
func (c *control) dial(p *peer, d *dialler, now time.Duration) {
	t := c.tunnel
	b := t.bound.Load()
	if b == nil { // closed this moment
		d.machine.Failed(now)
		return
	}
	socket, ok := b.socket.(transport.Streamer)
	if !ok {
		d.machine.Failed(now)
		return
	}
	target := d.targets[d.turn%len(d.targets)]
	d.turn++
	d.attempt++
	attempt := d.attempt
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	t.debugf("%s: peer %s: UDP does not get through; trying TCP to %v", t.name(), shortKey(p.public), target)
	t.workers.Go(func() {
		defer cancel()
		go func() {
			select {
			case <-b.closed:
				cancel()
			case <-ctx.Done():
			}
		}()
		stream, err := socket.Dial(ctx, target)
		if !p.dialEnded(attempt, &dialResult{target, stream, err}) && err == nil {
			stream.Close()
		}
		if err == nil {
			<-stream.Done()
			t.attention.add(p)
		}
	})
}

// dialEnded hands over what became of an attempt. It reports false where nobody wants to know.
func (p *peer) dialEnded(attempt uint64, r *dialResult) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.streams.dialler
	if d == nil || d.attempt != attempt || p.removed {
		return false
	}
	d.result = r
	p.tunnel.attention.add(p)
	return true
}

// dialled takes a stream that is open into use, or notes that none is. The peer's lock is held.
func (c *control) dialled(p *peer, d *dialler, r *dialResult, now time.Duration) {
	t := c.tunnel
	if r.err != nil {
		d.machine.Failed(now)
		logf := t.debugf
		if !d.failureTold {
			d.failureTold, logf = true, t.logf
		}
		logf("%s: peer %s: UDP does not get through, and TCP to %v does not either: %v", t.name(), shortKey(p.public), r.target, r.err)
		return
	}
	if !d.machine.Opened(now) {
		r.stream.Close()
		return
	}
	d.failureTold = false
	d.stream = r.stream
	ep := r.stream.Endpoint()
	p.streams.own.Store(ep.Stream)
	p.setEndpoint(&ep)
	p.beginAnew()
}

// probePath asks whether datagrams get through, by one as long as every path must take. The peer's lock is held.
func (c *control) probePath(p *peer, id uint64, now time.Duration) {
	kp, ep := p.current.Load(), p.streams.direct.Load()
	if ep == nil || !kp.maySend(now) {
		return
	}
	const plaintext = pathmtu.Base - session.Overhead
	content, err := message.EncodeProbe(c.content[:device.Headroom], id, plaintext-payload.TrailerSize)
	if err != nil {
		return
	}
	c.sealControl(p, kp, payload.Path, kp.way(ep), content, plaintext, now)
	kp.probesSent++
}

// path takes a probe of another path, or its answer, to the control loop. The sender has not moved to where it comes from.
func (w *inbound) path(kp *keypair, content, msg []byte, from *transport.Endpoint, now time.Duration) {
	kp.peer.receivedPackets.Add(1)
	kp.peer.receivedBytes.Add(uint64(len(msg)))
	w.tunnel.queueControl(kp, nil, content, *from, now)
	w.coalescer.Discard()
}

// pathMessage answers a probe of another path to where it came from, or takes the answer to one. The peer's lock is held.
func (c *control) pathMessage(p *peer, kp *keypair, said message.Message, from *transport.Endpoint, now time.Duration) {
	switch m := said.(type) {
	case message.Probe:
		if !kp.maySend(now) {
			return
		}
		content, err := message.Encode(c.content[:device.Headroom], 0, message.Probed(m))
		if err != nil {
			return
		}
		c.sealControl(p, kp, payload.Path, kp.way(from), content, pathmtu.Base-session.Overhead, now)
		kp.probesSent++
	case message.Probed:
		d := p.streams.dialler
		if d == nil || from.Stream != 0 || !d.machine.ProbeAnswered(m.ID, now) {
			return
		}
		ep := *from
		p.streams.leaveOwn()
		p.setEndpoint(&ep)
		d.stream = nil // what is on its way over it may arrive; it is closed when nobody has used it for a while
		c.tellReturned(p, d, ep.Remote)
		p.wantKeepalive.Store(true) // which the far end follows
		c.tunnel.attention.add(p)
	default:
		c.tunnel.drops.add(DropInControl, 1)
	}
}
