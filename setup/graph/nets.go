package graph

import "slices"

// net is a wire with all its branches: a node that is shared, and those that share it.
type net struct {
	relation Relation
	members  []int // the first is the shared one
	edges    []int
	top      []bool // which side of each member the wire is on
	pin      []int  // x
	from, to int    // channels it runs in; channel c is above row c-1
}

// findNets groups edges into nets.
func (l *layout) findNets() {
	type key struct {
		relation  Relation
		hub, edge int
	}
	byKey := make(map[key]*net)
	for i, e := range l.g.Edges {
		hub, leaf := e.To, e.From
		k := key{e.Relation, hub, -1}
		if e.Relation == Cable || e.Relation == Cross {
			k.edge = i
		}
		n := byKey[k]
		if n == nil {
			n = &net{relation: e.Relation, members: []int{hub}}
			byKey[k] = n
			l.nets = append(l.nets, n)
		}
		n.members = append(n.members, leaf)
		n.edges = append(n.edges, i)
	}
}

// sides chooses for each member the side its wire is on, and so the channels.
func (l *layout) sides(n *net) {
	hub := n.members[0]
	h := l.row[hub]
	above, below := 0, 0
	same, one := true, true
	for _, m := range n.members[1:] {
		switch {
		case l.row[m] > h:
			above++
		case l.row[m] < h:
			below++
		}
		same = same && l.row[m] == h
		one = one && l.column[m] == l.column[hub]
	}
	top := above > below || above == below && (n.relation == Stacked || n.relation == Serves)
	if same {
		// Below the row, unless that would lead out of the box of all.
		top = one && l.column[hub].first == h
	}
	n.top = []bool{top}
	for _, m := range n.members[1:] {
		switch {
		case l.row[m] > h:
			n.top = append(n.top, false)
		case l.row[m] < h:
			n.top = append(n.top, true)
		default:
			n.top = append(n.top, top)
		}
	}
	n.from, n.to = l.rows, 0
	for i := range n.members {
		c := n.channel(l, i)
		n.from, n.to = min(n.from, c), max(n.to, c)
	}
	n.pin = make([]int, len(n.members))
}

// channel is the one that the wire of a member begins in.
func (n *net) channel(l *layout, member int) int {
	if n.top[member] {
		return l.row[n.members[member]] + 1
	}
	return l.row[n.members[member]]
}

func (l *layout) bandOf(row int) *band {
	for _, b := range l.bands {
		if row <= b.last {
			return b
		}
	}
	return l.bands[len(l.bands)-1]
}

// addPasses keeps a slot in each row that a net passes: within the box where all its members of the band are in one, else beside boxes.
func (l *layout) addPasses() {
	l.pass = make([]map[int]*slot, len(l.nets))
	for i, n := range l.nets {
		l.sides(n)
		l.pass[i] = make(map[int]*slot)
		for row := n.from; row < n.to; row++ { // the row between channels row and row+1
			b := l.bandOf(row)
			c := l.passColumn(b, n)
			s := &slot{node: -1, net: i, w: passWidth, row: row}
			l.pass[i][row] = s
			c.rows[row] = append(c.rows[row], s)
		}
	}
}

// passColumn chooses where a net passes the rows of a band.
func (l *layout) passColumn(b *band, n *net) *column {
	low, high := -1, -1
	for _, m := range n.members {
		if i := slices.Index(b.columns, l.column[m]); i >= 0 {
			if low < 0 || i < low {
				low = i
			}
			high = max(high, i)
		}
	}
	switch {
	case low < 0: // none of its members are here: beside the boxes that are nearest to them
		return b.columns[l.nearest(b, n)]
	case low == high:
		return b.columns[low]
	}
	// Beside the box of the shared one, towards the others, or in the middle.
	if i := slices.Index(b.columns, l.column[n.members[0]]); i == low {
		return b.columns[i+1]
	} else if i == high {
		return b.columns[i-1]
	}
	return b.columns[(low+high)/2&^1]
}

// nearest is the column beside boxes that is, in its band, about where the net's members are in theirs.
func (l *layout) nearest(b *band, n *net) int {
	sum, of := 0, 0
	for _, m := range n.members {
		d := l.bandOf(l.row[m])
		sum += 1000 * slices.Index(d.columns, l.column[m]) / len(d.columns)
		of++
	}
	return min(len(b.columns)*sum/of/1000, len(b.columns)-1) &^ 1
}
