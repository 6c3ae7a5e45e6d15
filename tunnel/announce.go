package tunnel

import (
	"sync/atomic"
	"time"
)

// This file is how an end makes itself heard without traffic of its own: it calls a peer with which there is no session, and tells one with
// which there is where this end is now. Many at once are spread over time.

const (
	// announceFor is how long after the loss of an address each change of routes is taken for its replacement: a new one may take a lease,
	// or IPv6's search for duplicates.
	announceFor = 10 * time.Second
	// announceTimes is how often a peer is told where this end is, unless something comes from it after the first time, and announceAgain
	// how long after the first the second follows; the third comes after twice as long.
	announceTimes = 3
	announceAgain = 2 * time.Second

	// greetTogether is how many peers are called within a retry's jitter, and announceTogether how many are told, which is less work.
	// A few are not spread.
	few              = 8
	greetTogether    = 64
	announceTogether = 1024
)

// announcement is a peer's being told where this end is.
type announcement struct {
	until atomic.Int64 // changes of routes have it told
	at    atomic.Int64 // when it is told next, 0: not
	told  atomic.Int32 // how often it was
	since atomic.Int64 // when it was first
}

// due reports whether the peer, which was last heard then, is to be told now.
func (a *announcement) due(heard, now time.Duration) bool {
	if !expired(&a.at, now) {
		return false
	}
	told := a.told.Add(1)
	switch {
	case told == 1:
		a.since.Store(int64(now))
	case heard > time.Duration(a.since.Load()):
		return false
	}
	if told < announceTimes {
		arm(&a.at, now+announceAgain<<(told-1))
	}
	return true
}

// spread is how long one of so many peers waits for its turn, where so many have theirs within a retry's jitter. A few do not wait.
func (t *Tunnel) spread(of, together int) time.Duration {
	if of <= few {
		return 0
	}
	return t.jitter() * time.Duration(of) / time.Duration(together)
}

// announce tells the peer, one of so many that are told now, where this end is, which it would otherwise learn from the next packet for it.
// It says nothing to a peer with which there is no session and no handshake under way.
func (p *peer) announce(now time.Duration, of int) {
	a := &p.announcement
	switch {
	case p.current.Load().maySend(now):
		a.told.Store(0)
		at := now + p.tunnel.spread(of, announceTogether)
		a.at.Store(int64(at))
		p.schedule(at)
	case p.timers.retransmit.Load() != 0:
		p.tryAgain()
	}
}

// greet calls the peer, one of so many that are called now, if that is wanted and nothing else calls it. It reports whether it does.
// Configuration is locked.
func (p *peer) greet(now time.Duration, of int) bool {
	t := p.tunnel
	if !t.options.Greet || p.wire() != Culvert || p.endpoint.Load() == nil || p.current.Load().maySend(now) {
		return false
	}
	p.callAt(now + t.spread(of, greetTogether))
	return true
}

// callAt has a handshake begun then.
func (p *peer) callAt(at time.Duration) {
	p.timers.roundBegun(at)
	p.schedule(p.timers.initiationDue(at))
}

// call makes this end heard by the peer, one of so many, in one way or the other: it is greeted, kept in touch with where that is
// configured, or told where this end is. Configuration is locked.
func (p *peer) call(now time.Duration, of int) {
	switch {
	case p.greet(now, of):
	case p.current.Load().maySend(now):
		p.announce(now, of)
	case p.timers.interval.Load() != 0 && p.endpoint.Load() != nil:
		p.callAt(now + p.tunnel.spread(of, greetTogether))
	}
}
