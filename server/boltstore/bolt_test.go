package boltstore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/server"
	"culvert/server/storetest"
)

func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "server.db")
	f := open(t, path)
	storetest.Run(t, f.Tunnel("office"), func() server.Store {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f = open(t, path)
		return f.Tunnel("office")
	})
	storetest.Run(t, f.Tunnel("another"), nil) // which begins empty
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if fi, err := os.Stat(p); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", p, fi.Mode(), err, want)
		}
	}
}

func TestOpenOfWhatOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "server.db")
	open(t, path).Close()
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("mode 0640: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link); err == nil {
		t.Error("a symlink was followed")
	}
	if _, err := Open(filepath.Join(dir, "server.db")); err != nil {
		t.Error(err)
	}
}

func TestOpenOfWhatIsNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("nonsense\n", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("nonsense was opened: %v", err)
	}
}

// TestOneProcess waits lockTime, as a file of a killed process would be waited for.
func TestOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.db")
	open(t, path)
	if _, err := Open(path); !errors.Is(err, ErrBusy) {
		t.Errorf("a second opening: %v", err)
	}
}
