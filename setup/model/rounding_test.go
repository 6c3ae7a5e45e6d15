package model

import (
	"math"
	"testing"
	"time"

	"culvert/setup/spec"
)

// Depths that people write come back at every rate, though the kernel keeps only the time they take.
func TestBucketDepth(t *testing.T) {
	sizes := []spec.Size{1500, 1600, 2000, 10 << 10, 15000, 15 << 10, 32 << 10, 64 << 10, 100000, 1 << 20}
	for _, rate := range []spec.BitRate{64e3, 100e3, 1e6, 8e6, 10e6, 33e6, 100e6, 123456789, 1e9, 2.5e9} {
		for _, size := range sizes {
			if BucketTicks(size, rate) == math.MaxUint32 {
				continue // more than the four minutes there is room for
			}
			if got := BucketDepth(size, rate); got != size {
				t.Errorf("%d bytes at %s come back as %d", size, rate, got)
			}
		}
	}
	for rate := spec.BitRate(8000); rate <= 1e12; rate = rate*17/10 + 8 {
		for size := spec.Size(1); size < 20000; size += 7 {
			once := BucketDepth(size, rate)
			if BucketDepth(once, rate) != once {
				t.Fatalf("%d bytes at %s come back as %d, and that as %d", size, rate, once, BucketDepth(once, rate))
			}
			if rate <= 125e6 && once != size && BucketTicks(size, rate) != math.MaxUint32 {
				t.Fatalf("%d bytes at %s come back as %d", size, rate, once)
			}
		}
	}
}

func TestCodelTime(t *testing.T) {
	for _, d := range []time.Duration{time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 100 * time.Millisecond, time.Second} {
		if got := CodelTime(d); got != d {
			t.Errorf("%v comes back as %v", d, got)
		}
	}
	for us := time.Duration(0); us < 300000; us++ {
		once := CodelTime(us * time.Microsecond)
		if again := CodelTime(once); again != once {
			t.Fatalf("%dus comes back as %v, and that as %v", us, once, again)
		}
	}
}

func TestRoundest(t *testing.T) {
	for _, c := range []struct{ low, high, want uint64 }{
		{5000, 5000, 5000}, {4999, 5001, 5000}, {10190, 10250, 10240}, {1499, 1503, 1500}, {7, 7, 7}, {0, 3, 0}, {65530, 65540, 65536},
	} {
		if got := roundest(c.low, c.high); got != c.want {
			t.Errorf("roundest(%d, %d) = %d, want %d", c.low, c.high, got, c.want)
		}
	}
}
