package neighbour

import (
	"net/netip"
	"sync"
	"time"
)

// Defaults of NewTable.
const (
	DefaultTotal   = 16384
	DefaultPerPort = 1024
	DefaultAgeing  = 300 * time.Second
)

// Table holds bindings by VLAN and address, with the switch's port that each was learned at. Ports are numbers of the caller's
// choice.
// A binding that has not been learned again for the ageing time is gone. At a limit new ones are not learned, until old
// ones have aged: their questions are flooded, as they would be without a table. A binding takes about 150 bytes, so the
// default limit is about 2.5 MB.
//
// A Table may be used by several goroutines. Its lock is for frames that are questions or claims; others need no table.
type Table struct {
	mu       sync.Mutex
	total    int
	perPort  int
	ageing   time.Duration
	entries  map[key]entry
	perPorts map[int]int // how many entries each port has; none with 0
}

type key struct {
	ip   netip.Addr
	vlan uint16
}

type entry struct {
	Binding
	port int
	at   time.Duration // when it was last learned
	// contested is when another hardware address last claimed it while it was fresh; 0: never.
	contested time.Duration
}

// NewTable returns an empty table for at most total bindings, of them perPort of one port; 0 stands for the default.
func NewTable(total, perPort int, ageing time.Duration) *Table {
	t := &Table{
		total: DefaultTotal, perPort: DefaultPerPort, ageing: DefaultAgeing,
		entries: map[key]entry{}, perPorts: map[int]int{},
	}
	if total > 0 {
		t.total = total
	}
	if perPort > 0 {
		t.perPort = perPort
	}
	if ageing > 0 {
		t.ageing = ageing
	}
	return t
}

// SetAgeing changes the ageing time, for what is there already too; 0 stands for the default.
func (t *Table) SetAgeing(ageing time.Duration) {
	if ageing <= 0 {
		ageing = DefaultAgeing
	}
	t.mu.Lock()
	t.ageing = ageing
	t.mu.Unlock()
}

// Learn notes a binding that was seen at a port at the monotonic time now. It replaces what was known of the address, which is
// dropped even where there is no room for the new one; a weak one does so only if that is older than the ageing time or of the
// same hardware address. It reports false where it was not taken.
func (t *Table) Learn(b Binding, vlan uint16, port int, now time.Duration) bool {
	k := key{b.IP, vlan}
	t.mu.Lock()
	defer t.mu.Unlock()
	old, known := t.entries[k]
	same := known && old.MAC == b.MAC
	fresh := known && t.fresh(old, now)
	if fresh && b.Weak && !same {
		return false
	}
	if known {
		delete(t.entries, k)
		t.uncount(old.port)
	}
	if len(t.entries) >= t.total || t.perPorts[port] >= t.perPort {
		return false
	}
	if same && b.Role == Unknown {
		b.Role = old.Role
	}
	contested := old.contested
	if fresh && !same {
		contested = now
	}
	t.perPorts[port]++
	t.entries[k] = entry{b, port, now, contested}
	return true
}

// Lookup returns what is known of an address, and the port it is at. Of an address that two stations claimed within the ageing
// time nothing is known: which of them has it is for those to find out who ask. Otherwise one false claim would go on being told
// to everybody who asks, long after the true owner has spoken again to somebody. The caller must check that the switch still has the
// hardware address at that port: a station that has left takes its address along.
func (t *Table) Lookup(ip netip.Addr, vlan uint16, now time.Duration) (b Binding, port int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[key{ip, vlan}]
	if !ok || !t.fresh(e, now) || e.contested != 0 && now-e.contested < t.ageing {
		return Binding{}, 0, false
	}
	return e.Binding, e.port, true
}

// Forget drops all bindings of a port.
func (t *Table) Forget(port int) {
	t.drop(func(e entry) bool { return e.port == port })
}

// Sweep drops the bindings that are too old. It is to be called from time to time, to make room for others.
func (t *Table) Sweep(now time.Duration) {
	t.drop(func(e entry) bool { return !t.fresh(e, now) })
}

// Len returns how many bindings there are, those included that are too old but not swept yet.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

func (t *Table) drop(condemned func(entry) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, e := range t.entries {
		if condemned(e) {
			delete(t.entries, k)
			t.uncount(e.port)
		}
	}
}

func (t *Table) fresh(e entry, now time.Duration) bool { return now-e.at < t.ageing }

func (t *Table) uncount(port int) {
	if t.perPorts[port]--; t.perPorts[port] == 0 {
		delete(t.perPorts, port)
	}
}
