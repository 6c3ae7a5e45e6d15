package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// setupPhases are in the order in which they are done.
var setupPhases = []struct {
	name string
	of   func(*SetupTrial) *Effort
}{
	{"declare", func(t *SetupTrial) *Effort { return t.Declare }},
	{"plan", func(t *SetupTrial) *Effort { return t.Plan }},
	{"apply", func(t *SetupTrial) *Effort { return t.Apply }},
	{"plan again", func(t *SetupTrial) *Effort { return t.Again }},
	{"destroy", func(t *SetupTrial) *Effort { return t.Destroy }},
}

// setupQuantity is one line of the setup's table.
type setupQuantity struct {
	name, unit string
	perDevice  bool // compared between the sizes
	of         func(*SetupTrial) (float64, bool)
}

// setupQuantities are the totals first, then what a device takes.
func setupQuantities() (list []setupQuantity) {
	list = append(list, setupQuantity{"plan and apply, time", "s", false, func(t *SetupTrial) (float64, bool) {
		if t.Plan == nil || t.Apply == nil {
			return 0, false
		}
		return t.Plan.Seconds + t.Apply.Seconds, true
	}})
	for _, perDevice := range []bool{false, true} {
		for _, phase := range setupPhases {
			line := func(name string, of func(*Effort) float64) {
				q := setupQuantity{phase.name + ", " + name, "ms", perDevice, func(t *SetupTrial) (float64, bool) {
					e := phase.of(t)
					if e == nil {
						return 0, false
					}
					if perDevice {
						return of(e) * 1e6 / float64(t.Devices), true
					}
					return of(e) * 1e3, true
				}}
				if perDevice {
					q.unit = "us/device"
				}
				list = append(list, q)
			}
			line("time", func(e *Effort) float64 { return e.Seconds })
			line("CPU", func(e *Effort) float64 { return e.CPU })
		}
	}
	return append(list,
		setupQuantity{"peak memory", "MB", false, func(t *SetupTrial) (float64, bool) { return float64(t.PeakMemory) / 1e6, t.PeakMemory > 0 }},
		setupQuantity{"things declared", "", false, func(t *SetupTrial) (float64, bool) { return float64(t.Items), t.Items > 0 }},
		setupQuantity{"steps of the apply", "", false, func(t *SetupTrial) (float64, bool) { return float64(t.Steps), t.Steps > 0 }})
}

// setupTrial returns the complete trial of a size in a round, nil where there is none.
func (r *Results) setupTrial(round, devices int) *SetupTrial {
	for i := range r.Setups {
		if t := &r.Setups[i]; t.Round == round && t.Devices == devices && t.Error == "" {
			return t
		}
	}
	return nil
}

func writeSetupTable(out io.Writer, r *Results) {
	if len(r.Setups) == 0 {
		return
	}
	var sizes []int
	var disks []string
	for i := range r.Setups {
		sizes = append(sizes, r.Setups[i].Devices)
		if disk := r.Setups[i].Disk; disk != "" && !slices.Contains(disks, disk) {
			disks = append(disks, disk)
		}
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	smallest, largest := sizes[0], sizes[len(sizes)-1]

	fmt.Fprintf(out, "\na declared network, set up and taken down; journal on %s\n", cmp.Or(strings.Join(disks, ", "), "an unknown file system"))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\t")
	for _, n := range sizes {
		fmt.Fprintf(w, "\t%d devices", n)
	}
	if len(sizes) > 1 {
		fmt.Fprintf(w, "\t%d/%d", largest, smallest)
	}
	fmt.Fprintln(w)
	for _, q := range setupQuantities() {
		value := func(round, devices int) (float64, bool) {
			if t := r.setupTrial(round, devices); t != nil {
				return q.of(t)
			}
			return 0, false
		}
		fmt.Fprintf(w, "%s\t%s", q.name, q.unit)
		for _, n := range sizes {
			var values []float64
			for round := 1; round <= r.Options.Rounds; round++ {
				if v, ok := value(round, n); ok {
					values = append(values, v)
				}
			}
			fmt.Fprintf(w, "\t%s", cell(values))
		}
		if q.perDevice && len(sizes) > 1 {
			growth, _ := compare(r.Options.Rounds, neither, func(round, side int) (float64, bool) {
				return value(round, []int{largest, smallest}[side])
			})
			fmt.Fprintf(w, "\t%s", growth)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}
