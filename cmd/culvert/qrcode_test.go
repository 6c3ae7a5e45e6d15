package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rsc.io/qr"
)

// A code is the same on a terminal, as PNG and as SVG, with its margin; its files are for their owner alone, and take nothing's place.
func TestPictures(t *testing.T) {
	const link = "culvert://vpn.example.net:51820/#AAECAwQFBgcICQoLDA0ODw"
	code, err := qr.Encode(link, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := picture{terminal: true, png: filepath.Join(dir, "a.png"), svg: filepath.Join(dir, "a.svg")}
	var out bytes.Buffer
	if err := p.draw(&out, link); err != nil {
		t.Fatal(err)
	}
	same := func(what string, dark func(x, y int) bool) {
		t.Helper()
		for y := -quiet; y < code.Size+quiet; y++ {
			for x := -quiet; x < code.Size+quiet; x++ {
				if want := x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y); dark(x, y) != want {
					t.Fatalf("%s: the module %d, %d is wrong, want dark: %v", what, x, y, want)
				}
			}
		}
	}

	// Two rows a line, light on dark.
	var lines [][]rune
	for line := range strings.Lines(out.String()) {
		line, ok := strings.CutPrefix(strings.TrimSuffix(line, "\x1b[0m\n"), "\x1b[40;97m")
		if !ok || len([]rune(line)) != code.Size+2*quiet {
			t.Fatalf("a line is %q", line)
		}
		lines = append(lines, []rune(line))
	}
	same("terminal", func(x, y int) bool {
		c := lines[(y+quiet)/2][x+quiet]
		if (y+quiet)%2 == 0 {
			return c == ' ' || c == '▄'
		}
		return c == ' ' || c == '▀'
	})

	f, err := os.Open(p.png)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picturePNG, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	scale := picturePNG.Bounds().Dx() / (code.Size + 2*quiet)
	if scale < 2 || picturePNG.Bounds().Dy() != scale*(code.Size+2*quiet) {
		t.Fatalf("the PNG is of %v", picturePNG.Bounds())
	}
	same("PNG", func(x, y int) bool {
		return color.GrayModel.Convert(picturePNG.At((x+quiet)*scale+scale/2, (y+quiet)*scale+scale/2)).(color.Gray).Y < 128
	})

	text, err := os.ReadFile(p.svg)
	if err != nil {
		t.Fatal(err)
	}
	var svg struct {
		ViewBox string `xml:"viewBox,attr"`
		Paths   []struct {
			D string `xml:"d,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal(text, &svg); err != nil || len(svg.Paths) != 2 || svg.ViewBox != fmt.Sprintf("0 0 %[1]d %[1]d", code.Size+2*quiet) {
		t.Fatalf("%v, %+v", err, svg)
	}
	squares := map[[2]int]bool{}
	for _, square := range strings.Split(strings.TrimSuffix(svg.Paths[1].D, "z"), "z") {
		var x, y int
		if n, err := fmt.Sscanf(square, "M%d %dh1v1h-1", &x, &y); n != 2 {
			t.Fatalf("%q: %v", square, err)
		}
		squares[[2]int{x - quiet, y - quiet}] = true
	}
	same("SVG", func(x, y int) bool { return squares[[2]int{x, y}] })

	for _, path := range []string{p.png, p.svg} {
		if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
		if err := (&picture{png: path}).draw(&out, "another"); err == nil {
			t.Errorf("%s is written over", path)
		}
		if err := (&picture{svg: path}).draw(&out, "another"); err == nil {
			t.Errorf("%s is written over", path)
		}
	}
	out.Reset()
	if err := (&picture{}).draw(&out, link); err != nil || out.Len() > 0 {
		t.Errorf("nothing is asked for: %v, %q", err, &out)
	}
	if err := (&picture{terminal: true}).draw(&out, strings.Repeat("x", 3000)); err == nil || out.Len() > 0 {
		t.Error("what no code can hold is drawn")
	}
}
