package setup

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Standing reports whether a link has all the addresses and routes of c, as it has until it goes down; of default routes with a table of
// their own, whether any leads into it. Errors are of type [*OpError].
func Standing(c L3) (bool, error) {
	netns, err := openNetns(c.Namespace)
	if err != nil {
		return false, &OpError{Op: "look at", Item: c.Link, Err: err}
	}
	defer unix.Close(netns)
	standing := false
	err = inNamespace(netns, func() (err error) {
		standing, err = c.standing()
		return err
	})
	if err != nil {
		return false, &OpError{Op: "look at", Item: c.Link, Err: err}
	}
	return standing, nil
}

func (c *L3) standing() (bool, error) {
	link, err := netlink.LinkByName(c.Link)
	if err != nil {
		return false, err
	}
	addresses, err := dumped(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, err
	}
	has := make(map[netip.Prefix]bool)
	for _, a := range addresses {
		if p, ok := prefixOf(a.IPNet); ok {
			has[p] = true
		}
	}
	for _, p := range c.Addresses {
		if !has[p] {
			return false, nil
		}
	}
	type place struct {
		prefix netip.Prefix
		table  uint32
	}
	leads, byDefault := make(map[place]bool), make(map[int]bool)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dumped(func() ([]netlink.Route, error) {
			of := &netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}
			return netlink.RouteListFiltered(family, of, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return false, err
		}
		for _, r := range routes {
			p, ok := prefixOf(r.Dst)
			byDefault[family] = byDefault[family] || !ok || p.Bits() == 0
			if ok {
				leads[place{p, uint32(r.Table)}] = true
			}
		}
	}
	for _, r := range c.Routes {
		at := place{r.Prefix.Masked(), r.Table}
		if at.table == 0 {
			at.table = tableMain
		}
		if r.viaPolicy() && !byDefault[familyOf(r.Prefix.Addr())] || !r.viaPolicy() && !leads[at] {
			return false, nil
		}
	}
	return true, nil
}
