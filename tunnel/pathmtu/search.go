package pathmtu

import (
	"slices"
	"time"
)

// The state of a search, in the words of RFC 8899 §5.2:
//
//	state      begun  searching  settled   size          leaves by
//	disabled   no     no         no        Base          Begin -> first search
//	searching  yes    yes        no        from Base up  nothing left to try -> complete
//	complete   yes    no         yes       found         max above size, in use, raise timer (PMTU_RAISE_TIMER) -> raising;
//	                                                     three confirmations lost (§4.3), TooBig, Moved -> searching from Base
//	raising    yes    yes        yes       found         as searching; a size is still settled while a larger one is sought
//
// There are no BASE and ERROR states (§5.2): Base is what every IPv6 link carries and is taken to work.
//
// Probes go out in waves, of at most five. A wave holds what is to be learnt, and with it one probe of Base as the control. It
// is over when what it asks has been answered, or when the probe timer has run out. A probe that was not answered by
// then counts as lost if another of its wave was answered. Otherwise the path or the peer is away, which says nothing
// about sizes, and the wave is sent again with the timer doubled. So a size fails (MAX_PROBES, §5.1.2) by three probes lost
// beside others that arrived.
//
// The search runs down and up at once. A size lost once is suspected: the next waves ask again for the smallest
// suspect, and for two sizes between it and what is known to work, so that the bracket closes by a factor of three per
// wave while the suspect gets its three chances. If it is answered after all, the search goes on above it.
//
// The probe timer is 1 s, or three round-trip times (200 ms to 5 s) once they are known. RFC 8899 §5.1.1 asks for 1 s at
// least, for protocols that do not measure; here a timer too short costs no more than a doubling, thanks to the control.

const (
	// Base is the size always taken to work: the least MTU of IPv6, 1280, less the headers (BASE_PLPMTU, RFC 8899 §5.1.2).
	Base = 1232
	// Largest is the largest UDP payload of IPv4.
	Largest = 65507
	// Granularity is how close to what the path carries a search ends: less than this below.
	Granularity = 8

	maxProbes    = 3                // lost before a size has failed (MAX_PROBES, RFC 8899 §5.1.2)
	confirmEvery = 5 * time.Second  // in use (CONFIRMATION_TIMER, §5.1.1)
	raiseEvery   = 10 * time.Minute // in use (PMTU_RAISE_TIMER, §5.1.1)
	raiseLossy   = 10 * time.Second // the first time, where loss may have misled the search; doubles
	timerUnknown = time.Second      // no round-trip time known (PROBE_TIMER, §5.1.1)
	timerMin     = 200 * time.Millisecond
	timerMax     = 5 * time.Second
	backoffMax   = 10 * time.Second // the timer, doubled while nothing is answered
	waveMax      = 5                // probes in flight
	wavesLost    = 8                // in a row, then no more until in use
	remembered   = 64               // probes whose late acknowledgement still counts
	suspectsMax  = 64
)

// common are the sizes of paths met in practice, ascending: ethernet, PPPoE, tunnels and their sums, each under IPv4 and
// IPv6. Trying these first ends the search sooner and on the exact value.
var common = func() (sizes []int) {
	for _, mtu := range []int{
		1300, 1320, 1340, 1360, 1380, 1400, 1420, 1440, 1450, 1454, 1460, 1472, 1476, 1480, 1488, 1492, 1500, 4352, 9000,
	} {
		for _, headers := range []int{20 + 8, 40 + 8} {
			if size := mtu - headers; size > Base {
				sizes = append(sizes, size)
			}
		}
	}
	slices.Sort(sizes)
	return slices.Compact(sizes)
}()

// Search finds and watches the largest size towards one peer. Not safe for concurrent use.
type Search struct {
	max    int // the largest size of use
	size   int // the largest known to work
	failed int // the smallest known to fail, 0: none
	hint   int // a size that worked on the path before, 0: none
	rtt    time.Duration

	begun, searching, settled, raising bool
	suspended                          bool // too many waves went unanswered
	lossy                              bool // probes were lost in this search that were not too large
	suspects                           []suspect

	used      time.Duration // when sizes above Base were last of use, 0: never
	confirmed time.Duration // when a probe of the current size was last answered
	lost      int           // confirmations lost since
	raiseAt   time.Duration
	raiseNext time.Duration // the interval to wait after the next lossy search

	id        uint64
	ring      []probe // of the current path, by id; remembered of them, or none before Begin
	wave      uint64
	waveStart time.Duration
	waiting   bool // for the wave's answers
	alive     bool // one came
	unheard   int  // waves in a row without any
	nextAt    time.Duration
	pending   []int // sizes of the wave still to be handed out
}

type suspect struct{ size, lost int }

type probe struct {
	id      uint64 // 0: none
	wave    uint64
	size    int
	confirm bool // of the size in use, rather than of a larger one
	done    bool // answered, or refused with its size
}

// New returns a search for sizes up to max, which is what a packet of the inner MTU takes: more is of no use. It does
// nothing until [Search.Begin].
func New(max int) *Search {
	return &Search{max: bounded(max), size: Base, raiseNext: raiseLossy}
}

func bounded(size int) int { return min(max(size, Base), Largest) }

// Size returns the largest size known to work, from [Base] to the max given.
func (s *Search) Size() int { return min(s.size, s.max) }

// Settled reports whether [Search.Size] is the result of a search that has ended. It stays true while a larger size is
// sought later, and becomes false when the path turns out to carry less, or changes.
func (s *Search) Settled() bool { return s.settled }

// SetRTT tells the round-trip time, 0 for unknown, by which a wave's answers are waited for. It may be called at any time.
func (s *Search) SetRTT(rtt time.Duration) { s.rtt = rtt }

// Begin starts the search when there is a session to probe through. Called again, with a later session on the same path,
// it keeps all that is known, and goes on with what had been given up for want of answers.
func (s *Search) Begin(now time.Duration) {
	if s.begun {
		s.suspended, s.nextAt = false, now
		return
	}
	s.begun = true
	s.restart(0, now)
}

// Moved starts anew from [Base] because the endpoint of the peer, or the local address, is another: the path is. The size
// that worked before is among the first tried.
func (s *Search) Moved(now time.Duration) {
	if !s.begun {
		return
	}
	hint := s.size
	s.restart(0, now)
	s.hint = hint
}

// TooBig says that the kernel refused a datagram of size bytes, of data or a probe, as longer than the path takes (EMSGSIZE):
// that size fails at once. If it is one in use the search starts anew from [Base], below it.
func (s *Search) TooBig(size int, now time.Duration) {
	switch {
	case !s.begun || size <= Base:
	case size <= s.Size():
		s.restart(size, now)
	default:
		s.refuse(size, now)
	}
}

// SetMax changes the largest size of use, with the inner MTU.
func (s *Search) SetMax(max int, now time.Duration) {
	if max = bounded(max); max == s.max {
		return
	}
	s.max = max
	s.hint, s.lost = 0, 0
	s.suspects = slices.DeleteFunc(s.suspects, func(c suspect) bool { return c.size > max })
	s.pending = slices.DeleteFunc(s.pending, func(size int) bool { return size > max })
	if s.begun {
		s.searching, s.nextAt = true, now
		s.settleIfDone(now)
	}
}

// Used says that sizes above [Base] are of use just now: datagrams of Base or longer are being sent, or would be if they
// fitted and go as fragments. (Of Base: where inner TCP has been clamped to it, nothing longer is sent, and still more would
// be of use.) The size in use is confirmed, and larger ones are tried, only while that is so.
func (s *Search) Used(now time.Duration) {
	s.used = now
	if s.suspended {
		s.suspended, s.nextAt = false, now
	}
}

// restart forgets the path. failed is a size it is known not to carry, 0: none.
func (s *Search) restart(failed int, now time.Duration) {
	s.size, s.failed, s.hint = Base, failed, 0
	s.searching, s.settled, s.raising, s.suspended, s.lossy = true, false, false, false, false
	s.suspects, s.pending = s.suspects[:0], s.pending[:0]
	s.lost, s.unheard, s.waiting = 0, 0, false
	if s.ring == nil { // most peers of a large tunnel are never spoken to
		s.ring = make([]probe, remembered)
	}
	clear(s.ring)
	s.raiseNext, s.nextAt = raiseLossy, now
	s.settleIfDone(now)
}

// Next hands out a probe that is due: a message with the id in a datagram of exactly size bytes, to be sent so that it is
// not fragmented. It is to be called until ok is false, at [Search.Deadline] and after any other call that takes now.
func (s *Search) Next(now time.Duration) (size int, id uint64, ok bool) {
	if len(s.pending) == 0 {
		if s.waiting {
			if now < s.waveStart+s.timer() {
				return 0, 0, false
			}
			s.conclude(now)
		}
		s.startWave(now)
	}
	if len(s.pending) == 0 {
		return 0, 0, false
	}
	size = s.pending[0]
	s.pending = slices.Delete(s.pending, 0, 1)
	s.id++
	s.ring[s.id%remembered] = probe{id: s.id, wave: s.wave, size: size, confirm: size > Base && size <= s.size}
	return size, s.id, true
}

// Deadline returns when [Search.Next] is to be called again, in the past if at once; 0 if not before another call.
func (s *Search) Deadline() time.Duration {
	switch {
	case len(s.pending) > 0:
		return s.waveStart
	case s.waiting:
		return s.waveStart + s.timer()
	}
	return s.due()
}

// due returns when the next wave starts, 0: not as things stand.
func (s *Search) due() (at time.Duration) {
	if !s.begun || s.suspended {
		return 0
	}
	if s.searching || s.lost > 0 {
		return s.nextAt
	}
	if s.Size() > Base && s.used > s.confirmed {
		at = s.confirmed + confirmEvery
	}
	if s.Size() < s.max && s.used != 0 && s.used+confirmEvery >= s.raiseAt && (at == 0 || s.raiseAt < at) {
		at = s.raiseAt
	}
	return at
}

// timer returns how long a wave's answers are waited for.
func (s *Search) timer() time.Duration {
	t := timerUnknown
	if s.rtt > 0 {
		t = min(max(3*min(s.rtt, timerMax), timerMin), timerMax)
	}
	return min(t<<s.unheard, max(t, backoffMax))
}

// startWave plans the probes of a new wave if one is due.
func (s *Search) startWave(now time.Duration) {
	if at := s.due(); at == 0 || now < at {
		return
	}
	if !s.searching && s.Size() < s.max && now >= s.raiseAt {
		// What failed may work by now.
		s.searching, s.raising, s.lossy, s.failed = true, true, false, 0
		s.suspects = s.suspects[:0]
	}
	s.pending = s.pending[:0]
	if s.Size() > Base && (s.lost > 0 || s.used > s.confirmed && now >= s.confirmed+confirmEvery) {
		s.pending = append(s.pending, s.Size())
	}
	if s.searching {
		s.pending = s.wanted(s.pending)
	}
	if len(s.pending) == 0 {
		return
	}
	s.pending = append(s.pending, Base)
	s.wave++
	s.waveStart, s.waiting, s.alive = now, true, false
}

// wanted appends the sizes to be probed next, none when the search has ended.
func (s *Search) wanted(sizes []int) []int {
	if s.size >= s.max {
		return sizes
	}
	below, ask := s.max+1, 0
	if s.failed != 0 && s.failed < below {
		below = s.failed
	}
	for _, c := range s.suspects {
		if c.size < below {
			below, ask = c.size, c.size
		}
	}
	if ask != 0 {
		sizes = append(sizes, ask)
	} else if below == s.max+1 {
		if s.raising {
			// If the least step fails so does all above.
			if step := s.size + Granularity; step < s.max {
				sizes = append(sizes, step)
			}
		} else if s.hint > s.size && s.hint < s.max {
			sizes = append(sizes, s.hint)
		}
		return append(sizes, s.max)
	}
	return between(sizes, s.size, below)
}

// between appends up to two sizes that divide what lies between one that works and one that may not.
func between(sizes []int, works, not int) []int {
	from, _ := slices.BinarySearch(common, works+1)
	to, _ := slices.BinarySearch(common, not)
	if n := to - from; n > 0 {
		sizes = append(sizes, common[from+n/3])
		if n > 1 {
			sizes = append(sizes, common[from+n*2/3])
		}
		return sizes
	}
	if third := (not - works) / 3; not-works > Granularity {
		sizes = append(sizes, works+third, works+2*third)
	}
	return sizes
}

// conclude ends a wave whose time is up.
func (s *Search) conclude(now time.Duration) {
	s.waiting, s.nextAt = false, now
	s.pending = s.pending[:0]
	if !s.alive {
		s.lossy = true
		if s.unheard++; s.unheard >= wavesLost {
			s.unheard, s.suspended = wavesLost, true
		}
		return
	}
	for i := range s.ring {
		p := &s.ring[i]
		switch {
		case p.id == 0 || p.wave != s.wave || p.done:
		case p.size == Base:
			s.lossy = true
		case p.confirm && p.size == s.Size():
			s.lost++
		case p.size > s.size && p.size <= s.max:
			s.suspect(p.size)
		}
	}
	if s.lost >= maxProbes {
		// A black hole (RFC 8899 §4.3), or loss that looked like one: what worked is asked for again beside the search
		// below it.
		size := s.Size()
		s.restart(0, now)
		s.suspects = append(s.suspects, suspect{size: size})
		return
	}
	s.settleIfDone(now)
}

// suspect counts a probe of size as lost.
func (s *Search) suspect(size int) {
	i := slices.IndexFunc(s.suspects, func(c suspect) bool { return c.size == size })
	if i < 0 {
		if len(s.suspects) == suspectsMax {
			return
		}
		s.suspects = append(s.suspects, suspect{size: size})
		i = len(s.suspects) - 1
	}
	if s.suspects[i].lost++; s.suspects[i].lost >= maxProbes {
		s.fail(size)
	}
}

// fail says that size, and so what is larger, does not work.
func (s *Search) fail(size int) {
	if s.failed == 0 || size < s.failed {
		s.failed = size
	}
	s.suspects = slices.DeleteFunc(s.suspects, func(c suspect) bool { return c.size >= size })
}

// Acked says that the peer received the probe id. What is not known, or belongs to a path left behind, is ignored.
func (s *Search) Acked(id uint64, now time.Duration) {
	p := s.find(id)
	if p == nil || p.done {
		return
	}
	p.done = true
	if p.wave == s.wave {
		s.alive, s.unheard = true, 0
	}
	if p.size >= s.Size() {
		s.confirmed, s.lost = now, 0
	}
	if p.size > s.size {
		s.size = p.size
		if s.failed != 0 && s.failed <= s.size {
			s.failed, s.lossy = 0, true
		}
		before := len(s.suspects)
		s.suspects = slices.DeleteFunc(s.suspects, func(c suspect) bool { return c.size <= p.size })
		s.lossy = s.lossy || len(s.suspects) < before
	}
	s.endWave(now)
	s.settleIfDone(now)
}

// ProbeRefused says that the kernel refused the probe id, which [Search.Next] gave out, as longer than the path takes
// (EMSGSIZE). It is [Search.TooBig] with the probe's size, if the probe is of the path there is.
func (s *Search) ProbeRefused(id uint64, now time.Duration) {
	if p := s.find(id); p != nil && !p.done {
		s.TooBig(p.size, now)
	}
}

// find returns the probe id, nil where it is not known.
func (s *Search) find(id uint64) *probe {
	if id == 0 || s.ring == nil {
		return nil
	}
	if p := &s.ring[id%remembered]; p.id == id {
		return p
	}
	return nil
}

// refuse fails a size that is not in use, without waiting for probes of it. The wave goes on with what is to be asked
// instead, so that its control counts for that too.
func (s *Search) refuse(size int, now time.Duration) {
	s.fail(size)
	for i := range s.ring {
		if s.ring[i].size >= size {
			s.ring[i].done = true
		}
	}
	s.pending = slices.DeleteFunc(s.pending, func(waits int) bool { return waits >= size })
	if s.waiting && s.searching {
		var buf [waveMax]int
		for _, wanted := range s.wanted(buf[:0]) {
			if !slices.Contains(s.pending, wanted) && !s.inFlight(wanted) {
				s.pending = append(s.pending, wanted)
			}
		}
	}
	s.endWave(now)
	s.settleIfDone(now)
}

// inFlight reports whether the current wave has asked for size and waits for the answer.
func (s *Search) inFlight(size int) bool {
	return slices.ContainsFunc(s.ring, func(p probe) bool {
		return p.id != 0 && p.wave == s.wave && !p.done && p.size == size
	})
}

// endWave ends the wave before its time when nothing it waits for can tell anything more.
func (s *Search) endWave(now time.Duration) {
	if !s.waiting || slices.ContainsFunc(s.pending, func(size int) bool { return size > s.size }) {
		return
	}
	for _, p := range s.ring {
		if p.id != 0 && p.wave == s.wave && !p.done && (p.size > s.size || p.confirm && p.size == s.Size()) {
			return
		}
	}
	s.waiting, s.nextAt = false, now
	s.pending = s.pending[:0]
}

// settleIfDone ends the search if nothing is left to try.
func (s *Search) settleIfDone(now time.Duration) {
	if !s.searching {
		return
	}
	var buf [waveMax]int
	if len(s.wanted(buf[:0])) > 0 {
		return
	}
	s.searching, s.settled, s.raising, s.hint = false, true, false, 0
	every := raiseEvery
	if s.lossy {
		every = s.raiseNext
		s.raiseNext = min(2*s.raiseNext, raiseEvery)
	}
	s.raiseAt = now + every
}

// Resume has a fresh search begin with a size that was known to work before, and try it first.
func (s *Search) Resume(size int) {
	s.size = bounded(size)
	s.hint = s.size
}
