package tunnel

import (
	"time"

	"culvert/transport"
	"culvert/tunnel/device"
	"culvert/tunnel/ecn"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/ippacket"
	"culvert/tunnel/loopguard"
	"culvert/tunnel/neighbour"
	"culvert/tunnel/switching"
)

// This file is the part of a frame's way that packets do not have: which peers, and whether the device, it goes to. With one
// peer the tunnel is a wire, and all that is decided here is that the frame is one. With more it is a learning switch
// (IEEE 802.1Q-2018 §8): the device is one port, each peer another.

// room is left in front of a frame that is copied, for a VLAN tag besides what every packet has.
const room = device.Headroom + ethernet.TagSize

// floodAttempts is how many initiations may go unanswered before frames for everybody no longer wait for a peer.
const floodAttempts = 2

// framesOut is what an outbound worker has for frames.
type framesOut struct {
	seen
	spare  []byte // another buffer like outbound.buf, for frames that go to several peers
	answer [device.Headroom + neighbour.MaxAnswer]byte
}

// framesIn is what an inbound worker has for frames.
type framesIn struct {
	seen
	relay *outbound // to other peers
	frame []byte    // a frame that gets or loses a tag on its way to the device
}

// seen is what a worker last learned and looked up, good for as long as the clock is not read again: most frames are like
// the one before.
type seen struct {
	at     time.Duration
	source switching.Key
	port   switching.Port // of source
	target switching.Key
	to     switching.Port // of target
	known  bool           // whether target is in the table
}

// learn notes that source is at port and returns what the table says of it. A frame like the one before was Known.
func (s *seen) learn(b *bridge, source switching.Key, port switching.Port, now time.Duration) switching.Verdict {
	if s.at != now {
		*s = seen{at: now}
	}
	if s.source == source && s.port == port {
		return switching.Known
	}
	verdict, from := b.table.Learn(source, port, now)
	switch verdict {
	case switching.Known, switching.New:
		s.source, s.port = source, port
	case switching.Moved:
		s.source, s.port = source, port
		if from == switching.Device || port == switching.Device {
			b.suspectLoop(now)
		}
	}
	return verdict
}

// lookup returns the port that a frame's destination is at. learn was called at the same time before.
func (s *seen) lookup(b *bridge, h *ethernet.Header, now time.Duration) (switching.Port, bool) {
	if target := switching.KeyOf(h.Dst, h.VLAN); s.target != target || target == 0 {
		s.target = target
		s.to, s.known = b.table.Lookup(target, now)
	}
	return s.to, s.known
}

// frame switches and sends the frame or super-frame w.buf[lo:hi].
func (w *outbound) frame(lo, hi int, o device.Offload, now time.Duration) {
	t := w.tunnel
	b := t.bridge
	frame := w.buf[lo:hi]
	h, ok := ethernet.Parse(frame)
	if !ok {
		t.drops.add(DropOutMalformed, 1)
		return
	}
	if loopguard.IsProbe(frame) {
		t.queueProbe(nil, frame, now)
		return
	}
	if b.blocked.Load() {
		t.drops.add(DropOutLoop, 1)
		return
	}
	ports := b.ports.Load()
	if ports.wire != nil {
		if t.captures.Active() {
			t.recordOut(ports.wire, frame, o, now)
		}
		w.frames.learn(b, switching.KeyOf(h.Src, h.VLAN), switching.Device, now) // for people to see; everything crosses
		w.frameToPeer(ports.wire, &h, lo, hi, o, now)
		return
	}
	if w.frames.learn(b, switching.KeyOf(h.Src, h.VLAN), switching.Device, now) == switching.Refused {
		t.drops.add(DropOutPinned, 1)
		return
	}
	if h.Dst.LinkLocal() {
		if !ports.linkLocal {
			t.drops.add(DropOutLinkLocal, 1)
			return
		}
		if topologyChange(frame, &h) {
			b.topologyChanged()
		}
	}
	if !h.Dst.Group() {
		if to, known := w.frames.lookup(b, &h, now); known {
			p := ports.peer(to)
			if t.captures.Active() {
				t.recordOut(p, frame, o, now)
			}
			switch {
			case to == switching.Device:
				t.drops.add(DropOutSameSide, 1)
			case p == nil: // removed this moment
				t.drops.add(DropOutPeerRemoved, 1)
			default:
				w.frameToPeer(p, &h, lo, hi, o, now)
			}
			return
		}
	}
	if t.captures.Active() {
		t.recordOut(nil, frame, o, now)
	}
	if ports.proxy && w.answered(frame, &h, now) {
		return
	}
	w.flood(ports, &h, lo, hi, o, now)
}

// flood sends the frame to all peers. Sealing takes a frame apart, so all but the last get a copy.
func (w *outbound) flood(ports *portTable, h *ethernet.Header, lo, hi int, o device.Offload, now time.Duration) {
	for i, p := range ports.all {
		if !p.current.Load().maySend(now) && p.timers.attempts.Load() > floodAttempts { // it would only push out what waits
			w.tunnel.drops.add(DropOutHandshake, 1)
			p.requestHandshake(now)
			continue
		}
		if i == len(ports.all)-1 {
			w.frameToPeer(p, h, lo, hi, o, now)
			return
		}
		copy(w.frames.spare[lo:hi], w.buf[lo:hi])
		w.buf, w.frames.spare = w.frames.spare, w.buf
		w.frameToPeer(p, h, lo, hi, o, now)
		w.buf, w.frames.spare = w.frames.spare, w.buf
	}
	if len(ports.all) == 0 {
		w.tunnel.drops.add(DropOutNoRoute, 1)
	}
}

// frameToPeer sends the frame w.buf[lo:hi], which comes from the device or, with its tag changed already, from another peer,
// to p.
func (w *outbound) frameToPeer(p *peer, h *ethernet.Header, lo, hi int, o device.Offload, now time.Duration) {
	t := w.tunnel
	if vlans := p.port.Load().vlans; vlans != switching.None {
		action, ok := vlans.Egress(h.VLAN, h.Tags)
		if !ok {
			t.drops.add(DropOutVLAN, 1)
			return
		}
		lo = retag(w.buf, lo, hi, action, h.VLAN, &o)
	}
	ep := p.endpoint.Load()
	if ep == nil {
		t.drops.add(DropOutNoEndpoint, 1)
		return
	}
	if ip := ipOfFrame(w.buf[lo:hi]); ip != nil {
		if _, _, _, ok := ippacket.Parse(ip); ok && t.ownDatagram(ip) {
			t.drops.add(DropOutRoutingLoop, 1)
			return
		}
	}
	w.toPeer(p, ep, lo, hi, o, now)
}

// retag does to the tag of the frame buf[lo:hi] what action says and returns where the frame starts then. The offload's
// places follow.
func retag(buf []byte, lo, hi int, action switching.Action, vlan uint16, o *device.Offload) int {
	from := lo
	switch action {
	case switching.Push:
		lo = ethernet.PushTag(buf, lo, vlan, 0)
	case switching.Set:
		ethernet.SetVID(buf[lo:hi], vlan)
	case switching.Pop:
		lo = hi - len(ethernet.PopTag(buf[lo:hi]))
	}
	if moved := uint16(from - lo); moved != 0 && o.NeedsChecksum { // modulo 2^16, so either way
		o.ChecksumStart += moved
		if o.HeaderLen != 0 {
			o.HeaderLen += moved
		}
	}
	return lo
}

// ipOfFrame returns the IP packet in a frame, which need not be a valid one, or nil.
func ipOfFrame(frame []byte) []byte {
	h, ok := ethernet.Parse(frame)
	if !ok || h.Type != ethernet.TypeIPv4 && h.Type != ethernet.TypeIPv6 {
		return nil
	}
	return frame[h.Payload:]
}

// deliverFrame takes a frame, in the slot, to where it belongs: the device, other peers, or both.
func (w *inbound) deliverFrame(p *peer, content []byte, elided bool, tos uint8, now time.Duration) {
	t := w.tunnel
	b := t.bridge
	h, ok := ethernet.Parse(content)
	switch {
	case !ok:
		w.refuse(DropInMalformed)
		return
	case len(content)-h.Payload > int(t.mtu.Load()):
		w.refuse(DropInOversize)
		return
	}
	if elided {
		if _, _, ok := device.ElidedFrame(content); !ok {
			w.refuse(DropInMalformed)
			return
		}
	}
	if loopguard.IsProbe(content) {
		t.queueProbe(p, content, now)
		w.coalescer.Discard() // after it was copied: what the slot covers comes back to its place
		return
	}
	if tos&transport.ECNMask == transport.ECNCE && !congested(content[h.Payload:], &h, tos) {
		w.refuse(DropInCongestion)
		return
	}
	ports, port := b.ports.Load(), p.port.Load()
	if port.own != nil && !port.own.Allows(content, &h) {
		w.refuse(DropInOtherAddress)
		return
	}
	if a := p.access.Load(); a != nil && !w.mayPass(p, a, content, now) {
		return
	}
	if ports.wire == p {
		if b.blocked.Load() {
			w.refuse(DropInLoop)
			return
		}
		w.frames.learn(b, switching.KeyOf(h.Src, h.VLAN), port.number, now)
		if h.Dst.Group() && int64(now) < b.waryUntil.Load() {
			if limiter, limited := port.limitGroup(h.Dst); !limiter.Allow(now) {
				w.refuse(limited)
				return
			}
		}
		if t.captures.Active() {
			t.recordIn(p, content, elided, now)
		}
		w.commitFrame(len(content), elided)
		return
	}
	action := switching.Keep
	if port.vlans != switching.None {
		if h.VLAN, action, ok = port.vlans.Ingress(h); !ok {
			w.refuse(DropInVLAN)
			return
		}
		if action == switching.Push && len(content)+ethernet.TagSize > device.MaxPacket { // of the largest MTU there is
			w.refuse(DropInOversize)
			return
		}
	}
	if h.Dst.LinkLocal() {
		if !ports.linkLocal {
			w.refuse(DropInLinkLocal)
			return
		}
		if topologyChange(content, &h) {
			b.topologyChanged()
		}
	}
	own := b.own.Load()
	if uint64(h.Src) == own {
		w.refuse(DropInPinned)
		return
	}
	switch w.frames.learn(b, switching.KeyOf(h.Src, h.VLAN), port.number, now) {
	case switching.Refused:
		w.refuse(DropInPinned)
		return
	case switching.Full:
		w.refuse(DropInAddresses)
		return
	}
	if ports.proxy {
		b.note(content, &h, port.number, now)
	}
	to, known := switching.Device, false
	limiter, limited := &port.unknown, DropInUnknown
	switch {
	case h.Dst.Group():
		limiter, limited = port.limitGroup(h.Dst)
	case uint64(h.Dst) == own && own != 0:
		known = true // here, also where the interface only listens and so is not learned, or no more
	default:
		to, known = w.frames.lookup(b, &h, now)
	}
	if !known && !limiter.Allow(now) {
		w.refuse(limited)
		return
	}
	if t.captures.Active() {
		t.recordIn(p, content, elided, now)
	}
	if known && to != switching.Device {
		q := ports.peer(to)
		switch {
		case q == p:
			w.refuse(DropInSameSide)
		case q == nil || !p.reaches(q):
			w.refuse(DropInHorizon)
		default:
			w.relay(q, content, &h, action, elided, now)
			w.coalescer.Discard()
		}
		return
	}
	if !known {
		for _, q := range ports.all {
			if q != p && p.reaches(q) {
				w.relay(q, content, &h, action, elided, now)
			}
		}
	}
	if b.blocked.Load() {
		w.refuse(DropInLoop)
		return
	}
	if action != switching.Keep {
		content = w.retagged(content, action, h.VLAN)
		if elided {
			if _, _, ok := device.ElidedFrame(content); !ok { // three tags
				w.refuse(DropInVLAN)
				return
			}
		}
	}
	w.commitFrame(len(content), elided)
}

// commitFrame merges or writes the frame that the slot's first n bytes are.
func (w *inbound) commitFrame(n int, elided bool) {
	if elided {
		w.delivered(w.coalescer.CommitFrameElided(n))
		return
	}
	w.delivered(w.coalescer.CommitFrame(n))
}

// retagged puts the frame that is in the slot into another slot, with its tag changed.
func (w *inbound) retagged(content []byte, action switching.Action, vlan uint16) []byte {
	buf := w.frames.frame
	hi := room + copy(buf[room:], content)
	var none device.Offload
	lo := retag(buf, room, hi, action, vlan, &none)
	slot := w.coalescer.Slot(hi - lo)
	copy(slot, buf[lo:hi])
	return slot
}

// relay seals a frame that came from one peer for another.
func (w *inbound) relay(q *peer, content []byte, h *ethernet.Header, action switching.Action, elided bool, now time.Duration) {
	r := w.frames.relay
	if r.batch.used > batchBytes-transport.MaxTrainBytes {
		r.batch.flush()
	}
	hi := room + copy(r.buf[room:], content)
	var o device.Offload
	if elided {
		o, _ = device.FinishElidedFrame(r.buf[room:hi])
	}
	lo := retag(r.buf, room, hi, action, h.VLAN, &o)
	tagged := *h
	if action != switching.Keep {
		tagged, _ = ethernet.Parse(r.buf[lo:hi])
	}
	r.frameToPeer(q, &tagged, lo, hi, o, now)
}

// congested merges the outer header's congestion mark into the IP packet of a frame (RFC 6040); false where the frame must be
// dropped. Frames of other protocols cannot be marked, and go on.
func congested(packet []byte, h *ethernet.Header, outer uint8) bool {
	if h.Type != ethernet.TypeIPv4 && h.Type != ethernet.TypeIPv6 {
		return true
	}
	if _, _, _, ok := ippacket.Parse(packet); !ok {
		return true
	}
	return ecn.Decapsulate(packet, outer)
}

// largestFrame is the longest frame that an interface of the given MTU takes, with two VLAN tags, in bytes.
func largestFrame(mtu int) int {
	return min(mtu+device.EthernetHeader+2*ethernet.TagSize, device.MaxPacket)
}

// largestContent is the longest packet or frame from the device that is not a super-packet, in bytes.
func (t *Tunnel) largestContent() int {
	if t.bridge != nil {
		return largestFrame(int(t.mtu.Load()))
	}
	return int(t.mtu.Load())
}

// innerMTU is the largest packet that fits into a content of the given size, in bytes.
func (t *Tunnel) innerMTU(content int) int {
	if t.bridge != nil {
		content -= device.EthernetHeader
	}
	return min(content, int(t.mtu.Load()))
}
