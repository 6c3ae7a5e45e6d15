package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"math/bits"
	"sync/atomic"
	"time"

	"culvert/tunnel/device"
)

// DefaultRing is the usual size of a ring, in bytes.
const DefaultRing = 16 << 20

// MaxSnap is how much of a packet can be recorded, in bytes: all of it.
const MaxSnap = device.MaxPacket

// ErrClosed is returned by [Ring.Next] when the ring is closed and empty.
var ErrClosed = errors.New("the capture is closed")

const (
	// unit is what room is reserved in, in bytes. A record's header is one unit, its data begin with the next.
	unit = 64
	// closedBit in Ring.head refuses all reservations that come after it.
	closedBit = 1 << 63
	// gathering is how long a woken consumer lets records come together, so that producers wake it a thousand times a
	// second at most.
	gathering = time.Millisecond
)

// Ring is a bounded queue of records, from many producers to one consumer, as bytes in a ring of units.
//
// A producer reserves the units of its record by moving head, fills them, and commits by writing how many they are into
// the word that belongs to the first of them. The consumer reads from tail on: it waits for that word, copies the record,
// clears the word, and only then gives the units back by moving tail. head and tail never turn back; a unit's place is its
// number modulo the size. Every access to a unit is so ordered by atomics: a producer saw tail behind the last reading
// of what it overwrites, and the consumer saw the word behind the writing of what it reads.
//
// Records come out in the order in which room was reserved, which for each producer is its own. One that is reserved and not
// yet committed holds up those behind it, but never another producer.
type Ring struct {
	bytes  []byte          // units, a power of two of them
	commit []atomic.Uint32 // for each unit: how many the committed record takes that begins there, or 0
	snap   int
	wake   chan struct{}
	copied []byte // the consumer's, snap long
	told   uint64 // drops the consumer has told of

	_        [unit]byte
	head     atomic.Uint64 // the next unit to be reserved, and closedBit
	_        [unit]byte
	tail     atomic.Uint64 // the next unit to be read; written by the consumer
	_        [unit]byte
	sleeping atomic.Bool // the consumer waits for wake, or is about to
	dropped  atomic.Uint64
	_        [unit]byte
}

// NewRing returns a ring of the given size in bytes that records the first snap bytes of each packet. The size is rounded up
// to a power of two, and to room for two such records; 0 is [DefaultRing]. snap 0 is [MaxSnap], which is also the most.
func NewRing(size, snap int) *Ring {
	if snap <= 0 || snap > MaxSnap {
		snap = MaxSnap
	}
	if size <= 0 {
		size = DefaultRing
	}
	units := max((size+unit-1)/unit, 2*int(unitsFor(snap)))
	units = 1 << bits.Len(uint(units-1))
	return &Ring{
		bytes:  make([]byte, units*unit),
		commit: make([]atomic.Uint32, units),
		snap:   snap,
		wake:   make(chan struct{}, 1),
		copied: make([]byte, snap),
	}
}

// unitsFor is how many units a record of n bytes of data takes.
func unitsFor(n int) uint64 { return uint64(1 + (n+unit-1)/unit) }

// Snap is how many bytes of a packet are recorded at most.
func (r *Ring) Snap() int { return r.snap }

// Put records a packet, or counts it as dropped where there is no room. It may be called by any number of goroutines, and
// neither waits nor allocates; only where the consumer sleeps it is woken. After Close it does nothing.
func (r *Ring) Put(m Meta, packet []byte) {
	stored := min(len(packet), r.snap)
	need := unitsFor(stored)
	for {
		head := r.head.Load()
		if head&closedBit != 0 {
			return
		}
		// tail is read after head: where it is ahead of a head that is old by now, the swap fails.
		if int64(head+need-r.tail.Load()) > int64(len(r.commit)) {
			r.dropped.Add(1)
			return
		}
		if r.head.CompareAndSwap(head, head+need) {
			r.fill(head, m, packet, stored)
			r.commit[r.place(head)].Store(uint32(need))
			r.poke()
			return
		}
	}
}

func (r *Ring) place(n uint64) int { return int(n & uint64(len(r.commit)-1)) }

// The header: at u64, length u32, stored u32, flags u8, three bytes unused, peer.
const (
	lengthAt = 8
	storedAt = 12
	flagsAt  = 16
	peerAt   = 20
)

const (
	flagOut = 1 << iota
	flagElided
	flagPartial
	flagSuper
)

func flag(is bool, f byte) byte {
	if is {
		return f
	}
	return 0
}

// fill writes a record into the units from n on.
func (r *Ring) fill(n uint64, m Meta, packet []byte, stored int) {
	at := r.place(n) * unit
	h := r.bytes[at : at+unit]
	binary.LittleEndian.PutUint64(h, uint64(m.At))
	binary.LittleEndian.PutUint32(h[lengthAt:], uint32(len(packet)))
	binary.LittleEndian.PutUint32(h[storedAt:], uint32(stored))
	h[flagsAt] = flag(m.Out, flagOut) | flag(m.Elided, flagElided) | flag(m.Partial, flagPartial) | flag(m.Super, flagSuper)
	copy(h[peerAt:], m.Peer[:])
	data := packet[:stored]
	copied := copy(r.bytes[r.place(n+1)*unit:], data)
	copy(r.bytes, data[copied:]) // around the end
}

// TryNext returns the next record, false where there is none yet. Only the one consumer may call it.
func (r *Ring) TryNext() (Record, bool) {
	n := r.tail.Load()
	word := &r.commit[r.place(n)]
	units := word.Load()
	if units == 0 {
		return Record{}, false
	}
	at := r.place(n) * unit
	h := r.bytes[at : at+unit]
	flags := h[flagsAt]
	rec := Record{
		Meta: Meta{
			At: time.Duration(binary.LittleEndian.Uint64(h)), Out: flags&flagOut != 0, Elided: flags&flagElided != 0,
			Partial: flags&flagPartial != 0, Super: flags&flagSuper != 0,
		},
		Length: int(binary.LittleEndian.Uint32(h[lengthAt:])),
		Data:   r.copied[:binary.LittleEndian.Uint32(h[storedAt:])],
	}
	copy(rec.Peer[:], h[peerAt:])
	copied := copy(rec.Data, r.bytes[r.place(n+1)*unit:])
	copy(rec.Data[copied:], r.bytes)
	word.Store(0)
	r.tail.Store(n + uint64(units))
	dropped := r.dropped.Load()
	rec.Dropped, r.told = dropped-r.told, dropped
	return rec, true
}

// Next waits for the next record. Errors: ErrClosed when the ring is closed and every record was read; ctx's own, whether or
// not there are records. Only the one consumer may call it.
func (r *Ring) Next(ctx context.Context) (Record, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Record{}, err
		}
		if rec, ok := r.TryNext(); ok {
			return rec, nil
		}
		if r.finished() {
			return Record{}, ErrClosed
		}
		r.sleeping.Store(true)
		// Who commits, or closes, after this look sees that the consumer sleeps.
		if r.commit[r.place(r.tail.Load())].Load() != 0 || r.finished() {
			r.sleeping.Store(false)
			continue
		}
		select {
		case <-r.wake:
			time.Sleep(gathering)
		case <-ctx.Done():
			r.sleeping.Store(false)
		}
	}
}

func (r *Ring) finished() bool { return r.head.Load() == r.tail.Load()|closedBit }

// poke wakes the consumer where it sleeps.
func (r *Ring) poke() {
	if r.sleeping.Load() && r.sleeping.CompareAndSwap(true, false) {
		select {
		case r.wake <- struct{}{}:
		default: // it was woken already
		}
	}
}

// Close refuses all further records; those recorded are still read. It may be called by anybody, also while producers Put.
func (r *Ring) Close() {
	r.head.Or(closedBit)
	r.poke()
}

// Dropped is how many records there was no room for.
func (r *Ring) Dropped() uint64 { return r.dropped.Load() }
