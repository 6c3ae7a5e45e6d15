package plan_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/internal/golden"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// read returns all of a kernel's namespaces.
func read(t testing.TB, k *kerneltest.Kernel, s *spec.Spec) *model.System {
	t.Helper()
	scope := model.Scope{Netns: []string{""}}
	for _, n := range s.Netns {
		scope.Netns = append(scope.Netns, n.Name)
	}
	for _, i := range model.Expand(s) {
		if k := i.ID.Kind(); k == model.KindProcess || k == model.KindHandover {
			scope.Processes = append(scope.Processes, i.ID)
		}
	}
	sys, err := k.Read(context.Background(), scope)
	if err != nil {
		t.Fatal(err)
	}
	return sys
}

func makePlan(t testing.TB, k *kerneltest.Kernel, s *spec.Spec, known plan.Known) *plan.Plan {
	t.Helper()
	if errs := s.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	return plan.Make(plan.Input{Instance: s.Instance, Items: model.Expand(s), System: read(t, k, s), Known: known})
}

// do carries a plan out, and returns what a journal would know.
func do(t testing.TB, k *kerneltest.Kernel, p *plan.Plan) plan.Known {
	t.Helper()
	known := plan.Known{Own: map[model.ID]plan.Where{}}
	for i := range p.Steps {
		if _, err := k.Do(context.Background(), &p.Steps[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range p.Steps {
		if o := k.Objects[p.Steps[i].ID]; o != nil && p.Steps[i].Op == plan.Create {
			known.Own[o.ID] = plan.Where{Index: o.Index, Inode: o.Inode}
		}
	}
	return known
}

func at(line int, path string) spec.Place {
	return spec.Place{Origin: spec.Origin{File: "net.yaml", Line: line, Column: 3}, Path: path}
}

func world() *kerneltest.Kernel {
	k := kerneltest.New()
	for _, n := range []model.Ref{"eth0", "eth1", "p1", "p2"} {
		k.AddLink(n, "ether", nil)
	}
	return k
}

// basis is what most of the cases change.
func basis() *spec.Spec {
	return &spec.Spec{Instance: "net", Netns: []spec.Netns{{Place: at(1, "netns.net1"), Name: "net1"}}, Links: []spec.Link{
		{Place: at(2, "links.eth0"), Key: "eth0", External: true},
		{Place: at(3, "links.eth1"), Key: "eth1", External: true},
		{Place: at(4, "links.br0"), Key: "br0", Type: spec.TypeBridge, MTU: 1500, Ports: []spec.Port{{Place: at(5, "links.br0.ports.eth0"), Link: "eth0"}},
			Addresses: []spec.Address{{Place: at(6, "links.br0.addresses[0]"), Prefix: prefix("10.0.0.1/24")}}},
		{Place: at(7, "links.mv0"), Key: "mv0", Type: spec.TypeMacvlan, Netns: "net1", Stack: &spec.Stack{Parent: "eth1", Mode: "bridge"}},
		{Place: at(8, "links.ifb9"), Key: "ifb9", Type: spec.TypeIfb},
		{Place: at(9, "links.va"), Key: "va", Type: spec.TypeVeth, Veth: &spec.Veth{Peer: spec.Peer{Place: at(9, "links.va.peer"), Key: "vb", Netns: "net1"}}},
		{Place: at(10, "links.bond0"), Key: "bond0", Type: spec.TypeBond, Bond: &spec.Bond{Mode: "active-backup", MIIMon: new(100 * time.Millisecond)}},
	}, Shaping: []spec.Shaping{{Place: at(20, "shaping[0]"), Source: "eth1", IngressTo: "ifb9", Qdisc: &spec.Qdisc{SFQ: &spec.SFQ{Perturb: new(10 * time.Second)}}}}}
}

func stepText(p *plan.Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%3d %s %s", s.N, s.Op, s.ID)
		for _, c := range s.Changes {
			fmt.Fprintf(&b, " %s=%s", c.Field, c.New)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestText(t *testing.T) {
	type change func(s *spec.Spec, k *kerneltest.Kernel)
	for name, c := range map[string]struct {
		fresh  bool // nothing has been applied before
		change change
	}{
		"create":  {true, func(*spec.Spec, *kerneltest.Kernel) {}},
		"nothing": {false, func(*spec.Spec, *kerneltest.Kernel) {}},
		"destroy": {false, func(s *spec.Spec, _ *kerneltest.Kernel) { *s = spec.Spec{Instance: "net"} }},
		"change": {false, func(s *spec.Spec, _ *kerneltest.Kernel) {
			s.Links[2].MTU = 9000
			s.Links[2].Bridge = &spec.Bridge{STP: new(true)}
			s.Links[2].Up = new(false)
			s.Links[0].MTU = 9000
			s.Links[2].Ports[0].Cost = new(uint32(100))
		}},
		"drift": {false, func(_ *spec.Spec, k *kerneltest.Kernel) {
			k.Objects["link br0"].Fields["mtu"] = "1400"
			delete(k.Objects, "address br0 10.0.0.1/24")
			delete(k.Objects, "attachment eth0")
		}},
		"parent":     {false, func(s *spec.Spec, _ *kerneltest.Kernel) { s.Links[3].Stack.Parent = "eth0"; s.Links[2].Ports = nil }},
		"passthru":   {false, func(s *spec.Spec, _ *kerneltest.Kernel) { s.Links[3].Stack.Mode = "passthru" }},
		"peer":       {false, func(s *spec.Spec, _ *kerneltest.Kernel) { s.Links[5].Veth.Peer.Key = "vc" }},
		"sfq":        {false, func(s *spec.Spec, _ *kerneltest.Kernel) { s.Shaping[0].Qdisc.SFQ.Perturb = new(5 * time.Second) }},
		"ifb":        {false, func(s *spec.Spec, _ *kerneltest.Kernel) { s.Links[4].Key = "ifb8"; s.Shaping[0].IngressTo = "ifb8" }},
		"bond-ports": {false, func(s *spec.Spec, _ *kerneltest.Kernel) { bondPorts(s, "active-backup") }},
		"bond-down":  {false, func(s *spec.Spec, _ *kerneltest.Kernel) { s.Links[6].Bond.Mode = "802.3ad" }},
		"type": {false, func(s *spec.Spec, _ *kerneltest.Kernel) {
			s.Links[6] = spec.Link{Place: at(10, "links.bond0"), Key: "bond0", Type: spec.TypeIfb}
		}},
		"conflicts": {true, func(s *spec.Spec, k *kerneltest.Kernel) {
			k.AddLink("br0", "bridge", nil)
			k.Add(model.NetnsID("net1"), nil)
			k.Objects["link ifb9"] = &model.Object{ID: "link ifb9", Group: model.Group, Alias: model.Mark{Instance: "other", ID: "link ifb9", Hash: "0123456789abcdef"}.Alias(),
				Fields: model.Fields{"type": "ifb"}}
			delete(k.Objects, "link eth1")
			k.Add(model.AttachmentID("eth0"), model.Fields{"master": "docker0"})
			s.Links = append(s.Links, spec.Link{Place: at(12, "links.office"), Key: "office", Type: spec.TypeTunnel, Tun: &spec.Tun{Mode: spec.TypeTap}})
			s.Rules = []spec.Rule{{Place: at(30, "rules[0]"), Priority: 100, Family: 4, Table: 5}}
			k.Add(model.RuleID("", "4", "100"), model.Fields{"action": "lookup", "table": "7"})
		}},
		"foreign-root": {true, func(s *spec.Spec, k *kerneltest.Kernel) {
			s.Shaping[0].Egress = &spec.Qdisc{Place: at(21, "shaping[0].egress"), TBF: &spec.TBF{Rate: 8e6, Burst: 10 << 10}}
			k.Add(model.QdiscID("eth1", "root"), model.Fields{"kind": "tbf", "handle": "8001:"})
		}},
		"foreign-within": {false, func(s *spec.Spec, k *kerneltest.Kernel) {
			k.AddLink("net1/stranger", "dummy", nil)
			k.AddLink("upper", "macvlan", model.Fields{"parent": "br0"})
			*s = spec.Spec{Instance: "net", Netns: []spec.Netns{{Name: "net1"}}}
			s.Netns = nil
		}},
		"foreign-above": {false, func(s *spec.Spec, k *kerneltest.Kernel) {
			k.AddLink("upper", "macvlan", model.Fields{"parent": "bond0"})
			s.Links[6] = spec.Link{Place: at(10, "links.bond0"), Key: "bond0", Type: spec.TypeIfb}
		}},
		"would-lose": {false, func(s *spec.Spec, k *kerneltest.Kernel) {
			bondPorts(s, "active-backup")
			k.Add(model.AddressID("p1", "2001:db8::1/64"), nil)
		}},
		"lost-and-made": {false, func(s *spec.Spec, k *kerneltest.Kernel) {
			s.Links[6].Bond.Mode = "802.3ad"
			s.Links[6].Bond.LACPRate = "fast"
			s.Links[6].Addresses = []spec.Address{{Prefix: prefix("fd00::1/64")}}
			k.Add(model.AddressID("bond0", "fd00::1/64"), nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k, s := world(), basis()
			var known plan.Known
			if !c.fresh {
				known = do(t, k, makePlan(t, k, s, known))
			}
			full := basis()
			c.change(s, k)
			if errs := s.Validate(); len(errs) > 0 {
				t.Fatal(errs)
			}
			full.Netns = append(full.Netns, s.Netns...)
			p := plan.Make(plan.Input{Instance: "net", Items: model.Expand(s), System: read(t, k, full), Known: known})
			golden.Check(t, "testdata/"+name+".txt", p.String()+"\n"+stepText(p))
			if p.HasConflict() {
				return
			}
			do(t, k, p)
			for _, f := range k.Faults {
				t.Error(f)
			}
		})
	}
}

func bondPorts(s *spec.Spec, mode string) {
	s.Links = append(s.Links, spec.Link{Place: at(11, "links.p1"), Key: "p1", External: true}, spec.Link{Place: at(12, "links.p2"), Key: "p2", External: true})
	b := &s.Links[6]
	b.Bond.Mode, b.Bond.Primary = mode, "p1"
	b.Ports = []spec.Port{{Place: at(13, "links.bond0.ports.p1"), Link: "p1"}, {Place: at(14, "links.bond0.ports.p2"), Link: "p2"}}
}

// TestJSON holds the form that programs read.
func TestJSON(t *testing.T) {
	k, s := world(), basis()
	known := do(t, k, makePlan(t, k, s, plan.Known{}))
	s.Links[2].MTU = 9000
	s.Links[3].Stack.Mode = "passthru"
	s.Links[4], s.Shaping = spec.Link{Place: at(8, "links.ifb7"), Key: "ifb7", Type: spec.TypeIfb}, nil
	p := makePlan(t, k, s, known)
	got, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/plan.json", string(got)+"\n")
	back := new(plan.Plan)
	if err := json.Unmarshal(got, back); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.MarshalIndent(back, "", "  "); string(again) != string(got) {
		t.Error("what is read back is written otherwise")
	}
}

// TestSamePlan: nothing depends on the order of maps.
func TestSamePlan(t *testing.T) {
	var first string
	for range 20 {
		k, s := world(), basis()
		bondPorts(s, "active-backup")
		p := makePlan(t, k, s, plan.Known{})
		text := p.String() + stepText(p)
		if first == "" {
			first = text
		}
		if text != first {
			t.Fatalf("first\n%s\nthen\n%s", first, text)
		}
	}
}

// large declares n devices, their addresses and attachments.
func large(n int) *spec.Spec {
	s := &spec.Spec{Instance: "net", Links: []spec.Link{{Key: "br0", Type: spec.TypeBridge}}}
	for i := range n / 4 {
		ns := fmt.Sprint("net", i)
		s.Netns = append(s.Netns, spec.Netns{Name: ns})
		a, b, tap := fmt.Sprint("va", i), fmt.Sprint("vb", i), fmt.Sprint("tap", i)
		s.Links = append(s.Links,
			spec.Link{Key: a, Type: spec.TypeVeth, Veth: &spec.Veth{Peer: spec.Peer{Key: b, Netns: ns,
				Addresses: []spec.Address{{Prefix: prefix(fmt.Sprintf("10.%d.%d.2/24", i/250, i%250))}}}}},
			spec.Link{Key: tap, Type: spec.TypeTap},
			spec.Link{Key: fmt.Sprint("mv", i), Type: spec.TypeMacvlan, Netns: ns, Stack: &spec.Stack{Parent: "br0", Mode: "bridge"}})
		s.Links[0].Ports = append(s.Links[0].Ports, spec.Port{Link: a}, spec.Port{Link: tap})
	}
	return s
}

// TestCostIsLinear counts, not times: the allocations of a plan for four times as many devices are about four times as many.
func TestCostIsLinear(t *testing.T) {
	cost := func(n int) float64 {
		s := large(n)
		k := kerneltest.New()
		items, sys := model.Expand(s), read(t, k, s)
		return testing.AllocsPerRun(1, func() { plan.Make(plan.Input{Instance: "net", Items: items, System: sys}) })
	}
	few, many := cost(1000), cost(4000)
	if ratio := many / few; ratio > 5 {
		t.Errorf("%.0f allocations for 1,000 devices, %.0f for 4,000: %.1f times as many", few, many, ratio)
	}
	begin := time.Now()
	cost(1000)
	if took := time.Since(begin); took > 2*time.Second { // two plans and what they are made from
		t.Errorf("1,000 devices took %v", took)
	}
}

func BenchmarkMake(b *testing.B) {
	for _, n := range []int{250, 1000, 4000} {
		s := large(n)
		items, k := model.Expand(s), kerneltest.New()
		sys := read(b, k, s)
		full := kerneltest.New()
		known := do(b, full, plan.Make(plan.Input{Instance: "net", Items: items, System: sys}))
		there := read(b, full, s)
		b.Run(fmt.Sprint("create-", n), func(b *testing.B) {
			for b.Loop() {
				plan.Make(plan.Input{Instance: "net", Items: items, System: sys})
			}
		})
		b.Run(fmt.Sprint("nothing-", n), func(b *testing.B) {
			for b.Loop() {
				if p := plan.Make(plan.Input{Instance: "net", Items: items, System: there, Known: known}); !p.IsEmpty() {
					b.Fatal(p)
				}
			}
		})
		b.Run(fmt.Sprint("destroy-", n), func(b *testing.B) {
			for b.Loop() {
				plan.Make(plan.Input{Instance: "net", System: there, Known: known})
			}
		})
	}
}

func TestSummary(t *testing.T) {
	p := &plan.Plan{Entries: []plan.Entry{{Verdict: plan.WillCreate}, {Verdict: plan.WillCreate}, {Verdict: plan.WillDelete}, {Verdict: plan.InConflict}}}
	if got, want := p.Summary(), "2 to create, 1 to delete, 1 in conflict"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (&plan.Plan{}).Summary(); got != "nothing to do" {
		t.Error(got)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
