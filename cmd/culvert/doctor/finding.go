package doctor

import (
	"fmt"
	"io"
)

// Severity is how bad a finding is. A note is no reason to act.
type Severity string

const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Note    Severity = "note"
)

// Finding is something that is, or may be, wrong.
type Finding struct {
	Code     string   `json:"code"` // stable
	Severity Severity `json:"severity"`
	Where    string   `json:"where,omitempty"` // the tunnel, and the peer
	What     string   `json:"what"`
	Evidence string   `json:"evidence,omitempty"`
	Do       string   `json:"do,omitempty"`
}

// Wrong reports whether there is anything to act on.
func Wrong(list []Finding) bool {
	for _, f := range list {
		if f.Severity != Note {
			return true
		}
	}
	return false
}

// Write writes findings for people.
func Write(w io.Writer, name string, list []Finding) error {
	for _, f := range list {
		where := ""
		if f.Where != "" {
			where = f.Where + ": "
		}
		if _, err := fmt.Fprintf(w, "%s: %s%s [%s]\n", f.Severity, where, f.What, f.Code); err != nil {
			return err
		}
		if f.Evidence != "" {
			fmt.Fprintf(w, "  seen: %s\n", f.Evidence)
		}
		if f.Do != "" {
			fmt.Fprintf(w, "  do:   %s\n", f.Do)
		}
	}
	if !Wrong(list) {
		_, err := fmt.Fprintf(w, "%s: nothing wrong is seen\n", name)
		return err
	}
	return nil
}
