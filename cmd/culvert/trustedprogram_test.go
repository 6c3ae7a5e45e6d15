package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
)

func TestTrustedProgram(t *testing.T) {
	lab.NeedRoot(t)
	dir := t.TempDir()
	make := func(folder string, folderMode, mode os.FileMode, uid int) string {
		t.Helper()
		path := filepath.Join(dir, folder, "program")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{os.Chmod(path, mode), os.Chown(path, uid, 0), os.Chmod(filepath.Dir(path), folderMode)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(make("theirs", 0o755, 0o755, 12345), link); err != nil {
		t.Fatal(err)
	}
	above := make("above/below", 0o755, 0o755, 0)
	if err := os.Chmod(filepath.Join(dir, "above"), 0o777); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		make("good", 0o755, 0o755, 0):                       "",
		filepath.Join(dir, "missing"):                       "is not there",
		make("theirs", 0o755, 0o755, 12345):                 "owner 12345",
		link:                                                "owner 12345",
		make("open", 0o755, 0o777, 0):                       "mode 0777",
		make("openfolder", 0o777, 0o755, 0):                 "mode 0777",
		make("sticky", 0o755, 0o777|os.ModeSticky, 0):       "mode 0777",
		make("stickyfolder", 0o777|os.ModeSticky, 0o755, 0): "",
		above:                                "mode 0777",
		filepath.Dir(make("d", 0o755, 0, 0)): "is no program",
	} {
		err := trustedProgram(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
