package apply_test

import (
	"testing"

	"culvert/setup/apply"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/spec"
)

// bridged has a tunnel's tap as the port of a bridge.
var bridged = &spec.Spec{Instance: "test", Links: []spec.Link{
	{Key: "office", Type: spec.TypeTunnel, MTU: 1400, Tun: &spec.Tun{Mode: spec.TypeTap}},
	{Key: "br7", Type: spec.TypeBridge, Ports: []spec.Port{{Link: "office"}}}}}

// TestTunnelMade: the daemon makes its tap as a step of the plan, and takes it away.
func TestTunnelMade(t *testing.T) {
	b := newBench(t)
	before := b.kernel.All()
	b.with(func(e *apply.Engine) {
		e.Tunnels = true
		if _, err := e.Apply(t.Context(), model.Expand(bridged)); err != nil {
			t.Fatal(err)
		}
		if p, _, _ := e.Plan(t.Context(), model.Expand(bridged)); !p.IsEmpty() {
			t.Errorf("still to do:\n%s", p)
		}
		if b.kernel.Objects["attachment office"] == nil {
			t.Error("the tap is no port")
		}
		if _, err := e.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	b.same(before, "destroyed")
}

// TestTunnelFound: by itself the setup layer neither makes a tunnel's tap nor takes it away, and one of another kind is refused.
func TestTunnelFound(t *testing.T) {
	b := newBench(t)
	b.with(func(e *apply.Engine) {
		if _, err := e.Apply(t.Context(), model.Expand(bridged)); err == nil {
			t.Error("applied without the tunnel")
		}
	})
	b.kernel.AddLink("office", "tap", model.Fields{"persist": "no"})
	before := b.kernel.All()
	b.apply(bridged)
	b.settled(bridged)
	if b.kernel.Objects["link office"].Fields["mtu"] != "1400" {
		t.Error("its MTU is not set")
	}
	b.destroy()
	b.same(before, "destroyed")

	b = &bench{T: t, kernel: kerneltest.New(), dir: t.TempDir() + "/test"}
	b.kernel.AddLink("office", "tun", model.Fields{"persist": "no"})
	b.with(func(e *apply.Engine) {
		_, err := e.Apply(t.Context(), model.Expand(bridged))
		if want := "link office: it is a tun, not a tap"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
}
