package top

import (
	"math"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Drawn is what a screen may be drawn with besides characters.
type Drawn int

const (
	Plain Drawn = iota // characters alone
	Mono               // bold, faint, and reverse
	Colour
)

// look is what a screen is drawn with. Colours are the terminal's own sixteen, so that its theme holds.
type look struct {
	drawn  Drawn
	levels []rune // of a sparkline, from nothing to full
	reached, idle, trying,
	in, out string // before rates
	inHead, outHead, sorted string
}

func newLook(drawn Drawn, ascii bool) *look {
	l := &look{
		drawn: drawn, levels: []rune(" ▁▂▃▄▅▆▇█"),
		reached: "●", idle: "○", trying: "▲", in: "↓", out: "↑", inHead: "↓ ", outHead: "↑ ", sorted: "▾",
	}
	if ascii {
		l.levels = []rune(" _.-=+*%#")
		l.reached, l.idle, l.trying, l.in, l.out, l.inHead, l.outHead, l.sorted = "+", "-", "!", "in", "out", "", "", "*"
	}
	return l
}

// paint is how text is drawn.
type paint int

const (
	plain paint = iota
	heading
	title
	faint
	good
	warning
	bad
	inward
	outward
	selected
	key
)

// styles tell the paints apart without colours, too, where that matters: colours only add to it.
var styles = map[paint]ansi.Style{
	heading:  ansi.NewStyle().Bold(),
	title:    ansi.NewStyle().Bold().Reverse(true),
	faint:    ansi.NewStyle().Faint(),
	warning:  ansi.NewStyle().Bold(),
	bad:      ansi.NewStyle().Bold(),
	selected: ansi.NewStyle().Reverse(true),
	key:      ansi.NewStyle().Bold(),
}

var colours = map[paint]ansi.Color{good: ansi.Green, warning: ansi.Yellow, bad: ansi.Red, inward: ansi.Cyan, outward: ansi.Magenta}

func (l *look) paint(p paint, text string) string {
	if l.drawn == Plain || text == "" {
		return text
	}
	style := styles[p]
	if c, ok := colours[p]; ok && l.drawn == Colour {
		style = style.ForegroundColor(c)
	}
	if len(style) == 0 {
		return text
	}
	return style.Styled(text)
}

// spark draws values on a scale from 0 to full, one in each column. What is unknown is left out; what is not nothing can be seen.
func (l *look) spark(values []float32, full float32) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteRune(l.levels[l.level(v, full, len(l.levels)-1)])
	}
	return b.String()
}

func (l *look) level(v, full float32, most int) int {
	if !known(v) || v <= 0 || full <= 0 {
		return 0
	}
	return min(max(1, int(math.Round(float64(v/full)*float64(most)))), most)
}

// chart draws values in several lines, from the top.
func (l *look) chart(values []float32, full float32, height int) []string {
	steps := len(l.levels) - 1
	lines := make([]string, height)
	for row := range height {
		var b strings.Builder
		below := (height - 1 - row) * steps
		for _, v := range values {
			b.WriteRune(l.levels[min(max(0, l.level(v, full, steps*height)-below), steps)])
		}
		lines[row] = b.String()
	}
	return lines
}
