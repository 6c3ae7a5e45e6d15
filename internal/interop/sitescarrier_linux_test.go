package interop

import (
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// An interface has its carrier while a peer is reached: not before it is, for some keepalive intervals after it has vanished without
// a word, and not a moment longer when it says that it stops.
func TestCarrier(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a"), newSite(t, "b")
	wire := lab.Link(t, a.host, b.host)
	near, far := a.tap("office", etherPort), b.tap("office", etherPort)
	connect(near, far, wire)
	near.up()
	near.carriers(t, false)
	if near.status().Switch.Carrier {
		t.Error("status shows a carrier before the peer is there")
	}
	far.up()
	for _, e := range []*tap{near, far} {
		lab.Eventually(t, patience, "the carrier comes with the peer", func() bool { return e.host.Carrier("office") })
		e.carriers(t, true)
		if !e.status().Switch.Carrier {
			t.Error("status shows no carrier")
		}
	}

	// It stays though nothing is sent: each keepalive interval asks for an answer.
	for end := time.Now().Add(7 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !near.host.Carrier("office") {
			t.Fatal("the carrier went while the peer was there")
		}
	}

	const keepalive = time.Second
	far.kill()
	took := near.losesCarrier(t)
	t.Logf("the carrier went %v after the peer was killed", took)
	if took < keepalive || took > 6*keepalive {
		t.Errorf("the carrier went %v after the peer was killed, with a keepalive of %v want about 4 s", took, keepalive)
	}
	near.carriers(t, false)
	lab.Eventually(t, patience, "the killed end's interface is gone", func() bool { return !far.host.HasLink("office") })
	far.up()
	lab.Eventually(t, patience, "the carrier comes back with the peer", func() bool { return near.host.Carrier("office") })

	far.culvert("down", far.device)
	took = near.losesCarrier(t)
	t.Logf("the carrier went %v after the peer was stopped", took)
	if took > 500*time.Millisecond {
		t.Errorf("the carrier went %v after the peer was stopped, want at once", took)
	}
	far.up()
	lab.Eventually(t, patience, "the carrier comes back with the peer", func() bool { return near.host.Carrier("office") })

	// The way there is cut.
	b.host.Down(wire.B.Device)
	took = near.losesCarrier(t)
	t.Logf("the carrier went %v after the wire was cut", took)
	b.host.Up(wire.B.Device)
	lab.Eventually(t, patience, "the carrier comes back with the wire", func() bool { return near.host.Carrier("office") })
}

// With two peers the carrier is there while either is.
func TestCarrierOfTwoPeers(t *testing.T) {
	t.Parallel()
	a, b, c := newSite(t, "a"), newSite(t, "b"), newSite(t, "c")
	wireB, wireC := lab.Link(t, a.host, b.host), lab.Link(t, a.host, c.host)
	near, first, second := a.tap("office", etherPort), b.tap("office", etherPort), c.tap("office", etherPort)
	connect(near, first, wireB)
	connect(near, second, wireC)
	first.extra = "    carrier: on\n"
	first.up()
	if !first.host.Carrier("office") {
		t.Error("carrier: on leaves the interface without one")
	}
	up(near, second)
	lab.Eventually(t, patience, "both peers are reached", func() bool {
		peers := near.status().Peers
		return peers[0].Port.Alive && peers[1].Port.Alive
	})
	first.culvert("down", first.device)
	time.Sleep(2 * time.Second)
	near.carriers(t, true)
	second.culvert("down", second.device)
	near.losesCarrier(t)
}

// carriers looks what the kernel says of the interface's carrier.
func (e *tap) carriers(t *testing.T, on bool) {
	t.Helper()
	want := map[bool]string{false: "0 down", true: "1 up"}[on]
	// /sys shows the namespace that it was mounted in.
	got := strings.Join(strings.Fields(e.host.Shell("ip", "netns", "exec", e.host.NetnsName(), "cat",
		"/sys/class/net/"+e.device+"/carrier", "/sys/class/net/"+e.device+"/operstate")), " ")
	if got != want {
		t.Errorf("%s: carrier and operstate of %s are %q, want %q", e.host.Name, e.device, got, want)
	}
}

// losesCarrier waits until the interface has no carrier and returns how long that took.
func (e *tap) losesCarrier(t *testing.T) time.Duration {
	t.Helper()
	begun := time.Now()
	lab.Eventually(t, patience, "the carrier goes", func() bool { return !e.host.Carrier(e.device) })
	return time.Since(begun).Round(time.Millisecond)
}
