// Package journal writes a log to systemd's journal in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), with priorities and
// fields, so that "journalctl -u culvert@site -p warning CULVERT_INTERFACE=wg0" finds what it should.
package journal

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// Fields are bounded, so that what peers say of themselves fills no journal.
const (
	maxField = 48 << 10 // bytes of a value
	maxName  = 64       // bytes of a field's name, systemd's own bound
)

// Available reports whether standard error goes to the journal (JOURNAL_STREAM says so, of this very stream), and it can be reached.
func Available() bool {
	ours, err := journal.StderrIsJournalStream()
	return ours && err == nil && journal.Enabled()
}

// Handler is a [slog.Handler] that writes to the journal. A record's message with its attributes behind it is the text; each attribute is
// also a field of its own, CULVERT_ and its name.
type Handler struct {
	level  slog.Leveler
	fields map[string]string // of each record
	text   string            // of the attributes that each record has
	prefix string            // of names, from groups
}

// NewHandler makes a handler for an instance.
func NewHandler(instance string, level slog.Leveler) *Handler {
	return &Handler{level: level, fields: map[string]string{"SYSLOG_IDENTIFIER": "culvert", "CULVERT_INSTANCE": instance}}
}

// Enabled is slog's.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

// Handle is slog's.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	fields := make(map[string]string, len(h.fields)+r.NumAttrs())
	for k, v := range h.fields {
		fields[k] = v
	}
	var text strings.Builder
	text.WriteString(r.Message)
	text.WriteString(h.text)
	r.Attrs(func(a slog.Attr) bool {
		h.add(fields, &text, h.prefix, a)
		return true
	})
	message, priority := bounded(text.String()), priorityOf(r.Level)
	if err := journal.Send(message, priority, fields); err != nil {
		// The stream may still be there, which takes lines with their priority in front (sd-daemon(3)).
		_, err = fmt.Fprintf(os.Stderr, "<%d>%s\n", priority, strings.ReplaceAll(message, "\n", " "))
		return err
	}
	return nil
}

// WithAttrs is slog's.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := &Handler{level: h.level, fields: make(map[string]string, len(h.fields)+len(attrs)), prefix: h.prefix}
	for k, v := range h.fields {
		with.fields[k] = v
	}
	var text strings.Builder
	text.WriteString(h.text)
	for _, a := range attrs {
		h.add(with.fields, &text, h.prefix, a)
	}
	with.text = text.String()
	return with
}

// WithGroup is slog's.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.prefix += name + "_"
	return &with
}

// add adds an attribute to the fields, and to the text.
func (h *Handler) add(fields map[string]string, text *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "_"
		}
		for _, member := range v.Group() {
			h.add(fields, text, prefix, member)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	value := bounded(v.String())
	fields[fieldName(prefix+a.Key)] = value
	if strings.ContainsAny(value, " \t\n\"=") || value == "" {
		fmt.Fprintf(text, " %s%s=%q", prefix, a.Key, value)
	} else {
		fmt.Fprintf(text, " %s%s=%s", prefix, a.Key, value)
	}
}

// fieldName makes a field's name of an attribute's: A to Z, 0 to 9 and _ (systemd.journal-fields(7)).
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, "culvert_"+key)
	return name[:min(len(name), maxName)]
}

func bounded(s string) string {
	if len(s) > maxField {
		return strings.ToValidUTF8(s[:maxField], "") + " (cut)"
	}
	return s
}

// priorityOf is a level in syslog's terms.
func priorityOf(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
