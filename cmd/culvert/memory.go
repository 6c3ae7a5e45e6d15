package main

import (
	"runtime/debug"
	"sync/atomic"
	"time"

	"culvert/tunnel"
)

const (
	// gcPercent is how much the heap may grow until it is collected, in percent of what lives on it. Packets are moved without
	// allocating and a handshake allocates little, so that collecting four times as often costs next to nothing (docs/architecture.md).
	gcPercent = 25
	// manyPeers is from how many peers on a snapshot of a tunnel is worth giving back to the system.
	manyPeers = 1000
	// tidyAfter is how long after a snapshot that is done, and so how often at most.
	tidyAfter = 5 * time.Second
)

// sparing is a tunnel that does not keep the memory of what it was asked for: a status of ten thousand peers takes as much as the
// peers, and a daemon without traffic does not allocate, so that nothing else would have it collected for minutes.
type sparing struct {
	*tunnel.Tunnel
	tidier tidier
}

func spare(t *tunnel.Tunnel) *sparing {
	return &sparing{Tunnel: t, tidier: tidier{free: debug.FreeOSMemory}}
}

// Status is that of [tunnel.Tunnel].
func (s *sparing) Status() tunnel.Status {
	status := s.Tunnel.Status()
	s.tidier.took(len(status.Peers))
	return status
}

// tidier has memory given back a while after a large snapshot was taken.
type tidier struct {
	free    func()
	planned atomic.Bool
}

// took notes a snapshot of so many peers.
func (t *tidier) took(peers int) {
	if peers < manyPeers || !t.planned.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(tidyAfter, func() {
		t.planned.Store(false)
		t.free()
	})
}
