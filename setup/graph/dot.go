package graph

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// DOT writes the graph in graphviz's language.
func (g *Graph) DOT(w io.Writer) error {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	say("digraph culvert {\n")
	say("\trankdir=BT;\n\tcompound=true;\n\tfontname=\"sans-serif\";\n\tnode [shape=box, style=rounded, fontname=\"monospace\", fontsize=10];\n")
	say("\tedge [fontname=\"sans-serif\", fontsize=9];\n")
	if g.Title != "" {
		say("\tlabel=%s;\n\tlabelloc=t;\n", quoted(g.Title))
	}
	node := func(i int) {
		n := &g.Nodes[i]
		head := n.Name
		if t := typeText(n); t != "" {
			head += "  (" + t + ")"
		}
		if n.Power == Down {
			head += " down"
		}
		if s := n.Status.String(); s != "" {
			head += "  [" + s + "]"
		}
		lines := []string{head}
		for _, l := range nodeLines(g, n) {
			lines = append(lines, l.text)
		}
		style, color := "rounded", familyPaint[n.family()].light
		if n.External || n.Status == Missing {
			style += ",dashed"
		}
		shape := "box"
		if n.Shape != Device {
			shape = "ellipse"
			style = strings.TrimPrefix(strings.TrimPrefix(style, "rounded"), ",")
		}
		if n.Status != Same {
			color = statusPaint[n.Status].light
		}
		say("n%d [label=%s, tooltip=%s, shape=%s, style=%s, color=%s];\n", i, quotedLines(lines), quoted(strings.Join(n.Details, "\n")),
			shape, quoted(style), quoted(color))
	}
	for i := range g.Spaces {
		s := &g.Spaces[i]
		say("\tsubgraph cluster_%d {\n\t\tlabel=%s;\n\t\tstyle=rounded;\n\t\tcolor=%s;\n", i, quoted(spaceTitle(s)), quoted(frameLine.light))
		empty := true
		for j := range g.Nodes {
			if g.Nodes[j].Shape != Peer && g.Nodes[j].Space == s.Name {
				say("\t\t")
				node(j)
				empty = false
			}
		}
		if empty { // a cluster of nothing would not be drawn
			say("\t\tempty%d [label=\"\", style=invis];\n", i)
		}
		say("\t}\n")
	}
	for j := range g.Nodes {
		if g.Nodes[j].Shape == Peer {
			say("\t")
			node(j)
		}
	}
	for _, e := range g.Edges {
		from, to := e.From, e.To
		label := e.Relation.String()
		color := relationPaint[e.Relation].light
		var style []string
		if e.Relation == Serves {
			style = append(style, "dotted")
		}
		if e.Relation == Reaches || e.Status == Missing {
			style = append(style, "dashed")
		}
		arrow := "none"
		switch e.Relation {
		case Stacked, Serves: // what is on top is drawn above
			from, to = to, from
		case Redirect:
			arrow = "forward"
		case Cross:
			arrow = "both"
		}
		if e.Label != "" {
			label += "\n" + e.Label
		}
		if s := e.Status.String(); s != "" {
			label += "\n" + s
			color = statusPaint[e.Status].light
		}
		flat := ""
		if e.Relation == Cable || e.Relation == Cross {
			flat = ", constraint=false"
		}
		say("\tn%d -> n%d [label=%s, tooltip=%s, dir=%s, color=%s, style=%s%s];\n", from, to, quoted(label),
			quoted(strings.Join(e.Details, "\n")), arrow, quoted(color), quoted(strings.Join(style, ",")), flat)
	}
	say("}\n")
	_, err := w.Write(b.Bytes())
	return err
}

// dotEscapes: within a label a backslash begins an escape sequence such as \N, the node's name, and graphviz replaces entities of HTML
// as well. So both are spelled out.
var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;", "\n", `\n`)

// quoted is a text as a quoted string.
func quoted(s string) string { return `"` + dotEscapes.Replace(s) + `"` }

// quotedLines are lines, each on the left.
func quotedLines(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(dotEscapes.Replace(l) + `\l`)
	}
	return `"` + b.String() + `"`
}
