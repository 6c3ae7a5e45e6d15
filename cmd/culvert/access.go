package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/setup/spec"
	"culvert/tunnel/access"
)

// policyOf is what a peer may do, as the engine takes it; of is whom it is kept from where it is.
func policyOf(p *config.Peer, of *apart) (*access.Policy, error) {
	a := p.Access
	if a == nil && !p.Apart {
		return access.Unrestricted, nil
	}
	if a == nil {
		a = &config.Access{}
	}
	s := access.Spec{
		Default: access.Allow, FromPeer: access.Rate(a.Limit.FromPeer), ToPeer: access.Rate(a.Limit.ToPeer), Expires: a.Expires,
	}
	if a.Default == "deny" {
		s.Default = access.Deny
	}
	for _, r := range a.Rules {
		s.Rules = append(s.Rules, rulesOf(&r)...)
	}
	fail := func(err error) (*access.Policy, error) {
		return nil, placed(config.Position(a.Origin), fmt.Errorf("peer %s: %w", p.Name, err))
	}
	var err error
	if p.Apart {
		if of.err != nil {
			return fail(of.err)
		}
		s.Apart = of.region
	}
	if q := a.Quota; q != nil {
		s.Quota = access.Quota{Bytes: q.Bytes, Every: periodOf(q.Every)}
		if s.Quota.Zone, err = time.LoadLocation(q.Zone); err != nil {
			return fail(err)
		}
	}
	for _, w := range a.Schedule {
		window := access.Window{From: w.From, To: 24 * time.Hour}
		if w.To != nil {
			window.To = *w.To
		}
		for _, d := range w.Days {
			window.Days[config.Weekday(d)] = true
		}
		if len(w.Days) == 0 {
			window.Days = [7]bool{true, true, true, true, true, true, true}
		}
		if window.Zone, err = time.LoadLocation(w.Zone); err != nil {
			return fail(err)
		}
		s.Schedule = append(s.Schedule, window)
	}
	policy, err := access.Compile(s)
	if err != nil {
		return fail(err)
	}
	return policy, nil
}

func periodOf(every string) access.Period {
	for _, p := range []access.Period{access.Day, access.Week, access.Month} {
		if p.String() == every {
			return p
		}
	}
	return access.Total
}

// rulesOf are the rules that one of a file stands for: one in each direction it is about.
func rulesOf(r *config.AccessRule) (out []access.Rule) {
	rule, m := access.Rule{Action: access.Allow}, r.Allow
	if m == nil {
		rule.Action, m = access.Deny, r.Deny
	}
	for _, p := range m.Protocols {
		if p == 58 { // which over IPv6 is what 1 is over IPv4
			p = access.ICMP
		}
		if !slices.Contains(rule.Protocols, p) {
			rule.Protocols = append(rule.Protocols, p)
		}
	}
	for _, p := range m.Ports {
		rule.Ports = append(rule.Ports, access.Ports{First: p.First, Last: p.Last})
	}
	add := func(d access.Direction, near []netip.Prefix) {
		rule.Direction, rule.Addresses = d, nil
		if !slices.Contains(near, netip.Prefix{}) { // any
			rule.Addresses = slices.Clone(near)
		}
		out = append(out, rule)
	}
	if len(m.To) > 0 || len(m.From) == 0 {
		add(access.FromPeer, m.To)
	}
	if len(m.From) > 0 || len(m.To) == 0 {
		add(access.ToPeer, m.From)
	}
	return out
}

// accessChanges tells whose access differs between two configurations.
func accessChanges(from, to *wholeTunnel) (remarks []string) {
	known := make(map[string]*config.Peer)
	for i := range from.Peers {
		known[from.Peers[i].PublicKey.Base64()] = &from.Peers[i]
	}
	for i := range to.Peers {
		p := &to.Peers[i]
		if old := known[p.PublicKey.Base64()]; old != nil && !samePolicy(old, from.apart, p, to.apart) {
			remarks = append(remarks, fmt.Sprintf("%s: peer %s: what it may do has changed", to.Name, p.Name))
		}
	}
	return remarks
}

func samePolicy(a *config.Peer, ofA *apart, b *config.Peer, ofB *apart) bool {
	p, errP := policyOf(a, ofA)
	q, errQ := policyOf(b, ofB)
	return errP == nil && errQ == nil && p.Equal(q)
}

// accessStatusOf is a peer's access as the control protocol shows it.
func accessStatusOf(s *access.Status) *control.Access {
	if s == nil {
		return nil
	}
	counts := func(c access.Counts) control.AccessDrops {
		return control.AccessDrops{Denied: c.Denied, OverRate: c.OverRate, OverQuota: c.OverQuota, ShutOut: c.Shut}
	}
	out := &control.Access{
		Default: "allow", Rules: s.Rules, Held: s.Held, Closed: s.Closed.String(), Scheduled: s.Scheduled,
		FromPeerRate: uint64(s.FromPeer), ToPeerRate: uint64(s.ToPeer), Flows: s.Flows,
		FromPeer: counts(s.FromCounts), ToPeer: counts(s.ToCounts),
	}
	if s.Default == access.Deny {
		out.Default = "deny"
	}
	if !s.Expires.IsZero() {
		out.Expires = s.Expires.UTC()
	}
	if s.Quota != 0 {
		out.Quota = &control.Quota{Bytes: s.Quota, Every: s.Every.String(), Used: s.Used.Bytes}
		if !s.Used.Since.IsZero() {
			out.Quota.Since = s.Used.Since.UTC()
		}
	}
	return out
}

// counted is a number of things: "1 rule", "2 rules".
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// writeAccess writes a peer's access.
func writeAccess(field func(name, format string, args ...any), a *control.Access) {
	var parts []string
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case a.Held:
		say("held")
	case a.Closed != "":
		say("%s", a.Closed)
	case a.Scheduled:
		say("within its schedule")
	}
	if a.Rules > 0 || a.Default == "deny" {
		say("default %s, %s, %s", a.Default, counted(a.Rules, "rule"), counted(a.Flows, "flow"))
	}
	if a.FromPeerRate != 0 {
		say("at most %s from it", spec.BitRate(a.FromPeerRate))
	}
	if a.ToPeerRate != 0 {
		say("at most %s to it", spec.BitRate(a.ToPeerRate))
	}
	if !a.Expires.IsZero() && a.Closed != access.Expired.String() {
		say("until %s", a.Expires.Format(time.RFC3339))
	}
	if len(parts) > 0 {
		field("access", "%s", strings.Join(parts, ", "))
	}
	if q := a.Quota; q != nil {
		since := ""
		if !q.Since.IsZero() {
			since = " since " + q.Since.Format(time.RFC3339)
		}
		field("quota", "%s of %s used%s", bytesText(q.Used), bytesText(q.Bytes), since)
	}
	for _, d := range []struct {
		name  string
		drops control.AccessDrops
	}{{"refused from it", a.FromPeer}, {"refused to it", a.ToPeer}} {
		var list []string
		for _, c := range []struct {
			why string
			n   uint64
		}{{"denied by rule", d.drops.Denied}, {"over rate", d.drops.OverRate}, {"over quota", d.drops.OverQuota}, {"shut out", d.drops.ShutOut}} {
			if c.n > 0 {
				list = append(list, fmt.Sprintf("%s %d", c.why, c.n))
			}
		}
		if list != nil {
			field(d.name, "%s", strings.Join(list, ", "))
		}
	}
}

// summarizeAccess writes what a peer may do.
func summarizeAccess(line func(format string, args ...any), a *config.Access) {
	if a == nil {
		return
	}
	for i := range a.Rules {
		r := &a.Rules[i]
		verb, m := "allowed", r.Allow
		if m == nil {
			verb, m = "denied", r.Deny
		}
		line("  %s: %s", verb, matchText(m))
	}
	if len(a.Rules) > 0 || a.Default == "deny" {
		if a.Default == "deny" {
			line("  everything else is denied")
		} else {
			line("  everything else is allowed")
		}
	}
	if a.Limit.FromPeer != 0 {
		line("  at most %s from it", a.Limit.FromPeer)
	}
	if a.Limit.ToPeer != 0 {
		line("  at most %s to it", a.Limit.ToPeer)
	}
	if q := a.Quota; q != nil {
		every := "in all"
		if periodOf(q.Every) != access.Total {
			every = "a " + q.Every
		}
		line("  at most %s %s", bytesText(q.Bytes), every)
	}
	if !a.Expires.IsZero() {
		line("  until %s", a.Expires.Format(time.RFC3339))
	}
	for _, w := range a.Schedule {
		to := "24:00"
		if w.To != nil {
			to = config.ClockText(*w.To)
		}
		days, zone := "every day", "UTC"
		if len(w.Days) > 0 {
			days = strings.Join(w.Days, ", ")
		}
		if w.Zone != "" {
			zone = w.Zone
		}
		line("  %s from %s to %s, %s", days, config.ClockText(w.From), to, zone)
	}
}

func matchText(m *config.AccessMatch) string {
	if len(m.To)+len(m.From)+len(m.Protocols)+len(m.Ports) == 0 {
		return "everything"
	}
	text := strings.Join(m.ProtocolTexts(), ", ")
	if text == "" {
		text = "all"
	}
	if len(m.Ports) > 0 {
		text += " port " + joined(m.Ports)
	}
	if len(m.To) > 0 {
		text += " to " + strings.Join(config.NearTexts(m.To), ", ")
	}
	if len(m.From) > 0 {
		text += " from " + strings.Join(config.NearTexts(m.From), ", ")
	}
	return text
}
