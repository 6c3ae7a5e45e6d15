package switching

import "time"

// attempts bounds how often a worker begins anew because others changed the bucket under it.
const attempts = 4

// Learn notes that a frame from k came in at port p. previous is where a station that moved was.
//
// A station that moves is found at its new port at once, however often: which of the two ends lies is not known here, and a
// virtual machine has to be reached when it has migrated. Moves shows those that go to and fro. Ports that hold their stations are the
// exception (see [Table.Hold]).
//
// In a bucket full of others' entries that have not aged, nothing is learned. A port's own entry there, the one that sent longest
// ago, gives way, but never another port's: an address that is not known costs that its frames are flooded, which is the same
// for newcomer and evicted, and whoever sends from ever new addresses has to bear that cost, not the stations that were
// there. Nor can anybody choose addresses to fill a certain bucket with, as the placement is secret. A million addresses from one
// port so take as many entries as its limit allows, in places that were free.
func (t *Table) Learn(k Key, p Port, now time.Duration) (v Verdict, previous Port) {
	if pins := t.pins.Load(); pins != nil {
		if pin := pins.find(&t.permutation, k.Address()); pin != nil {
			if pin.port != p {
				return Refused, 0
			}
			if int64(now)-pin.seen.Load() >= t.grain() {
				pin.seen.Store(int64(now))
			}
			return Known, 0
		}
		if t.ports[p].pinned.Load() != 0 {
			return Refused, 0
		}
	}
	b, rest := t.place(k)
	for range attempts {
		i := b.find(rest)
		if i < 0 {
			var again bool
			if v, again = t.put(b, rest, p, now); again {
				continue
			}
			return v, 0
		}
		word := b.words[i].Load()
		if !holds(word, rest) {
			continue
		}
		aged := t.aged(b, i, now)
		if portOf(word) == p {
			if int64(now)-b.seen[i].Load() >= t.grain() {
				b.seen[i].Store(int64(now))
			}
			if aged {
				return New, 0
			}
			return Known, 0
		}
		if from := portOf(word); p != Device && t.holds(from) || !aged && t.holds(p) {
			return Refused, 0
		}
		if v := t.reserve(p); v != New {
			return v, 0
		}
		if !b.words[i].CompareAndSwap(word, wordOf(rest, p)) {
			t.release(p)
			continue
		}
		t.release(portOf(word))
		b.seen[i].Store(int64(now))
		if aged {
			return New, 0
		}
		t.moves.Add(1)
		return Moved, portOf(word)
	}
	return Crowded, 0
}

// find returns the slot of the entry whose rest is given, or -1.
func (b *bucket) find(rest uint64) int {
	for i := range b.words {
		if holds(b.words[i].Load(), rest) {
			return i
		}
	}
	return -1
}

// reserve counts one entry more for a port; New if it may have one.
func (t *Table) reserve(p Port) Verdict {
	if p > MaxPort {
		return Refused
	}
	limit := t.ports[p].limit.Load()
	if limit == retired {
		return Refused
	}
	limit &^= holding
	// Who asks at the limit does not write, so that a flood does not keep the count's cache line to itself.
	if limit != 0 && t.ports[p].learned.Load() >= limit-1 {
		return Full
	}
	if n := t.ports[p].learned.Add(1); limit != 0 && n > limit-1 {
		t.ports[p].learned.Add(-1)
		return Full
	}
	return New
}

func (t *Table) release(p Port) { t.ports[p].learned.Add(-1) }

// remove empties a slot if it still is what it was.
func (t *Table) remove(b *bucket, i int, word uint64) bool {
	if !b.words[i].CompareAndSwap(word, 0) {
		return false
	}
	t.release(portOf(word))
	return true
}

// put makes an entry in a bucket that has none for this key; again if others were faster.
func (t *Table) put(b *bucket, rest uint64, p Port, now time.Duration) (v Verdict, again bool) {
	if v := t.reserve(p); v != New {
		return v, false
	}
	i := t.vacate(b, p, now)
	if i < 0 {
		t.release(p)
		return Crowded, false
	}
	// The time comes first, so that nobody finds the entry aged. Nobody else's entry is here to become younger by it.
	b.seen[i].Store(int64(now))
	if !b.words[i].CompareAndSwap(0, wordOf(rest, p)) {
		t.release(p)
		return New, true
	}
	t.unite(b, rest)
	return New, false
}

// vacate finds an empty slot, or else empties one: that of an aged entry, or else of the port's own that is oldest. -1: none.
func (t *Table) vacate(b *bucket, p Port, now time.Duration) int {
	agedSlot, own := -1, -1
	var agedWord, ownWord uint64
	for i := range b.words {
		word := b.words[i].Load()
		switch {
		case word == 0:
			return i
		case agedSlot < 0 && t.aged(b, i, now):
			agedSlot, agedWord = i, word
		case portOf(word) == p && (own < 0 || b.seen[i].Load() < b.seen[own].Load()):
			own, ownWord = i, word
		}
	}
	if agedSlot >= 0 {
		own, ownWord = agedSlot, agedWord
	}
	if own >= 0 {
		t.remove(b, own, ownWord) // or somebody else has, or has renewed it, which the caller will notice
	}
	return own
}

// unite removes all but the first entry of a key.
func (t *Table) unite(b *bucket, rest uint64) {
	first := false
	for i := range b.words {
		for {
			word := b.words[i].Load()
			if !holds(word, rest) {
				break
			}
			if !first {
				first = true
				break
			}
			if t.remove(b, i, word) {
				break
			}
		}
	}
}
