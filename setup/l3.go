package setup

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// L3 is what an interface that carries IP packets needs besides the device itself, typically a tunnel's tun.
type L3 struct {
	// Link is the device's name. It must exist.
	Link string
	// Namespace is the file of the network namespace the link is in; "" stands for the calling thread's.
	Namespace string
	// MTU is the link's MTU in bytes; 0 leaves it as it is. IPv6 needs 1280 (RFC 8200, section 5).
	MTU int
	// Addresses are the link's addresses, host part included. One the link has already is left alone.
	Addresses []netip.Prefix
	// Routes lead into the link.
	Routes []Route
	// Uncounted are networks that are routed into the link and cover no route here: they may go while it stays.
	Uncounted []netip.Prefix
	// Endpoints are where the tunnel's own datagrams go. A route that would lead them into the link itself is refused.
	Endpoints []netip.Addr
	// Mark is the fwmark of the tunnel's own datagrams. It is used only where Routes hold a default route without a
	// table: it keeps those datagrams out of the tunnel, and is the number of the table the default route is put in.
	// 0 picks the first from 51820 upward that no rule and no route uses.
	Mark uint32
	// SetMark, where not nil, is called with the mark in use before any rule depends on it.
	SetMark func(mark uint32) error
}

// Route is a route into the link.
type Route struct {
	// Prefix is the destination; its host part is ignored.
	Prefix netip.Prefix
	// Table is the routing table. 0 stands for the main table, where a route that another one into the same link
	// covers is left out, and where a default route is not put: it becomes the policy that [L3].Mark describes.
	Table uint32
	// Metric is the route's priority, the lowest being preferred; 0 leaves the choice to the kernel.
	Metric uint32
}

// String returns the route as ip-route(8) writes it.
func (r Route) String() string {
	s := r.Prefix.String()
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	return s
}

// viaPolicy reports whether the route is a default route that goes into a table of its own.
func (r Route) viaPolicy() bool { return r.Prefix.Bits() == 0 && r.Table == 0 }

// StandInMetric is the metric of a route that leads a network into a link while the address goes whose own route did. It covers no other
// route, and any other of the same prefix is preferred to it.
const StandInMetric = 1<<31 - 1

const (
	minMTU     = 68    // RFC 791: what every link must carry
	minIPv6MTU = 1280  // RFC 8200, section 5
	maxMTU     = 65535 // the largest a tun takes

	// Tables the kernel has a use for (linux/rtnetlink.h).
	tableDefault, tableMain, tableLocal = 253, 254, 255
)

// validate refuses what could not be applied, before anything is touched.
func (c *L3) validate() error {
	bad := func(item, format string, args ...any) error {
		return &OpError{Op: "configure", Item: c.Link + ": " + item, Err: fmt.Errorf(format, args...)}
	}
	var errs []error
	if err := CheckLinkName(c.Link); err != nil {
		errs = append(errs, bad("link name", "%w", err))
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		errs = append(errs, bad(fmt.Sprintf("MTU %d", c.MTU), "not within %d to %d", minMTU, maxMTU))
	}
	if c.MTU != 0 && c.MTU < minIPv6MTU && c.usesIPv6() {
		errs = append(errs, bad(fmt.Sprintf("MTU %d", c.MTU), "IPv6 needs an MTU of at least %d", minIPv6MTU))
	}
	if m := c.Mark; m >= tableDefault && m <= tableLocal {
		errs = append(errs, bad(fmt.Sprintf("mark %d", m), "this is the number of a table of the kernel's own"))
	}
	for _, p := range c.Addresses {
		switch a := p.Addr(); {
		case !p.IsValid():
			errs = append(errs, bad("address "+p.String(), "not a valid address with prefix length"))
		case a.Is4In6() || a.IsUnspecified() || a.IsMulticast():
			errs = append(errs, bad("address "+p.String(), "an interface cannot have this address"))
		}
	}
	for _, r := range c.Routes {
		if !r.Prefix.IsValid() || r.Prefix.Addr().Is4In6() {
			errs = append(errs, bad("route "+r.String(), "not a valid prefix"))
		}
	}
	return errors.Join(errs...)
}

func (c *L3) usesIPv6() bool {
	return slices.ContainsFunc(c.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) ||
		slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Prefix.Addr().Is6() })
}

// orderedRoutes returns the routes without repetitions, the narrowest first: so a default route comes last, when
// everything it could affect is in place.
func (c *L3) orderedRoutes() []Route {
	routes := make([]Route, len(c.Routes))
	for i, r := range c.Routes {
		r.Prefix = r.Prefix.Masked()
		routes[i] = r
	}
	slices.SortFunc(routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(b.Prefix.Bits(), a.Prefix.Bits()), a.Prefix.Addr().Compare(b.Prefix.Addr()),
			cmp.Compare(a.Table, b.Table), cmp.Compare(a.Metric, b.Metric))
	})
	return slices.Compact(routes)
}
