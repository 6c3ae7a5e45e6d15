// Package tai64n makes the timestamps by which WireGuard's initiations rise (WireGuard paper §5.4.2): TAI64N labels
// (https://cr.yp.to/libtai/tai64.html), coarsened so that they tell little of the clock.
package tai64n

import (
	"bytes"
	"encoding/binary"
	"time"
)

const (
	// base is the label of 1970-01-01 00:00:00 UTC: 2^62, plus the 10 s TAI was ahead then. Leap seconds since are left out,
	// as WireGuard does, so that labels follow Unix time.
	base = 1<<62 + 10

	// whitening is the granularity of the nanoseconds: 16.8 ms, a little finer than an initiation may be sent (20 ms).
	whitening = 1 << 24
)

// Timestamp is a label: seconds as a big-endian u64, then nanoseconds as a big-endian u32. Labels order as bytes do.
type Timestamp [12]byte

// From labels wall-clock time, its nanoseconds rounded down to a multiple of 2^24.
func From(wall time.Time) Timestamp {
	var t Timestamp
	binary.BigEndian.PutUint64(t[:8], base+uint64(wall.Unix()))
	binary.BigEndian.PutUint32(t[8:], uint32(wall.Nanosecond())&^(whitening-1))
	return t
}

// After reports whether t is later than o.
func (t Timestamp) After(o Timestamp) bool { return bytes.Compare(t[:], o[:]) > 0 }

// Time returns the labelled time. A label from the network may be any 12 bytes; the time is then arbitrary, but defined.
func (t Timestamp) Time() time.Time {
	seconds := binary.BigEndian.Uint64(t[:8]) - base
	return time.Unix(int64(seconds), int64(binary.BigEndian.Uint32(t[8:])))
}
