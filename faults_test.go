package culvert_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The table of faults in docs/operations.md names tests that there are, and leaves out no fault that has to be in it.
func TestTableOfFaults(t *testing.T) {
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "<!-- faults -->\n")
	table, _, end := strings.Cut(table, "<!-- end -->")
	if !ok || !end {
		t.Fatal("docs/operations.md has no table of faults")
	}
	for _, fault := range []string{"EAGAIN", "EINTR", "ENOBUFS", "ENOSPC", "EMFILE", "EPERM", "EACCES", "EMSGSIZE", "ECONNREFUSED", "ENETUNREACH",
		"EHOSTUNREACH", "EIO", "EBADFD", "short sends", "netlink loses", "was deleted", "the clock is set", "SIGKILL"} {
		if !strings.Contains(table, fault) {
			t.Errorf("the table has no %q", fault)
		}
	}
	tests := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func Test(\w+)\(t \*testing\.T\)`)
	err = filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, f := range function.FindAllStringSubmatch(string(source), -1) {
			tests[f[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(table), "\n")[2:]
	if len(rows) < 20 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	for _, row := range rows {
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(row, "| "), " |"), " |")
		if len(cells) != 4 {
			t.Errorf("a row of %d cells: %s", len(cells), row)
			continue
		}
		for name := range strings.SplitSeq(strings.TrimSpace(cells[3]), ", ") {
			if !tests[name] {
				t.Errorf("%s: there is no Test%s", cells[0], name)
			}
		}
	}
}
