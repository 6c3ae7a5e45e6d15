package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An Error is one thing wrong (or odd, in [File.Warnings]) at one place. It never holds key text.
type Error struct {
	Pos     Position
	Message string // what is wrong and what was expected
	Hint    string // what to do; may be empty
	Err     error  // the cause, such as fs.ErrNotExist; may be nil

	line  string // the source line without secrets; empty where Pos has no line
	caret int    // column of the caret within line, from 1
}

// Error gives several lines without a newline at the end: position and message, the source line with a caret, the hint.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Pos != (Position{}) {
		b.WriteString(e.Pos.String())
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	indent := 2
	if e.Pos.Line > 0 {
		number := strconv.Itoa(e.Pos.Line)
		indent += len(number) + 1
		fmt.Fprintf(&b, "\n  %s | %s\n%*s| %s^", number, e.line, indent, "", leading(e.line, e.caret-1))
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "\n%*s= %s", indent, "", e.Hint)
	}
	return b.String()
}

// leading gives blanks as wide as the first n characters of line, keeping its tabs.
func leading(line string, n int) string {
	var b strings.Builder
	for _, r := range line {
		if n <= 0 {
			break
		}
		n--
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errors are all errors of a file, in file order. It is never empty where it is returned as an error: find it with
// errors.As, which tells a bad configuration from everything else.
type Errors []*Error

// Error gives all errors, one after the other.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap gives each error, for errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, err := range e {
		out[i] = err
	}
	return out
}

// ErrorAt makes an error about a place in f found out later, such as a device that cannot be made, with its source line.
func (f *File) ErrorAt(pos Position, message, hint string, cause error) *Error {
	return f.source.errorAt(pos, message, hint, cause)
}

// A problem is what is wrong with a value, by someone who does not know where the value stands.
type problem struct {
	message, hint string
}

func wrong(hint, format string, args ...any) *problem {
	return &problem{message: fmt.Sprintf(format, args...), hint: hint}
}

// A report collects what is wrong with one file. Source lines are quoted at the end, for the errors that are kept: there
// may be as many errors as there are characters in a line.
type report struct {
	src      *source
	errs     Errors
	more     int // errors beyond maxCollected, which are only counted
	warnings []*Error

	// Of a YAML file that is parsed in parts.
	entries int              // of a part; 0: the file is parsed as one
	cuts    map[int]*cutting // not read yet
	above   int              // lines of the file in front of the text that is being read
}

const maxCollected = 10 * MaxErrors

func (r *report) fail(pos Position, hint, format string, args ...any) {
	if len(r.errs) >= maxCollected {
		r.more++
		return
	}
	r.errs = append(r.errs, &Error{Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (r *report) failWith(pos Position, p *problem, cause error) {
	r.fail(pos, p.hint, "%s", p.message)
	if cause != nil && r.more == 0 {
		r.errs[len(r.errs)-1].Err = cause
	}
}

func (r *report) warn(pos Position, hint, format string, args ...any) {
	if len(r.warnings) < MaxErrors {
		r.warnings = append(r.warnings, &Error{Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
}

// finish gives the errors and warnings in file order with their source lines: among those of one place what was found
// first comes first, repetitions are dropped, and what is beyond MaxErrors is summed up.
func (r *report) finish() (Errors, []*Error) {
	errs, warnings := inOrder(slices.Clone(r.errs)), inOrder(slices.Clone(r.warnings))
	if n := len(errs) + r.more; n > MaxErrors {
		kept := min(MaxErrors, len(errs)) // fewer where the rest was counted alone
		rest := &Error{Pos: errs[min(kept, len(errs)-1)].Pos, Message: fmt.Sprintf("and %d more errors from here on", n-kept)}
		errs = append(errs[:kept:kept], rest)
	}
	for _, e := range slices.Concat(errs, warnings) {
		r.src.quote(e)
	}
	return errs, warnings
}

func inOrder(list []*Error) []*Error {
	slices.SortStableFunc(list, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	return slices.CompactFunc(list, func(a, b *Error) bool { return a.Pos == b.Pos && a.Message == b.Message })
}

// quote shows a value in a message: bounded, and hidden where it could be a key.
func quote(s string) string {
	s = hideKeys(s)
	const most = 64
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most-1]) + "…"
	}
	return strconv.Quote(s)
}
