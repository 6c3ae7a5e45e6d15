package graph

import (
	"cmp"
	"slices"
)

// Rounds of ordering, and beyond how many slots the slower steps are left out.
const (
	rounds    = 12
	swapSlots = 220
	// How much more a straight wire counts than a node's place.
	passWeight = 6
)

// near are the slots that a slot's wires lead to: down, up, along its own row; all of them; and, where a wire passes several rows, only
// those where the same wire passes.
type near struct{ lower, upper, beside, all, along []*slot }

func toLower(s *slot) []*slot { return s.lower }
func toUpper(s *slot) []*slot { return s.upper }
func toAll(s *slot) []*slot   { return s.all }
func toAlong(s *slot) []*slot { return s.along }

// order finds the order of slots in the rows and their places, so that wires are short and cross little: each is drawn to the middle
// of those it is joined to, row after row, up and down (the barycentre method of Sugiyama, Tagawa and Toda), and the best of all rounds
// is kept. Then neighbours are exchanged as long as that helps.
func (l *layout) order() {
	l.widths()
	for _, b := range l.bands {
		for _, c := range b.columns {
			for row := b.first; row <= b.last; row++ {
				l.spread(c, row, nil)
			}
		}
	}
	l.findNear()
	best := l.score()
	kept := l.snapshot()
	keep := func() {
		if s := l.score(); s < best {
			best, kept = s, l.snapshot()
		}
	}
	for round := range rounds {
		for row := range l.rows {
			l.sweep(row, true, toLower)
		}
		l.shift()
		keep()
		for row := l.rows - 1; row >= 0; row-- {
			l.sweep(row, true, toUpper)
		}
		keep()
		for row := range l.rows {
			l.sweep(row, round < rounds/2, toAll)
		}
		keep()
	}
	l.restore(kept)
	best = l.align(best)
	slots := 0
	for _, b := range l.bands {
		for _, c := range b.columns {
			for _, s := range c.rows {
				slots += len(s)
			}
		}
	}
	if slots > swapSlots {
		return
	}
	for range 4 {
		before := best
		for row := range l.rows {
			for _, c := range l.bandOf(row).columns {
				for i := 1; i < len(c.rows[row]); i++ {
					kept := l.snapshot()
					c.rows[row][i-1], c.rows[row][i] = c.rows[row][i], c.rows[row][i-1]
					l.spread(c, row, l.wanted(c.rows[row], toAll))
					if s := l.score(); s < best {
						best = s
					} else {
						l.restore(kept)
					}
				}
			}
		}
		kept := l.snapshot()
		for row := range l.rows {
			l.sweep(row, false, toAll)
		}
		if s := l.score(); s <= best {
			best = s
		} else {
			l.restore(kept)
		}
		best = l.align(best)
		if best == before {
			return
		}
	}
}

// align draws the places where a wire passes rows above each other, as long as that makes the score smaller, and returns that.
func (l *layout) align(best int) int {
	kept := l.snapshot()
	for round := range 8 {
		for i := range l.rows {
			if round%2 == 0 {
				i = l.rows - 1 - i
			}
			l.sweep(i, false, toAlong)
		}
		if s := l.score(); s < best {
			best, kept = s, l.snapshot()
		}
	}
	l.restore(kept)
	return best
}

// widths gives columns their widths and bands their places.
func (l *layout) widths() {
	var bandWidth []int
	for _, b := range l.bands {
		x := 0
		for _, c := range b.columns {
			beside := c.space < 0 && !c.peers
			for _, slots := range c.rows { // wide enough for any order of them
				w, nodes := 2*boxPad, 0
				for _, s := range slots {
					w += s.w + 1
					if s.node >= 0 {
						nodes++
					}
				}
				passes := len(slots) - nodes
				w += max(nodes-1, 0)*nodeGap + passes*passGap
				if passes > 0 && !beside { // room to keep wires straight
					w += 24 + w/24
				}
				c.w = max(c.w, w+2)
			}
			if beside {
				c.w = max(c.w, gutterMin)
			} else {
				c.w = max(c.w, c.title)
			}
			c.x = x
			x += c.w
		}
		bandWidth = append(bandWidth, x)
		l.width = max(l.width, x)
	}
	for i, b := range l.bands {
		for _, c := range b.columns {
			c.x += (l.width - bandWidth[i]) / 2
		}
	}
}

// apart is the least distance between the middles of two neighbours.
func apart(a, b *slot) int {
	gap := nodeGap
	if a.node < 0 || b.node < 0 {
		gap = passGap
	}
	return (a.w+1)/2 + (b.w+1)/2 + gap
}

// spread places the slots of a row as near as can be to where each is wanted, in their order and without overlap: weighted least
// squares by pooling adjacent violators. Without wishes they stand close together in the middle.
func (l *layout) spread(c *column, row int, wanted []int) {
	slots := c.rows[row]
	if len(slots) == 0 {
		return
	}
	offset := make([]int, len(slots))
	for i := 1; i < len(slots); i++ {
		offset[i] = offset[i-1] + apart(slots[i-1], slots[i])
	}
	last := len(slots) - 1
	low, high := c.x+boxPad+slots[0].w/2, c.x+c.w-boxPad-(slots[last].w+1)/2-offset[last]
	if wanted == nil {
		for i, s := range slots {
			s.x = (low+high)/2 + offset[i]
		}
		return
	}
	type block struct{ sum, weight int }
	weight := func(s *slot) int {
		if s.node < 0 {
			return passWeight
		}
		return 1
	}
	var blocks []block
	for i, s := range slots {
		b := block{weight(s) * (wanted[i] - offset[i]), weight(s)}
		for len(blocks) > 0 {
			p := blocks[len(blocks)-1]
			if p.sum*b.weight <= b.sum*p.weight {
				break
			}
			b.sum += p.sum
			b.weight += p.weight
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	i := 0
	for _, b := range blocks {
		y := min(max(b.sum/b.weight, low), max(high, low))
		for left := b.weight; left > 0; i++ {
			slots[i].x = y + offset[i]
			left -= weight(slots[i])
		}
	}
}

// wanted is the middle of each slot's neighbours, or where it is.
func (l *layout) wanted(slots []*slot, of func(*slot) []*slot) []int {
	w := make([]int, len(slots))
	for i, s := range slots {
		w[i] = s.x
		if list := of(s); len(list) > 0 {
			sum := 0
			for _, o := range list {
				sum += o.x
			}
			w[i] = sum / len(list)
		}
	}
	return w
}

func (l *layout) sweep(row int, sort bool, of func(*slot) []*slot) {
	for _, c := range l.bandOf(row).columns {
		slots := c.rows[row]
		if len(slots) == 0 {
			continue
		}
		w := l.wanted(slots, of)
		if sort {
			at := make(map[*slot]int, len(slots))
			for i, s := range slots {
				at[s] = w[i]
			}
			slices.SortStableFunc(slots, func(a, b *slot) int { return cmp.Compare(at[a], at[b]) })
			for i, s := range slots {
				w[i] = at[s]
			}
		}
		l.spread(c, row, w)
	}
}

// shift moves whole bands that are narrower than the picture to where their wires lead.
func (l *layout) shift() {
	for _, b := range l.bands {
		sum, n := 0, 0
		for _, c := range b.columns {
			for row := b.first; row <= b.last; row++ {
				for _, s := range c.rows[row] {
					for _, o := range slices.Concat(s.lower, s.upper) {
						if o.row < b.first || o.row > b.last {
							sum += o.x - s.x
							n++
						}
					}
				}
			}
		}
		if n == 0 {
			continue
		}
		lastColumn := b.columns[len(b.columns)-1]
		by := min(max(sum/n, -b.columns[0].x), l.width-lastColumn.x-lastColumn.w)
		for _, c := range b.columns {
			c.x += by
			for _, slots := range c.rows {
				for _, s := range slots {
					s.x += by
				}
			}
		}
	}
}

// ends are the slots that a net reaches in a channel from below and from above.
func (l *layout) ends(i, channel int) (below, above []*slot) {
	n := l.nets[i]
	for m := range n.members {
		if n.channel(l, m) == channel {
			if n.top[m] {
				below = append(below, l.slot[n.members[m]])
			} else {
				above = append(above, l.slot[n.members[m]])
			}
		}
	}
	if channel > n.from {
		below = append(below, l.pass[i][channel-1])
	}
	if channel < n.to {
		above = append(above, l.pass[i][channel])
	}
	return below, above
}

// findNear tells every slot where its wires lead.
func (l *layout) findNear() {
	for i, n := range l.nets {
		for c := n.from; c <= n.to; c++ {
			below, above := l.ends(i, c)
			for _, s := range below {
				s.upper = append(s.upper, above...)
				if len(above) == 0 {
					s.beside = append(s.beside, others(below, s)...)
				}
			}
			for _, s := range above {
				s.lower = append(s.lower, below...)
				if len(below) == 0 {
					s.beside = append(s.beside, others(above, s)...)
				}
			}
		}
	}
	for _, b := range l.bands {
		for _, c := range b.columns {
			for _, slots := range c.rows {
				for _, s := range slots {
					s.all = slices.Concat(s.lower, s.upper, s.beside)
					s.along = s.all
					if s.node < 0 {
						passes := slices.DeleteFunc(slices.Concat(s.lower, s.upper), func(o *slot) bool { return o.node >= 0 })
						if len(passes) > 0 {
							s.along = passes
						}
					}
				}
			}
		}
	}
}

// others are up to a few of a list's slots beside s: the shared one and its neighbours tell enough.
func others(list []*slot, s *slot) []*slot {
	var o []*slot
	for _, t := range list[:min(len(list), 4)] {
		if t != s {
			o = append(o, t)
		}
	}
	return o
}

// score is what is kept small: the length of wires, and fixed prices for each crossing and each channel in which a wire is not straight.
func (l *layout) score() int {
	const crossing, bend = 60, 15
	length, crossings := 0, 0
	type edge struct{ net, a, b int }
	var list []edge
	for c := 0; c <= l.rows; c++ {
		list = list[:0]
		for i, n := range l.nets {
			if c < n.from || c > n.to {
				continue
			}
			below, above := l.ends(i, c)
			low, high := 1<<30, -1<<30
			for _, s := range slices.Concat(below, above) {
				low, high = min(low, s.x), max(high, s.x)
			}
			length += high - low
			if high-low > 1 {
				length += bend
			}
			// One side has usually one end: all others run to it.
			for _, b := range below {
				for _, a := range above {
					list = append(list, edge{i, b.x, a.x})
					length += max(b.x-a.x, a.x-b.x) / 8
				}
			}
		}
		if len(list) > 4*swapSlots {
			continue
		}
		for i := range list {
			for j := range i {
				x, y := &list[i], &list[j]
				if x.net != y.net && (x.a < y.a && x.b > y.b || x.a > y.a && x.b < y.b) {
					crossings++
				}
			}
		}
	}
	return length + crossing*crossings
}

type snapshot struct {
	x     map[*slot]int
	order map[*column]map[int][]*slot
	at    map[*column]int
}

func (l *layout) snapshot() snapshot {
	s := snapshot{make(map[*slot]int), make(map[*column]map[int][]*slot), make(map[*column]int)}
	for _, b := range l.bands {
		for _, c := range b.columns {
			s.at[c] = c.x
			s.order[c] = make(map[int][]*slot)
			for row, slots := range c.rows {
				s.order[c][row] = slices.Clone(slots)
				for _, t := range slots {
					s.x[t] = t.x
				}
			}
		}
	}
	return s
}

func (l *layout) restore(s snapshot) {
	for c, rows := range s.order {
		c.x = s.at[c]
		for row, slots := range rows {
			c.rows[row] = slices.Clone(slots)
		}
	}
	for t, x := range s.x {
		t.x = x
	}
}
