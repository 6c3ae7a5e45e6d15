package device

import (
	"encoding/binary"
	"errors"
)

const (
	// maxHeaders bounds the headers of a super-packet: 40 bytes of IPv6, 60 of TCP, and extension headers. They are kept
	// aside while the packet is cut, with the link header of a frame in front of them.
	maxHeaders = 512
	// minSegment is the fewest bytes of payload in TCP segments: Linux never sends fewer (TCP_MIN_GSO_SIZE), and nothing
	// is cut smaller to fit a limit.
	minSegment = 8
	// maxSegments bounds how many packets one super-packet may become; a larger count is not honest.
	maxSegments = MaxPacket / minSegment
)

// Errors of [Segments.Reset].
var (
	ErrMalformed = errors.New("malformed packet")
	ErrOffload   = errors.New("offload does not fit the packet")
	ErrSegments  = errors.New("super-packet of too many segments")
)

const (
	protoTCP = 6
	protoUDP = 17

	ipv4Header = 20 // without options
	ipv6Header = 40
	tcpHeader  = 20 // without options
	udpHeader  = 8

	tcpSeq      = 4
	tcpAck      = 8
	tcpOffset   = 12
	tcpFlags    = 13
	tcpWindow   = 14
	tcpChecksum = 16
	udpLength   = 4
	udpChecksum = 6

	flagFIN = 0x01
	flagPSH = 0x08
	flagACK = 0x10
	flagECE = 0x40
	flagCWR = 0x80
)

// Segments does in software what a packet's [Offload] left undone and hands out the finished packets one after another.
// It works in place: a segment's headers are written just in front of its own payload, over bytes of the segments before
// it. So each segment must have been sealed (or copied) before the next one is asked for. The zero value is ready for
// Reset, and a Segments may be used again and again; it does not allocate.
type Segments struct {
	buf   []byte
	next  int // start of the next segment's payload (of the packet, when there is nothing to cut)
	end   int // end of the last segment's payload
	size  int // payload bytes per segment
	count int
	index int // of the next segment

	gso       GSO // GSONone: the packet is handed out whole
	elided    bool
	place     int // of the elided checksum in buf, where gso is GSONone
	headerLen int
	link      int // length of the link header; 0 without Limits.Frame
	transport int // length of the headers in front of the transport header
	ipv4      bool
	id        uint16
	seq       uint32
	flags     byte

	ipSum        uint64 // IPv4 header without total length, identification and checksum
	transportSum uint64 // pseudo-header and transport header without what differs from segment to segment
	headers      [maxLink + maxHeaders]byte
}

// Limits is what [Segments.ResetFor] makes of packets beyond what their offload asks for. The zero value is nothing.
type Limits struct {
	// Elide: a TCP or UDP checksum that the packet came without (NeedsChecksum) is left zero, wherever [Elided] holds for
	// the packets handed out.
	Elide bool
	// MaxPacket is the largest packet, in bytes with all headers, that TCP is cut into; 0 is no limit. See
	// [Segments.ResetFor].
	MaxPacket int
	// Frame: the packet is an Ethernet frame with at most two VLAN tags, from its destination address on and without the
	// frame check sequence. Offloads count from the frame's first byte, MaxPacket is the whole frame's, and [ElidedFrame]
	// stands in for [Elided].
	Frame bool
}

// Reset starts on the packet buf[lo:hi] with the offload o. Everything o says is checked against the packet's bytes; a
// packet with nothing left to do is not looked at. Errors: ErrMalformed, ErrOffload, ErrSegments. A refused packet is
// left as it was.
//
// The checksums of super-packets are updated, not computed afresh (RFC 1624), so a super-packet with a wrong checksum
// becomes segments with wrong checksums.
func (s *Segments) Reset(buf []byte, lo, hi int, o Offload) error {
	return s.ResetFor(buf, lo, hi, o, Limits{})
}

// ResetFor is Reset within limits. A TCP super-packet is cut into segments smaller than it asks for where those would be
// larger than l.MaxPacket, and so is a single packet of TCP without its checksum, unless it has IPv6 extension headers or
// flags that belong to one segment alone (SYN, RST, URG). All else, and packets of which the headers alone are too large,
// comes out as without the limit: UDP datagrams are what their sender made them. So does a frame with anything behind its
// IP packet.
//
// Of a frame that is no IP packet the place of a missing checksum is all that is known, and all that is needed; a frame
// too short for its header is ErrMalformed.
//
// ResetFor itself changes the packet in one case only: a single packet that is neither cut nor elided gets its checksum.
func (s *Segments) ResetFor(buf []byte, lo, hi int, o Offload, l Limits) error {
	s.count, s.index = 0, 0
	if lo < 0 || lo >= hi || hi > len(buf) || l.Frame && hi-lo < EthernetHeader {
		return ErrMalformed
	}
	s.buf, s.next, s.end, s.gso, s.elided, s.headerLen, s.size = buf, lo, hi, GSONone, false, 0, hi-lo
	packet := buf[lo:hi]
	switch o.GSO {
	case GSONone:
		if o.NeedsChecksum && l != (Limits{}) {
			if link, start, offset, ok := l.elided(packet); ok && start == int(o.ChecksumStart) && offset == int(o.ChecksumOffset) {
				if gso, size := resegment(packet, link, start, offset, l.MaxPacket); size > 0 {
					o.GSO, o.SegmentSize = gso, uint16(size)
					return s.resetSuper(packet, lo, o, l)
				}
				if l.Elide {
					s.elided, s.place, s.count = true, lo+start+offset, 1
					return nil
				}
			}
		}
		if o.NeedsChecksum {
			if err := completeChecksum(packet, o, l.Frame); err != nil {
				return err
			}
		}
		s.count = 1
		return nil
	case GSOTCPv4, GSOTCPv6, GSOUDP:
		return s.resetSuper(packet, lo, o, l)
	default:
		return ErrOffload
	}
}

// elided is [Elided] or [ElidedFrame]; link is the length of the link header.
func (l Limits) elided(packet []byte) (link, start, offset int, ok bool) {
	if l.Frame {
		return elidedFrame(packet)
	}
	start, offset, ok = Elided(packet)
	return 0, start, offset, ok
}

// resegment returns how a single packet, for which [Elided] holds behind its link header, is cut to packets of at most
// limit bytes; size 0: not.
func resegment(packet []byte, link, start, offset, limit int) (gso GSO, size int) {
	if limit <= 0 || len(packet) <= limit || offset != tcpChecksum ||
		packet[start+tcpFlags]&^(flagFIN|flagPSH|flagACK|flagECE|flagCWR) != 0 {
		return GSONone, 0
	}
	size = limit - start - int(packet[start+tcpOffset]>>4)*4
	if size < minSegment {
		return GSONone, 0
	}
	if packet[link]>>4 == 4 {
		return GSOTCPv4, size
	}
	return GSOTCPv6, size
}

// completeChecksum finishes a checksum that so far holds the sum of what is in front of ChecksumStart. Any transport
// may ask for this, so the place is all there is to check.
func completeChecksum(packet []byte, o Offload, frame bool) error {
	start, at := int(o.ChecksumStart), int(o.ChecksumStart)+int(o.ChecksumOffset)
	link, isIP, version := 0, true, byte(0)
	if frame {
		if link, version, isIP = framePacket(packet); !isIP {
			link = EthernetHeader
		}
	}
	minimum := link
	if isIP {
		if link == len(packet) || frame && packet[link]>>4 != version {
			return ErrMalformed
		}
		switch packet[link] >> 4 {
		case 4:
			minimum += ipv4Header
		case 6:
			minimum += ipv6Header
		default:
			return ErrMalformed
		}
	}
	if start < minimum || at+2 > len(packet) {
		return ErrOffload
	}
	sum := ^fold(checksum(0, packet[start:]))
	if sum == 0 {
		sum = 0xffff // zero would mean "no checksum" to UDP (RFC 768) and is the same number to everybody else
	}
	putField(packet, at, sum)
	return nil
}

func (s *Segments) resetSuper(whole []byte, lo int, o Offload, l Limits) error {
	link := 0
	if l.Frame {
		at, version, ok := framePacket(whole)
		if !ok || at == len(whole) || whole[at]>>4 != version {
			return ErrMalformed
		}
		link = at
	}
	packet := whole[link:]
	transport, proto, err := transportHeader(packet)
	if err != nil {
		return err
	}
	s.ipv4 = packet[0]>>4 == 4
	headerLen, at := 0, 0
	switch {
	case o.GSO == GSOTCPv4 && s.ipv4 && proto == protoTCP, o.GSO == GSOTCPv6 && !s.ipv4 && proto == protoTCP:
		if len(packet) < transport+tcpHeader {
			return ErrMalformed
		}
		headerLen, at = int(packet[transport+tcpOffset]>>4)*4, tcpChecksum
		if headerLen < tcpHeader {
			return ErrMalformed
		}
	case o.GSO == GSOUDP && proto == protoUDP:
		if len(packet) < transport+udpHeader ||
			int(binary.BigEndian.Uint16(packet[transport+udpLength:])) != len(packet)-transport {
			return ErrMalformed
		}
		headerLen, at = udpHeader, udpChecksum
	default:
		return ErrOffload
	}
	headerLen += transport
	if headerLen > len(packet) || headerLen > maxHeaders {
		return ErrMalformed
	}
	// A super-packet without NEEDS_CSUM is against the specification (VIRTIO 1.2, section 5.1.6.2).
	if !o.NeedsChecksum || int(o.ChecksumStart) != link+transport || int(o.ChecksumOffset) != at || o.SegmentSize == 0 {
		return ErrOffload
	}
	size, payload := int(o.SegmentSize), len(packet)-headerLen
	headerLen += link
	if l.MaxPacket > 0 && o.GSO != GSOUDP && headerLen+size > l.MaxPacket && l.MaxPacket-headerLen >= minSegment {
		size = l.MaxPacket - headerLen
	}
	count := max(1, (payload+size-1)/size)
	if count > maxSegments {
		return ErrSegments
	}

	s.elided = l.Elide && (s.ipv4 || transport == ipv6Header)
	transport += link
	s.gso, s.headerLen, s.link, s.transport, s.size, s.next = o.GSO, headerLen, link, transport, size, lo+headerLen
	h := s.headers[:headerLen]
	copy(h, whole)
	if s.ipv4 {
		ip := h[link:]
		s.id = binary.BigEndian.Uint16(ip[4:])
		s.ipSum = uint64(^uint16(field(ip, 10))) + minus(uint16(len(packet))) + minus(s.id)
	}
	t := h[transport:]
	length := uint16(len(whole) - transport)
	// The field holds the pseudo-header's sum, with the length of the whole super-packet in it.
	pseudo := field(t, at) + minus(length)
	if o.GSO == GSOUDP {
		s.transportSum = plus(pseudo, checksum(0, t[:udpLength]))
	} else {
		s.seq, s.flags = binary.BigEndian.Uint32(t[tcpSeq:]), t[tcpFlags]
		binary.BigEndian.PutUint32(t[tcpSeq:], 0)
		t[tcpFlags] = 0
		putField(t, at, 0)
		s.transportSum = plus(pseudo, checksum(0, t))
	}
	s.count = count
	return nil
}

// transportHeader finds the first header of an unfragmented IP packet that is no IPv6 extension header, and its protocol.
// The packet's own length must be the IP header's.
func transportHeader(packet []byte) (offset int, proto byte, err error) {
	switch packet[0] >> 4 {
	case 4:
		if len(packet) < ipv4Header {
			return 0, 0, ErrMalformed
		}
		offset = int(packet[0]&0xf) * 4
		if offset < ipv4Header || offset > len(packet) || int(binary.BigEndian.Uint16(packet[2:])) != len(packet) ||
			binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 {
			return 0, 0, ErrMalformed
		}
		return offset, packet[9], nil
	case 6:
		if len(packet) < ipv6Header || int(binary.BigEndian.Uint16(packet[4:])) != len(packet)-ipv6Header {
			return 0, 0, ErrMalformed
		}
		offset, proto = ipv6Header, packet[6]
		for {
			switch proto {
			case 0, 43, 60: // hop-by-hop options, routing, destination options (RFC 8200, section 4)
				if offset+8 > min(len(packet), maxHeaders) {
					return 0, 0, ErrMalformed
				}
				proto, offset = packet[offset], offset+8+int(packet[offset+1])*8
			default:
				if offset > len(packet) {
					return 0, 0, ErrMalformed
				}
				return offset, proto, nil
			}
		}
	default:
		return 0, 0, ErrMalformed
	}
}

// Count is how many packets Next hands out after Reset.
func (s *Segments) Count() int { return s.count }

// Elided reports whether the packets Next hands out after ResetFor have their transport checksum elided: it is zero.
func (s *Segments) Elided() bool { return s.elided }

// Next returns the next finished packet as buf[lo:hi] of the buffer given to Reset, with all checksums complete or
// elided; ok is false when there are no more. Until the next call the packet is the caller's: it may change it, and it may overwrite up
// to [Tailroom] bytes behind hi when it restores those before it calls Next again.
func (s *Segments) Next() (lo, hi int, ok bool) {
	if s.index >= s.count {
		return 0, 0, false
	}
	i := s.index
	s.index++
	if s.gso == GSONone {
		if s.elided {
			putField(s.buf, s.place, 0)
		}
		return s.next, s.end, true
	}
	lo, hi = s.next-s.headerLen, min(s.next+s.size, s.end)
	s.next = hi
	packet := s.buf[lo:hi]
	copy(packet, s.headers[:s.headerLen])
	t := packet[s.transport:]
	if s.link > 0 {
		packet = packet[s.link:]
	}
	if s.ipv4 {
		length, id := uint16(len(packet)), s.id+uint16(i)
		binary.BigEndian.PutUint16(packet[2:], length)
		binary.BigEndian.PutUint16(packet[4:], id)
		putField(packet, 10, ^fold(s.ipSum+word(length)+word(id)))
	} else {
		binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-ipv6Header))
	}
	if s.gso == GSOUDP {
		s.finishUDP(t)
	} else {
		s.finishTCP(t, i)
	}
	return lo, hi, true
}

// finishUDP completes the UDP header of the datagram t.
func (s *Segments) finishUDP(t []byte) {
	length := uint16(len(t))
	binary.BigEndian.PutUint16(t[udpLength:], length)
	if s.elided {
		putField(t, udpChecksum, 0)
		return
	}
	// The length is in the pseudo-header and in the header.
	c := ^fold(checksum(plus(s.transportSum, 2*word(length)), t[udpHeader:]))
	if c == 0 {
		c = 0xffff // RFC 768
	}
	putField(t, udpChecksum, c)
}

// finishTCP completes the TCP header of the segment t, the one numbered i.
func (s *Segments) finishTCP(t []byte, i int) {
	seq, flags := s.seq+uint32(i)*uint32(s.size), s.flags
	if i > 0 {
		flags &^= flagCWR // told once (RFC 3168, section 6.1.2)
	}
	if i < s.count-1 {
		flags &^= flagFIN | flagPSH
	}
	binary.BigEndian.PutUint32(t[tcpSeq:], seq)
	t[tcpFlags] = flags
	if s.elided {
		putField(t, tcpChecksum, 0)
		return
	}
	sum := plus(s.transportSum, word(uint16(len(t)))) // of the pseudo-header
	sum = plus(sum, word(uint16(seq>>16))+word(uint16(seq))+word(uint16(flags)))
	putField(t, tcpChecksum, ^fold(checksum(sum, t[s.headerLen-s.transport:])))
}
