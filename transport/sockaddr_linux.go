package transport

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// sockaddr is room for a struct sockaddr_in or sockaddr_in6:
//
//	in   family(2) port(2, network order) addr(4) zero(8)
//	in6  family(2) port(2, network order) flowinfo(4) addr(16) scope(4)
type sockaddr [unix.SizeofSockaddrInet6]byte

// put writes ap, unmapped, and returns the length used.
func (s *sockaddr) put(ap netip.AddrPort) uint32 {
	addr := ap.Addr()
	binary.BigEndian.PutUint16(s[2:], ap.Port())
	if addr.Is4() {
		binary.NativeEndian.PutUint16(s[0:], unix.AF_INET)
		a := addr.As4()
		copy(s[4:8], a[:])
		clear(s[8:unix.SizeofSockaddrInet4])
		return unix.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(s[0:], unix.AF_INET6)
	clear(s[4:8])
	a := addr.As16()
	copy(s[8:24], a[:])
	binary.NativeEndian.PutUint32(s[24:], zoneIndex(addr.Zone()))
	return unix.SizeofSockaddrInet6
}

// zoneIndex is the number in a zone, 0 where it is none.
func zoneIndex(zone string) uint32 {
	var n uint64
	for i := range len(zone) {
		d := zone[i] - '0'
		if d > 9 {
			return 0
		}
		if n = n*10 + uint64(d); n > math.MaxInt32 {
			return 0
		}
	}
	return uint32(n)
}

// zones turns interface indices into the zones of netip addresses. It remembers the last one with an address in
// it, which keeps the interned zone alive, so that meeting it again allocates nothing.
type zones struct {
	index uint32
	name  string
	keep  netip.Addr
}

func (z *zones) with(addr netip.Addr, index uint32) netip.Addr {
	if z.name == "" || z.index != index {
		z.index, z.name = index, strconv.FormatUint(uint64(index), 10)
		z.keep = addr.WithZone(z.name)
	}
	return addr.WithZone(z.name)
}

// get reads a socket address of n bytes as the kernel left it. Anything malformed is the zero AddrPort.
func (s *sockaddr) get(n uint32, z *zones) netip.AddrPort {
	if n < 2 || n > uint32(len(s)) {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(s[2:])
	switch family := binary.NativeEndian.Uint16(s[0:]); {
	case family == unix.AF_INET && n >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s[4:8])), port)
	case family == unix.AF_INET6 && n >= unix.SizeofSockaddrInet6:
		addr := netip.AddrFrom16([16]byte(s[8:24])).Unmap()
		scope := binary.NativeEndian.Uint32(s[24:])
		if scope != 0 && scope <= math.MaxInt32 && addr.Is6() && addr.IsLinkLocalUnicast() {
			addr = z.with(addr, scope)
		}
		return netip.AddrPortFrom(addr, port)
	}
	return netip.AddrPort{}
}
