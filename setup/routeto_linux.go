package setup

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// RouteTo is where the kernel sends a packet with a mark to an address, in this thread's namespace: by which link, from which source, and the
// largest packet of the way in bytes, as far as it is known.
func RouteTo(to netip.Addr, mark uint32) (link string, source netip.Addr, mtu int, err error) {
	routes, err := netlink.RouteGetWithOptions(to.Unmap().AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	if err != nil {
		return "", netip.Addr{}, 0, &OpError{Op: "find the route to", Item: to.String(), Err: err}
	}
	for _, r := range routes {
		l, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			continue
		}
		source, _ = netip.AddrFromSlice(r.Src)
		if mtu = r.MTU; mtu == 0 {
			mtu = l.Attrs().MTU
		}
		return l.Attrs().Name, source.Unmap(), mtu, nil
	}
	return "", netip.Addr{}, 0, nil
}
