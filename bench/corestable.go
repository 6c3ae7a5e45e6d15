package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// name is what the trial carries through.
func (t *CoreTrial) name() string {
	if t.Queues == 0 {
		return "no engines"
	}
	return fmt.Sprintf("%s, %d queues", t.Wire, t.Queues)
}

// same reports whether two trials measure the same.
func (t *CoreTrial) same(o *CoreTrial) bool {
	return t.Cores == o.Cores && t.Queues == o.Queues && t.Wire == o.Wire
}

func (t *CoreTrial) rate() float64 { return float64(t.Bytes) * 8 / 1e9 / t.Seconds }
func (t *CoreTrial) cost() float64 { return t.CPU * 1e6 / float64(t.Packets) }
func (t *CoreTrial) complete() bool {
	return t.Error == "" && t.Seconds > 0 && t.Packets > 0
}

func (t *CoreTrial) summary() string {
	text := fmt.Sprintf("%d cores, %-20s", t.Cores, t.name())
	if t.complete() {
		text += fmt.Sprintf("  %s Gbit/s  %s us a super-packet", figure(t.rate()), figure(t.cost()))
	}
	if t.Error != "" {
		text += "  FAILED: " + t.Error
	}
	return text
}

// writeCoresTable prints what was carried on how many processors. "to 1 core" is the ratio to one processor and one queue of the same round.
func writeCoresTable(out io.Writer, r *Results) {
	if len(r.Cores) == 0 {
		return
	}
	fmt.Fprintf(out, "\ntwo engines and the load in one process, devices in memory, over loopback\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "cores\tthrough\tGbit/s\tto 1 core, 1 queue\tCPU of a super-packet, us\n")
	for _, kind := range coreKinds(mostCores) {
		var rates, costs, ratios []float64
		for i := range r.Cores {
			t := &r.Cores[i]
			if !t.same(&kind) || !t.complete() {
				continue
			}
			rates, costs = append(rates, t.rate()), append(costs, t.cost())
			base := CoreTrial{Cores: 1, Queues: min(1, t.Queues), Wire: t.Wire}
			for j := range r.Cores {
				if b := &r.Cores[j]; b.Round == t.Round && b.same(&base) && b.complete() {
					ratios = append(ratios, t.rate()/b.rate())
				}
			}
		}
		if len(rates) == 0 {
			continue
		}
		ratio := "-"
		if len(ratios) > 0 {
			ratio = cell(ratios)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", kind.Cores, kind.name(), cell(rates), ratio, cell(costs))
	}
	w.Flush()
}
