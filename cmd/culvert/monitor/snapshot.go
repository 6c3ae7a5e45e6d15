package monitor

import (
	"context"
	"sync"
	"time"

	"culvert/control"
)

// Source is the instance that is told of. Its methods may be called concurrently.
type Source interface {
	Snapshot() Snapshot
	// Tunnels are a snapshot's tunnels alone. It may be called each second, and keeps nobody waiting.
	Tunnels() []control.Tunnel
	// Alive returns nil while everything that must run does, and otherwise what does not.
	Alive(ctx context.Context) error
}

// Snapshot is an instance at one moment.
type Snapshot struct {
	control.Instance
	Ready   bool     // started up, and not ending
	Servers []Server // of tunnels that clients join
	Reloads Reloads
}

// Server is what a tunnel that clients join has.
type Server struct {
	Interface   string
	Clients     []control.ServerClient
	Invitations int
}

// Reloads is how reading the file again went, since the start.
type Reloads struct {
	Done, Failed uint64
	Last         time.Time // the end of the last one; zero: there was none
	LastGood     time.Time // when the file in force was read; of the start, where no reload has succeeded
	LastFailed   bool
	Took         time.Duration // the last one
}

const (
	shareFor = 500 * time.Millisecond // a snapshot is as good as a new one
	keepFor  = 5 * time.Second        // and is let go of, if nobody has asked for long
)

// shared gives snapshots to several readers, who must not change them.
type shared struct {
	source Source

	mu    sync.Mutex // held while one is taken
	last  *Snapshot
	at    time.Time
	timer *time.Timer
}

func (s *shared) snapshot() (*Snapshot, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && time.Since(s.at) < shareFor {
		return s.last, s.at
	}
	taken := s.source.Snapshot()
	s.last, s.at = &taken, time.Now()
	if s.timer == nil {
		s.timer = time.AfterFunc(keepFor, s.forget)
	}
	s.timer.Reset(keepFor)
	return s.last, s.at
}

// tunnels are those of the snapshot that somebody has just looked at, or the source's.
func (s *shared) tunnels() []control.Tunnel {
	s.mu.Lock()
	if s.last != nil && time.Since(s.at) < shareFor {
		defer s.mu.Unlock()
		return s.last.Tunnels
	}
	s.mu.Unlock()
	return s.source.Tunnels()
}

func (s *shared) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = nil
}
