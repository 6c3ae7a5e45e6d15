package culvert_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// docs/architecture.md lists every package, and none that there is not.
func TestPackagesAreListed(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := packagesIn(string(text))
	there := make(map[string]bool)
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || isModule(name)):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ".go") && path.Dir(name) != ".":
			there[path.Dir(name)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for p := range there {
		if !slices.Contains(listed, p) {
			t.Errorf("docs/architecture.md does not list %s", p)
		}
	}
	for _, p := range listed {
		if !there[p] {
			t.Errorf("docs/architecture.md lists %s, which there is not", p)
		}
	}
}

// packagesIn are the packages of the list: the first word of lines that are indented by four columns, and those behind commas, which are in
// the folder of the first: "tunnel/payload, fragment".
func packagesIn(text string) (list []string) {
	_, text, _ = strings.Cut(text, "\n\n    ")
	text, _, _ = strings.Cut(text, "\n\n")
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(strings.TrimRight(line, "\n"), "    ")
		if strings.HasPrefix(line, " ") {
			continue // what the line above is
		}
		folder := ""
		for i, name := range strings.Fields(line) {
			word := strings.TrimSuffix(name, ",")
			if i == 0 {
				folder = path.Dir(word)
				list = append(list, word)
			} else {
				list = append(list, path.Join(folder, word))
			}
			if word == name {
				break
			}
		}
	}
	return list
}

// isModule reports whether a folder is a module of its own.
func isModule(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	return err == nil
}
