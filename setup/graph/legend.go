package graph

import (
	"fmt"
)

const (
	legendRow = 22
	legendMin = 420 // width
	swatch    = 30
)

// legend explains the signs that a picture has.
type legend struct{ entries []*entry }

type entry struct {
	text string
	draw func(x, y int) string
	x, y int
}

func (d *drawing) legend() *legend {
	var l legend
	add := func(text string, draw func(x, y int) string) {
		l.entries = append(l.entries, &entry{text: text, draw: draw})
	}
	g := d.l.g
	var kind [families]bool
	var relation [relations]bool
	var status [Foreign + 1]bool
	var power [Down + 1]bool
	external := false
	for i := range g.Nodes {
		n := &g.Nodes[i]
		kind[n.family()] = true
		status[n.Status] = true
		power[n.Power] = true
		external = external || n.External
	}
	for _, e := range g.Edges {
		relation[e.Relation] = true
		status[e.Status] = true
	}
	for f, used := range kind {
		if used {
			add(family(f).String(), func(x, y int) string {
				return fmt.Sprintf(`<g class="f%d"><rect class="box" x="%d" y="%d" width="20" height="14" rx="3"/><rect class="strip" x="%d" y="%d" width="20" height="4" rx="2"/></g>`,
					f, x, y-11, x, y-11)
			})
		}
	}
	if external {
		add("external: not culvert's", func(x, y int) string {
			return fmt.Sprintf(`<g class="external"><rect class="box" x="%d" y="%d" width="20" height="14" rx="3"/></g>`, x, y-11)
		})
	}
	if power[Up] {
		add("up", func(x, y int) string { return fmt.Sprintf(`<circle class="up" cx="%d" cy="%d" r="4"/>`, x+10, y-4) })
	}
	if power[Down] {
		add("down", func(x, y int) string { return fmt.Sprintf(`<circle class="down" cx="%d" cy="%d" r="3.5"/>`, x+10, y-4) })
	}
	for r, used := range relation {
		if used {
			add(Relation(r).String(), func(x, y int) string {
				return fmt.Sprintf(`<path class="wire r%d" d="M%d %dh20"/>`, r, x, y-4)
			})
		}
	}
	for s := Missing; s <= Foreign; s++ {
		if status[s] {
			text := map[Status]string{Missing: "missing: declared, not there", Differs: "differs from what is declared",
				Extra: "extra: culvert's, no longer declared", Foreign: "not declared, not culvert's"}[s]
			add(text, func(x, y int) string {
				class := statusClass(s)
				if s == Foreign {
					class += " external"
				}
				return fmt.Sprintf(`<g class="%s"><rect class="box" x="%d" y="%d" width="20" height="14" rx="3"/></g>`, class[1:], x, y-11)
			})
		}
	}
	return &l
}

// wrap breaks the legend into rows of a width and returns their number.
func (l *legend) wrap(w int) int {
	x, y := 0, 0
	for _, e := range l.entries {
		need := swatch + proportional(e.text, 12) + 18
		if x > 0 && x+need > w {
			x, y = 0, y+1
		}
		e.x, e.y = x, y*legendRow+14
		x += need
	}
	return y + 1
}

func (d *drawing) entries(l *legend) {
	for _, e := range l.entries {
		d.say(`%s<text class="legend" x="%d" y="%d">%s</text>`+"\n", e.draw(e.x, e.y), e.x+swatch-4, e.y, escaped(e.text))
	}
}
