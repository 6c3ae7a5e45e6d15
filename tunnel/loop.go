package tunnel

import (
	"encoding/binary"
	"net/netip"

	"culvert/crypto/noise"
	"culvert/tunnel/ippacket"
)

const (
	protocolUDP = 17
	udpHeader   = 8
)

// ownDatagram reports whether a packet from the device is one of this tunnel's own datagrams: UDP from its port to the
// endpoint of one of its peers, with one of the protocol's messages in it. That happens when a route leads an endpoint into the
// tunnel; sealed once more, such a packet would come round for ever, and grow each time. The later fragments of such a
// datagram come round once, as a first fragment.
func (t *Tunnel) ownDatagram(packet []byte) bool {
	header := ippacket.Header6
	if ippacket.Version(packet) == 4 {
		header = int(packet[0]&0x0f) * 4
		if packet[9] != protocolUDP || binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
			return false
		}
	} else if packet[6] != protocolUDP {
		return false
	}
	if len(packet) < header+udpHeader+4 || binary.BigEndian.Uint16(packet[header:]) != uint16(t.port.Load()) {
		return false
	}
	kind := binary.LittleEndian.Uint32(packet[header+udpHeader:])
	if kind < noise.TypeInitiation || kind > noise.TypeData {
		return false
	}
	_, dst, _, ok := ippacket.Parse(packet)
	return ok && t.endpoints.has(netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(packet[header+2:])))
}
