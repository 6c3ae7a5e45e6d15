package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// frameQuantity is one line of the frames' table. It may need the same round's trial without hostile frames, which is nil where
// there is none.
type frameQuantity struct {
	name, unit string
	short      bool // in the line of progress
	of         func(t, calm *FrameTrial) (float64, bool)
}

var frameQuantities = []frameQuantity{
	{"hostile frames sent to it", "kpps", false, framesPerSecond(func(t *FrameTrial) float64 { return float64(t.Sent) / 1e3 })},
	{"hostile frames it took", "kpps", true, func(t, _ *FrameTrial) (float64, bool) {
		return t.taken() / 1e3 / max(t.Seconds, 1e-9), t.Sent > 0 && t.Seconds > 0
	}},
	{"messages to other peers", "kpps", false, framesPerSecond(func(t *FrameTrial) float64 { return float64(t.Forwarded) / 1e3 })},
	{"CPU of the engine", "cores", false, framesPerSecond(func(t *FrameTrial) float64 { return t.CPU })},
	{"CPU per hostile frame", "us", false, func(t, calm *FrameTrial) (float64, bool) {
		if calm == nil || t.Sent == 0 || calm.Seconds == 0 {
			return 0, false
		}
		return (t.CPU - calm.CPU/calm.Seconds*t.Seconds) * 1e6 / max(t.taken(), 1), t.taken() > 0
	}},
	{"good peer's frames delivered", "%", true, func(t, _ *FrameTrial) (float64, bool) {
		return 100 * float64(t.GoodCame) / float64(max(t.GoodSent, 1)), t.GoodSent > 0
	}},
	{"their latency, median", "ms", true, frameTime(middle)},
	{"their latency, p99", "ms", true, frameTime(p99)},
	{"their latency, max", "ms", false, frameTime(maximum)},
	{"addresses in the table", "", false, func(t, _ *FrameTrial) (float64, bool) { return float64(t.Addresses), t.Seconds > 0 }},
	{"of them the hostile peer's", "", true, func(t, _ *FrameTrial) (float64, bool) { return float64(t.HostileAddresses), t.Seconds > 0 }},
	{"moves of addresses", "k/s", false, framesPerSecond(func(t *FrameTrial) float64 { return float64(t.Moves) / 1e3 })},
	{"live heap, growth", "kB", false, func(t, _ *FrameTrial) (float64, bool) {
		return (float64(t.HeapAfter) - float64(t.HeapBefore)) / 1e3, t.HeapBefore > 0
	}},
	{"peak resident memory, growth", "kB", true, func(t, _ *FrameTrial) (float64, bool) {
		return float64(t.RSSPeak-t.RSSBefore) / 1e3, t.RSSBefore > 0
	}},
}

// taken is how many datagrams the engine's socket took besides the good peer's. How many of those it took is not known where
// some did not come out, so all that were sent are subtracted: what that errs by is part of a thousand a second.
func (t *FrameTrial) taken() float64 { return max(float64(t.Received)-float64(t.GoodSent), 0) }

func framesPerSecond(of func(*FrameTrial) float64) func(t, calm *FrameTrial) (float64, bool) {
	return func(t, _ *FrameTrial) (float64, bool) {
		if t.Seconds == 0 {
			return 0, false
		}
		return of(t) / t.Seconds, true
	}
}

func frameTime(figure func(*Times) float64) func(t, calm *FrameTrial) (float64, bool) {
	return func(t, _ *FrameTrial) (float64, bool) {
		if t.Latency == nil {
			return 0, false
		}
		return figure(t.Latency), true
	}
}

func writeFrameTable(out io.Writer, r *Results) {
	if len(r.Frames) == 0 {
		return
	}
	fmt.Fprintf(out, "\na switch with %d peers on one core, one of which sends hostile frames\n", framePeers)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t\t%s\n", strings.Join(frameKinds, "\t"))
	for _, q := range frameQuantities {
		fmt.Fprintf(w, "%s\t%s", q.name, q.unit)
		for _, kind := range frameKinds {
			var values []float64
			for i := range r.Frames {
				if t := &r.Frames[i]; t.Frames == kind && t.Error == "" {
					if v, ok := q.of(t, r.calmFrames(t.Round)); ok {
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

// calmFrames returns the trial of a round without hostile frames.
func (r *Results) calmFrames(round int) *FrameTrial {
	for i := range r.Frames {
		if t := &r.Frames[i]; t.Round == round && t.Frames == framesNone && t.Error == "" {
			return t
		}
	}
	return nil
}
