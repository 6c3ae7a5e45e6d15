package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// plotFigure is a picture of a result file: one column for each quantity, one section for each underlay.
type plotFigure struct {
	name    string // of the file
	title   string
	note    string // what is good, and what else there is to see
	columns []plotColumn
}

// plotColumn is one quantity. Behind its bars are those of another one, where there is one: what was offered.
type plotColumn struct {
	title, unit string
	of          func(*Trial) (float64, bool)
	behind      func(*Trial) (float64, bool)
}

// plotFigures are the pictures of a part.
func plotFigures() []plotFigure {
	figures := []plotFigure{
		{name: "throughput", title: "TCP throughput through a tunnel", note: "more is better"},
		{name: "cpu", title: "CPU time that a gigabyte takes, of both daemons", note: "less is better"},
		{name: "udp", title: "UDP packets delivered without loss", note: "more is better"},
		{name: "overload", title: "UDP packets delivered when too many are offered",
			note: "more is better; the pale bar is what was offered, by a load that competes with the tunnel for the same cores"},
		{name: "rtt", title: "Round-trip time of a ping", note: "less is better; loaded: beside one TCP flow"},
		{name: "memory", title: "Peak resident memory of a daemon", note: "less is better; of the end that has more",
			columns: []plotColumn{{title: "all of the trial", unit: "MB", of: peakOf}}},
	}
	for _, s := range []struct {
		title string
		flows int
		way   way
	}{{"1 flow", 1, forward}, {"4 flows", 4, forward}, {"64 flows", 64, forward}, {"1 flow each way", 1, both}} {
		figures[0].columns = append(figures[0].columns, plotColumn{title: s.title, unit: "Gbit/s", of: speed(s.flows, s.way)})
		figures[1].columns = append(figures[1].columns, plotColumn{title: s.title, unit: "s/GB", of: daemonCost(s.flows, s.way, bothEnds)})
	}
	for _, size := range []int{64, 200, 512, 1372} {
		title, unit := fmt.Sprintf("%d bytes", size), "kpackets/s"
		over := func(t *Trial) *UDPRun {
			return runOf(t, size, func(u *UDP) *UDPRun { return cmp.Or(u.Overload, u.Flood) })
		}
		figures[2].columns = append(figures[2].columns, plotColumn{title: title, unit: unit, of: lossFree(size)})
		figures[3].columns = append(figures[3].columns, plotColumn{title: title, unit: unit, of: delivered(over), behind: offered(over)})
	}
	for _, s := range []struct {
		title  string
		of     func(*Trial) *Times
		figure func(*Times) float64
	}{{"idle, median", rttIdle, middle}, {"idle, p99", rttIdle, p99}, {"loaded, median", rttLoaded, middle}, {"loaded, p99", rttLoaded, p99}} {
		figures[4].columns = append(figures[4].columns, plotColumn{title: s.title, unit: "ms", of: timed(s.of, s.figure)})
	}
	return figures
}

// plotFiles writes the pictures of result files to a folder, which it makes: FILE-FIGURE.svg and .png, of Ethernet tunnels
// FILE-tap-FIGURE. It returns their names, and those of the files that have nothing to draw; that none has anything is an error.
func plotFiles(folder string, files []string) (written, without []string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		r, err := loadResults(file)
		if err != nil {
			return written, without, err
		}
		base := strings.TrimSuffix(filepath.Base(file), ".json")
		some := false
		for _, of := range []part{partTunnel, partTap} {
			for _, f := range plotFigures() {
				c := r.draw(of, f)
				if c == nil {
					continue
				}
				some = true
				name := filepath.Join(folder, base+"-"+f.name)
				if of != partTunnel {
					name = filepath.Join(folder, base+"-"+string(of)+"-"+f.name)
				}
				image, err := c.png()
				err = errors.Join(err, os.WriteFile(name+".svg", c.svg(), 0o644), os.WriteFile(name+".png", image, 0o644))
				if err != nil {
					return written, without, err
				}
				written = append(written, name+".svg", name+".png")
			}
		}
		if !some {
			without = append(without, file)
		}
	}
	if len(written) == 0 {
		return nil, without, fmt.Errorf("%s: no tunnels to draw", strings.Join(files, ", "))
	}
	return written, without, nil
}

// plotSubtitle says where and when, and how often.
func (r *Results) plotSubtitle() string {
	m := r.Machine
	text := fmt.Sprintf("%s, %d cores, %s; %s; %s, %v each", m.CPU, m.Cores, m.Kernel, r.Started.Format(time.DateOnly),
		rounds(r.Options.Rounds), r.measuredFor())
	if m.Commit != "" {
		text += fmt.Sprintf("; commit %.10s", m.Commit)
	}
	return text
}

func rounds(n int) string {
	if n == 1 {
		return "1 round"
	}
	return fmt.Sprintf("%d rounds: median and range", n)
}

// plotRows are the implementations from top to bottom: culvert's first, the ceilings last.
func (r *Results) plotRows(of part) (rows []plotRow) {
	for rank := range 4 {
		for _, i := range r.Implementations {
			if i.part() != of || i.Name == plain {
				continue
			}
			row := plotRow{name: i.Name, label: cmp.Or(plotLabels[i.Name], i.Name), fill: plotOthers, behind: plotOffered}
			at := 2
			switch i.Name {
			case native, nativeTap:
				at, row.fill, row.behind, row.bold = 0, plotNative, plotNativePale, true
			case candidate, tapWide:
				at, row.fill, row.behind, row.bold = 1, plotWireGuard, plotWireGuardPale, true
			case relayName, relayWholeName:
				at, row.fill = 3, plotCeiling
			}
			if at == rank {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// plotLabels say more than the names where that is needed.
var plotLabels = map[string]string{
	native:         "culvert, own wire",
	candidate:      "culvert, WireGuard",
	tailscale.name: "Tailscale's wg-go",
	relayName:      "relay, no crypto",
	relayWholeName: "the same, uncut",
}
