package graph

import (
	"cmp"
	"fmt"
	"slices"
)

// Sizes in pixels.
const (
	fontSize   = 11 // of a fact
	nameSize   = 14
	titleSize  = 13
	lineHeight = 15
	nodePad    = 10
	nodeMin    = 104 // width
	nodeGap    = 22  // between nodes of a row
	passWidth  = 2   // of a wire passing a row
	passGap    = 12  // beside it
	boxPad     = 18
	titleZone  = 34 // between the tracks below a box's top edge and that edge
	boxGap     = 16 // between boxes above each other
	trackPitch = 9
	clearance  = 14 // between a row and the nearest track
	gutterMin  = 30 // between boxes side by side
	margin     = 20
	nameCells  = 22 // columns of a node's name at most
	factCells  = 30
	bandWidth  = 1800 // boxes side by side are at most as wide, unless one alone is wider
)

// slot is a place in a row: that of a node, or of a wire that passes.
type slot struct {
	node int // -1: a wire's
	net  int
	w    int
	x    int // its middle
	row  int
	near
}

// column is a box, or the space beside boxes, with its slots by row.
type column struct {
	space int // -1: beside boxes
	peers bool
	rows  map[int][]*slot
	first int // rows that have nodes
	last  int
	x, w  int // left edge, width
	title int // width
}

// band is a line of boxes side by side. The first and last column are beside boxes, and each between two.
type band struct {
	columns     []*column
	first, last int // rows
}

// box is where a node is drawn.
type box struct{ x, y, w, h int }

// layout is where everything is.
type layout struct {
	g      *Graph
	layer  []int
	size   []box
	row    []int // of each node
	column []*column
	slot   []*slot
	toward []int // x of what each namespace is joined to, by an earlier attempt; may be nil
	bands  []*band
	rows   int
	nets   []*net
	pass   []map[int]*slot // of each net, by row

	rowTop, rowBottom []int // y, the axis pointing down
	width, height     int
	frames            []frame
	wires             []wire
}

// frame is a drawn box of a namespace.
type frame struct {
	space int // -1: of the peers
	box
	empty bool
}

// attempts is how often boxes are ordered by where the wires of the attempt before led.
const attempts = 4

// arrange lays the graph out.
func arrange(g *Graph) *layout {
	layer := layers(g)
	var best *layout
	var toward []int
	bestScore := 0
	for range attempts {
		l := &layout{g: g, layer: layer, size: make([]box, len(g.Nodes)), row: make([]int, len(g.Nodes)),
			column: make([]*column, len(g.Nodes)), slot: make([]*slot, len(g.Nodes)), toward: toward}
		for i := range g.Nodes {
			l.size[i].w, l.size[i].h = measure(g, i)
		}
		l.findNets()
		l.fill()
		l.addPasses()
		l.order()
		if s := l.score(); best == nil || s < bestScore {
			best, bestScore = l, s
		}
		if len(g.Spaces) < 3 || len(g.Nodes) > swapSlots {
			break
		}
		toward = l.outward()
	}
	best.route()
	return best
}

// outward returns for each namespace where the wires that leave its box lead to, or where the box is.
func (l *layout) outward() []int {
	sum, of := make([]int, len(l.g.Spaces)), make([]int, len(l.g.Spaces))
	for _, n := range l.nets {
		for _, a := range n.members {
			for _, b := range n.members[:1] {
				for _, p := range [][2]int{{a, b}, {b, a}} {
					if c := l.column[p[0]]; c != l.column[p[1]] && c.space >= 0 {
						sum[c.space] += l.slot[p[1]].x
						of[c.space]++
					}
				}
			}
		}
	}
	for _, b := range l.bands {
		for _, c := range b.columns {
			switch {
			case c.space < 0:
			case of[c.space] == 0:
				sum[c.space] = c.x + c.w/2
			default:
				sum[c.space] /= of[c.space]
			}
		}
	}
	return sum
}

// measure returns the size of a node's box.
func measure(g *Graph, i int) (w, h int) {
	n := &g.Nodes[i]
	lines := nodeLines(g, n)
	w = width(cut(n.Name, nameCells), nameSize) + 14 + 10 + width(typeText(n), fontSize-1)
	for _, line := range lines {
		w = max(w, width(line.text, fontSize))
	}
	if s := n.Status.String(); s != "" {
		w = max(w, width(s, fontSize-1)+24)
	}
	return max(w+2*nodePad+2, nodeMin), 30 + len(lines)*lineHeight + 6
}

// line is a line of text within a node.
type line struct {
	text   string
	reason bool
}

// shownReasons is how many differences a box lists; the tooltip has all.
const shownReasons = 3

func nodeLines(g *Graph, n *Node) (list []line) {
	for _, f := range n.Facts {
		list = append(list, line{cut(f, factCells), false})
	}
	for i, r := range n.Reasons {
		if i == shownReasons-1 && len(n.Reasons) > shownReasons {
			list = append(list, line{fmt.Sprintf("and %d more differences", len(n.Reasons)-i), true})
			break
		}
		list = append(list, line{cut(r, factCells+12), true})
	}
	return list
}

// typeText is the word in the corner of a node.
func typeText(n *Node) string {
	switch {
	case n.Shape == Peer:
		return "peer"
	case n.Tunnel:
		if n.Type == "" || n.Type == "tunnel" {
			return "tunnel"
		}
		return "tunnel " + cut(n.Type, 8)
	case n.Type == "" && n.External:
		return "external"
	}
	return cut(n.Type, 10)
}

// fill puts the nodes into rows, the rows into boxes and the boxes into bands.
func (l *layout) fill() {
	g := l.g
	bySpace := make(map[string]*column)
	var boxes []*column
	for i, s := range g.Spaces {
		c := &column{space: i, title: titleWidth(spaceTitle(&s)) + 2*boxPad}
		bySpace[s.Name] = c
		boxes = append(boxes, c)
	}
	peers := &column{space: -1, peers: true, title: titleWidth(peersTitle) + 2*boxPad}
	members := make(map[*column][]int)
	for i := range g.Nodes {
		c := peers
		if g.Nodes[i].Shape != Peer {
			c = bySpace[g.Nodes[i].Space]
		}
		l.column[i] = c
		members[c] = append(members[c], i)
	}
	// A row takes so many nodes before it is broken.
	wrap := 6
	for wrap*wrap < 2*len(g.Nodes) {
		wrap++
	}
	wrap = min(wrap, 24)
	key := l.siblings()
	// rows of a box by layer and, within one, from the top.
	type place struct{ layer, sub int }
	in := make(map[*column]map[place][]int)
	for c, nodes := range members {
		slices.SortStableFunc(nodes, func(a, b int) int {
			return cmp.Or(cmp.Compare(l.layer[a], l.layer[b]), cmp.Compare(key[a], key[b]), cmp.Compare(a, b))
		})
		in[c] = make(map[place][]int)
		for from := 0; from < len(nodes); {
			to := from
			for to < len(nodes) && l.layer[nodes[to]] == l.layer[nodes[from]] {
				to++
			}
			line := nodes[from:to]
			lines := (len(line) + wrap - 1) / wrap
			for sub := range lines {
				in[c][place{l.layer[nodes[from]], sub}] = line[len(line)*sub/lines : len(line)*(sub+1)/lines]
			}
			from = to
		}
	}
	fromBelow := func(a, b place) int { return cmp.Or(cmp.Compare(a.layer, b.layer), -cmp.Compare(a.sub, b.sub)) }
	wide := func(c *column) int {
		w := c.title
		for _, nodes := range in[c] {
			sum := 2 * boxPad
			for _, n := range nodes {
				sum += l.size[n].w + nodeGap
			}
			w = max(w, sum)
		}
		return w
	}
	// Bands: the namespace culvert runs in is in the first; a line is broken where it becomes too wide for the whole.
	total, widest := 0, 0
	for _, c := range boxes {
		w := wide(c) + gutterMin
		total += w
		widest = max(widest, w)
	}
	limit := max(bandWidth, widest)
	for lines := 2; limit*lines < total && limit < 340*lines; lines++ {
		limit = max(limit, total/lines)
	}
	var lines [][]*column
	if len(members[peers]) > 0 {
		lines = append(lines, []*column{peers})
	}
	used := limit + 1
	for _, c := range l.connected(boxes) {
		if w := wide(c) + gutterMin; used+w > limit {
			lines = append(lines, []*column{c})
			used = w
		} else {
			lines[len(lines)-1] = append(lines[len(lines)-1], c)
			used += w
		}
	}
	for i, cs := range lines {
		b := &band{first: l.rows}
		// Beside the namespace culvert runs in boxes are as high as their layers are there. Elsewhere nothing compares, and their rows
		// are counted from the bottom.
		alone := i > 0 && !slices.ContainsFunc(cs, func(c *column) bool { return c.peers || g.Spaces[c.space].Name == "" })
		if alone {
			if l.toward != nil {
				slices.SortStableFunc(cs, func(a, b *column) int { return cmp.Compare(l.toward[a.space], l.toward[b.space]) })
			}
			for _, c := range cs {
				var own []place
				for p := range in[c] {
					own = append(own, p)
				}
				slices.SortFunc(own, fromBelow)
				counted := make(map[place][]int)
				for rank, p := range own {
					counted[place{rank, 0}] = in[c][p]
				}
				in[c] = counted
			}
		}
		var places []place
		for _, c := range cs {
			for p := range in[c] {
				places = append(places, p)
			}
		}
		slices.SortFunc(places, fromBelow)
		places = slices.Compact(places)
		if len(places) == 0 {
			places = []place{{}} // namespaces without devices
		}
		b.last = b.first + len(places) - 1
		l.rows = b.last + 1
		b.columns = append(b.columns, &column{space: -1})
		for _, c := range cs {
			c.rows = make(map[int][]*slot)
			c.first, c.last = b.last, b.first
			if len(in[c]) == 0 {
				c.first, c.last = b.first, b.first
			}
			for p, nodes := range in[c] {
				row := b.first + slices.Index(places, p)
				c.first, c.last = min(c.first, row), max(c.last, row)
				for _, n := range nodes {
					l.row[n] = row
					l.slot[n] = &slot{node: n, net: -1, w: l.size[n].w, row: row}
					c.rows[row] = append(c.rows[row], l.slot[n])
				}
			}
			b.columns = append(b.columns, c, &column{space: -1})
		}
		for _, c := range b.columns {
			if c.rows == nil {
				c.rows = make(map[int][]*slot)
				c.first, c.last = b.first, b.last
			}
		}
		l.bands = append(l.bands, b)
	}
}

// siblings returns a number for each node that those with the same master or parent share, so that they stay together.
func (l *layout) siblings() []int {
	key := make([]int, len(l.g.Nodes))
	for i := range key {
		key[i] = len(l.g.Nodes)
	}
	for _, n := range l.nets {
		for _, m := range n.members[1:] {
			key[m] = min(key[m], n.members[0])
		}
	}
	return key
}

// connected orders boxes so that those joined by wires are near each other: beginning with the first, always the one that has most
// wires to those already there.
func (l *layout) connected(boxes []*column) []*column {
	ties := make(map[*column]map[*column]int)
	for _, c := range boxes {
		ties[c] = make(map[*column]int)
	}
	for _, e := range l.g.Edges {
		a, b := l.column[e.From], l.column[e.To]
		if a != b && ties[a] != nil && ties[b] != nil {
			ties[a][b]++
			ties[b][a]++
		}
	}
	left := slices.Clone(boxes)
	score := make(map[*column]int)
	var list []*column
	for len(left) > 0 {
		best := 0
		for i := range left {
			if score[left[i]] > score[left[best]] {
				best = i
			}
		}
		c := left[best]
		left = slices.Delete(left, best, best+1)
		list = append(list, c)
		for d, n := range ties[c] {
			score[d] += n
		}
	}
	return list
}
