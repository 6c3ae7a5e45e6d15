// Package replay accepts every message counter of a session at most once, in any order within a window.
package replay

import "sync/atomic"

const (
	// Size is how many counters the window spans: with m the highest accepted, m-Size+1 is the lowest acceptable.
	Size = 8192

	// RejectAfterMessages is the first counter never accepted (WireGuard paper §6.1).
	RejectAfterMessages = 1<<64 - 1<<13 - 1
)

// The window is a ring of 64-bit words. Each holds the bits of slotBits consecutive counters and, above them, the lap: how
// often the ring had gone round before it reached those counters. 13 is the widest slot that leaves room for the lap of any
// 64-bit counter (2^64/span < 2^51), so a lap is never ambiguous, however far an authenticated peer makes its counter jump.
//
// The ring spans slotBits-1 more than Size, so a word is taken over only by counters that have put all it held before out of
// the window.
const (
	slotBits = 13
	slots    = (Size + slotBits - 1 + slotBits - 1) / slotBits // 632
	span     = slots * slotBits                                // 8216
	lapShift = slotBits

	// The ring is made of pages, each when it is first used: a session that carries little, as most of a large tunnel's do,
	// takes a tenth of the memory.
	pageShift = 6
	pageSlots = 1 << pageShift
	pages     = (slots + pageSlots - 1) / pageSlots // 10
)

const (
	_ uint64 = span - (Size + slotBits - 1)                  // the ring is wide enough
	_ uint64 = 1<<(64-lapShift) - 1 - (1<<64-1)/uint64(span) // the lap fits above the bits
)

// Window is a sliding window over the counters of one direction of one session. The zero value has seen none. It takes 88
// bytes, and 512 more for each of the ten pages that counters have fallen on, so up to 5 KiB. It must not be copied.
//
// Each word only ever grows, as an unsigned number: a higher lap replaces it, within a lap bits are only added. A counter
// is accepted by the one compare-and-swap that sets its bit. So none is accepted twice whatever the interleaving, without a
// lock and without regard to max, which only tells what is too old.
type Window struct {
	max  atomic.Uint64 // highest counter accepted so far, plus one; 0: none
	ring [pages]atomic.Pointer[page]
}

// page is a part of the ring, words that are next to each other. A page that is not there reads as zeros.
type page [pageSlots]atomic.Uint64

// grow makes a page. Of two that are made at once one is used by all.
func (w *Window) grow(i uint64) *page {
	w.ring[i].CompareAndSwap(nil, new(page))
	return w.ring[i].Load()
}

// Accept reports, exactly once per counter, that it is new: false when it was accepted before, when a counter higher by Size
// or more has been accepted, or from [RejectAfterMessages] on. Call it for authenticated messages only. It is lock-free and
// safe for concurrent use. It allocates at most ten times in the life of a window, each time the ring grows by a page.
func (w *Window) Accept(counter uint64) bool {
	if counter >= RejectAfterMessages {
		return false
	}
	for {
		top := w.max.Load()
		if counter < top {
			if top-1-counter >= Size {
				return false
			}
			break
		}
		if w.max.CompareAndSwap(top, counter+1) {
			break
		}
	}

	lap, place := counter/span, counter%span
	slot := place / slotBits
	words := w.ring[slot>>pageShift].Load()
	if words == nil {
		words = w.grow(slot >> pageShift)
	}
	word := &words[slot&(pageSlots-1)]
	bit := uint64(1) << (place % slotBits)
	for {
		old := word.Load()
		updated := old | bit
		switch oldLap := old >> lapShift; {
		case oldLap > lap: // overtaken by a newer counter since max was read
			return false
		case oldLap < lap:
			updated = lap<<lapShift | bit
		case updated == old:
			return false
		}
		if word.CompareAndSwap(old, updated) {
			return true
		}
	}
}

// Newest reports whether no counter greater than this one has been accepted.
func (w *Window) Newest(counter uint64) bool { return w.max.Load() <= counter+1 }

// Reset forgets every counter. It must not run beside [Window.Accept].
func (w *Window) Reset() {
	w.max.Store(0)
	for i := range w.ring {
		if p := w.ring[i].Load(); p != nil {
			for j := range p {
				p[j].Store(0)
			}
		}
	}
}

// State is a window's memory: what [Window.Export] gives and [Window.Import] takes.
type State struct {
	Max   uint64   `cbor:"1,keyasint,omitempty"` // highest counter accepted, plus one
	Words []uint64 `cbor:"2,keyasint,omitempty"` // the ring up to its last word that is not zero, of at most [MaxWords]
}

// MaxWords is how many words a [State] has at most.
const MaxWords = slots

// Export returns what the window remembers. It must not run beside [Window.Accept].
func (w *Window) Export() (s State) {
	s.Max = w.max.Load()
	for i := range uint64(slots) {
		p := w.ring[i>>pageShift].Load()
		if p == nil {
			continue
		}
		if v := p[i&(pageSlots-1)].Load(); v != 0 {
			for uint64(len(s.Words)) < i {
				s.Words = append(s.Words, 0)
			}
			s.Words = append(s.Words, v)
		}
	}
	return s
}

// Import makes a fresh window remember what another exported, and reports whether that can be so: there are not too many words, and none is of
// counters beyond the highest.
func (w *Window) Import(s State) bool {
	if len(s.Words) > MaxWords || s.Max > RejectAfterMessages {
		return false
	}
	for _, v := range s.Words {
		if v != 0 && (s.Max == 0 || v>>lapShift > (s.Max-1)/span) {
			return false
		}
	}
	w.max.Store(s.Max)
	for i, v := range s.Words {
		if v != 0 {
			w.grow(uint64(i) >> pageShift)[i&(pageSlots-1)].Store(v)
		}
	}
	return true
}
