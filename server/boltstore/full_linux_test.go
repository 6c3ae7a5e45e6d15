package boltstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
	"culvert/server"
)

// On a full disk nothing is written, what was can be read, and there is no damage: neither to the open file nor to the next one's.
func TestFullDisk(t *testing.T) {
	dir := lab.SmallDisk(t, 256<<10)
	path := filepath.Join(dir, "folder", "server.db")
	f := open(t, path)
	s := f.Tunnel("office")
	put := func(key string, size int) error {
		return s.Update(func(tx server.Tx) error { return tx.Put("clients", key, []byte(strings.Repeat("x", size))) })
	}
	count := func() (n int) {
		if err := s.View(func(tx server.Tx) error {
			return tx.Each("clients", func(string, []byte) error { n++; return nil })
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := put("first", 100); err != nil {
		t.Fatal(err)
	}
	free := lab.FillUp(t, dir)
	kept, failed := 1, 0
	for i := range 300 {
		if err := put(fmt.Sprint("full ", i), 1000); err == nil {
			kept++
		} else if failed++; !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if failed == 0 || count() != kept {
		t.Errorf("%d failed; %d of %d are there", failed, count(), kept)
	}
	free()
	if err := put("room again", 1000); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open(t, path)
	s = f.Tunnel("office")
	if count() != kept+1 {
		t.Errorf("opened again: %d of %d", count(), kept+1)
	}
}

// A file that has no room to begin in is refused with the reason.
func TestOpenOnAFullDisk(t *testing.T) {
	dir := lab.SmallDisk(t, 64<<10)
	free := lab.FillUp(t, dir)
	path := filepath.Join(dir, "server.db")
	if f, err := Open(path); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("opened: %v, %v", f, err)
	}
	free()
	f, err := Open(path)
	if err != nil {
		t.Fatalf("with room again: %v", err)
	}
	f.Close()
}
