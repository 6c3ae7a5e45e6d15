package spec

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// MaxErrors bounds the errors of one validation; one more says that the rest is left out.
const MaxErrors = 100

// Error says why a declaration is refused.
type Error struct {
	Origin  Origin
	Path    string // key path
	Message string
	Hint    string // what to do about it; may be empty
}

// Error returns "file:line:column: path: message (hint)".
func (e *Error) Error() string {
	var b strings.Builder
	for _, part := range []string{e.Origin.String(), e.Path} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	b.WriteString(e.Message)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Errors are all reasons, in the order of the file.
type Errors []*Error

// Error returns one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(strings.Compare(a.Origin.File, b.Origin.File), cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column))
	})
	if n := len(e); n > MaxErrors {
		e = append(e[:MaxErrors:MaxErrors], &Error{Message: strconv.Itoa(n-MaxErrors) + " more errors are left out"})
	}
	return e
}
