package service

import (
	"bytes"
	"fmt"
	"sync"
	"time"
)

// The bounds on what a service's output may add to the log.
const (
	maxLine    = 1000 // bytes; what is longer is cut
	lineBurst  = 100  // lines at once
	lineRate   = 10   // lines per second from then on
	keptOutput = 10   // last lines that an error shows
)

// lines turns a service's output into lines of the log. A program that says too much is cut short, and how much was left out is said.
type lines struct {
	now  func() time.Duration
	logf func(format string, args ...any)

	line    []byte
	cut     bool
	credit  float64 // lines that may be logged
	at      time.Duration
	skipped int

	mu   sync.Mutex
	last []string
}

func newLines(now func() time.Duration, logf func(string, ...any)) *lines {
	return &lines{now: now, logf: logf, credit: lineBurst, at: now()}
}

// Write takes output in pieces of any size.
func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for {
		head, rest, ended := bytes.Cut(p, []byte("\n"))
		room := maxLine - len(l.line)
		if len(head) > room {
			head, l.cut = head[:room], true
		}
		l.line = append(l.line, head...)
		if !ended {
			return n, nil
		}
		l.end()
		p = rest
	}
}

func (l *lines) end() {
	text := string(bytes.ToValidUTF8(l.line, []byte("?")))
	if l.cut {
		text += " ..."
	}
	l.line, l.cut = l.line[:0], false
	if text == "" {
		return
	}
	l.mu.Lock()
	if len(l.last) == keptOutput {
		l.last = append(l.last[:0], l.last[1:]...)
	}
	l.last = append(l.last, text)
	l.mu.Unlock()

	now := l.now()
	l.credit = min(lineBurst, l.credit+(now-l.at).Seconds()*lineRate)
	l.at = now
	if l.credit < 1 {
		l.skipped++
		return
	}
	l.credit--
	if l.skipped > 0 {
		l.logf("%s", fmt.Sprintf("(%d lines left out)", l.skipped))
		l.skipped = 0
	}
	l.logf("%s", text)
}

// tail returns the last lines, oldest first.
func (l *lines) tail() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.last...)
}
