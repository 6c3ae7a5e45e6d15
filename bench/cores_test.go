package main

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestQuickCores measures engines on one processor and on more, shortly.
func TestQuickCores(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	if err := run(t.Context(), []string{"-quick", "-parts", "cores", "-duration", "200ms", "-out", file}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	r, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	kinds := coreKinds(runtime.NumCPU())
	if len(r.Cores) != len(kinds) || len(r.Trials)+len(r.Handshakes)+len(r.Floods)+len(r.Frames) != 0 {
		t.Fatalf("%d trials of processors, want %d alone", len(r.Cores), len(kinds))
	}
	for i := range r.Cores {
		c := &r.Cores[i]
		if !c.same(&kinds[i]) || !c.complete() || c.CPU <= 0 || c.Seconds < 0.2 {
			t.Errorf("%+v", c)
		}
		// What may be lost is what the kernel's socket had no room for.
		if c.Queues == 0 && c.Lost != 0 {
			t.Errorf("%d lost in memory", c.Lost)
		}
		if !strings.Contains(stdout.String(), c.name()) {
			t.Errorf("the table lacks %q:\n%s", c.name(), stdout.String())
		}
	}
}

func TestSuperPacketsChecksum(t *testing.T) {
	p, o := superPacket(40000)
	if len(p) > 65535 || len(p) != 40+coresSegments*int(o.SegmentSize) || fold(sumOf(p[:20])) != 0xffff {
		t.Errorf("%d bytes, header's sum %#x", len(p), fold(sumOf(p[:20])))
	}
	// The pseudo-header's sum: 10.0.0.1, 10.0.0.2, 6, length.
	want := fold(0x0a00 + 1 + 0x0a00 + 2 + 6 + uint32(len(p)-20))
	if got := uint16(p[36])<<8 | uint16(p[37]); got != want {
		t.Errorf("checksum field %#x, want %#x", got, want)
	}
}
