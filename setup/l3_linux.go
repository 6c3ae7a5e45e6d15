package setup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Applied is what [Apply] changed.
type Applied struct {
	// Mark is the fwmark the tunnel's datagrams must carry; 0 where no default route needs it.
	Mark uint32
	// Warnings tell what the host could not do and was done without.
	Warnings []error

	mu      sync.Mutex
	netns   int // the namespace the journal's steps belong to; -1 after Remove
	journal journal
}

// Apply configures a link: MTU, up, addresses, routes, and the policy for default routes. It is all or nothing:
// where a step fails, or ctx ends, what was done is undone in reverse order before Apply returns.
//
// A default route is done as wg-quick(8) does it. The table numbered like the mark holds the route, one rule sends there
// what does not carry the mark, and another before it looks up the main table without its default route, so that
// networks routed there stay reachable. An nftables table drops what comes in elsewhere for the link's addresses and
// carries the mark over to the answers to the tunnel's datagrams, which together with src_valid_mark lets those pass a
// strict reverse path filter.
//
// Errors are of type [*OpError], joined where there are several.
func Apply(ctx context.Context, c L3) (*Applied, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	netns, err := openNetns(c.Namespace)
	if err != nil {
		return nil, &OpError{Op: "configure", Item: c.Link, Err: err}
	}
	a := &Applied{netns: netns}
	err = inNamespace(netns, func() error {
		w := l3Work{L3: &c, ctx: ctx, applied: a}
		err := w.apply()
		if err != nil {
			err = errors.Join(err, a.journal.undo())
		}
		return err
	})
	if err != nil {
		unix.Close(netns)
		return nil, err
	}
	return a, nil
}

// Remove takes away exactly what Apply added and restores what it changed. What is gone already, as routes and addresses
// are with their link, is no error. Everything is tried; the errors are joined. The second call does nothing.
func (a *Applied) Remove() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.netns < 0 {
		return nil
	}
	err := inNamespace(a.netns, a.journal.undo)
	unix.Close(a.netns)
	a.netns = -1
	return err
}

// l3Work is one run of Apply, on a thread in the right namespace.
type l3Work struct {
	*L3
	ctx     context.Context
	applied *Applied
	index   int // of the link: its name may pass to another
}

// done records the inverse of a step that succeeded.
func (w *l3Work) done(op, item string, undo func() error) { w.applied.journal.add(op, item, undo) }

func (w *l3Work) warn(err *OpError) { w.applied.Warnings = append(w.applied.Warnings, err) }

func (w *l3Work) apply() error {
	link, err := netlink.LinkByName(w.Link)
	if err != nil {
		return &OpError{Op: "find link", Item: w.Link, Err: err}
	}
	w.index = link.Attrs().Index
	steps := []func() error{
		func() error { return w.setMTU(link) },
		func() error { return w.setUp(link) },
	}
	for _, p := range w.Addresses {
		steps = append(steps, func() error { return w.addAddress(p) })
	}
	var defaults []Route
	for _, r := range w.orderedRoutes() {
		if r.Prefix.Addr().Is6() && !w.haveIPv6() {
			w.warn(&OpError{Op: "add route", Item: r.String() + " dev " + w.Link,
				Err: errors.New("left out: this link has no IPv6"), Hint: ipv6OffHint(w.Link)})
			continue
		}
		if r.viaPolicy() {
			defaults = append(defaults, r)
			continue
		}
		steps = append(steps, func() error { return w.addRoute(r) })
	}
	if len(defaults) > 0 {
		steps = append(steps, func() error { return w.addPolicy(defaults) })
	}
	for _, step := range steps {
		if err := w.ctx.Err(); err != nil {
			return &OpError{Op: "configure", Item: w.Link, Err: err}
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (w *l3Work) setMTU(link netlink.Link) error {
	before := link.Attrs().MTU
	if w.MTU == 0 || w.MTU == before {
		return nil
	}
	item := fmt.Sprintf("%d dev %s", w.MTU, w.Link)
	if err := netlink.LinkSetMTU(link, w.MTU); err != nil {
		return &OpError{Op: "set MTU", Item: item, Err: err, Hint: permissionHint(err)}
	}
	w.done("restore MTU", w.Link, func() error { return netlink.LinkSetMTU(device(w.index), before) })
	return nil
}

func (w *l3Work) setUp(link netlink.Link) error {
	if link.Attrs().RawFlags&unix.IFF_UP != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return &OpError{Op: "set link up", Item: w.Link, Err: err, Hint: permissionHint(err)}
	}
	w.done("set link down", w.Link, func() error { return netlink.LinkSetDown(device(w.index)) })
	return nil
}

func (w *l3Work) addAddress(p netip.Prefix) error {
	err := addAddress(w.index, p, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		hint := permissionHint(err)
		if p.Addr().Is6() && !w.haveIPv6() {
			hint = ipv6OffHint(w.Link)
		}
		return &OpError{Op: "add address", Item: p.String() + " dev " + w.Link, Err: err, Hint: hint}
	}
	w.done("delete address", p.String()+" dev "+w.Link, func() error {
		return netlink.AddrDel(device(w.index), &netlink.Addr{IPNet: ipNet(p)})
	})
	return nil
}

// haveIPv6 reports whether IPv6 is switched on for the link.
func (w *l3Work) haveIPv6() bool {
	off, err := os.ReadFile(ipv6OffSysctl(w.Link))
	return err == nil && strings.TrimSpace(string(off)) == "0"
}

func ipv6OffSysctl(link string) string { return "/proc/sys/net/ipv6/conf/" + link + "/disable_ipv6" }

func ipv6OffHint(link string) string {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return "the kernel runs without IPv6"
	}
	return "switch IPv6 on with sysctl net.ipv6.conf." + strings.ReplaceAll(link, ".", "/") + ".disable_ipv6=0"
}

// kernelRoute returns r as the kernel takes it; table 0 is the main table.
func (w *l3Work) kernelRoute(r Route) *netlink.Route {
	return &netlink.Route{LinkIndex: w.index, Dst: ipNet(r.Prefix), Scope: routeScope(r.Prefix),
		Table: int(r.Table), Priority: int(r.Metric)}
}

// routeScope is that of a route without a gateway, as ip-route(8) sets it; IPv6 has none.
func routeScope(p netip.Prefix) netlink.Scope {
	if p.Addr().Is4() {
		return netlink.SCOPE_LINK
	}
	return netlink.SCOPE_UNIVERSE
}

func (w *l3Work) addRoute(r Route) error {
	if r.Table == 0 && r.Metric == 0 {
		covered, err := w.covered(r.Prefix)
		if covered || err != nil {
			return err
		}
	}
	route := w.kernelRoute(r)
	item := r.String() + " dev " + w.Link
	if err := netlink.RouteAdd(route); err != nil {
		return &OpError{Op: "add route", Item: item, Err: err, Hint: routeHint(err)}
	}
	w.done("delete route", item, func() error { return netlink.RouteDel(route) })
	return nil
}

func routeHint(err error) string {
	if errors.Is(err, unix.EEXIST) {
		return "the table has a route to this prefix: give this one a metric or a table of its own"
	}
	return permissionHint(err)
}

// covered reports whether a route of the main table leads all of p into the link already: that of one of its own
// addresses, for instance.
func (w *l3Work) covered(p netip.Prefix) (bool, error) {
	routes, err := dumped(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(familyOf(p.Addr()), &netlink.Route{LinkIndex: w.index}, netlink.RT_FILTER_OIF)
	})
	if err != nil {
		return false, &OpError{Op: "list routes of", Item: w.Link, Err: err}
	}
	return slices.ContainsFunc(routes, func(r netlink.Route) bool {
		have, ok := prefixOf(r.Dst)
		return ok && r.Type == unix.RTN_UNICAST && covers(have, p)
	}), nil
}
