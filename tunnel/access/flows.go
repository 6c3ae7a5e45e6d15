package access

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// A table holds the flows of one peer, so that nobody can push out another's. Its memory is fixed; it is made anew, larger, by the
// control loop where flows had to give way (State.Grow).
//
// A flow is in one of probes places from its hash on. Each place has a sequence number that is odd while its key is written: who reads
// finds the same even number before and after, or nothing (compare Linux's seqlock). Who writes claims the place by compare-and-swap
// and, where another worker was faster, looks for a place once more; nobody waits. What changes of a flow is one word.
type table struct {
	places []place
	older  atomic.Pointer[table] // what this one replaces, until its flows have been taken over
}

const (
	probes = 8
	// MinFlows is what a table has room for at first, and what each peer has in any case.
	MinFlows = 64
	// MaxFlows is the most of one peer.
	MaxFlows = 1 << 16
	// FlowSize is the memory of one, in bytes.
	FlowSize = 64
)

// place is one flow's.
type place struct {
	sequence atomic.Uint64
	status   atomic.Uint64
	key      [5]atomic.Uint64
	_        uint64 // so that no flow is in two cache lines
}

// status is what changes of a flow; 0 is an empty place:
//
//	63..32  when it ends, in seconds of the engine's time
//	31..16  generation of the policy that allows it
//	15..4   low bits of the place's sequence number, so that no change meets another flow
//	3       direction of the flow's first packet
//	2..0    phase
type status uint64

func newStatus(ends uint32, generation uint16, sequence uint64, opener Direction, p phase) status {
	return status(ends)<<32 | status(generation)<<16 | status(sequence&0xfff)<<4 | status(opener)<<3 | status(p)
}

func (s status) ends() uint32       { return uint32(s >> 32) }
func (s status) generation() uint16 { return uint16(s >> 16) }
func (s status) opener() Direction  { return Direction(s >> 3 & 1) }
func (s status) phase() phase       { return phase(s & 7) }
func (s status) empty(at uint32) bool {
	return s == 0 || s.ends() <= at
}

// with is the status with another end, generation and phase.
func (s status) with(ends uint32, generation uint16, p phase) status {
	return status(ends)<<32 | status(generation)<<16 | s&0xfff8 | status(p)
}

func newTable(flows int) *table { return &table{places: make([]place, flows)} }

// words is a key as a place holds it.
func (k *key) words() [5]uint64 {
	return [5]uint64{k.far[0], k.far[1], k.near[0], k.near[1], uint64(k.farPort)<<48 | uint64(k.nearPort)<<32 | uint64(k.proto)<<8 | uint64(k.kind)}
}

// secrets make places unpredictable: whoever could choose ports so that all their flows meet would lose the most of his share.
var secrets = func() (k [8]uint64) {
	for i := range k {
		k[i] = rand.Uint64()
	}
	return k
}()

// hash is NH (J. Black and others, "UMAC: fast and secure message authentication", CRYPTO 1999, §4) over words of 64 bits, which two keys
// share by a chance of 2^-64 whoever chooses them, with its 128 bits folded into 64.
func hash(w [5]uint64) uint64 {
	k := &secrets
	h0, l0 := bits.Mul64(w[0]+k[0], w[1]+k[1])
	h1, l1 := bits.Mul64(w[2]+k[2], w[3]+k[3])
	h2, l2 := bits.Mul64(w[4]+k[4], k[5])
	low, carry := bits.Add64(l0, l1, 0)
	high := h0 + h1 + carry
	low, carry = bits.Add64(low, l2, 0)
	high += h2 + carry
	high, low = bits.Mul64(high^k[6], low^k[7])
	return high ^ low
}

// find returns the place of a flow that has not ended, and its status.
func (t *table) find(w [5]uint64, h uint64, at uint32) (*place, status) {
	mask := uint64(len(t.places) - 1)
	for i := range uint64(probes) {
		p := &t.places[(h+i)&mask]
		if p.key[4].Load() != w[4] {
			continue
		}
		sequence := p.sequence.Load()
		if sequence&1 != 0 || p.key[4].Load() != w[4] || p.key[3].Load() != w[3] || p.key[1].Load() != w[1] || p.key[0].Load() != w[0] || p.key[2].Load() != w[2] {
			continue
		}
		s := status(p.status.Load())
		if p.sequence.Load() == sequence && !s.empty(at) {
			return p, s
		}
	}
	return nil, 0
}

// claims is how often a place is looked for where other workers are faster.
const claims = 4

// insert puts a flow into the table, in place of one that has ended or of the one that would end first. It reports whether a flow gave way
// that had not ended. Where other workers are in the way all the time nothing is inserted.
func (t *table) insert(w [5]uint64, h uint64, opener Direction, at, ends uint32, generation uint16, p phase) (crowded bool) {
	mask := uint64(len(t.places) - 1)
	for range claims {
		var best *place
		var sequence uint64
		first := uint32(math.MaxUint32)
		taken := false
		for i := range uint64(probes) {
			candidate := &t.places[(h+i)&mask]
			q := candidate.sequence.Load()
			if q&1 != 0 {
				continue
			}
			s := status(candidate.status.Load())
			if s.empty(at) {
				best, sequence, taken = candidate, q, false
				break
			}
			if s.ends() < first {
				best, sequence, first, taken = candidate, q, s.ends(), s.phase() != fragments
			}
		}
		if best == nil || !best.sequence.CompareAndSwap(sequence, sequence+1) {
			continue
		}
		best.status.Store(0)
		for i := range w {
			best.key[i].Store(w[i])
		}
		best.status.Store(uint64(newStatus(ends, generation, sequence+2, opener, p)))
		best.sequence.Store(sequence + 2)
		return taken
	}
	return false
}

// each calls f with every flow that has not ended.
func (t *table) each(at uint32, f func(w [5]uint64, s status)) {
	for i := range t.places {
		p := &t.places[i]
		sequence := p.sequence.Load()
		s := status(p.status.Load())
		if sequence&1 != 0 || s.empty(at) {
			continue
		}
		var w [5]uint64
		for i := range w {
			w[i] = p.key[i].Load()
		}
		if p.sequence.Load() == sequence {
			f(w, s)
		}
	}
}
