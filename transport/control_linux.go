package transport

import (
	"encoding/binary"
	"math"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlBytes has room for all that is asked for, on either way: packet info (at most 40 bytes with its
// header), TOS or traffic class (24) and segment size (24).
const controlBytes = 128

type controlBuffer [controlBytes]byte

const (
	cmsgLenBytes = int(unsafe.Sizeof(unix.Cmsghdr{}.Len)) // a size_t
	cmsgHeader   = unix.SizeofCmsghdr
)

// control is what the control messages of a received message told.
type control struct {
	source  netip.Addr // local address to answer from
	index   int32
	segment int
	tos     uint8
}

// parseControl reads control messages. It believes no length in b: what does not fit ends the walk, what is too
// short for its type is passed over.
//
//	cmsghdr: len (size_t, header included) | level (int) | type (int) | data, padded to the size of size_t
func parseControl(b []byte) (c control) {
	for len(b) >= cmsgHeader {
		var size uint64
		if cmsgLenBytes == 8 {
			size = binary.NativeEndian.Uint64(b)
		} else {
			size = uint64(binary.NativeEndian.Uint32(b))
		}
		if size < uint64(cmsgHeader) || size > uint64(len(b)) {
			return c
		}
		level := int32(binary.NativeEndian.Uint32(b[cmsgLenBytes:]))
		kind := int32(binary.NativeEndian.Uint32(b[cmsgLenBytes+4:]))
		c.take(level, kind, b[cmsgHeader:size])
		next := unix.CmsgSpace(int(size) - cmsgHeader)
		if next > len(b) {
			return c
		}
		b = b[next:]
	}
	return c
}

func (c *control) take(level, kind int32, data []byte) {
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		// int ifindex | spec_dst | addr. spec_dst is addr, except for broadcast and multicast, where it is
		// an address of the interface: right what an answer should come from.
		c.setSource(netip.AddrFrom4([4]byte(data[4:8])), binary.NativeEndian.Uint32(data))
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		// addr (16) | unsigned ifindex
		c.setSource(netip.AddrFrom16([16]byte(data[:16])).Unmap(), binary.NativeEndian.Uint32(data[16:]))
	case level == unix.IPPROTO_IP && kind == unix.IP_TOS && len(data) >= 1:
		c.tos = data[0]
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_TCLASS && len(data) >= 4:
		c.tos = uint8(binary.NativeEndian.Uint32(data))
	case level == unix.IPPROTO_UDP && kind == unix.UDP_GRO && len(data) >= 4:
		if n := int32(binary.NativeEndian.Uint32(data)); n > 0 {
			c.segment = int(n)
		}
	}
}

func (c *control) setSource(addr netip.Addr, index uint32) {
	if addr.IsUnspecified() || addr.IsMulticast() || index > math.MaxInt32 {
		return
	}
	c.source, c.index = addr, int32(index)
}

// putHeader starts a control message of n data bytes at b[at:] and returns its data and where the next one starts.
func (b *controlBuffer) putHeader(at int, level, kind int32, n int) (data []byte, next int) {
	if cmsgLenBytes == 8 {
		binary.NativeEndian.PutUint64(b[at:], uint64(unix.CmsgLen(n)))
	} else {
		binary.NativeEndian.PutUint32(b[at:], uint32(unix.CmsgLen(n)))
	}
	binary.NativeEndian.PutUint32(b[at+cmsgLenBytes:], uint32(level))
	binary.NativeEndian.PutUint32(b[at+cmsgLenBytes+4:], uint32(kind))
	data = b[at+cmsgHeader : at+cmsgHeader+n]
	return data, at + unix.CmsgSpace(n)
}

// put writes the control messages of a message to e and returns their length. Zero values are left out.
//
// The interface is not pinned along with the source: where a route moves to another interface the datagram must follow
// it. Only a link-local source means nothing without one.
func (b *controlBuffer) put(e Endpoint, withSource bool, tos uint8, segment int) int {
	at := 0
	v6 := e.Remote.Addr().Is6()
	if withSource {
		var data []byte
		if v6 {
			data, at = b.putHeader(at, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
			a := e.Source.As16()
			copy(data, a[:])
			index := uint32(0)
			if e.Source.IsLinkLocalUnicast() {
				index = uint32(e.Interface)
			}
			binary.NativeEndian.PutUint32(data[16:], index)
		} else {
			data, at = b.putHeader(at, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
			a := e.Source.As4()
			clear(data)
			copy(data[4:8], a[:])
		}
	}
	if tos != 0 {
		var data []byte
		if v6 {
			data, at = b.putHeader(at, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4)
		} else {
			data, at = b.putHeader(at, unix.IPPROTO_IP, unix.IP_TOS, 4)
		}
		binary.NativeEndian.PutUint32(data, uint32(tos))
	}
	if segment > 0 {
		var data []byte
		data, at = b.putHeader(at, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(data, uint16(segment))
	}
	return at
}
