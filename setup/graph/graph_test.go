package graph

import (
	"bytes"
	"path/filepath"
	"testing"

	"culvert/internal/golden"
)

func drawn(t *testing.T, g *Graph) (svg, dot []byte) {
	t.Helper()
	var a, b bytes.Buffer
	if err := g.SVG(&a); err != nil {
		t.Fatal(err)
	}
	if err := g.DOT(&b); err != nil {
		t.Fatal(err)
	}
	return a.Bytes(), b.Bytes()
}

func TestScenes(t *testing.T) {
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			svg, dot := drawn(t, New(s.make()))
			golden.Check(t, filepath.Join("testdata", s.name+".svg"), string(svg))
			golden.Check(t, filepath.Join("testdata", s.name+".dot"), string(dot))
		})
	}
}
