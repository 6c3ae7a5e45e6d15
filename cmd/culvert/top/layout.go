package top

// layout is how many lines the parts of the list have.
type layout struct {
	airy    bool // empty lines between the parts
	notice  bool
	tunnels int // rows; the parts without any have no heading either
	peers   int
	drops   int
}

// Heights from which on there is room for the parts.
const (
	airyHeight    = 18
	tunnelsHeight = 10
	dropsHeight   = 14
)

// layout divides the window. What is short of room gets a quarter of it, peers the rest.
func (m *Model) layout() layout {
	tunnels := len(m.tunnels())
	drops := 0
	for id, t := range m.history.tunnels {
		if t.seen == m.history.n && m.visible(id) {
			drops += len(t.drops)
		}
	}
	return divide(m.height, tunnels, max(1, len(m.rows)), drops, m.notice() != "")
}

func divide(height, tunnels, peers, drops int, notice bool) layout {
	if height <= 0 {
		return layout{airy: true, notice: notice, tunnels: tunnels, peers: peers, drops: drops}
	}
	l := layout{airy: height >= airyHeight, notice: notice}
	if height < tunnelsHeight {
		tunnels = 0
	}
	if height < dropsHeight {
		drops = 0
	}
	left := height - 4 // title, totals, the peers' heading, keys
	if notice {
		left--
	}
	if l.airy {
		left--
	}
	heading := 1
	if l.airy {
		heading = 2
	}
	for _, there := range []int{tunnels, drops} {
		if there > 0 {
			left -= heading
		}
	}
	quarter := max(1, left/4)
	l.tunnels, l.drops = min(tunnels, quarter), min(drops, quarter)
	l.peers = max(0, min(peers, left-l.tunnels-l.drops))
	spare := max(0, left-l.tunnels-l.drops-l.peers)
	more := min(spare, tunnels-l.tunnels)
	l.tunnels += more
	l.drops += min(spare-more, drops-l.drops)
	if l.tunnels == 1 && tunnels > 1 { // it would only say that there are more
		return divide(height, 0, peers, drops, notice)
	}
	return l
}

// columns are the widths of the list's columns, without the space before each; 0 are left out.
type columns struct {
	name, tunnel, endpoint, allowed, seen, rtt, loss, total int // of peers
	instance, port, mtu, contact, drops                     int // of tunnels, besides the name
	tunnelName                                              int
	spark                                                   int
}

// rateWidth is that of a rate.
const rateWidth = 5

// right is the width of both directions' rates and sparklines.
func (c *columns) right() int {
	w := 2*rateWidth + 2
	if c.spark > 0 {
		w += 2 * (c.spark + 1)
	}
	return w
}

// columnsFor shares width among columns. several says that there is more than one tunnel.
func columnsFor(width int, several bool) columns {
	var c columns
	switch {
	case width >= 200:
		c.spark = 30
	case width >= 140:
		c.spark = 20
	case width >= 100:
		c.spark = 12
	case width >= 64:
		c.spark = 8
	}
	left := width - c.right() - 1
	const least = 14 // of a name
	take := func(to *int, want int, room int) {
		if room >= least+want+1 {
			*to = want
		}
	}
	peers := left - 2 // the mark
	rest := func() int {
		room := peers
		for _, w := range []int{c.seen, c.rtt, c.loss, c.tunnel, c.endpoint, c.total, c.allowed} {
			if w > 0 {
				room -= w + 1
			}
		}
		return room
	}
	take(&c.seen, 4, rest())
	take(&c.rtt, 6, rest())
	take(&c.loss, 5, rest())
	if several {
		take(&c.tunnel, 10, rest())
	}
	if rest() >= 40 {
		take(&c.endpoint, 21, rest())
	}
	if rest() >= 36 {
		take(&c.total, 6, rest())
	}
	if rest() >= 56 {
		take(&c.allowed, 30, rest())
	}
	c.name = max(0, rest())

	tunnels := left - 2
	restT := func() int {
		room := tunnels
		for _, w := range []int{c.instance, c.port, c.mtu, c.contact, c.drops} {
			if w > 0 {
				room -= w + 1
			}
		}
		return room
	}
	if restT() < 50 {
		take(&c.contact, 9, restT())
	} else {
		take(&c.contact, 11, restT())
	}
	take(&c.drops, 6, restT())
	take(&c.mtu, 5, restT())
	take(&c.port, 5, restT())
	take(&c.instance, 12, restT())
	c.tunnelName = max(0, restT())
	return c
}
