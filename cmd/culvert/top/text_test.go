package top

import (
	"math"
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	for v, want := range map[float32]string{
		0: "0", 0.25: "0.2", 9.94: "9.9", 512: "512", 999.4: "999", 999.6: "1.00k", 9994: "9.99k", 9996: "10.0k", 99.94e6: "99.9M", 99.96e6: "100M",
		812e6: "812M", 1e9: "1.00G", 40e9: "40.0G", 5e18: "5000P", unknown: "-",
	} {
		if got := rate(v); got != want {
			t.Errorf("rate(%v) = %q, want %q", v, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 1000: "0.98K", 1 << 20: "1.00M", 5 << 30: "5.00G", math.MaxUint64: "16.0E"} {
		if got := bytes(n); got != want {
			t.Errorf("bytes(%v) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 99999: "99999", 100000: "100k", 12345678: "12.3M"} {
		if got := count(n); got != want {
			t.Errorf("count(%v) = %q, want %q", n, got, want)
		}
	}
	for s, want := range map[float64]string{0: "-", 4e-5: "40us", 0.00123: "1.23ms", 0.0123: "12.3ms", 0.18: "180ms", 1.5: "1.50s", 75: "75s"} {
		if got := seconds(s); got != want {
			t.Errorf("seconds(%v) = %q, want %q", s, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-1: "-", 0: "0s", 99 * time.Second: "99s", 100 * time.Second: "1m", 99 * time.Minute: "99m", 100 * time.Minute: "1h",
		100 * time.Hour: "4d", 1e6 * time.Hour: "999d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestSpark(t *testing.T) {
	l := newLook(Plain, false)
	if got := l.spark([]float32{0, 0.01, 0.5, 1, 2, unknown}, 1); got != " ▁▄██ " {
		t.Errorf("%q", got)
	}
	if got := l.chart([]float32{0, 0.25, 0.5, 0.75, 1}, 1, 2); got[0] != "   ▄█" || got[1] != " ▄███" {
		t.Errorf("%q", got)
	}
}

func TestSeries(t *testing.T) {
	var s series
	s.put(1, 0)
	if s != nil {
		t.Error("zeros take memory")
	}
	for n := 2; n < 2+span+5; n++ {
		s.put(n, float32(n))
	}
	got := s.last(1+span+5, 3)
	if want := float32(span + 4); len(got) != 3 || got[0] != want || got[2] != want+2 {
		t.Errorf("%v, want from %v on", got, want)
	}
	if got := s.last(1+span+5, 10000); len(got) != span {
		t.Errorf("%d samples", len(got))
	}
}
