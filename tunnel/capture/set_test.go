package capture

import (
	"runtime"
	"sync"
	"testing"
)

func TestSet(t *testing.T) {
	var s Set
	if s.Active() {
		t.Error("an empty set is active")
	}
	s.Put(Meta{}, []byte{1}) // to nobody
	var rings []*Ring
	var removes []func()
	for range MaxCaptures {
		r := NewRing(4096, 64)
		remove, err := s.Add(r)
		if err != nil {
			t.Fatal(err)
		}
		rings, removes = append(rings, r), append(removes, remove)
	}
	if _, err := s.Add(NewRing(4096, 64)); err != ErrTooMany {
		t.Errorf("one too many: %v, want ErrTooMany", err)
	}
	for left := MaxCaptures; left > 0; left-- {
		if !s.Active() {
			t.Fatal("not active")
		}
		s.Put(Meta{}, []byte{1})
		for i, r := range rings {
			if _, ok := r.TryNext(); ok != (i < left) {
				t.Errorf("with %d left, ring %d got a record: %v", left, i, ok)
			}
		}
		removes[left-1]()
		removes[left-1]()
	}
	if s.Active() {
		t.Error("active with all removed")
	}
	if _, err := s.Add(rings[0]); err != nil {
		t.Errorf("no room after all were removed: %v", err)
	}
}

// Captures come and go while packets pass.
func TestSetChangesWhilePacketsPass(t *testing.T) {
	var s Set
	done := make(chan struct{})
	var passing, changing sync.WaitGroup
	for range 2 {
		passing.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if s.Active() {
						s.Put(Meta{}, make([]byte, 100))
					}
					runtime.Gosched()
				}
			}
		})
	}
	for range MaxCaptures {
		changing.Go(func() {
			for range 200 {
				r := NewRing(1<<12, 100)
				remove, err := s.Add(r)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := r.Next(t.Context()); err != nil {
					t.Error(err)
				}
				remove()
				r.Close()
				for {
					if _, err := r.Next(t.Context()); err != nil {
						break
					}
				}
			}
		})
	}
	changing.Wait()
	close(done)
	passing.Wait()
	if s.Active() {
		t.Error("active with all removed")
	}
}
