package switching

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"culvert/tunnel/ethernet"
)

// ErrPinned is returned for an address that is pinned to another port already.
var ErrPinned = errors.New("is pinned to another port")

// pins are the addresses that are accepted from one port only, in every VLAN: an immutable hash table, by the permutation's top
// bits and with linear probing. At least half of it is empty.
type pins struct {
	shift uint
	slots []pin // length a power of two
}

type pin struct {
	address ethernet.Address // 0: empty
	port    Port
	seen    atomic.Int64 // when the station sent last, in ns; or never
}

// never is so long ago that a time less it does not overflow.
const never = -1 << 62

func newPins(room int) *pins {
	indexBits := uint(bits.Len(uint(2*room - 1)))
	return &pins{shift: keyBits - indexBits, slots: make([]pin, 1<<indexBits)}
}

// slot finds where an address is or belongs.
func (ps *pins) slot(m *permutation, a ethernet.Address) *pin {
	for i := m.apply(KeyOf(a, 0)) >> ps.shift; ; i++ {
		if p := &ps.slots[i&uint64(len(ps.slots)-1)]; p.address == a || p.address == 0 {
			return p
		}
	}
}

// find returns an address's pin, or nil.
func (ps *pins) find(m *permutation, a ethernet.Address) *pin {
	if p := ps.slot(m, a); p.address != 0 {
		return p
	}
	return nil
}

// SetPins makes addresses the only ones that are accepted from a port, in every VLAN, and has them accepted from no other. It
// replaces what was pinned to the port before; none lifts that. Pinned stations do not age, need no room and do not count
// towards the port's limit; lookups find them whether or not they ever sent. What the port or another had learned to the
// contrary is forgotten. Errors: ErrPinned, and then nothing changed.
func (t *Table) SetPins(p Port, addresses []ethernet.Address) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.pins.Load()
	addresses = slices.DeleteFunc(slices.Clone(addresses), func(a ethernet.Address) bool { return a == 0 })
	room := len(addresses)
	if old != nil {
		for _, a := range addresses {
			if pin := old.find(&t.permutation, a); pin != nil && pin.port != p {
				return fmt.Errorf("%v %w", a, ErrPinned)
			}
		}
		for i := range old.slots {
			if pin := &old.slots[i]; pin.address != 0 && pin.port != p {
				room++
			}
		}
	}
	if room == 0 {
		t.pins.Store(nil)
		t.ports[p].pinned.Store(0)
		return nil
	}
	ps := newPins(room)
	if old != nil {
		for i := range old.slots {
			if pin := &old.slots[i]; pin.address != 0 && pin.port != p {
				kept := ps.slot(&t.permutation, pin.address)
				kept.address, kept.port = pin.address, pin.port
				kept.seen.Store(pin.seen.Load())
			}
		}
	}
	count := int32(0)
	for _, a := range addresses {
		pin := ps.slot(&t.permutation, a)
		if pin.address == 0 {
			count++
		}
		pin.address, pin.port = a, p
		pin.seen.Store(never)
		if old != nil {
			if was := old.find(&t.permutation, a); was != nil {
				pin.seen.Store(was.seen.Load())
			}
		}
	}
	t.pins.Store(ps)
	t.ports[p].pinned.Store(count)
	t.removeWhere(func(k Key, q Port, _ time.Duration) bool { return t.outlawed(k, q) })
	return nil
}

// outlawed reports whether pins or a retirement do not admit an entry. Such are left by workers that began before the change.
func (t *Table) outlawed(k Key, p Port) bool {
	if t.ports[p].limit.Load() == retired {
		return true
	}
	ps := t.pins.Load()
	return ps != nil && (t.ports[p].pinned.Load() != 0 || ps.find(&t.permutation, k.Address()) != nil)
}
