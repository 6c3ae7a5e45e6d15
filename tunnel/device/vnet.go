package device

import "encoding/binary"

// The virtio-net header in front of each packet of a tun queue, little-endian (VIRTIO 1.2, section 5.1.6):
//
//	flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16
const vnetHeader = 10

const (
	vnetNeedsChecksum = 0x01

	vnetGSONone  = 0
	vnetGSOTCPv4 = 1
	vnetGSOTCPv6 = 4
	vnetGSOUDP   = 5
	vnetGSOECN   = 0x80 // CWR is set; Segments looks at the packet itself
)

// vnetTypes is indexed by GSO.
var vnetTypes = [...]byte{GSONone: vnetGSONone, GSOTCPv4: vnetGSOTCPv4, GSOTCPv6: vnetGSOTCPv6, GSOUDP: vnetGSOUDP}

// putVNet writes o as the header h of vnetHeader bytes. o.GSO is a known one.
func putVNet(h []byte, o Offload) {
	if o == (Offload{}) {
		clear(h[:vnetHeader])
		return
	}
	h[0] = 0
	if o.NeedsChecksum {
		h[0] = vnetNeedsChecksum
	}
	h[1] = vnetTypes[o.GSO]
	binary.LittleEndian.PutUint16(h[2:], o.HeaderLen)
	binary.LittleEndian.PutUint16(h[4:], o.SegmentSize)
	binary.LittleEndian.PutUint16(h[6:], o.ChecksumStart)
	binary.LittleEndian.PutUint16(h[8:], o.ChecksumOffset)
}

// parseVNet reads the header h of vnetHeader bytes.
func parseVNet(h []byte) Offload {
	needsChecksum := h[0]&vnetNeedsChecksum != 0
	var gso GSO
	switch h[1] &^ vnetGSOECN {
	case vnetGSONone:
		if !needsChecksum {
			return Offload{}
		}
	case vnetGSOTCPv4:
		gso = GSOTCPv4
	case vnetGSOTCPv6:
		gso = GSOTCPv6
	case vnetGSOUDP:
		gso = GSOUDP
	default:
		gso = gsoUnknown
	}
	return Offload{
		NeedsChecksum:  needsChecksum,
		GSO:            gso,
		HeaderLen:      binary.LittleEndian.Uint16(h[2:]),
		SegmentSize:    binary.LittleEndian.Uint16(h[4:]),
		ChecksumStart:  binary.LittleEndian.Uint16(h[6:]),
		ChecksumOffset: binary.LittleEndian.Uint16(h[8:]),
	}
}
