package tunnel

import (
	"encoding/binary"
	"net/netip"

	"culvert/crypto/noise"
	"culvert/tunnel/ippacket"
)

const (
	protocolUDP      = 17
	protocolFragment = 44 // IPv6 fragment header (RFC 8200 §4.5)
	udpHeader        = 8
	fragmentHeader   = 8
)

// ownDatagram reports whether a packet from the device is one of this tunnel's own datagrams: UDP from its port to the
// endpoint of one of its peers, with a message in it that bears an index of theirs. That happens when a route leads an
// endpoint into the tunnel; sealed once more, such a packet would come round for ever, and grow each time. What is not
// recognised comes round once, inside a datagram that is: later fragments, cookie replies, messages of a session that has
// been replaced meanwhile. By the index the tunnel is told from the same server's clients on hosts behind this one, which
// may well use the same port.
func (t *Tunnel) ownDatagram(packet []byte) bool {
	header := ippacket.Header6
	if ippacket.Version(packet) == 4 {
		header = int(packet[0]&0x0f) * 4
		if packet[9] != protocolUDP || binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
			return false
		}
	} else if packet[6] == protocolFragment && len(packet) >= header+fragmentHeader && packet[header] == protocolUDP &&
		binary.BigEndian.Uint16(packet[header+2:])&^7 == 0 { // a first fragment
		header += fragmentHeader
	} else if packet[6] != protocolUDP {
		return false
	}
	if len(packet) < header+udpHeader+8 || !t.ownPort(binary.BigEndian.Uint16(packet[header:])) {
		return false
	}
	message := packet[header+udpHeader:]
	index := binary.LittleEndian.Uint32(message[4:])
	_, dst, _, _ := ippacket.Parse(packet)
	return t.endpoints.any(netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(packet[header+2:])), func(p *peer) bool {
		switch binary.LittleEndian.Uint32(message) {
		case noise.TypeInitiation, noise.TypeResponse, noise.TypeHybridInitiation, noise.TypeKEM, noise.TypeHybridResponse: // the sender's index
			entry := t.indices.lookup(index)
			return entry != nil && entry.peer == p
		case noise.TypeData: // the receiver's
			kp := p.current.Load()
			return kp != nil && kp.RemoteIndex == index
		}
		return false
	})
}
