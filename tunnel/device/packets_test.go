package device

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// packet describes a packet for the tests.
type packet struct {
	v6         bool
	udp        bool
	tos, ttl   byte
	id         uint16
	noDF       bool
	flow       byte // source address and port
	seq, ack   uint32
	flags      byte
	window     uint16
	options    []byte // of TCP, a multiple of 4 bytes
	extensions []byte // IPv6 headers in front of the transport header; the first is of type extension
	extension  byte
	payload    []byte
}

// build returns the packet with all its checksums, calculated from scratch.
func (p packet) build() []byte {
	var transport []byte
	proto := byte(protoTCP)
	if p.udp {
		proto = protoUDP
		transport = binary.BigEndian.AppendUint16(nil, 1000+uint16(p.flow))
		transport = binary.BigEndian.AppendUint16(transport, 53)
		transport = binary.BigEndian.AppendUint16(transport, uint16(udpHeader+len(p.payload)))
		transport = append(transport, 0, 0)
	} else {
		transport = binary.BigEndian.AppendUint16(nil, 1000+uint16(p.flow))
		transport = binary.BigEndian.AppendUint16(transport, 443)
		transport = binary.BigEndian.AppendUint32(transport, p.seq)
		transport = binary.BigEndian.AppendUint32(transport, p.ack)
		transport = append(transport, byte(tcpHeader+len(p.options))/4<<4, p.flags)
		transport = binary.BigEndian.AppendUint16(transport, p.window)
		transport = append(transport, 0, 0, 0, 0)
		transport = append(transport, p.options...)
	}
	transport = append(transport, p.payload...)

	var b []byte
	if p.v6 {
		b = make([]byte, ipv6Header)
		b[0], b[1] = 0x60|p.tos>>4, p.tos<<4
		b[6], b[7] = proto, p.ttl
		copy(b[8:], "\xfd source address")
		copy(b[24:], "\xfd target address")
		b[23] = p.flow
		if p.extensions != nil {
			b[6] = p.extension
			b = append(b, p.extensions...)
		}
	} else {
		b = make([]byte, ipv4Header)
		b[0], b[1] = 0x45, p.tos
		binary.BigEndian.PutUint16(b[4:], p.id)
		if !p.noDF {
			b[6] = 0x40
		}
		b[8], b[9] = p.ttl, proto
		copy(b[12:], []byte{10, 0, 0, p.flow, 10, 0, 1, 1})
	}
	header := len(b)
	b = append(b, transport...)
	fixChecksums(b, header, proto)
	return b
}

// fixChecksums sets lengths and checksums of a packet from scratch.
func fixChecksums(b []byte, transport int, proto byte) {
	var addresses []byte
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], naiveChecksum(b[:int(b[0]&15)*4]))
		addresses = b[12:20]
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ipv6Header))
		addresses = b[8:40]
	}
	t := b[transport:]
	at := tcpChecksum
	if proto == protoUDP {
		at = udpChecksum
		binary.BigEndian.PutUint16(t[udpLength:], uint16(len(t)))
	}
	t[at], t[at+1] = 0, 0
	pseudo := []byte{0, 0, byte(len(t) >> 8), byte(len(t)), 0, 0, 0, proto}
	sum := naiveChecksum(addresses, pseudo, t)
	if sum == 0 && proto == protoUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(t[at:], sum)
}

// fixPartial sets the transport checksum to the pseudo-header's sum, as in a super-packet, and the IPv4 header's.
func fixPartial(b []byte, transport int, proto byte) {
	fixChecksums(b, transport, proto)
	var addresses []byte
	if b[0]>>4 == 4 {
		addresses = b[12:20]
	} else {
		addresses = b[8:40]
	}
	t := b[transport:]
	at := tcpChecksum
	if proto == protoUDP {
		at = udpChecksum
	}
	pseudo := []byte{0, 0, byte(len(t) >> 8), byte(len(t)), 0, 0, 0, proto}
	binary.BigEndian.PutUint16(t[at:], ^naiveChecksum(addresses, pseudo))
}

// super makes a super-packet of p.
func (p packet) super(segment int) ([]byte, Offload) {
	b := p.build()
	o := Offload{NeedsChecksum: true, SegmentSize: uint16(segment)}
	start := ipv4Header
	o.GSO = GSOTCPv4
	if p.v6 {
		start = ipv6Header + len(p.extensions)
		o.GSO = GSOTCPv6
	}
	o.ChecksumStart, o.ChecksumOffset = uint16(start), tcpChecksum
	o.HeaderLen = uint16(start + tcpHeader + len(p.options))
	proto := byte(protoTCP)
	if p.udp {
		proto = protoUDP
		o.GSO, o.ChecksumOffset, o.HeaderLen = GSOUDP, udpChecksum, uint16(start+udpHeader)
	}
	fixPartial(b, start, proto)
	return b, o
}

// referenceSegments is a second, simple implementation of segmentation: it trusts the offload, copies, and calculates
// all checksums from scratch.
func referenceSegments(b []byte, o Offload) [][]byte {
	if o.GSO == GSONone {
		b = bytes.Clone(b)
		if o.NeedsChecksum {
			at := o.ChecksumStart + o.ChecksumOffset
			sum := naiveChecksum(b[o.ChecksumStart:])
			if sum == 0 {
				sum = 0xffff
			}
			binary.BigEndian.PutUint16(b[at:], sum)
		}
		return [][]byte{b}
	}
	transport := int(o.ChecksumStart)
	proto, header := byte(protoUDP), transport+udpHeader
	if o.GSO != GSOUDP {
		proto, header = protoTCP, transport+int(b[transport+12]>>4)*4
	}
	var out [][]byte
	for offset := 0; offset == 0 || header+offset < len(b); offset += int(o.SegmentSize) {
		end := header + offset + int(o.SegmentSize)
		last := end >= len(b)
		if last {
			end = len(b)
		}
		segment := append(bytes.Clone(b[:header]), b[header+offset:end]...)
		if b[0]>>4 == 4 {
			binary.BigEndian.PutUint16(segment[4:], binary.BigEndian.Uint16(b[4:])+uint16(len(out)))
		}
		if proto == protoTCP {
			binary.BigEndian.PutUint32(segment[transport+4:], binary.BigEndian.Uint32(b[transport+4:])+uint32(offset))
			if !last {
				segment[transport+13] &^= 0x09
			}
			if offset > 0 {
				segment[transport+13] &^= 0x80
			}
		}
		fixChecksums(segment, transport, proto)
		out = append(out, segment)
	}
	return out
}

// referenceFor is a second, simple implementation of what limits add to segmentation.
func referenceFor(b []byte, o Offload, l Limits) (packets [][]byte, elided bool) {
	start, offset, simple := Elided(b)
	simple = simple && o.NeedsChecksum && int(o.ChecksumStart) == start && int(o.ChecksumOffset) == offset
	if l.MaxPacket > 0 && (o.GSO == GSOTCPv4 || o.GSO == GSOTCPv6 || o.GSO == GSONone && simple && offset == tcpChecksum) {
		t := b[o.ChecksumStart:]
		room := l.MaxPacket - int(o.ChecksumStart) - int(t[12]>>4)*4
		whole := o.GSO == GSONone && (len(b) <= l.MaxPacket || t[13]&0x26 != 0) // SYN, RST, URG
		if room >= 8 && !whole && (o.GSO == GSONone || room < int(o.SegmentSize)) {
			o.SegmentSize = uint16(room)
			if o.GSO = GSOTCPv4; b[0]>>4 == 6 {
				o.GSO = GSOTCPv6
			}
		}
	}
	packets = referenceSegments(b, o)
	if !l.Elide || !simple {
		return packets, false
	}
	for _, p := range packets {
		clear(p[start+offset:][:2])
	}
	return packets, true
}

// placed puts a packet into a buffer as Read would.
func placed(b []byte) (buf []byte, lo, hi int) {
	buf = make([]byte, Headroom+len(b)+Tailroom)
	copy(buf[Headroom:], b)
	return buf, Headroom, Headroom + len(b)
}

// pattern is n bytes that tell where they are.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func samePackets(got, want [][]byte) error {
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("packet %d of %d:\n got %x\nwant %x", i, len(want), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d packets, want %d", len(got), len(want))
	}
	return nil
}
