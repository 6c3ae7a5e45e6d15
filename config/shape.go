package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"culvert/setup/spec"
)

// The setup layer's part of a file is read by a table: each mapping is a shape, which lists its keys, and each key says what its
// value is, which field of package spec it fills and what holds without it. The parser, the reference in docs/setup.md and the JSON
// Schema in docs/culvert.schema.json are all made from the table, so that none of them can know a key that another does not.

// A form is what a value may be.
type form interface {
	// read puts the value v into place, having reported what is wrong with it.
	read(y *yamlReader, v value, place reflect.Value, at spot)
	// words says what the value is, for the reference.
	words() string
}

// A shape is a mapping with fixed keys. It fills one struct of package spec.
type shape struct {
	name  string // of the shape, as in the JSON Schema: "bridge port"
	where string // the same in an error message: "a bridge's port"
	keys  []key
	short string // key of the shape that a lone value stands for; "" for none
	one   bool   // exactly one of the keys is given
}

// A key is one key of a shape.
type key struct {
	name   string
	field  string // path of the field in the shape's struct, "" for the struct itself
	form   form
	absent string      // what holds where the key is left out; "" where it must not be
	doc    string      // what it does, half a sentence
	types  []spec.Type // of links that have the key; nil for all
	master []spec.Type // of links whose ports have the key; nil for all
	// external says that a link which culvert does not make has the key too; one that all types have it always has.
	external bool
}

// A spot is where in the specification the reader is: the innermost part that has a place, and the key path from there.
type spot struct {
	place *spec.Place
	path  string
}

// to is the spot of a key or element below.
func (s spot) to(name string) spot {
	switch {
	case s.path == "" || strings.HasPrefix(name, "["):
		s.path += name
	default:
		s.path += "." + name
	}
	return s
}

// note remembers where the value at s is said.
func (s spot) note(pos Position) {
	if s.place.Fields == nil {
		s.place.Fields = make(map[string]spec.Origin)
	}
	s.place.Fields[s.path] = spec.Origin(pos)
}

var placeType = reflect.TypeFor[spec.Place]()

// enter is the spot of the struct part, found at pos: where it has a place of its own, that place is given its origin.
func (s spot) enter(part reflect.Value, pos Position) spot {
	f, ok := part.Type().FieldByName("Place")
	if !ok || !f.Anonymous || f.Type != placeType {
		return s
	}
	place := part.FieldByIndex(f.Index).Addr().Interface().(*spec.Place)
	place.Origin, place.Path = spec.Origin(pos), s.place.Key(s.path)
	return spot{place: place}
}

// target makes the value that a pointer points to, so that it can be filled.
func target(place reflect.Value) reflect.Value {
	for place.Kind() == reflect.Pointer {
		if place.IsNil() {
			place.Set(reflect.New(place.Type().Elem()))
		}
		place = place.Elem()
	}
	return place
}

// follow is the field of a struct at a path such as "Bridge.VLAN.Filtering". Pointers on the way are made.
func follow(part reflect.Value, path string) reflect.Value {
	if path == "" {
		return part
	}
	for name := range strings.SplitSeq(path, ".") {
		part = target(part).FieldByName(name)
	}
	return part
}

// A variant is which of a shape's keys there are: those of a link, or of the ports of one.
type variant struct {
	link     spec.Type // "" where it is not said, and for all that is no link
	external bool      // the link is not made by culvert
}

func (k *key) in(v variant) bool {
	return (k.types == nil || slices.Contains(k.types, v.link) && (k.external || !v.external)) &&
		(k.master == nil || slices.Contains(k.master, v.link))
}

// keyed are the keys a shape has in a variant.
func (s *shape) keyed(v variant) (list []*key) {
	for i := range s.keys {
		if k := &s.keys[i]; k.in(v) {
			list = append(list, k)
		}
	}
	return list
}

func (s *shape) words() string {
	if s.short != "" {
		return "mapping, or its `" + s.short + "` alone"
	}
	return "mapping"
}

func (s *shape) read(y *yamlReader, v value, place reflect.Value, at spot) {
	s.readFor(y, v, v.pos, place, at.enter(target(place), v.pos), variant{})
}

// readFor reads a mapping with the keys of a variant. pos is the place of the whole, such as that of the key before it.
func (s *shape) readFor(y *yamlReader, v value, pos Position, place reflect.Value, at spot, of variant) {
	part := target(place)
	if s.short != "" && lone(v.node) {
		for _, k := range s.keyed(of) {
			if k.name == s.short {
				k.put(y, entry{s.short, v.pos, v}, part, at, of)
			}
		}
		s.missing(y, []entry{{key: s.short}}, of, pos)
		return
	}
	known := s.keyed(of)
	if n, is := v.node.(*ast.StringNode); is && s.one && slices.Contains(names(known), n.Value) {
		y.fail(v.pos, fmt.Sprintf("write {%s: {}}, with its settings in the inner braces", n.Value), "%s must be a mapping, but is text", v.of)
		return
	}
	entries, ok := y.mapping(v)
	if !ok {
		return
	}
	for _, e := range entries {
		i := slices.IndexFunc(known, func(k *key) bool { return k.name == e.key })
		if i < 0 {
			s.unknown(y, e, known, of)
			continue
		}
		known[i].put(y, e, part, at, of)
	}
	if s.one && len(entries) != 1 {
		y.fail(pos, "write exactly one of "+strings.Join(names(known), ", "), "%s has %d keys, and must have one", s.where, len(entries))
		return
	}
	s.missing(y, entries, of, pos)
}

// lone tells a value that is neither a mapping nor a list.
func lone(n ast.Node) bool {
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return true
	}
	return false
}

// put reads the value of the key into part.
func (k *key) put(y *yamlReader, e entry, part reflect.Value, at spot, of variant) {
	at = at.to(k.name)
	if lone(e.node) {
		at.note(e.value.pos)
	} else {
		at.note(e.pos)
	}
	place := follow(part, k.field)
	switch f := k.form.(type) {
	case *shape:
		if k.field != "" { // otherwise it is the same part still
			at = at.enter(target(place), e.pos)
		}
		f.readFor(y, e.value, e.pos, place, at, variant{})
	case table:
		f.readFor(y, e.value, place, at, of)
	default:
		f.read(y, e.value, place, at)
	}
}

// missing reports the keys that must be there and are not. What is external lacks nothing.
func (s *shape) missing(y *yamlReader, entries []entry, of variant, pos Position) {
	if s.one || of.external {
		return
	}
	known := s.keyed(of)
	for _, k := range known {
		if k.absent == "" && !slices.ContainsFunc(entries, func(e entry) bool { return e.key == k.name }) {
			y.fail(pos, "add \""+k.name+"\": "+strings.ReplaceAll(k.doc, "`", ""), "%s has no %q", s.where, k.name)
		}
	}
}

// unknown reports a key that the shape does not have, or not in this variant.
func (s *shape) unknown(y *yamlReader, e entry, known []*key, of variant) {
	var others []string
	for i := range s.keys {
		if k := &s.keys[i]; k.name == e.key {
			for _, o := range slices.Concat(k.types, k.master) {
				others = append(others, string(o))
			}
		}
	}
	switch {
	case e.key == "alias":
		y.fail(e.pos, "take it out", aliasKept)
	case slices.Contains(others, string(of.link)):
		y.fail(e.pos, "take it out; such a thing is chosen when a device is made", "%q cannot be said of an external %s", e.key, of.link)
	case others != nil && of.link == "":
		y.fail(e.pos, "say the link's type, or take it out", "%q is for links of type %s, and this one's type is not said", e.key, alternatives(others))
	case others != nil:
		y.fail(e.pos, "take it out, or change the type", "%q is for links of type %s, and this one is of type %s", e.key, alternatives(others), of.link)
	default:
		hint := "known keys: " + strings.Join(names(known), ", ")
		if n := suggest(e.key, names(known)); n != "" {
			hint = fmt.Sprintf("did you mean %q?", n)
		}
		y.fail(e.pos, hint, "unknown key %s in %s", quote(e.key), s.where)
	}
}

// aliasKept says why the alias of a device, which the kernel would take, is not to be chosen.
const aliasKept = "a device's alias is culvert's own: it says which instance made the device"

func names(keys []*key) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.name
	}
	return out
}

// alternatives joins words as in "a, b or c".
func alternatives(words []string) string {
	words = slices.Compact(slices.Clone(words))
	n := len(words)
	if n < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
}

// A list is a sequence of values of one form, each an element of a slice.
type list struct {
	of      form
	most    int
	example string
	lone    bool // a value that is no list stands for a list of it
}

func (l list) read(y *yamlReader, v value, place reflect.Value, at spot) {
	elem := place.Type().Elem()
	if _, is := v.node.(*ast.SequenceNode); !is && l.lone {
		x := reflect.New(elem).Elem()
		l.of.read(y, v, x, at.to("[0]"))
		place.Set(reflect.Append(place, x))
		return
	}
	// An empty list that is said is no missing one: it stands for "none", where nil leaves what there is.
	place.Set(reflect.MakeSlice(place.Type(), 0, 0))
	for i, v := range y.list(v, l.example, l.most) {
		x := reflect.New(elem).Elem()
		at := at.to(fmt.Sprintf("[%d]", i))
		at.note(v.pos)
		l.of.read(y, v, x, at)
		place.Set(reflect.Append(place, x))
	}
}

func (l list) words() string {
	text := fmt.Sprintf("list of %s, at most %d", plural(l.of), l.most)
	if s, ok := l.of.(*shape); ok && s.short != "" {
		text = fmt.Sprintf("list, at most %d", l.most)
	}
	if l.lone {
		text += ", or one alone"
	}
	return text
}

// plural is what several values of a form are called.
func plural(f form) string {
	switch f := f.(type) {
	case *shape:
		return "mappings"
	case scalar:
		if f.several != "" {
			return f.several
		}
	}
	return f.words()
}

// A table is a mapping with free keys: the elements of a slice, in the file's order, by name.
type table struct {
	of    *shape
	field string // of the element that takes the name
	check func(string) *problem
	what  string // of a name, in the reference
	long  int    // bytes of the longest name
	most  int
	// pattern is what names look like; "" is as links' names do.
	pattern string
	bare    bool // a list of names stands for the names with nothing below them
	// variantOf tells which keys an entry has; nil where all have the same.
	variantOf func(y *yamlReader, e entry) (of variant, known bool)
}

func (l table) words() string {
	text := fmt.Sprintf("mapping by %s, at most %d", l.what, l.most)
	if l.bare {
		text += ", or a list of names"
	}
	return text
}

func (l table) read(y *yamlReader, v value, place reflect.Value, at spot) {
	l.readFor(y, v, place, at, variant{})
}

// readFor reads the entries, in the variant of the link that they are ports of.
func (l table) readFor(y *yamlReader, v value, place reflect.Value, at spot, of variant) {
	add := func(name string, pos Position, fill func(part reflect.Value, at spot)) bool {
		if place.Len() == l.most {
			y.fail(pos, "use several files", "%s has more than %d entries", v.of, l.most)
			return false
		}
		if p := l.check(name); p != nil {
			y.failWith(pos, p, nil)
			return true
		}
		part := reflect.New(place.Type().Elem()).Elem()
		part.FieldByName(l.field).SetString(name)
		fill(part, at.to(name))
		place.Set(reflect.Append(place, part))
		return true
	}
	if l.bare && lone(v.node) {
		y.fail(v.pos, "write a list of names, such as [a, b], or key: value lines below it, indented",
			"%s must be a list or a mapping, but is %s", v.of, describe(v.node))
		return
	}
	if _, is := v.node.(*ast.SequenceNode); is && l.bare {
		lines := map[string]int{}
		for _, v := range y.list(v, "[a, b]", l.most) {
			name, ok := y.text(v)
			if !ok {
				continue
			}
			if first, twice := lines[name]; twice {
				y.fail(v.pos, "remove one of the two", "%s is given twice (first in line %d)", quote(name), first)
				continue
			}
			lines[name] = v.pos.Line
			if !add(name, v.pos, func(part reflect.Value, at spot) { at.enter(part, v.pos) }) {
				return
			}
		}
		return
	}
	entries, ok := y.mapping(v)
	if !ok {
		return
	}
	for _, e := range entries {
		if !add(e.key, e.pos, func(part reflect.Value, at spot) {
			of, known := of, true
			if l.variantOf != nil {
				of, known = l.variantOf(y, e)
			}
			at = at.enter(part, e.pos)
			if _, null := e.node.(*ast.NullNode); null {
				y.fail(e.pos, "write {} where there is nothing to say", "%s must be a mapping, but is nothing", e.of)
				return
			}
			if !known { // its type is wrong, which is reported, and its keys cannot be told
				return
			}
			l.of.readFor(y, e.value, e.pos, part, at, of)
		}) {
			return
		}
	}
}
