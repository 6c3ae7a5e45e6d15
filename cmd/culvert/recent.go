package main

import (
	"slices"
	"strings"
	"sync"
)

const (
	recentLines = 256  // kept of a log
	recentLine  = 1024 // bytes kept of a line
)

// recentLog keeps the latest lines of a log. Each Write is a line.
type recentLog struct {
	mu    sync.Mutex
	lines []string // a ring, once it is full
	next  int
}

// Write keeps a line.
func (r *recentLog) Write(b []byte) (int, error) {
	line := strings.TrimSuffix(string(b[:min(len(b), recentLine)]), "\n")
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) < recentLines {
		r.lines = append(r.lines, line)
	} else {
		r.lines[r.next] = line
		r.next = (r.next + 1) % recentLines
	}
	return len(b), nil
}

// all returns what is kept, the oldest first.
func (r *recentLog) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.lines[r.next:], r.lines[:r.next])
}
