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
	warnf     func(format string, args ...any)
	namespace string // file of the network namespace the link is in; "" stands for the daemon's

	have   setup.L3 // the state in force
	base   *applied // the link is up
	mtu    *applied
	addrs  map[netip.Prefix]*applied
	routes []*applied // all but those of policy
	policy *applied   // default routes with a table of their own
}

func isPolicy(r setup.Route) bool { return r.Prefix.Bits() == 0 && r.Table == 0 }

func splitRoutes(rs []setup.Route) (plain, policy []setup.Route) {
	for _, r := range rs {
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
	s.addrs = make(map[netip.Prefix]*applied)
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

// restore sets everything in force anew, for a link that was down and lost some of it. setMark is as in [setup.L3].
func (s *l3) restore(ctx context.Context, setMark func(uint32) error) error {
	want := s.have
	want.SetMark = setMark
	bare := setup.L3{Link: want.Link, MTU: want.MTU, Mark: want.Mark, SetMark: setMark}
	return errors.Join(s.change(ctx, bare), s.change(ctx, want))
}

func (s *l3) change(ctx context.Context, want setup.L3) error {
	if s.have.MTU != want.MTU && want.MTU != 0 {
		if err := s.setMTU(ctx, want.MTU); err != nil {
			return err
		}
	}
	addrsChanged := false
	for _, p := range want.Addresses {
		if s.addrs[p] != nil {
			continue
		}
		a, err := s.add(ctx, setup.L3{Link: want.Link, Addresses: []netip.Prefix{p}})
		if err != nil {
			return err
		}
		s.addrs[p] = a
		s.have.Addresses = append(slices.Clone(s.have.Addresses), p)
		addrsChanged = true
	}
	for p, a := range s.addrs {
		if slices.Contains(want.Addresses, p) {
			continue
		}
		delete(s.addrs, p)
		s.have.Addresses = slices.DeleteFunc(slices.Clone(s.have.Addresses), func(q netip.Prefix) bool { return p == q })
		addrsChanged = true
		if err := a.remove(); err != nil {
			return err
		}
	}
	if err := s.changeRoutes(ctx, want, addrsChanged); err != nil {
		return err
	}
	return s.changePolicy(ctx, want, addrsChanged)
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

// changeRoutes brings the plain routes about. New ones alone are added to the others. Where some go, or addresses whose
// own routes may have stood in for some, all are set anew: a route left out as covered by another may be needed now.
func (s *l3) changeRoutes(ctx context.Context, want setup.L3, anew bool) error {
	have, havePolicy := splitRoutes(s.have.Routes)
	plain, _ := splitRoutes(want.Routes)
	wanted := setOf(plain)
	for _, r := range have {
		anew = anew || !wanted[r]
	}
	if anew {
		old := s.routes
		s.routes, s.have.Routes, have = nil, slices.Clone(havePolicy), nil
		if err := removeAll(old); err != nil {
			return err
		}
	}
	var missing []setup.Route
	there := setOf(have)
	for _, r := range plain {
		if !there[r] {
			missing = append(missing, r)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	a, err := s.add(ctx, setup.L3{Link: want.Link, Routes: missing, Endpoints: want.Endpoints})
	if err != nil {
		return err
	}
	s.routes = append(s.routes, a)
	s.have.Routes = append(slices.Clone(s.have.Routes), missing...)
	return nil
}

func setOf(rs []setup.Route) map[setup.Route]bool {
	set := make(map[setup.Route]bool, len(rs))
	for _, r := range rs {
		set[r] = true
	}
	return set
}

// changePolicy brings the policy for default routes about. It knows the link's addresses, so it is set anew with them.
func (s *l3) changePolicy(ctx context.Context, want setup.L3, anew bool) error {
	plain, have := splitRoutes(s.have.Routes)
	_, policy := splitRoutes(want.Routes)
	if !anew && slices.Equal(have, policy) && (len(policy) == 0 || s.have.Mark == want.Mark) {
		s.have.Mark = want.Mark
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
	all = append(all, s.routes...)
	all = append(all, s.policy)
	s.base, s.mtu, s.routes, s.policy = nil, nil, nil, nil
	clear(s.addrs)
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
