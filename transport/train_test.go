package transport

import (
	"bytes"
	"testing"
)

func TestTrainWalk(t *testing.T) {
	for _, c := range []struct{ n, segment, want int }{
		{0, 0, 0}, {0, 10, 0}, {1, 0, 1}, {10, 10, 1}, {10, 20, 1}, {10, -1, 1},
		{20, 10, 2}, {21, 10, 3}, {19, 10, 2}, {64, 1, 64},
	} {
		tr := Train{Buf: make([]byte, 100), N: c.n, Segment: c.segment}
		if got := tr.Datagrams(); got != c.want {
			t.Errorf("N=%d Segment=%d: %d datagrams, want %d", c.n, c.segment, got, c.want)
		}
		walked := 0
		for d, next := tr.Next(0); d != nil; d, next = tr.Next(next) {
			walked++
		}
		if walked != c.want {
			t.Errorf("N=%d Segment=%d: walked %d, want %d", c.n, c.segment, walked, c.want)
		}
	}
}

// FuzzTrain walks trains whose sizes are whatever a kernel might say: the datagrams must be the buffer, in order, none
// empty, as many as Datagrams says, and none with room to grow into its neighbour.
func FuzzTrain(f *testing.F) {
	f.Add([]byte("0123456789"), 3)
	f.Add([]byte("0123456789"), 0)
	f.Add([]byte(""), 1)
	f.Add([]byte("0123456789"), -5)
	f.Fuzz(func(t *testing.T, b []byte, segment int) {
		tr := Train{Buf: append(bytes.Clone(b), "beyond"...), N: len(b), Segment: segment}
		var all []byte
		n := 0
		for d, next := tr.Next(0); d != nil; d, next = tr.Next(next) {
			if len(d) == 0 || cap(d) != len(d) {
				t.Fatalf("datagram %d: len %d cap %d", n, len(d), cap(d))
			}
			if segment > 0 && len(d) > segment {
				t.Fatalf("datagram of %d in a train of %d", len(d), segment)
			}
			all = append(all, d...)
			n++
		}
		if !bytes.Equal(all, b) {
			t.Fatalf("walked %q, want %q", all, b)
		}
		if n != tr.Datagrams() {
			t.Fatalf("walked %d, Datagrams says %d", n, tr.Datagrams())
		}
	})
}
