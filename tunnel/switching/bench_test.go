package switching

import (
	"fmt"
	"testing"
	"time"

	"culvert/tunnel/ethernet"
)

func TestDatapathAllocatesNothing(t *testing.T) {
	table := NewTable(Options{Ageing: time.Hour})
	table.SetLimit(1, 50)
	if err := table.SetPins(2, []ethernet.Address{0xa}); err != nil {
		t.Fatal(err)
	}
	full := neighbours(table, ways+1)
	vlans := newVLANs(t, 5, 6)
	buf := append(make([]byte, ethernet.TagSize), frameOf()...)
	var l Limiter
	l.SetRate(100)
	k, now := station, time.Duration(0)
	var got [Refused + 1]int
	if n := testing.AllocsPerRun(200, func() {
		k++
		now += time.Second
		learn := func(k Key, p Port) {
			v, _ := table.Learn(k, p, now)
			got[v]++
		}
		learn(k, 1)
		learn(k, 3)
		learn(k, 3)
		learn(k+1000, 1)
		learn(KeyOf(0xa, 3), 3)
		for i, k := range full {
			learn(k, Port(10+i))
		}
		table.Lookup(k, now)
		table.Lookup(k+5000, now)
		l.Allow(now)
		h, _ := ethernet.Parse(buf[ethernet.TagSize:])
		vlan, a, _ := vlans.Ingress(h)
		lo := a.Apply(buf, ethernet.TagSize, vlan)
		a, _ = vlans.Egress(vlan, h.Tags+1)
		if a.Apply(buf, lo, vlan) != ethernet.TagSize {
			t.Fatal("the frame is elsewhere")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for v, n := range got {
		if n == 0 {
			t.Errorf("nothing came out as %v", Verdict(v))
		}
	}
}

func benchmarkStations(b *testing.B, f func(b *testing.B, table *Table, keys []Key, mask int)) {
	for _, n := range []int{1, 1000, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := NewTable(Options{})
			// Stations in no order of their own; as many as a power of two, so that counting round costs nothing.
			keys := make([]Key, 1)
			for len(keys) < n {
				keys = make([]Key, 2*len(keys))
			}
			for i := range keys {
				keys[i] = KeyOf(ethernet.Address(0x525400000000|i*7919%n), 5)
				table.Learn(keys[i], 1, 0)
			}
			b.ReportAllocs()
			f(b, table, keys, len(keys)-1)
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	benchmarkStations(b, func(b *testing.B, table *Table, keys []Key, mask int) {
		i, found := 0, 0
		for b.Loop() {
			if _, ok := table.Lookup(keys[i&mask], time.Second/2); ok {
				found++
			}
			i++
		}
		if found < i*9/10 {
			b.Errorf("%d of %d found", found, i)
		}
	})
}

func BenchmarkLearnKnown(b *testing.B) {
	benchmarkStations(b, func(b *testing.B, table *Table, keys []Key, mask int) {
		i, known := 0, 0
		for b.Loop() {
			if v, _ := table.Learn(keys[i&mask], 1, time.Second/2); v == Known {
				known++
			}
			i++
		}
		if known < i*8/10 {
			b.Errorf("%d of %d known", known, i)
		}
	})
}

// The worst: every frame from a new address, by a port that has reached its limit.
func BenchmarkLearnFlood(b *testing.B) {
	table := NewTable(Options{})
	table.SetLimit(1, 1024)
	b.ReportAllocs()
	k := station
	for b.Loop() {
		table.Learn(k, 1, 0)
		k++
	}
}

func BenchmarkLimiter(b *testing.B) {
	var l Limiter
	l.SetRate(1_000_000)
	b.ReportAllocs()
	now := time.Duration(0)
	for b.Loop() {
		now += 2 * time.Microsecond
		if !l.Allow(now) {
			b.Fatal("refused")
		}
	}
}

func BenchmarkSweep(b *testing.B) {
	table := NewTable(Options{})
	for k := range Key(1000) {
		table.Learn(k, 1, 0)
	}
	for b.Loop() {
		table.Sweep(0)
	}
}

// Everybody's session ends at once: ten thousand ports with one station each.
func BenchmarkForgetPorts(b *testing.B) {
	const ports = 10_000
	table := NewTable(Options{})
	list := make([]Port, ports)
	for i := range list {
		list[i] = Port(i + 1)
		table.SetLimit(list[i], 8)
	}
	for b.Loop() {
		b.StopTimer()
		for i, p := range list {
			table.Learn(station+Key(i), p, 0)
		}
		b.StartTimer()
		table.Forget(list...)
	}
	if n := len(table.Entries(0)); n != 0 {
		b.Errorf("%d stations are left", n)
	}
}
