package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
)

const (
	localIndex  = 0x01020304
	remoteIndex = 0xa1a2a3a4
)

var suites = []crypto.Suite{crypto.ChaCha20Poly1305, crypto.AES256GCM}

// pair returns the two ends of a session with ChaCha20-Poly1305.
func pair(t testing.TB) (initiator, responder *Session) {
	t.Helper()
	return pairOf(t, crypto.ChaCha20Poly1305)
}

// eachSuite runs test on the two ends of a session of each suite.
func eachSuite(t *testing.T, test func(t *testing.T, a, b *Session)) {
	for _, suite := range suites {
		t.Run(suite.String(), func(t *testing.T) {
			a, b := pairOf(t, suite)
			test(t, a, b)
		})
	}
}

func pairOf(t testing.TB, suite crypto.Suite) (initiator, responder *Session) {
	t.Helper()
	keys := noise.Keys{Send: [32]byte{1, 2, 3}, Receive: [32]byte{31: 9}}
	mirrored := noise.Keys{Send: keys.Receive, Receive: keys.Send}
	initiator, err := New(&keys, suite, true, localIndex, remoteIndex, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	responder, err = New(&mirrored, suite, false, remoteIndex, localIndex, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return initiator, responder
}

func seal(t testing.TB, s *Session, counter uint64, plaintext []byte) []byte {
	t.Helper()
	var n Nonce
	msg := make([]byte, len(plaintext)+Overhead)
	if got := s.Seal(msg, counter, plaintext, &n); got != len(msg) {
		t.Fatalf("Seal returned %d, want %d", got, len(msg))
	}
	return msg
}

func open(s *Session, msg []byte) ([]byte, error) {
	var n Nonce
	return s.Open(make([]byte, 0, len(msg)), msg, &n)
}

func TestNewErasesKeys(t *testing.T) {
	k := noise.Keys{Send: [32]byte{1}, Receive: [32]byte{2}}
	if s, err := New(&k, 2, true, 1, 2, 3); !errors.Is(err, ErrSuite) || s != nil || k != (noise.Keys{}) {
		t.Errorf("New with an unknown suite: %v", err)
	}
	k = noise.Keys{Send: [32]byte{1}, Receive: [32]byte{2}}
	s, err := New(&k, crypto.AES256GCM, true, 1, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if k != (noise.Keys{}) {
		t.Error("keys still there after New")
	}
	if s.LocalIndex != 1 || s.RemoteIndex != 2 || s.Created != 3 || !s.Initiator || s.Suite() != crypto.AES256GCM {
		t.Error("fields not as given")
	}
	for _, k := range []noise.Keys{{}, {Send: [32]byte{1}}, {Receive: [32]byte{1}}} {
		if _, err := New(&k, crypto.ChaCha20Poly1305, true, 1, 2, 3); !errors.Is(err, ErrNoKeys) {
			t.Errorf("New with a zero key: %v", err)
		}
	}
}

func TestRoundTrip(t *testing.T) { eachSuite(t, testRoundTrip) }

func testRoundTrip(t *testing.T, a, b *Session) {
	for _, ends := range [][2]*Session{{a, b}, {b, a}} {
		from, to := ends[0], ends[1]
		for _, size := range []int{0, 1, 15, 16, 17, 64, 1420, 1424, 9000, 65519} {
			plaintext := bytes.Repeat([]byte{byte(size), 0xee}, size/2+1)[:size]
			counter, ok := from.Reserve(1, 0)
			if !ok {
				t.Fatal("no counter")
			}
			msg := seal(t, from, counter, plaintext)
			if typ, ok := noise.MessageType(msg); !ok || typ != noise.TypeData {
				t.Fatalf("size %d: not a data message", size)
			}
			if noise.ReceiverIndex(msg) != from.RemoteIndex || noise.ReceiverIndex(msg) != to.LocalIndex {
				t.Errorf("size %d: wrong receiver index", size)
			}
			if got := binary.LittleEndian.Uint64(msg[8:]); got != counter {
				t.Errorf("size %d: counter %d on the wire, want %d", size, got, counter)
			}
			got, err := open(to, msg)
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Fatalf("size %d: %v", size, err)
			}
			if _, err := open(to, msg); !errors.Is(err, ErrReplay) {
				t.Errorf("size %d: replay gave %v", size, err)
			}
			if _, err := open(from, msg); !errors.Is(err, ErrDecrypt) {
				t.Errorf("size %d: reflection gave %v", size, err)
			}
		}
	}
}

func TestInPlace(t *testing.T) { eachSuite(t, testInPlace) }

func testInPlace(t *testing.T, a, b *Session) {
	var n Nonce
	want := bytes.Repeat([]byte("culvert."), 180)
	buf := make([]byte, len(want)+Overhead)
	copy(buf[noise.DataHeaderSize:], want)
	if got := a.Seal(buf, 7, buf[noise.DataHeaderSize:][:len(want)], &n); got != len(buf) {
		t.Fatalf("Seal: %d", got)
	}
	if !bytes.Equal(buf, seal(t, a, 7, want)) {
		t.Error("sealing in place gives another message")
	}
	got, err := b.Open(buf[noise.DataHeaderSize:], buf, &n)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Open: %v", err)
	}
	if &got[0] != &buf[noise.DataHeaderSize] {
		t.Error("plaintext is elsewhere")
	}
}

// TestNeighbours pins what the datapath relies on: no byte outside the message or plaintext is touched.
func TestNeighbours(t *testing.T) { eachSuite(t, testNeighbours) }

func testNeighbours(t *testing.T, a, b *Session) {
	var n Nonce
	for size := range 200 {
		plaintext := bytes.Repeat([]byte{7}, size)
		buf := bytes.Repeat([]byte{0x55}, size+Overhead+64)
		if got := a.Seal(buf, uint64(size), plaintext, &n); got != size+Overhead {
			t.Fatal(got)
		}
		if !bytes.Equal(buf[size+Overhead:], bytes.Repeat([]byte{0x55}, 64)) {
			t.Fatalf("Seal of %d bytes wrote behind the message", size)
		}
		dst := bytes.Repeat([]byte{0x66}, size+64)
		if _, err := b.Open(dst, buf[:size+Overhead], &n); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dst[size:], bytes.Repeat([]byte{0x66}, 64)) {
			t.Fatalf("Open of %d bytes wrote behind the plaintext", size)
		}
	}
}

func TestOpenErrors(t *testing.T) { eachSuite(t, testOpenErrors) }

func testOpenErrors(t *testing.T, a, b *Session) {
	var n Nonce
	msg := seal(t, a, 5, make([]byte, 64))

	for length := range Overhead {
		if _, err := open(b, msg[:length]); !errors.Is(err, ErrDecrypt) {
			t.Errorf("length %d: %v", length, err)
		}
	}
	if _, err := b.Open(make([]byte, 0, 63), msg, &n); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("short buffer: %v", err)
	}
	for _, counter := range []uint64{RejectAfterMessages, RejectAfterMessages + 1, 1<<64 - 1} {
		if _, err := open(b, seal(t, a, counter, nil)); !errors.Is(err, ErrExhausted) {
			t.Errorf("counter %d: %v", counter, err)
		}
	}
	// None of the above may have used up the counter.
	if _, err := open(b, msg); err != nil {
		t.Errorf("genuine message: %v", err)
	}
	if _, err := open(b, seal(t, a, RejectAfterMessages-1, nil)); err != nil {
		t.Errorf("last counter: %v", err)
	}
	if _, err := open(b, seal(t, a, 6, nil)); !errors.Is(err, ErrReplay) {
		t.Errorf("behind the window: %v", err)
	}
}

// TestEveryBit flips each bit of a data message. All but the receiver index, which chooses the session, are noticed here.
func TestEveryBit(t *testing.T) { eachSuite(t, testEveryBit) }

func testEveryBit(t *testing.T, a, b *Session) {
	msg := seal(t, a, 5, []byte("sixteen bytes ok"))
	for bit := range len(msg) * 8 {
		if at := bit / 8; at >= 4 && at < 8 {
			continue
		}
		bad := slices.Clone(msg)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := open(b, bad); err == nil {
			t.Errorf("bit %d flipped and accepted", bit)
		}
	}
	if _, err := open(b, msg); err != nil {
		t.Errorf("the genuine message: %v", err)
	}
}

func TestReserve(t *testing.T) {
	s, _ := pair(t)
	for _, n := range []int{0, -1, -1 << 62} {
		if _, ok := s.Reserve(n, 0); ok {
			t.Errorf("Reserve(%d) succeeded", n)
		}
	}
	if first, ok := s.Reserve(3, 0); !ok || first != 0 {
		t.Fatalf("first: %d %v", first, ok)
	}
	if first, ok := s.Reserve(1, 0); !ok || first != 3 {
		t.Fatalf("second: %d %v", first, ok)
	}
	if s.Sent() != 4 {
		t.Errorf("Sent: %d", s.Sent())
	}
}

func TestReserveExhaustion(t *testing.T) {
	s, _ := pair(t)
	s.next.Store(RejectAfterMessages - 5)
	if _, ok := s.Reserve(6, 0); ok {
		t.Error("six of five given")
	}
	if first, ok := s.Reserve(4, 0); !ok || first != RejectAfterMessages-5 {
		t.Errorf("four of five: %d %v", first, ok)
	}
	if first, ok := s.Reserve(1, 0); !ok || first != RejectAfterMessages-1 {
		t.Errorf("the last: %d %v", first, ok)
	}
	// More refused attempts than there are counters up to 2^64 must not wrap around.
	for range 1 << 14 {
		if _, ok := s.Reserve(1, 0); ok {
			t.Fatal("counter given beyond the limit")
		}
	}
	if s.Sent() != RejectAfterMessages {
		t.Errorf("Sent: %d", s.Sent())
	}
}

func TestReserveConcurrently(t *testing.T) {
	const workers, rounds = 8, 2000
	s, _ := pair(t)
	got := make([][]uint64, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for round := range rounds {
				n := 1 + (round+i)%7
				first, ok := s.Reserve(n, 0)
				if !ok {
					t.Error("refused")
					return
				}
				for k := range n {
					got[i] = append(got[i], first+uint64(k))
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(got...)
	slices.Sort(all)
	for i, counter := range all {
		if counter != uint64(i) {
			t.Fatalf("counter %d at place %d", counter, i)
		}
	}
	if s.Sent() != uint64(len(all)) {
		t.Errorf("Sent %d, handed out %d", s.Sent(), len(all))
	}
}

func TestOpenConcurrently(t *testing.T) { eachSuite(t, testOpenConcurrently) }

func testOpenConcurrently(t *testing.T, a, b *Session) {
	const workers, messages = 4, 1000
	sealed := make([][]byte, messages)
	for i := range sealed {
		sealed[i] = seal(t, a, uint64(i), []byte("once"))
	}
	accepted := make([]int, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var n Nonce
			dst := make([]byte, 64)
			for _, msg := range sealed {
				switch _, err := b.Open(dst, msg, &n); {
				case err == nil:
					accepted[w]++
				case !errors.Is(err, ErrReplay):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range accepted {
		total += n
	}
	if total != messages {
		t.Errorf("%d messages accepted, %d sent", total, messages)
	}
}

func TestErase(t *testing.T) { eachSuite(t, testErase) }

func testErase(t *testing.T, a, b *Session) {
	msg := seal(t, a, 0, nil)
	a.Erase()
	b.Erase()
	if _, ok := a.Reserve(1, 0); ok {
		t.Error("Reserve after Erase")
	}
	var n Nonce
	dst := make([]byte, 64)
	if got := a.Seal(dst, 1, nil, &n); got != 0 || !bytes.Equal(dst, make([]byte, 64)) {
		t.Errorf("Seal after Erase: %d", got)
	}
	if _, err := open(b, msg); !errors.Is(err, ErrErased) {
		t.Errorf("Open after Erase: %v", err)
	}
}

func TestHidden(t *testing.T) {
	s, _ := pair(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb, s); got != "(hidden)" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func TestTimes(t *testing.T) {
	for name, c := range map[string]struct{ got, want time.Duration }{
		"rekey on receiving": {RekeyOnReceiveAfter, 165 * time.Second},
		"no answer":          {NoAnswerTimeout, 15 * time.Second},
		"erase":              {EraseAfter, 540 * time.Second},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if uint64(RejectAfterMessages) != 0xffffffffffffdfff {
		t.Errorf("RejectAfterMessages is %#x", uint64(RejectAfterMessages))
	}
}

func TestAllocations(t *testing.T) { eachSuite(t, testAllocations) }

func testAllocations(t *testing.T, a, b *Session) {
	var n Nonce
	plaintext, msg, dst := make([]byte, 1420), make([]byte, 1420+Overhead), make([]byte, 1420)
	if avg := testing.AllocsPerRun(100, func() {
		counter, _ := a.Reserve(1, 0)
		a.Seal(msg, counter, plaintext, &n)
	}); avg != 0 {
		t.Errorf("Seal allocates %v times", avg)
	}
	sealed := make([][]byte, 200)
	for i := range sealed {
		counter, _ := a.Reserve(1, 0)
		sealed[i] = seal(t, a, counter, plaintext)
	}
	next, opened := 0, 0
	if avg := testing.AllocsPerRun(100, func() {
		if _, err := b.Open(dst, sealed[next], &n); err == nil {
			opened++
		}
		next++
	}); avg != 0 {
		t.Errorf("Open allocates %v times", avg)
	}
	if opened != next {
		t.Errorf("opened %d of %d", opened, next)
	}
	if avg := testing.AllocsPerRun(100, func() { _, _ = b.Open(dst, sealed[0], &n) }); avg != 0 {
		t.Errorf("refusing a replay allocates %v times", avg)
	}
	sealed[0][20] ^= 1
	if avg := testing.AllocsPerRun(100, func() { _, _ = b.Open(dst, sealed[0], &n) }); avg != 0 {
		t.Errorf("refusing a bad tag allocates %v times", avg)
	}
}

// FuzzOpen gives Open arbitrary bytes. Nothing but what the peer sealed may come out.
func FuzzOpen(f *testing.F) {
	a, _ := pair(f)
	gcm, _ := pairOf(f, crypto.AES256GCM)
	genuine := seal(f, a, 3, []byte("a genuine packet"))
	f.Add(genuine)
	f.Add(seal(f, a, 0, nil))
	f.Add(seal(f, a, RejectAfterMessages, nil))
	f.Add(genuine[:Overhead-1])
	f.Add([]byte{})
	f.Add([]byte{4, 0, 0, 0})
	f.Add(seal(f, gcm, 3, []byte("a genuine packet")))
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, suite := range suites {
			a, b := pairOf(t, suite)
			before := slices.Clone(msg)
			got, err := open(b, msg)
			if !bytes.Equal(msg, before) {
				t.Error("the message was changed")
			}
			if err != nil {
				if got != nil {
					t.Error("plaintext beside an error")
				}
				continue
			}
			// The seal is deterministic, so whatever opens must be what the peer would have sealed; only the receiver index is free.
			resealed := seal(t, a, binary.LittleEndian.Uint64(msg[8:]), got)
			copy(resealed[4:8], msg[4:8])
			if !bytes.Equal(resealed, msg) {
				t.Errorf("opened a message the peer did not seal: %x", msg)
			}
		}
	})
}

func eachBenchmark(b *testing.B, run func(b *testing.B, from, to *Session, size int)) {
	for _, suite := range suites {
		for _, size := range []int{64, 1420} {
			b.Run(fmt.Sprint(suite, "/", size), func(b *testing.B) {
				from, to := pairOf(b, suite)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				run(b, from, to, size)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	eachBenchmark(b, func(b *testing.B, s, _ *Session, size int) {
		var n Nonce
		plaintext, dst := make([]byte, size), make([]byte, size+Overhead)
		for b.Loop() {
			counter, ok := s.Reserve(1, size+noise.TagSize)
			if !ok {
				b.Fatal("used up")
			}
			s.Seal(dst, counter, plaintext, &n)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	eachBenchmark(b, func(b *testing.B, from, to *Session, size int) {
		var n Nonce
		dst := make([]byte, size)
		sealed := make([][]byte, 4096)
		for i := range sealed {
			sealed[i] = seal(b, from, uint64(i), make([]byte, size))
		}
		i := 0
		for b.Loop() {
			if i == len(sealed) {
				i = 0
				to.window.Reset() // about 0.2 us in 4096 packets
			}
			if _, err := to.Open(dst, sealed[i], &n); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}
