package tunnel

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// A set holds what a map would hold, whatever is added and removed.
func TestPrefixSet(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s prefixSet
		model := map[netip.Prefix]bool{}
		most := 1 + r.IntN(3*maxFew)
		for range 500 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(most))}), 32)
			if s.has(p) != model[p] {
				t.Fatalf("seed %d: has(%v) = %v", seed, p, s.has(p))
			}
			if r.IntN(2) == 0 {
				s.add(p)
				model[p] = true
			} else {
				s.remove(p)
				delete(model, p)
			}
			all := slices.Collect(s.all())
			for _, p := range all {
				if !model[p] {
					t.Fatalf("seed %d: %v is in it", seed, p)
				}
			}
			if len(all) != len(model) || s.size() != len(model) {
				t.Fatalf("seed %d: %d of size %d, want %d", seed, len(all), s.size(), len(model))
			}
		}
		for p := range s.all() {
			s.remove(p)
		}
		if s.size() != 0 {
			t.Fatalf("seed %d: %d left", seed, s.size())
		}
	}
}
