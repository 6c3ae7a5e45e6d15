package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// notifier tells the service manager about the daemon's state, as sd_notify(3) does: datagrams to the socket named in the environment.
type notifier struct {
	socket   string
	watchdog time.Duration // how often it wants to hear that the daemon gets on; 0: never

	mu      sync.Mutex
	summary string
	failure string // of the last reload
}

// takeNotifier reads what the service manager has put into the environment and removes it from there, so that hooks do not speak for the
// daemon.
func takeNotifier() *notifier {
	n := &notifier{socket: takeEnv("NOTIFY_SOCKET")}
	usec, pid := takeEnv("WATCHDOG_USEC"), takeEnv("WATCHDOG_PID")
	if pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if u, err := strconv.ParseInt(usec, 10, 64); err == nil && u > 0 && u < int64(time.Hour) {
			n.watchdog = time.Duration(u) * time.Microsecond
		}
	}
	return n
}

func takeEnv(name string) string {
	v := os.Getenv(name)
	os.Unsetenv(name)
	return v
}

// send sends assignments such as "READY=1" in one message. Without a service manager it does nothing.
func (n *notifier) send(assignments ...string) error {
	if n.socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot tell the service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("cannot tell the service manager: %w", err)
	}
	return nil
}

// tell is send where nothing could be done about a failure.
func (n *notifier) tell(assignments ...string) { _ = n.send(assignments...) }

// now notes what the daemon does, and reports whether that is something new.
func (n *notifier) now(summary string) (changed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed = n.summary != summary
	n.summary = summary
	return changed
}

// noteReload notes how the last reload ended.
func (n *notifier) noteReload(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failure = ""
	if err != nil {
		n.failure, _, _ = strings.Cut(err.Error(), "\n")
	}
}

// text is the one line that "systemctl status" shows.
func (n *notifier) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure != "" {
		return n.summary + "; the last reload failed: " + n.failure
	}
	return n.summary
}
