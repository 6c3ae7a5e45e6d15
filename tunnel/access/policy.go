package access

import (
	"fmt"
	"slices"
	"time"
)

// Spec is what a policy is made of. Its zero value denies everything; Unrestricted allows it.
type Spec struct {
	Default  Action  // where no rule fits, both directions
	Apart    *Region // of this end's side, that the peer begins nothing with, nor they with it, whatever the rules say; nil is nobody
	Rules    []Rule  // the first that fits decides
	FromPeer Rate
	ToPeer   Rate
	Quota    Quota
	Expires  time.Time // from then on the peer has no session; zero is never
	Schedule []Window  // outside all of them it has none; none is always
}

// MaxWindows is how many windows a schedule may have.
const MaxWindows = 64

// Policy is an immutable policy, ready to be asked.
type Policy struct {
	spec  Spec
	rules [directions]*rules // nil where all passes
}

// Unrestricted is the policy that asks nothing. A peer that is given it has no state of access any more.
var Unrestricted = &Policy{spec: Spec{Default: Allow}}

// Compile makes a policy. Errors wrap ErrInvalid. The spec's slices are not kept.
func Compile(spec Spec) (*Policy, error) {
	if spec.Default > Allow {
		return nil, fmt.Errorf("%w: no such default", ErrInvalid)
	}
	if max(spec.FromPeer, spec.ToPeer) > MaxRate {
		return nil, fmt.Errorf("%w: a rate of more than %d bits a second", ErrInvalid, MaxRate)
	}
	if len(spec.Schedule) > MaxWindows {
		return nil, fmt.Errorf("%w: a schedule of %d windows; at most %d are possible", ErrInvalid, len(spec.Schedule), MaxWindows)
	}
	for i := range spec.Schedule {
		if err := spec.Schedule[i].validate(); err != nil {
			return nil, err
		}
	}
	if err := spec.Quota.validate(); err != nil {
		return nil, err
	}
	p := &Policy{spec: spec}
	for d := range directions {
		var err error
		if p.rules[d], err = newRules(spec.Rules, d, spec.Default); err != nil {
			return nil, err
		}
	}
	p.spec.Rules = slices.Clone(spec.Rules)
	for i := range p.spec.Rules {
		r := &p.spec.Rules[i]
		r.Addresses, r.Except, r.Protocols, r.Ports = slices.Clone(r.Addresses), slices.Clone(r.Except), slices.Clone(r.Protocols), slices.Clone(r.Ports)
	}
	p.spec.Schedule = slices.Clone(spec.Schedule)
	return p, nil
}

// filters reports whether any packet may be denied by rules.
func (p *Policy) filters() bool {
	return p.spec.Apart != nil || p.rules[FromPeer] != nil || p.rules[ToPeer] != nil
}

// restricts reports whether the policy asks anything at all.
func (p *Policy) restricts() bool {
	return p.filters() || p.spec.FromPeer != 0 || p.spec.ToPeer != 0 || p.timed()
}

// Spec is what the policy was made of. Its slices are not to be changed.
func (p *Policy) Spec() Spec { return p.spec }

// HasQuota reports whether there is a quota in it.
func (p *Policy) HasQuota() bool { return p.spec.Quota.Bytes != 0 }

// Equal reports whether two policies are made of the same.
func (p *Policy) Equal(q *Policy) bool {
	if p == q {
		return true
	}
	a, b := &p.spec, &q.spec
	return a.Default == b.Default && a.FromPeer == b.FromPeer && a.ToPeer == b.ToPeer && a.Apart.Equal(b.Apart) &&
		a.Quota.Bytes == b.Quota.Bytes && a.Quota.Every == b.Quota.Every && sameZone(a.Quota.Zone, b.Quota.Zone) && a.Expires.Equal(b.Expires) &&
		slices.EqualFunc(a.Rules, b.Rules, func(x, y Rule) bool {
			return x.Action == y.Action && x.Direction == y.Direction && slices.Equal(x.Addresses, y.Addresses) && slices.Equal(x.Except, y.Except) &&
				slices.Equal(x.Protocols, y.Protocols) && slices.Equal(x.Ports, y.Ports)
		}) &&
		slices.EqualFunc(a.Schedule, b.Schedule, func(x, y Window) bool {
			return x.Days == y.Days && x.From == y.From && x.To == y.To && sameZone(x.Zone, y.Zone)
		})
}

func sameZone(a, b *time.Location) bool {
	name := func(l *time.Location) string {
		if l == nil {
			return "UTC"
		}
		return l.String()
	}
	return name(a) == name(b)
}
