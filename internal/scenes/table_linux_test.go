package scenes

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// between is the text of a file of docs/ from a marker to the next end.
func between(t *testing.T, file, marker string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", file))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- "+marker+" -->\n")
	found, _, end := strings.Cut(rest, "<!-- end -->")
	if !ok || !end {
		t.Fatalf("%s has no %q", file, marker)
	}
	return found
}

// onlyInside is in tests that skip outside a guest.
var onlyInside = regexp.MustCompile(`guest: +true|runs in the guest of TestInGuest`)

// The table in docs/testing.md names tests and cases that there are, and all things and modes that can be declared.
func TestTableOfScenes(t *testing.T) {
	if inGuest() {
		t.Skip("is of the source")
	}
	tests := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var inside []string // tests that run in guests
	for _, list := range guestTests {
		inside = append(inside, list...)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range regexp.MustCompile(`(?ms)^func Test(\w+)\(t \*testing\.T\) \{.*?^\}`).FindAllStringSubmatch(string(text), -1) {
			tests[f[1]] = true
			if onlyInside.MatchString(f[0]) && !slices.Contains(inside, f[1]) {
				t.Errorf("Test%s can run only in a guest, and no guest has it", f[1])
			}
		}
	}
	things := ""
	for _, row := range strings.Split(strings.TrimSpace(between(t, "testing.md", "scenes")), "\n")[2:] {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		if len(cells) != 6 {
			t.Fatalf("a row has %d cells: %s", len(cells), row)
		}
		things += cells[0] + "\n"
		for i, cell := range cells[1:] {
			if cell == "-" && i > 0 {
				continue
			}
			if i == 4 {
				if !slices.ContainsFunc(slices.Concat(faultCases, daemonFaultCases), func(c faultCase) bool { return c.name == cell }) {
					t.Errorf("there is no case %q", cell)
				}
				continue
			}
			for _, name := range strings.Split(cell, ", ") {
				if !tests[name] {
					t.Errorf("%s: there is no Test%s", cells[0], name)
				}
			}
		}
	}
	named := func(line, word string) bool {
		return regexp.MustCompile(`(?m)^` + line + `\b.*\b` + regexp.QuoteMeta(word) + `\b`).MatchString(things)
	}
	for _, k := range model.Kinds {
		if k != model.KindLink && !named("", string(k)) {
			t.Errorf("the table has no %s", k)
		}
	}
	for _, typ := range []spec.Type{spec.TypeTun, spec.TypeTap, spec.TypeVeth, spec.TypeBridge, spec.TypeBond, spec.TypeTeam, spec.TypeMacvlan,
		spec.TypeMacvtap, spec.TypeIPvlan, spec.TypeIPvtap, spec.TypeIfb, spec.TypeVLAN, spec.TypeTunnel} {
		if !regexp.MustCompile(`(?m)^` + string(typ) + `\b`).MatchString(things) {
			t.Errorf("the table has no %s", typ)
		}
	}
	for _, c := range []struct{ thing, marker, key string }{
		{"bond", "keys: link bond", "mode"}, {"team", "keys: team runner", "name"}, {"team", "keys: team link watch", "name"},
		{"macvlan", "keys: link macvlan macvtap", "mode"}, {"ipvlan", "keys: link ipvlan ipvtap", "mode"}, {"ipvlan", "keys: link ipvlan ipvtap", "flag"},
		{"qdisc", "keys: qdisc", ""},
	} {
		var words []string
		for line := range strings.Lines(between(t, "setup.md", c.marker)) {
			cells := strings.Split(line, " | ")
			switch {
			case len(cells) < 2 || !strings.HasPrefix(line, "| `"):
			case c.key == "":
				words = append(words, strings.Trim(cells[0], "|` "))
			case cells[0] == "| `"+c.key+"`":
				values, _, _ := strings.Cut(cells[1], ":")
				for _, w := range strings.Split(values, ", ") {
					words = append(words, strings.Trim(w, "`"))
				}
			}
		}
		if len(words) < 3 {
			t.Fatalf("of %s there are the words %q", c.marker, words)
		}
		for _, w := range words {
			if !named(c.thing, w) {
				t.Errorf("the table has no %s %s", c.thing, w)
			}
		}
	}
}
