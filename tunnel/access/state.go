package access

import (
	"sync"
	"sync/atomic"
	"time"
)

// Verdict is what becomes of a packet, and why.
type Verdict uint8

const (
	Pass Verdict = iota
	Denied
	OverRate
	OverQuota
	Shut // the peer is held, or its time is over or not now
	verdicts
)

// State is what one peer may do now, and what it has done. The methods that take a packet may be called by any number of workers.
type State struct {
	policy atomic.Pointer[inForce]
	flows  atomic.Pointer[table] // nil where no rules are
	shut   atomic.Bool           // closed or held

	crowded atomic.Bool // a flow had to give way since Grow was last called
	asked   atomic.Bool // and that has been told
	full    atomic.Bool // there is no more room to be had

	_    [cacheLine]byte // what is above is read by all workers for each packet, what is below is written
	ways [directions]way
	used atomic.Uint64 // bytes of the quota's period
	_    [cacheLine]byte

	mu       sync.Mutex // guards what follows, of the control plane
	held     bool
	closed   Closed
	since    time.Time // when the quota's period began
	exceeded bool      // that the quota is used up has been told
}

// way is what is counted of one direction, which workers of its own go.
type way struct {
	bucket
	counts [verdicts]atomic.Uint64 // but for Pass
	_      [cacheLine]byte
}

const cacheLine = 64

// inForce is a policy with its place in the order of those the state has had.
type inForce struct {
	*Policy
	generation uint16
}

// NewState makes the state of a peer, with a policy in force.
func NewState(p *Policy, wall time.Time) *State {
	s := &State{}
	s.SetPolicy(p, wall)
	return s
}

// Policy returns the one in force.
func (s *State) Policy() *Policy { return s.policy.Load().Policy }

// SetPolicy puts another policy in force. Flows that it allows too go on, buckets whose rate stays do, and what was used of a quota stays
// used.
func (s *State) SetPolicy(p *Policy, wall time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.policy.Load()
	next := &inForce{Policy: p, generation: 1}
	if old != nil {
		if old.Equal(p) {
			return
		}
		next.generation = old.generation + 1
	}
	switch {
	case !p.filters():
		s.flows.Store(nil)
	case s.flows.Load() == nil || next.generation == 0: // a flow that has slept through 2^16 policies is none
		s.flows.Store(newTable(MinFlows))
	}
	s.policy.Store(next)
	s.ways[FromPeer].set(p.spec.FromPeer)
	s.ways[ToPeer].set(p.spec.ToPeer)
	s.exceeded = false
	s.full.Store(false)
	s.look(wall)
}

// Idle reports whether the state restricts nothing, so that the peer needs none.
func (s *State) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.held && !s.policy.Load().restricts()
}

// Hold has nothing pass but what the engine itself says to the peer, until it is released. Its sessions stay.
func (s *State) Hold(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
	s.shut.Store(s.held || s.closed != Open)
}

// Change is what looking at the clock has changed.
type Change struct {
	Closed   Closed
	Was      Closed
	Renewed  bool // the quota's period is over
	Exceeded bool // its bytes are used up, for the first time in the period
}

// Look settles what depends on the time of day. It is to be called again after Policy.Next.
func (s *State) Look(wall time.Time) Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.look(wall)
}

func (s *State) look(wall time.Time) Change {
	p := s.policy.Load()
	c := Change{Was: s.closed, Closed: p.At(wall)}
	s.closed = c.Closed
	s.shut.Store(s.held || s.closed != Open)
	q := &p.spec.Quota
	if q.Bytes == 0 {
		return c
	}
	s.since, c.Renewed = q.renewed(s.since, wall)
	if c.Renewed {
		s.used.Store(0)
		s.exceeded = false
	}
	if s.used.Load() >= q.Bytes && !s.exceeded {
		s.exceeded, c.Exceeded = true, true
	}
	return c
}

// Usage is what is used of the quota. ok is false where there is none.
func (s *State) Usage() (u Usage, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Usage{Bytes: s.used.Load(), Since: s.since}, s.policy.Load().spec.Quota.Bytes != 0
}

// Restore takes up what was used before, in a period that began at u.Since.
func (s *State) Restore(u Usage, wall time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.Store(u.Bytes)
	s.since = u.Since
	s.exceeded = false
	s.look(wall)
}

// Check asks whether an IP packet or super-packet, whose lengths have been checked, may pass, and counts it.
func (s *State) Check(d Direction, packet []byte, now time.Duration) Verdict {
	v := s.check(d, len(packet), packet, true, now)
	if v != Pass {
		s.ways[d].counts[v].Add(1)
	}
	return v
}

// check is Check of what is size bytes long and holds the IP packet ip, which rules are asked about where it is ruled.
func (s *State) check(d Direction, size int, ip []byte, ruled bool, now time.Duration) Verdict {
	if s.shut.Load() {
		return Shut
	}
	f := s.policy.Load()
	if t := s.flows.Load(); t != nil && ruled {
		p := parse(ip, d)
		if !s.admit(f, t, &p, d, seconds(now)) {
			return Denied
		}
	}
	quota := f.spec.Quota.Bytes
	if quota != 0 && s.used.Load() >= quota {
		return OverQuota
	}
	if !s.ways[d].take(size, now) {
		return OverRate
	}
	if quota != 0 {
		s.used.Add(uint64(size))
	}
	return Pass
}

// Attention reports, once, that Grow is to be called.
func (s *State) Attention() bool {
	return s.crowded.Load() && s.asked.CompareAndSwap(false, true)
}

// Crowded reports whether Grow has anything to do.
func (s *State) Crowded() bool { return s.crowded.Load() }

// Grow gives the flows more room where some had to give way: room for four times as many, but for no more than most.
func (s *State) Grow(most int, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.flows.Load()
	if t == nil || !s.crowded.Load() {
		return
	}
	defer s.asked.Store(false)
	defer s.crowded.Store(false)
	size := len(t.places)
	for size < 4*len(t.places) && 2*size <= min(most, MaxFlows) {
		size *= 2
	}
	if size == len(t.places) {
		s.full.Store(true)
		return
	}
	larger := newTable(size)
	larger.older.Store(t)
	s.flows.Store(larger)
	at := seconds(now)
	t.each(at, func(w [5]uint64, st status) {
		h := hash(w)
		if p, _ := larger.find(w, h, at); p == nil { // a worker may have begun it anew
			larger.insert(w, h, st.opener(), at, st.ends(), st.generation(), st.phase())
		}
	})
	larger.older.Store(nil)
}

// Room is how many flows there is room for.
func (s *State) Room() int {
	if t := s.flows.Load(); t != nil {
		return len(t.places)
	}
	return 0
}

// Status is a snapshot.
type Status struct {
	Default    Action    `json:"default"`
	Rules      int       `json:"rules"`
	Held       bool      `json:"held"`
	Closed     Closed    `json:"closed"`
	FromPeer   Rate      `json:"from_peer"`
	ToPeer     Rate      `json:"to_peer"`
	Quota      uint64    `json:"quota"` // bytes, 0: none
	Every      Period    `json:"every"`
	Used       Usage     `json:"used"`
	Expires    time.Time `json:"expires,omitzero"`
	Scheduled  bool      `json:"scheduled"`
	Flows      int       `json:"flows"`
	FromCounts Counts    `json:"from_counts"`
	ToCounts   Counts    `json:"to_counts"`
}

// Counts are packets that did not pass in one direction, super-packets counting as one.
type Counts struct {
	Denied    uint64 `json:"denied"`
	OverRate  uint64 `json:"over_rate"`
	OverQuota uint64 `json:"over_quota"`
	Shut      uint64 `json:"shut"`
}

// Status returns a snapshot of the state.
func (s *State) Status(now time.Duration) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.policy.Load()
	out := Status{
		Default: p.spec.Default, Rules: len(p.spec.Rules), Held: s.held, Closed: s.closed, FromPeer: p.spec.FromPeer, ToPeer: p.spec.ToPeer,
		Quota: p.spec.Quota.Bytes, Every: p.spec.Quota.Every, Expires: p.spec.Expires, Scheduled: len(p.spec.Schedule) > 0,
		FromCounts: s.counted(FromPeer), ToCounts: s.counted(ToPeer),
	}
	if out.Quota != 0 {
		out.Used = Usage{Bytes: s.used.Load(), Since: s.since}
	}
	if t := s.flows.Load(); t != nil {
		t.each(seconds(now), func(_ [5]uint64, st status) {
			if st.phase() != fragments {
				out.Flows++
			}
		})
	}
	return out
}

func (s *State) counted(d Direction) Counts {
	c := &s.ways[d].counts
	return Counts{Denied: c[Denied].Load(), OverRate: c[OverRate].Load(), OverQuota: c[OverQuota].Load(), Shut: c[Shut].Load()}
}
