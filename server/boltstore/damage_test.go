package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/server"
)

var page = int64(os.Getpagesize())

// damages are what can become of a file, behind its two meta pages.
var damages = map[string]func(t *testing.T, f *os.File){
	"zeros":     func(t *testing.T, f *os.File) { fill(t, f, 0) },
	"ones":      func(t *testing.T, f *os.File) { fill(t, f, 0xff) },
	"truncated": func(t *testing.T, f *os.File) { truncate(t, f, 3*page) },
	"no pages":  func(t *testing.T, f *os.File) { truncate(t, f, 2*page) },
	// The list of free pages is whole, so that it is found later.
	"zeros but for the list of free pages": func(t *testing.T, f *os.File) { keepFreelist(t, f, 0) },
	"ones but for the list of free pages":  func(t *testing.T, f *os.File) { keepFreelist(t, f, 0xff) },
}

func size(t *testing.T, f *os.File) int64 {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

func fill(t *testing.T, f *os.File, b byte) {
	t.Helper()
	if _, err := f.WriteAt(bytes.Repeat([]byte{b}, int(size(t, f)-2*page)), 2*page); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, f *os.File, n int64) {
	t.Helper()
	if err := f.Truncate(n); err != nil {
		t.Fatal(err)
	}
}

// keepFreelist fills all pages but those that say that they are lists of free pages (flags 0x10 at byte 8 of a page).
func keepFreelist(t *testing.T, f *os.File, b byte) {
	t.Helper()
	for at := 2 * page; at < size(t, f); at += page {
		head := make([]byte, 10)
		if _, err := f.ReadAt(head, at); err != nil {
			t.Fatal(err)
		}
		if head[8] == 0x10 {
			continue
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte{b}, int(page)), at); err != nil {
			t.Fatal(err)
		}
	}
}

// filled makes a file with a few pages.
func filled(t *testing.T) (path string, f *File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "server.db")
	f = open(t, path)
	for i := range 50 {
		if err := f.Tunnel("office").Update(func(tx server.Tx) error {
			return tx.Put("clients", fmt.Sprint("c", i), bytes.Repeat([]byte{'x'}, 1000))
		}); err != nil {
			t.Fatal(err)
		}
	}
	return path, f
}

func damage(t *testing.T, path string, how func(*testing.T, *os.File)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	how(t, f)
}

func readAll(s server.Store) error {
	return s.View(func(tx server.Tx) error { return tx.Each("clients", func(string, []byte) error { return nil }) })
}

func put(s server.Store) error {
	return s.Update(func(tx server.Tx) error { return tx.Put("clients", "new", []byte("x")) })
}

func wantDamaged(t *testing.T, what, path string, err error) {
	t.Helper()
	if !errors.Is(err, ErrDamaged) || !strings.HasPrefix(err.Error(), path+" is damaged: ") || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("%s: %v", what, err)
	}
}

// wantFree: nobody holds the file's lock, so that it is not waited for.
func wantFree(t *testing.T, path string) {
	t.Helper()
	before := time.Now()
	f, err := Open(path)
	if err == nil {
		f.Close()
	}
	if errors.Is(err, ErrBusy) || time.Since(before) >= lockTime {
		t.Errorf("the file is locked: %v", err)
	}
}

func TestDamagedBeforeOpening(t *testing.T) {
	for name, how := range damages {
		t.Run(name, func(t *testing.T) {
			path, f := filled(t)
			f.Close()
			damage(t, path, how)
			f, err := Open(path)
			if err == nil { // the list of free pages is all that opening reads
				err = readAll(f.Tunnel("office"))
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			wantDamaged(t, "opening or reading", path, err)
			wantFree(t, path)
		})
	}
}

func TestDamagedWhileOpen(t *testing.T) {
	for name, how := range damages {
		for what, f := range map[string]func(server.Store) error{"reading": readAll, "writing": put} {
			t.Run(name+" "+what, func(t *testing.T) {
				path, file := filled(t)
				damage(t, path, how)
				s := file.Tunnel("office")
				wantDamaged(t, what, path, f(s))
				wantDamaged(t, "reading afterwards", path, readAll(s))
				wantDamaged(t, "writing afterwards, another tunnel's", path, put(file.Tunnel("another")))
				wantFree(t, path)
				if err := file.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestDamagedRuns: what a page says of how many more belong to it is not believed.
func TestDamagedRuns(t *testing.T) {
	path, f := filled(t)
	f.Close()
	damage(t, path, func(t *testing.T, f *os.File) {
		for at := 2 * page; at < size(t, f); at += page {
			if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff, 0x7f}, at+12); err != nil {
				t.Fatal(err)
			}
		}
	})
	_, err := Open(path)
	wantDamaged(t, "opening", path, err)
	wantFree(t, path)
}

func TestDamagedMetaPages(t *testing.T) {
	path, f := filled(t)
	f.Close()
	damage(t, path, func(t *testing.T, f *os.File) {
		if _, err := f.WriteAt(make([]byte, 2*page), 0); err != nil {
			t.Fatal(err)
		}
	})
	_, err := Open(path)
	wantDamaged(t, "opening", path, err)
	wantFree(t, path)
}

// TestPanicOfTheCaller: a mistake in what uses the store is not told to be the file's.
func TestPanicOfTheCaller(t *testing.T) {
	_, file := filled(t)
	s := file.Tunnel("office")
	mistake := func(tx server.Tx) error {
		tx.Get("clients", "c1")
		return tx.Each("clients", func(string, []byte) error { panic("a mistake") })
	}
	for what, f := range map[string]func(func(server.Tx) error) error{"View": s.View, "Update": s.Update} {
		func() {
			defer func() {
				if r := recover(); r != "a mistake" {
					t.Errorf("%s: %v", what, r)
				}
			}()
			t.Errorf("%s: %v", what, f(mistake))
		}()
	}
	if err := errors.Join(readAll(s), put(s)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestBytesDamaged: whatever single bytes behind the meta pages become, the process goes on, and nobody waits for the lock.
func TestBytesDamaged(t *testing.T) {
	path, f := filled(t)
	f.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 300 {
		text := bytes.Clone(whole)
		for range 1 + r.IntN(4) {
			// Most of what bbolt goes by stands where a page begins.
			at := 2*page + r.Int64N(int64(len(text))/page-2)*page + r.Int64N(64)
			text[at] = byte(r.Uint32())
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err == nil {
			err = errors.Join(readAll(f.Tunnel("office")), put(f.Tunnel("office")), f.Close())
		}
		if errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		if err != nil {
			found++
		}
	}
	if found == 0 {
		t.Error("no damage was ever found")
	}
}
