package loopguard

import (
	"encoding/binary"

	"culvert/tunnel/ethernet"
)

// A probe is an Ethernet frame, padded with zeros to 60 bytes:
//
//	 0  destination  03:63:75:6c:76:74: a group, locally administered
//	 6  source       02:63 and 32 bits of the id of the node that sent it on
//	12  VLAN tags    at most two (IEEE 802.1Q clause 9.6), none when it starts out
//	    EtherType    0x88b5: IEEE 802 local experimental 1 (IEEE 802-2014 table 9-1)
//	 0  magic        "cvlp"
//	 4  version      1
//	 5  flags        1: bounced; others 0
//	 6  length       hops in the path, 0 to 16
//	 7  reserved     0
//	 8  origin       id of the node that sent it first, not 0
//	16  nonce        random, other in each probe
//	24  path         of each node that passed it on, in order: id (8 bytes, not 0), flags (1 byte; 1: crossed; others 0)
//
// Numbers are big-endian. The source is the sender's and not the origin's, so that no bridge on the way sees an address move:
// probes go on round a loop that is broken.
const (
	// Destination is the address of all probes.
	Destination ethernet.Address = 0x0363_756c_7674
	// EtherType is theirs.
	EtherType = 0x88b5
	// MaxFrame is the length of the longest probe, in bytes.
	MaxFrame = headerSize + maxTags*tagSize + fixedSize + MaxPath*hopSize
	// MaxPath is how many nodes pass a probe on.
	MaxPath = 16

	minFrame   = 60 // IEEE 802.3 clause 3.2.7, without check sequence
	headerSize = 14
	tagSize    = 4
	maxTags    = 2
	fixedSize  = 24
	hopSize    = 9

	typeC, typeS = 0x8100, 0x88a8 // customer and service VLAN tag

	version     = 1
	flagBounced = 1
	flagCrossed = 1
	magic       = 0x63766c70

	sourcePrefix = 0x0263
	// lead are the first eight bytes of every probe.
	lead = uint64(Destination)<<16 | sourcePrefix
)

// IsProbe reports whether an Ethernet frame is a probe, well-formed or not, which must not be forwarded as others are. It may
// be asked for every frame: for nearly all it is one comparison.
func IsProbe(frame []byte) bool {
	return len(frame) >= 8 && binary.BigEndian.Uint64(frame) == lead && probeAt(frame) != 0
}

// probeAt returns where the part behind the EtherType starts; 0 where frame is no probe. It stays a call, so that IsProbe itself
// is small enough to be none.
//
//go:noinline
func probeAt(frame []byte) int {
	at := 2 * ethernet.AddressSize
	for range maxTags {
		if len(frame) < at+2 {
			return 0
		}
		if t := binary.BigEndian.Uint16(frame[at:]); t != typeC && t != typeS {
			break
		}
		at += tagSize
	}
	if len(frame) < at+6 || binary.BigEndian.Uint16(frame[at:]) != EtherType || binary.BigEndian.Uint32(frame[at+2:]) != magic {
		return 0
	}
	return at + 2
}

// hop is one node on a probe's way.
type hop struct {
	id      uint64
	crossed bool // between its interface and its peers; otherwise from peer to peer
}

// probe is what a probe says.
type probe struct {
	tags          uint64 // the VLAN tags as on the wire, at the low end
	tagBytes      int    // 0, 4 or 8
	bounced       bool
	origin, nonce uint64
	length        int
	path          [MaxPath]hop
}

// read parses a frame. It reports false where that is no probe, or no valid one; then p is undefined.
func (p *probe) read(frame []byte) bool {
	if !IsProbe(frame) {
		return false
	}
	at := probeAt(frame)
	p.tagBytes, p.tags = at-headerSize, 0
	for _, b := range frame[2*ethernet.AddressSize:][:p.tagBytes] {
		p.tags = p.tags<<8 | uint64(b)
	}
	b := frame[at:]
	if len(b) < fixedSize || b[4] != version || b[5]&^flagBounced != 0 || b[6] > MaxPath || b[7] != 0 {
		return false
	}
	p.bounced = b[5]&flagBounced != 0
	p.length = int(b[6])
	p.origin, p.nonce = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	if b = b[fixedSize:]; p.origin == 0 || len(b) < p.length*hopSize {
		return false
	}
	for i := range p.length {
		h := b[i*hopSize:][:hopSize]
		p.path[i] = hop{id: binary.BigEndian.Uint64(h), crossed: h[8]&flagCrossed != 0}
		if p.path[i].id == 0 || h[8]&^flagCrossed != 0 {
			return false
		}
	}
	return true
}

// put writes the frame to buf and returns it.
func (p *probe) put(buf *[MaxFrame]byte, source ethernet.Address) []byte {
	clear(buf[:])
	Destination.Put(buf[:])
	source.Put(buf[ethernet.AddressSize:])
	at := 2 * ethernet.AddressSize
	for i := range p.tagBytes {
		buf[at+i] = byte(p.tags >> (8 * (p.tagBytes - 1 - i)))
	}
	at += p.tagBytes
	binary.BigEndian.PutUint16(buf[at:], EtherType)
	b := buf[at+2:]
	binary.BigEndian.PutUint32(b, magic)
	b[4], b[6] = version, byte(p.length)
	if p.bounced {
		b[5] = flagBounced
	}
	binary.BigEndian.PutUint64(b[8:], p.origin)
	binary.BigEndian.PutUint64(b[16:], p.nonce)
	for i, h := range p.path[:p.length] {
		binary.BigEndian.PutUint64(b[fixedSize+i*hopSize:], h.id)
		if h.crossed {
			b[fixedSize+i*hopSize+8] = flagCrossed
		}
	}
	return buf[:max(minFrame, at+2+fixedSize+p.length*hopSize)]
}

// crossings counts the nodes that it crossed.
func (p *probe) crossings() (n int) {
	for _, h := range p.path[:p.length] {
		if h.crossed {
			n++
		}
	}
	return n
}

// has reports whether the node passed it on.
func (p *probe) has(id uint64) bool {
	for _, h := range p.path[:p.length] {
		if h.id == id {
			return true
		}
	}
	return false
}

// untagged reports whether it is in no VLAN; a tag may still give a priority (IEEE 802.1Q-2018 clause 6.9.1).
func (p *probe) untagged() bool { return p.tags&0x0fff_0000_0fff == 0 }

// sourceOf returns the source address of probes that a node sends.
func sourceOf(id uint64) ethernet.Address {
	return sourcePrefix<<32 | ethernet.Address(uint32(id>>32)^uint32(id))
}
