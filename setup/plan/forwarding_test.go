package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// What the kernel changes with ip_forward is remembered before that is switched on, and set back behind it.
func TestForwarding(t *testing.T) {
	set := func(name string) model.ID { return model.SysctlID("", "net.ipv4."+name) }
	main, redirects, lo, eth := set("ip_forward"), set("conf.all.accept_redirects"), set("conf.lo.forwarding"), set("conf.eth0/5.forwarding")
	system := func(values map[model.ID]model.Value) *model.System {
		s := &model.System{Objects: map[model.ID]*model.Object{
			"link lo": {ID: "link lo", Index: 1, Fields: model.Fields{"type": ""}}, "link eth0.5": {ID: "link eth0.5", Index: 5, Fields: model.Fields{"type": ""}}}}
		for id, v := range values {
			o := &model.Object{ID: id, Fields: model.Fields{"value": v}}
			if link := s.Objects[model.LinkID(id.SettingOf())]; link != nil {
				o.Index = link.Index
			}
			s.Objects[id] = o
		}
		return s
	}
	check := func(what string, p *plan.Plan, want ...string) {
		t.Helper()
		var have []string
		for _, s := range p.Steps {
			text := fmt.Sprintf("%s %s %s>%s", s.Op, s.ID.Words()[1], s.Changes[0].Old, s.Changes[0].New)
			if s.Keep {
				text += " keep"
			}
			have = append(have, text)
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s: the steps are %q, want %q", what, have, want)
		}
	}
	item := func(id model.ID, v model.Value) model.Item {
		return model.Item{ID: id, Owner: model.OwnerExternal, Fields: model.Fields{"value": v}}
	}
	before := map[model.ID]model.Value{main: "0", redirects: "0", lo: "1", eth: "0"}
	on := map[model.ID]model.Value{main: "1", redirects: "0", lo: "1", eth: "1"}
	check("on", plan.Make(plan.Input{Items: []model.Item{item(main, "1")}, System: system(before)}),
		"change net.ipv4.conf.all.accept_redirects 0>0 keep", "change net.ipv4.conf.eth0/5.forwarding 0>1 keep",
		"change net.ipv4.conf.lo.forwarding 1>1 keep", "change net.ipv4.ip_forward 0>1")

	was := func(index int, before, after model.Value) plan.Prior {
		return plan.Prior{Where: plan.Where{Index: index}, Fields: map[model.Field]plan.FieldChange{"value": {Field: "value", Old: before, New: after}}}
	}
	known := plan.Known{Prior: map[model.ID]plan.Prior{main: was(0, "0", "1"), redirects: was(0, "0", "0"), lo: was(1, "1", "1"), eth: was(5, "0", "1")}}
	check("on already", plan.Make(plan.Input{Items: []model.Item{item(main, "1")}, System: system(on), Known: known}))
	check("off", plan.Make(plan.Input{System: system(on), Known: known}), "change net.ipv4.ip_forward 1>0",
		"change net.ipv4.conf.all.accept_redirects 0>0", "change net.ipv4.conf.eth0/5.forwarding 1>0", "change net.ipv4.conf.lo.forwarding 1>1")

	another := system(on)
	another.Objects[eth].Index = 6
	check("another device", plan.Make(plan.Input{System: another, Known: known}), "change net.ipv4.ip_forward 1>0",
		"change net.ipv4.conf.all.accept_redirects 0>0", "change net.ipv4.conf.lo.forwarding 1>1")

	// The process was killed when the first step was done.
	delete(known.Prior, main)
	off := map[model.ID]model.Value{main: "0", redirects: "1", lo: "0", eth: "0"}
	check("killed", plan.Make(plan.Input{System: system(off), Known: known}), "change net.ipv4.conf.all.accept_redirects 1>0",
		"change net.ipv4.conf.lo.forwarding 0>1")
}

// A namespace that is still to be made has no settings yet: those of its tunnels are made with it.
func TestForwardingInNewNamespace(t *testing.T) {
	s := &spec.Spec{Instance: "net", Netns: []spec.Netns{{Name: "n1"}}, Links: []spec.Link{
		{Key: "gate", Type: spec.TypeTunnel, Netns: "n1", Tun: &spec.Tun{Mode: spec.TypeTun},
			Serves: &spec.Serves{Pool: []netip.Prefix{prefix("10.20.0.0/24"), prefix("fd20::/64")}, NAT: true}},
		{Key: "vpn", Type: spec.TypeTunnel, Netns: "n1", Tun: &spec.Tun{Mode: spec.TypeTun},
			Client: &spec.Client{Full: []int{4}, Carries: []int{4}, Mark: 7, Table: 7}}}}
	if errs := s.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	p := plan.Make(plan.Input{Instance: "net", Items: model.Expand(s), Tunnels: true, System: &model.System{Objects: map[model.ID]*model.Object{}}})
	if p.HasConflict() {
		t.Fatalf("the plan is\n%s", p)
	}
	for _, name := range []string{spec.Forwarding4, spec.Forwarding6, spec.ValidMark} {
		if !slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Op == plan.Create && s.ID == model.SysctlID("n1", name) }) {
			t.Errorf("%s is not set", name)
		}
	}
}
