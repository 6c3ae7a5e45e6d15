package access

import (
	"fmt"
	"time"
)

// Window is a part of the week, by the clock on the wall of a zone: it opens and closes when that clock shows From and To, also on the days
// when it is set forward or back. Where To is not after From it ends on the day after the one it began on.
type Window struct {
	Days     [7]bool        // on which it begins, by time.Weekday
	From, To time.Duration  // since midnight, whole minutes; From is less than 24 h, To up to 24 h
	Zone     *time.Location // nil: UTC
}

const day = 24 * time.Hour

func (w *Window) validate() error {
	switch {
	case w.Days == [7]bool{}:
		return fmt.Errorf("%w: a window of no day", ErrInvalid)
	case w.From < 0 || w.From >= day || w.To < 0 || w.To > day || w.From%time.Minute != 0 || w.To%time.Minute != 0:
		return fmt.Errorf("%w: a window from %v to %v", ErrInvalid, w.From, w.To)
	}
	return nil
}

// open reports whether the window is open.
func (w *Window) open(wall time.Time) bool {
	if w.Zone != nil {
		wall = wall.In(w.Zone)
	} else {
		wall = wall.UTC()
	}
	today := wall.Weekday()
	h, m, s := wall.Clock()
	at := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	if w.From < w.To {
		return w.Days[today] && w.From <= at && at < w.To
	}
	return w.Days[today] && at >= w.From || w.Days[(today+6)%7] && at < w.To
}

// Closed is why a peer may not be there at all.
type Closed uint8

const (
	Open    Closed = iota
	Expired        // for good
	Outside        // its schedule says not now
)

// String returns the reason as status shows it; "" for Open.
func (c Closed) String() string {
	switch c {
	case Expired:
		return "expired"
	case Outside:
		return "outside its schedule"
	}
	return ""
}

// At tells whether a peer with the policy may be there.
func (p *Policy) At(wall time.Time) Closed {
	if !p.spec.Expires.IsZero() && !wall.Before(p.spec.Expires) {
		return Expired
	}
	for i := range p.spec.Schedule {
		if p.spec.Schedule[i].open(wall) {
			return Open
		}
	}
	if len(p.spec.Schedule) > 0 {
		return Outside
	}
	return Open
}

// lookAgain is how long nothing is looked at again, whatever the wall clock says: it may be set.
const lookAgain = 30 * time.Second

// Next returns after how long a policy is to be looked at again, 0 where it knows no time of day. All that is about one changes at whole
// minutes, but for the moment of expiry.
func (p *Policy) Next(wall time.Time) time.Duration {
	if !p.timed() {
		return 0
	}
	next := min(lookAgain, wall.Truncate(time.Minute).Add(time.Minute).Sub(wall))
	if left := p.spec.Expires.Sub(wall); !p.spec.Expires.IsZero() && left > 0 {
		next = min(next, left)
	}
	return next
}

// timed reports whether anything in the policy depends on the time of day.
func (p *Policy) timed() bool {
	return !p.spec.Expires.IsZero() || len(p.spec.Schedule) > 0 || p.spec.Quota.Bytes != 0
}
