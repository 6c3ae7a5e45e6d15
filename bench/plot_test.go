package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPlot(t *testing.T) {
	r, folder := exampleResults(), filepath.Join(t.TempDir(), "plots")
	file := filepath.Join(t.TempDir(), "example.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"-plot", folder, file}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"throughput", "cpu", "rtt", "memory"} {
		path := filepath.Join(folder, "example-"+name)
		svg, err := os.ReadFile(path + ".svg")
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		decoder := xml.NewDecoder(bytes.NewReader(svg))
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if text, ok := token.(xml.CharData); ok {
				texts = append(texts, string(text))
			}
		}
		for _, want := range []string{"culvert, own wire", "wireguard-go", r.plotSubtitle()} {
			if name != "memory" && !slices.Contains(texts, want) {
				t.Errorf("%s: no text %q in %q", name, want, texts)
			}
		}
		f, err := os.Open(path + ".png")
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.DecodeConfig(f)
		f.Close()
		if err != nil || img.Width != plotWidth*pngScale {
			t.Errorf("%s: %+v, %v", name, img, err)
		}
		if !strings.Contains(out.String(), path+".png\n") {
			t.Errorf("%s is not told of", path)
		}
	}
}

// TestPlotOfNoTunnels: a file that has nothing to draw does not keep the others from being drawn, and is told of.
func TestPlotOfNoTunnels(t *testing.T) {
	folder := t.TempDir()
	tunnels, engine := filepath.Join(folder, "tunnels.json"), filepath.Join(folder, "engine.json")
	if err := errors.Join(exampleResults().save(tunnels), (&Results{Format: resultsFormat}).save(engine)); err != nil {
		t.Fatal(err)
	}
	var out, told strings.Builder
	if err := run(t.Context(), []string{"-plot", folder, engine, tunnels}, &out, &told); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "tunnels-memory.png\n") || told.String() != engine+": no tunnels to draw\n" {
		t.Errorf("drawn %q, told %q", out.String(), told.String())
	}
	if err := run(t.Context(), []string{"-plot", folder, engine}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), engine) {
		t.Errorf("nothing drawn: %v", err)
	}
}

// TestPlotBars wants bars as long as what they stand for, and each within the picture.
func TestPlotBars(t *testing.T) {
	r := exampleResults()
	c := r.draw(partTunnel, plotFigures()[0])
	var bars []shape
	for _, s := range c.shapes {
		if s.text == "" && s.h == plotBar {
			bars = append(bars, s)
		}
		if s.x < 0 || s.y < 0 || s.x+s.w > c.width || s.y+s.h > c.height {
			t.Errorf("%+v is outside %vx%v", s, c.width, c.height)
		}
	}
	// Of medians 9 (native, one round), 7 and 3.5: culvert's first.
	if len(bars) != 3 || bars[0].fill != plotNative || bars[1].fill != plotWireGuard || bars[2].fill != plotOthers ||
		math.Abs(bars[1].w/bars[2].w-2) > 1e-9 || math.Abs(bars[0].w/bars[1].w-9.0/7) > 1e-9 {
		t.Errorf("bars %+v", bars)
	}
	if c := (&Results{}).draw(partTunnel, plotFigures()[0]); c != nil {
		t.Error("a picture of nothing")
	}
}

func TestPlotArguments(t *testing.T) {
	for _, args := range [][]string{{"-plot", "x"}, {"-plot", "x", "-compare", "y"}} {
		if _, err := parseOptions(args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
