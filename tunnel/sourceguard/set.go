package sourceguard

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Set is the addresses of a station.
type Set struct {
	four []range4 // sorted, apart from one another
	six  []range6
}

type range4 struct{ first, last uint32 }

type range6 struct{ first, last address6 }

// address6 is an IPv6 address, in the order of its bytes.
type address6 struct{ hi, lo uint64 }

// New returns the set of all addresses in prefixes, which may overlap. Of none, only what has no address of its own passes.
func New(prefixes []netip.Prefix) *Set {
	sorted := slices.Clone(prefixes)
	for i, p := range sorted {
		sorted[i] = p.Masked()
	}
	slices.SortFunc(sorted, netip.Prefix.Compare) // by address, the wider first
	s := &Set{}
	var before netip.Prefix
	for _, p := range sorted {
		if !p.IsValid() || before.IsValid() && before.Overlaps(p) {
			continue // in the one before: prefixes lie in one another or apart
		}
		before = p
		if p.Addr().Is4() {
			a := p.Addr().As4()
			first := binary.BigEndian.Uint32(a[:])
			s.four = append(s.four, range4{first, first | uint32(1<<(32-p.Bits())-1)})
			continue
		}
		a := p.Addr().As16()
		first := at6(a[:])
		last := address6{first.hi, first.lo | ^uint64(0)}
		if n := p.Bits(); n <= 64 {
			last.hi |= 1<<(64-n) - 1
		} else {
			last.lo = first.lo | (1<<(128-n) - 1)
		}
		s.six = append(s.six, range6{first, last})
	}
	return s
}

// at6 reads the address that b begins with.
func at6(b []byte) address6 {
	return address6{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a address6) above(b address6) bool { return a.hi > b.hi || a.hi == b.hi && a.lo > b.lo }

func (a address6) unspecified() bool { return a.hi|a.lo == 0 }

// linkLocal reports whether a is of fe80::/10.
func (a address6) linkLocal() bool { return a.hi>>54 == 0xfe80>>6 }

// has4 reports whether the set has an IPv4 address.
func (s *Set) has4(a uint32) bool {
	lo, hi := 0, len(s.four) // the only one that may have it is the last whose first is not above
	for lo < hi {
		if mid := (lo + hi) / 2; s.four[mid].first > a {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo > 0 && a <= s.four[lo-1].last
}

// has6 reports whether an IPv6 address is in the set, or link-local.
func (s *Set) has6(a address6) bool {
	lo, hi := 0, len(s.six)
	for lo < hi {
		if mid := (lo + hi) / 2; s.six[mid].first.above(a) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo > 0 && !a.above(s.six[lo-1].last) || a.linkLocal()
}
