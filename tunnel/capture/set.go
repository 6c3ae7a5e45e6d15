package capture

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"culvert/tunnel/device"
)

// MaxCaptures is how many captures a tunnel has at once.
const MaxCaptures = 4

// ErrTooMany is returned by [Set.Add] where there are [MaxCaptures] already.
var ErrTooMany = errors.New("too many captures of this tunnel at once: 4 are the most")

// Set is the captures of one tunnel. The zero value has none.
type Set struct {
	rings atomic.Pointer[[]*Ring] // immutable, never of length 0
	mu    sync.Mutex              // held by who changes it
}

// Active reports whether there is any capture. It is one atomic load, for the datapath to ask before it puts a Meta
// together.
func (s *Set) Active() bool { return s.rings.Load() != nil }

// Put records a packet in every ring, as [Ring.Put] does.
func (s *Set) Put(m Meta, packet []byte) {
	if rings := s.rings.Load(); rings != nil {
		putAll(*rings, m, packet)
	}
}

func putAll(rings []*Ring, m Meta, packet []byte) {
	for _, r := range rings {
		r.Put(m, packet)
	}
}

// Add begins to record into r. remove ends it; a packet that is just being recorded may still come after. remove may be called
// more than once. Errors: ErrTooMany.
func (s *Set) Add(r *Ring) (remove func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rings []*Ring
	if now := s.rings.Load(); now != nil {
		rings = slices.Clone(*now)
	}
	if len(rings) >= MaxCaptures {
		return nil, ErrTooMany
	}
	rings = append(rings, r)
	s.rings.Store(&rings)
	return func() { s.remove(r) }, nil
}

func (s *Set) remove(r *Ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.rings.Load()
	if now == nil {
		return
	}
	rings := slices.DeleteFunc(slices.Clone(*now), func(o *Ring) bool { return o == r })
	if len(rings) == 0 {
		s.rings.Store(nil)
		return
	}
	s.rings.Store(&rings)
}

// Source is what can be captured: an engine.
type Source interface {
	// Capture begins to record into r. The engine does not close r when it ends.
	Capture(r *Ring) (Feed, error)
}

// Feed is a capture that has begun.
type Feed struct {
	Layer device.Layer // of the packets
	// Epoch is the wall clock's time at Meta.At zero, by the clock as it stood when the capture began.
	Epoch time.Time
	// Stop ends the capture. It may be called more than once, and after the engine's end.
	Stop func()
}
