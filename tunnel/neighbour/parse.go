package neighbour

import (
	"encoding/binary"
	"net/netip"

	"culvert/tunnel/ethernet"
	"culvert/tunnel/ippacket"
)

const (
	headerSize = 14
	tagSize    = 4
	maxTags    = 2
	minFrame   = 60 // IEEE 802.3 clause 3.2.7, without check sequence

	typeIPv4, typeARP, typeIPv6 = 0x0800, 0x0806, 0x86dd
	typeC, typeS                = 0x8100, 0x88a8 // customer and service VLAN tag

	arpSize              = 28 // over Ethernet for IPv4
	arpRequest, arpReply = 1, 2

	protocolICMPv6 = 58
	hopLimit       = 255 // what has it comes from the link itself (RFC 4861 §3.1)

	routerAdvertisement    = 134
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136

	flagRouter, flagSolicited, flagOverride = 0x80, 0x40, 0x20 // first byte of a neighbour advertisement's flags

	optionSource, optionTarget = 1, 2 // link-layer address options
	optionUnit                 = 8
)

// payload returns the EtherType behind at most two VLAN tags and where the payload starts; 0 where there is none.
func payload(frame []byte) (etherType uint16, at int) {
	if len(frame) < headerSize {
		return 0, 0
	}
	at = headerSize
	for range maxTags + 1 {
		etherType = binary.BigEndian.Uint16(frame[at-2:])
		if etherType != typeC && etherType != typeS {
			return etherType, at
		}
		if at += tagSize; len(frame) < at {
			break
		}
	}
	return 0, 0
}

// station reports whether an address can be that of one station's interface.
func station(a ethernet.Address) bool { return a != 0 && !a.Group() }

// host reports whether an address can be that of one host on a link.
func host(a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Is4In6() {
		return false
	}
	if a.Is4() {
		// 0/8 is "this network", 240/4 is class E and the limited broadcast (RFC 1122 §3.2.1.3).
		first := a.As4()[0]
		return first != 0 && first < 240
	}
	return true
}

// arp is what an ARP packet for IPv4 over Ethernet says.
type arp struct {
	operation uint16
	senderMAC ethernet.Address
	sender    netip.Addr // may be 0.0.0.0
	target    netip.Addr
}

// parseARP reads a request or a reply whose sender's hardware address is the frame's source.
func parseARP(frame []byte, at int) (a arp, ok bool) {
	b := frame[at:]
	// Hardware Ethernet, protocol IPv4, addresses of 6 and 4 bytes.
	if len(b) < arpSize || binary.BigEndian.Uint64(b)>>16 != 1<<32|typeIPv4<<16|6<<8|4 {
		return arp{}, false
	}
	a = arp{
		operation: binary.BigEndian.Uint16(b[6:]),
		senderMAC: ethernet.AddressAt(b[8:]),
		sender:    netip.AddrFrom4([4]byte(b[14:])),
		target:    netip.AddrFrom4([4]byte(b[24:])),
	}
	if a.operation != arpRequest && a.operation != arpReply || !station(a.senderMAC) || a.senderMAC != source(frame) {
		return arp{}, false
	}
	return a, true
}

// discovery is what a neighbour discovery message says.
type discovery struct {
	kind        byte
	flags       byte // of an advertisement
	source      netip.Addr
	destination netip.Addr
	target      netip.Addr       // not of a router advertisement
	sourceMAC   ethernet.Address // option; 0: none
	targetMAC   ethernet.Address // option; 0: none
}

// parseDiscovery reads a neighbour solicitation, neighbour advertisement or router advertisement that passes the validation of
// RFC 4861 §7.1 and §6.1.2 and comes from a host's address. Extension headers are not looked behind: nobody sends any, and
// fragments are forbidden (RFC 6980).
func parseDiscovery(frame []byte, at int) (d discovery, ok bool) {
	packet := frame[at:]
	src, dst, length, ok := ippacket.Parse(packet)
	if !ok || !src.Is6() || packet[6] != protocolICMPv6 || packet[7] != hopLimit {
		return discovery{}, false
	}
	b := packet[ippacket.Header6:length]
	d = discovery{source: src, destination: dst}
	fixed := 24
	if len(b) < 16 || b[1] != 0 {
		return discovery{}, false
	}
	switch d.kind = b[0]; d.kind {
	case routerAdvertisement:
		fixed = 16
		if !src.IsLinkLocalUnicast() {
			return discovery{}, false
		}
	case neighbourSolicitation, neighbourAdvertisement:
		if len(b) < fixed {
			return discovery{}, false
		}
		d.target = netip.AddrFrom16([16]byte(b[8:]))
		if !host(d.target) {
			return discovery{}, false
		}
	default:
		return discovery{}, false
	}
	if d.kind == neighbourAdvertisement {
		if d.flags = b[4]; !host(src) || dst.IsMulticast() && d.flags&flagSolicited != 0 {
			return discovery{}, false
		}
	}
	if !d.options(b[fixed:]) {
		return discovery{}, false
	}
	if d.kind == neighbourSolicitation {
		// One from :: probes for a duplicate address: it claims nothing, and is not for others to answer.
		if !host(src) || dst != solicitedNode(d.target) && dst != d.target {
			return discovery{}, false
		}
	}
	if ippacket.Fold(ippacket.Sum(b, pseudoHeader(packet, len(b)))) != 0xffff {
		return discovery{}, false
	}
	return d, true
}

// options reads the options for link-layer addresses; the first of a kind counts. It reports false where they are no list of
// options.
func (d *discovery) options(b []byte) bool {
	for len(b) > 0 {
		if len(b) < optionUnit || b[1] == 0 || len(b) < int(b[1])*optionUnit {
			return false
		}
		if b[1] == 1 { // an Ethernet address fits in one unit (RFC 2464 §6)
			switch mac := ethernet.AddressAt(b[2:]); {
			case b[0] == optionSource && d.sourceMAC == 0:
				d.sourceMAC = mac
			case b[0] == optionTarget && d.targetMAC == 0:
				d.targetMAC = mac
			}
		}
		b = b[int(b[1])*optionUnit:]
	}
	return true
}

// pseudoHeader returns the sum over the pseudo-header of an ICMPv6 message of size bytes (RFC 8200 §8.1).
func pseudoHeader(packet []byte, size int) uint64 {
	return ippacket.Sum(packet[8:ippacket.Header6], uint64(size)+protocolICMPv6)
}

// solicitedNode returns the multicast address that a target listens on (RFC 4291 §2.7.1).
func solicitedNode(target netip.Addr) netip.Addr {
	t := target.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]})
}

func destination(frame []byte) ethernet.Address { return ethernet.AddressAt(frame) }
func source(frame []byte) ethernet.Address      { return ethernet.AddressAt(frame[ethernet.AddressSize:]) }
