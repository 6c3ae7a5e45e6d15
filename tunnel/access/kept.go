package access

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"time"
)

// This file is how flows pass from one process to the next, which goes on with the peer.

// Kept is what a state remembers of flows. Its times are of the engine's.
type Kept struct {
	Room  int    `cbor:"1,keyasint"` // for how many there was
	Flows []byte `cbor:"2,keyasint"` // keptSize each, in network byte order: the words of the key, when it ends, its opener, its phase
}

const keptSize = 5*8 + 4 + 1 + 1

// ErrKept refuses what Keep cannot have returned.
var ErrKept = errors.New("not the flows of a peer")

// Keep returns the flows that have not ended; nil where nothing needs them.
func (s *State) Keep(now time.Duration) *Kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.flows.Load()
	if t == nil {
		return nil
	}
	k := &Kept{Room: len(t.places)}
	t.each(seconds(now), func(w [5]uint64, st status) {
		for _, word := range w {
			k.Flows = binary.BigEndian.AppendUint64(k.Flows, word)
		}
		k.Flows = binary.BigEndian.AppendUint32(k.Flows, st.ends())
		k.Flows = append(k.Flows, byte(st.opener()), byte(st.phase()))
	})
	return k
}

// Resume has a state that is new go on with flows, each as far as the policy in force allows it. It makes room for no more than most, or
// MinFlows. Where it fails there are none.
func (s *State) Resume(k *Kept, most int, now time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(k.Flows) / keptSize
	if len(k.Flows)%keptSize != 0 || k.Room < MinFlows || k.Room > MaxFlows || bits.OnesCount(uint(k.Room)) != 1 || n > k.Room {
		return ErrKept
	}
	if s.flows.Load() == nil { // all is allowed
		return nil
	}
	// Places are others in each process. In a full table some flows would have to give way.
	room := MinFlows
	for (room < k.Room || room < 2*n) && 2*room <= min(most, MaxFlows) {
		room *= 2
	}
	t, at := newTable(room), seconds(now)
	for b := k.Flows; len(b) > 0; b = b[keptSize:] {
		if !t.resume(b[:keptSize], at, s.policy.Load().generation) {
			return ErrKept
		}
	}
	s.flows.Store(t)
	return nil
}

// resume puts one flow into a table. The policy is asked again when something of it passes, as if it were another one, but for fragments: they
// cannot be asked about.
func (t *table) resume(b []byte, at uint32, generation uint16) bool {
	var w [5]uint64
	for i := range w {
		w[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	ends, opener, p := binary.BigEndian.Uint32(b[40:]), Direction(b[44]), phase(b[45])
	kind := uint8(w[4])
	if opener > ToPeer || p > fragments || w[4]>>16&0xffff != 0 || kind&kindUsed == 0 || kind >= 2*kindFragment ||
		(p == fragments) != (kind&kindFragment != 0) {
		return false
	}
	if ends = min(ends, at+lasts(uint8(w[4]>>8), p)); ends <= at {
		return true
	}
	if p != fragments {
		generation--
	}
	h := hash(w)
	if place, _ := t.find(w, h, at); place == nil {
		t.insert(w, h, opener, at, ends, generation, p)
	}
	return true
}
