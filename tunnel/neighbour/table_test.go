package neighbour

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"culvert/tunnel/ethernet"
)

func ip(n int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24|uint32(n))))
}

func (t *Table) is(test *testing.T, what string, a netip.Addr, vlan uint16, now time.Duration, want Binding, wantPort int) {
	test.Helper()
	got, port, ok := t.Lookup(a, vlan, now)
	if got != want || port != wantPort || ok != (want != Binding{}) {
		test.Errorf("%s: %+v at port %d, %t; want %+v at %d", what, got, port, ok, want, wantPort)
	}
}

func TestTable(t *testing.T) {
	table := NewTable(0, 0, 0)
	first, other := Binding{IP: b6, MAC: macB, Role: Router}, Binding{IP: b6, MAC: macA}
	table.Learn(first, 0, 1, time.Second)
	table.is(t, "learned", b6, 0, 2*time.Second, first, 1)
	table.is(t, "another VLAN", b6, 7, 2*time.Second, Binding{}, 0)
	table.is(t, "another address", a6, 0, 2*time.Second, Binding{}, 0)
	table.is(t, "just before it is too old", b6, 0, time.Second+DefaultAgeing-1, first, 1)
	table.is(t, "too old", b6, 0, time.Second+DefaultAgeing, Binding{}, 0)

	table.Learn(Binding{IP: b6, MAC: macB}, 0, 1, 3*time.Second)
	table.is(t, "seen again without its role", b6, 0, 2*time.Second+DefaultAgeing, first, 1)
	weak := other
	weak.Weak = true
	if table.Learn(weak, 0, 2, 4*time.Second) {
		t.Error("a weak claim was taken against a fresh one")
	}
	table.is(t, "weakly claimed", b6, 0, 4*time.Second, first, 1)
	table.Learn(other, 0, 2, 5*time.Second)
	table.is(t, "claimed by two", b6, 0, 5*time.Second, Binding{}, 0)
	table.Learn(other, 0, 2, DefaultAgeing)
	table.is(t, "claimed by two, a moment ago", b6, 0, 5*time.Second+DefaultAgeing-1, Binding{}, 0)
	table.is(t, "claimed by one since", b6, 0, 5*time.Second+DefaultAgeing, other, 2)
	table.Forget(2)
	table.Learn(other, 0, 2, 5*time.Second)
	weak.MAC = macB
	table.Learn(weak, 0, 3, 5*time.Second+DefaultAgeing)
	table.is(t, "weakly claimed when old", b6, 0, 6*time.Second+DefaultAgeing, weak, 3)
	table.SetAgeing(time.Second)
	table.is(t, "aged by a change", b6, 0, 6*time.Second+DefaultAgeing, Binding{}, 0)
	table.SetAgeing(0)
	table.is(t, "young by a change", b6, 0, 6*time.Second+DefaultAgeing, weak, 3)

	table.Learn(Binding{IP: a4, MAC: macA}, 9, 4, 6*time.Second+DefaultAgeing)
	table.Forget(3)
	table.is(t, "forgotten", b6, 0, 6*time.Second+DefaultAgeing, Binding{}, 0)
	table.Sweep(5*time.Second + 2*DefaultAgeing)
	if table.Len() != 1 {
		t.Errorf("%d left, want 1", table.Len())
	}
	table.Sweep(6*time.Second + 2*DefaultAgeing)
	if table.Len() != 0 || len(table.perPorts) != 0 {
		t.Errorf("%d left, ports %v", table.Len(), table.perPorts)
	}
}

// TestLimits: no port takes more than its share, nor all together more than there is; what changes hands frees its place.
func TestLimits(t *testing.T) {
	table := NewTable(10, 4, 0)
	for port := range 3 {
		for i := range 8 {
			want := i < min(4, 10-4*port)
			if got := table.Learn(Binding{IP: ip(100*port + i), MAC: macA}, 0, port, 1); got != want {
				t.Errorf("port %d, %d: taken %t", port, i, got)
			}
		}
	}
	if table.Len() != 10 {
		t.Errorf("%d bindings", table.Len())
	}
	if !table.Learn(Binding{IP: ip(0), MAC: macB}, 0, 0, 2) {
		t.Error("a known address was not taken at a full port")
	}
	if !table.Learn(Binding{IP: ip(0), MAC: macB}, 0, 2, 3) {
		t.Error("an address that moved was not taken by a port with room")
	}
	if table.Learn(Binding{IP: ip(50), MAC: macB}, 0, 0, 3) {
		t.Error("taken although the table is full")
	}
	// Contradicted by a claim there is no room for, what was known is not known any more.
	if table.Learn(Binding{IP: ip(200), MAC: macB}, 0, 1, 4) {
		t.Error("a full port took an address")
	}
	table.is(t, "contradicted", ip(200), 0, 4, Binding{}, 0)
	if !table.Learn(Binding{IP: ip(50), MAC: macB}, 0, 0, 4) {
		t.Error("the place of an address that moved was not freed")
	}
	table.Forget(1)
	if !table.Learn(Binding{IP: ip(107), MAC: macB}, 0, 1, 4) {
		t.Error("no room at a port that was forgotten")
	}
}

// TestAgainstModel: any sequence of calls, against a table that is searched from end to end.
func TestAgainstModel(t *testing.T) {
	type row struct {
		entry
		key
	}
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		const total, perPort, ageing = 12, 5, 100
		table := NewTable(total, perPort, ageing)
		var model []row
		keep := func(f func(row) bool) {
			var kept []row
			for _, r := range model {
				if f(r) {
					kept = append(kept, r)
				}
			}
			model = kept
		}
		now := time.Duration(1)
		for step := range 5000 {
			now += time.Duration(rng.IntN(8))
			k, port := key{ip(rng.IntN(15)), uint16(rng.IntN(2))}, rng.IntN(4)
			switch rng.IntN(20) {
			case 0:
				table.Forget(port)
				keep(func(r row) bool { return r.port != port })
			case 1:
				table.Sweep(now)
				keep(func(r row) bool { return now-r.at < ageing })
			default:
				b := Binding{IP: k.ip, MAC: ethernet.Address(1 + rng.IntN(3)), Weak: rng.IntN(4) == 0, Role: Role(rng.IntN(3))}
				var old row
				for _, r := range model {
					if r.key == k {
						old = r
					}
				}
				want := !b.Weak || old.MAC == b.MAC || old.MAC == 0 || now-old.at >= ageing
				if want {
					keep(func(r row) bool { return r.key != k })
					here := 0
					for _, r := range model {
						if r.port == port {
							here++
						}
					}
					if want = len(model) < total && here < perPort; want {
						kept := b
						if kept.Role == Unknown && old.MAC == b.MAC {
							kept.Role = old.Role
						}
						contested := old.contested
						if old.MAC != 0 && old.MAC != b.MAC && now-old.at < ageing {
							contested = now
						}
						model = append(model, row{entry{kept, port, now, contested}, k})
					}
				}
				if got := table.Learn(b, k.vlan, port, now); got != want {
					t.Fatalf("seed %d, step %d: learned %t, want %t", seed, step, got, want)
				}
			}
			if table.Len() != len(model) {
				t.Fatalf("seed %d, step %d: %d entries, want %d", seed, step, table.Len(), len(model))
			}
			for _, r := range model {
				b, port, ok := table.Lookup(r.ip, r.vlan, now)
				if known := now-r.at < ageing && (r.contested == 0 || now-r.contested >= ageing); ok != known || ok && (b != r.Binding || port != r.port) {
					t.Fatalf("seed %d, step %d: %+v at %d, want %+v", seed, step, b, port, r)
				}
			}
		}
	}
}

func TestConcurrent(t *testing.T) {
	table := NewTable(100, 60, time.Second)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				now := time.Duration(i) * time.Millisecond
				table.Learn(Binding{IP: ip(i % 150), MAC: macA}, 0, worker, now)
				if b, _, ok := table.Lookup(ip(i%77), 0, now); ok && b.MAC != macA {
					t.Error("torn binding")
				}
				switch i % 100 {
				case 50:
					table.Forget(worker)
				case 99:
					table.Sweep(now)
				}
			}
		})
	}
	wg.Wait()
	counted := 0
	for _, n := range table.perPorts {
		counted += n
	}
	if counted != table.Len() || table.Len() > 100 {
		t.Errorf("%d counted, %d there", counted, table.Len())
	}
}
