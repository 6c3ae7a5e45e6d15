package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// handshakeQuantity is one line of the handshakes' table.
type handshakeQuantity struct {
	name, unit string
	best       direction
	of         func(*HandshakeTrial) (float64, bool)
}

var handshakeQuantities = []handshakeQuantity{
	{"handshakes answered by one core", "/s", more, func(t *HandshakeTrial) (float64, bool) {
		us, ok := engineCost(t.Responder)
		return 1e6 / us, ok
	}},
	{"engine, responder", "us CPU", less, func(t *HandshakeTrial) (float64, bool) { return engineCost(t.Responder) }},
	{"engine, initiator", "us CPU", less, func(t *HandshakeTrial) (float64, bool) { return engineCost(t.Initiator) }},
	{"cryptography, initiation made", "us CPU", less, stepCost(func(c *HandshakeCost) float64 { return c.Initiate })},
	{"cryptography, initiation read", "us CPU", less, stepCost(func(c *HandshakeCost) float64 { return c.Read })},
	{"cryptography, response made", "us CPU", less, stepCost(func(c *HandshakeCost) float64 { return c.Respond })},
	{"cryptography, response consumed", "us CPU", less, stepCost(func(c *HandshakeCost) float64 { return c.Consume })},
	{"cryptography, initiator", "us CPU", less, stepCost(func(c *HandshakeCost) float64 { return c.Initiate + c.Consume })},
	{"cryptography, responder", "us CPU", less, stepCost(func(c *HandshakeCost) float64 { return c.Read + c.Respond })},
	{"first packet delivered, median", "ms", less, startTime(middle)},
	{"first packet delivered, max", "ms", less, startTime(maximum)},
	{"its round trips of the link, median", "", less, func(t *HandshakeTrial) (float64, bool) {
		if t.Start == nil || t.Delay == 0 {
			return 0, false
		}
		return t.Start.Median / (2 * t.Delay), true
	}},
	{"datagrams of a handshake", "", less, func(t *HandshakeTrial) (float64, bool) { return t.Datagrams, t.Datagrams > 0 }},
	{"bytes of a handshake", "UDP payload", less, func(t *HandshakeTrial) (float64, bool) { return t.Bytes, t.Bytes > 0 }},
}

// engineCost is in microseconds of CPU time for each handshake.
func engineCost(c *EngineCost) (float64, bool) {
	if c == nil || c.Count == 0 {
		return 1, false
	}
	return c.CPUSeconds * 1e6 / float64(c.Count), true
}

func stepCost(of func(*HandshakeCost) float64) func(*HandshakeTrial) (float64, bool) {
	return func(t *HandshakeTrial) (float64, bool) {
		if t.Cost == nil {
			return 0, false
		}
		return of(t.Cost), true
	}
}

func startTime(figure func(*Times) float64) func(*HandshakeTrial) (float64, bool) {
	return func(t *HandshakeTrial) (float64, bool) {
		if t.Start == nil {
			return 0, false
		}
		return figure(t.Start), true
	}
}

// handshakePairs are what is compared with what.
var handshakePairs = [][2]string{{wireCulvert, wireWireGuard}, {wireWireGuard, reference}, {wireCulvert, reference}}

func writeHandshakeTable(out io.Writer, r *Results) {
	if len(r.Handshakes) == 0 {
		return
	}
	fmt.Fprintf(out, "\nhandshakes of the engine, in memory, on one core\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t\t%s", strings.Join(handshakeWires, "\t"))
	for _, p := range handshakePairs {
		fmt.Fprintf(w, "\t%s/%s", p[0], p[1])
	}
	fmt.Fprintln(w)
	for _, q := range handshakeQuantities {
		fmt.Fprintf(w, "%s\t%s", q.name, q.unit)
		for _, wire := range handshakeWires {
			var values []float64
			for i := range r.Handshakes {
				if t := &r.Handshakes[i]; t.Wire == wire {
					if v, ok := q.of(t); ok {
						values = append(values, v)
					}
				}
			}
			fmt.Fprintf(w, "\t%s", cell(values))
		}
		for _, p := range handshakePairs {
			ratio, verdict := compare(r.Options.Rounds, q.best, func(round, side int) (float64, bool) {
				for i := range r.Handshakes {
					if t := &r.Handshakes[i]; t.Round == round && t.Wire == p[side] {
						return q.of(t)
					}
				}
				return 0, false
			})
			fmt.Fprintf(w, "\t%s", strings.TrimSpace(ratio+"  "+verdict))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// floodQuantity is one line of the floods' table. It may need the same round's trial without a flood, which is nil where there
// is none.
type floodQuantity struct {
	name, unit string
	short      bool // in the line of progress
	of         func(t, calm *FloodTrial) (float64, bool)
}

var floodQuantities = []floodQuantity{
	{"messages sent to it", "kpps", false, perSecond(func(t *FloodTrial) float64 { return float64(t.Sent) / 1e3 })},
	{"bytes sent to it", "Mbit/s", false, perSecond(func(t *FloodTrial) float64 { return float64(t.SentBytes) * 8 / 1e6 })},
	{"datagrams its socket took", "kpps", false, perSecond(func(t *FloodTrial) float64 { return float64(t.Received) / 1e3 })},
	{"bytes answered per byte received", "", false, func(t, _ *FloodTrial) (float64, bool) {
		return float64(t.AnswerBytes) / float64(max(t.SentBytes, 1)), t.SentBytes > 0
	}},
	{"CPU of the engine", "cores", false, perSecond(func(t *FloodTrial) float64 { return t.CPU })},
	{"CPU per flood message", "us", false, func(t, calm *FloodTrial) (float64, bool) {
		if calm == nil || t.Sent == 0 || calm.Seconds == 0 {
			return 0, false
		}
		taken := float64(t.Received) - float64(t.TunnelCame)
		return (t.CPU - calm.CPU/calm.Seconds*t.Seconds) * 1e6 / max(taken, 1), taken > 0
	}},
	{"tunnel's packets delivered", "%", true, func(t, _ *FloodTrial) (float64, bool) {
		return 100 * float64(t.TunnelCame) / float64(max(t.TunnelSent, 1)), t.TunnelSent > 0
	}},
	{"tunnel's latency, median", "ms", true, floodTime(func(t *FloodTrial) *Times { return t.Latency }, middle)},
	{"tunnel's latency, p99", "ms", true, floodTime(func(t *FloodTrial) *Times { return t.Latency }, p99)},
	{"tunnel's latency, max", "ms", false, floodTime(func(t *FloodTrial) *Times { return t.Latency }, maximum)},
	{"new handshakes meanwhile", "%", true, func(t, _ *FloodTrial) (float64, bool) {
		if t.Handshake == nil {
			return 0, t.Tries > 0
		}
		return 100, true
	}},
	{"new handshake meanwhile", "ms", false, floodTime(func(t *FloodTrial) *Times { return t.Handshake }, middle)},
	{"its initiations", "", false, func(t, _ *FloodTrial) (float64, bool) { return t.Tries, t.Tries > 0 }},
	{"live heap, growth", "kB", false, func(t, _ *FloodTrial) (float64, bool) {
		return (float64(t.HeapAfter) - float64(t.HeapBefore)) / 1e3, t.HeapBefore > 0
	}},
	{"peak resident memory, growth", "kB", true, func(t, _ *FloodTrial) (float64, bool) {
		return float64(t.RSSPeak-t.RSSBefore) / 1e3, t.RSSBefore > 0
	}},
}

func perSecond(of func(*FloodTrial) float64) func(t, calm *FloodTrial) (float64, bool) {
	return func(t, _ *FloodTrial) (float64, bool) {
		if t.Seconds == 0 {
			return 0, false
		}
		return of(t) / t.Seconds, true
	}
}

func floodTime(of func(*FloodTrial) *Times, figure func(*Times) float64) func(t, calm *FloodTrial) (float64, bool) {
	return func(t, _ *FloodTrial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		return figure(m), true
	}
}

func writeFloodTable(out io.Writer, r *Results) {
	if len(r.Floods) == 0 {
		return
	}
	fmt.Fprintf(out, "\nan engine with %d peers on one core, flooded with handshake messages of the native wire with the right mac1\n", floodPeers+2)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t\t%s\n", strings.Join(floodKinds, "\t"))
	for _, q := range floodQuantities {
		fmt.Fprintf(w, "%s\t%s", q.name, q.unit)
		for _, kind := range floodKinds {
			var values []float64
			for i := range r.Floods {
				if t := &r.Floods[i]; t.Flood == kind {
					if v, ok := q.of(t, r.calm(t.Round)); ok {
						values = append(values, v)
					}
				}
			}
			fmt.Fprintf(w, "\t%s", cell(values))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// calm returns the trial of a round without a flood.
func (r *Results) calm(round int) *FloodTrial {
	for i := range r.Floods {
		if t := &r.Floods[i]; t.Round == round && t.Flood == floodNone {
			return t
		}
	}
	return nil
}
