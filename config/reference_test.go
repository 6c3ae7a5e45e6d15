package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"culvert/setup/spec"
)

// block is where a table of keys belongs: "keys: SHAPE", with the types of links, or of ports' masters, that have exactly these keys.
var block = regexp.MustCompile(`(?s)<!-- keys: ([^\n]*) -->\n.*?<!-- end -->`)

// TestReference holds the tables in docs/setup.md and docs/configuration.md against the table that the parser reads by. Each key stands in one of them.
func TestReference(t *testing.T) {
	shapes, left := map[string]*shape{}, map[*key]string{}
	for k := range everyKey() {
		shapes[k.shape.name] = k.shape
		left[k.key] = k.path
	}
	for _, path := range []string{"../docs/setup.md", "../docs/configuration.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out := block.ReplaceAllStringFunc(string(text), func(found string) string {
			head := block.FindStringSubmatch(found)[1]
			s, types := shapes[head], []spec.Type(nil)
			for name := range shapes {
				if rest, ok := strings.CutPrefix(head, name+" "); s == nil && ok {
					s = shapes[name]
					for word := range strings.FieldsSeq(rest) {
						types = append(types, spec.Type(word))
					}
					if slices.ContainsFunc(types, func(t spec.Type) bool { return !slices.Contains(spec.Types, t) }) {
						s, types = nil, nil
					}
				}
			}
			if s == nil {
				t.Errorf("there is no shape %q", head)
				return found
			}
			rows := keyTable(s, types, func(k *key) {
				if _, ok := left[k]; !ok {
					t.Errorf("%s: the key %s stands in two tables", head, k.name)
				}
				delete(left, k)
			})
			return fmt.Sprintf("<!-- keys: %s -->\n%s<!-- end -->", head, rows)
		})
		goldenDoc(t, path, out)
	}
	for _, path := range left {
		t.Errorf("no table has the key %s", path)
	}
}

// keyTable writes the keys of a shape that exactly these types have.
func keyTable(s *shape, types []spec.Type, use func(*key)) string {
	var b strings.Builder
	b.WriteString("| key | value | when left out |\n|---|---|---|\n")
	if s.one {
		b.Reset()
		b.WriteString("| key | value |\n|---|---|\n")
	}
	rows := 0
	for i := range s.keys {
		k := &s.keys[i]
		have := slices.Concat(k.types, k.master)
		if !slices.Equal(slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(types))) {
			continue
		}
		use(k)
		rows++
		fmt.Fprintf(&b, "| `%s` | %s: %s |", k.name, k.form.words(), k.doc)
		switch {
		case s.one:
		case k.absent == "":
			b.WriteString(" an error |")
		default:
			b.WriteString(" " + k.absent + " |")
		}
		b.WriteString("\n")
	}
	if rows == 0 {
		return "no keys\n"
	}
	return b.String()
}

// TestDocumentedSetup loads every YAML example of the documents.
func TestDocumentedSetup(t *testing.T) {
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		blocks := indentedBlocks(string(text))
		for i, b := range strings.Split(string(text), "\n```") {
			if _, code, ok := strings.Cut(b, "\n"); ok && i%2 == 1 {
				blocks = append(blocks, code)
			}
		}
		for _, b := range blocks {
			if !strings.HasPrefix(b, "version: 1\n") {
				continue
			}
			examples++
			_, r := parseYAML(filepath.Base(path), []byte(b), fakeSecret)
			if errs, warnings := r.finish(); len(errs)+len(warnings) > 0 {
				t.Errorf("%s: errors %v, warnings %v in\n%s", path, errs, Errors(warnings), b)
			}
			c := newChecker(t)
			for _, w := range c.check(c.root, document(t, []byte(b)), filepath.Base(path)) {
				t.Error(w)
			}
		}
	}
	if examples < 3 {
		t.Errorf("%d examples", examples)
	}
}
