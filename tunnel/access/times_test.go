package access

import (
	"testing"
	"time"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	x, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestSchedule(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	workdays := [7]bool{false, true, true, true, true, true, false}
	saturday, sunday := [7]bool{6: true}, [7]bool{0: true}
	all := [7]bool{true, true, true, true, true, true, true}
	for _, c := range []struct {
		name        string
		window      Window
		open, close []string
	}{
		{"office hours", Window{workdays, 8 * time.Hour, 18 * time.Hour, berlin},
			[]string{"2026-06-03T06:00:00Z", "2026-06-03T15:59:59Z", "2026-12-02T07:00:00Z"},
			[]string{"2026-06-03T05:59:59Z", "2026-06-03T16:00:00Z", "2026-12-02T06:59:59Z", "2026-06-06T10:00:00Z", "2026-06-07T10:00:00Z"}},
		{"over midnight", Window{saturday, 22 * time.Hour, 6 * time.Hour, nil},
			[]string{"2026-06-06T22:00:00Z", "2026-06-07T05:59:59Z"}, []string{"2026-06-06T05:00:00Z", "2026-06-07T06:00:00Z", "2026-06-07T22:00:00Z", "2026-06-08T01:00:00Z"}},
		{"a whole day", Window{sunday, 0, 24 * time.Hour, nil}, []string{"2026-06-07T00:00:00Z", "2026-06-07T23:59:59Z"}, []string{"2026-06-06T23:59:59Z", "2026-06-08T00:00:00Z"}},
		{"from noon to noon", Window{sunday, 12 * time.Hour, 12 * time.Hour, nil}, []string{"2026-06-07T12:00:00Z", "2026-06-08T11:59:59Z"}, []string{"2026-06-07T11:59:59Z", "2026-06-08T12:00:00Z"}},
		// On 2026-03-29 Berlin's clocks go from 02:00 to 03:00 (01:00 UTC), on 2026-10-25 from 03:00 to 02:00 (01:00 UTC).
		{"within the hour that is missing", Window{all, 2 * time.Hour, 3 * time.Hour, berlin}, []string{"2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"},
			[]string{"2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-29T00:30:00Z"}},
		{"half of it", Window{all, 150 * time.Minute, 210 * time.Minute, berlin}, []string{"2026-03-29T01:00:00Z", "2026-03-29T01:29:59Z"},
			[]string{"2026-03-29T00:59:59Z", "2026-03-29T01:30:00Z"}},
		{"within the hour that comes twice", Window{all, 2 * time.Hour, 3 * time.Hour, berlin},
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T00:59:59Z", "2026-10-25T01:00:00Z", "2026-10-25T01:59:59Z"}, []string{"2026-10-24T23:59:59Z", "2026-10-25T02:00:00Z"}},
	} {
		p := compile(t, Spec{Default: Allow, Schedule: []Window{c.window}})
		for _, text := range c.open {
			if got := p.At(at(t, text)); got != Open {
				t.Errorf("%s: %s: %v", c.name, text, got)
			}
		}
		for _, text := range c.close {
			if got := p.At(at(t, text)); got != Outside {
				t.Errorf("%s: %s: open", c.name, text)
			}
		}
	}
	two := compile(t, Spec{Schedule: []Window{{saturday, 0, time.Hour, nil}, {sunday, 0, time.Hour, nil}}, Expires: at(t, "2026-06-07T00:30:00Z")})
	for text, want := range map[string]Closed{"2026-06-06T00:10:00Z": Open, "2026-06-06T01:10:00Z": Outside, "2026-06-07T00:29:59Z": Open, "2026-06-07T00:30:00Z": Expired} {
		if got := two.At(at(t, text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestNextMissesNothing walks through weeks with changes of the clock in them: between two looks nothing may have changed.
func TestNextMissesNothing(t *testing.T) {
	berlin, kathmandu := zone(t, "Europe/Berlin"), zone(t, "Asia/Kathmandu")
	p := compile(t, Spec{
		Schedule: []Window{
			{[7]bool{1: true, 3: true}, 8 * time.Hour, 17*time.Hour + 45*time.Minute, berlin}, {[7]bool{0: true}, 90 * time.Minute, 150 * time.Minute, berlin},
			{[7]bool{5: true}, 22 * time.Hour, 5 * time.Hour, kathmandu},
		},
		Expires: at(t, "2026-10-27T09:00:00.5Z"),
	})
	for wall := at(t, "2026-10-20T00:00:00Z"); wall.Before(at(t, "2026-10-28T00:00:00Z")); {
		next := p.Next(wall)
		if next <= 0 || next > lookAgain {
			t.Fatalf("%v: %v", wall, next)
		}
		before := p.At(wall)
		for part := range time.Duration(10) {
			if got := p.At(wall.Add(part * next / 10)); got != before {
				t.Fatalf("%v: %v, and %v later, before the next look, %v", wall, before, part*next/10, got)
			}
		}
		wall = wall.Add(next)
	}
	if got := compile(t, Spec{FromPeer: 1}).Next(someday); got != 0 {
		t.Errorf("a policy without times is looked at after %v", got)
	}
}

func TestQuotaPeriods(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		quota      Quota
		wall, want string
	}{
		{Quota{Every: Day}, "2026-06-03T12:00:00Z", "2026-06-03T00:00:00Z"},
		{Quota{Every: Week}, "2026-06-03T12:00:00Z", "2026-06-01T00:00:00Z"},
		{Quota{Every: Week}, "2026-06-07T23:59:59Z", "2026-06-01T00:00:00Z"}, // Sunday
		{Quota{Every: Week}, "2026-06-08T00:00:00Z", "2026-06-08T00:00:00Z"},
		{Quota{Every: Month}, "2026-02-28T23:59:59Z", "2026-02-01T00:00:00Z"},
		{Quota{Every: Month, Zone: berlin}, "2026-03-31T22:00:00Z", "2026-03-31T22:00:00Z"},
		{Quota{Every: Day, Zone: berlin}, "2026-03-29T21:59:59Z", "2026-03-28T23:00:00Z"}, // a day of 23 h
	} {
		if got := c.quota.began(at(t, c.wall)); !got.Equal(at(t, c.want)) {
			t.Errorf("%v at %s began %v, want %s", c.quota.Every, c.wall, got.UTC(), c.want)
		}
	}
}

func TestQuota(t *testing.T) {
	packet := made{src: peer4, dst: near4, proto: UDP, payload: make([]byte, 72)}.bytes() // 100 bytes
	s := NewState(compile(t, Spec{Default: Allow, Quota: Quota{Bytes: 1000, Every: Day}}), someday)
	pass := func(want Verdict) {
		t.Helper()
		for _, d := range []Direction{FromPeer, ToPeer} {
			if got := s.Check(d, packet, time.Second); got != want {
				t.Fatalf("%v, want %v", got, want)
			}
		}
	}
	for range 5 {
		pass(Pass)
	}
	pass(OverQuota)
	if c := s.Look(someday); !c.Exceeded {
		t.Errorf("%+v", c)
	}
	if c := s.Look(someday.Add(time.Hour)); c.Exceeded || c.Renewed {
		t.Errorf("%+v", c)
	}
	// A clock set back, then right again: the same day all along.
	s.Look(someday.Add(-49 * time.Hour))
	pass(OverQuota)
	s.Look(someday.Add(time.Hour))
	pass(OverQuota)
	if c := s.Look(someday.Add(13 * time.Hour)); !c.Renewed {
		t.Errorf("%+v", c)
	}
	pass(Pass)
	// Kept over a restart.
	u, _ := s.Usage()
	if u.Bytes != 200 || !u.Since.Equal(at(t, "2026-06-04T00:00:00Z")) {
		t.Fatalf("%+v", u)
	}
	u.Bytes = 900
	s = NewState(compile(t, Spec{Default: Allow, Quota: Quota{Bytes: 1000, Every: Day}}), someday.Add(14*time.Hour))
	s.Restore(u, someday.Add(14*time.Hour))
	s.Check(FromPeer, packet, time.Second)
	pass(OverQuota)
	// A larger quota at once lets more pass, and the same day counts.
	s.SetPolicy(compile(t, Spec{Default: Allow, Quota: Quota{Bytes: 1300, Every: Day}}), someday.Add(14*time.Hour))
	pass(Pass)
	s.Check(FromPeer, packet, time.Second)
	pass(OverQuota)
	// What began years ahead was a wrong clock: it is used on, in the present period, and that one ends.
	s.Restore(Usage{Bytes: 1300, Since: someday.Add(4000 * day)}, someday)
	pass(OverQuota)
	s.Look(someday.Add(day))
	pass(Pass)
	// What is older begins anew.
	s.Restore(Usage{Bytes: 1300, Since: someday.Add(-40 * day)}, someday)
	pass(Pass)
	total := NewState(compile(t, Spec{Default: Allow, Quota: Quota{Bytes: 1000}}), someday)
	total.Restore(Usage{Bytes: 1000}, someday)
	total.Look(someday.Add(10000 * day))
	if total.Check(FromPeer, packet, time.Second) != OverQuota {
		t.Error("a quota in all began anew")
	}
}

func TestHoldAndClose(t *testing.T) {
	packet := made{src: peer4, dst: near4, proto: UDP}.bytes()
	s := NewState(compile(t, Spec{Default: Allow, Expires: someday.Add(time.Hour)}), someday)
	expect := func(want Verdict) {
		t.Helper()
		if got := s.Check(FromPeer, packet, time.Second); got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	expect(Pass)
	s.Hold(true)
	expect(Shut)
	s.Look(someday.Add(time.Minute))
	expect(Shut)
	s.Hold(false)
	expect(Pass)
	if c := s.Look(someday.Add(time.Hour)); c.Closed != Expired || c.Was != Open {
		t.Errorf("%+v", c)
	}
	expect(Shut)
	s.Hold(true)
	s.Hold(false)
	expect(Shut)
	s.SetPolicy(compile(t, Spec{Default: Allow, Expires: someday.Add(2 * time.Hour)}), someday.Add(time.Hour))
	expect(Pass)
	if s.Look(someday.Add(3 * time.Hour)); s.Status(time.Second).Closed != Expired || s.Idle() {
		t.Error("not expired")
	}
	s.SetPolicy(Unrestricted, someday)
	expect(Pass)
	if !s.Idle() {
		t.Error("a state that restricts nothing is not idle")
	}
}

// TestRate: over any long time what passes is the rate, however it comes; and beyond the burst nothing more.
func TestRate(t *testing.T) {
	for _, rate := range []Rate{64e3, 5e6, 500e6, 10e9} {
		for _, size := range []int{60, 1420, 65000} {
			s := NewState(compile(t, Spec{Default: Allow, FromPeer: rate}), someday)
			packet := made{src: peer4, dst: near4, proto: UDP, payload: make([]byte, size-28)}.bytes()
			now, passed := time.Second, 0
			burst := max(float64(rate)*depth.Seconds()/8, minBurst)
			for passed <= int(burst)+65000 && s.Check(FromPeer, packet, now) == Pass {
				passed += size
			}
			if f := float64(passed); f > burst || f < burst-float64(size)-1000 {
				t.Errorf("%d bit/s, packets of %d: a burst of %d, want %.0f", rate, size, passed, burst)
			}
			if v := s.Check(FromPeer, packet, now); v != OverRate {
				t.Errorf("%v", v)
			}
			if v := s.Check(ToPeer, packet, now); v != Pass {
				t.Errorf("the other direction: %v", v)
			}
			passed = 0
			const long = 100000
			step := time.Duration(float64(size) * 8e9 / float64(rate) / 2) // twice the rate
			for range long {
				now += step
				if s.Check(FromPeer, packet, now) == Pass {
					passed += size
				}
			}
			want := float64(rate) / 8 * (step * long).Seconds()
			if f := float64(passed); f < 0.97*want || f > 1.03*want {
				t.Errorf("%d bit/s, packets of %d: %.3f of the rate", rate, size, f/want)
			}
		}
	}
}

// TestClockJumps: a clock that is set by hand is believed whenever it is looked at, either way.
func TestClockJumps(t *testing.T) {
	packet := made{src: peer4, dst: near4, proto: UDP}.bytes()
	s := NewState(compile(t, Spec{Default: Allow, Expires: at(t, "2026-06-10T00:00:00Z"),
		Schedule: []Window{{Days: [7]bool{3: true}, From: 8 * time.Hour, To: 18 * time.Hour}}}), someday)
	for _, c := range []struct {
		wall string
		want Closed
	}{
		{"2026-06-03T12:00:00Z", Open}, {"2026-06-03T19:00:00Z", Outside}, {"2026-06-03T09:00:00Z", Open}, {"2031-01-01T12:00:00Z", Expired},
		{"1970-01-01T00:00:00Z", Outside}, {"2026-06-03T12:00:01Z", Open}, {"2026-06-10T12:00:00Z", Expired}, {"2026-05-27T12:00:00Z", Open},
	} {
		change := s.Look(at(t, c.wall))
		v := s.Check(FromPeer, packet, time.Second)
		if change.Closed != c.want || (v == Pass) != (c.want == Open) {
			t.Errorf("%s: %v, a packet %v", c.wall, change.Closed, v)
		}
	}
}
