package main

import (
	"image/color"
	"math"
	"slices"
)

// plotRow is an implementation in a picture.
type plotRow struct {
	name, label  string
	fill, behind color.RGBA
	bold         bool
}

// The colours of culvert's wires are blue and orange of Okabe and Ito's palette, which everybody can tell apart, and all else is grey.
// Labels say everything that colours say.
var (
	plotNative        = color.RGBA{0x00, 0x72, 0xb2, 0xff}
	plotNativePale    = color.RGBA{0xc4, 0xde, 0xec, 0xff}
	plotWireGuard     = color.RGBA{0xe6, 0x9f, 0x00, 0xff}
	plotWireGuardPale = color.RGBA{0xf8, 0xe4, 0xb8, 0xff}
	plotOthers        = color.RGBA{0x8c, 0x8c, 0x8c, 0xff}
	plotOffered       = color.RGBA{0xe2, 0xe2, 0xe2, 0xff}
	plotCeiling       = color.RGBA{0xc4, 0xc4, 0xc4, 0xff}
	plotInk           = color.RGBA{0x1f, 0x23, 0x28, 0xff}
	plotSoft          = color.RGBA{0x57, 0x60, 0x6a, 0xff}
	plotRule          = color.RGBA{0xd8, 0xde, 0xe4, 0xff}
)

const (
	plotWidth   = 960
	plotMargin  = 24
	plotLabel   = 150 // width of the names
	plotRowStep = 22
	plotBar     = 14
	plotValue   = 46 // width of the figure behind a bar
	plotValues  = 78 // width of two figures
	plotGap     = 18 // between columns
)

var plotSections = map[underlay]string{
	withOffloads:    "Underlay passes trains of datagrams whole",
	withoutOffloads: "Underlay carries each datagram by itself",
}

// draw returns a picture; nil where nothing of it was measured.
func (r *Results) draw(of part, f plotFigure) *canvas {
	has := func(c plotColumn, u underlay, name string) bool {
		return len(r.values(of, u, name, quantity{of: c.of})) > 0
	}
	rows := r.plotRows(of)
	columns := slices.DeleteFunc(slices.Clone(f.columns), func(c plotColumn) bool {
		return !slices.ContainsFunc(r.Options.Underlays, func(u underlay) bool {
			return slices.ContainsFunc(rows, func(row plotRow) bool { return has(c, u, row.name) })
		})
	})
	if len(columns) == 0 {
		return nil
	}
	rows = slices.DeleteFunc(rows, func(row plotRow) bool {
		return !slices.ContainsFunc(r.Options.Underlays, func(u underlay) bool {
			return slices.ContainsFunc(columns, func(c plotColumn) bool { return has(c, u, row.name) })
		})
	})
	c := &canvas{width: plotWidth}
	y := float64(plotMargin) + 16
	c.write(plotMargin, y, 20, fromLeft, true, plotInk, f.title)
	y += 22
	c.write(plotMargin, y, 12, fromLeft, false, plotSoft, f.note)
	y += 8
	width := (plotWidth - 2*plotMargin - plotLabel - float64(len(columns)-1)*plotGap) / float64(len(columns))
	for _, u := range r.Options.Underlays {
		y += 30
		c.write(plotMargin, y, 13, fromLeft, true, plotInk, plotSections[u])
		y += 8
		c.rect(plotMargin, y, plotWidth-2*plotMargin, 1, plotRule)
		y += 18
		for i, column := range columns {
			x := plotMargin + plotLabel + float64(i)*(width+plotGap)
			c.write(x, y, 12, fromLeft, true, plotSoft, column.title+", "+column.unit)
			r.drawColumn(c, of, u, column, rows, x, y+10, width)
		}
		y += 10
		for _, row := range rows {
			c.write(plotMargin+plotLabel-10, y+plotBar-2.5, 12.5, toRight, row.bold, plotInk, row.label)
			y += plotRowStep
		}
	}
	y += 14
	c.rect(plotMargin, y, plotWidth-2*plotMargin, 1, plotRule)
	y += 18
	c.write(plotMargin, y, 11, fromLeft, false, plotSoft, r.plotSubtitle())
	if slices.ContainsFunc(rows, func(row plotRow) bool { return row.name == relayName }) {
		y += 16
		c.write(plotMargin, y, 11, fromLeft, false, plotSoft,
			"relay: culvert's datapath with a copy in place of cryptography, peers and routing; what the design can reach")
	}
	c.height = math.Ceil(y + 14)
	return c
}

// drawColumn draws the bars of one quantity over one underlay, from y on, each with the range of the rounds and the median.
func (r *Results) drawColumn(c *canvas, of part, u underlay, column plotColumn, rows []plotRow, x, y, width float64) {
	spreads := func(f func(*Trial) (float64, bool)) (list []spread, most float64) {
		list = make([]spread, len(rows))
		for i, row := range rows {
			if f != nil {
				list[i], _ = spreadOf(r.values(of, u, row.name, quantity{of: f}))
			}
			most = max(most, list[i].high)
		}
		return list, most
	}
	bars, most := spreads(column.of)
	behind, offered := spreads(column.behind)
	most = max(most, offered)
	if most == 0 {
		return
	}
	room := float64(plotValue)
	if column.behind != nil {
		room = plotValues
	}
	scale := (width - room) / most
	for i, row := range rows {
		top := y + float64(i)*plotRowStep
		b := bars[i]
		if b == (spread{}) {
			c.write(x+4, top+plotBar-3, 11, fromLeft, false, plotSoft, "not measured")
			continue
		}
		if behind[i].median > 0 {
			c.rect(x, top, behind[i].median*scale, plotBar, row.behind)
		}
		c.rect(x, top, max(b.median*scale, 1), plotBar, row.fill)
		if b.high > b.low {
			middle := top + plotBar/2
			c.rect(x+b.low*scale, middle-0.5, (b.high-b.low)*scale, 1, plotInk)
			for _, end := range []float64{b.low, b.high} {
				c.rect(x+end*scale-0.5, middle-3, 1, 6, plotInk)
			}
		}
		text := figure(b.median)
		if behind[i].median > 0 {
			text += " of " + figure(behind[i].median)
		}
		c.write(x+max(b.high, behind[i].median)*scale+5, top+plotBar-3, 11.5, fromLeft, row.bold, plotInk, text)
	}
	c.rect(x-1, y-3, 1, float64(len(rows))*plotRowStep, plotRule)
}
