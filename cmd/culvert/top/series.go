package top

import "math"

// span is how many samples are kept of a series: what a chart can show.
const span = 240

// series is a value over the last samples. All series of a model count the same samples, so that an idle peer's needs no memory: nil
// stands for zeros.
type series []float32

// unknown is a sample at which nothing could be said.
var unknown = float32(math.NaN())

// put sets the sample of number n.
func (s *series) put(n int, v float32) {
	if *s == nil {
		if v == 0 {
			return
		}
		*s = make(series, span)
	}
	(*s)[n%span] = v
}

// last returns the newest count samples up to number n, the oldest first. Samples before the first are zero.
func (s series) last(n, count int) []float32 {
	out := make([]float32, min(count, span))
	if s == nil {
		return out
	}
	for i := range out {
		if at := n - len(out) + 1 + i; at >= 0 {
			out[i] = s[at%span]
		}
	}
	return out
}

// largest is the greatest of values, 0 where none is known.
func largest(values []float32) float32 {
	var most float32
	for _, v := range values {
		if v > most { // false for what is unknown
			most = v
		}
	}
	return most
}

func known(v float32) bool { return !math.IsNaN(float64(v)) }
