package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// quantity is one line of the table.
type quantity struct {
	name, unit string
	best       direction
	of         func(*Trial) (float64, bool) // false where the trial does not have it
}

// direction says which values of a quantity are good.
type direction int

const (
	neither direction = iota
	less
	more
)

// quantities are in the order of the table: what a gigabyte costs first, then speed.
var quantities = []quantity{
	{"CPU of both daemons, TCP 1 flow", "s/GB", less, daemonCost(tcp1)},
	{"CPU of both daemons, TCP 4 flows", "s/GB", less, daemonCost(tcp4)},
	{"CPU of the machine, TCP 1 flow", "s/GB", less, machineCost(tcp1)},
	{"CPU of the machine, TCP 4 flows", "s/GB", less, machineCost(tcp4)},
	{"CPU used by others, TCP 1 flow", "cores", neither, foreign(tcp1)},
	{"TCP 1 flow", "Gbit/s", more, speed(tcp1)},
	{"TCP 4 flows", "Gbit/s", more, speed(tcp4)},
	{"UDP 64 B delivered", "kpps", more, delivered(udp64)},
	{"UDP 64 B lost", "%", less, lost(udp64)},
	{"UDP 64 B offered", "kpps", neither, offered(udp64)},
	{"UDP 64 B CPU of both daemons", "us/packet", less, packetCost(udp64)},
	{"UDP 200 B delivered", "kpps", more, delivered(udp200)},
	{"UDP 200 B lost", "%", less, lost(udp200)},
	{"UDP 200 B offered", "kpps", neither, offered(udp200)},
	{"UDP 200 B CPU of both daemons", "us/packet", less, packetCost(udp200)},
	{"RTT during TCP 1 flow, mean", "ms", less, timed(rttLoaded, mean)},
	{"RTT during TCP 1 flow, p99", "ms", less, timed(rttLoaded, p99)},
	{"RTT during TCP 1 flow, max", "ms", less, timed(rttLoaded, maximum)},
	{"RTT idle, mean", "ms", less, timed(rttIdle, mean)},
	{"RTT idle, p99", "ms", less, timed(rttIdle, p99)},
	{"RTT idle, max", "ms", less, timed(rttIdle, maximum)},
	{"handshake and first packet, median", "ms", less, timed(handshake, middle)},
	{"handshake and first packet, max", "ms", less, timed(handshake, maximum)},
	{"peak memory, the larger end", "MB", less, func(t *Trial) (float64, bool) {
		var peak int64
		for _, p := range t.PeakMemory {
			peak = max(peak, p)
		}
		return float64(peak) / 1e6, peak > 0
	}},
}

func tcp1(t *Trial) *TCP        { return t.TCP1 }
func tcp4(t *Trial) *TCP        { return t.TCP4 }
func udp64(t *Trial) *UDP       { return t.UDP64 }
func udp200(t *Trial) *UDP      { return t.UDP200 }
func rttIdle(t *Trial) *Times   { return t.RTTIdle }
func rttLoaded(t *Trial) *Times { return t.RTTLoaded }
func handshake(t *Trial) *Times { return t.Handshake }

func mean(t *Times) float64    { return t.Mean }
func middle(t *Times) float64  { return t.Median }
func p99(t *Times) float64     { return t.P99 }
func maximum(t *Times) float64 { return t.Max }

func daemonCost(of func(*Trial) *TCP) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil || len(m.CPU.Daemons) == 0 {
			return 0, false
		}
		return sum(m.CPU.Daemons) / (float64(m.Bytes) / 1e9), true
	}
}

func machineCost(of func(*Trial) *TCP) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		return m.CPU.Machine / (float64(m.Bytes) / 1e9), true
	}
}

// foreign is what neither the daemons nor the load used: threads of the kernel, and other programs.
func foreign(of func(*Trial) *TCP) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		return max(0, m.CPU.Machine-m.CPU.Load-sum(m.CPU.Daemons)) / m.Seconds, true
	}
}

func speed(of func(*Trial) *TCP) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		return float64(m.Bytes) * 8 / 1e9 / m.Seconds, true
	}
}

func delivered(of func(*Trial) *UDP) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		// What was still queued when the sender ended took its time to come.
		return float64(m.Received) / 1e3 / max(m.SendSeconds, m.RecvSeconds), true
	}
}

func offered(of func(*Trial) *UDP) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		return float64(m.Sent) / 1e3 / m.SendSeconds, true
	}
}

func lost(of func(*Trial) *UDP) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		return 100 * float64(m.Sent-m.Received) / float64(m.Sent), true
	}
}

func packetCost(of func(*Trial) *UDP) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil || len(m.CPU.Daemons) == 0 {
			return 0, false
		}
		return sum(m.CPU.Daemons) * 1e6 / float64(m.Received), true
	}
}

func timed(of func(*Trial) *Times, figure func(*Times) float64) func(*Trial) (float64, bool) {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		return figure(m), true
	}
}

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
	text := fmt.Sprintf("%-14s", t.Implementation)
	for _, q := range []quantity{
		{unit: "s/GB", of: daemonCost(tcp1)}, {unit: "Gbit/s", of: speed(tcp1)}, {unit: "Gbit/s", of: speed(tcp4)},
		{unit: "kpps", of: delivered(udp64)}, {unit: "kpps", of: delivered(udp200)},
	} {
		if v, ok := q.of(t); ok {
			text += fmt.Sprintf("  %s %s", figure(v), q.unit)
		}
	}
	return text
}

// writeTables prints one table for each underlay.
func writeTables(out io.Writer, r *Results) error {
	m := r.Machine
	text := &strings.Builder{}
	fmt.Fprintf(text, "%s: rounds: %d, each measurement %v\n", r.Started.Format(time.DateTime+" MST"), r.Options.Rounds, r.Options.Duration)
	fmt.Fprintf(text, "%s, %d cores, %.1f GB, %s, %s, TCP %s\n", m.CPU, m.Cores, float64(m.MemoryBytes)/1e9, m.Kernel, m.Go, m.TCP)
	for _, i := range r.Implementations {
		if len(i.Command) == 0 {
			continue
		}
		fmt.Fprintf(text, "%s: version %s, %s", i.Name, cmp.Or(i.Version, "unknown"), cmp.Or(i.Go, "compiler unknown"))
		if i.Revision != "" {
			fmt.Fprintf(text, ", commit %.12s", i.Revision)
		}
		if i.Modified {
			text.WriteString(" with changes")
		}
		text.WriteByte('\n')
	}
	if len(r.Trials) > 0 {
		for _, u := range r.Options.Underlays {
			writeTable(text, r, u)
		}
	}
	writeHandshakeTable(text, r)
	writeFloodTable(text, r)
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
	_, err := io.WriteString(out, text.String())
	return err
}

var underlayTitles = map[underlay]string{
	withOffloads:    "underlay: veth with offloads, passes trains of datagrams whole",
	withoutOffloads: "underlay: veth without offloads, each datagram by itself",
}

func writeTable(out io.Writer, r *Results, u underlay) {
	fmt.Fprintf(out, "\n%s\n", cmp.Or(underlayTitles[u], string(u)))
	names, pairs := r.columns()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t\t%s", strings.Join(names, "\t"))
	for _, p := range pairs {
		fmt.Fprintf(w, "\t%s/%s", p[0], p[1])
	}
	fmt.Fprintln(w)
	for _, q := range quantities {
		fmt.Fprintf(w, "%s\t%s", q.name, q.unit)
		for _, name := range names {
			fmt.Fprintf(w, "\t%s", cell(r.values(u, name, q)))
		}
		for _, p := range pairs {
			ratio, verdict := r.ratios(u, q, p[0], p[1])
			fmt.Fprintf(w, "\t%s", strings.TrimSpace(ratio+"  "+verdict))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// columns returns what was measured, and what is compared with what: culvert on each wire with the reference, and its native
// wire, also with each suite forced, with WireGuard's.
func (r *Results) columns() (names []string, pairs [][2]string) {
	for _, i := range r.Implementations {
		names = append(names, i.Name)
		if i.Name == candidate || i.Name == native {
			pairs = append(pairs, [2]string{i.Name, reference})
		}
	}
	for _, i := range r.Implementations {
		if i.Name == native || i.Name == nativeChaCha || i.Name == nativeGCM {
			pairs = append(pairs, [2]string{i.Name, candidate})
		}
	}
	return names, pairs
}

// values returns a quantity in every round it was measured in.
func (r *Results) values(u underlay, implementation string, q quantity) (values []float64) {
	for i := range r.Trials {
		t := &r.Trials[i]
		if t.Underlay == u && t.Implementation == implementation {
			if v, ok := q.of(t); ok {
				values = append(values, v)
			}
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

// ratios compares two implementations round by round, and says where the first is behind, or whether the rounds disagree.
func (r *Results) ratios(u underlay, q quantity, over, under string) (text, verdict string) {
	return compare(r.Options.Rounds, q.best, func(round int, side int) (float64, bool) {
		for i := range r.Trials {
			if t := &r.Trials[i]; t.Round == round && t.Underlay == u && t.Implementation == [2]string{over, under}[side] {
				return q.of(t)
			}
		}
		return 0, false
	})
}

// compare forms the ratio of two sides in each round; value tells a side's, 0 for the one above the line.
func compare(rounds int, best direction, value func(round, side int) (float64, bool)) (text, verdict string) {
	var ratios []float64
	for round := 1; round <= rounds; round++ {
		over, ok := value(round, 0)
		under, too := value(round, 1)
		if ok && too && under > 0 {
			ratios = append(ratios, over/under)
		}
	}
	s, ok := spreadOf(ratios)
	if !ok {
		return "-", ""
	}
	text = fmt.Sprintf("%.2f", s.median)
	if len(ratios) > 1 {
		text = fmt.Sprintf("%.2f (%.2f-%.2f)", s.median, s.low, s.high)
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
