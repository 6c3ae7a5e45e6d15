package replay

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// model is the window's definition: a set, and the highest counter in it.
type model struct {
	seen map[uint64]bool
	max  uint64
	any  bool
}

func (m *model) accept(c uint64) bool {
	if c >= RejectAfterMessages || m.seen[c] || m.any && m.max >= Size && c <= m.max-Size {
		return false
	}
	if m.seen == nil {
		m.seen = make(map[uint64]bool)
	}
	m.seen[c] = true
	if !m.any || c > m.max {
		m.max, m.any = c, true
	}
	return true
}

func TestBoundary(t *testing.T) {
	type step struct {
		counter uint64
		want    bool
	}
	const last = RejectAfterMessages - 1
	for name, steps := range map[string][]step{
		"zero once":         {{0, true}, {0, false}},
		"lowest in window":  {{Size, true}, {1, true}, {1, false}, {0, false}},
		"zero still in":     {{Size - 1, true}, {0, true}, {0, false}},
		"exactly too old":   {{100000, true}, {100000 - Size, false}, {100000 - Size + 1, true}, {100000 - Size + 1, false}},
		"window slides":     {{5, true}, {5 + Size - 1, true}, {5, false}, {6, true}, {5 + Size, true}, {6, false}, {7, true}},
		"the last counters": {{last, true}, {last, false}, {last - Size + 1, true}, {last - Size, false}},
		"beyond the limit":  {{RejectAfterMessages, false}, {1<<64 - 1, false}, {0, true}, {last, true}, {0, false}},
		"jump over 2^60":    {{3, true}, {1 << 60, true}, {1<<60 - 1, true}, {1 << 60, false}, {3, false}, {1<<60 - Size, false}},
		// Jumps by multiples of what a narrower lap counter could not tell apart.
		"jump by laps of 2^32": {{7, true}, {7 + span<<32, true}, {7 + span<<32, false}, {8 + span<<32, true}, {7, false}},
		"jump by laps of 2^48": {{7, true}, {7 + span<<48, true}, {7 + span<<48, false}, {8 + span<<48, true}, {7, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var w Window
			for i, s := range steps {
				if got := w.Accept(s.counter); got != s.want {
					t.Fatalf("step %d: Accept(%d) = %v", i, s.counter, got)
				}
			}
		})
	}
}

// TestEveryOffset checks the oldest acceptable counter for every position of the window on the ring.
func TestEveryOffset(t *testing.T) {
	for offset := range uint64(2*span + 3) {
		var w Window
		top := 1<<40 + offset
		for _, c := range []struct {
			counter uint64
			want    bool
		}{{top, true}, {top - Size, false}, {top - Size + 1, true}, {top - Size + 1, false}, {top - Size + 2, true}, {top, false}} {
			if w.Accept(c.counter) != c.want {
				t.Fatalf("top %d: Accept(top-%d) = %v", top, top-c.counter, !c.want)
			}
		}
	}
}

// TestModel compares the window with its definition over random walks of several shapes.
func TestModel(t *testing.T) {
	for shape, next := range map[string]func(r *rand.Rand, max uint64) uint64{
		"in order with losses": func(r *rand.Rand, max uint64) uint64 { return max + 1 + r.Uint64N(3) },
		"shuffled within":      func(r *rand.Rand, max uint64) uint64 { return max + 40 - min(max+40, r.Uint64N(80)) },
		"around the edge": func(r *rand.Rand, max uint64) uint64 {
			if r.IntN(3) == 0 {
				return max + r.Uint64N(40)
			}
			return max - min(max, Size-20+r.Uint64N(40))
		},
		"anywhere near": func(r *rand.Rand, max uint64) uint64 {
			return max + Size/2 - min(max+Size/2, r.Uint64N(2*Size))
		},
		"leaps": func(r *rand.Rand, max uint64) uint64 {
			if r.IntN(50) == 0 {
				return max + r.Uint64()>>(r.Uint32N(50)+10)
			}
			return max - min(max, r.Uint64N(Size+50))
		},
		"anything": func(r *rand.Rand, max uint64) uint64 {
			if r.IntN(4) == 0 {
				return r.Uint64() >> r.Uint32N(64)
			}
			return max - min(max, r.Uint64N(Size+10))
		},
	} {
		t.Run(shape, func(t *testing.T) {
			for seed := range uint64(20) {
				r := rand.New(rand.NewPCG(seed, 1))
				var w Window
				var m model
				accepted := 0
				for i := range 5000 {
					c := next(r, m.max)
					want := m.accept(c)
					if got := w.Accept(c); got != want {
						t.Fatalf("seed %d step %d: Accept(%d) = %v with max %d", seed, i, c, got, m.max)
					}
					if want {
						accepted++
					}
				}
				if accepted < 20 {
					t.Fatalf("seed %d: only %d accepted, the walk tests nothing", seed, accepted)
				}
			}
		})
	}
}

// TestConcurrently gives every counter to several goroutines at once while the window moves on. Each counter is accepted at
// most once; and exactly once where nobody runs ahead by more than the window.
func TestConcurrently(t *testing.T) {
	const workers = 4
	for _, c := range []struct {
		name    string
		total   uint64
		stride  uint64 // distance between one counter and the next
		barrier uint64 // all goroutines meet after this many counters
		exactly bool
	}{
		{"in step", 20000, 1, 4000, true},
		{"running apart", 60000, 1, 60000, false},
		{"colliding words", 4000, span, 4000, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w Window
			counts := make([]atomic.Int32, c.total)
			for start := uint64(0); start < c.total; start += c.barrier {
				var wg sync.WaitGroup
				for worker := range uint64(workers) {
					wg.Go(func() {
						order := rand.New(rand.NewPCG(worker, start)).Perm(int(c.barrier))
						if worker%2 == 0 { // two in order, two shuffled
							slices.Sort(order)
						}
						for _, k := range order {
							i := start + uint64(k)
							if w.Accept(i * c.stride) {
								counts[i].Add(1)
							}
						}
					})
				}
				wg.Wait()
			}
			for i := range counts {
				n := counts[i].Load()
				if n > 1 || c.exactly && n != 1 {
					t.Fatalf("counter %d accepted %d times", uint64(i)*c.stride, n)
				}
			}
		})
	}
}

func TestReset(t *testing.T) {
	var w Window
	for c := range uint64(3 * Size) {
		w.Accept(c)
	}
	w.Reset()
	for c := range uint64(100) {
		if !w.Accept(c) {
			t.Fatalf("counter %d refused after Reset", c)
		}
	}
}

func TestAllocations(t *testing.T) {
	var w Window
	c := uint64(0)
	if avg := testing.AllocsPerRun(1000, func() {
		w.Accept(c)
		w.Accept(c)
		c += 3
	}); avg != 0 {
		t.Errorf("Accept allocates %v times", avg)
	}
}

// FuzzWindow drives window and model with deltas: each three bytes move the counter, with an exponent for leaps.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 1, 0, 1, 0, 0})
	f.Add([]byte{0, 0, 32, 1, 0, 32, 1, 1, 0})
	f.Add([]byte{60, 1, 0, 1, 0, 32, 1, 255, 31})
	f.Fuzz(func(t *testing.T, program []byte) {
		var w Window
		var m model
		at := uint64(0)
		for i := 0; i+3 <= len(program); i += 3 {
			delta := (uint64(program[i+1]) | uint64(program[i+2])<<8) << (program[i] >> 1 % 64)
			if program[i]&1 == 1 {
				at -= delta
			} else {
				at += delta
			}
			if got, want := w.Accept(at), m.accept(at); got != want {
				t.Fatalf("step %d: Accept(%d) = %v with max %d", i/3, at, got, m.max)
			}
		}
	})
}

func BenchmarkAccept(b *testing.B) {
	for _, stride := range []uint64{1, 97} {
		b.Run(fmt.Sprint("stride ", stride), func(b *testing.B) {
			var w Window
			c := uint64(0)
			for b.Loop() {
				w.Accept(c)
				c += stride
			}
		})
	}
}

// A window has the pages that counters have fallen on, and no more of them than there are whatever comes.
func TestPages(t *testing.T) {
	var w Window
	grown := func() (n int) {
		for i := range w.ring {
			if w.ring[i].Load() != nil {
				n++
			}
		}
		return n
	}
	if grown() != 0 {
		t.Error("pages before the first counter")
	}
	for c := range uint64(slotBits * pageSlots) {
		w.Accept(c)
	}
	if n := grown(); n != 1 {
		t.Errorf("%d pages after %d counters", n, slotBits*pageSlots)
	}
	next := uint64(slotBits * pageSlots)
	if n := testing.AllocsPerRun(1, func() { w.Accept(next); next += slotBits * pageSlots }); n != 1 {
		t.Errorf("a new page is %v allocations", n)
	}
	for range 3 * span {
		w.Accept(next)
		next++
	}
	if n := grown(); n != pages {
		t.Errorf("%d pages, want %d", n, pages)
	}
	if n := testing.AllocsPerRun(3*span, func() { w.Accept(next); next++ }); n != 0 {
		t.Errorf("%v allocations with all pages there", n)
	}
}
