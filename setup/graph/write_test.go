package graph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"culvert/setup/model"
)

// readSVG checks that a picture is well-formed and harmless, and returns its texts.
func readSVG(svg []byte) (texts []string, err error) {
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts, nil
		}
		if err != nil {
			return nil, err
		}
		switch v := token.(type) {
		case xml.StartElement:
			if !slices.Contains([]string{"svg", "g", "title", "style", "rect", "path", "circle", "text", "tspan"}, v.Name.Local) {
				return nil, fmt.Errorf("element %s", v.Name.Local)
			}
			for _, a := range v.Attr {
				if strings.HasPrefix(a.Name.Local, "on") || strings.Contains(a.Name.Local, "href") || strings.Contains(a.Value, "url(") {
					return nil, fmt.Errorf("attribute %s=%q", a.Name.Local, a.Value)
				}
			}
		case xml.CharData:
			texts = append(texts, string(v))
		case xml.ProcInst, xml.Directive, xml.Comment:
			return nil, fmt.Errorf("%T", v)
		}
	}
}

// readDOT checks that a text is in graphviz's language, as far as it is used, and returns its quoted strings.
func readDOT(dot string) (quoted []string, err error) {
	i, depth, brackets := 0, 0, 0
	for i < len(dot) {
		c := dot[i]
		switch {
		case c == '"':
			j := i + 1
			for j < len(dot) && dot[j] != '"' {
				if dot[j] == '\\' {
					j++
				}
				if j < len(dot) && (dot[j] < ' ' || dot[j] == 0x7f) {
					return nil, fmt.Errorf("control character %q in a string", dot[j])
				}
				j++
			}
			if j >= len(dot) {
				return nil, errors.New("a string without end")
			}
			quoted = append(quoted, dot[i+1:j])
			i = j + 1
			continue
		case c == '{':
			depth++
		case c == '}':
			depth--
		case c == '[':
			brackets++
		case c == ']':
			brackets--
		case c == '-' && strings.HasPrefix(dot[i:], "->"):
			i++
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_=,; \t\n", c) >= 0:
		default:
			return nil, fmt.Errorf("%q outside a string", dot[i:min(i+20, len(dot))])
		}
		if depth < 0 || brackets < 0 || brackets > 1 {
			return nil, fmt.Errorf("brackets at %d", i)
		}
		i++
	}
	if depth != 0 || brackets != 0 {
		return nil, errors.New("open brackets")
	}
	return quoted, nil
}

// hostileNames are names made of what means something to XML, CSS, graphviz or a terminal.
func hostileNames(r *rand.Rand) string {
	parts := []string{"<", ">", "&", `"`, "'", `\`, `\N`, "]]>", "<!--", "-->", "{", "}", "|", "\x00", "\x1b[2J", "\xff", "\u202e", "\ufffe", "&lt;", "é", "漢", "\n", " ", "a"}
	var b strings.Builder
	for range 1 + r.IntN(8) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return b.String()
}

func TestOutputIsWellFormed(t *testing.T) {
	check := func(name string, g *Graph) {
		t.Helper()
		svg, dot := drawn(t, g)
		if _, err := readSVG(svg); err != nil {
			t.Errorf("%s: SVG: %v", name, err)
		}
		if _, err := readDOT(string(dot)); err != nil {
			t.Errorf("%s: DOT: %v", name, err)
		}
	}
	for _, s := range scenes {
		check(s.name, New(s.make()))
	}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		var items []model.Item
		refs := make([]model.Ref, 1+r.IntN(6))
		for i := range refs {
			refs[i] = model.NewRef(hostileNames(r), hostileNames(r))
			value := func() model.Value { return model.Value(hostileNames(r)) }
			items = append(items,
				model.Item{ID: model.NetnsID(refs[i].Netns())},
				model.Item{ID: model.LinkID(refs[i]), Fields: model.Fields{"type": value(), "mac": value(), "parent": model.Link(refs[r.IntN(i+1)])}},
				model.Item{ID: model.AttachmentID(refs[i]), Fields: model.Fields{"master": model.Link(refs[r.IntN(i+1)]), "vlans": value()}},
				model.Item{ID: model.ProcessID(hostileNames(r)), Fields: model.Fields{"program": value(), "link": model.Link(refs[i]), "netns": value()}},
				model.Item{ID: model.RouteID(refs[i].Netns(), "254", hostileNames(r), "0"), Fields: model.Fields{"gateway": value()}})
		}
		check(fmt.Sprint("seed ", seed), New(Source{Title: hostileNames(r), Items: items, Peers: map[model.Ref][]string{refs[0]: {hostileNames(r)}}}))
	}
}

// Names and settings are in the picture, tooltips included, and in the text for graphviz.
func TestOutputNamesEverything(t *testing.T) {
	for _, s := range scenes {
		g := New(s.make())
		svg, dot := drawn(t, g)
		texts, err := readSVG(svg)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range g.Nodes {
			if !slices.Contains(texts, cut(n.Name, nameCells)) {
				t.Errorf("%s: %q is not in the picture", s.name, n.Name)
			}
			if !slices.Contains(texts, strings.Join(n.Details, "\n")) {
				t.Errorf("%s: the details of %q are not in the picture", s.name, n.Name)
			}
			if st := n.Status.String(); st != "" && !slices.Contains(texts, st) {
				t.Errorf("%s: %q is not in the picture", s.name, st)
			}
			if !strings.Contains(string(dot), dotEscapes.Replace(n.Name)) {
				t.Errorf("%s: %q is not in the DOT", s.name, n.Name)
			}
		}
		if got := strings.Count(string(dot), " -> n"); got < len(g.Edges) {
			t.Errorf("%s: %d edges in the DOT, want %d", s.name, got, len(g.Edges))
		}
	}
}

// The order in which things are given changes nothing.
func TestOutputIsDeterministic(t *testing.T) {
	for _, s := range scenes {
		source := s.make()
		svg, dot := drawn(t, New(source))
		for seed := range uint64(3) {
			r := rand.New(rand.NewPCG(seed, 3))
			source.Items = slices.Clone(source.Items)
			r.Shuffle(len(source.Items), func(i, j int) { source.Items[i], source.Items[j] = source.Items[j], source.Items[i] })
			source.Peers = maps.Clone(source.Peers)
			again, dotAgain := drawn(t, New(source))
			if !bytes.Equal(svg, again) || !bytes.Equal(dot, dotAgain) {
				t.Errorf("%s: another picture from the same things in another order", s.name)
			}
		}
	}
}

// Where graphviz is installed, it takes what is written for it.
func TestGraphvizReadsDOT(t *testing.T) {
	path, err := exec.LookPath("dot")
	if err != nil {
		t.Log("graphviz is not installed: only the reader of this test has read it")
		return
	}
	for _, s := range scenes {
		g := New(s.make())
		_, dot := drawn(t, g)
		c := exec.CommandContext(t.Context(), path, "-Tplain")
		c.Stdin = bytes.NewReader(dot)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil || strings.Contains(stderr.String(), "syntax") {
			t.Errorf("%s: %v: %s", s.name, err, stderr.String())
		}
		if got := strings.Count(string(out), "\nedge "); got != len(g.Edges) {
			t.Errorf("%s: graphviz has %d edges, want %d", s.name, got, len(g.Edges))
		}
	}
}

func TestReadersOfThisTestRefuse(t *testing.T) {
	for _, dot := range []string{`digraph { a [label="x]; }`, `digraph { a -> b; `, "digraph { a [label=\"\x1b\"]; }", `digraph { <b>; }`} {
		if _, err := readDOT(dot); err == nil {
			t.Errorf("%q was taken", dot)
		}
	}
	for _, svg := range []string{"<svg><script/></svg>", "<svg><g></svg>", `<svg><g onclick="x"/></svg>`, "<svg><text>\x1b</text></svg>"} {
		if _, err := readSVG([]byte(svg)); err == nil {
			t.Errorf("%q was taken", svg)
		}
	}
}
