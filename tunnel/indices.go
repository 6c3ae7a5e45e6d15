package tunnel

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"culvert/crypto/noise"
	"culvert/transport"
)

// indexTable finds what a receiver index stands for: a keypair, or a handshake that awaits its response.
//
// An index is random; its low bits are its slot. Two live indices never share a slot, so a lookup is one load, and
// stays right while the table grows, since indices that differ in n low bits differ in n+1. Lookups are safe beside changes
// and take no lock.
//
// The top five bits are random as well where one worker receives. With more they say which of them does: lane k of a session
// is addressed by the session's index plus k in these bits, and comes to worker (top bits) modulo the number of workers. So
// the lanes of a session, which share its slot, come to workers of their own, and sessions take turns.
type indexTable struct {
	slots atomic.Pointer[[]atomic.Pointer[indexEntry]] // length a power of two

	mu      sync.Mutex // held by changes
	used    int
	workers int
	turn    int // the worker that the next index's messages come to
}

// indexEntry is immutable; a change of meaning replaces it.
type indexEntry struct {
	index   uint32
	peer    *peer
	keypair *keypair // nil while the handshake awaits its response
}

const (
	minIndexSlots = 1 << 6
	maxIndexSlots = 1 << 24
	// laneShift is where the bits of an index begin that tell lanes, and so workers, apart; the slot is below them.
	laneShift = 27
	indexMask = 1<<laneShift - 1
)

// A session's top bits are below maxWorkers, so that those of its lanes do not wrap around.
const _ uint = 1<<(32-laneShift) - (maxWorkers + noise.MaxLanes)

// steering has the kernel bring each data message to the worker that its receiver index, the little-endian word at 4, says.
var steering = transport.Steering{First: noise.TypeData, At: 7, Shift: laneShift - 24}

// laneIndex is the receiver index of a lane of the session with that index.
func laneIndex(index uint32, lane int) uint32 { return index + uint32(lane)<<laneShift }

// workerOf is the worker, of several, that messages to an index come to.
func workerOf(index uint32, workers int) int { return int(index>>laneShift) % workers }

var errIndicesExhausted = errors.New("no free session index")

func newIndexTable(workers int) *indexTable {
	t := &indexTable{workers: workers}
	s := make([]atomic.Pointer[indexEntry], minIndexSlots)
	t.slots.Store(&s)
	return t
}

// lookup returns the entry of index, or nil.
func (t *indexTable) lookup(index uint32) *indexEntry {
	slots := *t.slots.Load()
	e := slots[index&uint32(len(slots)-1)].Load()
	if e == nil || e.index != index {
		return nil
	}
	return e
}

// lookupLane returns the entry of a session, and which of its lanes it is that has the index; nil where there is none.
func (t *indexTable) lookupLane(index uint32) (e *indexEntry, lane int) {
	slots := *t.slots.Load()
	e = slots[index&uint32(len(slots)-1)].Load()
	if e == nil || e.index == index {
		return e, 0
	}
	lane = int((index - e.index) >> laneShift)
	if (index^e.index)&indexMask != 0 || e.keypair == nil || lane > len(e.keypair.lanes) {
		return nil, 0
	}
	return e, lane
}

// reserve finds a free random index for a handshake of p.
func (t *indexTable) reserve(p *peer) (uint32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used*4 >= len(*t.slots.Load()) {
		t.grow()
	}
	slots := *t.slots.Load()
	if t.used*2 >= len(slots) {
		return 0, errIndicesExhausted
	}
	for {
		var b [4]byte
		rand.Read(b[:]) // never fails (Go 1.24)
		index := binary.LittleEndian.Uint32(b[:])
		if t.workers > 1 {
			index = laneIndex(index&indexMask, t.turn)
		}
		slot := &slots[index&uint32(len(slots)-1)]
		if slot.Load() == nil {
			slot.Store(&indexEntry{index: index, peer: p})
			t.used++
			if t.turn++; t.turn >= t.workers {
				t.turn = 0
			}
			return index, nil
		}
	}
}

// grow doubles the table, up to its bound.
func (t *indexTable) grow() {
	old := *t.slots.Load()
	if len(old) >= maxIndexSlots {
		return
	}
	grown := make([]atomic.Pointer[indexEntry], 2*len(old))
	for i := range old {
		if e := old[i].Load(); e != nil {
			grown[e.index&uint32(len(grown)-1)].Store(e)
		}
	}
	t.slots.Store(&grown)
}

// establish makes a reserved index stand for kp.
func (t *indexTable) establish(index uint32, kp *keypair) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slots := *t.slots.Load()
	slot := &slots[index&uint32(len(slots)-1)]
	if e := slot.Load(); e != nil && e.index == index {
		slot.Store(&indexEntry{index: index, peer: kp.peer, keypair: kp})
	}
}

// release frees an index; freeing one that is not taken does nothing.
func (t *indexTable) release(index uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slots := *t.slots.Load()
	slot := &slots[index&uint32(len(slots)-1)]
	if e := slot.Load(); e != nil && e.index == index {
		slot.Store(nil)
		t.used--
	}
}

// take makes an index that another process gave out stand for kp, and reports whether its place was free.
func (t *indexTable) take(index uint32, kp *keypair) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		slots := *t.slots.Load()
		slot := &slots[index&uint32(len(slots)-1)]
		if slot.Load() == nil {
			slot.Store(&indexEntry{index: index, peer: kp.peer, keypair: kp})
			t.used++
			return true
		}
		if e := slot.Load(); (e.index^index)&indexMask == 0 || len(slots) >= maxIndexSlots {
			return false
		}
		t.grow() // told apart by more bits
	}
}
