package kernel_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// network is a declaration of much of what there is; in the guest of all.
func network(netns string) *spec.Spec {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	address := func(s string) []spec.Address {
		return []spec.Address{{Prefix: prefix(s), NoDAD: strings.Contains(s, ":")}}
	}
	s := &spec.Spec{Instance: "test", Netns: []spec.Netns{{Name: netns}}}
	mac := spec.MAC{2, 0, 0, 0, 0, 1}
	s.Links = []spec.Link{
		{Key: "br0", Type: spec.TypeBridge, MAC: &mac, Addresses: address("10.1.0.1/24"),
			Bridge: &spec.Bridge{STP: new(true), Priority: new(uint16(4096)), ForwardDelay: new(4 * time.Second)},
			Ports:  []spec.Port{{Link: "vnet1", Cost: new(uint32(10))}, {Link: "veth-a", Isolated: new(true)}},
			Routes: []spec.Route{{Prefix: prefix("10.9.0.0/16"), Gateway: addr("10.1.0.254")}}},
		{Key: "vnet1", Type: spec.TypeTap, Tun: &spec.Tun{Queues: 4, VNetHdr: new(true)}},
		{Key: "veth-a", Type: spec.TypeVeth, MTU: 1400, Veth: &spec.Veth{Peer: spec.Peer{Key: "veth-b", Netns: netns, MTU: 1400,
			Addresses: address("10.1.0.2/24"), Routes: []spec.Route{{Prefix: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.1")}}}}},
		{Key: "wan", Type: spec.TypeVeth, Addresses: address("2001:db8::1/64"), Veth: &spec.Veth{Peer: spec.Peer{Key: "wan-peer", Netns: netns}}},
		{Key: "mac0", Type: spec.TypeMacvlan, Netns: netns, Stack: &spec.Stack{Parent: "wan", Mode: "source", MACs: []spec.MAC{mac}}},
		{Key: "tap0", Type: spec.TypeMacvtap, Stack: &spec.Stack{Parent: "wan", Mode: "bridge"}},
		{Key: "ifb-wan", Type: spec.TypeIfb},
		{Key: "x1", Type: spec.TypeTap}, {Key: "x2", Type: spec.TypeTap},
	}
	s.Shaping = []spec.Shaping{{Source: "wan", IngressTo: "ifb-wan",
		Qdisc:  &spec.Qdisc{HTB: &spec.HTB{Rate: 8e6, Leaf: &spec.Qdisc{TBF: &spec.TBF{Rate: 8e6, Burst: 10 << 10}}}},
		Egress: &spec.Qdisc{TBF: &spec.TBF{Rate: 8e6, Burst: 10 << 10}}}}
	s.XConnects = []spec.XConnect{{A: "x1", B: "x2"}}
	s.Routes = []spec.Route{{Prefix: prefix("2001:db8:9::/48"), Type: "unreachable", Table: 1000}}
	s.Rules = []spec.Rule{{Priority: 100, Mark: 7, Not: true, Table: 1000, Family: 4}, {Priority: 101, From: prefix("2001:db8::/32"), Table: 1000}}
	s.NAT = []spec.NAT{{Out: "wan", Sources: []netip.Prefix{prefix("10.1.0.0/24")}}}
	if isGuest() {
		s.Links = append(s.Links,
			spec.Link{Key: "b0", Type: spec.TypeBond, Bond: &spec.Bond{Mode: "active-backup", MIIMon: new(100 * time.Millisecond), Primary: "p1"},
				Ports: []spec.Port{{Link: "p1"}, {Link: "p2", Prio: new(int32(3))}}},
			spec.Link{Key: "p1", Type: spec.TypeVeth, Veth: &spec.Veth{Peer: spec.Peer{Key: "q1"}}},
			spec.Link{Key: "p2", Type: spec.TypeVeth, Veth: &spec.Veth{Peer: spec.Peer{Key: "q2"}}},
			spec.Link{Key: "v100", Type: spec.TypeVLAN, VLAN: &spec.VLAN{Parent: "b0", VID: 100}},
			spec.Link{Key: "under", Type: spec.TypeVeth, Veth: &spec.Veth{Peer: spec.Peer{Key: "under-peer"}}},
			spec.Link{Key: "ip0", Type: spec.TypeIPvlan, Netns: netns, Stack: &spec.Stack{Parent: "under", Mode: "l3", Flag: "private"}},
			spec.Link{Key: "br1", Type: spec.TypeBridge, Bridge: &spec.Bridge{VLAN: spec.BridgeVLAN{Filtering: new(true)}},
				Ports: []spec.Port{{Link: "under-peer", VLANs: []spec.PortVLAN{{VID: 10, PVID: true, Untagged: true}, {VID: 20, To: 30}}}}},
			spec.Link{Key: "ifb-b", Type: spec.TypeIfb})
		s.Shaping = append(s.Shaping, spec.Shaping{Source: "q1", IngressTo: "ifb-b", Qdisc: &spec.Qdisc{SFQ: &spec.SFQ{Perturb: new(10 * time.Second)}},
			Egress: &spec.Qdisc{Cake: &spec.Cake{Bandwidth: new(spec.BitRate(1e8))}}})
	}
	return s
}

// A declaration is planned, carried out and read back: then there is nothing to do. Without it all goes.
func TestPlanConverges(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	name := m.netns() + "-q"
	declared := network(name)
	if err := declared.Validate(); err != nil {
		t.Fatal(err)
	}
	known := plan.Known{Own: map[model.ID]plan.Where{}}
	read := func() *model.System {
		t.Helper()
		s, err := m.k.Read(t.Context(), model.Scope{Netns: []string{"", name}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	carryOut := func(items []model.Item) {
		t.Helper()
		p := plan.Make(plan.Input{Instance: "test", Items: items, System: read(), Known: known})
		if p.HasConflict() {
			t.Fatalf("conflicts:\n%s", p)
		}
		for _, step := range p.Steps {
			done := m.do(step)
			switch step.Op {
			case plan.Create:
				known.Own[step.ID] = plan.Where{Index: done.Index, Inode: done.Inode}
				if peer := step.Fields["peer"].Link(); peer != "" {
					known.Own[model.LinkID(peer)] = plan.Where{Index: done.PeerIndex}
				}
			case plan.Delete:
				delete(known.Own, step.ID)
			}
		}
		if p := plan.Make(plan.Input{Instance: "test", Items: items, System: read(), Known: known}); !p.IsEmpty() {
			t.Fatalf("there is something left to do:\n%s", p)
		}
	}
	before := read()
	missing, err := m.k.Try(t.Context(), plan.Make(plan.Input{Instance: "test", Items: model.Expand(declared), System: before}).Steps)
	if err != nil || len(missing) != 0 {
		t.Fatalf("missing: %v, %v", missing, err)
	}
	carryOut(model.Expand(declared))
	carryOut(nil)
	m.same("after all is gone", before, read())
}
