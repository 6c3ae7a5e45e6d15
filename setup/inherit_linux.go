package setup

import (
	"context"
	"errors"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Inherit is what [Apply] returns, of what another process has applied and left in place: it changes nothing but what Remove and its like
// take away. c has the addresses and routes that are there, none of those that were covered, and the mark in use; validMark is
// [Applied.ValidMark] of that process. What others have taken away since is no error.
func Inherit(ctx context.Context, c L3, validMark bool) (*Applied, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	netns, err := openNetns(c.Namespace)
	if err != nil {
		return nil, &OpError{Op: "go on with", Item: c.Link, Err: err}
	}
	a := &Applied{netns: netns, Mark: c.Mark}
	err = inNamespace(netns, func() error {
		w := l3Work{L3: &c, ctx: ctx, applied: a}
		return w.inherit(validMark)
	})
	if err != nil {
		unix.Close(netns)
		return nil, err
	}
	return a, nil
}

func (w *l3Work) inherit(validMark bool) error {
	link, err := netlink.LinkByName(w.Link)
	if err != nil {
		return &OpError{Op: "find link", Item: w.Link, Err: err}
	}
	w.index = link.Attrs().Index
	for _, p := range w.Addresses {
		w.addressAdded(p)
	}
	var families []int
	for _, r := range w.orderedRoutes() {
		if r.viaPolicy() {
			r.Table = w.Mark
			if f := familyOf(r.Prefix.Addr()); !slices.Contains(families, f) {
				families = append(families, f)
			}
		}
		w.routeAdded(r, w.kernelRoute(r))
	}
	if len(families) == 0 {
		return nil
	}
	if validMark {
		w.validMarkSet([]byte("0"))
	}
	for _, family := range families {
		table, set := w.firewall(family, w.Mark)
		w.applied.follow = append(w.applied.follow, func() error {
			if err := set(); err != nil && !unsupported(err) {
				return err
			}
			return nil
		})
		w.done("delete nftables table", table.Name, func() error { return deleteTable(table) })
		if err := w.inheritRules(family); err != nil {
			return err
		}
	}
	return nil
}

// inheritRules finds the two rules that addRules has made.
func (w *l3Work) inheritRules(family int) error {
	rules, err := listRules(family)
	if err != nil {
		return &OpError{Op: "list rules for", Item: w.Link, Err: err}
	}
	for _, divert := range rules {
		if !isPolicyRule(divert) || !divert.Invert || divert.Mark != w.Mark {
			continue
		}
		for _, suppress := range rules {
			if isPolicyRule(suppress) && !suppress.Invert && suppress.Priority == divert.Priority-1 {
				w.ruleAdded(&suppress)
			}
		}
		w.ruleAdded(&divert)
	}
	return nil
}

// firewall is the table of a family that protects the link, and what makes it.
func (w *l3Work) firewall(family int, mark uint32) (table *nftables.Table, set func() error) {
	name := firewallPrefix + w.Link
	index, link := w.index, w.Link
	table = &nftables.Table{Name: name, Family: nftFamily(family)}
	return table, func() error {
		addrs, err := addressesOf(index, family)
		if err != nil {
			return &OpError{Op: "list addresses of", Item: link, Err: err}
		}
		err = addFirewallTable(table, link, addrs, mark)
		if _, ok := errors.AsType[*OpError](err); ok || err == nil || unsupported(err) {
			return err
		}
		return &OpError{Op: "add nftables table", Item: name, Err: err, Hint: permissionHint(err)}
	}
}
