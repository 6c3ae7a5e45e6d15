package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs f on a thread that is thrown away afterwards, and waits for it. Whatever f did to the thread's namespaces and file system
// attributes ends with it.
//
// It is never the process's first thread. That one cannot end: the runtime would leave it as it is for good, and /proc/self/ns, by
// which others and this process itself find its namespaces, shows those of the first thread.
func Run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done) // also where f ends its goroutine
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine has the first thread and waits, another gets another.
			defer runtime.UnlockOSThread()
			Run(f)
			return
		}
		f() // the thread is never unlocked, and ends with the goroutine
	}()
	<-done
}
