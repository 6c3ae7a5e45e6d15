package interop

import (
	"net/netip"
	"testing"

	"culvert/internal/lab"
)

// Frames of 9000 bytes cross an underlay of 1500 and one of 9200, over interfaces of two queues.
func TestJumboFramesAndQueues(t *testing.T) {
	t.Parallel()
	for name, underlay := range map[string]int{"underlay of 1500": 1500, "underlay of 9200": 9200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newSite(t, "a"), newSite(t, "b")
			wire := lab.Link(t, a.host, b.host, lab.NoOffloads(), lab.MTU(underlay))
			ends := []*tap{a.tap("office", etherPort), b.tap("office", etherPort)}
			connect(ends[0], ends[1], wire)
			address := []netip.Addr{netip.MustParseAddr("10.60.0.1"), netip.MustParseAddr("10.60.0.2")}
			for i, e := range ends {
				e.extra = "    mtu: 9000\n    queues: 2\n    addresses: [" + address[i].String() + "/24]\n"
			}
			up(ends...)
			lab.Eventually(t, patience, "a ping", func() bool { return a.host.Ping(address[1]) == nil })
			for _, size := range []string{"8972", "8000", "1472", "56"} {
				a.host.Shell("ping", "-n", "-M", "do", "-c", "3", "-i", "0.1", "-W", "5", "-s", size, address[1].String())
			}
			for range 4 { // flows, for the queues
				transfer(t, a.host, b.host, address[1], 4<<20)
				transfer(t, b.host, a.host, address[0], 4<<20)
			}
			for _, e := range ends {
				if s := e.status(); s.MTU != 9000 {
					t.Errorf("%s: an MTU of %d", e.host.Name, s.MTU)
				}
			}
		})
	}
}
