package fragment

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

// generous is far above what a test needs that is not about limits.
var generous = Limits{PerKey: 64, PerKeyBytes: 1 << 20, Packets: 1024, Bytes: 16 << 20, Timeout: time.Second}

// part is a fragment.
type part struct {
	index uint8
	last  bool
	piece []byte
}

// cut cuts a plaintext to pieces of size bytes.
func cut(plaintext []byte, size int) (parts []part) {
	for i := 0; len(plaintext) > 0; i++ {
		n := min(size, len(plaintext))
		parts = append(parts, part{uint8(i), n == len(plaintext), plaintext[:n]})
		plaintext = plaintext[n:]
	}
	return parts
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (p part) to(r *Reassembler[int], key int, id uint32, now time.Duration) ([]byte, Loss) {
	return r.Add(key, id, p.index, p.last, p.piece, false, now)
}

// give adds parts of which only the last one completes the packet.
func give(t *testing.T, r *Reassembler[int], key int, id uint32, parts []part, want []byte) {
	t.Helper()
	for i, p := range parts {
		got, lost := p.to(r, key, id, 0)
		if lost != (Loss{}) {
			t.Fatalf("fragment %d of %d: lost %+v", i, len(parts), lost)
		}
		if i < len(parts)-1 && got != nil {
			t.Fatalf("complete with %d of %d fragments", i+1, len(parts))
		}
		if i == len(parts)-1 && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes became %d, or others", len(want), len(got))
		}
	}
}

func idle(t *testing.T, r *Reassembler[int]) {
	t.Helper()
	if packets, _ := r.Usage(); packets != 0 || len(r.sessions) != 0 || r.all.oldest != nil || r.all.newest != nil ||
		r.store.spares != r.store.allocated {
		t.Errorf("%d packets, %d sessions, %d of %d chunks left", packets, len(r.sessions), r.store.spares, r.store.allocated)
	}
}

func TestAnyOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := New[int](generous)
	for round := range 3000 {
		n := 1 + rnd.IntN([]int{20, 1500, 9000, MaxPlaintext}[round%4])
		if round%50 == 0 {
			n = MaxPlaintext
		}
		limit := Overhead + n/MaxCount + 1 + rnd.IntN(max(n/2, 1))
		_, size, ok := Count(n, limit)
		if !ok {
			t.Fatal("not cut")
		}
		plaintext := random(rnd, n)
		parts := cut(plaintext, size)
		switch round % 3 {
		case 0:
		case 1:
			for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
				parts[i], parts[j] = parts[j], parts[i]
			}
		case 2:
			rnd.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		}
		give(t, r, round%5, uint32(round), parts, plaintext)
	}
	idle(t, r)
}

// Packets of several sessions with the same ids, all at once.
func TestInterleaved(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	r := New[int](generous)
	type fragment struct {
		key int
		id  uint32
		part
	}
	var all []fragment
	want := map[[2]int][]byte{}
	for key := range 10 {
		for id := range 20 {
			plaintext := random(rnd, 1+rnd.IntN(5000))
			want[[2]int{key, id}] = plaintext
			for _, p := range cut(plaintext, 1000) {
				all = append(all, fragment{key, uint32(id), p})
			}
		}
	}
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, f := range all {
		got, lost := f.to(r, f.key, f.id, 0)
		if lost != (Loss{}) {
			t.Fatalf("lost %+v", lost)
		}
		if name := [2]int{f.key, int(f.id)}; got != nil {
			if !bytes.Equal(got, want[name]) {
				t.Fatalf("%v is not what it was", name)
			}
			delete(want, name)
		}
	}
	if len(want) != 0 {
		t.Errorf("%d incomplete", len(want))
	}
	idle(t, r)
}

func TestRefuses(t *testing.T) {
	b := make([]byte, MaxPlaintext+1)
	middle := func(index uint8, n int) part { return part{index, false, b[:n]} }
	end := func(index uint8, n int) part { return part{index, true, b[:n]} }
	dup, bad := Loss{Duplicate: 1}, Loss{Inconsistent: 1}
	for name, test := range map[string]struct {
		parts []part // only the last one is refused
		want  Loss
	}{
		"same":                          {[]part{middle(0, 10), middle(0, 10)}, dup},
		"same but for the length":       {[]part{middle(0, 10), middle(0, 11)}, dup},
		"same, and last":                {[]part{middle(1, 10), end(1, 10)}, dup},
		"same, and not last":            {[]part{end(1, 10), middle(1, 10)}, dup},
		"last twice":                    {[]part{end(1, 10), end(1, 10)}, dup},
		"other last":                    {[]part{end(2, 10), end(1, 10)}, bad},
		"shorter":                       {[]part{middle(0, 10), middle(1, 9)}, bad},
		"longer":                        {[]part{middle(0, 10), middle(1, 11)}, bad},
		"last is longer":                {[]part{middle(0, 10), end(1, 11)}, bad},
		"last was longer":               {[]part{end(1, 11), middle(0, 10)}, bad},
		"beyond the last":               {[]part{end(1, 10), middle(2, 10)}, bad},
		"last in front":                 {[]part{middle(2, 10), end(1, 10)}, bad},
		"last in front, alone":          {[]part{middle(2, 10), end(0, 10)}, bad},
		"empty":                         {[]part{middle(0, 0)}, bad},
		"empty last":                    {[]part{middle(0, 10), end(1, 0)}, bad},
		"index":                         {[]part{middle(MaxCount, 10)}, bad},
		"last index":                    {[]part{end(255, 10)}, bad},
		"nothing can follow":            {[]part{middle(MaxCount-1, 10)}, bad},
		"too long alone":                {[]part{end(0, MaxPlaintext+1)}, bad},
		"too long with a last one":      {[]part{middle(0, MaxPlaintext)}, bad},
		"too far":                       {[]part{middle(100, 1000)}, bad},
		"last too far":                  {[]part{end(100, 1000)}, bad},
		"last too far for the others":   {[]part{middle(0, 1000), end(66, 1)}, bad},
		"too long for the last to come": {[]part{end(66, 1), middle(0, 1000)}, bad},
	} {
		t.Run(name, func(t *testing.T) {
			r := New[int](generous)
			for i, p := range test.parts {
				got, lost := p.to(r, 1, 2, 0)
				if want := i == len(test.parts)-1; got != nil || want && lost != test.want || !want && lost != (Loss{}) {
					t.Fatalf("fragment %d: %d bytes, lost %+v", i, len(got), lost)
				}
			}
			idle(t, r)
		})
	}
	// What is just within the bounds is put together.
	for _, test := range []struct{ n, size int }{{MaxPlaintext, MaxPlaintext}, {MaxPlaintext, MaxPlaintext - 1}, {MaxPlaintext, 512}, {128, 1}, {1, 1}} {
		give(t, New[int](generous), 1, 1, cut(b[:test.n], test.size), b[:test.n])
	}
}

func TestExpires(t *testing.T) {
	l := generous
	r := New[int](l)
	b := make([]byte, 3000)
	parts := cut(b, 1000)
	for id := range uint32(20) {
		parts[0].to(r, 1, id, time.Duration(id))
	}
	// A packet is late from Timeout on, counted from its first fragment.
	parts[1].to(r, 1, 19, l.Timeout-1)
	got, lost := parts[1].to(r, 1, 0, l.Timeout-1)
	if got != nil || lost != (Loss{}) {
		t.Fatalf("%d bytes, lost %+v", len(got), lost)
	}
	got, lost = parts[2].to(r, 1, 0, l.Timeout)
	if got != nil || lost != (Loss{Expired: 1}) {
		t.Fatalf("%d bytes, lost %+v", len(got), lost)
	}
	if got, lost = parts[2].to(r, 1, 19, l.Timeout+18); lost != (Loss{Expired: expiredAtOnce}) || got == nil {
		t.Fatalf("%d bytes, lost %+v", len(got), lost)
	}
	// The one asked for is late even if others are to be given up first.
	if got, lost = parts[1].to(r, 1, 18, l.Timeout+18); lost != (Loss{Expired: expiredAtOnce + 1}) || got != nil {
		t.Fatalf("%d bytes, lost %+v", len(got), lost)
	}
	if lost = r.Expire(l.Timeout + 18); lost != (Loss{Expired: 9}) {
		t.Fatalf("lost %+v", lost)
	}
	if lost = r.Expire(3 * l.Timeout); lost != (Loss{Expired: 2}) { // those begun by what came late
		t.Fatalf("lost %+v", lost)
	}
	idle(t, r)
	if _, bytes := r.Usage(); bytes != 0 {
		t.Errorf("%d bytes kept", bytes)
	}
}

// A packet that goes to make room, and whose time is over, has expired.
func TestEvictsLatePackets(t *testing.T) {
	l := generous
	l.PerKey = 1
	r := New[int](l)
	first := cut(make([]byte, 20), 10)[0]
	for key := range expiredAtOnce + 1 {
		first.to(r, key, 0, 0)
	}
	if _, lost := first.to(r, expiredAtOnce, 1, l.Timeout); lost != (Loss{Expired: expiredAtOnce + 1}) {
		t.Errorf("lost %+v", lost)
	}
}

func TestForget(t *testing.T) {
	r := New[int](generous)
	parts := cut(make([]byte, 20), 10)
	for id := range uint32(10) {
		parts[0].to(r, 1, id, 0)
		parts[0].to(r, 2, id, 0)
	}
	if n := r.Forget(1); n != 10 {
		t.Errorf("%d packets", n)
	}
	if n := r.Forget(1); n != 0 {
		t.Errorf("%d packets once more", n)
	}
	if got, _ := parts[1].to(r, 1, 3, 0); got != nil {
		t.Error("complete, though forgotten")
	}
	if got, _ := parts[1].to(r, 2, 3, 0); got == nil {
		t.Error("another session's packet was forgotten")
	}
	if n := r.Forget(1) + r.Forget(2); n != 10 {
		t.Errorf("%d packets", n)
	}
	idle(t, r)
}

// At its own limit a session loses its own oldest packet.
func TestPerKey(t *testing.T) {
	l := Limits{PerKey: 3, PerKeyBytes: MinBytes, Packets: 100, Bytes: 100 * MinBytes, Timeout: time.Second}
	r := New[int](l)
	small := cut(make([]byte, 20), 10)
	small[0].to(r, 2, 0, 0) // the oldest of all
	for id := range uint32(3) {
		small[0].to(r, 1, id, 0)
	}
	if _, lost := small[0].to(r, 1, 3, 0); lost != (Loss{Evicted: 1}) {
		t.Errorf("lost %+v", lost)
	}
	if got, lost := small[1].to(r, 1, 0, 0); got != nil || lost != (Loss{Evicted: 1}) { // begins it again
		t.Errorf("complete %v, lost %+v", got != nil, lost)
	}
	for _, id := range []uint32{2, 3} {
		if got, lost := small[1].to(r, 1, id, 0); got == nil || lost != (Loss{}) {
			t.Errorf("packet %d: complete %v, lost %+v", id, got != nil, lost)
		}
	}
	if got, _ := small[1].to(r, 2, 0, 0); got == nil {
		t.Error("another session's packet is gone")
	}
	r.Forget(1)
	idle(t, r)
	// The same in bytes.
	small[0].to(r, 1, 0, 0)
	small[0].to(r, 1, 1, 0)
	large := cut(make([]byte, MaxPlaintext), MaxPlaintext/3+1)
	large[0].to(r, 1, 2, 0)
	if _, lost := large[1].to(r, 1, 2, 0); lost != (Loss{}) { // two thirds and two small ones fit
		t.Errorf("lost %+v", lost)
	}
	if _, lost := large[0].to(r, 1, 3, 0); lost != (Loss{Evicted: 2}) { // one more third only in place of both
		t.Errorf("lost %+v", lost)
	}
	if _, lost := large[1].to(r, 1, 3, 0); lost != (Loss{Evicted: 1}) {
		t.Errorf("lost %+v", lost)
	}
	if got, lost := large[2].to(r, 1, 3, 0); len(got) != MaxPlaintext || lost != (Loss{}) {
		t.Errorf("%d bytes, lost %+v", len(got), lost)
	}
	idle(t, r)
}

// One of 64 sessions does all it can. The others need less than what it leaves, and lose nothing.
func TestOneSessionDeniesNobody(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	const sessions = 64
	for _, l := range []Limits{
		// Each session has its limit to itself.
		{PerKey: 8, PerKeyBytes: 2 * MinBytes, Packets: sessions * 8, Bytes: sessions * 2 * MinBytes, Timeout: time.Second},
		// The others' packets, two chunks each, just fit beside one session's limit.
		{PerKey: 8, PerKeyBytes: 2 * MinBytes, Packets: 8 + sessions - 1, Bytes: 2*MinBytes + (sessions-1)*2*chunkSize, Timeout: time.Second},
	} {
		r := New[int](l)
		hostile, rubbish := uint32(0), random(rnd, MaxPlaintext)
		attack := func() {
			for range 20 {
				hostile++
				piece := rubbish[:rnd.IntN(1+rnd.IntN(MaxPlaintext))]
				r.Add(0, hostile-uint32(rnd.IntN(10)), uint8(rnd.IntN(4)*rnd.IntN(64)), rnd.IntN(4) == 0, piece, false, 0)
			}
		}
		b := random(rnd, 6000)
		parts := cut(b, 2000)
		for round := range uint32(20) {
			for i, p := range parts {
				for key := 1; key < sessions; key++ {
					got, _ := p.to(r, key, round, 0)
					if i == 2 && !bytes.Equal(got, b) {
						t.Fatalf("round %d: session %d lost its packet", round, key)
					}
					attack()
				}
			}
		}
		if _, used := r.Usage(); used > l.Bytes {
			t.Errorf("%d bytes of %d", used, l.Bytes)
		}
	}
}

// Even where a few sessions can fill the whole, one that holds more than its share makes room for itself at its own
// expense.
func TestHoarderPaysForItself(t *testing.T) {
	l := Limits{PerKey: 90, PerKeyBytes: 3 * MinBytes, Packets: 100, Bytes: 4 * MinBytes, Timeout: time.Second}
	b := make([]byte, MaxPlaintext)
	small := cut(b[:2000], 1000)
	r := New[int](l)
	for key := 1; key <= 10; key++ {
		small[0].to(r, key, 0, 0) // the oldest
	}
	for id := range uint32(200) {
		if _, lost := small[0].to(r, 0, id, 0); (lost == Loss{}) != (id < 90) {
			t.Errorf("packet %d: lost %+v", id, lost)
		}
	}
	r.Forget(0)
	large := cut(b, MaxPlaintext/2)
	for id := range uint32(200) {
		large[0].to(r, 0, id, 0)
		small[0].to(r, 11+int(id%2), id/2, 0) // others fill what is left
	}
	for key := 1; key <= 10; key++ {
		if got, _ := small[1].to(r, key, 0, 0); got == nil {
			t.Errorf("session %d has lost its packet", key)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, change := range []func(l *Limits){
		func(l *Limits) { l.PerKey = 0 },
		func(l *Limits) { l.Packets = l.PerKey - 1 },
		func(l *Limits) { l.PerKeyBytes = MinBytes - 1 },
		func(l *Limits) { l.Bytes = l.PerKeyBytes - 1 },
		func(l *Limits) { l.Timeout = 0 },
	} {
		l := generous
		change(&l)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v accepted", l)
				}
			}()
			New[int](l)
		}()
	}
}

func TestAllocatesNothing(t *testing.T) {
	r := New[int](generous)
	b := make([]byte, 1421)
	parts := cut(b, 711)
	id := uint32(0)
	if n := testing.AllocsPerRun(100, func() {
		id++
		parts[0].to(r, 1, id, 0)
		if got, _ := parts[1].to(r, 1, id, 0); got == nil {
			panic("incomplete")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReassembler(b *testing.B) {
	for name, test := range map[string]struct{ n, size int }{"two": {1421, 711}, "eight": {9001, 1126}} {
		b.Run(name, func(b *testing.B) {
			r := New[*int](generous)
			key := new(int)
			plaintext := make([]byte, test.n)
			parts := cut(plaintext, test.size)
			id := uint32(0)
			b.SetBytes(int64(test.n))
			for b.Loop() {
				id++
				var got []byte
				for _, p := range parts {
					got, _ = r.Add(key, id, p.index, p.last, p.piece, false, 0)
				}
				if len(got) != test.n {
					b.Fatal("incomplete")
				}
			}
		})
	}
}

// One marked fragment marks the whole, whichever it is.
func TestCongestionMarks(t *testing.T) {
	r := New[int](Limits{PerKey: 1, PerKeyBytes: MinBytes, Packets: 1, Bytes: MinBytes, Timeout: time.Second})
	for at := range 4 {
		for i := range 3 {
			plaintext, _ := r.Add(0, uint32(at), uint8(i), i == 2, []byte("piece"), i == at, 1)
			if complete := plaintext != nil; complete != (i == 2) {
				t.Fatalf("piece %d: complete %v", i, complete)
			}
		}
		if want := at < 3; r.Marked() != want {
			t.Errorf("fragment %d marked: the whole is %v", at, r.Marked())
		}
	}
}
