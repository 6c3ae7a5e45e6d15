package transport

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/lab"
)

// Changes of which the kernel could deliver only some are one change more, and the next is told of as well.
func TestLostRouteChanges(t *testing.T) {
	h := lab.NewHost(t, "lost")
	var w *routeWatch
	h.Must(func() error {
		fd, err := openNetlink(unix.SOCK_NONBLOCK, routeGroups)
		if err != nil {
			return err
		}
		w = newRouteWatch(fd) // which does not read yet
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	})
	defer w.close()
	for range 20 {
		h.AddRoute("198.51.100.0/24", "", "lo")
		h.Shell("ip", "route", "del", "198.51.100.0/24")
	}
	w.running.Go(w.run)
	told := func(what string) {
		t.Helper()
		select {
		case <-w.changes:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no change was signalled", what)
		}
	}
	told("lost")
	for quiet := false; !quiet; {
		select {
		case <-w.changes:
		case <-time.After(100 * time.Millisecond):
			quiet = true
		}
	}
	h.AddRoute("198.51.100.0/24", "", "lo")
	told("afterwards")
}
