package model

import (
	"math"
	"math/bits"
	"time"

	"culvert/setup/spec"
)

// The kernel does not keep every value as it was given. What it keeps is what it shows, and several values become the same; of those the
// roundest stands for all. A declared value has to be compared as the one that stands for it ([BucketDepth], [CodelTime]).

// bucketTick is the unit in nanoseconds of the time in which a token bucket's rate fills it, all the kernel keeps of its depth
// (PSCHED_SHIFT).
const bucketTick = 64

// BucketTicks is the time that a rate takes for a number of bytes, rounded up, in ticks of 64 ns; the largest number where it is longer.
// Rounded down it would be too short for a frame that just fits.
func BucketTicks(depth spec.Size, rate spec.BitRate) uint32 {
	perSecond := uint64(rate) / 8
	if perSecond == 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(depth), uint64(time.Second))
	if high >= perSecond {
		return math.MaxUint32
	}
	ns, rest := bits.Div64(high, low, perSecond)
	ticks := ns / bucketTick
	if rest != 0 || ns%bucketTick != 0 {
		ticks++
	}
	return uint32(min(ticks, math.MaxUint32))
}

// BucketSize is the inverse: the roundest of the sizes that take this time. Up to 125 Mbit/s there is one.
func BucketSize(ticks uint32, rate spec.BitRate) spec.Size {
	if ticks == 0 {
		return 0
	}
	perSecond := uint64(rate) / 8
	high := bytesIn(uint64(ticks)*bucketTick, perSecond)
	low := bytesIn((uint64(ticks)-1)*bucketTick, perSecond) + 1
	return spec.Size(roundest(min(low, high), high))
}

// bytesIn is the number of bytes in that many nanoseconds, rounded down.
func bytesIn(ns, perSecond uint64) uint64 {
	high, low := bits.Mul64(ns, perSecond)
	if high >= uint64(time.Second) {
		return math.MaxUint64 - 1
	}
	q, _ := bits.Div64(high, low, uint64(time.Second))
	return q
}

// BucketDepth is what is read back of a token bucket's depth at a rate (burst and cburst of htb, burst and mtu of tbf).
func BucketDepth(depth spec.Size, rate spec.BitRate) spec.Size {
	return BucketSize(BucketTicks(depth, rate), rate)
}

// ByteRate is what is read back of a rate: the kernel counts bytes.
func ByteRate(rate spec.BitRate) spec.BitRate { return rate / 8 * 8 }

// codelUnit is the unit of times in fq_codel, in nanoseconds (CODEL_SHIFT).
const codelUnit = 1024

// CodelTime is what is read back of a time of fq_codel, which is given in microseconds.
func CodelTime(d time.Duration) time.Duration {
	told := uint64(d/time.Microsecond) * 1000 / codelUnit * codelUnit / 1000
	return CodelTold(uint32(min(told, math.MaxUint32)))
}

// CodelTold is the time meant by the microseconds that fq_codel tells.
func CodelTold(us uint32) time.Duration {
	units := (uint64(us)*1000 + codelUnit - 1) / codelUnit // floor(units * 1.024) is what was told
	low := (units*codelUnit + 999) / 1000
	high := max(low, ((units+1)*codelUnit+999)/1000-1)
	return time.Duration(roundest(low, high)) * time.Microsecond
}

// roundest returns the number in an interval that a person or a program would have written: the one that is a multiple of the largest
// power of ten or two, the smallest of those.
func roundest(low, high uint64) uint64 {
	best, score := low, -1.0
	try := func(step uint64, worth float64) {
		if n := (low + step - 1) / step * step; n >= low && n <= high && worth > score {
			best, score = n, worth
		}
	}
	for exponent, step := 0, uint64(1); exponent < 60; exponent, step = exponent+1, step*2 {
		try(step, float64(exponent))
	}
	for exponent, step := 0, uint64(1); exponent < 19; exponent, step = exponent+1, step*10 {
		try(step, float64(exponent)*math.Log2(10))
	}
	return best
}
