package tunnel

import (
	"iter"
	"net/netip"
	"slices"
)

// prefixSet is a set of prefixes. Most peers have one or two, for which a map would take several times their memory. The zero
// value is empty.
type prefixSet struct {
	few  []netip.Prefix // up to maxFew
	many map[netip.Prefix]struct{}
}

const maxFew = 8

func (s *prefixSet) size() int { return len(s.few) + len(s.many) }

func (s *prefixSet) has(p netip.Prefix) bool {
	if _, ok := s.many[p]; ok {
		return true
	}
	return slices.Contains(s.few, p)
}

func (s *prefixSet) add(p netip.Prefix) {
	switch {
	case s.has(p):
	case s.many != nil:
		s.many[p] = struct{}{}
	case len(s.few) < maxFew:
		if s.few == nil {
			s.few = make([]netip.Prefix, 0, 1)
		}
		s.few = append(s.few, p)
	default:
		s.many = make(map[netip.Prefix]struct{}, 2*maxFew)
		for _, q := range s.few {
			s.many[q] = struct{}{}
		}
		s.few = nil
		s.many[p] = struct{}{}
	}
}

func (s *prefixSet) remove(p netip.Prefix) {
	delete(s.many, p)
	if i := slices.Index(s.few, p); i >= 0 {
		s.few = slices.Delete(s.few, i, i+1)
	}
}

// all gives the prefixes in no order. The one just given may be removed meanwhile; nothing else may change.
func (s *prefixSet) all() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for i := len(s.few) - 1; i >= 0; i-- {
			if !yield(s.few[i]) {
				return
			}
		}
		for p := range s.many {
			if !yield(p) {
				return
			}
		}
	}
}
