package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// writeSoakTable writes what soaks have shown.
func writeSoakTable(out io.Writer, r *Results) {
	for i := range r.Soaks {
		t := &r.Soaks[i]
		fmt.Fprintf(out, "\nsoak, round %d: %.1f minutes, %d pings, %d answered, %d sessions\n", t.Round, t.Minutes, t.Pings, t.Answers, t.Sessions)
		if len(t.Samples) >= 6 {
			w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "median of %d samples\tof the second third\tof the last third\n", len(t.Samples))
			for _, g := range soakGrowth {
				second, last := t.thirds(g.of)
				fmt.Fprintf(w, "%s\t%.1f\t%.1f\n", g.name, second, last)
			}
			w.Flush()
		}
		for _, e := range soakEvents {
			fmt.Fprintf(out, "%d times: %s\n", t.Events[e.name], e.name)
		}
		if t.Error != "" {
			fmt.Fprintf(out, "failed: %s\n", t.Error)
		}
	}
}

// writeRecoveryTable writes the times of all rounds together.
func writeRecoveryTable(out io.Writer, r *Results) {
	if len(r.Recoveries) == 0 {
		return
	}
	fmt.Fprintf(out, "\nrecovery, ms\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "wire\tfault\tn\tp50\tp99\tmax\n")
	for _, kind := range recoveryKinds {
		all := RecoveryTrial{Wire: kind.Wire, Fault: kind.Fault}
		for _, t := range r.Recoveries {
			if t.Wire == kind.Wire && t.Fault == kind.Fault {
				all.Times = append(all.Times, t.Times...)
			}
		}
		if len(all.Times) > 0 {
			fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%.0f\t%.0f\n", all.Wire, all.Fault, len(all.Times), all.quantile(0.5), all.quantile(0.99), slices.Max(all.Times))
		}
	}
	w.Flush()
}
