package access

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// rules are those of one direction, so arranged that the first that matches is found without trying each: for every address, and
// for every protocol with its port, there is the set of the rules it fits, and what is in both sets is a match (T. V. Lakshman,
// D. Stiliadis, "High-speed policy-based packet forwarding using efficient multi-dimensional range matching", SIGCOMM 1998, §4).
// So a lookup is one in the routing table, one binary search and at most 16 words, however many rules there are.
type rules struct {
	otherwise Action
	allows    []uint64 // of each rule, whether it allows
	anywhere  []uint64 // rules without addresses: for addresses in no table
	addresses bart.Table[[]uint64]
	protocols [256]int // place of a protocol's spans in spans
	spans     [][]span // by protocol; the first is of those no rule names
}

// span is where the ports begin that fit the same rules. The next span, or the last port, ends it.
type span struct {
	first uint16
	fits  []uint64
}

// newRules arranges the rules of one direction. It returns nil where they decide nothing that otherwise does not.
func newRules(all []Rule, direction Direction, otherwise Action) (*rules, error) {
	var list []*Rule
	decides := otherwise == Deny
	prefixes, ranges := 0, 0
	for i := range all {
		r := &all[i]
		if err := r.validate(); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		if r.Direction != direction {
			continue
		}
		list = append(list, r)
		decides = decides || r.Action != otherwise
		prefixes, ranges = prefixes+len(r.Addresses)+len(r.Except), ranges+len(r.Ports)
	}
	switch {
	case len(all) > MaxRules:
		return nil, fmt.Errorf("%w: %d rules; at most %d are possible", ErrInvalid, len(all), MaxRules)
	case prefixes > MaxPrefixes:
		return nil, fmt.Errorf("%w: %d addresses; at most %d are possible", ErrInvalid, prefixes, MaxPrefixes)
	case ranges > MaxPorts:
		return nil, fmt.Errorf("%w: %d ranges of ports; at most %d are possible", ErrInvalid, ranges, MaxPorts)
	case !decides:
		return nil, nil
	}
	words := (len(list) + 63) / 64
	s := &rules{otherwise: otherwise, allows: make([]uint64, words), anywhere: make([]uint64, words)}
	for i, r := range list {
		if r.Action == Allow {
			put(s.allows, i)
		}
		if len(r.Addresses) == 0 {
			put(s.anywhere, i)
		}
	}
	s.addAddresses(list, words)
	s.addProtocols(list, words)
	return s, nil
}

func put(set []uint64, i int) { set[i/64] |= 1 << (i % 64) }

// addAddresses fills the table. A network's rules are its own and those of every network around it, which is there before.
func (s *rules) addAddresses(list []*Rule, words int) {
	own, except := make(map[netip.Prefix][]int), make(map[netip.Prefix][]int)
	for i, r := range list {
		for _, p := range r.Addresses {
			own[p] = append(own[p], i)
		}
		for _, p := range r.Except {
			except[p] = append(except[p], i)
		}
	}
	order := slices.Collect(maps.Keys(own))
	for p := range except {
		if own[p] == nil {
			order = append(order, p)
		}
	}
	slices.SortFunc(order, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	for _, p := range order {
		around, ok := s.addresses.LookupPrefix(p)
		if !ok {
			around = s.anywhere
		}
		fits := append(make([]uint64, 0, words), around...)
		for _, i := range own[p] {
			put(fits, i)
		}
		for _, i := range except[p] {
			fits[i/64] &^= 1 << (i % 64)
		}
		s.addresses.Insert(p, fits)
	}
}

// addProtocols fills the spans: those of the protocols that a rule names, and those of all others.
func (s *rules) addProtocols(list []*Rule, words int) {
	var named [256]bool
	unnamed := make([]uint64, words)
	for i, r := range list {
		if len(r.Protocols) == 0 {
			put(unnamed, i)
		}
		for _, p := range r.Protocols {
			named[p] = true
		}
	}
	s.spans = [][]span{{{0, unnamed}}}
	for protocol := range named {
		if named[protocol] {
			s.protocols[protocol] = len(s.spans)
			s.spans = append(s.spans, spansOf(list, uint8(protocol), words))
		}
	}
}

// spansOf are the ports of a protocol, by the rules that fit them.
func spansOf(list []*Rule, protocol uint8, words int) []span {
	type edge struct {
		at    int // port
		rule  int
		begin bool
	}
	var edges []edge
	open := make([]int, len(list)) // ranges of each rule that the port is in
	for i, r := range list {
		if len(r.Protocols) > 0 && !slices.Contains(r.Protocols, protocol) {
			continue
		}
		if len(r.Ports) == 0 {
			edges = append(edges, edge{0, i, true})
		}
		for _, p := range r.Ports {
			edges = append(edges, edge{int(p.First), i, true}, edge{int(p.Last) + 1, i, false})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at - b.at })
	fits := make([]uint64, words)
	out := []span{}
	for i := 0; i < len(edges) || len(out) == 0; {
		at := 0 // the first span begins there, whether or not a rule does
		if len(out) > 0 {
			at = edges[i].at
		}
		for ; i < len(edges) && edges[i].at == at; i++ {
			e := edges[i]
			if e.begin {
				open[e.rule]++
			} else {
				open[e.rule]--
			}
			if open[e.rule] > 0 {
				put(fits, e.rule)
			} else {
				fits[e.rule/64] &^= 1 << (e.rule % 64)
			}
		}
		if at > 65535 {
			break
		}
		out = append(out, span{uint16(at), slices.Clone(fits)})
	}
	return out
}

// decide returns what the first rule says that fits a packet, or what holds without one. near is its address on this end's side,
// protocol is ICMP for that of either family, port where it is sent to (0 where it has none).
func (s *rules) decide(near netip.Addr, protocol uint8, port uint16) Action {
	byAddress, ok := s.addresses.Lookup(near)
	if !ok {
		byAddress = s.anywhere
	}
	byPort := s.fitting(protocol, port)
	for i, w := range byAddress {
		if w &= byPort[i]; w != 0 {
			if s.allows[i]&(w&-w) != 0 {
				return Allow
			}
			return Deny
		}
	}
	return s.otherwise
}

// fitting is the set of rules that a protocol and port fit.
func (s *rules) fitting(protocol uint8, port uint16) []uint64 {
	spans := s.spans[s.protocols[protocol]]
	lo := 0
	for n := len(spans); n > 1; { // the span is in spans[lo:lo+n]
		half := n / 2
		if spans[lo+half].first <= port {
			lo += half
			n -= half
		} else {
			n = half
		}
	}
	return spans[lo].fits
}

// size is about how many bytes the rules take.
func (s *rules) size() int {
	if s == nil {
		return 0
	}
	sets := s.addresses.Size() + 2
	for _, spans := range s.spans {
		sets += len(spans)
	}
	return sets * (len(s.allows)*8 + 64)
}
