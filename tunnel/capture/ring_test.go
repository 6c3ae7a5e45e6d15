package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
)

// numbered is a packet of n bytes, at least 12, that tells its producer, its number and whether a byte is not its own.
func numbered(producer uint32, number uint64, n int) []byte {
	b := make([]byte, n)
	binary.LittleEndian.PutUint32(b, producer)
	binary.LittleEndian.PutUint64(b[4:], number)
	for i := 12; i < n; i++ {
		b[i] = byte(uint64(i)*7 + number*13 + uint64(producer))
	}
	return b
}

func TestRecordComesOutAsItWentIn(t *testing.T) {
	r := NewRing(1<<12, 1500)
	for i, m := range []Meta{
		{}, {At: 1<<62 + 5}, {Peer: crypto.PublicKey{1, 31: 2}}, {Out: true}, {Elided: true}, {Partial: true}, {Super: true},
		{At: 7, Peer: crypto.PublicKey{9}, Out: true, Elided: true, Partial: true, Super: true},
	} {
		for _, n := range []int{0, 1, 63, 64, 65, 1499, 1500} { // the ring is gone around several times
			packet := bytes.Repeat([]byte{byte(n + i + 1)}, n)
			r.Put(m, packet)
			rec, ok := r.TryNext()
			if !ok || rec.Meta != m || rec.Length != n || rec.Dropped != 0 || !bytes.Equal(rec.Data, packet) {
				t.Fatalf("%+v with %d bytes: %v, %+v", m, n, ok, rec)
			}
		}
	}
	if _, ok := r.TryNext(); ok {
		t.Error("one record too many")
	}
}

func TestSnapCutsPackets(t *testing.T) {
	r := NewRing(0, 100)
	packet := numbered(1, 2, 5000)
	r.Put(Meta{}, packet)
	rec, _ := r.TryNext()
	if rec.Length != 5000 || !bytes.Equal(rec.Data, packet[:100]) {
		t.Errorf("length %d, data %x", rec.Length, rec.Data)
	}
	for given, want := range map[int]int{0: MaxSnap, -1: MaxSnap, 1 << 30: MaxSnap, 1: 1} {
		if got := NewRing(1, given).Snap(); got != want {
			t.Errorf("snap %d became %d, want %d", given, got, want)
		}
	}
}

// A full ring drops what comes, and keeps what it has.
func TestFullRingDrops(t *testing.T) {
	r := NewRing(1024, 64) // 16 units: 8 records of 64 bytes
	for i := range uint64(11) {
		r.Put(Meta{At: time.Duration(i)}, numbered(0, i, 64))
	}
	if got := r.Dropped(); got != 3 {
		t.Errorf("%d dropped, want 3", got)
	}
	rec, _ := r.TryNext()
	if rec.At != 0 || rec.Dropped != 3 {
		t.Errorf("first record %+v", rec)
	}
	r.Put(Meta{At: 99}, numbered(0, 99, 64)) // takes the room that came free
	r.Put(Meta{At: 100}, numbered(0, 100, 64))
	for _, want := range []time.Duration{1, 2, 3, 4, 5, 6, 7, 99} {
		rec, ok := r.TryNext()
		if !ok || rec.At != want || !bytes.Equal(rec.Data, numbered(0, uint64(want), 64)) {
			t.Fatalf("got %+v, want number %d", rec, want)
		}
	}
	if _, ok := r.TryNext(); ok || r.Dropped() != 4 {
		t.Errorf("%d dropped, want 4", r.Dropped())
	}
}

// A packet as large as can be fits whatever size was asked for.
func TestSmallestRingHoldsTwo(t *testing.T) {
	r := NewRing(1, 0)
	for range 3 {
		r.Put(Meta{}, make([]byte, MaxSnap))
	}
	for range 2 {
		if rec, ok := r.TryNext(); !ok || len(rec.Data) != MaxSnap {
			t.Fatal("lost")
		}
	}
}

func TestConsumerIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRing(4096, 64)
		start := time.Now()
		got := make(chan Record)
		go func() {
			for {
				rec, err := r.Next(t.Context())
				if err != nil {
					close(got)
					return
				}
				rec.Data = bytes.Clone(rec.Data)
				got <- rec
			}
		}()
		for i := range 3 {
			synctest.Wait() // it sleeps
			time.Sleep(time.Second)
			r.Put(Meta{At: time.Duration(i)}, []byte{byte(i)})
			if rec := <-got; rec.At != time.Duration(i) || rec.Data[0] != byte(i) {
				t.Errorf("got %+v", rec)
			}
		}
		if passed := time.Since(start); passed != 3*(time.Second+gathering) {
			t.Errorf("took %v", passed)
		}
		synctest.Wait()
		r.Close()
		if _, ok := <-got; ok {
			t.Error("a record after Close")
		}
	})
}

func TestNextEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRing(4096, 64)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next: %v", err)
		}
		r.Put(Meta{}, []byte{1})
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next with a record waiting: %v", err)
		}
		if _, err := r.Next(t.Context()); err != nil {
			t.Errorf("the record is lost: %v", err)
		}
	})
}

func TestClosedRingIsReadToItsEnd(t *testing.T) {
	r := NewRing(4096, 64)
	r.Put(Meta{At: 1}, nil)
	r.Close()
	r.Close()
	r.Put(Meta{At: 2}, nil)
	if rec, err := r.Next(t.Context()); err != nil || rec.At != 1 {
		t.Errorf("%+v, %v", rec, err)
	}
	if _, err := r.Next(t.Context()); err != ErrClosed {
		t.Errorf("Next: %v, want ErrClosed", err)
	}
	if r.Dropped() != 0 {
		t.Error("what comes after Close counts as dropped")
	}
}

// Many producers against one consumer through a ring that is too small: what comes out is intact, at most once and in
// its producer's order, and with the drops it is all that was put. The ring is closed while they put.
func TestProducersAtOnce(t *testing.T) {
	const producers = 6
	each := uint64(30000)
	if testing.Short() {
		each = 3000
	}
	r := NewRing(1<<14, 2000)
	var producing sync.WaitGroup
	var put atomic.Uint64
	for p := range uint32(producers) {
		producing.Go(func() {
			random := rand.New(rand.NewPCG(uint64(p), 1))
			for i := range each {
				n := 12 + random.IntN(300)
				if i%64 == 0 {
					n = 12 + random.IntN(4000)
				}
				r.Put(Meta{At: time.Duration(i), Peer: crypto.PublicKey{byte(p)}, Out: i%2 == 0}, numbered(p, i, n))
				put.Add(1)
			}
		})
	}
	var next [producers]uint64
	var delivered, told uint64
	consumed := make(chan struct{})
	go func() {
		defer close(consumed)
		for {
			rec, err := r.Next(t.Context())
			if err != nil {
				if err != ErrClosed {
					t.Error(err)
				}
				return
			}
			p, i := binary.LittleEndian.Uint32(rec.Data), binary.LittleEndian.Uint64(rec.Data[4:])
			if p >= producers || i < next[p] || i >= each {
				t.Errorf("producer %d's number %d, expected %d or later", p, i, next[p])
				return
			}
			next[p] = i + 1
			if want := numbered(p, i, rec.Length); !bytes.Equal(rec.Data, want[:min(2000, rec.Length)]) {
				t.Errorf("producer %d's number %d is not intact", p, i)
				return
			}
			if want := (Meta{At: time.Duration(i), Peer: crypto.PublicKey{byte(p)}, Out: i%2 == 0}); rec.Meta != want {
				t.Errorf("%+v, want %+v", rec.Meta, want)
				return
			}
			delivered++
			told += rec.Dropped
		}
	}()
	producing.Wait()
	r.Close()
	<-consumed
	if delivered+r.Dropped() != put.Load() {
		t.Errorf("%d delivered and %d dropped of %d", delivered, r.Dropped(), put.Load())
	}
	if delivered == 0 || r.Dropped() == 0 || told > r.Dropped() {
		t.Errorf("%d delivered, %d dropped, %d of them told with records: the test is to meet both", delivered, r.Dropped(), told)
	}
}

func TestCloseWhileProducersPut(t *testing.T) {
	for range 200 {
		r := NewRing(1<<12, 100)
		var producing sync.WaitGroup
		var put atomic.Uint64
		for p := range uint32(4) {
			producing.Go(func() {
				for i := range uint64(50) {
					r.Put(Meta{}, numbered(p, i, 20))
					put.Add(1)
				}
			})
		}
		go r.Close()
		var delivered uint64
		for {
			if _, err := r.Next(t.Context()); err != nil {
				break
			}
			delivered++
		}
		producing.Wait()
		if _, ok := r.TryNext(); ok {
			t.Fatal("a record after ErrClosed")
		}
		if delivered+r.Dropped() > put.Load() {
			t.Fatalf("%d delivered and %d dropped of %d", delivered, r.Dropped(), put.Load())
		}
	}
}

func TestPutAllocatesNothing(t *testing.T) {
	var s Set
	idle, full := NewRing(1<<14, 0), NewRing(1<<14, 0)
	for _, r := range []*Ring{idle, full} {
		if _, err := s.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	m := Meta{At: 1, Peer: crypto.PublicKey{1}, Out: true}
	packet := make([]byte, 1400)
	if n := testing.AllocsPerRun(1000, func() {
		if s.Active() {
			s.Put(m, packet)
		}
		idle.TryNext()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if full.Dropped() == 0 || idle.Dropped() != 0 {
		t.Errorf("dropped %d and %d: the test is to meet a full ring and an emptied one", full.Dropped(), idle.Dropped())
	}
	// While the consumer sleeps.
	r := NewRing(1<<20, 0)
	go func() {
		for {
			if _, err := r.Next(t.Context()); err != nil {
				return
			}
		}
	}()
	defer r.Close()
	if n := testing.AllocsPerRun(1000, func() { r.Put(m, packet) }); n != 0 {
		t.Errorf("%v allocations where the consumer sleeps", n)
	}
}

// FuzzRing runs puts and reads against a queue with the same bounds. Each byte is one step: an even one puts a packet of so
// many times 5 bytes, an odd one reads.
func FuzzRing(f *testing.F) {
	f.Add([]byte{2, 1, 1, 254, 254, 254, 254, 254, 1, 2, 1, 1, 1, 1, 1, 1})
	f.Add(bytes.Repeat([]byte{0, 24, 26, 1}, 200))
	f.Fuzz(func(t *testing.T, steps []byte) {
		const snap, units = 500, 32
		r := NewRing(units*unit, snap)
		type kept struct {
			number uint64
			length int
		}
		var model []kept
		var used, dropped, told uint64
		read := func() bool {
			rec, ok := r.TryNext()
			if ok != (len(model) > 0) {
				t.Fatalf("a record: %v, with %d in the model", ok, len(model))
			}
			if !ok {
				return false
			}
			want := model[0]
			model = model[1:]
			stored := min(want.length, snap)
			if rec.Length != want.length || rec.At != time.Duration(want.number) ||
				!bytes.Equal(rec.Data, numbered(0, want.number, want.length)[:stored]) || rec.Dropped != dropped-told {
				t.Fatalf("record %+v, want %+v and %d dropped", rec, want, dropped-told)
			}
			told = dropped
			used -= unitsFor(stored)
			return true
		}
		for i, b := range steps {
			if b%2 != 0 {
				read()
				continue
			}
			number, length := uint64(i), 12+5*int(b)
			r.Put(Meta{At: time.Duration(number)}, numbered(0, number, length))
			if need := unitsFor(min(length, snap)); used+need > units {
				dropped++
			} else {
				used += need
				model = append(model, kept{number, length})
			}
		}
		for read() {
		}
		if r.Dropped() != dropped {
			t.Fatalf("%d dropped, want %d", r.Dropped(), dropped)
		}
	})
}

func BenchmarkPut(b *testing.B) {
	for _, n := range []int{64, 1400, 65535} {
		b.Run(map[int]string{64: "64", 1400: "1400", 65535: "65535"}[n], func(b *testing.B) {
			r := NewRing(0, 0)
			packet := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				r.Put(Meta{Out: true}, packet)
				r.TryNext()
			}
		})
	}
}
