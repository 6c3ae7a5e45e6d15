package switching

import (
	"testing"
	"time"
)

func TestHeldStations(t *testing.T) {
	table := NewTable(Options{Ageing: time.Minute})
	const a, b, other Port = 1, 2, 3
	table.Hold(a, 2)
	table.Hold(b, 2)
	now := time.Hour
	wantLearn(t, table, station, a, now, New, 0)
	wantLearn(t, table, station, b, now, Refused, 0)
	wantLearn(t, table, station, other, now, Refused, 0) // one that holds nothing itself
	wantLookup(t, table, station, now, a, true)

	// It does not age, neither for whoever would have it nor for the sweep.
	now += time.Hour
	wantLearn(t, table, station, b, now, Refused, 0)
	if n := table.Sweep(now); n != 0 {
		t.Errorf("%d were swept", n)
	}
	wantLookup(t, table, station, now, a, true)

	// A port that holds takes nothing over that is known elsewhere, until that has aged.
	wantLearn(t, table, station+1, other, now, New, 0)
	wantLearn(t, table, station+1, b, now, Refused, 0)
	wantLearn(t, table, station+2, Device, now, New, 0)
	wantLearn(t, table, station+2, b, now, Refused, 0)
	now += 2 * time.Minute
	wantLearn(t, table, station+1, b, now, New, 0)
	wantLearn(t, table, station+1, other, now, Refused, 0)

	// This end's own side goes before.
	wantLearn(t, table, station+1, Device, now, Moved, b)
	wantLearn(t, table, station+1, b, now, Refused, 0)

	// At the limit what has aged makes room, at the next sweep.
	wantLearn(t, table, station+3, a, now, New, 0)
	wantLearn(t, table, station+4, a, now, Full, 0)
	table.Sweep(now)
	wantLearn(t, table, station+4, a, now, New, 0)
	wantLookup(t, table, station, now, 0, false)

	// Forgotten, or held no more, it is anybody's.
	table.Forget(a)
	wantLearn(t, table, station+3, b, now, New, 0)
	table.SetLimit(b, 2)
	wantLearn(t, table, station+3, other, now, Moved, b)
	table.Hold(b, 2)
	table.Retire(b)
	wantLearn(t, table, station+5, b, now, Refused, 0)
}
