package graph

import (
	"culvert/setup/spec"
)

// base is the row a device stands in where nothing puts it higher.
func base(n Node) int {
	switch {
	case n.Shape == Peer:
		return -1
	case n.Shape == Process:
		return 1
	case n.Tunnel:
		return 1
	}
	switch spec.Type(n.Type) {
	case spec.TypeTun, spec.TypeTap, spec.TypeVeth, spec.TypeIfb:
		return 1
	case spec.TypeBond, spec.TypeTeam, spec.TypeBridge:
		return 2
	case spec.TypeMacvlan, spec.TypeMacvtap, spec.TypeIPvlan, spec.TypeIPvtap, spec.TypeVLAN:
		return 3
	}
	return 0
}

// layers returns the row of each node: its base, or one above whatever it is on top of, whichever is higher. Where devices are on top
// of each other in a circle, which no kernel has but a file can say, one of the circle is taken as the lowest.
func layers(g *Graph) []int {
	below := make([][]int, len(g.Nodes)) // what a node is on top of
	for _, e := range g.Edges {
		switch e.Relation {
		case Port, Redirect:
			below[e.To] = append(below[e.To], e.From)
		case Stacked, Serves:
			below[e.From] = append(below[e.From], e.To)
		}
	}
	layer := make([]int, len(g.Nodes))
	const (
		fresh = iota
		open
		done
	)
	state := make([]uint8, len(g.Nodes))
	type frame struct{ node, next int }
	for start := range g.Nodes {
		if state[start] != fresh {
			continue
		}
		state[start], layer[start] = open, base(g.Nodes[start])
		stack := []frame{{start, 0}} // one of its own: the depth is a file's to choose
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			n := top.node
			if top.next == len(below[n]) {
				state[n] = done
				stack = stack[:len(stack)-1]
				if len(stack) > 0 {
					above := stack[len(stack)-1].node
					layer[above] = max(layer[above], layer[n]+1)
				}
				continue
			}
			m := below[n][top.next]
			top.next++
			switch state[m] {
			case fresh:
				state[m], layer[m] = open, base(g.Nodes[m])
				stack = append(stack, frame{m, 0})
			case done:
				layer[n] = max(layer[n], layer[m]+1)
			}
		}
	}
	return layer
}
