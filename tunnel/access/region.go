package access

import (
	"crypto/sha256"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
)

// Region is a set of addresses that a peer is kept from. It is immutable, and many policies may share it: a thousand peers that are kept from
// each other have one.
type Region struct {
	table  bart.Table[bool] // whether the longest network is within
	digest [sha256.Size]byte
}

// MaxRegion is how many networks a region may be made of.
const MaxRegion = 1 << 20

// NewRegion makes the region of networks without others; of both the longest counts that holds an address, and the others where they are the
// same. Errors wrap ErrInvalid. The slices are not kept.
func NewRegion(networks, except []netip.Prefix) (*Region, error) {
	if n := len(networks) + len(except); n > MaxRegion {
		return nil, fmt.Errorf("%w: a region of %d networks; at most %d are possible", ErrInvalid, n, MaxRegion)
	}
	r := &Region{}
	sum := sha256.New()
	for _, list := range [][]netip.Prefix{networks, except} {
		for _, p := range list {
			if !p.IsValid() || p != p.Masked() {
				return nil, fmt.Errorf("%w: %v is no network", ErrInvalid, p)
			}
			b, _ := p.MarshalBinary() // cannot fail
			sum.Write(append(b, byte(len(b))))
		}
		sum.Write([]byte{0})
	}
	for _, p := range networks {
		r.table.Insert(p, true)
	}
	for _, p := range except {
		r.table.Insert(p, false)
	}
	sum.Sum(r.digest[:0])
	return r, nil
}

// holds reports whether an address is within. None is within nil.
func (r *Region) holds(a netip.Addr) bool {
	if r == nil {
		return false
	}
	within, _ := r.table.Lookup(a)
	return within
}

// Equal reports whether two regions were made of the same.
func (r *Region) Equal(s *Region) bool {
	return r == s || r != nil && s != nil && r.digest == s.digest
}
