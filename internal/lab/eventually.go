package lab

import (
	"testing"
	"time"
)

// Eventually polls cond until it is true, and fails the test when timeout passes first. It is for states of the kernel
// and of other processes that announce nothing; the timeout bounds a failing test and judges no speed.
func Eventually(t testing.TB, timeout time.Duration, what string, cond func() bool) {
	t.Helper()
	const step = 5 * time.Millisecond
	for end := time.Now().Add(timeout); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not so within %v", what, timeout)
		}
		time.Sleep(step)
	}
}
