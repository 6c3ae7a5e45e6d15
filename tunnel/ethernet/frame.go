package ethernet

import "encoding/binary"

const (
	// HeaderSize is the length of two addresses and the EtherType, in bytes.
	HeaderSize = 2*AddressSize + 2
	// TagSize is the length of a VLAN tag: the identifier of its protocol and the control information, in bytes.
	TagSize = 4
)

// EtherTypes (IEEE 802 numbers at IANA). A type below [MinType] is the length of an IEEE 802.3 frame with LLC behind it.
const (
	TypeIPv4     = 0x0800
	TypeARP      = 0x0806
	TypeIPv6     = 0x86dd
	TypeVLAN     = 0x8100 // a customer VLAN tag (IEEE 802.1Q-2018 table 9-1)
	TypeProvider = 0x88a8 // a service VLAN tag, IEEE 802.1ad's

	MinType = 0x0600
)

const (
	// MaxVID is the highest VLAN identifier that may be configured; 4095 is reserved (IEEE 802.1Q-2018 table 9-2).
	MaxVID = 4094
	// ServiceVLAN is set in [Header.VLAN] where the outermost tag is IEEE 802.1ad's. Linux and switches keep both kinds of
	// tag apart: what is service VLAN 5 to them must not pass as VLAN 5 here, or a peer that is admitted to VLAN 5 reaches
	// whatever VLAN untagged frames belong to on the other side.
	ServiceVLAN = 0x1000
)

const vidMask = 0x0fff

// Header is what is in front of a frame's payload.
type Header struct {
	Dst, Src Address
	Type     uint16 // the EtherType behind the tags
	VLAN     uint16 // of the outermost tag: the VID, and ServiceVLAN; 0 for untagged and priority-tagged frames
	Tags     int    // how many tags; at most 2 are read, a third is payload of type TypeVLAN or TypeProvider
	Payload  int    // where it begins, in bytes from the frame's start
}

// Parse reads the header of a frame without preamble. ok is false where the frame ends before its payload begins, and where the
// source is no single station: a group address (IEEE 802.3 §3.2.4) or zero.
func Parse(frame []byte) (h Header, ok bool) {
	if len(frame) < HeaderSize {
		return Header{}, false
	}
	src := Address(binary.BigEndian.Uint64(frame[4:]) & uint64(Broadcast))
	if src == 0 || src.Group() {
		return Header{}, false
	}
	etherType, vlan, n := binary.BigEndian.Uint16(frame[12:]), uint16(0), 0
	if isTag(etherType) {
		if vlan, etherType, n = tags(frame); n == 0 {
			return Header{}, false
		}
	}
	return Header{
		Dst: Address(binary.BigEndian.Uint64(frame) >> 16), Src: src,
		Type: etherType, VLAN: vlan, Tags: n, Payload: HeaderSize + n*TagSize,
	}, true
}

// tags reads the tags of a frame that has some: the VLAN of the outermost, the EtherType behind them and how many they are, 0 if
// they are cut off.
func tags(frame []byte) (vlan, etherType uint16, n int) {
	if len(frame) < HeaderSize+TagSize {
		return 0, 0, 0
	}
	vlan = binary.BigEndian.Uint16(frame[14:]) & vidMask
	if binary.BigEndian.Uint16(frame[12:]) == TypeProvider {
		vlan |= ServiceVLAN
	}
	etherType = binary.BigEndian.Uint16(frame[16:])
	if !isTag(etherType) {
		return vlan, etherType, 1
	}
	if len(frame) < HeaderSize+2*TagSize {
		return 0, 0, 0
	}
	return vlan, binary.BigEndian.Uint16(frame[20:]), 2
}

func isTag(etherType uint16) bool { return etherType == TypeVLAN || etherType == TypeProvider }

// tagged reports whether a tag is behind the addresses of a frame, whole.
func tagged(frame []byte) bool {
	return len(frame) >= HeaderSize+TagSize && isTag(binary.BigEndian.Uint16(frame[12:]))
}

// PushTag puts a TypeVLAN tag in front of the EtherType, and tags, of the frame that starts at buf[lo], by moving its addresses
// TagSize bytes to the left, and returns where it starts now. vid has 12 bits, priority 3 (IEEE 802.1Q-2018 §9.6). It needs
// lo >= TagSize and a whole header.
func PushTag(buf []byte, lo int, vid uint16, priority uint8) (newLo int) {
	newLo = lo - TagSize
	frame := buf[newLo : lo+HeaderSize]
	copy(frame, frame[TagSize:TagSize+2*AddressSize])
	binary.BigEndian.PutUint32(frame[12:], TypeVLAN<<16|uint32(priority&7)<<13|uint32(vid&vidMask))
	return newLo
}

// PopTag takes the outermost tag away by moving the addresses TagSize bytes to the right, and returns what the frame is then. A
// frame without a tag is returned as it is.
func PopTag(frame []byte) []byte {
	if !tagged(frame) {
		return frame
	}
	copy(frame[TagSize:], frame[:2*AddressSize])
	return frame[TagSize:]
}

// SetVID changes the VID of the outermost tag and keeps its kind, priority and drop eligibility. Without a tag it does nothing.
func SetVID(frame []byte, vid uint16) {
	if tagged(frame) {
		control := binary.BigEndian.Uint16(frame[14:])
		binary.BigEndian.PutUint16(frame[14:], control&^vidMask|vid&vidMask)
	}
}
