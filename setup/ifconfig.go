package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// On systems that are not Linux a link is configured by ifconfig(8) and route(8), which darwin and the BSDs have alike as far as this goes.

// A command is a program and its arguments.
type command []string

func (c command) String() string { return strings.Join(c, " ") }

// plain is how a link is configured without namespaces, tables and marks: what makes it so, in order, and what takes it back.
type plain struct {
	addresses []command      // one for each address, in order
	device    []command      // MTU, up
	networks  []netip.Prefix // of the addresses
	routes    []netip.Prefix // further ones into the link
}

// plainOf refuses what takes Linux.
func plainOf(c *L3) (p plain, err error) {
	if err := c.validate(); err != nil {
		return p, err
	}
	needs := func(item, what string) {
		err = errors.Join(err, &OpError{Op: "configure", Item: c.Link + ": " + item, Err: fmt.Errorf("%s: %w", what, errNeedsLinux)})
	}
	if c.Namespace != "" {
		needs("namespace "+c.Namespace, "network namespaces")
	}
	for _, r := range c.Routes {
		switch {
		case r.viaPolicy():
			needs("route "+r.String(), "a default route through the tunnel")
		case r.Table != 0:
			needs("route "+r.String(), "routing tables")
		}
	}
	if err != nil {
		return p, err
	}
	for _, a := range c.Addresses {
		p.addresses = append(p.addresses, addressCommand(c.Link, a))
	}
	if c.MTU != 0 {
		p.device = append(p.device, command{"ifconfig", c.Link, "mtu", fmt.Sprint(c.MTU)})
	}
	p.device = append(p.device, command{"ifconfig", c.Link, "up"})
	// A tun is a link from point to point there: its addresses lead nothing into it but themselves.
	for _, a := range c.Addresses {
		if n := a.Masked(); !a.IsSingleIP() && !slices.Contains(p.networks, n) {
			p.networks = append(p.networks, n)
		}
	}
	for _, r := range c.Routes {
		if r.Metric == StandInMetric { // stands in where routes depend on addresses, as here none does
			continue
		}
		if n := r.Prefix.Masked(); !slices.Contains(p.networks, n) && !slices.Contains(p.routes, n) {
			p.routes = append(p.routes, n)
		}
	}
	return p, nil
}

func inetOf(a netip.Addr) string {
	if a.Is4() {
		return "inet"
	}
	return "inet6"
}

func addressCommand(link string, a netip.Prefix) command {
	c := command{"ifconfig", link, inetOf(a.Addr()), a.String()}
	if a.Addr().Is4() {
		c = append(c, a.Addr().String()) // the far end's, which the link has to have
	}
	return append(c, "alias")
}

func dropAddressCommand(link string, a netip.Prefix) command {
	return command{"ifconfig", link, inetOf(a.Addr()), a.Addr().String(), "-alias"}
}

// routeCommand adds or deletes a route into a link.
func routeCommand(do, link string, r netip.Prefix) command {
	return command{"route", "-q", "-n", do, "-" + inetOf(r.Addr()), r.String(), "-interface", link}
}
