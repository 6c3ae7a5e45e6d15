//go:build !linux

package setup

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
)

// Applied is a configuration that is in force.
type Applied struct {
	// Mark is 0: packets have no marks here.
	Mark uint32
	// Warnings tell what the host could not do and was done without.
	Warnings []error
	// Covered are the routes that were left out: none.
	Covered []Route
	// ValidMark is false: it is of Linux.
	ValidMark bool

	link      string
	addresses []netip.Prefix // that were added
	networks  []netip.Prefix // of addresses, that were added
	routes    []netip.Prefix // further ones, that were added
}

// Apply configures a link by ifconfig(8) and route(8). It is all or nothing.
func Apply(ctx context.Context, c L3) (*Applied, error) {
	p, err := plainOf(&c)
	if err != nil {
		return nil, err
	}
	a := &Applied{link: c.Link}
	back := func(err error) (*Applied, error) { return nil, errors.Join(err, a.Remove()) }
	have := addressesOf(c.Link)
	for i, cmd := range p.addresses {
		if slices.Contains(have, c.Addresses[i].Addr()) {
			continue // it is left alone
		}
		if err := run(ctx, cmd); err != nil {
			return back(err)
		}
		a.addresses = append(a.addresses, c.Addresses[i])
	}
	for _, cmd := range p.device {
		if err := run(ctx, cmd); err != nil {
			return back(err)
		}
	}
	if a.networks, err = addRoutes(ctx, c.Link, p.networks); err != nil {
		return back(err)
	}
	if a.routes, err = addRoutes(ctx, c.Link, p.routes); err != nil {
		return back(err)
	}
	return a, nil
}

// addRoutes returns those that were added, also where one fails. One that is there already is left alone.
func addRoutes(ctx context.Context, link string, routes []netip.Prefix) (added []netip.Prefix, err error) {
	for _, r := range routes {
		switch err := run(ctx, routeCommand("add", link, r)); {
		case err == nil:
			added = append(added, r)
		case !strings.Contains(err.Error(), "File exists"):
			return added, err
		}
	}
	return added, nil
}

func addressesOf(link string) (list []netip.Addr) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return nil
	}
	all, _ := i.Addrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, p.Addr().WithZone(""))
		}
	}
	return list
}

// run runs a command. What it says is in the error.
func run(ctx context.Context, c command) error {
	out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		err = errors.New(text)
	}
	return &OpError{Op: "run", Item: c.String(), Err: err, Hint: "run as root"}
}

// Remove takes back what was added. What is gone already, as with the link itself, is no error.
func (a *Applied) Remove() error {
	if _, err := net.InterfaceByName(a.link); err != nil {
		return nil
	}
	var errs []error
	for _, list := range [][]netip.Prefix{a.routes, a.networks} {
		for _, r := range slices.Backward(list) {
			errs = append(errs, dropRoute(a.link, r))
		}
	}
	for _, x := range slices.Backward(a.addresses) {
		if slices.Contains(addressesOf(a.link), x.Addr()) {
			errs = append(errs, run(context.Background(), dropAddressCommand(a.link, x)))
		}
	}
	a.routes, a.networks, a.addresses = nil, nil, nil
	return errors.Join(errs...)
}

func dropRoute(link string, r netip.Prefix) error {
	err := run(context.Background(), routeCommand("delete", link, r))
	if err != nil && strings.Contains(err.Error(), "not in table") {
		return nil
	}
	return err
}

// RemoveRoutes takes back routes of those that were added. The network of an address stays with it.
func (a *Applied) RemoveRoutes(routes []Route) error {
	var errs []error
	for _, r := range routes {
		if i := slices.Index(a.routes, r.Prefix.Masked()); i >= 0 {
			errs = append(errs, dropRoute(a.link, a.routes[i]))
			a.routes = slices.Delete(a.routes, i, i+1)
		}
	}
	return errors.Join(errs...)
}

// FollowAddresses does nothing: nothing here knows the link's addresses.
func (a *Applied) FollowAddresses() error { return nil }

// Standing reports whether a link has all its addresses. Its routes are not looked at.
func Standing(c L3) (bool, error) {
	have := addressesOf(c.Link)
	return !slices.ContainsFunc(c.Addresses, func(a netip.Prefix) bool { return !slices.Contains(have, a.Addr()) }), nil
}

// AutoMTU returns the MTU for a tunnel over Ethernet: the MTU of routes is not looked up.
func AutoMTU(_ context.Context, _, _ string, _ uint32, overhead int, _ []netip.Addr) (int, error) {
	return ethernetMTU - overhead, nil
}

// LinkIndex returns the index of a device. There are no namespaces.
func LinkIndex(namespace, name string) (int, error) {
	if namespace != "" {
		return 0, &OpError{Op: "find link", Item: name, Err: errNeedsLinux}
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, &OpError{Op: "find link", Item: name, Err: err}
	}
	return i.Index, nil
}

// In runs f. There are no namespaces to enter.
func In(namespace string, f func() error) error {
	if namespace != "" {
		return &OpError{Op: "enter the network namespace", Item: namespace, Err: errNeedsLinux}
	}
	return f()
}

// RouteTo is not known here.
func RouteTo(to netip.Addr, _ uint32) (link string, source netip.Addr, mtu int, err error) {
	return "", netip.Addr{}, 0, &OpError{Op: "look up the route to", Item: to.String(), Err: errNeedsLinux}
}
