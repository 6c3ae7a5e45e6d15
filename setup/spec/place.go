package spec

import "strconv"

// Origin is where in a file something is said. Line and Column count from 1, Column in characters; Line 0 stands for the file as a
// whole, the zero Origin for nowhere.
type Origin struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String returns file:line:column, or the file alone where there is no line.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.File
	}
	return o.File + ":" + strconv.Itoa(o.Line) + ":" + strconv.Itoa(o.Column)
}

// Place is where one part of a [Spec] is said, and each of its fields.
type Place struct {
	Origin Origin
	Path   string            // the key path, as in "links.br0.ports.eth0"
	Fields map[string]Origin // by the field's key relative to Path, as in "mtu", "stp.priority" or "addresses[1]"; may be nil
}

// At returns the origin of a field, or that of the part where the field's own is not known.
func (p Place) At(field string) Origin {
	if o, ok := p.Fields[field]; ok {
		return o
	}
	return p.Origin
}

// Key returns the key path of a field.
func (p Place) Key(field string) string {
	switch {
	case field == "":
		return p.Path
	case p.Path == "":
		return field
	}
	return p.Path + "." + field
}
