package main

import (
	"errors"
	"slices"
	"time"
)

// timesOf condenses round trips; none answered is an error.
func timesOf(p pingResult) (*Times, error) {
	if len(p.Times) == 0 {
		return nil, errors.New("no reply came")
	}
	sorted := make([]float64, len(p.Times))
	var sum float64
	for i, d := range p.Times {
		sorted[i] = float64(d) / float64(time.Millisecond)
		sum += sorted[i]
	}
	slices.Sort(sorted)
	n := len(sorted)
	return &Times{Count: n, Lost: p.Lost, Mean: sum / float64(n), Median: median(sorted),
		// The smallest value that at least 99 % do not exceed.
		P99: sorted[(99*n+99)/100-1], Max: sorted[n-1]}, nil
}

// median returns the middle of sorted values, of which there is at least one.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is a median with the range around it.
type spread struct{ median, low, high float64 }

// spreadOf returns false where there are no values.
func spreadOf(values []float64) (spread, bool) {
	if len(values) == 0 {
		return spread{}, false
	}
	sorted := slices.Sorted(slices.Values(values))
	return spread{median(sorted), sorted[0], sorted[len(sorted)-1]}, true
}
