package pathmtu

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// path is a simulated path with one search at its near end: what the far end receives it acknowledges.
type path struct {
	search *Search
	random *rand.Rand
	now    time.Duration

	carries int           // largest size
	local   int           // size above which the kernel refuses, 0: none
	delay   time.Duration // one way
	loss    float64       // each way
	inUse   bool          // large datagrams are sent all the time

	acks   []ack
	probes int      // sent in all
	sent   []string // with the time
	moves  []string // of the size, with the time
	last   int
}

type ack struct {
	at time.Duration
	id uint64
}

const start = time.Second

func newPath(max, carries int) *path {
	p := &path{
		search: New(max), random: rand.New(rand.NewPCG(1, uint64(carries))),
		now: start, carries: carries, delay: 10 * time.Millisecond,
	}
	p.last = p.search.Size()
	return p
}

// begin begins with the round-trip time known.
func (p *path) begin() {
	p.search.SetRTT(2 * p.delay)
	p.search.Begin(p.now)
	p.pump()
}

func (p *path) note() {
	if size := p.search.Size(); size != p.last {
		p.last = size
		p.moves = append(p.moves, fmt.Sprintf("%v %d", p.now-start, size))
	}
}

// pump takes all probes that are due.
func (p *path) pump() {
	p.note()
	for n := 0; ; n++ {
		size, id, ok := p.search.Next(p.now)
		if !ok {
			break
		}
		if n > 100 {
			panic("probes without end")
		}
		p.probes++
		p.sent = append(p.sent, fmt.Sprintf("%v %d", p.now-start, size))
		if p.local != 0 && size > p.local {
			p.search.ProbeRefused(id, p.now)
		} else if size <= p.carries && p.random.Float64() >= p.loss && p.random.Float64() >= p.loss {
			p.acks = append(p.acks, ack{p.now + 2*p.delay, id})
			slices.SortStableFunc(p.acks, func(a, b ack) int { return cmp.Compare(a.at, b.at) })
		}
		p.note()
	}
	if d := p.search.Deadline(); d != 0 && d <= p.now {
		panic("nothing is due, and yet it is")
	}
	p.note()
}

// step goes to the next event, at most to until; false there.
func (p *path) step(until time.Duration) bool {
	next := until
	if d := p.search.Deadline(); d != 0 {
		next = min(next, max(d, p.now))
	}
	if len(p.acks) > 0 {
		next = min(next, p.acks[0].at)
	}
	if p.inUse {
		next = min(next, p.now-p.now%time.Second+time.Second)
	}
	p.now = next
	for len(p.acks) > 0 && p.acks[0].at <= p.now {
		id := p.acks[0].id
		p.acks = p.acks[1:]
		p.search.Acked(id, p.now)
	}
	if p.inUse && p.now%time.Second == 0 {
		p.search.Used(p.now)
	}
	p.pump()
	return p.now < until
}

func (p *path) run(d time.Duration) {
	until, steps := p.now+d, 0
	for p.step(until) {
		if steps++; steps > 100+int(d/(time.Millisecond)) {
			panic("time does not go on")
		}
	}
}

// settle runs until the search has settled and returns how long that took.
func (p *path) settle(t testing.TB, within time.Duration) time.Duration {
	t.Helper()
	from := p.now
	for !p.search.Settled() {
		if !p.step(from + within) {
			t.Fatalf("not settled within %v: size %d, sent %v", within, p.search.Size(), p.sent)
		}
	}
	return p.now - from
}
