package graph

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

const peersTitle = "peers, through tunnels"

// SVG writes the picture. It is complete in itself, in light or dark colours as its surroundings ask for.
func (g *Graph) SVG(w io.Writer) error {
	l := arrange(g)
	d := &drawing{l: l}
	d.draw()
	_, err := w.Write(d.Bytes())
	return err
}

// drawing writes a layout as SVG.
type drawing struct {
	bytes.Buffer
	l *layout
}

func (d *drawing) say(format string, args ...any) { fmt.Fprintf(&d.Buffer, format, args...) }

// escaped is a text fit for XML.
func escaped(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // a Buffer takes all
	return b.String()
}

func (d *drawing) draw() {
	g, l := d.l.g, d.l
	heading := 0
	if g.Title != "" {
		heading = 34
	}
	title := cut(g.Title, 90)
	legend := d.legend()
	inner := max(l.width, width(title, 19), legendMin)
	rows := legend.wrap(inner)
	w := inner + 2*margin
	h := heading + l.height + 26 + rows*legendRow + 2*margin
	d.say(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" font-family="%s">`+"\n",
		w, h, w, h, monospaced)
	d.say("<title>%s</title>\n", escaped(orDefault(g.Title, "network devices")))
	d.style()
	d.say(`<rect class="ground" width="%d" height="%d"/>`+"\n", w, h)
	if g.Title != "" {
		d.say(`<text class="head" x="%d" y="%d">%s</text>`+"\n", margin, margin+16, escaped(title))
	}
	d.say(`<g transform="translate(%d %d)">`+"\n", margin+(inner-l.width)/2, margin+heading)
	for i := range l.frames {
		d.frame(&l.frames[i])
	}
	for i := range l.wires {
		d.wire(&l.wires[i])
	}
	for i := range l.frames {
		d.frameTitle(&l.frames[i])
	}
	for i := range g.Nodes {
		d.node(i)
	}
	d.say("</g>\n")
	d.say(`<g transform="translate(%d %d)">`+"\n", margin, margin+heading+l.height+26)
	d.entries(legend)
	d.say("</g>\n</svg>\n")
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (d *drawing) style() {
	d.say("<style>\n")
	rules := func(pick func(paint) string) {
		rule := func(format string, args ...any) {
			for i, a := range args {
				if p, ok := a.(paint); ok {
					args[i] = pick(p)
				}
			}
			d.say(format+"\n", args...)
		}
		rule(".ground{fill:%s}", ground)
		rule(".head,.node .name{fill:%s}", ink)
		rule(".frame{fill:%s;stroke:%s}", frameFill, frameLine)
		rule(".frame-title{fill:%s;stroke:%s}", ink, frameFill)
		rule(".frame-facts,.fact,.kind,.legend{fill:%s}", inkMuted)
		rule(".box{fill:%s;stroke:%s}", nodeFill, nodeLine)
		rule(".up{fill:%s}.down{fill:none;stroke:%s}.off{fill:%s}", upPaint, downPaint, downPaint)
		for f := range families {
			rule(".f%d .strip{fill:%s}", int(f), familyPaint[f])
		}
		for r := range relations {
			rule(".r%d{stroke:%s}.r%d.tip{fill:%s}", int(r), relationPaint[r], int(r), relationPaint[r])
		}
		for s := Missing; s <= Foreign; s++ {
			rule(".s%d .box,.s%d.frame,.wire.s%d{stroke:%s}.s%d .tag{fill:%s}.s%d.tip,.why%d{fill:%s}", int(s), int(s), int(s), statusPaint[s], int(s),
				statusPaint[s], int(s), int(s), statusPaint[s])
		}
		rule(".tag-text{fill:%s}", ground)
	}
	rules(func(p paint) string { return p.light })
	d.say(`.head{font:600 16px %s}
.frame{stroke-width:1.2}
.frame-title{font:600 %dpx %s;stroke-width:5;stroke-linejoin:round;paint-order:stroke}
.frame-facts{font-weight:400}
.box{stroke-width:1.2}
.external .box{stroke-dasharray:5 3}
.name{font-size:%dpx;font-weight:700}
.fact,.kind{font-size:%dpx}
.kind{font-size:%dpx}
.down{stroke-width:1.6}
.wire{fill:none;stroke-width:1.8;stroke-linecap:round}
.tip{stroke:none}
.tag-text{font-size:%dpx;font-weight:700}
.legend{font:12px %s}
.s%d .box,.s%d.frame,.wire.s%d{stroke-dasharray:6 4}
.s%d .box,.s%d .box,.s%d .box{stroke-width:2}
.wire.s%d{stroke-dasharray:1 4}
`, sansSerif, titleSize, sansSerif, nameSize, fontSize, fontSize-1, fontSize-1, sansSerif, Missing, Missing, Missing, Missing, Differs, Extra, Foreign)
	for r := range relations {
		if relationDash[r] != "" {
			d.say(".r%d{stroke-dasharray:%s}\n", int(r), relationDash[r])
		}
	}
	d.say("@media (prefers-color-scheme:dark){\n")
	rules(func(p paint) string { return p.dark })
	d.say("}\n</style>\n")
}

// spaceTitle is what stands on a namespace's box.
func spaceTitle(s *Space) string {
	title := "namespace " + cut(clean(s.Name), 40)
	if s.Name == "" {
		title = "this namespace"
	}
	return strings.Join(append([]string{title}, spaceFacts(s)...), " · ")
}

func spaceFacts(s *Space) (list []string) {
	if s.External {
		list = append(list, "external")
	}
	list = append(list, s.Facts...)
	if t := s.Status.String(); t != "" {
		list = append(list, t)
	}
	return list
}

func (d *drawing) tooltip(lines []string) {
	if len(lines) > 0 {
		d.say("<title>%s</title>", escaped(strings.Join(lines, "\n")))
	}
}

func (d *drawing) frame(f *frame) {
	class := "frame"
	if f.space >= 0 {
		class += statusClass(d.l.g.Spaces[f.space].Status)
	}
	dash := ""
	if f.space < 0 || d.l.g.Spaces[f.space].External {
		dash = ` stroke-dasharray="5 4"`
	}
	d.say(`<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="14"%s/>`+"\n", class, f.x, f.y, f.w, f.h, dash)
}

func statusClass(s Status) string {
	if s == Same {
		return ""
	}
	return fmt.Sprintf(" s%d", int(s))
}

func (d *drawing) frameTitle(f *frame) {
	if f.space < 0 {
		d.say(`<text class="frame-title" x="%d" y="%d">%s</text>`+"\n", f.x+boxPad, f.y+f.h-12, peersTitle)
		return
	}
	s := &d.l.g.Spaces[f.space]
	title, facts, _ := strings.Cut(spaceTitle(s), " · ")
	d.say(`<g>`)
	d.tooltip(append([]string{title}, s.Details...))
	d.say(`<text class="frame-title" x="%d" y="%d">%s`, d.l.titleX(f, titleWidth(spaceTitle(s))), f.y+22, escaped(title))
	if facts != "" {
		class := "frame-facts"
		if s.Status != Same {
			class += fmt.Sprintf(" why%d", int(s.Status))
		}
		d.say(`<tspan class="%s" dx="6">· %s</tspan>`, class, escaped(facts))
	}
	d.say("</text></g>\n")
	if f.empty {
		d.say(`<text class="fact" x="%d" y="%d">no devices</text>`+"\n", f.x+boxPad, f.y+44)
	}
}

func (d *drawing) node(i int) {
	n, b := &d.l.g.Nodes[i], &d.l.size[i]
	class := fmt.Sprintf("node f%d", int(n.family())) + statusClass(n.Status)
	if n.External && n.Status != Missing {
		class += " external"
	}
	d.say(`<g class="%s">`, class)
	d.tooltip(n.Details)
	round := 6
	if n.Shape != Device {
		round = min(16, b.h/2)
	}
	d.say(`<rect class="box" x="%d" y="%d" width="%d" height="%d" rx="%d"/>`, b.x, b.y, b.w, b.h, round)
	// A strip of the kind's colour along the top, within the corners.
	d.say(`<path class="strip" d="M%d %dh%da%d %d 0 0 1 %d %dh%da%d %d 0 0 1 %d %dz"/>`, b.x+round, b.y, b.w-2*round, round, round, 4, 4,
		-(b.w - 2*round + 8), round, round, 4, -4)
	x := b.x + nodePad
	y := b.y + 23
	switch n.Power {
	case Up:
		d.say(`<circle class="up" cx="%d" cy="%d" r="4"/>`, x+4, y-5)
		x += 14
	case Down:
		d.say(`<circle class="down" cx="%d" cy="%d" r="3.5"/>`, x+4, y-5)
		x += 14
	}
	d.say(`<text class="name" x="%d" y="%d">%s</text>`, x, y, escaped(cut(n.Name, nameCells)))
	if t := typeText(n); t != "" {
		d.say(`<text class="kind" x="%d" y="%d" text-anchor="end">%s</text>`, b.x+b.w-nodePad, y, escaped(t))
	}
	for j, line := range nodeLines(d.l.g, n) {
		class := "fact"
		if line.reason {
			class = fmt.Sprintf("fact why%d", int(n.Status))
		}
		d.say(`<text class="%s" x="%d" y="%d">%s</text>`, class, b.x+nodePad, y+(j+1)*lineHeight+2, escaped(line.text))
	}
	if s := n.Status.String(); s != "" {
		w := width(s, fontSize-1) + 12
		d.say(`<rect class="tag" x="%d" y="%d" width="%d" height="15" rx="7"/>`, b.x+b.w-w-8, b.y-8, w)
		d.say(`<text class="tag-text" x="%d" y="%d">%s</text>`, b.x+b.w-w-2, b.y+3, s)
	}
	d.say("</g>\n")
}

// wire draws an edge with round corners. A redirection has an arrow where it leads to.
func (d *drawing) wire(w *wire) {
	e := &d.l.g.Edges[w.edge]
	p := w.points
	class := fmt.Sprintf("r%d", int(e.Relation)) + statusClass(e.Status)
	d.say(`<g>`)
	d.tooltip(e.Details)
	d.say(`<path class="wire %s" d="M%d %d`, class, p[0].x, p[0].y)
	for i := 1; i < len(p)-1; i++ {
		a, b, c := p[i-1], p[i], p[i+1]
		r := min(7, dist(a, b)/2, dist(b, c)/2)
		from, to := toward(b, a, r), toward(b, c, r)
		d.say(`L%d %dQ%d %d %d %d`, from.x, from.y, b.x, b.y, to.x, to.y)
	}
	last := p[len(p)-1]
	d.say(`L%d %d"/>`, last.x, last.y)
	if e.Relation == Redirect {
		h := 8
		if p[1].y < p[0].y {
			h = -8
		}
		d.say(`<path class="tip %s" d="M%d %dl-5 %dh10z"/>`, class, p[0].x, p[0].y, h)
	}
	d.say("</g>\n")
}

func dist(a, b point) int { return max(a.x-b.x, b.x-a.x) + max(a.y-b.y, b.y-a.y) }

// toward is the point r pixels from a on the way to b, which is beside or above it.
func toward(a, b point, r int) point {
	step := func(from, to int) int {
		switch {
		case to > from:
			return from + r
		case to < from:
			return from - r
		}
		return from
	}
	return point{step(a.x, b.x), step(a.y, b.y)}
}
