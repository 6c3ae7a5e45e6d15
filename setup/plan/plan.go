package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// Verdict is what a plan says of one thing.
type Verdict string

// The verdicts.
const (
	WillCreate   Verdict = "create"
	WillChange   Verdict = "change"
	WillRecreate Verdict = "recreate"
	WillDelete   Verdict = "delete"
	InConflict   Verdict = "conflict"
)

// Sign is what stands for the verdict at the beginning of a line.
func (v Verdict) Sign() string {
	switch v {
	case WillCreate:
		return "+"
	case WillChange:
		return "~"
	case WillRecreate:
		return "-/+"
	case WillDelete:
		return "-"
	}
	return "!"
}

// Format is the number of the JSON form: it grows when a program that reads the form could be misled.
const Format = 1

// Plan leads from a system to what is declared. Its JSON form is that of this struct and those in it; fields may be added.
type Plan struct {
	Format   int      `json:"format"`
	Instance string   `json:"instance"`
	Entries  []Entry  `json:"entries"`         // one for each thing that does not stay as it is
	Steps    []Step   `json:"steps"`           // in the order in which they are done; none where an entry is a conflict
	Notes    []string `json:"notes,omitempty"` // what is left alone, and why
	// Missing is what the steps need and the machine has not, where that was tried: they will be refused.
	Missing []Missing `json:"missing,omitempty"`
	Records
}

// Records are what the journal has to remember or forget though no step is done.
type Records struct {
	// Adopted are things that are as declared and culvert's by their mark or place, but unknown to the journal; also those that another
	// instance made and this one shares.
	Adopted map[model.ID]Where `json:"adopted,omitempty"`
	// Inherited are fields that another instance has changed and this one wants so too, with their values from before the first.
	Inherited map[model.ID]Prior `json:"inherited,omitempty"`
	// Released are things that another instance has too, and this one leaves to it; or fields of them, where it names some.
	Released map[model.ID][]model.Field `json:"released,omitempty"`
}

// IsEmpty reports whether there is nothing to remember or forget.
func (r *Records) IsEmpty() bool {
	return len(r.Adopted) == 0 && len(r.Inherited) == 0 && len(r.Released) == 0
}

// Entry is what becomes of one thing.
type Entry struct {
	Verdict Verdict       `json:"verdict"`
	ID      model.ID      `json:"id"`
	Label   string        `json:"label,omitempty"`
	Fields  model.Fields  `json:"fields,omitempty"`  // of what is created
	Changes []FieldChange `json:"changes,omitempty"` // of what is changed or recreated
	Reason  string        `json:"reason,omitempty"`
	Origin  spec.Origin   `json:"origin,omitzero"`
	Path    string        `json:"path,omitempty"` // key path of what declares it
}

func (p *planner) entries() {
	for _, f := range p.order {
		if f.verdict == "" {
			continue
		}
		e := Entry{Verdict: f.verdict, ID: f.item.ID, Label: f.item.Label, Reason: f.reason, Origin: f.item.Place.At(f.field),
			Path: f.item.Place.Key(f.field), Changes: f.changes}
		if f.verdict == WillCreate {
			e.Fields = f.item.Fields
		}
		p.plan.Entries = append(p.plan.Entries, e)
	}
	for _, r := range slices.Sorted(maps.Keys(p.downs)) {
		p.note("%s is down for a moment, %s", model.LinkID(r), p.downs[r])
	}
}

// HasConflict reports whether the plan cannot be carried out.
func (p *Plan) HasConflict() bool {
	return slices.ContainsFunc(p.Entries, func(e Entry) bool { return e.Verdict == InConflict })
}

// IsEmpty reports whether there is nothing to do.
func (p *Plan) IsEmpty() bool { return len(p.Entries) == 0 }

// String returns the entry's line: its sign, the thing, what changes, and why.
func (e *Entry) String() string {
	var b strings.Builder
	b.WriteString(e.Verdict.Sign() + " ")
	if e.Verdict == InConflict {
		b.WriteString("conflict ")
	}
	b.WriteString(e.ID.Text())
	if e.Label != "" {
		b.WriteString(" (" + e.Label + ")")
	}
	comma := ""
	for _, f := range slices.Sorted(maps.Keys(e.Fields)) {
		if e.isTold(f) || e.Fields[f] == "" { // or there is nothing to be said
			continue
		}
		b.WriteString(comma + " " + string(f) + " " + shown(e.Fields[f]))
		comma = ","
	}
	for i, c := range e.Changes {
		if i > 0 {
			b.WriteString(",")
		}
		before, after := shown(c.Old), shown(c.New)
		if before == after { // long ones that begin alike
			same := alike(string(c.Old), string(c.New))
			before, after = "..."+shown(c.Old[same:]), "..."+shown(c.New[same:])
		}
		fmt.Fprintf(&b, " %s %s -> %s", c.Field, before, after)
	}
	switch {
	case e.Verdict == InConflict:
		b.WriteString(": " + e.Reason)
		if o := e.Origin.String(); o != "" {
			b.WriteString(" (" + o + ")")
		}
	case e.Reason != "":
		b.WriteString(", because " + e.Reason)
	}
	return b.String()
}

// isTold reports whether the line of something new need not name a field: the label says so, or culvert chooses it and not who reads.
func (e *Entry) isTold(f model.Field) bool {
	switch f {
	case "type", "kind", "handle", "persist", "args", "config", "program":
		return true
	case "master", "peer", "redirect":
		return strings.HasSuffix(e.Label, "to "+string(e.Fields[f]))
	}
	return e.ID.Kind() == model.KindClass && f == "parent"
}

// shown is a value in a line of text.
func shown(v model.Value) string {
	const longest = 60
	switch {
	case v == "":
		return "none"
	case len(v) > longest || strings.ContainsAny(string(v), "\"\n") || strings.Count(string(v), " ") > 8:
		return fmt.Sprintf("%.*q...", longest, string(v))
	case strings.Contains(string(v), " "):
		return "[" + string(v) + "]"
	}
	return string(v)
}

// alike is the length of what two texts begin with, less a little for who reads to know the place, and whole characters.
func alike(a, b string) int {
	const context = 12
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	for n = max(0, n-context); n > 0 && !utf8.RuneStart(a[n]); n-- {
	}
	return n
}

// String returns the plan as text, a line for each entry and for each thing that is missing, then the notes, and the number of each kind.
func (p *Plan) String() string {
	var b strings.Builder
	for i := range p.Entries {
		b.WriteString(p.Entries[i].String() + "\n")
	}
	for i := range p.Missing {
		b.WriteString(p.Missing[i].String() + "\n")
	}
	for _, n := range p.Notes {
		b.WriteString("# " + n + "\n")
	}
	b.WriteString(p.Summary() + "\n")
	return b.String()
}

// Summary is one line: how many things are created, changed, and so on.
func (p *Plan) Summary() string {
	if p.IsEmpty() {
		return "nothing to do"
	}
	count := make(map[Verdict]int)
	for _, e := range p.Entries {
		count[e.Verdict]++
	}
	var parts []string
	for _, v := range []Verdict{WillCreate, WillChange, WillRecreate, WillDelete, InConflict} {
		switch n := count[v]; {
		case n == 0:
		case v == InConflict:
			parts = append(parts, fmt.Sprintf("%d in conflict", n))
		default:
			parts = append(parts, fmt.Sprintf("%d to %s", n, v))
		}
	}
	text := strings.Join(parts, ", ")
	if n := len(p.Missing); n > 0 {
		text += fmt.Sprintf("; %d missing, without which apply refuses it", n)
	}
	return text
}
