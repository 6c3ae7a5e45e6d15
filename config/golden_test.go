package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/golden"
)

// TestGolden compares the errors and warnings of each file in testdata/errors and testdata/good, as people see them.
func TestGolden(t *testing.T) {
	for _, pattern := range []string{"testdata/errors/*.yaml", "testdata/errors/*.conf", "testdata/good/*.yaml", "testdata/good/*.conf"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("nothing matches %s: %v", pattern, err)
		}
		for _, path := range paths {
			t.Run(filepath.Base(path), func(t *testing.T) {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				var r *report
				if filepath.Ext(path) == ".conf" {
					_, r, _ = parseWGQuick(filepath.Base(path), text)
				} else {
					_, r = parseYAML(filepath.Base(path), text, fakeSecret)
				}
				var got strings.Builder
				errs, warnings := r.finish()
				if len(errs) > 0 {
					got.WriteString(errs.Error() + "\n")
				}
				for _, w := range warnings {
					got.WriteString("warning: " + w.Error() + "\n")
				}
				if good := filepath.Base(filepath.Dir(path)) == "good"; good == (len(errs) > 0) {
					t.Errorf("accepted: %v", !good)
				}
				golden.Check(t, path+".txt", got.String())
			})
		}
	}
}
