package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"culvert/setup"
)

// l3 is what is in force of a link's addresses, routes and MTU. It keeps what must change separately apart, so
// that a change leaves everything else in place: the link stays up, sessions go on.
type l3 struct {
	apply     func(context.Context, setup.L3) (applied, error)
	standing  func(setup.L3) (bool, error) // nil where that cannot be told
	warnf     func(format string, args ...any)
	namespace string // file of the network namespace the link is in; "" stands for the daemon's

	have    setup.L3 // the state in force
	base    *applied // the link is up
	mtu     *applied
	addrs   map[netip.Prefix]*applied
	routes  map[setup.Route]*applied // of all but those of policy: which application added it
	covered map[setup.Route]bool     // those of them that were left out, as one of the link's networks leads there
	policy  *applied                 // default routes with a table of their own
	inherit func(context.Context, setup.L3, bool) (applied, error)
}

func isPolicy(r setup.Route) bool { return r.Prefix.Bits() == 0 && r.Table == 0 }

// splitRoutes tells routes of policy from the others, without repetitions.
func splitRoutes(rs []setup.Route) (plain, policy []setup.Route) {
	seen := make(map[setup.Route]bool, len(rs))
	for _, r := range rs {
		if seen[r] {
			continue
		}
		seen[r] = true
		if isPolicy(r) {
			policy = append(policy, r)
		} else {
			plain = append(plain, r)
		}
	}
	return plain, policy
}

// up sets the link up, with nothing on it yet.
func (s *l3) up(ctx context.Context, link string) error {
	s.have = setup.L3{Link: link}
	s.addrs, s.routes, s.covered = make(map[netip.Prefix]*applied), make(map[setup.Route]*applied), make(map[setup.Route]bool)
	var err error
	s.base, err = s.add(ctx, s.have)
	return err
}

// set makes want the state in force. Where a step fails it goes back to the state before.
func (s *l3) set(ctx context.Context, want setup.L3) error {
	before := s.have
	if err := s.change(ctx, want); err != nil {
		// The context may be what ended it; going back must not end with it.
		return errors.Join(err, s.change(context.WithoutCancel(ctx), before))
	}
	return nil
}

// isStanding reports whether the link has lost nothing: it may have been told of because it was down, or because it is not known whether it was.
func (s *l3) isStanding() bool {
	if s.standing == nil {
		return false
	}
	c := setup.L3{Link: s.have.Link, Namespace: s.namespace, Addresses: s.have.Addresses}
	for _, r := range s.have.Routes {
		if !s.covered[r] {
			c.Routes = append(c.Routes, r)
		}
	}
	ok, err := s.standing(c)
	return ok && err == nil
}

// restore sets everything in force anew, for a link that was down and lost some of it. setMark is as in [setup.L3].
func (s *l3) restore(ctx context.Context, setMark func(uint32) error) error {
	want := s.have
	want.SetMark = setMark
	bare := setup.L3{Link: want.Link, MTU: want.MTU, Mark: want.Mark, SetMark: setMark}
	return errors.Join(s.change(ctx, bare), s.change(ctx, want))
}

// change goes from the state in force to another. What stays is in force at every moment: what comes is added before what goes is taken
// away, and while an address goes, a stand-in leads its network into the link.
func (s *l3) change(ctx context.Context, want setup.L3) (err error) {
	if s.have.MTU != want.MTU && want.MTU != 0 {
		if err := s.setMTU(ctx, want.MTU); err != nil {
			return err
		}
	}
	var arrive, leave []netip.Prefix
	for _, p := range want.Addresses {
		if s.addrs[p] == nil {
			arrive = append(arrive, p)
		}
	}
	for _, p := range s.have.Addresses {
		if !slices.Contains(want.Addresses, p) {
			leave = append(leave, p)
		}
	}
	for _, p := range arrive {
		if err := s.addAddress(ctx, p); err != nil {
			return err
		}
	}
	standIn, err := s.standIn(ctx, leave)
	if err != nil { // packets may be lost then, and nothing else
		s.warnf("%v", err)
	}
	defer func() { err = errors.Join(err, removeAll([]*applied{standIn})) }()
	for _, p := range leave {
		if err := s.removeAddress(p); err != nil {
			return err
		}
	}
	// With the last IPv4 address of a link the kernel takes its IPv4 routes (fib_disable_ip).
	lost := len(leave) > 0 && slices.ContainsFunc(leave, isIPv4) && !slices.ContainsFunc(want.Addresses, isIPv4)
	if err := s.changeRoutes(ctx, want, arrive, leave, lost); err != nil {
		return err
	}
	return s.changePolicy(ctx, want, len(arrive)+len(leave) > 0, lost)
}

func isIPv4(p netip.Prefix) bool { return p.Addr().Is4() }

func (s *l3) addAddress(ctx context.Context, p netip.Prefix) error {
	a, err := s.add(ctx, setup.L3{Link: s.have.Link, Addresses: []netip.Prefix{p}})
	if err != nil {
		return err
	}
	s.addrs[p] = a
	s.have.Addresses = append(slices.Clone(s.have.Addresses), p)
	return nil
}

func (s *l3) removeAddress(p netip.Prefix) error {
	a := s.addrs[p]
	delete(s.addrs, p)
	s.have.Addresses = slices.DeleteFunc(slices.Clone(s.have.Addresses), func(q netip.Prefix) bool { return p == q })
	return a.remove()
}

// standIn leads the networks of addresses that go into the link until it is removed; nil where they have none.
func (s *l3) standIn(ctx context.Context, addresses []netip.Prefix) (*applied, error) {
	var routes []setup.Route
	for _, p := range addresses {
		r := setup.Route{Prefix: p.Masked(), Metric: setup.StandInMetric}
		if !p.IsSingleIP() && !slices.Contains(routes, r) {
			routes = append(routes, r)
		}
	}
	if len(routes) == 0 {
		return nil, nil
	}
	return s.add(ctx, setup.L3{Link: s.have.Link, Routes: routes})
}

func (s *l3) setMTU(ctx context.Context, mtu int) error {
	a, err := s.add(ctx, setup.L3{Link: s.have.Link, MTU: mtu})
	if err != nil {
		return err
	}
	if s.mtu == nil { // the first holds what to go back to
		s.mtu = a
	}
	s.have.MTU = mtu
	return nil
}

// changeRoutes brings the plain routes about. arrive and leave are the addresses that have changed; lost, that all IPv4 routes are gone.
func (s *l3) changeRoutes(ctx context.Context, want setup.L3, arrive, leave []netip.Prefix, lost bool) error {
	have, _ := splitRoutes(s.have.Routes)
	plain, _ := splitRoutes(want.Routes)
	there, wanted := setOf(have), setOf(plain)
	var again []setup.Route
	for _, r := range have {
		// A route that was left out may be needed now.
		if lost && isIPv4(r.Prefix) || s.covered[r] && anyContains(leave, r.Prefix) {
			again = append(again, r)
			delete(there, r)
		}
	}
	if err := s.dropRoutes(again); err != nil {
		return err
	}
	var missing []setup.Route
	uncounted := make([]netip.Prefix, 0, len(have))
	for _, r := range plain {
		if !there[r] {
			missing = append(missing, r)
		}
	}
	for r := range there {
		uncounted = append(uncounted, r.Prefix)
	}
	if len(missing) > 0 {
		a, err := s.add(ctx, setup.L3{Link: want.Link, Routes: missing, Uncounted: uncounted, Endpoints: want.Endpoints})
		if err != nil {
			return err
		}
		for _, r := range missing {
			s.routes[r] = a
		}
		for _, r := range a.covered {
			s.covered[r] = true
		}
		s.have.Routes = append(slices.Clone(s.have.Routes), missing...)
	}
	var gone []setup.Route
	for _, r := range have {
		if there[r] && !wanted[r] {
			gone = append(gone, r)
		}
	}
	if err := s.dropRoutes(gone); err != nil {
		return err
	}
	return s.coverRoutes(arrive)
}

// dropRoutes takes plain routes away.
func (s *l3) dropRoutes(routes []setup.Route) error {
	if len(routes) == 0 {
		return nil
	}
	gone := setOf(routes)
	s.have.Routes = slices.DeleteFunc(slices.Clone(s.have.Routes), func(r setup.Route) bool { return gone[r] })
	of := make(map[*applied][]setup.Route)
	var order []*applied
	for _, r := range routes {
		a := s.routes[r]
		if of[a] == nil {
			order = append(order, a)
		}
		of[a] = append(of[a], r)
		delete(s.routes, r)
		delete(s.covered, r)
	}
	used := make(map[*applied]bool)
	for _, a := range s.routes {
		used[a] = true
	}
	var errs []error
	for _, a := range order {
		if used[a] {
			errs = append(errs, a.removeRoutes(of[a]))
		} else {
			errs = append(errs, a.remove())
		}
	}
	return errors.Join(errs...)
}

// coverRoutes takes away the routes that networks of new addresses cover, as if the addresses had always been there.
func (s *l3) coverRoutes(arrive []netip.Prefix) error {
	of := make(map[*applied][]setup.Route)
	for r, a := range s.routes {
		if r.Table == 0 && !s.covered[r] && anyContains(arrive, r.Prefix) {
			s.covered[r] = true
			of[a] = append(of[a], r)
		}
	}
	var errs []error
	for a, routes := range of {
		errs = append(errs, a.removeRoutes(routes))
	}
	return errors.Join(errs...)
}

// anyContains reports whether all of p is in the network of one of the addresses.
func anyContains(addresses []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(addresses, func(a netip.Prefix) bool { return a.Bits() <= p.Bits() && a.Contains(p.Addr()) })
}

func setOf(rs []setup.Route) map[setup.Route]bool {
	set := make(map[setup.Route]bool, len(rs))
	for _, r := range rs {
		set[r] = true
	}
	return set
}

// changePolicy brings the policy for default routes about. It knows the link's addresses, and follows where they have changed.
func (s *l3) changePolicy(ctx context.Context, want setup.L3, addresses, lost bool) error {
	plain, have := splitRoutes(s.have.Routes)
	_, policy := splitRoutes(want.Routes)
	lost = lost && slices.ContainsFunc(have, func(r setup.Route) bool { return isIPv4(r.Prefix) })
	if !lost && slices.Equal(have, policy) && (len(policy) == 0 || s.have.Mark == want.Mark) {
		s.have.Mark = want.Mark
		if s.policy != nil && addresses {
			return s.policy.followAddresses()
		}
		return nil
	}
	if s.policy != nil {
		a := s.policy
		s.policy, s.have.Routes = nil, plain
		if err := a.remove(); err != nil {
			return err
		}
	}
	if len(policy) > 0 {
		a, err := s.add(ctx, setup.L3{Link: want.Link, Routes: policy, Mark: want.Mark, SetMark: want.SetMark})
		if err != nil {
			return err
		}
		s.policy = a
		s.have.Routes = append(slices.Clone(plain), policy...)
	}
	s.have.Mark, s.have.SetMark = want.Mark, want.SetMark
	return nil
}

func (s *l3) add(ctx context.Context, c setup.L3) (*applied, error) {
	c.Namespace = s.namespace
	a, err := s.apply(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, w := range a.warnings {
		s.warnf("%v", w)
	}
	return &a, nil
}

// remove takes everything away, the last first.
func (s *l3) remove() error {
	var all []*applied
	all = append(all, s.base, s.mtu)
	for _, p := range s.have.Addresses {
		all = append(all, s.addrs[p])
	}
	seen := make(map[*applied]bool)
	for _, a := range s.routes {
		if !seen[a] {
			seen[a] = true
			all = append(all, a)
		}
	}
	all = append(all, s.policy)
	s.base, s.mtu, s.policy = nil, nil, nil
	clear(s.addrs)
	clear(s.routes)
	clear(s.covered)
	s.have = setup.L3{}
	return removeAll(all)
}

func removeAll(list []*applied) error {
	var errs []error
	for _, a := range slices.Backward(list) {
		if a != nil {
			errs = append(errs, a.remove())
		}
	}
	return errors.Join(errs...)
}
