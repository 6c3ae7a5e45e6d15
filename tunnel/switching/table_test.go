package switching

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"culvert/tunnel/ethernet"
)

const station Key = 0x525400000001

func wantLookup(t *testing.T, table *Table, k Key, now time.Duration, p Port, ok bool) {
	t.Helper()
	if gotPort, gotOK := table.Lookup(k, now); gotPort != p || gotOK != ok {
		t.Fatalf("%x at %v is at %d, %t; want %d, %t", uint64(k), now, gotPort, gotOK, p, ok)
	}
}

func wantLearn(t *testing.T, table *Table, k Key, p Port, now time.Duration, v Verdict, previous Port) {
	t.Helper()
	if gotV, gotPrevious := table.Learn(k, p, now); gotV != v || gotPrevious != previous {
		t.Fatalf("%x learned from %d at %v: %v, was at %d; want %v, %d", uint64(k), p, now, gotV, gotPrevious, v, previous)
	}
}

// neighbours returns n keys that share a bucket.
func neighbours(table *Table, n int) []Key {
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = table.permutation.undo(77<<table.shift | uint64(i))
	}
	return keys
}

func TestKey(t *testing.T) {
	k := KeyOf(0x525400123456, ethernet.ServiceVLAN|5)
	if k != 0x1005_5254_0012_3456 || k.Address() != 0x525400123456 || k.VLAN() != 0x1005 {
		t.Errorf("key %x: %v in VLAN %x", uint64(k), k.Address(), k.VLAN())
	}
	if k := KeyOf(0xffff_5254_0012_3456, 0xffff); k != 0x1fff_5254_0012_3456 {
		t.Errorf("key of too many bits: %x", uint64(k))
	}
}

func TestPermutationIsUndone(t *testing.T) {
	p := newPermutation()
	for range 100_000 {
		k := Key(rand.Uint64() & keyMask)
		x := p.apply(k)
		if x&^keyMask != 0 || p.undo(x) != k {
			t.Fatalf("%x became %x and came back as %x (%+v)", uint64(k), x, uint64(p.undo(x)), p)
		}
	}
	if q := newPermutation(); q == p {
		t.Error("two permutations are the same")
	}
}

func TestVerdictsAndAges(t *testing.T) {
	table := NewTable(Options{Ageing: 10 * time.Second})
	const s = time.Second
	wantLookup(t, table, station, 0, 0, false)
	wantLearn(t, table, station, Device, 0, New, 0)
	wantLookup(t, table, station, 10*s, Device, true)
	wantLookup(t, table, station, 10*s+1, 0, false)
	wantLookup(t, table, KeyOf(station.Address(), 1), 0, 0, false)
	wantLearn(t, table, station, Device, s, Known, 0) // refreshed
	wantLookup(t, table, station, 11*s, Device, true)
	wantLearn(t, table, station, Device, s+s/2, Known, 0) // too soon to be noted
	wantLookup(t, table, station, 11*s+1, 0, false)
	wantLearn(t, table, station, Device, 20*s, New, 0) // aged, though not swept
	wantLearn(t, table, station, 3, 20*s, Moved, Device)
	wantLookup(t, table, station, 30*s, 3, true)
	wantLearn(t, table, station, MaxPort, 21*s, Moved, 3)
	wantLookup(t, table, station, 31*s, MaxPort, true)
	wantLearn(t, table, station, 4, 40*s, New, 0) // aged elsewhere is no move
	wantLearn(t, table, station+1, MaxPort+1, 40*s, Refused, 0)
	if n := table.Moves(); n != 2 {
		t.Errorf("%d moves, want 2", n)
	}
	for p, want := range map[Port]int{Device: 0, 3: 0, MaxPort: 0, 4: 1} {
		if n := table.Count(p); n != want {
			t.Errorf("port %d has %d, want %d", p, n, want)
		}
	}
	if n := table.Sweep(50 * s); n != 0 {
		t.Errorf("%d swept that had not aged", n)
	}
	table.SetAgeing(9 * s)
	wantLookup(t, table, station, 50*s, 0, false)
	if n := table.Sweep(50 * s); n != 1 || table.Count(4) != 0 || table.buckets[0].find(1<<63) >= 0 {
		t.Errorf("%d swept, %d left; want 1, 0", n, table.Count(4))
	}
	table.SetAgeing(0)
	wantLearn(t, table, station, 4, 0, New, 0)
	wantLookup(t, table, station, DefaultAgeing, 4, true)
	wantLookup(t, table, station, DefaultAgeing+1, 0, false)
}

// A short ageing is not outdone by how seldom sights are noted.
func TestShortAgeing(t *testing.T) {
	table := NewTable(Options{Ageing: time.Second / 10})
	for now := time.Duration(0); now < time.Second; now += 30 * time.Millisecond {
		table.Learn(station, 1, now)
		wantLookup(t, table, station, now+time.Second/20, 1, true)
	}
}

// Every key is possible, also that whose word is all zero but for the port.
func TestAllKeys(t *testing.T) {
	table := NewTable(Options{})
	undo := table.permutation.undo
	for _, k := range []Key{0, keyMask, undo(0), undo(keyMask), undo(77 << table.shift)} {
		wantLookup(t, table, k, 0, 0, false)
		wantLearn(t, table, k, Device, 0, New, 0)
		wantLookup(t, table, k, 0, Device, true)
	}
	if n := len(table.Entries(0)); n != 5 {
		t.Errorf("%d entries, want 5", n)
	}
}

func TestFullBuckets(t *testing.T) {
	table := NewTable(Options{})
	keys := neighbours(table, 20)
	for i, k := range keys[:8] {
		wantLearn(t, table, k, Port(1+i%4), time.Duration(i), New, 0) // ports 1 to 4 have two each
	}
	for range 3 {
		wantLearn(t, table, keys[8], 5, 8, Crowded, 0)
	}
	wantLookup(t, table, keys[8], 8, 0, false)
	for i, k := range keys[:8] {
		wantLookup(t, table, k, 8, Port(1+i%4), true)
	}
	wantLearn(t, table, keys[9], 2, 9, New, 0) // in place of the port's own oldest
	wantLookup(t, table, keys[1], 9, 0, false)
	wantLookup(t, table, keys[5], 9, 2, true)
	wantLookup(t, table, keys[9], 9, 2, true)
	if n := table.Count(2); n != 2 {
		t.Errorf("port 2 has %d, want 2", n)
	}
	wantLearn(t, table, keys[0], 5, 10, Moved, 1) // takes no room
	// Aged entries give way to anybody, before a port's own.
	now := DefaultAgeing + 5
	wantLearn(t, table, keys[10], 2, now, New, 0)
	wantLookup(t, table, keys[9], now, 2, true)
	wantLookup(t, table, keys[5], now, 2, true)
	wantLookup(t, table, keys[10], now, 2, true)
	if n := table.Count(3); n != 1 {
		t.Errorf("port 3 has %d, want 1", n)
	}
}

func TestLimits(t *testing.T) {
	table := NewTable(Options{})
	table.SetLimit(1, 2)
	table.SetLimit(2, 0)
	wantLearn(t, table, 1, 1, 0, New, 0)
	wantLearn(t, table, 2, 1, 0, New, 0)
	wantLearn(t, table, 3, 1, 0, Full, 0)
	wantLearn(t, table, 2, 1, 0, Known, 0)
	wantLearn(t, table, 1, 2, 0, Full, 0) // not even one that moves
	wantLookup(t, table, 1, 0, 1, true)
	wantLearn(t, table, 3, 3, 0, New, 0)
	wantLearn(t, table, 3, 1, 0, Full, 0)
	wantLearn(t, table, 1, 3, 0, Moved, 1)
	wantLearn(t, table, 3, 1, 0, Moved, 3) // there is room again
	table.SetLimit(1, 1)
	wantLearn(t, table, 2, 1, 0, Known, 0)
	wantLearn(t, table, 4, 1, 0, Full, 0)
	table.SetLimit(1, -1)
	wantLearn(t, table, 4, 1, 0, New, 0)
	if n := table.Count(1); n != 3 {
		t.Errorf("port 1 has %d, want 3", n)
	}
}

// A flood of addresses from one port takes its limit, and displaces nothing of other ports'.
func TestFloodOfAddresses(t *testing.T) {
	table := NewTable(Options{})
	table.SetLimit(1, 1024)
	others := make(map[Key]Port)
	for i := range Key(20_000) {
		k, p := KeyOf(0x525400000000, 7)+i, Port(2+i%3)
		if v, _ := table.Learn(k, p, 0); v != New && v != Crowded {
			t.Fatalf("%x: %v", uint64(k), v)
		}
	}
	for i := range Key(20_000) { // but for a few, in buckets that were full
		k := KeyOf(0x525400000000, 7) + i
		if p, ok := table.Lookup(k, 0); ok {
			others[k] = p
		}
	}
	counts := map[Port]int{2: table.Count(2), 3: table.Count(3), 4: table.Count(4)}
	if len(others) < 19_900 || counts[2]+counts[3]+counts[4] != len(others) {
		t.Fatalf("of 20000 stations %d were learned, counted as %v", len(others), counts)
	}
	verdicts := make(map[Verdict]int)
	for i := range Key(1_000_000) {
		v, _ := table.Learn(KeyOf(0x020000000000, 7)+i, 1, 1)
		verdicts[v]++
	}
	if n := table.Count(1); n > 1024 || n < 1000 || verdicts[Full] < 990_000 ||
		verdicts[Known]+verdicts[Moved]+verdicts[Refused] > 0 {
		t.Errorf("the flooding port has %d of 1024: %v", n, verdicts)
	}
	for k, p := range others {
		wantLookup(t, table, k, 1, p, true)
	}
	for p, want := range counts {
		if n := table.Count(p); n != want {
			t.Errorf("port %d has %d, had %d", p, n, want)
		}
	}
}

func TestForgetAndRetire(t *testing.T) {
	table := NewTable(Options{})
	for k := range Key(100) {
		wantLearn(t, table, k, Port(k%2), 0, New, 0)
	}
	table.Forget(1)
	if table.Count(1) != 0 || table.Count(0) != 50 || len(table.Entries(0)) != 50 {
		t.Fatalf("%d, %d and %d entries; want 0, 50 and 50", table.Count(1), table.Count(0), len(table.Entries(0)))
	}
	wantLearn(t, table, 1, 1, 0, New, 0)
	// What a worker puts that began before the port was retired is swept.
	b, rest := table.place(3)
	table.reserve(1)
	table.Retire(1)
	wantLearn(t, table, 1, 1, 0, Refused, 0)
	b.words[7].Store(wordOf(rest, 1))
	if n := table.Sweep(0); n != 1 || table.Count(1) != 0 {
		t.Errorf("%d swept, %d left; want 1 and 0", n, table.Count(1))
	}
	table.SetLimit(1, 5)
	wantLearn(t, table, 1, 1, 0, New, 0)
}

func TestPins(t *testing.T) {
	table := NewTable(Options{})
	a, b, other := ethernet.Address(0xa), ethernet.Address(0xb), ethernet.Address(0xc)
	wantLearn(t, table, KeyOf(a, 5), 2, 0, New, 0)
	wantLearn(t, table, KeyOf(other, 0), 1, 0, New, 0)
	wantLearn(t, table, KeyOf(other, 1), 3, 0, New, 0)
	table.SetLimit(1, 0)
	if err := table.SetPins(1, []ethernet.Address{a, b, a}); err != nil {
		t.Fatal(err)
	}
	if table.Count(1) != 2 || table.Count(2) != 0 || table.Count(3) != 1 {
		t.Fatalf("ports have %d, %d, %d; want 2, 0, 1", table.Count(1), table.Count(2), table.Count(3))
	}
	for _, vlan := range []uint16{0, 5, ethernet.ServiceVLAN | 5} {
		wantLookup(t, table, KeyOf(a, vlan), time.Hour, 1, true)
		wantLearn(t, table, KeyOf(a, vlan), 1, time.Minute, Known, 0)
		wantLearn(t, table, KeyOf(a, vlan), 2, time.Minute, Refused, 0)
		wantLearn(t, table, KeyOf(other, vlan), 1, time.Minute, Refused, 0)
	}
	wantLearn(t, table, KeyOf(other, 0), 2, time.Minute, New, 0)
	if err := table.SetPins(2, []ethernet.Address{0xd, b}); err == nil || table.Count(2) != 1 {
		t.Errorf("pinned twice: %v, and port 2 has %d", err, table.Count(2))
	}
	wantLookup(t, table, KeyOf(0xd, 0), 0, 0, false)
	if err := table.SetPins(2, []ethernet.Address{0xd}); err != nil || table.Count(2) != 1 {
		t.Errorf("%v, and port 2 has %d, want 1", err, table.Count(2))
	}
	wantLookup(t, table, KeyOf(other, 0), time.Minute, 0, false) // of port 2, which accepts 0xd only now
	got := table.Entries(2 * time.Minute)
	slices.SortFunc(got, func(x, y Entry) int { return int(x.Key.Address()) - int(y.Key.Address()) })
	want := []Entry{
		{KeyOf(a, 0), 1, time.Minute, true},
		{KeyOf(b, 0), 1, -1, true},
		{KeyOf(other, 1), 3, 2 * time.Minute, false},
		{KeyOf(0xd, 0), 2, -1, true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("entries %v, want %v", got, want)
	}
	if err := table.SetPins(1, []ethernet.Address{b, a}); err != nil {
		t.Fatal(err)
	}
	if e := table.Entries(2 * time.Minute); !slices.Contains(e, want[0]) || !slices.Contains(e, want[1]) {
		t.Errorf("pinned anew: %v, want still %v", e, want[:2])
	}
	if err := table.SetPins(2, nil); err != nil {
		t.Fatal(err)
	}
	wantLearn(t, table, KeyOf(0xd, 0), 3, 0, New, 0)
	wantLookup(t, table, KeyOf(b, 0), 0, 1, true)
	table.Retire(1)
	if table.pins.Load() != nil {
		t.Error("pins are kept for nobody")
	}
	wantLookup(t, table, KeyOf(b, 0), 0, 0, false)
	wantLearn(t, table, KeyOf(b, 0), 3, 0, New, 0)
}

func TestManyPins(t *testing.T) {
	table := NewTable(Options{})
	for p := range Port(50) {
		var list []ethernet.Address
		for i := range ethernet.Address(20) {
			list = append(list, 0x525400000000|ethernet.Address(p)<<8|i)
		}
		if err := table.SetPins(p, list); err != nil {
			t.Fatal(err)
		}
	}
	for p := range Port(50) {
		for i := range ethernet.Address(25) {
			port, ok := table.Lookup(KeyOf(0x525400000000|ethernet.Address(p)<<8|i, 3), 0)
			if ok != (i < 20) || (ok && port != p) {
				t.Fatalf("station %d of %d is at %d, %t", i, p, port, ok)
			}
		}
	}
}

// model is what a table ought to do where no bucket is full.
type model struct {
	ageing  time.Duration
	entries map[Key]Entry // Age is when it was seen
	limits  map[Port]int
	pins    map[ethernet.Address]Port
	moves   uint64
}

func (m *model) aged(e Entry, now time.Duration) bool { return now-e.Age > m.ageing }

func (m *model) count(p Port) (n int) {
	for _, e := range m.entries {
		if e.Port == p {
			n++
		}
	}
	return n
}

func (m *model) portPinned(p Port) (n int) {
	for _, q := range m.pins {
		if p == q {
			n++
		}
	}
	return n
}

func (m *model) lookup(k Key, now time.Duration) (Port, bool) {
	if p, ok := m.pins[k.Address()]; ok {
		return p, true
	}
	e, ok := m.entries[k]
	if !ok || m.aged(e, now) {
		return 0, false
	}
	return e.Port, true
}

func (m *model) learn(k Key, p Port, now time.Duration) (Verdict, Port) {
	if q, ok := m.pins[k.Address()]; ok {
		if p == q {
			return Known, 0
		}
		return Refused, 0
	}
	if m.portPinned(p) > 0 {
		return Refused, 0
	}
	e, ok := m.entries[k]
	if ok && e.Port == p {
		if now-e.Age >= min(time.Second, m.ageing/8) {
			m.entries[k] = Entry{Port: p, Age: now}
		}
		if m.aged(e, now) {
			return New, 0
		}
		return Known, 0
	}
	if limit, limited := m.limits[p]; limited && m.count(p) >= limit {
		return Full, 0
	}
	m.entries[k] = Entry{Port: p, Age: now}
	if !ok || m.aged(e, now) {
		return New, 0
	}
	m.moves++
	return Moved, e.Port
}

func (m *model) pin(p Port, list []ethernet.Address) bool {
	for _, a := range list {
		if q, ok := m.pins[a]; ok && p != q {
			return false
		}
	}
	maps.DeleteFunc(m.pins, func(_ ethernet.Address, q Port) bool { return p == q })
	for _, a := range list {
		m.pins[a] = p
	}
	maps.DeleteFunc(m.entries, func(k Key, e Entry) bool {
		_, pinned := m.pins[k.Address()]
		return pinned || m.portPinned(e.Port) > 0
	})
	return true
}

func randomProgram(r *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestTableIsLikeItsModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		runBoth(t, randomProgram(r, 6000))
	}
}

// FuzzTable does with a table and with a model of it what the bytes say.
func FuzzTable(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 8 {
		f.Add(randomProgram(r, 90))
	}
	f.Fuzz(func(t *testing.T, program []byte) { runBoth(t, program) })
}

// runBoth takes each three bytes of a program as a call, and its arguments.
func runBoth(t *testing.T, program []byte) {
	m := &model{ageing: 10 * time.Second, entries: map[Key]Entry{}, limits: map[Port]int{}, pins: map[ethernet.Address]Port{}}
	table := NewTable(Options{Ageing: m.ageing})
	now := time.Duration(0)
	for ; len(program) >= 3; program = program[3:] {
		// Few stations, so that buckets of 8 are full only for who is very unlucky: 8 of 96 in one of 8192.
		k, p, n := KeyOf(ethernet.Address(program[1]%32+1), uint16(program[1]/32%3)), Port(program[2]%6), int(program[2]/6)
		switch op := program[0] % 64; {
		case op < 32:
			wantV, wantPrevious := m.learn(k, p, now)
			wantLearn(t, table, k, p, now, wantV, wantPrevious)
		case op < 52:
			wantPort, wantOK := m.lookup(k, now)
			wantLookup(t, table, k, now, wantPort, wantOK)
		case op < 56:
			now += time.Duration(n) * 100 * time.Millisecond
		case op < 58:
			want := 0
			maps.DeleteFunc(m.entries, func(_ Key, e Entry) bool {
				if m.aged(e, now) {
					want++
					return true
				}
				return false
			})
			if got := table.Sweep(now); got != want {
				t.Fatalf("%d swept, want %d", got, want)
			}
		case op < 60:
			m.limits[p] = n
			table.SetLimit(p, n)
		case op < 61:
			delete(m.limits, p)
			table.SetLimit(p, -1)
		case op < 62:
			maps.DeleteFunc(m.entries, func(_ Key, e Entry) bool { return e.Port == p })
			table.Forget(p)
		case op < 63:
			var list []ethernet.Address
			for i := range n % 4 {
				list = append(list, k.Address()+ethernet.Address(i))
			}
			if err := table.SetPins(p, list); (err == nil) != m.pin(p, list) {
				t.Fatalf("pinning %v to %d: %v", list, p, err)
			}
		default:
			m.ageing = time.Duration(n+1) * time.Second
			table.SetAgeing(m.ageing)
		}
		for p := range Port(6) {
			if got, want := table.Count(p), m.count(p)+m.portPinned(p); got != want {
				t.Fatalf("port %d has %d, want %d", p, got, want)
			}
		}
	}
	live := make(map[Key]Port)
	for k, e := range m.entries {
		if !m.aged(e, now) {
			live[k] = e.Port
		}
	}
	for a, p := range m.pins {
		live[KeyOf(a, 0)] = p
	}
	got := make(map[Key]Port)
	for _, e := range table.Entries(now) {
		if _, twice := got[e.Key]; twice {
			t.Fatalf("%x is listed twice", uint64(e.Key))
		}
		got[e.Key] = e.Port
	}
	if !maps.Equal(got, live) {
		t.Fatalf("entries %v, want %v", got, live)
	}
	if n := table.Moves(); n != m.moves {
		t.Fatalf("%d moves, want %d", n, m.moves)
	}
}

func TestCapacity(t *testing.T) {
	for capacity, want := range map[int]int{-1: 1 << 16, 0: 1 << 16, 1 << 16: 1 << 16, 1<<16 + 1: 1 << 17, 1 << 62: MaxCapacity} {
		table := NewTable(Options{Capacity: capacity})
		if n := len(table.buckets) * ways; n != want {
			t.Errorf("room for %d of %d, want %d", n, capacity, want)
		}
		wantLearn(t, table, keyMask, 9, 0, New, 0)
		wantLookup(t, table, keyMask, 0, 9, true)
		if capacity > 1<<20 {
			continue
		}
		if e := table.Entries(0); len(e) != 1 || e[0].Key != keyMask {
			t.Errorf("entries %v", e)
		}
	}
}
