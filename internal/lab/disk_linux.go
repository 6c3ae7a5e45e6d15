package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk mounts a file system of so many bytes and returns its folder. It is taken away at the end of the test, which is skipped
// where nothing can be mounted.
func SmallDisk(t testing.TB, bytes int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("culvert-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		Skip(t, fmt.Sprintf("cannot mount a file system: %v", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// FillUp leaves no room on the file system of a folder until free is called.
func FillUp(t testing.TB, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "full")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
