package main

import (
	"path/filepath"
	"strings"
	"testing"

	"culvert/tunnel"
	"culvert/tunnel/ethernet"
)

// TestQuickFrames measures a switch with hostile peers, shortly.
func TestQuickFrames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	err := run(t.Context(), []string{"-quick", "-parts", "frames", "-duration", "300ms", "-frame-rate", "20000", "-out", file}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	r, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Trials)+len(r.Handshakes)+len(r.Floods) != 0 || len(r.Frames) != len(frameKinds) {
		t.Fatalf("%d trials of frames, want %d alone", len(r.Frames), len(frameKinds))
	}
	for i, f := range r.Frames {
		if f.Frames != frameKinds[i] || f.GoodSent == 0 || f.GoodCame > f.GoodSent || f.HeapBefore == 0 || f.RSSPeak == 0 || f.CPU <= 0 || f.Blocked {
			t.Errorf("%s: %+v", f.Frames, f)
		}
		if calm := f.Frames == framesNone; calm != (f.Sent == 0) || !calm && f.taken() == 0 {
			t.Errorf("%s: %d frames of %d bytes, %v taken", f.Frames, f.Sent, f.SentBytes, f.taken())
		}
		// All peers' stations are known, or the sessions did not come about.
		if f.Addresses < framePeers || f.Addresses > framePeers+1+1024 {
			t.Errorf("%s: %d addresses", f.Frames, f.Addresses)
		}
		for kind, drop := range map[string]struct {
			why  string
			rate int // that passes, of what is limited
		}{
			framesAddresses:  {"in: too many addresses", 0},
			framesPinned:     {"in: source pinned to another", 0},
			framesMalformed:  {"in: frame larger than the MTU", 0},
			framesBroadcasts: {"in: broadcast rate limit", tunnel.DefaultBroadcast},
			framesUnknown:    {"in: unknown destination rate limit", tunnel.DefaultUnknownUnicast},
		} {
			got := f.Drops[drop.why]
			if f.Frames != kind && got > 0 || f.Frames == kind && got == 0 && f.taken() > float64(drop.rate)*(f.Seconds+0.25) {
				t.Errorf("%s: %d dropped for %q of %v taken in %v s", f.Frames, got, drop.why, f.taken(), f.Seconds)
			}
		}
		if (f.Frames == framesHijacks) != (f.Moves > 0) {
			t.Errorf("%s: %d moves", f.Frames, f.Moves)
		}
		if f.Frames != framesHijacks && f.Latency == nil {
			t.Errorf("%s: none of %d frames of the good peer came", f.Frames, f.GoodSent)
		}
	}
	var again strings.Builder
	if err := run(t.Context(), []string{"-compare", file}, &again, &stderr); err != nil {
		t.Fatal(err)
	}
	if again.String() != stdout.String() {
		t.Errorf("-compare prints\n%s\nthe run itself printed\n%s", again.String(), stdout.String())
	}
}

func TestHostileFrames(t *testing.T) {
	content := make([]byte, frameContent)
	const count = 200_000
	parse := func(kind string, n uint64) (h ethernet.Header, size int, ok bool) {
		f := hostileFrame(nil, kind, n, content)
		h, ok = ethernet.Parse(f)
		return h, len(f), ok
	}
	inUse := map[ethernet.Address]bool{localStation: true}
	for i := range framePeers {
		inUse[stationOf(i)] = true
	}
	from, to := map[ethernet.Address]bool{}, map[ethernet.Address]bool{}
	for n := range uint64(count) {
		a, _, ok1 := parse(framesAddresses, n)
		b, _, ok2 := parse(framesUnknown, n)
		if !ok1 || !ok2 || a.Dst != localStation || b.Src != stationOf(1) || inUse[a.Src] || inUse[b.Dst] || b.Dst.Group() {
			t.Fatalf("frame %d: %+v, %+v", n, a, b)
		}
		from[a.Src], to[b.Dst] = true, true
	}
	if len(from) < count*99/100 || len(to) < count*99/100 {
		t.Errorf("%d sources and %d destinations of %d frames", len(from), len(to), count)
	}
	claimed := map[ethernet.Address]bool{}
	runts, oversized := map[int]bool{}, 0
	for n := range uint64(framePeers) {
		for _, kind := range []string{framesHijacks, framesPinned} {
			h, _, ok := parse(kind, n)
			if !ok || !inUse[h.Src] || !inUse[h.Dst] || h.Src == stationOf(1) || h.Src == h.Dst {
				t.Errorf("%s: frame %d: %+v", kind, n, h)
			}
			claimed[h.Src] = true
		}
		if h, _, ok := parse(framesBroadcasts, n); !ok || h.Dst != ethernet.Broadcast {
			t.Errorf("broadcast %d: %+v", n, h)
		}
		switch _, size, ok := parse(framesMalformed, n); {
		case !ok && size < ethernet.HeaderSize:
			runts[size] = true
		case ok && size == ethernet.HeaderSize+frameMTU+1:
			oversized++
		default:
			t.Errorf("malformed frame %d has %d bytes", n, size)
		}
	}
	if len(claimed) != framePeers || len(runts) != ethernet.HeaderSize || oversized != framePeers/2 {
		t.Errorf("%d claimed addresses, runts of %d lengths, %d oversized", len(claimed), len(runts), oversized)
	}
}
