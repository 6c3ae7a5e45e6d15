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
	"culvert/tunnel/icmp"
	"culvert/tunnel/ippacket"
)

// This file is the packet's whole way, both directions. Outbound is one goroutine per device queue, inbound one per
// receiver; each runs its packets to completion and owns all it writes to, but for counters and timers, which are atomics.

// paddingMultiple is what a plaintext's length is padded to (WireGuard paper §5.4.6).
const paddingMultiple = 16

// receiveTrains is how many trains are received at once: enough to fill a super-packet from single datagrams, while
// what is received still fits the second-level cache when it is opened.
const receiveTrains = 8

// maxReads bounds the packets taken from a queue for one reading of the clock and one send, also where they are dropped.
const maxReads = 256

// outbound takes packets from one device queue to the underlay.
type outbound struct {
	tunnel   *Tunnel
	queue    device.Queue
	segments device.Segments
	batch    *sendBatch
	nonce    session.Nonce
	buf      []byte                // the packet being sent, device.BufferSize
	kept     [paddingMultiple]byte // what padding overwrote
	answer   [device.Headroom + icmp.MaxSize6 + device.Tailroom]byte
}

func newOutbound(t *Tunnel, q device.Queue) *outbound {
	return &outbound{tunnel: t, queue: q, batch: newSendBatch(t, batchBytes), buf: make([]byte, device.BufferSize)}
}

// run reads until the device ends, and returns why.
func (w *outbound) run() error {
	for {
		lo, hi, o, err := w.queue.Read(w.buf, true)
		if err != nil {
			return err
		}
		now := w.tunnel.clock.now()
		for reads := 1; err == nil; reads++ {
			w.packet(lo, hi, o, now)
			if w.batch.used > batchBytes-transport.MaxTrainBytes || reads == maxReads {
				break // before the batch grows past the cache, and the packets past what the time was read for
			}
			lo, hi, o, err = w.queue.Read(w.buf, false)
		}
		w.batch.flush()
		if err != nil && err != device.ErrWouldBlock {
			return err
		}
	}
}

// packet routes and sends the packet or super-packet w.buf[lo:hi].
func (w *outbound) packet(lo, hi int, o device.Offload, now time.Duration) {
	t := w.tunnel
	packet := w.buf[lo:hi]
	_, dst, _, ok := ippacket.Parse(packet)
	if !ok {
		t.drops.add(DropOutMalformed, 1)
		return
	}
	p, ok := t.routes.snapshot().Lookup(dst)
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
	kp := p.current.Load()
	if !kp.maySend(now) || p.waiting.Load() {
		if kp = p.stage(packet, o, now); kp == nil {
			return
		}
	}
	if !w.sealPacket(p, kp, ep, lo, hi, o, now) {
		kp.retired.Store(true) // all counters used up, or erased this moment
		if o.GSO == device.GSONone {
			o = device.Offload{} // the checksum is finished by now
		}
		if kp = p.stage(packet, o, now); kp != nil && !w.sealPacket(p, kp, ep, lo, hi, o, now) {
			t.drops.add(DropOutSessionEnded, 1)
		}
	}
}

// sealPacket seals the packet or super-packet w.buf[lo:hi] under kp, segment by segment, into the batch. It reports false
// where kp has no counters left, with nothing sent.
func (w *outbound) sealPacket(p *peer, kp *keypair, ep *transport.Endpoint, lo, hi int, o device.Offload, now time.Duration) bool {
	t := w.tunnel
	mtu, tos := int(t.mtu.Load()), ecn.Outer(ippacket.TrafficClass(w.buf[lo:hi]))
	if err := w.segments.Reset(w.buf, lo, hi, o); err != nil {
		t.drops.add(DropOutMalformed, 1)
		return true
	}
	count, sent := w.segments.Count(), 0
	const headers = 512 // at most, which each segment but the first repeats
	counter, ok := kp.Reserve(count, hi-lo+(count-1)*headers+count*(paddingMultiple+noise.TagSize))
	if !ok {
		return false
	}
	for lo, hi, ok := w.segments.Next(); ok; lo, hi, ok = w.segments.Next() {
		size := w.seal(kp, counter, lo, hi, mtu, ep, tos)
		if size == 0 { // erased this moment
			t.drops.add(DropOutSessionEnded, 1)
			count--
		}
		sent += size
		counter++
	}
	p.sentDatagrams(kp, count, sent, now)
	p.schedule(p.timers.dataSent(now))
	return true
}

// seal adds the finished packet w.buf[lo:hi] to the batch, padded and sealed, and returns the message's length.
func (w *outbound) seal(kp *keypair, counter uint64, lo, hi, mtu int, ep *transport.Endpoint, tos uint8) int {
	pad := padding(hi-lo, mtu)
	tail := w.buf[hi : hi+pad] // the next segment's first bytes
	copy(w.kept[:], tail)
	clear(tail)
	size := kp.Seal(w.batch.room(hi-lo+pad+session.Overhead), counter, w.buf[lo:hi+pad], &w.nonce)
	copy(tail, w.kept[:])
	if size > 0 {
		w.batch.add(size, ep, tos)
	}
	return size
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

// sentDatagrams notes count data messages, keepalives included, of together size bytes sealed under kp.
func (p *peer) sentDatagrams(kp *keypair, count, size int, now time.Duration) {
	p.sentPackets.Add(uint64(count))
	p.sentBytes.Add(uint64(size))
	p.timers.authenticatedSent()
	p.schedule(p.timers.traversed(now))
	if kp.staleToSend(now) {
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
	tunnel    *Tunnel
	receiver  transport.Receiver
	coalescer *device.Coalescer
	trains    [receiveTrains]transport.Train
	nonce     session.Nonce
	streak    streak

	// The last source that was looked up, and in which table.
	table  *bart.Table[*peer]
	source netip.Addr
	origin *peer
}

// streak is authenticated messages that came under one keypair from one endpoint in a row; what they change of the
// peer is written once for all.
type streak struct {
	keypair  *keypair
	endpoint *transport.Endpoint
	messages int
	bytes    int
	data     bool // not only keepalives
}

// run receives until the socket is closed, and returns why.
func (w *inbound) run() error {
	for {
		n, err := w.receiver.Receive(w.trains[:])
		if err != nil {
			return err
		}
		now := w.tunnel.clock.now()
		for i := range w.trains[:n] {
			train := &w.trains[i]
			for datagram, next := train.Next(0); datagram != nil; datagram, next = train.Next(next) {
				w.datagram(datagram, train, now)
			}
			w.noteArrivals(now)
		}
		w.delivered(w.coalescer.Flush())
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
	default:
		w.tunnel.queueHandshake(msg, kind, &train.Endpoint)
	}
}

// data opens a data message and delivers the packet in it.
func (w *inbound) data(msg []byte, train *transport.Train, now time.Duration) {
	t := w.tunnel
	entry := t.indices.lookup(noise.ReceiverIndex(msg))
	if entry == nil || entry.keypair == nil {
		t.drops.add(DropInIndex, 1)
		return
	}
	kp := entry.keypair
	if !kp.mayReceive(now) {
		t.drops.add(DropInExpired, 1)
		return
	}
	size := len(msg) - session.Overhead
	slot := w.coalescer.Slot(size)
	packet, err := kp.Open(slot[:0], msg, &w.nonce)
	if err != nil {
		w.coalescer.Discard()
		t.drops.add(openFailure(err), 1)
		return
	}
	w.arrived(kp, &train.Endpoint, len(msg), size > 0, now)
	if size == 0 { // keepalive
		w.coalescer.Discard()
		return
	}
	size, why := w.admit(packet, kp.peer, train.TOS)
	if size == 0 {
		w.coalescer.Discard()
		t.drops.add(why, 1)
		return
	}
	w.delivered(w.coalescer.Commit(size))
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
func (w *inbound) arrived(kp *keypair, ep *transport.Endpoint, size int, data bool, now time.Duration) {
	if a := &w.streak; a.keypair != kp || a.endpoint != ep {
		w.noteArrivals(now)
		a.keypair, a.endpoint = kp, ep
		kp.peer.heard(ep) // before the packet is delivered, so that the answer to it goes the right way
		if kp.unconfirmed.Load() {
			kp.peer.confirm(kp, now)
		}
	}
	w.streak.messages++
	w.streak.bytes += size
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
	p.receivedPackets.Add(uint64(a.messages))
	p.receivedBytes.Add(uint64(a.bytes))
	p.timers.authenticatedReceived()
	p.schedule(p.timers.traversed(now))
	if a.data {
		p.schedule(p.timers.dataReceived(now))
	}
	if a.keypair.staleToReceive(now) && p.askedLastMinute.CompareAndSwap(false, true) {
		p.requestHandshake(now)
	}
}
