// Package storetest holds what every store of a server must do, as a test.
package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"culvert/server"
)

// Run holds a store to what [server.Store] says. open opens the same store anew each time, after the one before was closed; nil where
// a store does not outlive its closing.
func Run(t *testing.T, first server.Store, reopen func() server.Store) {
	put := func(s server.Store, table, key, value string) {
		t.Helper()
		if err := s.Update(func(tx server.Tx) error { return tx.Put(table, key, []byte(value)) }); err != nil {
			t.Fatal(err)
		}
	}
	dump := func(s server.Store, table string) string {
		t.Helper()
		var all []string
		if err := s.View(func(tx server.Tx) error {
			return tx.Each(table, func(k string, v []byte) error {
				all = append(all, k+"="+string(v))
				return nil
			})
		}); err != nil {
			t.Fatal(err)
		}
		return strings.Join(all, " ")
	}
	expect := func(s server.Store, table, want string) {
		t.Helper()
		if got := dump(s, table); got != want {
			t.Errorf("%s holds %q, want %q", table, got, want)
		}
	}
	s := first
	expect(s, "a", "")
	if err := s.View(func(tx server.Tx) error {
		if v := tx.Get("a", "x"); v != nil {
			t.Errorf("an empty store has %q", v)
		}
		for _, err := range []error{tx.Put("a", "x", []byte("1")), tx.Delete("a", "x")} {
			if !errors.Is(err, server.ErrReadOnly) {
				t.Errorf("writing in a view: %v", err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"c", "a", "b"} {
		put(s, "a", k, k+k)
	}
	put(s, "other", "z", "1")
	expect(s, "a", "a=aa b=bb c=cc")

	failure := errors.New("failed")
	err := s.Update(func(tx server.Tx) error {
		for _, err := range []error{tx.Put("a", "b", []byte("changed")), tx.Delete("a", "c"), tx.Put("a", "d", []byte("new")), tx.Put("new", "e", []byte("1"))} {
			if err != nil {
				t.Error(err)
			}
		}
		if v := tx.Get("a", "b"); string(v) != "changed" {
			t.Errorf("a transaction sees %q of its own change", v)
		}
		if v := tx.Get("a", "c"); v != nil {
			t.Errorf("a transaction sees %q, which it has deleted", v)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("Update returned %v", err)
	}
	expect(s, "a", "a=aa b=bb c=cc")
	expect(s, "new", "")

	// What was got is the caller's, and what was put in is the store's.
	value := []byte("own")
	var got []byte
	if err := s.Update(func(tx server.Tx) error {
		if err := tx.Put("a", "own", value); err != nil {
			return err
		}
		value[0] = 'X'
		got = tx.Get("a", "own")
		return tx.Delete("a", "nothing there")
	}); err != nil {
		t.Fatal(err)
	}
	if string(got) != "own" {
		t.Errorf("got %q", got)
	}
	got[0] = 'Y'
	expect(s, "a", "a=aa b=bb c=cc own=own")
	if err := s.Update(func(tx server.Tx) error { return tx.Delete("a", "own") }); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("enough")
	seen := 0
	if err := s.View(func(tx server.Tx) error {
		return tx.Each("a", func(string, []byte) error { seen++; return stop })
	}); !errors.Is(err, stop) || seen != 1 {
		t.Errorf("Each returned %v after %d", err, seen)
	}

	// Of several that write at once each is whole.
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				if err := s.Update(func(tx server.Tx) error {
					n := len(tx.Get("count", "n"))
					return errors.Join(tx.Put("count", "n", []byte(strings.Repeat("i", n+1))), tx.Put("count", fmt.Sprint("by", i), []byte("x")))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var n []byte
	_ = s.View(func(tx server.Tx) error { n = tx.Get("count", "n"); return nil })
	if len(n) != 40 {
		t.Errorf("40 changes at once left %d", len(n))
	}
	if reopen == nil {
		return
	}
	before := slices.Clone([]string{dump(s, "a"), dump(s, "other"), dump(s, "count")})
	s = reopen()
	if after := []string{dump(s, "a"), dump(s, "other"), dump(s, "count")}; !slices.Equal(before, after) {
		t.Errorf("before closing %q, afterwards %q", before, after)
	}
}
