package tunnel

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
)

// indexTable finds what a receiver index stands for: a keypair, or a handshake that awaits its response.
//
// An index is 32 random bits; its low bits are its slot. Two live indices never share a slot, so a lookup is one load, and
// stays right while the table grows, since indices that differ in n low bits differ in n+1. Lookups are safe beside changes
// and take no lock.
type indexTable struct {
	slots atomic.Pointer[[]atomic.Pointer[indexEntry]] // length a power of two

	mu   sync.Mutex // held by changes
	used int
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
)

var errIndicesExhausted = errors.New("no free session index")

func newIndexTable() *indexTable {
	t := &indexTable{}
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
		slot := &slots[index&uint32(len(slots)-1)]
		if slot.Load() == nil {
			slot.Store(&indexEntry{index: index, peer: p})
			t.used++
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
