package access

import (
	"encoding/binary"
	"net/netip"
)

// form is what a packet is to the flows.
type form uint8

const (
	malformed form = iota // or of a kind that cannot be told for sure: it is denied, whatever holds otherwise
	begins                // may begin a flow, or belongs to one
	belongs               // belongs to a flow or to nothing: TCP but for its first packet
	alone                 // begins nothing and answers nothing that is remembered
	quotes                // an ICMP error; key is that of the flow it tells of
	later                 // a fragment but the first; key is that of its packet
)

// parsed is what rules and flows need to know of a packet.
type parsed struct {
	key    key
	form   form
	near   [2]uint64 // its address on this end's side
	v6     bool
	proto  uint8  // ICMP for that of either family
	port   uint16 // it is sent to, 0 without
	flags  uint8  // TCP's
	answer bool   // an ICMP echo reply
	pieces bool   // the first of several fragments
	id     uint32 // of them
}

// key names a flow, or a packet in fragments. Ports of ICMP echoes are their identifier, those of fragments theirs.
type key struct {
	far, near         [2]uint64 // addresses; IPv4 in the last four bytes
	farPort, nearPort uint16
	proto             uint8
	kind              uint8
}

// Bits of key.kind. For echoes and fragments the direction is part of the key: what the peer asked is not what it may be asked.
const (
	kindUsed     = 1 << iota // always set
	kindV6                   // the addresses are
	kindToPeer               // of echoes and fragments
	kindFragment             // the key of a packet in fragments
)

const (
	header4  = 20
	header6  = 40
	tcpSize  = 20
	icmpSize = 8

	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10

	sctp, dccp, udpLite = 132, 33, 136 // have their ports where UDP has them
)

// maxExtensions bounds the walk along IPv6 extension headers.
const maxExtensions = 8

// parse reads a whole IP packet, or super-packet, whose lengths have been checked. What cannot be read for sure is malformed.
func parse(b []byte, d Direction) (p parsed) {
	rest, ok := p.network(b, d, false)
	if !ok {
		p.form = malformed
		return p
	}
	if p.form == later {
		return p
	}
	p.transport(rest, d, false)
	return p
}

// network reads the IP header, or that of a quoted packet, which may end anywhere behind it. It returns what is behind all headers.
func (p *parsed) network(b []byte, d Direction, quoted bool) (rest []byte, ok bool) {
	if len(b) < header4 {
		return nil, false
	}
	p.key.kind = kindUsed
	switch b[0] >> 4 {
	case 4:
		rest, ok = p.network4(b, d)
	case 6:
		rest, ok = p.network6(b, d)
	}
	if !ok {
		return nil, false
	}
	if p.form == later && !quoted {
		p.key = p.fragmentKey(d)
	}
	p.near = p.key.near
	return rest, true
}

// addresses puts source and destination in their place.
func (p *parsed) addresses(src, dst [2]uint64, d Direction) {
	if d == FromPeer {
		p.key.far, p.key.near = src, dst
	} else {
		p.key.near, p.key.far = src, dst
	}
}

func (p *parsed) network4(b []byte, d Direction) (rest []byte, ok bool) {
	header := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if header < header4 || header > len(b) || total < header || header > header4 && sourceRouted(b[header4:header]) {
		return nil, false
	}
	b = b[:min(total, len(b))] // what is behind is padding
	p.addresses([2]uint64{0, uint64(binary.BigEndian.Uint32(b[12:]))}, [2]uint64{0, uint64(binary.BigEndian.Uint32(b[16:]))}, d)
	p.proto = b[9]
	if p.proto == icmpv6 {
		return nil, false
	}
	p.id = uint32(binary.BigEndian.Uint16(b[4:]))
	const more, offset = 0x2000, 0x1fff
	switch field := binary.BigEndian.Uint16(b[6:]); {
	case field&offset == 0:
		p.pieces = field&more != 0
	case field&offset == 1 && p.proto == TCP: // would overwrite the flags of the first (RFC 1858 §4.2)
		return nil, false
	default:
		p.form = later
	}
	return b[header:], true
}

// sourceRouted reports whether IPv4 options name another destination than the header does, or cannot be read (RFC 791 §3.1).
func sourceRouted(options []byte) bool {
	for len(options) > 0 {
		switch options[0] {
		case 0: // the end
			return false
		case 1: // no operation
			options = options[1:]
			continue
		case 131, 137: // loose and strict source routing
			return true
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return true
		}
		options = options[options[1]:]
	}
	return false
}

func (p *parsed) network6(b []byte, d Direction) (rest []byte, ok bool) {
	if len(b) < header6 {
		return nil, false
	}
	p.v6 = true
	p.key.kind |= kindV6
	p.addresses([2]uint64{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])},
		[2]uint64{binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])}, d)
	next := b[6]
	b = b[header6:min(header6+int(binary.BigEndian.Uint16(b[4:])), len(b))]
	for n := 0; ; n++ {
		size := 8
		switch next {
		case 0, 60: // hop-by-hop and destination options (RFC 8200 §4.3, §4.6)
			if len(b) >= 8 {
				size += 8 * int(b[1])
			}
		case 43: // routing (RFC 8200 §4.4): with segments left the destination is another one
			if len(b) < 8 || b[3] != 0 {
				return nil, false
			}
			size += 8 * int(b[1])
		case 51: // authentication, whose length counts words of 4 bytes less 2 (RFC 4302 §2.2)
			if len(b) >= 8 {
				size += 4 * int(b[1])
			}
		case 44: // fragment (RFC 8200 §4.5)
			if len(b) < 8 || p.pieces {
				return nil, false
			}
			field := binary.BigEndian.Uint16(b[2:])
			p.id = binary.BigEndian.Uint32(b[4:])
			if field&^7 != 0 {
				p.form = later
				return nil, true
			}
			p.pieces = field&1 != 0
		case ICMP: // that of the other family
			return nil, false
		case icmpv6:
			p.proto = ICMP
			return b, true
		default:
			p.proto = next
			return b, true
		}
		if n == maxExtensions || size > len(b) {
			return nil, false
		}
		next, b = b[0], b[size:]
	}
}

// fragmentKey is the key of the packet that a fragment is of (RFC 791 §3.2, RFC 8200 §4.5).
func (p *parsed) fragmentKey(d Direction) key {
	k := key{far: p.key.far, near: p.key.near, farPort: uint16(p.id >> 16), nearPort: uint16(p.id), kind: p.key.kind&kindV6 | kindUsed | kindFragment}
	if !p.v6 { // where the header of each fragment may name another one, the first counts
		k.proto = p.proto
	}
	if d == ToPeer {
		k.kind |= kindToPeer
	}
	return k
}

// ports puts source and destination port in their place.
func (p *parsed) ports(b []byte, d Direction) {
	src, dst := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.port = dst
	if d == FromPeer {
		p.key.farPort, p.key.nearPort = src, dst
	} else {
		p.key.nearPort, p.key.farPort = src, dst
	}
}

// transport reads what follows the IP header. Of a quoted packet there may be 8 bytes (RFC 792), which hold no TCP flags.
func (p *parsed) transport(b []byte, d Direction, quoted bool) {
	p.key.proto = p.proto
	switch p.proto {
	case TCP:
		if len(b) < tcpSize && !quoted || len(b) < 4 {
			p.form = malformed
			return
		}
		p.ports(b, d)
		p.form = belongs
		if quoted {
			return
		}
		if p.flags = b[13]; p.flags&(flagSYN|flagACK|flagRST|flagFIN) == flagSYN {
			p.form = begins
		}
	case UDP, udpLite, dccp, sctp:
		if len(b) < 8 {
			p.form = malformed
			return
		}
		p.ports(b, d)
		p.form = begins
	case ICMP:
		p.icmp(b, d, quoted)
	default:
		p.form = begins
	}
}

// icmp reads ICMP of either family (RFC 792, RFC 4443).
func (p *parsed) icmp(b []byte, d Direction, quoted bool) {
	if len(b) < icmpSize {
		p.form = malformed
		return
	}
	request, reply, isError := uint8(8), uint8(0), b[0] == 3 || b[0] == 11 || b[0] == 12
	if p.v6 {
		request, reply, isError = 128, 129, b[0] >= 1 && b[0] <= 4
	}
	switch {
	case b[0] == request || b[0] == reply:
		p.form, p.answer = begins, b[0] == reply
		p.key.farPort = binary.BigEndian.Uint16(b[4:])
		if (d == ToPeer) != p.answer { // the way the request goes
			p.key.kind |= kindToPeer
		}
	case isError && !quoted:
		p.form = alone
		var inner parsed
		other := ToPeer - d
		rest, ok := inner.network(b[icmpSize:], other, true)
		if !ok || inner.form == later || inner.v6 != p.v6 {
			return
		}
		inner.transport(rest, other, true)
		// Whoever sent the packet is told, and nobody else.
		told := d == FromPeer && inner.key.near == p.key.near || d == ToPeer && inner.key.far == p.key.far
		if told && (inner.form == begins || inner.form == belongs) {
			p.form, p.key = quotes, inner.key
		}
	default:
		p.form = alone
	}
}

// address is an address of a key.
func address(words [2]uint64, v6 bool) netip.Addr {
	if !v6 {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(words[1]))
		return netip.AddrFrom4(a)
	}
	var a [16]byte
	binary.BigEndian.PutUint64(a[:], words[0])
	binary.BigEndian.PutUint64(a[8:], words[1])
	return netip.AddrFrom16(a)
}
