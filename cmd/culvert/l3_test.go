package main

import (
	"context"
	"net/netip"
	"testing"

	"culvert/setup"
)

// A route that is asked for twice is one: it is there once, put back once, and taken away once.
func TestRouteAskedForTwice(t *testing.T) {
	there := make(map[setup.Route]int)
	s := l3{warnf: t.Logf, apply: func(_ context.Context, c setup.L3) (applied, error) {
		left := make(map[setup.Route]bool)
		for _, r := range c.Routes {
			there[r]++
			left[r] = true
		}
		removeRoutes := func(routes []setup.Route) error {
			for _, r := range routes {
				if left[r] {
					there[r]--
					delete(left, r)
				}
			}
			return nil
		}
		return applied{
			remove: func() error {
				for r := range left {
					there[r]--
				}
				clear(left)
				return nil
			},
			removeRoutes:    removeRoutes,
			followAddresses: func() error { return nil },
		}, nil
	}}
	ctx := t.Context()
	r := setup.Route{Prefix: netip.MustParsePrefix("10.8.0.0/24")}
	address := netip.MustParsePrefix("10.9.0.1/24")
	if err := s.up(ctx, "wg0"); err != nil {
		t.Fatal(err)
	}
	is := func(want int, when string) {
		t.Helper()
		if there[r] != want {
			t.Errorf("%s: the route is there %d times", when, there[r])
		}
	}
	want := setup.L3{Link: "wg0", Addresses: []netip.Prefix{address}, Routes: []setup.Route{r, r}}
	if err := s.set(ctx, want); err != nil {
		t.Fatal(err)
	}
	is(1, "set")
	if err := s.restore(ctx, nil); err != nil {
		t.Fatal(err)
	}
	is(1, "restored")
	want.Routes = nil
	if err := s.set(ctx, want); err != nil {
		t.Fatal(err)
	}
	is(0, "taken out")
}
