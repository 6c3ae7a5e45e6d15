package session

import (
	"bytes"
	"sync"
	"testing"

	"culvert/crypto"
	"culvert/crypto/noise"
)

// expectCounts checks what has been counted.
func expectCounts(t *testing.T, s *Session, messages, bytes uint64) {
	t.Helper()
	if s.Sent() != messages || s.bytes.Load() != bytes {
		t.Errorf("%d messages, %d bytes; want %d, %d", s.Sent(), s.bytes.Load(), messages, bytes)
	}
}

func TestBytesOfGCM(t *testing.T) {
	s, _ := pairOf(t, crypto.AES256GCM)
	reserve := func(n, bytes int, want bool) {
		t.Helper()
		if _, ok := s.Reserve(n, bytes); ok != want {
			t.Errorf("Reserve(%d, %d): %v", n, bytes, ok)
		}
	}
	// Nothing is less than its tags.
	reserve(1, 0, true)
	reserve(3, 47, true)
	reserve(2, -1<<40, true)
	expectCounts(t, s, 6, 96)
	reserve(1, 17, true)
	reserve(1, RekeyAfterBytes-96-17, true)
	expectCounts(t, s, 8, RekeyAfterBytes)
	if s.RekeyDue() {
		t.Error("rekey due at the limit")
	}
	reserve(1, 16, true)
	if !s.RekeyDue() {
		t.Error("no rekey due beyond the limit")
	}
	reserve(1, RejectAfterBytes-RekeyAfterBytes-16-100, true)
	expectCounts(t, s, 10, RejectAfterBytes-100)
	// What is refused is not counted, however much of it there is.
	for range 1 << 12 {
		reserve(1, 101, false)
		reserve(1, 1<<62, false)
		reserve(7, 0, false)
		reserve(1<<62, 0, false)
		reserve(1<<34+1, 0, false)
		reserve(0, 1, false)
		reserve(-1, 1, false)
	}
	expectCounts(t, s, 10, RejectAfterBytes-100)
	reserve(1, 84, true)
	reserve(1, 16, true)
	expectCounts(t, s, 12, RejectAfterBytes)
	reserve(1, 16, false)
	reserve(1, 0, false)
	expectCounts(t, s, 12, RejectAfterBytes)
}

// TestBytesOfGCMComeFirst: with messages as small as they get, bytes still run out before counters, so that Reserve gives no bytes back.
func TestBytesOfGCMComeFirst(t *testing.T) {
	s, _ := pairOf(t, crypto.AES256GCM)
	const most = RejectAfterBytes / noise.TagSize
	if _, ok := s.Reserve(most+1, 0); ok {
		t.Error("more than there are bytes for")
	}
	expectCounts(t, s, 0, 0)
	if _, ok := s.Reserve(most, 0); !ok {
		t.Error("refused")
	}
	if _, ok := s.Reserve(1, 0); ok || s.Sent() != most || uint64(most) >= RejectAfterMessages {
		t.Error("counters beyond the bytes")
	}
	s.Erase()
	if _, ok := s.Reserve(1, 0); ok {
		t.Error("Reserve after Erase")
	}
	expectCounts(t, s, most, RejectAfterBytes)
}

func TestBytesOfChaCha20(t *testing.T) {
	s, _ := pair(t)
	for range 4 {
		if _, ok := s.Reserve(1, RejectAfterBytes); !ok {
			t.Error("refused for its bytes")
		}
	}
	if s.RekeyDue() {
		t.Error("rekey due for its bytes")
	}
	expectCounts(t, s, 4, 0)
}

func TestRekeyDueByMessages(t *testing.T) {
	eachSuite(t, func(t *testing.T, s, _ *Session) {
		s.next.Store(RekeyAfterMessages)
		if s.RekeyDue() {
			t.Error("rekey due at the limit")
		}
		if _, ok := s.Reserve(1, 0); !ok || !s.RekeyDue() {
			t.Error("no rekey due beyond the limit")
		}
	})
}

// TestBytesConcurrently has workers take what is left: all of what they are given is counted, none beyond the limit.
func TestBytesConcurrently(t *testing.T) {
	const workers, left = 8, 1 << 20
	s, _ := pairOf(t, crypto.AES256GCM)
	s.bytes.Store(RejectAfterBytes - left)
	var messages, given [workers]int
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for size := 16 + w; ; size = 16 + size*7%1500 {
				if _, ok := s.Reserve(1, size); !ok {
					if size == 16 {
						return
					}
					size = 0
					continue
				}
				messages[w]++
				given[w] += size
			}
		})
	}
	wg.Wait()
	var n, sum int
	for w := range workers {
		n, sum = n+messages[w], sum+given[w]
	}
	if sum > left || sum <= left-16 {
		t.Errorf("%d bytes given of %d", sum, left)
	}
	expectCounts(t, s, uint64(n), uint64(RejectAfterBytes-left+sum))
}

// TestWorkers has workers seal and others open at once: everything arrives, once.
func TestWorkers(t *testing.T) { eachSuite(t, testWorkers) }

func testWorkers(t *testing.T, a, b *Session) {
	const workers, each = 4, 500
	plaintext := []byte("a plaintext of some length, so that there is something to get wrong")
	wire := make(chan []byte, 64)
	var sealing, opening sync.WaitGroup
	for range workers {
		sealing.Go(func() {
			var n Nonce
			for range each {
				counter, ok := a.Reserve(1, len(plaintext)+noise.TagSize)
				if !ok {
					t.Error("refused")
					return
				}
				msg := make([]byte, len(plaintext)+Overhead)
				a.Seal(msg, counter, plaintext, &n)
				wire <- msg
			}
		})
	}
	var opened [workers]int
	for w := range workers {
		opening.Go(func() {
			var n Nonce
			dst := make([]byte, len(plaintext))
			for msg := range wire {
				if got, err := b.Open(dst, msg, &n); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%q, %v", got, err)
				}
				opened[w]++
			}
		})
	}
	sealing.Wait()
	close(wire)
	opening.Wait()
	sum := 0
	for _, n := range opened {
		sum += n
	}
	if sum != workers*each || a.Sent() != workers*each {
		t.Errorf("%d opened, %d sealed", sum, a.Sent())
	}
}
