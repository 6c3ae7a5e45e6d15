package switching

import "time"

// Entry is a station that is known.
type Entry struct {
	Key    Key
	Port   Port
	Age    time.Duration // since it sent last, exact to a second; -1 if it is pinned and sent nothing yet
	Pinned bool          // then in every VLAN, and Key's is 0
}

// removeWhere removes what f says, with when it was seen last. The caller holds t.mu.
func (t *Table) removeWhere(f func(k Key, p Port, seen time.Duration) bool) (removed int) {
	for n := range t.buckets {
		b := &t.buckets[n]
		for i := range b.words {
			word := b.words[i].Load()
			if word != 0 && f(t.keyOf(n, word), portOf(word), time.Duration(b.seen[i].Load())) && t.remove(b, i, word) {
				removed++
			}
		}
	}
	return removed
}

// keyOf is the key of an entry in the nth bucket.
func (t *Table) keyOf(n int, word uint64) Key {
	return t.permutation.undo(uint64(n)<<t.shift | word>>portBits)
}

// Sweep removes what has aged, and returns how many stations that were. It is to be called about once a second, and passes over
// the whole table; lookups do not depend on it, but ports' counts and so their limits do.
func (t *Table) Sweep(now time.Duration) (removed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ageing := time.Duration(t.ageing.Load())
	return t.removeWhere(func(k Key, p Port, seen time.Duration) bool {
		return now-seen > ageing && (!t.holds(p) || t.full(p)) || t.outlawed(k, p)
	})
}

// Forget removes what was learned behind ports, which go on learning. It looks at nothing where nothing was learned, and else passes over the
// whole table, once.
func (t *Table) Forget(ports ...Port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(ports) == 1 {
		t.forget(ports[0])
		return
	}
	gone := make(map[Port]bool)
	for _, p := range ports {
		if t.ports[p].learned.Load() != 0 {
			gone[p] = true
		}
	}
	if len(gone) > 0 {
		t.removeWhere(func(_ Key, p Port, _ time.Duration) bool { return gone[p] })
	}
}

func (t *Table) forget(p Port) {
	if t.ports[p].learned.Load() != 0 {
		t.removeWhere(func(_ Key, q Port, _ time.Duration) bool { return p == q })
	}
}

// Retire ends a port's use: its pins are lifted, what was learned behind it is removed, and nothing is learned of it until
// SetLimit. A worker in the midst of learning may leave an entry yet, which the next Sweep removes; the number should not
// stand for another peer before that.
func (t *Table) Retire(p Port) {
	t.ports[p].limit.Store(retired)
	t.SetPins(p, nil) // cannot fail: no address conflicts
	t.Forget(p)
}

// Entries returns what is known, in no order.
func (t *Table) Entries(now time.Duration) []Entry {
	var list []Entry
	if ps := t.pins.Load(); ps != nil {
		for i := range ps.slots {
			pin := &ps.slots[i]
			if pin.address == 0 {
				continue
			}
			e := Entry{Key: KeyOf(pin.address, 0), Port: pin.port, Age: -1, Pinned: true}
			if seen := pin.seen.Load(); seen != never {
				e.Age = max(now-time.Duration(seen), 0)
			}
			list = append(list, e)
		}
	}
	for n := range t.buckets {
		b := &t.buckets[n]
		for i := range b.words {
			word := b.words[i].Load()
			if word == 0 || t.aged(b, i, now) {
				continue
			}
			k, p := t.keyOf(n, word), portOf(word)
			if !t.outlawed(k, p) {
				list = append(list, Entry{Key: k, Port: p, Age: max(now-time.Duration(b.seen[i].Load()), 0)})
			}
		}
	}
	return list
}
