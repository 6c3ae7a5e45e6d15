package switching

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a table is made with.
type Options struct {
	// Capacity is how many entries there is room for, rounded up to a power of two; MinCapacity, the default, at least and
	// MaxCapacity at most. As it fills up, stations find their bucket full and are not learned: of as many stations as fill
	// half of it one in 120, as three quarters of it one in 19, as all of it one in 7.
	Capacity int
	// Ageing is after how long a station that sent nothing is forgotten; 0 is DefaultAgeing.
	Ageing time.Duration
}

const (
	MinCapacity = 1 << 16 // 1 MiB, of which the pages that stations fall into become resident
	MaxCapacity = 1 << 24

	// DefaultAgeing is IEEE 802.1Q-2018's (table 8-6).
	DefaultAgeing = 300 * time.Second
)

// seenGrain is how exact an entry knows when its station sent last, where ageing is not so short as to need better. A busy
// station's entry is so written to once a second, not with every frame, and otherwise stays shared between processors' caches.
const seenGrain = time.Second

const (
	ways     = 8
	portBits = 16
	// minIndexBits is how many bits of a permuted key the bucket's number has to stand for, as the rest and the port share 64.
	minIndexBits = keyBits + portBits - 64
)

// Table is the forwarding database: which port a station is behind.
//
// It is set-associative: a bucket of 8 entries, two cache lines, is all that a lookup reads and that a learned station can
// change. The key, permuted by a secret of the table's own, begins with the bucket's number; what is left of it fits into one
// word with the port:
//
//	words[i]  rest of the permuted key (48 bits or fewer) | port + 1 (16 bits); 0 is empty
//	seen[i]   when its station last sent, in ns
//
// So a port is never returned for another key than it was learned with, whatever races: both are read at once. All changes of
// words[i] are compare-and-swaps from what was seen there, and each successful one adds to and takes from the ports' counts
// just what it changed, which keeps them exact. A slot passes from one station to another only through empty. seen[i] may be
// written by a worker that has not noticed yet that the slot changed hands, but then with its own now, which is about the
// newcomer's.
//
// Two workers that learn the same station at once may put it into two slots. Each looks through the bucket after it has put its
// entry, so that at least one of them sees both, and removes the later slot; until then lookups find the earlier one.
type Table struct {
	permutation permutation
	shift       uint // of the permuted key, to the bucket's number
	buckets     []bucket
	ageing      atomic.Int64
	pins        atomic.Pointer[pins] // nil where there are none

	_     [64]byte // what is above is read with every frame, and rarely written
	moves atomic.Uint64
	ports [1 << portBits]port // 768 KiB, of which what is used becomes resident

	mu sync.Mutex // held by changes of pins, and by what removes entries apart from the datapath
}

type bucket struct {
	words [ways]atomic.Uint64
	seen  [ways]atomic.Int64
}

// port is what the table knows of a port. All zero is a port without limit.
type port struct {
	learned atomic.Int32 // entries, and those about to be put
	limit   atomic.Int32 // of learned, plus 1, 0: none; holding besides, or retired
	pinned  atomic.Int32 // if not 0, only these are accepted
}

const (
	retired = -1
	holding = 1 << 30 // beside a limit
)

// The rest of a permuted key leaves room for the port.
const _ = uint(MinCapacity/ways - 1<<minIndexBits)

// Verdict is what became of a frame's source. A frame that comes out as Full or Refused is one the port may not send; one that
// comes out as Crowded is as good as any, and answers to it are flooded.
type Verdict uint8

const (
	Known   Verdict = iota // is behind this port
	New                    // was not known, and is learned
	Moved                  // was behind another port, and is learned anew
	Full                   // not learned: the port has reached its limit
	Crowded                // not learned: there is no room beside other ports' stations
	Refused                // not learned: pinned to another port or held by it, or this one accepts only those pinned to it, or is retired
)

func (v Verdict) String() string {
	return [...]string{"known", "new", "moved", "full", "crowded", "refused"}[v]
}

// NewTable makes an empty table.
func NewTable(o Options) *Table {
	capacity := min(max(o.Capacity, MinCapacity), MaxCapacity)
	indexBits := uint(bits.Len(uint(capacity-1)) - bits.Len(ways-1))
	t := &Table{
		permutation: newPermutation(),
		shift:       keyBits - indexBits,
		buckets:     make([]bucket, 1<<indexBits),
	}
	t.SetAgeing(o.Ageing)
	return t
}

// SetAgeing changes after how long a station that sent nothing is forgotten; 0 and less is DefaultAgeing.
func (t *Table) SetAgeing(d time.Duration) {
	if d <= 0 {
		d = DefaultAgeing
	}
	t.ageing.Store(int64(d))
}

// Moves is how many times a station turned up at another port than it was known at.
func (t *Table) Moves() uint64 { return t.moves.Load() }

// Count is how many stations are known behind a port, learned and pinned. Those that aged count until they are swept.
func (t *Table) Count(p Port) int {
	return int(t.ports[p].learned.Load() + t.ports[p].pinned.Load())
}

// SetLimit sets how many stations are learned behind a port, besides those pinned to it; a negative number takes the limit off,
// and a port that none was set for has none. It ends a port's retirement. Stations beyond a lowered limit stay until they age.
func (t *Table) SetLimit(p Port, n int) { t.setLimit(p, n, 0) }

// Hold is SetLimit of a port that holds what was learned behind it: until the port is forgotten, no other port but the device can have these
// stations, and they do not age but where the port has reached its limit. In turn it takes none over from another port that is known there.
func (t *Table) Hold(p Port, n int) { t.setLimit(p, n, holding) }

func (t *Table) setLimit(p Port, n int, flag int32) {
	if n < 0 {
		n = -1
	}
	t.ports[p].limit.Store(int32(min(n, len(t.buckets)*ways)) + 1 | flag)
}

// holds reports whether a port holds its stations.
func (t *Table) holds(p Port) bool {
	limit := t.ports[p].limit.Load()
	return limit != retired && limit&holding != 0
}

// full reports whether a port has reached its limit.
func (t *Table) full(p Port) bool {
	limit := t.ports[p].limit.Load() &^ holding
	return limit > 0 && t.ports[p].learned.Load() >= limit-1
}

// place finds a key's bucket, and what its words have above the port.
func (t *Table) place(k Key) (b *bucket, rest uint64) {
	x := t.permutation.apply(k)
	return &t.buckets[x>>t.shift], x & (1<<t.shift - 1) << portBits
}

// portOf is the port of a word that is not empty.
func portOf(word uint64) Port { return Port(word - 1) }

func wordOf(rest uint64, p Port) uint64 { return rest | uint64(p+1) }

// holds reports whether a word is an entry of the key whose rest is given. An empty word is none, even where rest is 0.
func holds(word, rest uint64) bool { return word^rest-1 < 1<<portBits-1 }

// Lookup finds the port that a station is behind.
func (t *Table) Lookup(k Key, now time.Duration) (p Port, ok bool) {
	if pins := t.pins.Load(); pins != nil {
		if pin := pins.find(&t.permutation, k.Address()); pin != nil {
			return pin.port, true
		}
	}
	b, rest := t.place(k)
	for i := range b.words {
		if !holds(b.words[i].Load(), rest) {
			continue
		}
		aged := t.aged(b, i, now)
		// What was seen of an aged entry's successor in this slot says nothing of the entry.
		word := b.words[i].Load()
		if aged || !holds(word, rest) {
			return 0, false
		}
		return portOf(word), true
	}
	return 0, false
}

func (t *Table) aged(b *bucket, i int, now time.Duration) bool {
	return int64(now)-b.seen[i].Load() > t.ageing.Load() && !t.holds(portOf(b.words[i].Load()))
}

// grain is how old a last sight may be before it is noted anew.
func (t *Table) grain() int64 { return min(int64(seenGrain), t.ageing.Load()/8) }
