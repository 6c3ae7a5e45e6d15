package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Policy is what a client lets its server decide. The zero value accepts addresses, MTU and keepalive alone.
type Policy struct {
	AnyRoute   bool
	Routes     []netip.Prefix // where not any: networks that a route has to lie in
	Except     []netip.Prefix // networks that are not to be reached by the tunnel: no route may overlap with one
	DNS        bool
	FullTunnel bool
	Frames     bool // the tunnel carries Ethernet frames: nothing is routed into it
}

// ErrLoop refuses a document whose addresses lie in a network that holds an endpoint of the server: what is sent there would go into
// the tunnel that it is to carry.
var ErrLoop = errors.New("the server's own endpoint lies in the network of an address it pushed")

// takes reports why a network may not be reached by the tunnel; "" where it may.
func (p *Policy) takes(n netip.Prefix) string {
	switch {
	case slices.ContainsFunc(p.Except, n.Overlaps):
		return "which is to be reached without the tunnel"
	case !p.AnyRoute && !slices.ContainsFunc(p.Routes, func(q netip.Prefix) bool { return within(n, q) }):
		return "which is not accepted"
	}
	return ""
}

// Accept returns the part of a document that the policy accepts, and in words what it leaves out. endpoints are where the server is
// reached: routes that cover one are left out, but for a full tunnel, which is kept apart from the tunnel's own datagrams by other
// means. An address whose network is not accepted is accepted by itself. With ErrLoop nothing is accepted.
func (p *Policy) Accept(d Document, endpoints []netip.Addr) (accepted Document, refused []string, err error) {
	covered := func(n netip.Prefix) bool { return slices.ContainsFunc(endpoints, n.Contains) }
	accepted = d
	accepted.Addresses, accepted.Routes = nil, nil
	for _, a := range d.Addresses {
		if covered(a.Masked()) {
			return Document{}, nil, fmt.Errorf("%w: %v", ErrLoop, a)
		}
		if why := p.takes(a.Masked()); why != "" && !a.IsSingleIP() {
			refused = append(refused, fmt.Sprintf("the network of the address %v, %s", a, why))
			a = single(a.Addr())
		}
		accepted.Addresses = append(accepted.Addresses, a)
	}
	for _, r := range d.Routes {
		switch why := p.takes(r); {
		case p.Frames:
			refused = append(refused, fmt.Sprintf("the route to %v, which a tunnel of Ethernet frames cannot have", r))
		case why != "":
			refused = append(refused, fmt.Sprintf("the route to %v, %s", r, why))
		case covered(r):
			refused = append(refused, fmt.Sprintf("the route to %v, where the server itself is reached", r))
		default:
			accepted.Routes = append(accepted.Routes, r)
		}
	}
	if !p.DNS && len(d.DNS)+len(d.Domains)+len(d.Search) > 0 {
		accepted.DNS, accepted.Domains, accepted.Search = nil, nil, nil
		refused = append(refused, "name servers and domains, which are not accepted")
	}
	if (!p.FullTunnel || p.Frames) && d.FullTunnel {
		accepted.FullTunnel = false
		refused = append(refused, "the full tunnel, which is not accepted")
	}
	return accepted, refused, nil
}
