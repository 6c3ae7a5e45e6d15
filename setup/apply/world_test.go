package apply_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"culvert/setup/apply"
	"culvert/setup/journal"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/spec"
)

// foreignWorld has devices, addresses, routes, rules and queueing disciplines that are none of culvert's.
func foreignWorld() *kerneltest.Kernel {
	k := kerneltest.New()
	for i := range 4 {
		k.AddLink(model.Ref(fmt.Sprintf("eth%d", i)), "ether", nil)
	}
	k.Objects["link eth3"].Fields["up"] = "no"
	k.Add(model.NetnsID("lab0"), nil)
	k.AddLink("lab0/p0", "ether", nil)
	k.AddLink("docker0", "bridge", nil)
	k.AddLink("vethdock", "veth", model.Fields{"peer": "?"})
	k.Add(model.AttachmentID("vethdock"), model.Fields{"master": "docker0", "cost": "2"})
	k.Add(model.AddressID("eth0", "192.0.2.2/24"), nil)
	k.Add(model.AddressID("docker0", "172.17.0.1/16"), nil)
	k.Add(model.RouteID("", "254", "0.0.0.0/0", "0"), model.Fields{"type": "unicast", "gateway": "192.0.2.1", "link": "eth0"})
	k.Add(model.RuleID("", "4", "100"), model.Fields{"action": "lookup", "table": "100"})
	k.Add(model.QdiscID("eth0", "root"), model.Fields{"kind": "fq", "handle": "8001:"})
	k.Add(model.NATID("", "docker"), model.Fields{"masquerade": "eth0,172.17.0.0/16"})
	return k
}

// randomSpec declares a valid network upon foreignWorld.
func randomSpec(r *rand.Rand) *spec.Spec {
	for {
		if s := trySpec(r); len(s.Validate()) == 0 {
			return s
		}
	}
}

func coin(r *rand.Rand) bool { return r.IntN(2) == 0 }

func optional[T any](r *rand.Rand, v T) *T {
	if coin(r) {
		return nil
	}
	return &v
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func trySpec(r *rand.Rand) *spec.Spec {
	s := &spec.Spec{Instance: "test", Netns: []spec.Netns{{Name: "lab0", External: true}}}
	spaces := []string{"", "", "lab0"}
	for i := range r.IntN(3) {
		n := fmt.Sprintf("net%d", i)
		s.Netns = append(s.Netns, spec.Netns{Name: n})
		spaces = append(spaces, n)
	}
	addr := func(i int) []spec.Address {
		var out []spec.Address
		if coin(r) {
			out = append(out, spec.Address{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.1/24", i))})
		}
		if coin(r) {
			out = append(out, spec.Address{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd00:%d::1/64", i)), NoDAD: coin(r)})
		}
		return out
	}
	type end struct{ key, netns string }
	var free []end // possible ports
	for i := range 4 {
		if coin(r) {
			continue
		}
		l := spec.Link{Key: fmt.Sprintf("eth%d", i), External: true, MTU: pick(r, 0, 0, 9000), Up: pick(r, nil, nil, new(true))}
		if i != 0 {
			l.Addresses = addr(i)
		}
		s.Links = append(s.Links, l)
		if i > 1 {
			free = append(free, end{l.Key, ""})
		}
	}
	for i := range r.IntN(4) {
		netns, peer := pick(r, spaces...), pick(r, spaces...)
		a, b := fmt.Sprintf("va%d", i), fmt.Sprintf("vb%d", i)
		s.Links = append(s.Links, spec.Link{Key: a, Type: spec.TypeVeth, Netns: netns, Addresses: addr(10 + i), MTU: pick(r, 0, 1400, 9000),
			Up: pick(r, nil, new(false)), Veth: &spec.Veth{Peer: spec.Peer{Key: b, Netns: peer, Addresses: addr(20 + i)}}})
		free = append(free, end{a, netns}, end{b, peer})
	}
	for i := range r.IntN(3) {
		netns := pick(r, spaces...)
		l := spec.Link{Key: fmt.Sprintf("tap%d", i), Type: spec.TypeTap, Netns: netns, Tun: &spec.Tun{Queues: pick(r, 1, 4)}}
		if coin(r) {
			l.Handover = &spec.Handover{Socket: fmt.Sprintf("/run/tap%d.sock", i)}
		}
		s.Links = append(s.Links, l)
		free = append(free, end{l.Key, netns})
	}
	r.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	take := func(netns string, most int) (ports []spec.Port) {
		kept := free[:0:0]
		for _, f := range free {
			if f.netns == netns && len(ports) < most {
				ports = append(ports, spec.Port{Link: f.key})
			} else {
				kept = append(kept, f)
			}
		}
		free = kept
		return ports
	}
	masters := []struct {
		key string
		typ spec.Type
	}{{"bond0", spec.TypeBond}, {"team0", spec.TypeTeam}, {"br0", spec.TypeBridge}, {"br1", spec.TypeBridge}}
	for i, m := range masters {
		if coin(r) {
			continue
		}
		netns := pick(r, spaces...)
		l := spec.Link{Key: m.key, Type: m.typ, Netns: netns, Ports: take(netns, r.IntN(3)), Addresses: addr(30 + i)}
		switch m.typ {
		case spec.TypeBond:
			l.Bond = &spec.Bond{Mode: pick(r, "active-backup", "802.3ad", "balance-rr"), MIIMon: optional(r, 100*time.Millisecond)}
			if l.Bond.Mode == "802.3ad" && coin(r) {
				l.Bond.LACPRate = pick(r, "fast", "slow")
			}
			if l.Bond.Mode == "active-backup" && len(l.Ports) > 0 && coin(r) {
				l.Bond.Primary = l.Ports[0].Link
			}
		case spec.TypeTeam:
			l.Team = &spec.Team{Runner: spec.Runner{Name: pick(r, "lacp", "activebackup")}}
		case spec.TypeBridge:
			l.Bridge = &spec.Bridge{STP: optional(r, coin(r)), Priority: optional(r, uint16(4096))}
			for n := range l.Ports {
				l.Ports[n].Cost = optional(r, uint32(100))
				l.Ports[n].Hairpin = optional(r, coin(r))
			}
		}
		if len(l.Addresses) > 0 && l.Addresses[0].Prefix.Addr().Is4() && coin(r) {
			l.Routes = []spec.Route{{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", 100+i)), Metric: uint32(r.IntN(2))}}
			if coin(r) {
				l.Routes[0].Gateway = netip.MustParseAddr(fmt.Sprintf("10.%d.0.9", 30+i))
			}
		}
		s.Links = append(s.Links, l)
		if m.typ != spec.TypeBridge {
			free = append(free, end{m.key, netns})
		}
	}
	var parents []string
	for _, l := range s.Links {
		if l.Type != spec.TypeTun && l.Type != spec.TypeTeam {
			parents = append(parents, l.Key)
		}
	}
	for i := range r.IntN(4) {
		if len(parents) == 0 {
			break
		}
		typ := pick(r, spec.TypeMacvlan, spec.TypeMacvtap, spec.TypeIPvlan, spec.TypeVLAN)
		l := spec.Link{Key: fmt.Sprintf("st%d", i), Type: typ, Netns: pick(r, spaces...), Addresses: addr(40 + i)}
		parent := pick(r, parents...)
		switch typ {
		case spec.TypeVLAN:
			l.VLAN = &spec.VLAN{Parent: parent, VID: uint16(1 + r.IntN(3))}
			for n := range s.Links {
				if parent == "eth3" && s.Links[n].Key == parent {
					s.Links[n].Up = new(true)
				}
			}
		case spec.TypeIPvlan:
			l.Stack = &spec.Stack{Parent: parent, Mode: pick(r, "l2", "l3")}
		default:
			l.Stack = &spec.Stack{Parent: parent, Mode: pick(r, "bridge", "private", "passthru", "source")}
			if l.Stack.Mode == "source" {
				l.Stack.MACs = []spec.MAC{{2, 0, 0, 0, 0, 1}}
			}
		}
		s.Links = append(s.Links, l)
	}
	if len(parents) > 0 && coin(r) {
		source := pick(r, parents...)
		netns := ""
		for _, l := range s.Links {
			if l.Key == source {
				netns = l.Netns
			}
		}
		s.Links = append(s.Links, spec.Link{Key: "ifb9", Type: spec.TypeIfb, Netns: netns})
		q := pick(r, &spec.Qdisc{SFQ: &spec.SFQ{Perturb: optional(r, 10*time.Second)}},
			&spec.Qdisc{HTB: &spec.HTB{Rate: spec.BitRate(pick(r, 8, 9)) * 1e6, Leaf: &spec.Qdisc{SFQ: &spec.SFQ{}}}})
		sh := spec.Shaping{Source: source, IngressTo: "ifb9", Qdisc: q}
		if source != "eth0" && coin(r) {
			sh.Egress = &spec.Qdisc{TBF: &spec.TBF{Rate: spec.BitRate(pick(r, 8, 9)) * 1e6, Burst: 10240}}
		}
		s.Shaping = append(s.Shaping, sh)
	}
	if len(free) > 1 && free[0].netns == free[1].netns && coin(r) {
		s.XConnects = append(s.XConnects, spec.XConnect{A: free[0].key, B: free[1].key})
	}
	for i := range r.IntN(3) {
		s.Rules = append(s.Rules, spec.Rule{Netns: pick(r, spaces...), Priority: uint32(1000 + i), Family: 4, Table: uint32(100 + r.IntN(2))})
	}
	for _, l := range s.Links {
		if l.Type == spec.TypeBridge && coin(r) {
			s.Services = append(s.Services, spec.Service{Dnsmasq: &spec.Dnsmasq{Netns: l.Netns, Interface: l.Key, Ranges: []string{"10.0.0.10,10.0.0.20"}}})
			s.NAT = append(s.NAT, spec.NAT{Netns: l.Netns, Out: l.Key})
		}
	}
	return s
}

// bench is an engine on a kernel, with a journal on disk.
type bench struct {
	*testing.T
	kernel *kerneltest.Kernel
	dir    string
}

func newBench(t *testing.T) *bench {
	dir, err := os.MkdirTemp("/dev/shm", "culvert-test-") // where syncing costs nothing
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &bench{t, foreignWorld(), dir + "/test"}
}

// with runs f with an engine of a process of its own. It reports whether the process was killed.
func (b *bench) with(f func(e *apply.Engine)) (killed bool) {
	b.Helper()
	j, err := journal.Open(b.dir)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(kerneltest.Killed); !ok {
				panic(r)
			}
			killed = true
		}
	}()
	f(&apply.Engine{Instance: "test", Kernel: b.kernel, Journal: j})
	return false
}

func (b *bench) apply(s *spec.Spec) {
	b.Helper()
	b.with(func(e *apply.Engine) {
		if _, err := e.Apply(b.Context(), model.Expand(s)); err != nil {
			b.Fatal(err)
		}
	})
}

func (b *bench) destroy() {
	b.Helper()
	b.with(func(e *apply.Engine) {
		if _, err := e.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
	})
}

// settled demands that the next plan is empty.
func (b *bench) settled(s *spec.Spec) {
	b.Helper()
	b.with(func(e *apply.Engine) {
		p, _, err := e.Plan(b.Context(), model.Expand(s))
		if err != nil {
			b.Fatal(err)
		}
		if !p.IsEmpty() || len(p.Steps) > 0 {
			b.Fatalf("after apply there is still to do:\n%s", p)
		}
	})
}

// same demands that everything is as it was.
func (b *bench) same(before map[model.ID]model.Object, when string) {
	b.Helper()
	after := b.kernel.All()
	for id, o := range before {
		got, ok := after[id]
		switch {
		case !ok:
			b.Errorf("%s: %s is gone", when, id)
		case fmt.Sprint(got) != fmt.Sprint(o):
			b.Errorf("%s: %s is\n%v, was\n%v", when, id, got, o)
		}
	}
	for id := range after {
		if _, ok := before[id]; !ok {
			b.Errorf("%s: %s is left", when, id)
		}
	}
	for _, f := range b.kernel.Faults {
		b.Errorf("%s: %s", when, f)
	}
}
