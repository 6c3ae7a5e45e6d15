package summary

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"culvert/tunnel/device"
	"culvert/tunnel/ethernet"
)

// Append appends the line for a packet of the given layer to b, without a newline. data are its first bytes, and length is
// that of all of it.
func Append(b []byte, layer device.Layer, data []byte, length int) []byte {
	if layer == device.LayerEthernet {
		return frame(b, data, length)
	}
	return ip(b, data, length)
}

// EtherTypes (IEEE 802 Numbers of IANA).
const (
	etherIPv4     = 0x0800
	etherARP      = 0x0806
	etherVLAN     = 0x8100
	etherIPv6     = 0x86dd
	etherProvider = 0x88a8

	// leastType is the least EtherType; what is below is the length of an 802.2 frame (IEEE 802.3 clause 3.2.6).
	leastType = 0x0600
)

var etherNames = map[uint16]string{
	0x8035: "RARP", 0x8808: "MAC control", 0x8809: "slow protocols", 0x8847: "MPLS", 0x8863: "PPPoE discovery",
	0x8864: "PPPoE session", 0x888e: "802.1X", 0x88cc: "LLDP", 0x88e5: "MACsec", 0x88f7: "PTP", 0x9000: "loopback",
}

// maxTags bounds the VLAN tags that are gone through.
const maxTags = 4

func frame(b, data []byte, length int) []byte {
	if len(data) < device.EthernetHeader {
		return fmt.Appendf(b, "[|Ethernet] length %d", length)
	}
	b = fmt.Appendf(b, "%s > %s, ", ethernet.AddressAt(data[6:]), ethernet.AddressAt(data))
	kind := binary.BigEndian.Uint16(data[12:])
	at := device.EthernetHeader
	for range maxTags {
		if kind != etherVLAN && kind != etherProvider {
			break
		}
		if len(data) < at+4 {
			return append(b, "[|VLAN]"...)
		}
		b = fmt.Appendf(b, "vlan %d, ", binary.BigEndian.Uint16(data[at:])&0xfff)
		kind = binary.BigEndian.Uint16(data[at+2:])
		at += 4
	}
	rest := data[at:]
	length = max(length-at, len(rest))
	switch {
	case kind == etherIPv4, kind == etherIPv6:
		return ip(b, rest, length)
	case kind == etherARP:
		return arp(b, rest, length)
	case kind < leastType:
		if len(rest) >= 1 && rest[0] == 0x42 { // LSAP of the bridge spanning tree protocol
			return fmt.Appendf(b, "STP, length %d", length)
		}
		return fmt.Appendf(b, "802.3, length %d", length)
	}
	if name := etherNames[kind]; name != "" {
		return fmt.Appendf(b, "%s, length %d", name, length)
	}
	return fmt.Appendf(b, "type 0x%04x, length %d", kind, length)
}

// arp is ARP for IPv4 over Ethernet (RFC 826).
func arp(b, data []byte, length int) []byte {
	if len(data) < 8 {
		return append(b, "[|ARP]"...)
	}
	if hardware, proto := binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:]); hardware != 1 || proto != etherIPv4 || data[4] != 6 || data[5] != 4 {
		return fmt.Appendf(b, "ARP of hardware %d and protocol 0x%04x, length %d", hardware, proto, length)
	}
	if len(data) < 28 {
		return append(b, "[|ARP]"...)
	}
	sender, target := netip.AddrFrom4([4]byte(data[14:])), netip.AddrFrom4([4]byte(data[24:]))
	switch op := binary.BigEndian.Uint16(data[6:]); {
	case op == 1 && sender == target:
		return fmt.Appendf(b, "ARP, announcement %s is-at %s", sender, ethernet.AddressAt(data[8:]))
	case op == 1:
		return fmt.Appendf(b, "ARP, request who-has %s tell %s", target, sender)
	case op == 2:
		return fmt.Appendf(b, "ARP, reply %s is-at %s", sender, ethernet.AddressAt(data[8:]))
	default:
		return fmt.Appendf(b, "ARP, operation %d", op)
	}
}
