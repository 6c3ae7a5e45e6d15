package graph

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"culvert/setup/model"
)

func node(t *testing.T, g *Graph, name string) *Node {
	t.Helper()
	for i := range g.Nodes {
		if g.Nodes[i].Name == name {
			return &g.Nodes[i]
		}
	}
	t.Fatalf("there is no node %s", name)
	return nil
}

func edge(t *testing.T, g *Graph, relation Relation, from, to string) *Edge {
	t.Helper()
	for i := range g.Edges {
		e := &g.Edges[i]
		a, b := g.Nodes[e.From].Name, g.Nodes[e.To].Name
		if e.Relation == relation && (a == from && b == to || (relation == Cable || relation == Cross) && a == to && b == from) {
			return e
		}
	}
	t.Fatalf("%s is not joined to %s (%s)", from, to, relation)
	return nil
}

func TestRelations(t *testing.T) {
	g := New(dhcp())
	for _, port := range []string{"eth0", "tap1", "tap2", "veth-a"} {
		edge(t, g, Port, port, "br0")
	}
	edge(t, g, Cable, "veth-a", "veth-b")
	edge(t, g, Serves, "dnsmasq", "veth-b")
	if len(g.Edges) != 6 || len(g.Nodes) != 7 || len(g.Spaces) != 2 {
		t.Errorf("%d edges, %d nodes, %d namespaces", len(g.Edges), len(g.Nodes), len(g.Spaces))
	}
	if n := node(t, g, "dnsmasq"); n.Space != "qdhcp-ba48a3fc" || n.Shape != Process {
		t.Errorf("%+v", n)
	}
	if f := node(t, g, "dnsmasq").Facts; !slices.Equal(f, []string{"10.0.0.10 to 10.0.0.50"}) {
		t.Errorf("facts %q", f)
	}
	if n := node(t, g, "eth0"); !n.External {
		t.Error("eth0 is not external")
	}

	g = New(shaped())
	if e := edge(t, g, Redirect, "eth3", "ifb0"); e.Label != "sfq 10s" {
		t.Errorf("label %q", e.Label)
	}
	if e := edge(t, g, Redirect, "office", "ifb-wan"); e.Label != "htb 8mbit, sfq" {
		t.Errorf("label %q", e.Label)
	}
	edge(t, g, Reaches, "branch", "office")
	if n := node(t, g, "office"); !n.Tunnel || !slices.Contains(n.Facts, "egress tbf 8mbit 10k") {
		t.Errorf("%+v", n)
	}
	if s := g.Spaces[0]; !slices.Equal(s.Facts, []string{"2 routes", "NAT"}) {
		t.Errorf("facts %q", s.Facts)
	}

	g = New(crossConnected())
	edge(t, g, Cross, "vnet2", "tap-vm2")
	for _, e := range g.Edges {
		if e.Relation == Redirect {
			t.Error("a cross-connect is drawn as redirections as well")
		}
	}

	g = New(macvlans())
	for _, n := range []string{"macvlan1", "macvlan2", "macvlan3", "macvtap0"} {
		edge(t, g, Stacked, n, "eth1")
	}
}

func TestDifference(t *testing.T) {
	g := New(difference())
	for name, want := range map[string]Status{"br0": Differs, "tap1": Same, "tap2": Missing, "tap9": Extra, "docker0": Foreign, "veth17": Foreign,
		"veth-b": Differs, "veth-a": Same, "eth0": Same, "dnsmasq": Missing} {
		if got := node(t, g, name).Status; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if r := node(t, g, "br0").Reasons; !slices.Equal(r, []string{"stp no, declared yes", "up no, declared yes"}) {
		t.Errorf("br0 differs for %q", r)
	}
	if r := node(t, g, "veth-b").Reasons; !slices.Equal(r, []string{"address 10.0.0.2/24 is missing"}) {
		t.Errorf("veth-b differs for %q", r)
	}
	if s := edge(t, g, Port, "tap2", "br0").Status; s != Missing {
		t.Errorf("the port tap2 is %q", s)
	}
	if s := edge(t, g, Port, "tap9", "br0").Status; s != Foreign {
		t.Errorf("the port tap9 is %q", s)
	}
	if s := edge(t, g, Cable, "veth-a", "veth-b").Status; s != Same {
		t.Errorf("the cable is %q", s)
	}
	for _, n := range g.Nodes {
		if n.Name == "lo" {
			t.Error("the loopback device is drawn")
		}
	}
	for _, s := range g.Spaces {
		if s.Name == "elsewhere" {
			t.Error("a namespace nobody speaks of is drawn")
		}
	}
}

// What is as declared differs in nothing.
func TestNoDifference(t *testing.T) {
	for _, s := range scenes {
		if s.name == "difference" {
			continue
		}
		source := s.make()
		source.System = system(source.Items)
		g := New(source)
		if !g.Compared {
			t.Errorf("%s is not compared", s.name)
		}
		for _, n := range g.Nodes {
			if n.Status != Same && s.name != "hostile" { // has a parent that is only referred to
				t.Errorf("%s: %s is %q: %q", s.name, n.Name, n.Status, n.Reasons)
			}
		}
		for _, e := range g.Edges {
			if e.Status != Same {
				t.Errorf("%s: edge is %q: %q", s.name, e.Status, e.Details)
			}
		}
		for _, p := range g.Spaces {
			if p.Status != Same {
				t.Errorf("%s: namespace %q is %q", s.name, p.Name, p.Status)
			}
		}
	}
}

func TestManyAreSixty(t *testing.T) {
	n := 0
	for _, node := range New(many()).Nodes {
		if node.Shape == Device {
			n++
		}
	}
	if n != 60 {
		t.Errorf("%d devices", n)
	}
}

// A port of the wrong bridge has two wires: where it should be and where it is.
func TestMovedPort(t *testing.T) {
	source := vmTap()
	source.System = system(source.Items)
	source.System.Objects[model.LinkID("br1")] = &model.Object{ID: model.LinkID("br1"), Fields: model.Fields{"type": "bridge"}}
	source.System.Objects[model.AttachmentID("vnet1")].Fields["master"] = "br1"
	g := New(source)
	if s := edge(t, g, Port, "vnet1", "br0").Status; s != Missing {
		t.Errorf("where it should be: %q", s)
	}
	if s := edge(t, g, Port, "vnet1", "br1").Status; s != Extra {
		t.Errorf("where it is: %q", s)
	}
	if n := node(t, g, "vnet1"); n.Status != Differs || !slices.Equal(n.Reasons, []string{"port's master br1, declared br0"}) {
		t.Errorf("%q %q", n.Status, n.Reasons)
	}
}

// A device of somebody else's by a declared name is no device of culvert's, though all its settings may be right.
func TestConflict(t *testing.T) {
	source := vmTap()
	source.System = system(source.Items)
	source.System.Objects[model.LinkID("vnet1")].Group = 0
	n := node(t, New(source), "vnet1")
	if n.Status != Differs || !slices.Equal(n.Reasons, []string{"not made by culvert: a conflict"}) {
		t.Errorf("%q %q", n.Status, n.Reasons)
	}
}

// Half of a cross-connect is a difference.
func TestHalfCrossConnect(t *testing.T) {
	source := crossConnected()
	source.System = system(source.Items)
	maps.DeleteFunc(source.System.Objects, func(id model.ID, _ *model.Object) bool {
		return id.Kind() == model.KindFilter && id.Link() == "vnet2"
	})
	e := edge(t, New(source), Cross, "vnet2", "tap-vm2")
	if e.Status != Differs || !strings.Contains(strings.Join(e.Details, "\n"), "one direction only") {
		t.Errorf("%q %q", e.Status, e.Details)
	}
}

// The running system alone: nothing is compared, and what has no mark of culvert's is external.
func TestSystemAlone(t *testing.T) {
	source := difference()
	source.Items = nil
	g := New(source)
	if g.Compared {
		t.Error("compared with nothing")
	}
	for name, external := range map[string]bool{"docker0": true, "eth0": true, "br0": false, "tap9": false} {
		if n := node(t, g, name); n.External != external || n.Status != Same {
			t.Errorf("%s: external %v, status %q", name, n.External, n.Status)
		}
	}
	if !slices.ContainsFunc(g.Spaces, func(s Space) bool { return s.Name == "elsewhere" }) {
		t.Error("a namespace without devices is not drawn")
	}
}
