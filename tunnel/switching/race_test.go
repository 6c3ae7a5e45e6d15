package switching

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/tunnel/ethernet"
)

// wantQuiet checks what has to hold once nobody changes the table: no station twice, and counts that are those of the entries.
func wantQuiet(t *testing.T, table *Table) {
	t.Helper()
	counts := make(map[Port]int)
	seen := make(map[Key]bool)
	for n := range table.buckets {
		for i := range table.buckets[n].words {
			if word := table.buckets[n].words[i].Load(); word != 0 {
				k := table.keyOf(n, word)
				if seen[k] {
					t.Errorf("%x is there twice", uint64(k))
				}
				seen[k] = true
				counts[portOf(word)]++
			}
		}
	}
	for p := range table.ports {
		if got := int(table.ports[p].learned.Load()); got != counts[Port(p)] {
			t.Errorf("port %d counts %d entries and has %d", p, got, counts[Port(p)])
		}
	}
}

// Workers learn, lose and look up more stations than their buckets hold, each at ports that are its own, while the control loop
// sweeps, forgets, limits and pins: a port that is not the station's may never be found.
func TestRacesMixNothingUp(t *testing.T) {
	table := NewTable(Options{Ageing: 3 * time.Microsecond})
	keys := neighbours(table, 24)
	// An address of one of the keys is pinned now and then. Addresses of keys differ, but for astonishing luck.
	const pinned = 5
	portsOf := func(i int) [2]Port { return [2]Port{Port(2*i + 1), Port(2*i + 2)} }
	var clock, found, learned atomic.Int64
	var done atomic.Bool
	var workers, control sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range 60_000 {
				now := time.Duration(clock.Add(int64(r.IntN(200))))
				i := r.IntN(len(keys))
				ports := portsOf(i)
				if r.IntN(2) == 0 {
					v, previous := table.Learn(keys[i], ports[r.IntN(2)], now)
					if v == Moved && previous != ports[0] && previous != ports[1] {
						t.Errorf("station %d moved from port %d", i, previous)
					}
					if v == New {
						learned.Add(1)
					}
				} else if p, ok := table.Lookup(keys[i], now); ok {
					found.Add(1)
					if p != ports[0] && p != ports[1] {
						t.Errorf("station %d found at port %d", i, p)
					}
				}
			}
		})
	}
	control.Go(func() {
		r := rand.New(rand.NewPCG(9, 9))
		for !done.Load() {
			i := r.IntN(len(keys))
			p := portsOf(i)[r.IntN(2)]
			switch r.IntN(8) {
			case 0:
				table.Forget(p)
			case 1:
				table.Retire(p)
				table.SetLimit(p, -1)
			case 2:
				if table.SetPins(portsOf(pinned)[0], []ethernet.Address{keys[pinned].Address()}) == nil {
					table.SetPins(portsOf(pinned)[0], nil)
				}
			case 3:
				for _, e := range table.Entries(time.Duration(clock.Load())) {
					if !e.Pinned && e.Port != Port(2*slot(keys, e.Key)+1) && e.Port != Port(2*slot(keys, e.Key)+2) {
						t.Errorf("station %d listed at port %d", slot(keys, e.Key), e.Port)
					}
				}
			case 4:
				table.SetLimit(p, r.IntN(3)-1)
			default:
				table.Sweep(time.Duration(clock.Load()))
			}
		}
	})
	workers.Wait()
	done.Store(true)
	control.Wait()
	wantQuiet(t, table)
	t.Logf("%d learned, %d found, %d moves", learned.Load(), found.Load(), table.Moves())
	if learned.Load() < 1000 || found.Load() < 1000 || table.Moves() < 100 {
		t.Error("hardly anything happened")
	}
}

func slot(keys []Key, k Key) int {
	for i := range keys {
		if keys[i] == k {
			return i
		}
	}
	return -1
}

// Workers that learn the same stations at once leave one entry of each, and exact counts.
func TestRacesLearnOnce(t *testing.T) {
	const workers, rounds = 4, 1000
	table := NewTable(Options{})
	for round := range rounds {
		keys := neighbours(table, ways)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				<-start
				for i := range keys {
					table.Learn(keys[(i*3+w*round)%len(keys)], Port(w%2), time.Duration(round))
				}
			})
		}
		close(start)
		wg.Wait()
		if round%100 == 0 {
			wantQuiet(t, table)
		}
		if n := table.Count(0) + table.Count(1); n > len(keys) || n < len(keys)/2 {
			t.Fatalf("%d entries of %d stations", n, len(keys))
		}
		table.Forget(0)
		table.Forget(1)
		if table.Count(0) != 0 || table.Count(1) != 0 {
			t.Fatalf("%d and %d left", table.Count(0), table.Count(1))
		}
	}
}

// Two workers that put the same station into two slots, as neither had found it: one entry stays, and lookups agree on which all
// the time.
func TestDuplicatesAreUnited(t *testing.T) {
	for _, x := range []struct {
		slot       int // of the one that was first
		first, own Port
		want       Port
	}{{6, 1, 1, 1}, {6, 1, 2, 2}, {0, 1, 1, 1}, {0, 1, 2, 1}} {
		table := NewTable(Options{})
		b, rest := table.place(station)
		table.reserve(x.first)
		b.words[x.slot].Store(wordOf(rest, x.first))
		if v, again := table.put(b, rest, x.own, 0); v != New || again {
			t.Errorf("%+v: put with %v, %t", x, v, again)
		}
		wantQuiet(t, table)
		wantLookup(t, table, station, 0, x.want, true)
		table.unite(b, rest) // the other worker's second look
		wantQuiet(t, table)
		wantLookup(t, table, station, 0, x.want, true)
		if n := table.Count(1) + table.Count(2); n != 1 {
			t.Errorf("%+v: %d entries, want 1", x, n)
		}
	}
}

// A port's entries never exceed its limit, however many workers learn for it.
func TestRacesKeepLimits(t *testing.T) {
	const limit = 500
	table := NewTable(Options{})
	table.SetLimit(1, limit)
	var wg sync.WaitGroup
	var full atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				if v, _ := table.Learn(KeyOf(ethernet.Address(0x520000000000|w<<24|i), 0), 1, 0); v == Full {
					full.Add(1)
				}
				if i%1000 == 0 {
					if n := len(table.Entries(0)); n > limit {
						t.Errorf("%d entries, limit %d", n, limit)
					}
				}
			}
		})
	}
	wg.Wait()
	wantQuiet(t, table)
	if n := table.Count(1); n > limit || n < limit*9/10 || full.Load() == 0 {
		t.Errorf("%d entries of %d, %d refused", n, limit, full.Load())
	}
}

// Where there is room for one, one of several workers gets it, each time it becomes free.
func TestRacesForTheLastPlace(t *testing.T) {
	table := NewTable(Options{})
	table.SetLimit(1, 1)
	var wg sync.WaitGroup
	var inside, passed atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			k := station + Key(w)
			for range 200_000 {
				if v, _ := table.Learn(k, 1, 0); v != New && v != Moved {
					continue
				}
				if n := inside.Add(1); n > 1 {
					t.Errorf("%d stations at once", n)
				}
				passed.Add(1)
				inside.Add(-1)
				table.Learn(k, 2, 0)
			}
		})
	}
	wg.Wait()
	wantQuiet(t, table)
	if passed.Load() == 0 {
		t.Error("nobody got the place")
	}
}
