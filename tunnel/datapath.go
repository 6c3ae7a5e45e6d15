package tunnel

import (
	"net/netip"
	"time"

	"github.com/gaissmai/bart"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/device"
	"culvert/tunnel/ecn"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/fragment"
	"culvert/tunnel/icmp"
	"culvert/tunnel/ippacket"
	"culvert/tunnel/pathmtu"
	"culvert/tunnel/payload"
)

// This file is the packet's whole way, both directions. Outbound is one goroutine per device queue, inbound one per
// receiver; each runs its packets to completion and owns all it writes to, but for counters and timers, which are atomics.
// Where the device carries Ethernet frames, frames.go says which peers a frame goes to, instead of packet and admit.

const (
	// paddingMultiple is what a plaintext's length is padded to (WireGuard paper §5.4.6).
	paddingMultiple = 16
	// maxTail bounds what sealing writes behind a packet: a fragment's tail, padding, the trailer.
	maxTail = fragment.MaxTail
	// minMTU6 is the least MTU of IPv6 (RFC 8200 §5).
	minMTU6 = 1280
	// bare is the content of WireGuard's wire, which needs no trailer: an IP packet tells its own length.
	bare payload.Kind = 0
)

// receiveTrains is how many trains are received at once: enough to fill a super-packet from single datagrams, while
// what is received still fits the second-level cache when it is opened.
const receiveTrains = 8

// maxReads bounds the packets taken from a queue for one reading of the clock and one send, also where they are dropped.
const maxReads = 256

// outbound takes packets from one device queue to the underlay.
type outbound struct {
	tunnel   *Tunnel
	number   int // of the worker
	queue    device.Queue
	pulse    *pulse // of one that reads the queue
	segments device.Segments
	batch    *sendBatch
	nonce    session.Nonce
	buf      []byte        // the packet being sent, device.BufferSize
	kept     [maxTail]byte // what padding and the trailer overwrote
	answer   [device.Headroom + icmp.MaxSize6 + device.Tailroom]byte
	frames   framesOut // where the device carries Ethernet frames
}

// newOutbound makes the worker of a queue, or one that writes to it what comes from peers for peers.
func newOutbound(t *Tunnel, number int) *outbound {
	w := &outbound{
		tunnel: t, number: number, queue: t.queues[number],
		batch: newSendBatch(t, batchBytes), buf: make([]byte, device.BufferSize+ethernet.TagSize),
	}
	w.batch.worker = number
	if t.bridge != nil {
		w.frames.spare = make([]byte, len(w.buf))
	}
	return w
}

// run reads until the device ends, and returns why.
func (w *outbound) run() error {
	for {
		lo, hi, o, err := w.queue.Read(w.buf, true)
		if err != nil {
			return err
		}
		w.pulse.begin()
		now := w.tunnel.clock.now()
		for reads := 1; err == nil; reads++ {
			w.packet(lo, hi, o, now)
			if w.batch.used > batchBytes-transport.MaxTrainBytes || reads == maxReads {
				break // before the batch grows past the cache, and the packets past what the time was read for
			}
			lo, hi, o, err = w.queue.Read(w.buf, false)
		}
		w.batch.flush()
		w.pulse.end()
		if err != nil && err != device.ErrWouldBlock {
			return err
		}
	}
}

// packet routes and sends the packet or super-packet w.buf[lo:hi].
func (w *outbound) packet(lo, hi int, o device.Offload, now time.Duration) {
	t := w.tunnel
	if t.bridge != nil {
		w.frame(lo, hi, o, now)
		return
	}
	packet := w.buf[lo:hi]
	_, dst, _, ok := ippacket.Parse(packet)
	if !ok {
		t.drops.add(DropOutMalformed, 1)
		return
	}
	p, ok := t.routes.snapshot().Lookup(dst)
	if t.captures.Active() {
		t.recordOut(p, packet, o, now)
	}
	if !ok {
		t.drops.add(DropOutNoRoute, 1)
		w.unreachable(packet, icmp.NoRoute, dst, now)
		return
	}
	ep := p.endpoint.Load()
	if ep == nil {
		t.drops.add(DropOutNoEndpoint, 1)
		w.unreachable(packet, icmp.AddressUnreachable, dst, now)
		return
	}
	if t.ownDatagram(packet) {
		t.drops.add(DropOutRoutingLoop, 1)
		return
	}
	w.toPeer(p, ep, lo, hi, o, now)
}

// toPeer sends the packet or super-packet w.buf[lo:hi] to p under its session, or keeps it until there is one.
func (w *outbound) toPeer(p *peer, ep *transport.Endpoint, lo, hi int, o device.Offload, now time.Duration) {
	packet := w.buf[lo:hi]
	if a := p.access.Load(); a != nil && !w.mayPass(p, a, packet, now) {
		return
	}
	kp := p.current.Load()
	if !kp.maySend(now) || p.waiting.Load() {
		if kp = p.stage(packet, o, now); kp == nil {
			return
		}
	}
	if !w.sealPacket(p, kp, ep, lo, hi, o, now) {
		kp.retired.Store(true) // all counters used up, or erased this moment
		if o.GSO == device.GSONone && !w.segments.Elided() && w.segments.Count() == 1 {
			o = device.Offload{} // the checksum is finished by now
		}
		if kp = p.stage(packet, o, now); kp != nil && !w.sealPacket(p, kp, ep, lo, hi, o, now) {
			w.tunnel.drops.add(DropOutSessionEnded, 1)
		}
	}
}

// sealPacket seals the packet or super-packet w.buf[lo:hi] under kp, segment by segment, into the batch. It reports false
// where kp has no counters left, with nothing sent.
func (w *outbound) sealPacket(p *peer, kp *keypair, ep *transport.Endpoint, lo, hi int, o device.Offload, now time.Duration) bool {
	t := w.tunnel
	inner := w.buf[lo:hi]
	if t.bridge != nil {
		inner = ipOfFrame(inner)
	}
	tos := ecn.Outer(ippacket.TrafficClass(inner))
	to := kp.wayOf(w.number, ep, now)
	kind, limit, limits := bare, int(t.mtu.Load()), device.Limits{}
	if kp.native != nil {
		path := kp.native.limits()
		limit, limits = path.plaintext(), device.Limits{Elide: true, MaxPacket: path.packet(), Frame: t.bridge != nil}
		if t.bridge == nil && path.settled() && limits.MaxPacket < int(t.mtu.Load()) && o.GSO == device.GSONone {
			w.adapt(w.buf[lo:hi], o, limits.MaxPacket, now)
		}
	}
	if err := w.segments.ResetFor(w.buf, lo, hi, o, limits); err != nil {
		t.drops.add(DropOutMalformed, 1)
		return true
	}
	if kp.native != nil {
		kind = contentKind(t.bridge != nil, w.segments.Elided())
		kp.native.noteSize(w.segments.Largest())
		if w.segments.Largest() > limits.MaxPacket {
			w.sealLarge(p, kp, to, kind, tos, limit, now)
			return true
		}
	}
	count, sent := w.segments.Count(), 0
	counter, ok := to.Reserve(count, count*(w.segments.Largest()+maxTail+noise.TagSize))
	if !ok {
		return false
	}
	for lo, hi, ok := w.segments.Next(); ok; lo, hi, ok = w.segments.Next() {
		size := w.seal(to, counter, lo, hi, kind, limit, tos)
		if size == 0 { // erased this moment
			t.drops.add(DropOutSessionEnded, 1)
			count--
		}
		sent += size
		counter++
	}
	p.sentDatagrams(kp, to, count, sent, now)
	p.sentData(now)
	return true
}

// contentKind is what a packet or frame is called on the native wire.
func contentKind(frame, elided bool) payload.Kind {
	switch {
	case frame && elided:
		return payload.EthernetElided
	case frame:
		return payload.Ethernet
	case elided:
		return payload.IPElided
	}
	return payload.IP
}

// sealLarge is the rest of sealPacket where segments are larger than the path takes: those go as fragments. Where kp's
// counters run out the rest is lost, as the packet has been taken apart by then.
func (w *outbound) sealLarge(p *peer, kp *keypair, to way, kind payload.Kind, tos uint8, limit int, now time.Duration) {
	messages, sent := 0, 0
	for lo, hi, ok := w.segments.Next(); ok; lo, hi, ok = w.segments.Next() {
		n, size, ok := w.sealContent(kp, to, kind, lo, hi, limit, tos)
		if !ok {
			w.tunnel.drops.add(DropOutSessionEnded, 1)
			kp.retired.Store(true)
		}
		messages, sent = messages+n, sent+size
	}
	p.sentDatagrams(kp, to, messages, sent, now)
	p.sentData(now)
}

// sealContent seals one content of the native wire, w.buf[lo:hi], into the batch, in fragments where its plaintext would be
// longer than limit. It returns how many messages that made and their bytes; ok is false where kp has no counters left.
func (w *outbound) sealContent(kp *keypair, to way, kind payload.Kind, lo, hi, limit int, tos uint8) (messages, size int, ok bool) {
	if hi-lo+payload.TrailerSize > limit {
		return w.sealFragments(kp, to, kind, lo, hi, limit, tos)
	}
	counter, ok := to.Reserve(1, hi-lo+maxTail+noise.TagSize)
	if !ok {
		return 0, 0, false
	}
	if size = w.seal(to, counter, lo, hi, kind, limit, tos); size == 0 {
		w.tunnel.drops.add(DropOutSessionEnded, 1)
		return 0, 0, true
	}
	return 1, size, true
}

// sealFragments cuts the plaintext that w.buf[lo:hi] would be into messages of its own.
func (w *outbound) sealFragments(kp *keypair, to way, kind payload.Kind, lo, hi, limit int, tos uint8) (messages, size int, ok bool) {
	count, piece, ok := fragment.Count(hi-lo+payload.TrailerSize, limit)
	if !ok {
		w.tunnel.drops.add(DropOutTooLarge, 1)
		return 0, 0, true
	}
	counter, ok := to.Reserve(count, hi-lo+payload.TrailerSize+count*(maxTail+noise.TagSize))
	if !ok {
		return 0, 0, false
	}
	id := kp.native.fragments.Add(1)
	behind := w.buf[hi]
	w.buf[hi] = payload.Trailer(kind, 0)
	end := hi + payload.TrailerSize
	for i := range count {
		from := lo + i*piece
		until := min(from+piece, end)
		pad := payload.Padding(until-from+fragment.Overhead-payload.TrailerSize, limit)
		tail := w.buf[until : until+fragment.Overhead+pad] // the next fragment's first bytes
		copy(w.kept[:], tail)
		fragment.PutTail(tail, id, uint8(i), i == count-1, pad)
		n := to.Seal(w.batch.room(until-from+len(tail)+session.Overhead), counter+uint64(i), w.buf[from:until+len(tail)], &w.nonce)
		copy(tail, w.kept[:])
		if n == 0 {
			w.tunnel.drops.add(DropOutSessionEnded, 1)
			break
		}
		w.batch.addVia(n, to.endpoint, tos, to.via)
		messages++
		size += n
	}
	w.buf[hi] = behind
	return messages, size, true
}

// seal adds the finished packet w.buf[lo:hi] to the batch, padded and sealed, and returns the message's length.
func (w *outbound) seal(to way, counter uint64, lo, hi int, kind payload.Kind, limit int, tos uint8) int {
	pad, trailer := 0, 0
	if kind == bare {
		pad = padding(hi-lo, limit)
	} else {
		pad, trailer = payload.Padding(hi-lo, limit), payload.TrailerSize
	}
	end := hi + pad + trailer
	tail := w.buf[hi:end] // the next segment's first bytes
	copy(w.kept[:], tail)
	clear(tail)
	if kind != bare {
		tail[pad] = payload.Trailer(kind, pad)
	}
	size := to.Seal(w.batch.room(end-lo+session.Overhead), counter, w.buf[lo:end], &w.nonce)
	copy(tail, w.kept[:])
	if size > 0 {
		w.batch.addVia(size, to.endpoint, tos, to.via)
	}
	return size
}

// adapt makes the sender of a packet for a path that takes packets of at most largest bytes, less than the interface's MTU,
// send smaller ones: by the MSS of a TCP connection that begins, or by telling it. The packet itself arrives in any case.
// It is not to be called before the search is over, since hosts remember what they were told for minutes.
func (w *outbound) adapt(packet []byte, o device.Offload, largest int, now time.Duration) {
	if len(packet) <= largest {
		pathmtu.ClampMSS(packet, largest, o.NeedsChecksum)
		return
	}
	if ippacket.Version(packet) == 6 {
		largest = max(largest, minMTU6) // nobody can be told less; what is in between goes as fragments
	}
	_, dst, _, _ := ippacket.Parse(packet)
	answer, ok := icmp.TooBig(w.answer[:device.Headroom], packet, largest, dst)
	if ok && len(packet) > largest && w.tunnel.icmp.Allow(now) {
		w.queue.Write(answer, device.Headroom, len(answer), device.Offload{}) // lost like any ICMP error may be
	}
}

// padding returns how many zero bytes follow a packet of n bytes: up to the next multiple of 16, but not past the MTU, lest
// padding alone makes a datagram too large for the path.
func padding(n, mtu int) int {
	pad := -n & (paddingMultiple - 1)
	if n+pad > mtu {
		pad = max(mtu-n, 0) & (paddingMultiple - 1)
	}
	return pad
}

// sentData notes that data (not only keepalives or control messages) was sent.
func (p *peer) sentData(now time.Duration) {
	p.schedule(p.timers.dataSent(now))
	if n := p.native.Load(); n != nil {
		p.schedule(n.dataTraversed(now))
	}
}

// sentDatagrams notes count data messages, keepalives included, of together size bytes sealed under kp.
func (p *peer) sentDatagrams(kp *keypair, to way, count, size int, now time.Duration) {
	if l := to.lane; l != nil {
		l.traffic.sentPackets.Add(uint64(count))
		l.traffic.sentBytes.Add(uint64(size))
	}
	p.sentPackets.Add(uint64(count))
	p.sentBytes.Add(uint64(size))
	p.timers.authenticatedSent()
	p.schedule(p.timers.traversed(now))
	if kp.staleToSend(to.Session, now) {
		p.requestHandshake(now)
	}
}

// unreachable tells the sender of a packet from the device that it goes nowhere. The message comes from the packet's own
// destination, the one address that the sender's kernel is sure to expect on this interface.
func (w *outbound) unreachable(packet []byte, reason icmp.Reason, dst netip.Addr, now time.Duration) {
	if !icmp.Answerable(packet) || !w.tunnel.icmp.Allow(now) {
		return
	}
	if answer, ok := icmp.Unreachable(w.answer[:device.Headroom], packet, reason, dst); ok {
		w.queue.Write(answer, device.Headroom, len(answer), device.Offload{}) // lost like any ICMP error may be
	}
}

// inbound takes datagrams of one receiver to the device.
type inbound struct {
	tunnel      *Tunnel
	lanes       bool // only lanes come to the receiver
	receiver    transport.Receiver
	pulse       *pulse
	coalescer   *device.Coalescer
	reassembler *fragment.Reassembler[*keypair]
	swept       time.Duration // when fragments were last looked through for old ones
	trains      [receiveTrains]transport.Train
	nonce       session.Nonce
	streak      streak

	// The last source that was looked up, and in which table.
	table  *bart.Table[*peer]
	source netip.Addr
	origin *peer

	frames framesIn // where the device carries Ethernet frames
}

// streak is authenticated messages that came under one keypair from one endpoint in a row; what they change of the
// peer is written once for all.
type streak struct {
	keypair  *keypair
	lane     *lane
	endpoint *transport.Endpoint
	messages int
	bytes    int
	data     bool // not only keepalives
}

// newInbound makes the worker of a receiver, which writes to the worker's queue.
func newInbound(t *Tunnel, r transport.Receiver, worker int) *inbound {
	worker %= len(t.queues)
	w := &inbound{tunnel: t, receiver: r, coalescer: device.NewCoalescer(t.queues[worker]), reassembler: newReassembler()}
	if t.bridge != nil {
		w.frames.relay = newOutbound(t, worker)
		w.frames.frame = make([]byte, room+device.MaxPacket)
	}
	for i := range w.trains {
		w.trains[i].Buf = make([]byte, transport.ReceiveBufferSize)
	}
	return w
}

// run receives until the socket is closed, and returns why.
func (w *inbound) run() error {
	for {
		n, err := w.receiver.Receive(w.trains[:])
		if err != nil {
			return err
		}
		w.pulse.begin()
		now := w.tunnel.clock.now()
		for i := range w.trains[:n] {
			train := &w.trains[i]
			for datagram, next := train.Next(0); datagram != nil; datagram, next = train.Next(next) {
				w.datagram(datagram, train, now)
			}
			w.noteArrivals(now)
		}
		w.delivered(w.coalescer.Flush())
		if w.frames.relay != nil {
			w.frames.relay.batch.flush()
		}
		if now-w.swept >= reassemblyTimeout {
			w.swept = now
			w.tunnel.countLost(w.reassembler.Expire(now))
		}
		w.pulse.end()
	}
}

// datagram tells the types of messages apart.
func (w *inbound) datagram(msg []byte, train *transport.Train, now time.Duration) {
	kind, ok := noise.MessageType(msg)
	switch {
	case !ok:
		w.tunnel.drops.add(DropInMessage, 1)
	case kind == noise.TypeData:
		w.data(msg, train, now)
	case w.lanes: // nobody has a reason to begin a handshake here
		w.tunnel.drops.add(DropInMessage, 1)
	default:
		w.tunnel.queueHandshake(msg, kind, &train.Endpoint, now)
	}
}

// data opens a data message and delivers the packet in it.
func (w *inbound) data(msg []byte, train *transport.Train, now time.Duration) {
	t := w.tunnel
	entry, number := t.indices.lookupLane(noise.ReceiverIndex(msg))
	if entry == nil || entry.keypair == nil {
		t.drops.add(DropInIndex, 1)
		return
	}
	kp := entry.keypair
	from, on := kp.Session, (*lane)(nil)
	if number > 0 {
		if train.Endpoint.Stream != 0 {
			t.drops.add(DropInIndex, 1)
			return
		}
		on = kp.lanes[number-1]
		from = on.Session
	}
	if !kp.mayReceive(now) {
		t.drops.add(DropInExpired, 1)
		return
	}
	size := len(msg) - session.Overhead
	slot := w.coalescer.Slot(size)
	plaintext, err := from.Open(slot[:0], msg, &w.nonce)
	if err != nil {
		w.coalescer.Discard()
		t.drops.add(openFailure(err), 1)
		return
	}
	kind, content, ok, tos := bare, plaintext, true, train.TOS
	if kp.native != nil && size > 0 {
		kind, content, ok = payload.Split(plaintext)
	}
	whole := !ok || kind != payload.Fragment
	if !whole {
		kind, content = w.assemble(kp, content, &tos, now)
	}
	if ok && kind == payload.Path {
		if on == nil {
			w.path(kp, content, msg, &train.Endpoint, now)
			return
		}
		ok = false // where the peer is, is a matter of lane 0
	}
	data := ok && size > 0 && kind != payload.Control && kind != payload.Fragment
	w.arrived(kp, on, &train.Endpoint, msg, data, now)
	switch {
	case !ok:
		w.refuse(DropInKind)
	case kind == payload.Control:
		w.noteArrivals(now) // so that an echo is counted when it is answered
		t.queueControl(kp, on, content, transport.Endpoint{}, now)
		w.coalescer.Discard()
	case !data: // a keepalive, or a fragment that others have to follow
		w.coalescer.Discard()
	case whole:
		w.deliver(kp, kind, content, tos, now)
	default:
		slot := w.coalescer.Slot(len(content))
		copy(slot, content)
		w.deliver(kp, kind, slot, tos, now)
	}
}

// refuse drops what the slot holds.
func (w *inbound) refuse(why DropReason) {
	w.coalescer.Discard()
	w.tunnel.drops.add(why, 1)
}

// deliver takes a packet, in the slot, to the device.
func (w *inbound) deliver(kp *keypair, kind payload.Kind, content []byte, tos uint8, now time.Duration) {
	frame := kind == payload.Ethernet || kind == payload.EthernetElided
	switch {
	case frame != (w.tunnel.bridge != nil):
		w.refuse(DropInLayer)
		return
	case frame:
		w.deliverFrame(kp.peer, content, kind == payload.EthernetElided, tos, now)
		return
	}
	size, why := w.admit(content, kp.peer, tos)
	if size == 0 {
		w.refuse(why)
		return
	}
	if n := kp.native; n != nil {
		if size != len(content) { // the trailer says how long it is; two opinions are one too many
			w.refuse(DropInMalformed)
			return
		}
		if path := n.limits(); path.settled() && path.packet() < int(w.tunnel.mtu.Load()) {
			pathmtu.ClampMSS(content, path.packet(), kind == payload.IPElided)
		}
	}
	if a := kp.peer.access.Load(); a != nil && !w.mayPass(kp.peer, a, content[:size], now) {
		return
	}
	if kind == payload.IPElided {
		if _, _, ok := device.Elided(content); !ok {
			w.refuse(DropInMalformed)
			return
		}
	}
	if w.tunnel.captures.Active() {
		w.tunnel.recordIn(kp.peer, content[:size], kind == payload.IPElided, now)
	}
	if kind == payload.IPElided {
		w.delivered(w.coalescer.CommitElided(size))
		return
	}
	w.delivered(w.coalescer.Commit(size))
}

// assemble adds a fragment to its packet and returns what that holds, or the kind Fragment as long as there is no whole
// one. Congestion that any of the fragments met is noted in tos. What is returned is not in the slot.
func (w *inbound) assemble(kp *keypair, content []byte, tos *uint8, now time.Duration) (payload.Kind, []byte) {
	piece, id, index, last, ok := fragment.ParseTail(content)
	if !ok {
		w.tunnel.drops.add(DropInFragment, 1)
		return payload.Fragment, nil
	}
	whole, lost := w.reassembler.Add(kp, id, index, last, piece, *tos&transport.ECNMask == transport.ECNCE, now)
	w.tunnel.countLost(lost)
	if whole == nil {
		return payload.Fragment, nil
	}
	if w.reassembler.Marked() {
		*tos |= transport.ECNCE
	}
	kind, content, ok := payload.Split(whole)
	if !ok || kind == payload.Fragment || kind == payload.Path {
		w.tunnel.drops.add(DropInKind, 1)
		return payload.Fragment, nil
	}
	return kind, content
}

// openFailure is the reason for which Open refused.
func openFailure(err error) DropReason {
	switch err {
	case session.ErrReplay:
		return DropInReplay
	case session.ErrExhausted, session.ErrErased:
		return DropInExpired
	}
	return DropInDecrypt
}

// admit validates the inner packet: its form, that its source is one of the peer's allowed IPs, and the congestion mark
// of its outer header. It returns the packet's length without padding, or 0 and why not.
func (w *inbound) admit(packet []byte, from *peer, outerTOS uint8) (int, DropReason) {
	src, _, size, ok := ippacket.Parse(packet)
	if !ok {
		return 0, DropInMalformed
	}
	if table := w.tunnel.routes.snapshot(); src != w.source || table != w.table {
		w.origin, _ = table.Lookup(src)
		w.source, w.table = src, table
	}
	if w.origin != from {
		return 0, DropInSource
	}
	if !ecn.Decapsulate(packet[:size], outerTOS) {
		return 0, DropInCongestion
	}
	return size, 0
}

// delivered counts what the device did not take.
func (w *inbound) delivered(lost int, err error) {
	if err != nil {
		w.tunnel.drops.add(DropInDevice, lost)
	}
}

// arrived notes an authenticated message.
func (w *inbound) arrived(kp *keypair, on *lane, ep *transport.Endpoint, msg []byte, data bool, now time.Duration) {
	if a := &w.streak; a.keypair != kp || a.lane != on || a.endpoint != ep {
		w.noteArrivals(now)
		a.keypair, a.lane, a.endpoint = kp, on, ep
		switch { // before the packet is delivered, so that the answer to it goes the right way
		case on != nil:
			on.heard(ep, now)
		case !kp.late(ep, msg):
			kp.peer.heard(ep)
		}
		if kp.unconfirmed.Load() {
			kp.peer.confirm(kp, now)
		}
	}
	w.streak.messages++
	w.streak.bytes += len(msg)
	w.streak.data = w.streak.data || data
}

// noteArrivals tells the peer of the messages noted since last time.
func (w *inbound) noteArrivals(now time.Duration) {
	a := w.streak
	if a.keypair == nil {
		return
	}
	w.streak = streak{}
	p := a.keypair.peer
	p.heardAt.Store(int64(now))
	if l := a.lane; l == nil {
		a.keypair.received.Add(uint64(a.messages))
	} else {
		l.traffic.receivedPackets.Add(uint64(a.messages))
		l.traffic.receivedBytes.Add(uint64(a.bytes))
	}
	p.receivedPackets.Add(uint64(a.messages))
	p.receivedBytes.Add(uint64(a.bytes))
	p.timers.authenticatedReceived()
	p.schedule(p.timers.traversed(now))
	if a.data {
		p.schedule(p.timers.dataReceived(now))
		if n := a.keypair.native; n != nil {
			p.schedule(n.dataTraversed(now))
		}
	}
	if a.keypair.staleToReceive(now) && p.askedLastMinute.CompareAndSwap(false, true) {
		p.requestHandshake(now)
	}
}
