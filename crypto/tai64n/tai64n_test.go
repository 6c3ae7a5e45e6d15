package tai64n

import (
	"encoding/hex"
	"testing"
	"time"
)

func TestFrom(t *testing.T) {
	for _, c := range []struct {
		wall time.Time
		want string
	}{
		{time.Unix(0, 0), "400000000000000a00000000"},
		{time.Unix(0, 1<<24-1), "400000000000000a00000000"},
		{time.Unix(0, 1<<24), "400000000000000a01000000"},
		{time.Unix(1, 999_999_999), "400000000000000b3b000000"},
		{time.Unix(-1, 0), "400000000000000900000000"},
		{time.Date(2026, 1, 2, 3, 4, 5, 0x1234567, time.FixedZone("", 3600)), "400000006957279f01000000"},
	} {
		if got := From(c.wall); hex.EncodeToString(got[:]) != c.want {
			t.Errorf("From(%v) = %x, want %s", c.wall, got, c.want)
		}
	}
}

// TestWhitening checks that nothing finer than 2^24 ns shows, and that time comes back within that.
func TestWhitening(t *testing.T) {
	for ns := int64(0); ns < 1e9; ns += 7_654_321 {
		wall := time.Unix(1_700_000_000, ns)
		label := From(wall)
		if label[9] != 0 || label[10] != 0 || label[11] != 0 {
			t.Fatalf("%v: fine nanoseconds in %x", wall, label)
		}
		if lag := wall.Sub(label.Time()); lag < 0 || lag >= whitening {
			t.Fatalf("%v came back %v earlier", wall, lag)
		}
	}
}

func TestAfter(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	rising := []Timestamp{{}, From(time.Unix(-5, 0)), From(at), From(at.Add(whitening)), From(at.Add(time.Second)), {0: 0x80}, {0: 0xff}}
	for i, a := range rising {
		for j, b := range rising {
			if got := a.After(b); got != (i > j) {
				t.Errorf("%x.After(%x) = %v", a, b, got)
			}
		}
	}
	if From(at.Add(whitening - 1)).After(From(at)) {
		t.Error("times within one grain differ")
	}
}

// TestArbitrary converts labels no clock makes.
func TestArbitrary(t *testing.T) {
	var full Timestamp
	for i := range full {
		full[i] = 0xff
	}
	for _, label := range []Timestamp{{}, full, {0: 0x80}, {0: 0x3f, 7: 9}} {
		if label.Time().Equal(time.Unix(0, 0)) {
			t.Errorf("%x is 1970", label)
		}
	}
}
