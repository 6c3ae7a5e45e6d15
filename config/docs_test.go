package config

import (
	"os"
	"strings"
	"testing"
)

// The example in docs/configuration.md is a good file, and the errors shown there are those that people get.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string // indented ones
	inside := false
	for line := range strings.Lines(string(text)) {
		code, ok := strings.CutPrefix(line, "    ")
		if ok && !inside {
			blocks = append(blocks, "")
		}
		if inside = ok; ok {
			blocks[len(blocks)-1] += code
		}
	}
	examples := 0
	for _, b := range blocks {
		if !strings.HasPrefix(b, "version: 1\n") {
			continue
		}
		examples++
		_, r := parseYAML("office.yaml", []byte(b), fakeSecret)
		if errs, warnings := r.finish(); len(errs)+len(warnings) > 0 {
			t.Errorf("errors %v, warnings %v in\n%s", errs, Errors(warnings), b)
		}
		bad := strings.Replace(b, "addresses:", "adresses:", 1)
		_, r = parseYAML("office.yaml", []byte(bad), fakeSecret)
		errs, _ := r.finish()
		if !strings.Contains(string(text), strings.ReplaceAll("    "+errs.Error(), "\n", "\n    ")) {
			t.Errorf("the error shown in the document is now\n%v", errs)
		}
	}
	if examples != 1 {
		t.Errorf("%d examples", examples)
	}
}
