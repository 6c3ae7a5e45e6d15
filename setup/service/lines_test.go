package service

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestLines(t *testing.T) {
	var now time.Duration
	var got []string
	l := newLines(func() time.Duration { return now }, func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) })
	fmt.Fprint(l, "in ", "pieces\ntwo\nli")
	io.WriteString(l, "nes\n\n%d \xff\nopen end")
	if want := "in pieces|two|lines|%d ?"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
	got = nil
	fmt.Fprint(l, "\n", strings.Repeat("x", 5*maxLine), "\nnext\n")
	if want := strings.Repeat("x", maxLine) + " ..."; len(got) != 3 || got[1] != want || got[2] != "next" {
		t.Errorf("%d lines, the long one of %d bytes", len(got), len(got[1]))
	}
}

func TestLinesAreBounded(t *testing.T) {
	var now time.Duration
	var got []string
	l := newLines(func() time.Duration { return now }, func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) })
	for i := range 1000 {
		fmt.Fprintf(l, "line %d\n", i)
	}
	if len(got) != lineBurst {
		t.Errorf("%d lines at once, want %d", len(got), lineBurst)
	}
	if tail := l.tail(); len(tail) != keptOutput || tail[0] != "line 990" || tail[9] != "line 999" {
		t.Errorf("the last lines are %q", tail)
	}
	got, now = nil, 2*time.Second
	for range 1000 {
		fmt.Fprintln(l, "more")
	}
	if len(got) != 2*lineRate+1 || got[0] != "(900 lines left out)" || got[1] != "more" {
		t.Errorf("%d lines after two seconds: %q", len(got), got)
	}
	// What never ends in a newline takes no memory.
	for range 1000 {
		l.Write(make([]byte, 4096))
	}
	if cap(l.line) > 4*maxLine {
		t.Errorf("%d bytes are kept of a line without end", cap(l.line))
	}
}
