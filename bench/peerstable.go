package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// peersQuantity is one line of the peers' table, for each number of them.
type peersQuantity struct {
	name, unit string
	best       direction
	of         func(*PeersTrial) (float64, bool)
}

var peersQuantities = []peersQuantity{
	{"time to configure", "ms", less, func(t *PeersTrial) (float64, bool) {
		if t.Configure == nil {
			return 0, false
		}
		return t.Configure.Seconds * 1e3, true
	}},
	{"memory right after", "MB", less, megabytes(func(t *PeersTrial) int64 { return t.Configured })},
	{"memory per peer", "kB", less, func(t *PeersTrial) (float64, bool) {
		return float64(t.Configured-t.Bare) / 1e3 / float64(t.Peers-1), t.Peers >= peersToDivide && t.Configured > 0
	}},
	{"TCP 1 flow", "Gbit/s", more, func(t *PeersTrial) (float64, bool) {
		if t.TCP == nil {
			return 0, false
		}
		return float64(t.TCP.Bytes) * 8 / 1e9 / t.TCP.Seconds, true
	}},
	{"CPU of both daemons, TCP 1 flow", "s/GB", less, func(t *PeersTrial) (float64, bool) {
		if t.TCP == nil {
			return 0, false
		}
		return sum(t.TCP.CPU.Daemons) / (float64(t.TCP.Bytes) / 1e9), true
	}},
	{"memory after TCP", "MB", less, megabytes(func(t *PeersTrial) int64 { return t.Traffic })},
	{"memory with all sessions", "MB", less, megabytes(func(t *PeersTrial) int64 {
		if t.Sessions == nil {
			return 0
		}
		return t.Sessions.After
	})},
	{"memory per session", "kB", less, func(t *PeersTrial) (float64, bool) {
		if t.Sessions == nil || t.Peers < peersToDivide {
			return 0, false
		}
		return float64(t.Sessions.After-t.Sessions.Before) / 1e3 / float64(t.Sessions.Count), true
	}},
	{"CPU per session made", "us", less, func(t *PeersTrial) (float64, bool) {
		if t.Sessions == nil || t.Peers < peersToDivide {
			return 0, false
		}
		return t.Sessions.CPU * 1e6 / float64(t.Sessions.Count), true
	}},
	{"peak memory", "MB", less, megabytes(func(t *PeersTrial) int64 { return t.Peak })},
}

// peersToDivide is from how many peers on a difference is more than the noise of the heap and the clock.
const peersToDivide = 1000

func megabytes(of func(*PeersTrial) int64) func(*PeersTrial) (float64, bool) {
	return func(t *PeersTrial) (float64, bool) { return float64(of(t)) / 1e6, of(t) > 0 }
}

// peersValue returns a quantity of one trial.
func (r *Results) peersValue(round, peers int, implementation string, q peersQuantity) (float64, bool) {
	for i := range r.Peers {
		if t := &r.Peers[i]; t.Round == round && t.Peers == peers && t.Implementation == implementation {
			return q.of(t)
		}
	}
	return 0, false
}

// peersPairs are what is compared with what.
var peersPairs = [][2]string{{candidate, reference}, {native, reference}, {native, candidate}}

func writePeersTable(out io.Writer, r *Results) {
	if len(r.Peers) == 0 {
		return
	}
	var counts []int
	var names []string
	for i := range r.Peers {
		counts, names = append(counts, r.Peers[i].Peers), append(names, r.Peers[i].Implementation)
	}
	slices.Sort(counts)
	counts = slices.Compact(counts)
	names = slices.DeleteFunc([]string{reference, candidate, native}, func(n string) bool { return !slices.Contains(names, n) })
	fmt.Fprintln(out, "\nmany peers; memory is what is resident")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "peers\t\t")
	for _, name := range names {
		fmt.Fprintf(w, "\t%s", name)
	}
	for _, p := range peersPairs {
		fmt.Fprintf(w, "\t%s/%s", p[0], p[1])
	}
	fmt.Fprintln(w)
	for _, n := range counts {
		for _, q := range peersQuantities {
			r.writePeersLine(w, n, names, q)
		}
	}
	w.Flush()
	r.writePeersAim(out, names)
}

// writePeersLine leaves out what is measured of none.
func (r *Results) writePeersLine(w io.Writer, n int, names []string, q peersQuantity) {
	line, some := fmt.Sprintf("%d\t%s\t%s", n, q.name, q.unit), false
	for _, name := range names {
		values := r.peersValues(n, name, q)
		line += "\t" + cell(values)
		some = some || len(values) > 0
	}
	if !some {
		return
	}
	for _, p := range peersPairs {
		ratio, verdict := compare(r.Options.Rounds, q.best, func(round, side int) (float64, bool) {
			return r.peersValue(round, n, p[side], q)
		})
		if verdict != "" {
			ratio += "  " + verdict
		}
		line += "\t" + ratio
	}
	fmt.Fprintln(w, line)
}

func (r *Results) peersValues(n int, name string, q peersQuantity) (values []float64) {
	for round := 1; round <= r.Options.Rounds; round++ {
		if v, ok := r.peersValue(round, n, name, q); ok {
			values = append(values, v)
		}
	}
	return values
}

// writePeersAim says of each of culvert's wires whether it keeps to what it aims at, in every round.
func (r *Results) writePeersAim(out io.Writer, names []string) {
	right := peersQuantities[1]
	for _, name := range names {
		s, ok := spreadOf(r.peersValues(peersAimed, name, right))
		if name == reference || !ok {
			continue
		}
		verdict := "kept"
		if s.high > peersAim/1e6 {
			verdict = "missed"
		}
		fmt.Fprintf(out, "aim: %d configured peers in %d MiB (%.1f MB): %s, %s: up to %s MB\n", peersAimed, peersAim>>20, peersAim/1e6, name,
			verdict, figure(s.high))
	}
}
