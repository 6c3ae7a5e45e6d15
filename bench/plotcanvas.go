package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// canvas is a picture of rectangles and texts, which is all that bars need. It is written as SVG and as PNG. Lengths are in pixels
// of the SVG; the PNG has pngScale times as many.
type canvas struct {
	width, height float64
	shapes        []shape
}

const pngScale = 2

// shape is a rectangle, or a text where that is not empty: of a size (the em), at its baseline.
type shape struct {
	x, y, w, h float64
	fill       color.RGBA

	text   string
	size   float64
	bold   bool
	anchor anchor
}

// anchor is which end of a text is at its place.
type anchor int

const (
	fromLeft anchor = iota
	toRight         // the text ends there
)

func (c *canvas) rect(x, y, w, h float64, fill color.RGBA) {
	c.shapes = append(c.shapes, shape{x: x, y: y, w: w, h: h, fill: fill})
}

func (c *canvas) write(x, y, size float64, a anchor, bold bool, fill color.RGBA, text string) {
	c.shapes = append(c.shapes, shape{x: x, y: y, fill: fill, text: text, size: size, bold: bold, anchor: a})
}

// svg returns the picture on a white ground, so that it is the same on a dark page.
func (c *canvas) svg() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" viewBox="0 0 %[1]g %[2]g" font-family="Go, Helvetica, Arial, sans-serif">`+"\n",
		c.width, c.height)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="#ffffff"/>`+"\n", c.width, c.height)
	for _, s := range c.shapes {
		fill := fmt.Sprintf("#%02x%02x%02x", s.fill.R, s.fill.G, s.fill.B)
		if s.text == "" {
			fmt.Fprintf(&b, `<rect x="%s" y="%s" width="%s" height="%s" fill="%s"/>`+"\n", coordinate(s.x), coordinate(s.y), coordinate(s.w),
				coordinate(s.h), fill)
			continue
		}
		attributes := ""
		if s.bold {
			attributes += ` font-weight="bold"`
		}
		if s.anchor == toRight {
			attributes += ` text-anchor="end"`
		}
		var text strings.Builder
		_ = xml.EscapeText(&text, []byte(s.text)) // a Builder takes everything
		fmt.Fprintf(&b, `<text x="%s" y="%s" font-size="%g" fill="%s"%s>%s</text>`+"\n", coordinate(s.x), coordinate(s.y), s.size, fill, attributes,
			text.String())
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// coordinate has a tenth of a pixel.
func coordinate(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

// typeface has the faces of one weight by their size in pixels of the PNG.
type typeface struct {
	font  *opentype.Font
	faces map[float64]font.Face
}

func newTypeface(ttf []byte) (*typeface, error) {
	f, err := opentype.Parse(ttf)
	return &typeface{f, map[float64]font.Face{}}, err
}

func (t *typeface) face(size float64) (face font.Face, err error) {
	if face = t.faces[size]; face == nil {
		// At 72 dots per inch a point is a pixel.
		if face, err = opentype.NewFace(t.font, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingNone}); err == nil {
			t.faces[size] = face
		}
	}
	return face, err
}

// png returns the picture on a white ground.
func (c *canvas) png() ([]byte, error) {
	regular, err := newTypeface(goregular.TTF)
	if err != nil {
		return nil, err
	}
	bold, err := newTypeface(gobold.TTF)
	if err != nil {
		return nil, err
	}
	pixel := func(v float64) int { return int(math.Round(v * pngScale)) }
	img := image.NewRGBA(image.Rect(0, 0, pixel(c.width), pixel(c.height)))
	draw.Draw(img, img.Bounds(), image.White, image.Point{}, draw.Src)
	for _, s := range c.shapes {
		if s.text == "" {
			area := image.Rect(pixel(s.x), pixel(s.y), pixel(s.x+s.w), pixel(s.y+s.h))
			draw.Draw(img, area, image.NewUniform(s.fill), image.Point{}, draw.Src)
			continue
		}
		t := regular
		if s.bold {
			t = bold
		}
		face, err := t.face(s.size * pngScale)
		if err != nil {
			return nil, err
		}
		pen := font.Drawer{Dst: img, Src: image.NewUniform(s.fill), Face: face, Dot: fixed.P(pixel(s.x), pixel(s.y))}
		if s.anchor == toRight {
			pen.Dot.X -= pen.MeasureString(s.text)
		}
		pen.DrawString(s.text)
	}
	var b bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, img)
	return b.Bytes(), err
}
