package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// quantity is one line of the table.
type quantity struct {
	name, unit string
	best       direction
	of         func(*Trial) (float64, bool) // false where the trial does not have it
	mark       func(*Trial) string          // what to put before it where the load fell short; nil where it cannot
}

// direction says which values of a quantity are good.
type direction int

const (
	neither direction = iota
	less
	more
)

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

// summary is a line of progress.
func (t *Trial) summary() string {
	if t.Error != "" {
		return t.Implementation + "  FAILED: " + t.Error
	}
	text := fmt.Sprintf("%-24s", t.Implementation)
	for _, q := range []quantity{
		{unit: "s/GB", of: daemonCost(1, forward, bothEnds)}, {unit: "Gbit/s", of: speed(1, forward)}, {unit: "Gbit/s", of: speed(4, forward)},
		{unit: "kpps", of: lossFree(64)}, {unit: "kpps", of: lossFree(1372)}, {unit: "requests/s", of: requestRate(1)},
	} {
		if v, ok := q.of(t); ok {
			text += fmt.Sprintf("  %s %s", figure(v), q.unit)
		}
	}
	return text
}

// writeTables prints one table for each underlay of each part.
func writeTables(out io.Writer, r *Results) error {
	m := r.Machine
	text := &strings.Builder{}
	fmt.Fprintf(text, "%s: rounds: %d, each measurement %v", r.Started.Format(time.DateTime+" MST"), r.Options.Rounds, r.measuredFor())
	if engine := len(r.Handshakes) + len(r.Floods) + len(r.Frames) + len(r.Cores); engine > 0 && r.Options.Duration != r.measuredFor() {
		fmt.Fprintf(text, ", of the engine %v", r.Options.Duration)
	}
	fmt.Fprintln(text)
	fmt.Fprintf(text, "%s, %d cores, %.1f GB, %s, %s, TCP %s\n", m.CPU, m.Cores, float64(m.MemoryBytes)/1e9, m.Kernel, m.Go, m.TCP)
	for _, i := range r.Implementations {
		if len(i.Command) == 0 {
			continue
		}
		fmt.Fprintf(text, "%s: version %s", i.Name, cmp.Or(i.Version, "unknown"))
		if i.Settings == "" {
			fmt.Fprintf(text, ", %s", cmp.Or(i.Go, "compiler unknown"))
		}
		if i.Revision != "" {
			fmt.Fprintf(text, ", commit %.12s", i.Revision)
		}
		if i.Modified {
			text.WriteString(" with changes")
		}
		if i.Settings != "" {
			fmt.Fprintf(text, ", %s", i.Settings)
		}
		if i.MTU != 0 {
			fmt.Fprintf(text, ", MTU %d", i.MTU)
		}
		text.WriteByte('\n')
	}
	for _, m := range r.NotMeasured {
		fmt.Fprintf(text, "not measured: %s\n", m)
	}
	for _, of := range []part{partTunnel, partTap} {
		for _, u := range r.Options.Underlays {
			writeTable(text, r, of, u)
		}
	}
	writeHandshakeTable(text, r)
	writeFloodTable(text, r)
	writeFrameTable(text, r)
	writeCoresTable(text, r)
	writeSetupTable(text, r)
	writePeersTable(text, r)
	writeSoakTable(text, r)
	writeRecoveryTable(text, r)
	for _, t := range r.Trials {
		if t.Error != "" {
			fmt.Fprintf(text, "\nincomplete: round %d, %s over %s: %s\n", t.Round, t.Implementation, t.Underlay, t.Error)
		}
	}
	for _, t := range r.Handshakes {
		if t.Error != "" {
			fmt.Fprintf(text, "\nincomplete: round %d, handshakes on wire %s: %s\n", t.Round, t.Wire, t.Error)
		}
	}
	for _, t := range r.Floods {
		if t.Error != "" {
			fmt.Fprintf(text, "\nincomplete: round %d, flood %s: %s\n", t.Round, t.Flood, t.Error)
		}
	}
	for _, t := range r.Frames {
		if t.Error != "" {
			fmt.Fprintf(text, "\nincomplete: round %d, frames %s: %s\n", t.Round, t.Frames, t.Error)
		}
	}
	for _, t := range r.Cores {
		if t.Error != "" {
			fmt.Fprintf(text, "\nincomplete: round %d, %d cores, %s: %s\n", t.Round, t.Cores, t.name(), t.Error)
		}
	}
	for _, t := range r.Setups {
		if t.Error != "" {
			fmt.Fprintf(text, "\nincomplete: round %d, setup of %d devices: %s\n", t.Round, t.Devices, t.Error)
		}
	}
	for _, t := range r.Peers {
		if t.Error != "" {
			fmt.Fprintf(text, "\nincomplete: round %d, %s with %d peers: %s\n", t.Round, t.Implementation, t.Peers, t.Error)
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

var underlayTitles = map[underlay]string{
	withOffloads:    "underlay: veth with offloads, passes trains of datagrams whole",
	withoutOffloads: "underlay: veth without offloads, each datagram by itself",
}

// writeTable prints what was measured of a part over an underlay, if it was at all.
func writeTable(out io.Writer, r *Results, of part, u underlay) {
	names, pairs := r.columns(of)
	if len(names) == 0 {
		return
	}
	title := cmp.Or(underlayTitles[u], string(u))
	if of == partTap {
		title = "Ethernet, " + title
	}
	var groups [][]quantity // with a value
	for _, group := range quantities {
		group = slices.DeleteFunc(slices.Clone(group), func(q quantity) bool {
			return !slices.ContainsFunc(names, func(name string) bool { return len(r.values(of, u, name, q)) > 0 })
		})
		if len(group) > 0 {
			groups = append(groups, group)
		}
	}
	if len(groups) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s\n", title)
	writeGroups(out, groups, names, func(q quantity, i int) string { return r.tunnelCell(of, u, names[i], q) })
	var headings []string
	for _, p := range pairs {
		headings = append(headings, p.heading())
	}
	if len(pairs) == 0 {
		return
	}
	for i, group := range groups {
		groups[i] = slices.DeleteFunc(group, func(q quantity) bool { return q.best == neither })
	}
	groups = slices.DeleteFunc(groups, func(group []quantity) bool { return len(group) == 0 })
	fmt.Fprintf(out, "\n%s: ratios of each round, their median and range\n", title)
	writeGroups(out, groups, headings, func(q quantity, i int) string {
		ratio, verdict := r.ratios(of, u, q, pairs[i])
		return strings.TrimSpace(ratio + "  " + verdict)
	})
}

// writeGroups prints lines under headings, groups of lines parted by an empty one.
func writeGroups(out io.Writer, groups [][]quantity, headings []string, text func(q quantity, column int) string) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t\t%s\n", strings.Join(headings, "\t"))
	for i, group := range groups {
		if i > 0 {
			fmt.Fprintln(w, strings.Repeat("\t", len(headings)+1)) // an empty line would end the columns
		}
		for _, q := range group {
			fmt.Fprintf(w, "%s\t%s", q.name, q.unit)
			for column := range headings {
				fmt.Fprintf(w, "\t%s", text(q, column))
			}
			fmt.Fprintln(w)
		}
	}
	w.Flush()
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(out, strings.TrimRight(line, " \n"))
	}
}

// tunnelCell prints a quantity of all rounds. It says where the load fell short in a round, and of how many rounds the figure is where some have none.
func (r *Results) tunnelCell(of part, u underlay, implementation string, q quantity) string {
	values := r.values(of, u, implementation, q)
	text := cell(values)
	if len(values) == 0 {
		return text
	}
	for i := range r.Trials {
		t := &r.Trials[i]
		if q.mark == nil || t.part() != of || t.Underlay != u || t.Implementation != implementation {
			continue
		}
		if mark := q.mark(t); mark != "" {
			text = mark + text
			break
		}
	}
	if len(values) < r.Options.Rounds {
		text += fmt.Sprintf(" n=%d", len(values))
	}
	return text
}

// measuredFor is the length of each measurement of tunnels, where there are any, else of the engine.
func (r *Results) measuredFor() time.Duration {
	if len(r.Trials)+len(r.Peers) == 0 {
		return r.Options.Duration
	}
	return cmp.Or(r.Options.Window, r.Options.Duration)
}

// pair is what is compared with what: with the best of several, line by line and round by round. best is their heading, where
// there are several.
type pair struct {
	over  string
	under []string
	best  string
}

func (p *pair) heading() string { return p.over + "/" + cmp.Or(p.best, p.under[0]) }

// columns returns what was measured of a part, and what is compared with what.
//
// Tunnels of packets: all with the reference, culvert's native wire, also with each suite forced, with
// WireGuard's, and both wires with the relay. Of frames: culvert with the best of the others, then with itself: frames with packets, an MTU wider than
// the underlay's with one that fits.
func (r *Results) columns(of part) (names []string, pairs []pair) {
	var others []string
	for _, i := range r.Implementations {
		if i.part() != of {
			continue
		}
		names = append(names, i.Name)
		if of == partTap && !slices.Contains([]string{plain, nativeTun, nativeTap, tapWide}, i.Name) {
			others = append(others, i.Name)
		}
	}
	if of == partTap {
		for _, name := range []string{nativeTap, tapWide} {
			if len(others) > 0 {
				pairs = append(pairs, pair{name, others, "best of others"})
			}
		}
		return names, append(pairs, pair{over: nativeTap, under: []string{nativeTun}}, pair{over: tapWide, under: []string{nativeTap}})
	}
	for _, name := range names {
		if !slices.Contains([]string{reference, plain, nativeChaCha, nativeGCM, relayName, relayWholeName}, name) && slices.Contains(names, reference) {
			pairs = append(pairs, pair{over: name, under: []string{reference}})
		}
	}
	for _, name := range names {
		if (name == native || name == nativeChaCha || name == nativeGCM) && slices.Contains(names, candidate) {
			pairs = append(pairs, pair{over: name, under: []string{candidate}})
		}
	}
	// What cryptography and all that belongs to it leave of what the design could reach.
	for _, name := range names {
		if (name == native || name == candidate) && slices.Contains(names, relayName) {
			pairs = append(pairs, pair{over: name, under: []string{relayName}})
		}
	}
	return names, pairs
}

// value returns a quantity of one trial.
func (r *Results) value(of part, u underlay, round int, implementation string, q quantity) (float64, bool) {
	for i := range r.Trials {
		if t := &r.Trials[i]; t.Round == round && t.part() == of && t.Underlay == u && t.Implementation == implementation {
			return q.of(t)
		}
	}
	return 0, false
}

// values returns a quantity in every round it was measured in.
func (r *Results) values(of part, u underlay, implementation string, q quantity) (values []float64) {
	for round := range r.Options.Rounds {
		if v, ok := r.value(of, u, round+1, implementation, q); ok {
			values = append(values, v)
		}
	}
	return values
}

func cell(values []float64) string {
	s, ok := spreadOf(values)
	switch {
	case !ok:
		return "-"
	case len(values) == 1:
		return figure(s.median)
	}
	return fmt.Sprintf("%s (%s-%s)", figure(s.median), figure(s.low), figure(s.high))
}

// ratios compares an implementation with one or the best of several round by round, and says where it is behind, or whether
// the rounds disagree.
func (r *Results) ratios(of part, u underlay, q quantity, p pair) (text, verdict string) {
	return compare(r.Options.Rounds, q.best, func(round int, side int) (float64, bool) {
		if side == 0 {
			return r.value(of, u, round, p.over, q)
		}
		var values []float64
		for _, name := range p.under {
			if v, ok := r.value(of, u, round, name, q); ok {
				values = append(values, v)
			}
		}
		return bestOf(q.best, values)
	})
}

// bestOf returns the best of values. Of several of which none is better than another there is none.
func bestOf(best direction, values []float64) (float64, bool) {
	switch {
	case len(values) == 1:
		return values[0], true
	case len(values) == 0 || best == neither:
		return 0, false
	case best == less:
		return slices.Min(values), true
	}
	return slices.Max(values), true
}

// compare forms the ratio of two sides in each round; value tells a side's, 0 for the one above the line.
func compare(rounds int, best direction, value func(round, side int) (float64, bool)) (text, verdict string) {
	var ratios []float64
	for round := 1; round <= rounds; round++ {
		over, ok := value(round, 0)
		under, too := value(round, 1)
		switch {
		case !ok || !too:
		case over == under: // both may be 0
			ratios = append(ratios, 1)
		default:
			// Of what is 0 anything is infinitely much: a tunnel that loses some where the other loses none is not left out.
			ratios = append(ratios, over/under)
		}
	}
	s, ok := spreadOf(ratios)
	if !ok {
		return "-", ""
	}
	text = ratioText(s.median)
	if len(ratios) > 1 {
		text = fmt.Sprintf("%s (%s-%s)", ratioText(s.median), ratioText(s.low), ratioText(s.high))
	}
	bestRatio, worst := s.low, s.high
	if best == more {
		bestRatio, worst = 1/s.high, 1/s.low
	}
	switch {
	case best == neither || len(ratios) < 2 || s.low == 1 && s.high == 1: // one round decides nothing
		return text, ""
	case worst <= 1:
		return text, "ahead"
	case bestRatio >= 1:
		return text, "behind"
	}
	return text, "unclear"
}

// ratioText prints a ratio, which may be infinite.
func ratioText(v float64) string {
	if math.IsInf(v, 0) {
		return "inf"
	}
	return fmt.Sprintf("%.2f", v)
}

// figure prints three significant digits without an exponent.
func figure(v float64) string {
	switch {
	case v >= 100 || v < 0.0005:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
