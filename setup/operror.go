package setup

import "strings"

// OpError reports a step of the setup that failed.
type OpError struct {
	Op   string // what was tried, as in "add route"
	Item string // on what, as in "10.0.0.0/8 dev wg0"
	Err  error  // the kernel's answer, with its own text where it gave one
	Hint string // what to do about it; may be empty
}

// Error returns "op item: err (hint)".
func (e *OpError) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Item != "" {
		b.WriteByte(' ')
		b.WriteString(e.Item)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	if e.Hint != "" {
		b.WriteString(" (")
		b.WriteString(e.Hint)
		b.WriteByte(')')
	}
	return b.String()
}

// Unwrap returns the kernel's answer, so that errors.Is finds its errno.
func (e *OpError) Unwrap() error { return e.Err }
