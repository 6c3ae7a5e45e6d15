package thread_test

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/setup/thread"
)

// TestMain runs the tests from the first thread, whose goroutine is the first to start others.
func TestMain(m *testing.M) { os.Exit(m.Run()) }

// The process's first thread is never used, however often and from whichever thread.
func TestNeverTheFirstThread(t *testing.T) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				here := 0
				thread.Run(func() { here = unix.Gettid() })
				if here == 0 || here == unix.Getpid() {
					t.Errorf("it ran on thread %d of process %d", here, unix.Getpid())
				}
				runtime.Gosched()
			}
		})
	}
	all.Wait()
}

// What is done to a thread is gone with it.
func TestThrownAway(t *testing.T) {
	first := mask(t)
	for range 50 {
		thread.Run(func() {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				t.Error(err)
			}
			unix.Umask(0o123)
		})
		if now := mask(t); now != first {
			t.Fatalf("the umask is %#o, was %#o", now, first)
		}
	}
}

func mask(t *testing.T) (m int) {
	t.Helper()
	m = unix.Umask(0o77)
	unix.Umask(m)
	return m
}

// A function that ends its goroutine ends no more than that.
func TestGoexit(t *testing.T) {
	thread.Run(runtime.Goexit)
}
