package kernel

import (
	"context"
	"testing"
	"time"

	"culvert/internal/lab"
)

// TestWatch: changes of each kind are heard in the namespaces that are watched and no others, and the end lets the namespaces go.
func TestWatch(t *testing.T) {
	t.Parallel()
	h, other := lab.NewHost(t, "watched"), lab.NewHost(t, "other")
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan struct{}, 1)
	ended := make(chan error, 1)
	k := New(h.NetnsPath())
	go func() {
		ended <- k.Watch(ctx, []string{"", "no-such-namespace"}, func() {
			select {
			case heard <- struct{}{}:
			default:
			}
		})
	}()
	// Until it listens.
	lab.Eventually(t, 10*time.Second, "the first change", func() bool {
		h.Shell("ip", "link", "set", "lo", "mtu", "65000")
		h.Shell("ip", "link", "set", "lo", "mtu", "65536")
		return len(heard) > 0
	})
	quiet := func() {
		for time.Sleep(100 * time.Millisecond); len(heard) > 0; time.Sleep(100 * time.Millisecond) {
			<-heard
		}
	}
	for _, change := range [][]string{
		{"ip", "link", "add", "br0", "type", "bridge"}, {"ip", "addr", "add", "10.0.0.1/24", "dev", "br0"},
		{"ip", "addr", "add", "fd00::1/64", "dev", "br0", "nodad"}, {"ip", "route", "add", "blackhole", "10.9.0.0/16"},
		{"ip", "rule", "add", "priority", "77", "table", "77"}, {"ip", "-6", "rule", "add", "priority", "77", "table", "77"},
		{"tc", "qdisc", "add", "dev", "br0", "ingress"}, {"ip", "link", "del", "br0"},
	} {
		quiet()
		h.Shell(change[0], change[1:]...)
		select {
		case <-heard:
		case <-time.After(10 * time.Second):
			t.Errorf("nothing was heard of %v", change)
		}
	}
	quiet()
	other.Shell("ip", "link", "add", "br0", "type", "bridge")
	time.Sleep(100 * time.Millisecond)
	if len(heard) > 0 {
		t.Error("a change in another namespace was heard")
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
	if k.conns[""] != nil {
		t.Error("a namespace is held")
	}
}
