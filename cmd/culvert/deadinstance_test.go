package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Whatever a killed daemon has got to, nothing of it stays in the run directory.
func TestClearRun(t *testing.T) {
	for _, left := range [][]string{nil, {"a.lock"}, {"a.lock", "a.sock"}, {"a.lock", "a.sock", "a.log", "a~services.log"}} {
		p := &program{runDir: t.TempDir(), wgDir: t.TempDir()}
		if err := os.Chmod(p.runDir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range append(left, "b.lock") {
			if err := os.WriteFile(filepath.Join(p.runDir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.clearRun("a", nil); err != nil {
			t.Errorf("%v: %v", left, err)
		}
		entries, err := os.ReadDir(p.runDir)
		if err != nil || len(entries) != 1 || entries[0].Name() != "b.lock" {
			t.Errorf("of %v there is still %v, %v", left, entries, err)
		}
	}
}
