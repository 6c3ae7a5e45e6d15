package setup

import (
	"context"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AutoMTU returns the MTU for a tunnel to those endpoints: what the route to an endpoint allows (its own mtu attribute,
// a discovered path MTU, or its device's MTU) less overhead, the smallest of them where they differ. Where no endpoint has
// a route that of the default routes counts, and failing this too that of Ethernet.
//
// overhead is [NativeOverhead] where any peer is on the native wire, and [WireGuardOverhead] otherwise.
// mark is the fwmark of the tunnel's datagrams, link the tunnel's own device, routes into which do not count; namespace
// is as in [L3].
func AutoMTU(ctx context.Context, namespace, link string, mark uint32, overhead int, endpoints []netip.Addr) (int, error) {
	netns, err := openNetns(namespace)
	if err != nil {
		return 0, &OpError{Op: "find the MTU for", Item: link, Err: err}
	}
	defer unix.Close(netns)
	mtu := 0
	err = inNamespace(netns, func() error {
		own := 0
		if l, err := netlink.LinkByName(link); err == nil {
			own = l.Attrs().Index
		}
		for _, e := range endpoints {
			if err := ctx.Err(); err != nil {
				return &OpError{Op: "find the MTU for", Item: link, Err: err}
			}
			// An address without a route, or of a family the host lacks, says nothing.
			routes, err := netlink.RouteGetWithOptions(e.Unmap().AsSlice(), &netlink.RouteGetOptions{Mark: mark})
			if err == nil {
				mtu = smallerMTU(mtu, routes, own)
			}
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			if mtu != 0 {
				break
			}
			routes, err := dumped(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
			if err == nil {
				mtu = smallerMTU(mtu, defaultRoutes(routes), own)
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case mtu <= overhead:
		mtu = ethernetMTU
	}
	return min(mtu, maxMTU) - overhead, nil
}

// smallerMTU returns the smallest MTU among mtu, unless 0, and those of routes that do not lead into the link own.
func smallerMTU(mtu int, routes []netlink.Route, own int) int {
	for _, r := range routes {
		if r.LinkIndex == 0 || r.LinkIndex == own {
			continue
		}
		m := r.MTU
		if m == 0 {
			l, err := netlink.LinkByIndex(r.LinkIndex)
			if err != nil {
				continue
			}
			m = l.Attrs().MTU
		}
		if mtu == 0 || m < mtu {
			mtu = m
		}
	}
	return mtu
}

func defaultRoutes(routes []netlink.Route) []netlink.Route {
	var list []netlink.Route
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); r.Dst == nil || ok && p.Bits() == 0 {
			list = append(list, r)
		}
	}
	return list
}
