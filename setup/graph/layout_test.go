package graph

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// randomGraph has devices in namespaces, joined by anything, circles included.
func randomGraph(r *rand.Rand, nodes, edges, spaces int) *Graph {
	g := &Graph{Title: "random", Compared: r.IntN(2) == 0}
	for i := range spaces {
		name := ""
		if i > 0 {
			name = fmt.Sprintf("ns%d", i)
		}
		g.Spaces = append(g.Spaces, Space{Name: name, External: r.IntN(4) == 0})
	}
	types := []string{"", "tap", "veth", "bridge", "bond", "macvlan", "vlan", "ifb", "tunnel"}
	for i := range nodes {
		n := Node{Name: fmt.Sprintf("dev%d", i), Space: g.Spaces[r.IntN(spaces)].Name, Type: types[r.IntN(len(types))], Power: Power(r.IntN(3)),
			External: r.IntN(5) == 0}
		switch r.IntN(10) {
		case 0:
			n.Shape = Process
		case 1:
			n.Shape, n.Space = Peer, ""
		}
		for range r.IntN(5) {
			n.Facts = append(n.Facts, "192.0.2.1/24, and more"[:4+r.IntN(18)])
		}
		if g.Compared {
			n.Status = Status(r.IntN(5))
		}
		g.Nodes = append(g.Nodes, n)
	}
	for range edges {
		g.Edges = append(g.Edges, Edge{Relation: Relation(r.IntN(int(relations))), From: r.IntN(nodes), To: r.IntN(nodes)})
	}
	return g
}

func (b box) grown(by int) box { return box{b.x - by, b.y - by, b.w + 2*by, b.h + 2*by} }

func overlap(a, b box) bool { return a.x < b.x+b.w && b.x < a.x+a.w && a.y < b.y+b.h && b.y < a.y+a.h }

func within(a, b box) bool {
	return a.x >= b.x && a.y >= b.y && a.x+a.w <= b.x+b.w && a.y+a.h <= b.y+b.h
}

// geometry says what is wrong with a layout.
func geometry(l *layout) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	canvas := box{0, 0, l.width, l.height}
	frameOf := func(n *Node) *frame {
		for i := range l.frames {
			f := &l.frames[i]
			if f.space < 0 && n.Shape == Peer || f.space >= 0 && n.Shape != Peer && l.g.Spaces[f.space].Name == n.Space {
				return f
			}
		}
		return nil
	}
	for i := range l.g.Nodes {
		n := &l.g.Nodes[i]
		if f := frameOf(n); f == nil || !within(l.size[i].grown(4), f.box) {
			say("%s %v is not within its frame", n.Name, l.size[i])
		}
		for j := range i {
			if overlap(l.size[i].grown(8), l.size[j].grown(8)) {
				say("%s %v overlaps %s %v", n.Name, l.size[i], l.g.Nodes[j].Name, l.size[j])
			}
		}
	}
	for i := range l.frames {
		if !within(l.frames[i].box, canvas) {
			say("frame %v is not within the picture", l.frames[i])
		}
		for j := range i {
			if overlap(l.frames[i].grown(6), l.frames[j].grown(6)) {
				say("frames %v and %v overlap", l.frames[i].box, l.frames[j].box)
			}
		}
	}
	if len(l.wires) != len(l.g.Edges) {
		say("%d wires for %d edges", len(l.wires), len(l.g.Edges))
	}
	for _, w := range l.wires {
		e := l.g.Edges[w.edge]
		for k, end := range []int{e.To, e.From} {
			p, b := w.points[0], l.size[end]
			if k == 1 {
				p = w.points[len(w.points)-1]
			}
			if p.x <= b.x || p.x >= b.x+b.w || p.y != b.y && p.y != b.y+b.h {
				say("edge %d ends at %v, beside %v", w.edge, p, b)
			}
		}
		for j := 1; j < len(w.points); j++ {
			a, b := w.points[j-1], w.points[j]
			if a.x != b.x && a.y != b.y {
				say("edge %d is aslant from %v to %v", w.edge, a, b)
			}
			line := box{min(a.x, b.x), min(a.y, b.y), max(a.x, b.x) - min(a.x, b.x), max(a.y, b.y) - min(a.y, b.y)}
			if !within(line, canvas) {
				say("edge %d leaves the picture at %v", w.edge, line)
			}
			for i := range l.size {
				inside := box{l.size[i].x + 1, l.size[i].y + 1, l.size[i].w - 2, l.size[i].h - 2}
				if overlap(line.grown(1), inside) && line.w+line.h > 0 {
					// The end of a wire touches its node's rim, no more.
					if (i == e.To && j == 1 || i == e.From && j == len(w.points)-1) && !overlap(box{line.x, line.y, line.w + 1, line.h}, inside) {
						continue
					}
					say("edge %d runs through %s", w.edge, l.g.Nodes[i].Name)
				}
			}
		}
	}
	return wrong
}

func TestScenesHaveNoOverlap(t *testing.T) {
	for _, s := range scenes {
		l := arrange(New(s.make()))
		for _, w := range append(geometry(l), onEachOther(l)...) {
			t.Errorf("%s: %s", s.name, w)
		}
	}
}

func TestRandomGraphsHaveNoOverlap(t *testing.T) {
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 1))
		nodes := 1 + r.IntN(45)
		g := randomGraph(r, nodes, r.IntN(2*nodes), 1+r.IntN(9))
		l := arrange(g)
		for _, w := range append(geometry(l), onEachOther(l)...) {
			t.Errorf("seed %d: %s", seed, w)
		}
		if t.Failed() {
			return
		}
	}
}

// Two wires of different nets may cross, but not lie on each other for longer than where tracks meet.
func onEachOther(l *layout) (wrong []string) {
	netOf := make(map[int]int)
	for i, n := range l.nets {
		for _, e := range n.edges {
			netOf[e] = i
		}
	}
	for i, v := range l.wires {
		for _, w := range l.wires[:i] {
			if netOf[v.edge] == netOf[w.edge] {
				continue
			}
			if n := shared(v.points, w.points); n > 6 {
				wrong = append(wrong, fmt.Sprintf("edges %d and %d lie on each other for %d pixels", v.edge, w.edge, n))
			}
		}
	}
	return wrong
}

// shared is the length over which two lines are nearer than two pixels and parallel.
func shared(a, b []point) (n int) {
	for i := 1; i < len(a); i++ {
		for j := 1; j < len(b); j++ {
			p, q, r, s := a[i-1], a[i], b[j-1], b[j]
			if p.x == q.x && r.x == s.x && max(p.x-r.x, r.x-p.x) < 2 {
				n += max(0, min(max(p.y, q.y), max(r.y, s.y))-max(min(p.y, q.y), min(r.y, s.y)))
			}
			if p.y == q.y && r.y == s.y && max(p.y-r.y, r.y-p.y) < 2 {
				n += max(0, min(max(p.x, q.x), max(r.x, s.x))-max(min(p.x, q.x), min(r.x, s.x)))
			}
		}
	}
	return n
}

func TestLayersStandOnWhatTheyAreOn(t *testing.T) {
	for _, s := range scenes {
		if s.name == "hostile" { // has a circle
			continue
		}
		g := New(s.make())
		l := arrange(g)
		for _, e := range g.Edges {
			up, down := e.To, e.From
			switch e.Relation {
			case Stacked, Serves:
				up, down = down, up
			case Cable, Cross:
				continue
			}
			if l.size[up].y+l.size[up].h > l.size[down].y {
				t.Errorf("%s: %s is not above %s", s.name, g.Nodes[up].Name, g.Nodes[down].Name)
			}
		}
	}
}

// The picture of a machine with a thousand devices takes seconds at most.
func TestThousandDevices(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	g := randomGraph(r, 1000, 1000, 80)
	l := arrange(g)
	for _, w := range geometry(l) {
		t.Error(w)
	}
}

func TestCircleIsDrawn(t *testing.T) {
	g := &Graph{Spaces: []Space{{}}, Nodes: []Node{{Name: "a", Type: "bridge"}, {Name: "b", Type: "bridge"}},
		Edges: []Edge{{Port, 0, 1, "", Same, nil}, {Port, 1, 0, "", Same, nil}, {Stacked, 0, 0, "", Same, nil}}}
	if w := geometry(arrange(g)); len(w) > 0 {
		t.Error(w)
	}
}

func TestNaturalOrder(t *testing.T) {
	list := []string{"eth10", "b", "eth2", "eth02", "", "eth2.7", "a1b10", "a1b9"}
	slices.SortFunc(list, natural)
	want := []string{"", "a1b9", "a1b10", "b", "eth02", "eth2", "eth2.7", "eth10"}
	if !slices.Equal(list, want) {
		t.Errorf("%q, want %q", list, want)
	}
}
