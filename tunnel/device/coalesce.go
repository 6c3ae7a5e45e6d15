package device

import "encoding/binary"

const (
	// maxUDPSegments is the most datagrams in one super-packet, as in the kernel's own receive path (UDP_GRO_CNT_MAX).
	maxUDPSegments = 64
	// maxMergeable is the longest header of a packet that can be merged: IPv6 and TCP with 40 bytes of options.
	maxMergeable = ipv6Header + 60
	// slack lets packets of up to this size be placed behind any open super-packet without moving it.
	slack = 16 << 10
	// writeBuffer has room for an open super-packet of MaxPacket bytes that starts up to MaxPacket into the buffer.
	writeBuffer = Headroom + 2*MaxPacket + slack + Tailroom
)

// Coalescer merges the packets of a flow, arriving one by one, into super-packets and writes those to a queue. Packets are
// placed where their payload has to be in the end, so nothing is copied but headers:
//
//	  open super-packet        slot for the next packet
//	[ header | payload ....... [ header | payload ]
//	                           ^ the header lies on the last payload bytes, which are kept aside
//
// One super-packet is open at a time, and packets are written in the order of their Commit. A packet is merged only if
// [Segments] would cut exactly the same packet out again; its checksums are verified first. All other packets are written
// as they came. A packet whose transport checksum is elided counts as one with the right checksum, which the receiving
// kernel is left to calculate; it merges with others of either sort. For each packet: Slot, then one of the Commits or
// Discard; Flush at the end of a batch. A Coalescer is for one goroutine; it does not allocate after NewCoalescer.
type Coalescer struct {
	queue    Queue
	tcp, udp bool
	buf      []byte

	slot, slotLen int // the slot handed out; slotLen < 0 when there is none
	kept, next    [maxLink + maxMergeable]byte

	// The open super-packet buf[lo:hi], with the headers of its first packet; count == 0 when there is none.
	lo, hi     int
	count      int
	verified   bool // the first packet's checksums
	flow       shape
	seq        uint32 // of the next TCP segment
	headers    [maxMergeable]byte
	frame      bool // an Ethernet frame, otherwise an IP packet
	link       int  // bytes of a frame's link header, in front of all others; otherwise 0
	linkHeader [maxLink]byte
}

// shape is what of a packet's form decides whether it can be merged.
type shape struct {
	gso     GSO  // GSONone: not mergeable with anything
	elided  bool // the transport checksum
	ipv4    bool // otherwise IPv6
	push    bool // TCP's PSH, which only the last packet may have
	header  int  // bytes of all headers, but for a frame's link header
	ip      int  // bytes of the IP header
	payload int  // bytes behind the headers; the segment size of an open super-packet
}

// NewCoalescer returns a Coalescer that writes to q. What it merges depends on q's [Offloads].
func NewCoalescer(q Queue) *Coalescer {
	c := &Coalescer{queue: q, buf: make([]byte, writeBuffer), slotLen: -1}
	if o, ok := q.(Offloader); ok {
		takes := o.Offloads()
		c.tcp, c.udp = takes.Checksum && takes.TCP, takes.Checksum && takes.UDP
	}
	return c
}

// Slot returns where the next packet is to be placed: n bytes, at most [MaxPacket]. It is valid until the next call of any
// method. A slot not committed is discarded.
func (c *Coalescer) Slot(n int) []byte {
	c.Discard()
	if n < 0 || n > MaxPacket {
		panic("device: slot beyond MaxPacket")
	}
	c.slot, c.slotLen = Headroom, n
	if c.count > 0 {
		headers := c.link + c.flow.header
		if c.hi-headers+n > len(c.buf)-Tailroom {
			c.moveToStart()
		}
		c.slot = c.hi - headers
		copy(c.kept[:], c.buf[c.slot:c.hi])
	}
	return c.buf[c.slot : c.slot+n : c.slot+n]
}

// moveToStart moves the open super-packet to the start of the buffer.
func (c *Coalescer) moveToStart() {
	copy(c.buf[Headroom:], c.buf[c.lo:c.hi])
	c.lo, c.hi = Headroom, Headroom+c.hi-c.lo
}

// Discard drops the slot's content.
func (c *Coalescer) Discard() {
	if c.slotLen >= 0 && c.count > 0 {
		c.restore()
	}
	c.slotLen = -1
}

// restore puts the open super-packet's bytes under the slot back.
func (c *Coalescer) restore() {
	copy(c.buf[c.slot:c.hi], c.kept[:])
}

// Commit takes the complete IP packet of n bytes that the slot's first n bytes now hold: it is merged with the open
// super-packet, or that is written and this one takes its place. lost is how many packets could not be written, err why
// (the first error, if several).
func (c *Coalescer) Commit(n int) (lost int, err error) {
	return c.commit(n, false, false)
}

// CommitElided is Commit for a packet whose transport checksum is elided, so that [Elided] holds for it; one for which it
// does not is written as it came.
func (c *Coalescer) CommitElided(n int) (lost int, err error) {
	return c.commit(n, true, false)
}

// CommitFrame is Commit for an Ethernet frame, from its destination address on and without the frame check sequence. Frames
// of TCP or UDP with at most two VLAN tags are merged where their link headers are the same as well, and [Segments] with
// Limits.Frame would cut the same frames out again. Offloads count from the frame's first byte. All other frames, and those
// with anything behind the IP packet, are written as they came.
func (c *Coalescer) CommitFrame(n int) (lost int, err error) {
	return c.commit(n, false, true)
}

// CommitFrameElided is CommitElided for an Ethernet frame, with [ElidedFrame].
func (c *Coalescer) CommitFrameElided(n int) (lost int, err error) {
	return c.commit(n, true, true)
}

// CommitWhole takes the slot's first n bytes, which may be anything, and writes them with the offload o behind all that was
// committed before. Results as of Commit.
func (c *Coalescer) CommitWhole(n int, o Offload) (lost int, err error) {
	if !c.take(n) {
		return 0, nil
	}
	if c.count > 0 {
		covered := copy(c.next[:], c.buf[c.slot:c.hi])
		c.restore()
		lost, err = c.Flush()
		copy(c.buf[c.slot:], c.next[:covered])
	}
	return c.write(c.slot, c.slot+n, o, lost, err)
}

// take ends the slot with its first n bytes taken; false where there is nothing to take.
func (c *Coalescer) take(n int) bool {
	if n > c.slotLen {
		panic("device: commit of more than the slot")
	}
	if n <= 0 {
		c.Discard()
		return false
	}
	c.slotLen = -1
	return true
}

func (c *Coalescer) commit(n int, elided, frame bool) (lost int, err error) {
	if !c.take(n) {
		return 0, nil
	}
	lo, hi := c.slot, c.slot+n
	packet := c.buf[lo:hi]
	link := 0
	if frame {
		link = linkLength(packet)
		packet = packet[link:]
	}
	s := c.shapeOf(packet, elided)
	verified := false
	if c.count > 0 {
		covered := copy(c.next[:], c.buf[lo:c.hi]) // the part of the packet that lies on the open one
		if s.gso != GSONone && c.sameLink(lo, link) && c.continues(packet, s) {
			if verified = s.verify(packet); !verified {
				s.gso = GSONone
			}
		}
		c.restore()
		if verified && !c.verified {
			first := c.buf[c.lo+link : c.hi]
			c.verified = c.flow.verify(first)
		}
		if verified && c.verified {
			return c.merge(hi, s)
		}
		lost, err = c.Flush()
		copy(c.buf[lo:], c.next[:covered])
	}
	if s.gso == GSONone || s.push { // nothing can follow
		return c.write(lo, hi, s.alone(c.buf[lo:hi], frame), lost, err)
	}
	c.lo, c.hi, c.count, c.flow, c.verified = lo, hi, 1, s, verified
	copy(c.headers[:s.header], packet)
	if c.frame, c.link = frame, link; frame {
		copy(c.linkHeader[:link], c.buf[lo:])
	}
	if s.gso != GSOUDP {
		c.seq = binary.BigEndian.Uint32(packet[s.ip+tcpSeq:]) + uint32(s.payload)
	}
	if c.lo > Headroom+MaxPacket {
		c.moveToStart() // else it could not grow to its full size
	}
	return lost, err
}

// sameLink reports whether the link bytes at buf[lo:] are the link header of the open super-packet.
func (c *Coalescer) sameLink(lo, link int) bool {
	return link == c.link && (link == 0 || string(c.buf[lo:lo+link]) == string(c.linkHeader[:link]))
}

// alone makes packet, or the frame it is in, of shape s, ready to be written unmerged.
func (s shape) alone(packet []byte, frame bool) (o Offload) {
	switch {
	case s.elided && frame:
		o, _ = FinishElidedFrame(packet)
	case s.elided:
		o, _ = FinishElided(packet)
	}
	return o
}

// write writes the packet buf[lo:hi], and adds what comes of it to what was lost before.
func (c *Coalescer) write(lo, hi int, o Offload, lost int, err error) (int, error) {
	if e := c.queue.Write(c.buf, lo, hi, o); e != nil {
		lost++
		if err == nil {
			err = e
		}
	}
	return lost, err
}

// merge extends the open super-packet to hi by a packet of the shape s, whose headers are gone by now.
func (c *Coalescer) merge(hi int, s shape) (lost int, err error) {
	c.hi = hi
	c.count++
	c.seq += uint32(s.payload)
	c.flow.push = s.push
	if s.push || s.payload < c.flow.payload || c.flow.gso == GSOUDP && c.count == maxUDPSegments {
		return c.Flush()
	}
	return 0, nil
}

// Flush writes the open super-packet, if there is one. lost is how many packets could not be written, err why. A slot not
// committed is discarded.
func (c *Coalescer) Flush() (lost int, err error) {
	c.Discard()
	if c.count == 0 {
		return 0, nil
	}
	var o Offload
	if c.count > 1 {
		o = c.finish()
	} else {
		o = c.flow.alone(c.buf[c.lo:c.hi], c.frame)
	}
	count := c.count
	c.count = 0
	if err := c.queue.Write(c.buf, c.lo, c.hi, o); err != nil {
		return count, err
	}
	return 0, nil
}

// finish makes the first packet's headers those of the super-packet.
func (c *Coalescer) finish() Offload {
	packet := c.buf[c.lo+c.link : c.hi]
	var sum uint64 // of the pseudo-header
	if c.flow.ipv4 {
		length := uint16(len(packet))
		header := uint64(^uint16(field(packet, 10))) + minus(binary.BigEndian.Uint16(packet[2:])) + word(length)
		binary.BigEndian.PutUint16(packet[2:], length)
		putField(packet, 10, ^fold(header))
		sum = checksum(0, packet[12:20])
	} else {
		binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-ipv6Header))
		sum = checksum(0, packet[8:40])
	}
	t := packet[c.flow.ip:]
	o := Offload{
		NeedsChecksum: true,
		GSO:           c.flow.gso,
		HeaderLen:     uint16(c.link + c.flow.header),
		SegmentSize:   uint16(c.flow.payload),
		ChecksumStart: uint16(c.link + c.flow.ip),
	}
	if c.flow.gso == GSOUDP {
		binary.BigEndian.PutUint16(t[udpLength:], uint16(len(t)))
		putField(t, udpChecksum, fold(plus(sum, word(protoUDP)+word(uint16(len(t))))))
		o.ChecksumOffset = udpChecksum
		return o
	}
	if c.flow.push {
		t[tcpFlags] |= flagPSH
	}
	putField(t, tcpChecksum, fold(plus(sum, word(protoTCP)+word(uint16(len(t))))))
	o.ChecksumOffset = tcpChecksum
	return o
}

// linkLength is where a frame's IP packet starts; the frame's length where it has none.
func linkLength(frame []byte) int {
	link, version, ok := framePacket(frame)
	if !ok || link == len(frame) || frame[link]>>4 != version {
		return len(frame)
	}
	return link
}

// shapeOf parses packet as far as merging needs. Its length must be the one its headers say: padding ends a merge.
func (c *Coalescer) shapeOf(packet []byte, elided bool) shape {
	none := shape{elided: elided}
	s := none
	var proto byte
	switch {
	case len(packet) >= ipv4Header+udpHeader && packet[0] == 0x45: // no options
		if int(binary.BigEndian.Uint16(packet[2:])) != len(packet) || binary.BigEndian.Uint16(packet[6:])&0xbfff != 0 {
			return none // a length not its own, or a fragment, or the reserved bit
		}
		s.ipv4, s.ip, proto = true, ipv4Header, packet[9]
	case len(packet) >= ipv6Header+udpHeader && packet[0]>>4 == 6:
		if int(binary.BigEndian.Uint16(packet[4:])) != len(packet)-ipv6Header {
			return none
		}
		s.ip, proto = ipv6Header, packet[6]
	default:
		return none
	}
	t := packet[s.ip:]
	switch {
	case proto == protoTCP && c.tcp:
		if len(t) < tcpHeader {
			return none
		}
		s.header = s.ip + int(t[tcpOffset]>>4)*4
		if s.header < s.ip+tcpHeader || t[tcpFlags]&^flagPSH != flagACK || !s.elided && field(t, tcpChecksum) == 0xffff {
			return none // ffff is valid in place of 0, but would come back as 0
		}
		s.push = t[tcpFlags]&flagPSH != 0
		s.gso = GSOTCPv6
		if s.ipv4 {
			s.gso = GSOTCPv4
		}
	case proto == protoUDP && c.udp:
		s.header = s.ip + udpHeader
		if int(binary.BigEndian.Uint16(t[udpLength:])) != len(t) || !s.elided && field(t, udpChecksum) == 0 {
			return none
		}
		s.gso = GSOUDP
	default:
		return none
	}
	if s.header >= len(packet) || s.ipv4 && field(packet, 10) == 0xffff {
		return none // nothing to merge, or, as above, a second way to write zero
	}
	s.payload = len(packet) - s.header
	return s
}

// continues reports whether packet, of shape s, is the next segment of the open super-packet. It
// compares with the headers kept of the open one, since the packet's own lie on its last bytes.
func (c *Coalescer) continues(packet []byte, s shape) bool {
	if s.gso != c.flow.gso || s.ipv4 != c.flow.ipv4 || s.header != c.flow.header || s.payload > c.flow.payload ||
		c.hi-c.lo+s.payload > MaxPacket {
		return false
	}
	h := c.headers[:s.header]
	if s.ipv4 {
		if packet[1] != h[1] || string(packet[6:10]) != string(h[6:10]) || string(packet[12:20]) != string(h[12:20]) ||
			binary.BigEndian.Uint16(packet[4:]) != binary.BigEndian.Uint16(h[4:])+uint16(c.count) {
			return false
		}
	} else if string(packet[:4]) != string(h[:4]) || string(packet[6:40]) != string(h[6:40]) {
		return false
	}
	t, u := packet[s.ip:s.header], h[s.ip:s.header]
	if string(t[:4]) != string(u[:4]) {
		return false
	}
	if s.gso == GSOUDP {
		return true
	}
	if binary.BigEndian.Uint32(t[tcpSeq:]) != c.seq || string(t[tcpAck:tcpFlags]) != string(u[tcpAck:tcpFlags]) ||
		string(t[tcpWindow:tcpChecksum]) != string(u[tcpWindow:tcpChecksum]) ||
		string(t[tcpChecksum+2:]) != string(u[tcpChecksum+2:]) {
		return false
	}
	return true
}

// verify reports whether the checksums of packet, of shape s, are right.
func (s shape) verify(packet []byte) bool {
	t, proto := packet[s.ip:], uint16(protoTCP)
	if s.gso == GSOUDP {
		proto = protoUDP
	}
	var addresses []byte
	if s.ipv4 {
		if fold(checksum(0, packet[:ipv4Header])) != 0xffff {
			return false
		}
		addresses = packet[12:ipv4Header]
	} else {
		addresses = packet[8:ipv6Header]
	}
	if s.elided {
		return true // the receiving kernel's to calculate
	}
	sum := plus(checksum(0, addresses), word(proto)+word(uint16(len(t))))
	return fold(checksum(sum, t)) == 0xffff
}
