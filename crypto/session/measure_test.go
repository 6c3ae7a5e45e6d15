package session

import (
	"testing"
	"time"

	"culvert/crypto"
)

// TestMeasureSuites: the best round of each suite decides. The clock is the test's, and tells what each round takes.
func TestMeasureSuites(t *testing.T) {
	both, one := crypto.AllSuites, crypto.SuitesOf(crypto.ChaCha20Poly1305)
	for name, c := range map[string]struct {
		took func(round int) (chacha, gcm time.Duration)
		want crypto.Suites
	}{
		"GCM faster":    {func(int) (_, _ time.Duration) { return 9, 8 }, both},
		"as fast":       {func(int) (_, _ time.Duration) { return 9, 9 }, both},
		"GCM slower":    {func(int) (_, _ time.Duration) { return 8, 9 }, one},
		"a still clock": {func(int) (_, _ time.Duration) { return 0, 0 }, both},
		"one good round of GCM": {func(round int) (_, _ time.Duration) {
			if round == measureRounds-1 {
				return 100, 7
			}
			return 8, 100
		}, both},
		"one good round of ChaCha20": {func(round int) (_, _ time.Duration) {
			if round == 1 {
				return 7, 100
			}
			return 100, 8
		}, one},
	} {
		t.Run(name, func(t *testing.T) {
			calls, now := 0, time.Hour
			got := MeasureSuites(func() time.Duration {
				chacha, gcm := c.took(calls / 4)
				switch calls % 4 {
				case 0, 2:
					now += time.Second // between the rounds, which does not count
				case 1:
					now += chacha
				case 3:
					now += gcm
				}
				calls++
				return now
			})
			if got != c.want {
				t.Errorf("offers %v, want %v", got, c.want)
			}
			if calls != 4*measureRounds {
				t.Errorf("%d readings of the clock", calls)
			}
		})
	}
}

func BenchmarkMeasureSuites(b *testing.B) {
	start := time.Now()
	for b.Loop() {
		MeasureSuites(func() time.Duration { return time.Since(start) })
	}
}
