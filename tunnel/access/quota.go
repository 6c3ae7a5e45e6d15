package access

import (
	"fmt"
	"time"
)

// Period is after what a quota begins anew, by the calendar of its zone: at midnight, on Monday, on the first.
type Period uint8

const (
	Total Period = iota // never
	Day
	Week
	Month
	periods
)

// String returns the period's name: "day", "week", "month", and "total".
func (p Period) String() string {
	return [...]string{"total", "day", "week", "month"}[min(p, Month)]
}

// Quota is how many bytes may pass, both directions together, as the packets inside count them.
type Quota struct {
	Bytes uint64 // 0: no quota
	Every Period
	Zone  *time.Location // nil: UTC
}

// Usage is what has been used of a quota, to be kept over restarts.
type Usage struct {
	Bytes uint64    `json:"bytes"`
	Since time.Time `json:"since"` // when its period began; zero for one that lasts
}

func (q *Quota) validate() error {
	if q.Every >= periods {
		return fmt.Errorf("%w: no such period of a quota", ErrInvalid)
	}
	return nil
}

// began is when the period began that wall is in; zero for one that lasts.
func (q *Quota) began(wall time.Time) time.Time {
	zone := q.Zone
	if zone == nil {
		zone = time.UTC
	}
	y, m, d := wall.In(zone).Date()
	switch q.Every {
	case Day:
	case Week:
		d -= int(wall.In(zone).Weekday()+6) % 7
	case Month:
		d = 1
	default:
		return time.Time{}
	}
	return time.Date(y, m, d, 0, 0, 0, 0, zone)
}

// longest is more than any period lasts.
const longest = 32 * day

// renewed tells whether a usage that began at since is over at wall, and when the usage of then began. A clock that was set back
// gives nobody a new period: it is the old one until the clock is past it again. But a beginning further ahead than any period is long
// was a mistake of the clock's, which would last for ever; then the present period is taken up with what has been used.
func (q *Quota) renewed(since, wall time.Time) (began time.Time, over bool) {
	began = q.began(wall)
	switch {
	case began.Equal(since):
		return since, false
	case since.IsZero() || began.IsZero(): // the quota's kind has changed, or nothing was known
		return began, false
	case began.After(since):
		return began, true
	case since.Sub(wall) > longest:
		return began, false
	}
	return since, false
}
