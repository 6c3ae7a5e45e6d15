package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// Memory is given back once after any number of large snapshots, and not for small ones.
func TestTidier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		freed := 0
		tidy := tidier{free: func() { freed++ }}
		check := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if freed != want {
				t.Errorf("given back %d times, want %d", freed, want)
			}
		}
		tidy.took(manyPeers - 1)
		check(time.Hour, 0)
		for range 3 {
			tidy.took(manyPeers)
			time.Sleep(time.Second)
		}
		check(tidyAfter-4*time.Second, 0)
		check(2*time.Second, 1)
		check(time.Hour, 1)
		tidy.took(2 * manyPeers)
		check(tidyAfter, 2)
	})
}
