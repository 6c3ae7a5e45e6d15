package setup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/gaissmai/bart"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Applied is what [Apply] changed.
type Applied struct {
	// Mark is the fwmark the tunnel's datagrams must carry; 0 where no default route needs it.
	Mark uint32
	// Warnings tell what the host could not do and was done without.
	Warnings []error
	// Covered are the routes that were left out, since others lead all of them into the link.
	Covered []Route
	// ValidMark is set where src_valid_mark was switched on.
	ValidMark bool

	mu      sync.Mutex
	follow  []func() error // sets anew what knows the link's addresses
	netns   int            // the namespace the journal's steps belong to; -1 after Remove
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

// RemoveRoutes takes away some of the routes that Apply added, and leaves the rest. Routes that it did not add are no error. Everything is
// tried; the errors are joined.
func (a *Applied) RemoveRoutes(routes []Route) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.netns < 0 || len(routes) == 0 {
		return nil
	}
	these := make(map[Route]bool, len(routes))
	for _, r := range routes {
		r.Prefix = r.Prefix.Masked()
		these[r] = true
	}
	return inNamespace(a.netns, func() error { return a.journal.undoRoutes(these) })
}

// FollowAddresses brings what knows the link's addresses up to date with them: the firewall of a default route, in one step.
func (a *Applied) FollowAddresses() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.netns < 0 || len(a.follow) == 0 {
		return nil
	}
	return inNamespace(a.netns, func() error {
		var errs []error
		for _, f := range a.follow {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	})
}

// l3Work is one run of Apply, on a thread in the right namespace.
type l3Work struct {
	*L3
	ctx     context.Context
	applied *Applied
	index   int // of the link: its name may pass to another

	// By family, the prefixes that lead into the link in the main table: read once, since each reading is of all of them.
	leading map[int]*bart.Lite
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
		w.setPromotion,
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

// setPromotion has the link's other addresses of a network stay when the first of them goes. Linux otherwise takes them along, and with
// the last one all routes of the link: a change of the address would leave none.
func (w *l3Work) setPromotion() error {
	for _, conf := range []string{"all", w.Link} {
		if on, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + conf + "/promote_secondaries"); err == nil && strings.TrimSpace(string(on)) != "0" {
			return nil
		}
	}
	if err := setPromotion(w.index, 1); err != nil {
		return &OpError{Op: "set promote_secondaries of", Item: w.Link, Err: err, Hint: permissionHint(err)}
	}
	w.done("reset promote_secondaries of", w.Link, func() error { return setPromotion(w.index, 0) })
	return nil
}

// setPromotion sets a link's promote_secondaries by a message, not by /proc/sys, which is read-only in many a container.
func setPromotion(index int, value uint32) error {
	const (
		inetConf           = 1  // IFLA_INET_CONF (linux/if_link.h)
		promoteSecondaries = 20 // IPV4_DEVCONF_PROMOTE_SECONDARIES (linux/ip.h)
	)
	req := linkChange(index)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	families.AddRtAttr(unix.AF_INET, nil).AddRtAttr(inetConf, nil).AddRtAttr(promoteSecondaries, nl.Uint32Attr(value))
	req.AddData(families)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
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
	w.addressAdded(p)
	return nil
}

func (w *l3Work) addressAdded(p netip.Prefix) {
	w.done("delete address", p.String()+" dev "+w.Link, func() error {
		return netlink.AddrDel(device(w.index), &netlink.Addr{IPNet: ipNet(p)})
	})
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
		if err != nil {
			return err
		}
		if covered {
			w.applied.Covered = append(w.applied.Covered, r)
			return nil
		}
	}
	if err := w.checkLoop(r); err != nil {
		return err
	}
	route := w.kernelRoute(r)
	item := r.String() + " dev " + w.Link
	if err := netlink.RouteAdd(route); err != nil {
		return &OpError{Op: "add route", Item: item, Err: err, Hint: routeHint(err)}
	}
	w.routeAdded(r, route)
	if t := w.leading[familyOf(r.Prefix.Addr())]; t != nil && r.Table == 0 {
		t.Insert(r.Prefix)
	}
	return nil
}

func (w *l3Work) routeAdded(r Route, route *netlink.Route) {
	w.applied.journal.addRoute(r.String()+" dev "+w.Link, r, func() error { return netlink.RouteDel(route) })
}

// checkLoop refuses a route that would take the tunnel's own datagrams: it covers an endpoint more closely than the one they go by now.
// In a table of its own it is the rules' business.
func (w *l3Work) checkLoop(r Route) error {
	if r.Table != 0 && r.Table != tableMain {
		return nil
	}
	for _, e := range w.Endpoints {
		if !r.Prefix.Contains(e) {
			continue
		}
		bits, err := w.outsideBits(e)
		if err != nil || bits > r.Prefix.Bits() {
			continue // not reached at all yet, which the engine sees to later; or by a closer route
		}
		return &OpError{Op: "add route", Item: r.String() + " dev " + w.Link,
			Err:  fmt.Errorf("it leads the tunnel's own datagrams to %s into the tunnel itself", e),
			Hint: "take the endpoint's network out of allowed_ips, or say full_tunnel: true, which tells them apart by their mark"}
	}
	return nil
}

// outsideBits is the length of the prefix by which an address is reached now, by another device than the link.
func (w *l3Work) outsideBits(e netip.Addr) (int, error) {
	routes, err := netlink.RouteGetWithOptions(e.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil {
		return 0, err
	}
	for _, r := range routes {
		if r.LinkIndex == w.index {
			continue
		}
		if p, ok := prefixOf(r.Dst); ok {
			return p.Bits(), nil
		}
		return 0, nil // the default route
	}
	return 0, unix.ENETUNREACH
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
	family := familyOf(p.Addr())
	t := w.leading[family]
	if t == nil {
		routes, err := dumped(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: w.index}, netlink.RT_FILTER_OIF)
		})
		if err != nil {
			return false, &OpError{Op: "list routes of", Item: w.Link, Err: err}
		}
		t = new(bart.Lite)
		uncounted := make(map[netip.Prefix]bool, len(w.Uncounted))
		for _, p := range w.Uncounted {
			uncounted[p.Masked()] = true
		}
		for _, r := range routes {
			have, ok := prefixOf(r.Dst)
			// A network's own route is the kernel's, whatever else leads there.
			if ok && uncounted[have] && r.Protocol != unix.RTPROT_KERNEL {
				continue
			}
			if ok && r.Type == unix.RTN_UNICAST && r.Priority != StandInMetric {
				t.Insert(have)
			}
		}
		if w.leading == nil {
			w.leading = make(map[int]*bart.Lite)
		}
		w.leading[family] = t
	}
	return t.LookupPrefix(p), nil
}
