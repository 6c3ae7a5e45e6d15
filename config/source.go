package config

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A source is a file's text kept for showing lines in errors. Its lines are stripped of secrets when they are taken
// out, since no error may show a key.
type source struct {
	path  string
	lines []string

	line  int     // number of the line whose secrets were looked for last
	spans [][]int // and where they are
}

func newSource(path string, text []byte) *source {
	lines := strings.Split(strings.TrimPrefix(string(text), "\uFEFF"), "\n") // a byte order mark is no text
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\r")
	}
	if n := len(lines); n > 1 && lines[n-1] == "" {
		lines = lines[:n-1] // what follows the last newline is no line
	}
	return &source{path: path, lines: lines}
}

// errorAt makes an error with the source line of pos.
func (s *source) errorAt(pos Position, message, hint string, cause error) *Error {
	e := &Error{Pos: pos, Message: message, Hint: hint, Err: cause}
	if s != nil {
		s.quote(e)
	}
	return e
}

// quote gives e its source line. A place behind the file's end (a parser's idea of where the file ends) or behind its
// line's end is moved there.
func (s *source) quote(e *Error) {
	if e.Pos.Line <= 0 || len(s.lines) == 0 {
		return
	}
	if e.Pos.Line > len(s.lines) {
		e.Pos.Line = len(s.lines)
		e.Pos.Column = MaxFileSize + 1
	}
	line := s.lines[e.Pos.Line-1]
	e.Pos.Column = max(1, min(e.Pos.Column, utf8.RuneCountInString(line)+1))
	if s.line != e.Pos.Line { // one line may have many errors and be long
		s.line, s.spans = e.Pos.Line, secrets(line)
	}
	e.line, e.caret = show(line, e.Pos.Column, s.spans)
}

const (
	hidden  = "(hidden)"
	maxLine = 160 // characters of a source line that are shown
)

var (
	// secretKey finds a key whose value is a secret; the file names (..._file) are none.
	secretKey = regexp.MustCompile(`(?i)(?:private|pre[-_ ]?shared|secret)[-_ ]?(?:key)?["']?\s*[:=]`)
	// longRun finds what could be a key (43 or 44 characters of base64, 64 of hex) or the most part of one.
	longRun  = regexp.MustCompile(`[A-Za-z0-9+/_-]{40,}={0,2}`)
	isPublic = regexp.MustCompile(`(?i)public[-_ ]?key`)
)

// show prepares a source line for an error: secrets, at spans, are replaced, unprintable characters too, and a long line is cut
// around the column. It returns the line and where the column has moved to.
func show(line string, column int, spans [][]int) (string, int) {
	out, at := redact(line, column, spans)
	runes := []rune(out)
	for i, r := range runes {
		if r != '\t' && !unicode.IsPrint(r) {
			runes[i] = '\uFFFD'
		}
	}
	if len(runes) > maxLine {
		lo := max(0, min(at-1-maxLine/2, len(runes)-maxLine))
		hi := lo + maxLine
		cut := append([]rune(nil), runes[lo:hi]...)
		if lo > 0 {
			cut[0] = '…'
		}
		if hi < len(runes) {
			cut[len(cut)-1] = '…'
		}
		runes, at = cut, at-lo
	}
	return string(runes), min(at, len(runes)+1)
}

// secrets finds what may be key text in a line, as byte ranges in order: everything behind a secret's key, and anything
// that looks like a key on a line that does not speak of a public key.
func secrets(line string) (spans [][]int) {
	tail := len(line) // where a secret's value begins
	if m := secretKey.FindStringIndex(line); m != nil {
		tail = m[1] + len(line[m[1]:]) - len(strings.TrimLeft(line[m[1]:], blanks))
	}
	if !isPublic.MatchString(line) {
		for _, m := range longRun.FindAllStringIndex(line[:tail], -1) {
			if keyLike(line[m[0]:m[1]]) {
				spans = append(spans, m)
			}
		}
	}
	if tail < len(line) {
		spans = append(spans, []int{tail, len(line)})
	}
	return spans
}

// redact replaces spans by "(hidden)", and tells where the column moves to.
func redact(line string, column int, spans [][]int) (string, int) {
	if len(spans) == 0 {
		return line, column
	}
	var out strings.Builder
	at, last := column, 0
	runesBefore := func(i int) int { return utf8.RuneCountInString(line[:i]) }
	for _, s := range spans {
		out.WriteString(line[last:s[0]])
		lo, hi := runesBefore(s[0]), runesBefore(s[1])
		switch {
		case column > hi:
			at += len(hidden) - (hi - lo)
		case column > lo:
			at += lo + 1 - column
		}
		out.WriteString(hidden)
		last = s[1]
	}
	out.WriteString(line[last:])
	return out.String(), at
}

// keyLike tells the runs of longRun that look random from those that are paths and words.
func keyLike(run string) bool {
	var upper, lower, digit bool
	for _, c := range run {
		upper = upper || unicode.IsUpper(c)
		lower = lower || unicode.IsLower(c)
		digit = digit || unicode.IsDigit(c)
	}
	return digit && (upper && lower || strings.Trim(run, "0123456789abcdefABCDEF") == "")
}

// hideKeys replaces what could be a key in s.
func hideKeys(s string) string {
	return longRun.ReplaceAllStringFunc(s, func(run string) string {
		if keyLike(run) {
			return hidden
		}
		return run
	})
}
