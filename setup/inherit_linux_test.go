package setup_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup"
)

// What one process has applied another takes away: addresses, routes, and the policy of a default route, and nothing else.
func TestInherit(t *testing.T) {
	h := tunHost(t)
	addTun(t, h, "wg1")
	apply(t, h, setup.L3{Link: "wg1", Addresses: prefixes("10.8.0.1/24"), Routes: routes("10.18.0.0/16", "0.0.0.0/0")})
	apply(t, h, setup.L3{Link: "wg0"})
	// The kernel's own route for IPv6 multicasts comes with the first address, and stays.
	if err := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("fd00::1/64")}).Remove(); err != nil {
		t.Fatal(err)
	}
	settled := func() {
		t.Helper()
		lab.Eventually(t, 20*time.Second, "no address is tentative", func() bool { return !strings.Contains(h.Shell("ip", "address"), "tentative") })
	}
	settled()
	before := snapshot(t, h)
	for _, c := range []setup.L3{
		{Link: "wg0", Addresses: prefixes("10.9.0.1/24", "fd00::1/64"), Routes: routes("10.19.0.0/16", "fd01::/64")},
		{Link: "wg0", Addresses: prefixes("10.9.0.1/24", "fd00::1/64"), Routes: routes("10.19.0.0/16", "0.0.0.0/0", "::/0")},
	} {
		a := apply(t, h, c)
		settled()
		between := snapshot(t, h)
		c.Namespace, c.Mark = h.NetnsPath(), a.Mark
		b, err := setup.Inherit(t.Context(), c, a.ValidMark)
		if err != nil {
			t.Fatal(err)
		}
		checkUnchanged(t, h, between)
		if err := b.FollowAddresses(); err != nil {
			t.Error(err)
		}
		checkUnchanged(t, h, between)
		if err := b.RemoveRoutes([]setup.Route{{Prefix: netip.MustParsePrefix("10.19.0.0/16")}}); err != nil {
			t.Error(err)
		}
		if err := b.Remove(); err != nil {
			t.Error(err)
		}
		checkUnchanged(t, h, before)
		if err := a.Remove(); err != nil { // everything is gone
			t.Error(err)
		}
		checkUnchanged(t, h, before)
	}
}
