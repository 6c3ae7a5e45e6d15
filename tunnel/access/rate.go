package access

import (
	"sync/atomic"
	"time"
)

// Rate is in bits a second; 0 is no limit.
type Rate uint64

// MaxRate is more than any tunnel carries.
const MaxRate Rate = 1e13

// bucket is a token bucket in bytes, kept as the time at which it will be full (the generic cell rate algorithm, ITU-T I.371), so that
// one word is all of its state. The zero value has no limit.
type bucket struct {
	rate   atomic.Uint64 // bits a second
	fullAt atomic.Int64
}

// set changes the rate. What was owed at another rate is forgotten: at a slow one it would block a fast one for long.
func (b *bucket) set(r Rate) {
	if b.rate.Swap(uint64(r)) != uint64(r) {
		b.fullAt.Store(0)
	}
}

// depth is how long a bucket takes to fill: its burst is what the rate carries in that time. A TCP sender that lost a whole window waits
// for 200 ms and more (RFC 6298, Linux's TCP_RTO_MIN); what the bucket cannot hold for it meanwhile is lost to its rate.
const depth = 500 * time.Millisecond

// minBurst is the least burst in bytes: a few super-packets, which pass or are dropped as a whole.
const minBurst = 4 * 65536

// take takes the tokens of a packet of n bytes and reports whether there were enough; otherwise it takes none. Packets of senders that know
// ECN are dropped like others: where the way is short, marking them from half of the bucket on kept the senders from nothing, and where
// they listened they ended up at 88 to 95 % of the rate instead of 96 to 99 % (BenchmarkAccessLimit at 50 Mbit/s).
func (b *bucket) take(n int, now time.Duration) bool {
	for {
		rate := b.rate.Load()
		if rate == 0 {
			return true
		}
		most := max(int64(depth), int64(minBurst*8*uint64(time.Second)/rate))
		was := b.fullAt.Load()
		full := max(was, int64(now)) + int64(uint64(n)*8*uint64(time.Second)/rate)
		if full-int64(now) > most {
			return false
		}
		if b.fullAt.CompareAndSwap(was, full) {
			return true
		}
	}
}
