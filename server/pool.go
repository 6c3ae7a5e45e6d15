package server

import (
	"net/netip"
	"slices"
)

// pool is the addresses that are given to clients.
type pool struct {
	prefixes []netip.Prefix
	excluded []netip.Prefix // by what is not to be given away, whatever the prefixes say
}

// newPool makes a pool of prefixes. Of each that is a network with several hosts its first address (IPv4's network address, RFC 1122
// section 3.2.1.3; IPv6's subnet-router anycast address, RFC 4291 section 2.6.1) and IPv4's last one (broadcast) are excluded.
func newPool(prefixes, networks, excluded []netip.Prefix) pool {
	p := pool{prefixes: prefixes, excluded: slices.Clone(excluded)}
	for _, n := range slices.Concat(prefixes, networks) {
		if n.Addr().BitLen()-n.Bits() < 2 { // RFC 3021, RFC 6164: both addresses are hosts'
			continue
		}
		p.excluded = append(p.excluded, single(n.Masked().Addr()))
		if n.Addr().Is4() {
			p.excluded = append(p.excluded, single(last(n)))
		}
	}
	return p
}

// has reports whether an address can be given away.
func (p *pool) has(a netip.Addr) bool {
	_, in := holding(p.prefixes, a)
	return in && p.usable(a)
}

func (p *pool) usable(a netip.Addr) bool {
	_, out := holding(p.excluded, a)
	return !out
}

// families are those the pool has addresses of, IPv4 first.
func (p *pool) families() (four []bool) {
	for _, f := range []bool{true, false} {
		if slices.ContainsFunc(p.prefixes, func(q netip.Prefix) bool { return q.Addr().Is4() == f }) {
			four = append(four, f)
		}
	}
	return four
}

// free is the lowest address of a family that is not taken. It looks at one address more than are taken, for each prefix, and jumps
// over what is excluded, so that the pool's size does not matter.
func (p *pool) free(four bool, taken func(netip.Addr) bool) (netip.Addr, bool) {
	for _, q := range p.prefixes {
		if q.Addr().Is4() != four {
			continue
		}
		for a := q.Masked().Addr(); a.IsValid() && q.Contains(a); {
			if e, out := holding(p.excluded, a); out {
				a = last(e).Next()
				continue
			}
			if !taken(a) {
				return a, true
			}
			a = a.Next()
		}
	}
	return netip.Addr{}, false
}
