package config

import (
	"os"
	"strings"
	"testing"
)

// indentedBlocks are a document's parts that are indented by four, without that.
func indentedBlocks(text string) (blocks []string) {
	inside := false
	for line := range strings.Lines(text) {
		code, ok := strings.CutPrefix(line, "    ")
		if ok && !inside {
			blocks = append(blocks, "")
		}
		if inside = ok; ok {
			blocks[len(blocks)-1] += code
		}
	}
	return blocks
}

// The examples in docs/configuration.md are good files, and the error shown there is the one that people get.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, b := range indentedBlocks(string(text)) {
		if !strings.HasPrefix(b, "version: 1\n") {
			continue
		}
		examples++
		_, r := parseYAML("office.yaml", []byte(b), fakeSecret)
		if errs, warnings := r.finish(); len(errs)+len(warnings) > 0 {
			t.Errorf("errors %v, warnings %v in\n%s", errs, Errors(warnings), b)
		}
		if examples > 1 {
			continue
		}
		bad := strings.Replace(b, "addresses:", "adresses:", 1)
		_, r = parseYAML("office.yaml", []byte(bad), fakeSecret)
		errs, _ := r.finish()
		if !strings.Contains(string(text), strings.ReplaceAll("    "+errs.Error(), "\n", "\n    ")) {
			t.Errorf("the error shown in the document is now\n%v", errs)
		}
	}
	if examples != 2 {
		t.Errorf("%d examples", examples)
	}
}
