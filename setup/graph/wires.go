package graph

import (
	"cmp"
	"slices"
)

type point struct{ x, y int }

// wire is the drawn line of an edge by its corners. It begins at the shared node, so that the dashes of branches lie on each other.
type wire struct {
	edge   int
	points []point
}

// side is one of a node's two, where wires begin.
type side struct {
	node int
	top  bool
}

type pinRef struct{ net, member int }

// pins spreads the wires over the sides of nodes, in the order of where they lead.
func (l *layout) pins() {
	bySide := make(map[side][]pinRef)
	for i, n := range l.nets {
		for m, node := range n.members {
			s := side{node, n.top[m]}
			bySide[s] = append(bySide[s], pinRef{i, m})
		}
	}
	for s, list := range bySide {
		at := l.slot[s.node].x
		toward := make(map[pinRef]int)
		for _, p := range list {
			n := l.nets[p.net]
			below, above := l.ends(p.net, n.channel(l, p.member))
			sum, of := 0, 0
			for _, o := range slices.Concat(below, above) {
				if o != l.slot[s.node] {
					sum += o.x
					of++
				}
			}
			toward[p] = at
			if of > 0 {
				toward[p] = sum / of
			}
		}
		slices.SortFunc(list, func(a, b pinRef) int {
			return cmp.Or(cmp.Compare(toward[a], toward[b]), cmp.Compare(a.net, b.net), cmp.Compare(a.member, b.member))
		})
		gap := min(16, (l.size[s.node].w-24)/max(len(list), 1))
		for j, p := range list {
			l.nets[p.net].pin[p.member] = at + (2*j-(len(list)-1))*gap/2
		}
	}
	l.straighten(bySide)
	l.separate()
}

// end is where a net comes to a channel: a pin, or the place where it passes a row.
type end struct {
	net       int
	x         *int
	low, high int // how far it can be moved
	pass      bool
}

// separate moves ends of different nets apart that would have their wires lie on each other within a channel.
func (l *layout) separate() {
	const apart = 5
	below, above := make([][]*end, l.rows+1), make([][]*end, l.rows+1)
	for i, n := range l.nets {
		for m, node := range n.members {
			s := l.slot[node]
			e := &end{net: i, x: &n.pin[m], low: s.x - s.w/2 + 8, high: s.x + s.w/2 - 8}
			if c := n.channel(l, m); n.top[m] {
				below[c] = append(below[c], e)
			} else {
				above[c] = append(above[c], e)
			}
		}
		for row := n.from; row < n.to; row++ {
			s := l.pass[i][row]
			e := &end{i, &s.x, s.x - passGap/2 + 1, s.x + passGap/2 - 1, true}
			above[row] = append(above[row], e)
			below[row+1] = append(below[row+1], e)
		}
	}
	free := func(e *end, x int, lists ...[]*end) bool {
		for _, list := range lists {
			for _, o := range list {
				if o.net != e.net && max(*o.x-x, x-*o.x) < apart {
					return false
				}
			}
		}
		return true
	}
	move := func(e *end, channel int, isBelow bool) bool {
		lists := [][]*end{below[channel], above[channel]}
		switch other := channel + 1; {
		case !e.pass:
		case isBelow:
			lists = append(lists, below[channel-1], above[channel-1])
		default:
			lists = append(lists, below[other], above[other])
		}
		for d := apart; d <= 4*apart; d++ {
			for _, x := range []int{*e.x + d, *e.x - d} {
				if x >= e.low && x <= e.high && free(e, x, lists...) {
					*e.x = x
					return true
				}
			}
		}
		return false
	}
	for c := range below {
		for _, a := range above[c] {
			for _, b := range below[c] {
				if a.net != b.net && max(*a.x-*b.x, *b.x-*a.x) < apart {
					if !move(a, c, false) {
						move(b, c, true)
					}
				}
			}
		}
	}
}

// straighten moves pins along their side where that spares the wire a corner.
func (l *layout) straighten(bySide map[side][]pinRef) {
	const apart = 8
	for i, n := range l.nets {
		for m, node := range n.members {
			var to []int // the wire's other ends across the channel
			c := n.channel(l, m)
			for o := range n.members {
				if n.channel(l, o) == c && n.top[o] != n.top[m] {
					to = append(to, n.pin[o])
				}
			}
			if n.top[m] && c < n.to {
				to = append(to, l.pass[i][c].x)
			}
			if !n.top[m] && c > n.from {
				to = append(to, l.pass[i][c-1].x)
			}
			at := l.slot[node]
			for _, x := range to {
				if len(to) > 1 && max(x-n.pin[m], n.pin[m]-x) > apart {
					continue // of many branches only one that is nearly straight
				}
				if max(x-at.x, at.x-x) > at.w/2-10 {
					continue
				}
				free := true
				for _, p := range bySide[side{node, n.top[m]}] {
					if other := l.nets[p.net].pin[p.member]; (p.net != i || p.member != m) && max(other-x, x-other) < apart {
						free = false
					}
				}
				// The order of pins stays as it is.
				list := bySide[side{node, n.top[m]}]
				j := slices.Index(list, pinRef{i, m})
				if j > 0 && l.nets[list[j-1].net].pin[list[j-1].member] > x ||
					j < len(list)-1 && l.nets[list[j+1].net].pin[list[j+1].member] < x {
					free = false
				}
				if free {
					n.pin[m] = x
					break
				}
			}
		}
	}
}

// run is a net's part within a channel: from where to where, and what ends in it from below and above.
type run struct {
	net          int
	low, high    int
	below, above []int
	inner        bool // within the box below, under its title
	track        int
	y            int
}

func (r *run) flat() bool { return r.low == r.high }

// runs returns what runs in a channel.
func (l *layout) runs(channel int) []*run {
	var list []*run
	for i, n := range l.nets {
		if channel < n.from || channel > n.to {
			continue
		}
		r := &run{net: i, low: 1 << 30, high: -1 << 30}
		var own *column
		inner := true
		for m, node := range n.members {
			if n.channel(l, m) != channel {
				continue
			}
			if n.top[m] {
				r.below = append(r.below, n.pin[m])
				inner = inner && (own == nil || own == l.column[node])
				own = l.column[node]
			} else {
				r.above = append(r.above, n.pin[m])
				inner = false
			}
		}
		if channel > n.from {
			r.below = append(r.below, l.pass[i][channel-1].x)
			inner = inner && own != nil && slices.Contains(own.rows[channel-1], l.pass[i][channel-1])
		}
		if channel < n.to {
			r.above = append(r.above, l.pass[i][channel].x)
			inner = false
		}
		for _, x := range slices.Concat(r.below, r.above) {
			r.low, r.high = min(r.low, x), max(r.high, x)
		}
		r.inner = inner && own != nil && own.last == channel-1
		list = append(list, r)
	}
	return list
}

// tracks gives each run that is not straight a track, counted from below, such that no two overlap, and in an order that lets few wires
// cross. It returns how many there are for inner runs and for the others.
func tracks(list []*run) (inner, outer int) {
	var order []*run
	for _, r := range list {
		if !r.flat() {
			order = append(order, r)
		}
	}
	slices.SortStableFunc(order, func(a, b *run) int {
		return cmp.Or(cmp.Compare(len(b.below)*len(a.above), len(a.below)*len(b.above)), cmp.Compare(a.high-a.low, b.high-b.low))
	})
	for range order {
		moved := false
		for i := 1; i < len(order); i++ {
			if price(order[i], order[i-1]) < price(order[i-1], order[i]) {
				order[i-1], order[i] = order[i], order[i-1]
				moved = true
			}
		}
		if !moved {
			break
		}
	}
	const apart = 10
	for i, r := range order {
		r.track = 0
		for _, o := range order[:i] {
			if o.inner == r.inner && o.low-apart < r.high && r.low-apart < o.high {
				r.track = max(r.track, o.track+1)
			}
		}
		if r.inner {
			inner = max(inner, r.track+1)
		} else {
			outer = max(outer, r.track+1)
		}
	}
	return inner, outer
}

// price is what it costs to have one run below another: crossings, and far more for wires that would lie on each other.
func price(low, high *run) (n int) {
	const onto = 1000
	for _, x := range low.above { // goes up through the higher one
		if high.low < x && x < high.high {
			n++
		}
		for _, o := range high.below {
			if max(x-o, o-x) < 4 {
				n += onto
			}
		}
	}
	for _, x := range high.below { // goes down through the lower one
		if low.low < x && x < low.high {
			n++
		}
	}
	return n
}

// route gives rows their heights, channels their tracks, and draws frames and wires.
func (l *layout) route() {
	l.pins()
	channels := make([][]*run, l.rows+1)
	l.rowTop, l.rowBottom = make([]int, l.rows), make([]int, l.rows)
	frameTop, frameBottom := make(map[*column]int), make(map[*column]int)
	y := 0 // upwards, turned round at the end
	for c := range channels {
		channels[c] = l.runs(c)
		inner, outer := tracks(channels[c])
		start := y
		y += clearance
		if c > 0 {
			for _, r := range channels[c] {
				if r.inner {
					r.y = y + r.track*trackPitch
				}
			}
			y += inner * trackPitch
			top := 0
			for _, col := range l.bandOf(c - 1).columns {
				if (col.space >= 0 || col.peers) && col.last == c-1 {
					frameTop[col] = y + zone(col)
					top = max(top, zone(col)+boxGap)
				}
			}
			y += top
		}
		for _, r := range channels[c] {
			if !r.inner {
				r.y = y + r.track*trackPitch
			}
		}
		y += outer * trackPitch
		if c < l.rows {
			pad := clearance
			for _, col := range l.bandOf(c).columns {
				if (col.space >= 0 || col.peers) && col.first == c {
					frameBottom[col] = y
					pad = max(pad, boxPad)
					if col.peers { // whose wires come from above
						pad = titleZone
					}
				}
			}
			y += pad
			y = max(y, start+34)
			l.rowBottom[c] = y
			h := 0
			for n := range l.g.Nodes {
				if l.row[n] == c {
					h = max(h, l.size[n].h)
				}
			}
			y += h
			l.rowTop[c] = y
		}
	}
	l.height = y
	flip := func(y int) int { return l.height - y }
	for n := range l.g.Nodes {
		b := &l.size[n]
		b.x = l.slot[n].x - b.w/2
		b.y = flip(l.rowBottom[l.row[n]]) - b.h
	}
	for _, b := range l.bands {
		for _, c := range b.columns {
			if c.space < 0 && !c.peers {
				continue
			}
			f := frame{c.space, box{c.x, flip(frameTop[c]), c.w, frameTop[c] - frameBottom[c]}, true}
			for _, slots := range c.rows {
				f.empty = f.empty && !slices.ContainsFunc(slots, func(s *slot) bool { return s.node >= 0 })
			}
			l.frames = append(l.frames, f)
		}
	}
	for i, n := range l.nets {
		for j, e := range n.edges {
			points := l.path(channels, i, j+1, flip)
			slices.Reverse(points)
			l.wires = append(l.wires, wire{e, points})
		}
	}
	slices.SortFunc(l.wires, func(a, b wire) int { return cmp.Compare(a.edge, b.edge) })
}

// titleX is where a box's title begins: on the left, or further right where a wire would run through it.
func (l *layout) titleX(f *frame, width int) int {
	const apart = 8
	for x := f.x + boxPad; x+width <= f.x+f.w-boxPad; {
		next := x
		for i := range l.wires {
			p := l.wires[i].points
			for j := 1; j < len(p); j++ {
				if at := p[j].x; at == p[j-1].x && at > x-apart && at < x+width+apart && min(p[j].y, p[j-1].y) < f.y+titleZone-4 &&
					max(p[j].y, p[j-1].y) > f.y {
					next = max(next, at+apart)
				}
			}
		}
		if next == x {
			return x
		}
		x = next
	}
	return f.x + boxPad
}

// zone is the room between the tracks below a box's top edge and that edge.
func zone(c *column) int {
	if c.peers {
		return boxPad - clearance
	}
	return titleZone
}

// path is the way of a branch from its member to the shared one.
func (l *layout) path(channels [][]*run, net, member int, flip func(int) int) []point {
	n := l.nets[net]
	c, to := n.channel(l, member), n.channel(l, 0)
	points := []point{{n.pin[member], l.pinY(n, member)}}
	add := func(p point) {
		if last := points[len(points)-1]; last != p {
			if k := len(points); k > 1 && (points[k-2].x == last.x && last.x == p.x || points[k-2].y == last.y && last.y == p.y) {
				points[k-1] = p
				return
			}
			points = append(points, p)
		}
	}
	for {
		x := n.pin[0]
		switch {
		case c < to:
			x = l.pass[net][c].x
		case c > to:
			x = l.pass[net][c-1].x
		}
		i := slices.IndexFunc(channels[c], func(r *run) bool { return r.net == net })
		y := flip(channels[c][i].y)
		if last := points[len(points)-1]; last.x != x {
			add(point{last.x, y})
			add(point{x, y})
		}
		switch {
		case c == to:
			add(point{n.pin[0], l.pinY(n, 0)})
			return points
		case c < to:
			c++
		default:
			c--
		}
	}
}

func (l *layout) pinY(n *net, member int) int {
	b := l.size[n.members[member]]
	if n.top[member] {
		return b.y
	}
	return b.y + b.h
}
