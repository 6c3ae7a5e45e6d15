package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"culvert/setup/spec"
)

// The JSON Schema in docs/culvert.schema.json is made from the table that the parser reads by; of tunnels, which are read by code of their
// own, from the list in tunnelkeys_test.go.

const schemaFile = "../docs/culvert.schema.json"

type object = map[string]any

// A schemaMaker collects the definitions of shapes on its way.
type schemaMaker struct{ definitions object }

func (m *schemaMaker) form(f form, of variant) object {
	switch f := f.(type) {
	case scalar:
		return f.schema
	case *shape:
		whole := m.shape(f, variant{})
		for i := range f.keys {
			if k := &f.keys[i]; k.name == f.short && !slices.ContainsFunc(f.keys, func(o key) bool { return o.absent == "" && o.name != f.short }) {
				return object{"anyOf": []any{m.form(k.form, of), whole}}
			}
		}
		return whole
	case list:
		several := object{"type": "array", "items": m.form(f.of, variant{}), "maxItems": f.most}
		if f.lone {
			return object{"anyOf": []any{m.form(f.of, variant{}), several}}
		}
		return several
	case table:
		name := object{"minLength": 1, "maxLength": f.long}
		if f.check != nil {
			name["pattern"] = cmp.Or(f.pattern, namePattern)
		}
		out := object{"type": "object", "maxProperties": f.most, "propertyNames": name}
		if f.variantOf != nil {
			out["additionalProperties"] = m.links(f.of)
		} else {
			out["additionalProperties"] = m.shape(f.of, of)
		}
		if f.bare {
			names := object{"type": "array", "items": object{"type": "string", "pattern": namePattern, "maxLength": f.long}, "maxItems": f.most}
			return object{"anyOf": []any{out, names}}
		}
		return out
	}
	panic(fmt.Sprintf("%T", f))
}

// shape defines a shape in a variant and returns the reference to it.
func (m *schemaMaker) shape(s *shape, of variant) object {
	name := s.name
	if slices.ContainsFunc(s.keys, func(k key) bool { return k.types != nil || k.master != nil }) && of.link != "" {
		name += " " + string(of.link)
	}
	if of.external {
		name += " external"
	}
	ref := object{"$ref": "#/definitions/" + strings.ReplaceAll(name, " ", "-")}
	id := strings.ReplaceAll(name, " ", "-")
	if m.definitions[id] != nil {
		return ref
	}
	def := object{"type": "object", "additionalProperties": false}
	m.definitions[id] = def // before its keys, which may hold it
	properties, required := object{}, []any{}
	for _, k := range s.keyed(of) {
		p := m.form(k.form, of)
		if p["$ref"] != nil {
			p = object{"allOf": []any{p}} // beside a reference nothing else counts
		}
		p = maps.Clone(p)
		p["description"] = described(k, s.one)
		properties[k.name] = p
		if k.absent == "" && !of.external && !s.one {
			required = append(required, k.name)
		}
	}
	def["properties"] = properties
	if len(required) > 0 {
		def["required"] = required
	}
	if s.one {
		def["minProperties"], def["maxProperties"] = 1, 1
	}
	return ref
}

// links chooses the keys of a link by its type.
func (m *schemaMaker) links(s *shape) object {
	external := object{"properties": object{"external": object{"const": true}}, "required": []any{"external"}}
	choices := []any{
		object{"if": external, "then": true, "else": object{"required": []any{"type"}}},
		object{"if": object{"allOf": []any{external, object{"not": object{"required": []any{"type"}}}}}, "then": m.shape(s, variant{external: true})},
	}
	for _, t := range typeNames {
		of := object{"properties": object{"type": object{"const": t}}, "required": []any{"type"}}
		outside := variant{spec.Type(t), true}
		if len(s.keyed(outside)) == len(s.keyed(variant{external: true})) {
			outside.link = "" // it has no keys of its own
		}
		choices = append(choices,
			object{"if": object{"allOf": []any{of, external}}, "then": m.shape(s, outside)},
			object{"if": object{"allOf": []any{of, object{"not": external}}}, "then": m.shape(s, variant{spec.Type(t), false})})
	}
	return object{"type": "object", "properties": object{"type": linkTypes.schema}, "allOf": choices}
}

func described(k *key, one bool) string {
	text := strings.ToUpper(k.doc[:1]) + k.doc[1:] + "."
	if k.absent != "" && !one {
		text += " Left out: " + k.absent + "."
	}
	return strings.ReplaceAll(text, "`", "")
}

// wholeFile is the table of everything a file may hold.
func wholeFile() *shape {
	return &shape{name: "file", where: "the file", keys: slices.Concat(fileKeys, setupShape.keys)}
}

func makeSchema() object {
	m := &schemaMaker{object{}}
	m.shape(wholeFile(), variant{})
	file := m.definitions["file"].(object)
	delete(m.definitions, "file")
	maps.Copy(file, object{"$schema": "http://json-schema.org/draft-07/schema#", "title": "culvert configuration file", "definitions": m.definitions})
	var other []any
	for i := range setupShape.keys {
		other = append(other, object{"required": []any{setupShape.keys[i].name}})
	}
	file["anyOf"] = append([]any{object{"required": []any{"tunnels"}}}, other...)
	return file
}

func schemaText(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(makeSchema()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSchemaFile holds the schema in docs against the table.
func TestSchemaFile(t *testing.T) {
	goldenDoc(t, schemaFile, string(schemaText(t)))
}

var updateDocs = flag.Bool("docs", false, "write the generated parts of ../docs anew")

// goldenDoc compares a generated file with what is there, or writes it.
func goldenDoc(t *testing.T, path, text string) {
	t.Helper()
	if *updateDocs {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != text {
		t.Errorf("%s is not what the parser reads by: run go generate ./config", path)
	}
}
