package pathmtu

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSettle gives paths without loss: what a search ends with, after what time and how many probes, with the round-trip
// time of 20 ms known (the timer is 200 ms), and without (1 s).
func TestSettle(t *testing.T) {
	for _, tt := range []struct {
		max, carries, size int
		known, unknown     time.Duration
		probes             int
	}{
		{1456, 1500, 1456, 20 * time.Millisecond, 20 * time.Millisecond, 2},        // all that is of use, at the first try
		{1456, 1456, 1456, 20 * time.Millisecond, 20 * time.Millisecond, 2},        //
		{1456, 1455, 1452, 620 * time.Millisecond, 3020 * time.Millisecond, 12},    //
		{1456, 1452, 1452, 620 * time.Millisecond, 3020 * time.Millisecond, 12},    // 1500 under IPv6
		{1456, 1444, 1444, time.Second, 5 * time.Second, 15},                       // 1492 under IPv6
		{1456, 1392, 1392, 1400 * time.Millisecond, 7 * time.Second, 22},           // 1420 under IPv4
		{1456, 1372, 1372, 1400 * time.Millisecond, 7 * time.Second, 22},           // 1420 under IPv6
		{1456, 1300, 1298, 1400 * time.Millisecond, 7 * time.Second, 21},           // nobody's, within the granularity
		{1456, 1232, 1232, 1400 * time.Millisecond, 7 * time.Second, 22},           // the least
		{65507, 8972, 8972, 2620 * time.Millisecond, 13020 * time.Millisecond, 48}, // 9000 under IPv4
		{65507, 4000, 3999, 2400 * time.Millisecond, 12 * time.Second, 41},         //
		{1233, 1232, 1232, 600 * time.Millisecond, 3 * time.Second, 6},             //
	} {
		for _, rtt := range []bool{true, false} {
			p, want := newPath(tt.max, tt.carries), tt.unknown
			if rtt {
				p.search.SetRTT(2 * p.delay)
				want = tt.known
			}
			p.search.Begin(p.now)
			p.pump()
			took := p.settle(t, time.Minute)
			if p.search.Size() != tt.size || took != want || p.probes != tt.probes {
				t.Errorf("max %d over %d: %d after %v and %d probes, want %d, %v, %d",
					tt.max, tt.carries, p.search.Size(), took, p.probes, tt.size, want, tt.probes)
			}
			// Not in use: nothing more, ever.
			probes := p.probes
			if p.run(24 * time.Hour); p.probes != probes || p.search.Deadline() != 0 {
				t.Errorf("max %d over %d: %d probes while idle", tt.max, tt.carries, p.probes-probes)
			}
		}
	}
}

// TestWaves is one search in full.
func TestWaves(t *testing.T) {
	p := newPath(1456, 1392)
	p.begin()
	p.settle(t, time.Minute)
	want := []string{
		"0s 1456", "0s 1232",
		"200ms 1456", "200ms 1372", "200ms 1426", "200ms 1232",
		"400ms 1426", "400ms 1406", "400ms 1422", "400ms 1232",
		"600ms 1406", "600ms 1392", "600ms 1402", "600ms 1232",
		"800ms 1402", "800ms 1395", "800ms 1398", "800ms 1232",
		"1s 1395", "1s 1232",
		"1.2s 1395", "1.2s 1232",
	}
	if !slices.Equal(p.sent, want) {
		t.Errorf("sent\n%v, want\n%v", p.sent, want)
	}
	if want := []string{"220ms 1372", "620ms 1392"}; !slices.Equal(p.moves, want) {
		t.Errorf("size %v, want %v", p.moves, want)
	}
}

// Scenarios change the path on the way. Each line of moves is the time since the start and the size from then on.
func TestScenarios(t *testing.T) {
	for _, tt := range []struct {
		name   string
		play   func(t *testing.T, p *path)
		moves  string
		probes int
	}{
		{"confirmed while in use", func(t *testing.T, p *path) {
			p.inUse = true
			p.run(time.Minute)
		}, "20ms 1456", 2 + 2*11},
		{"confirmed at once after long silence", func(t *testing.T, p *path) {
			p.run(time.Hour)
			p.search.Used(p.now)
			p.pump()
			if p.probes != 4 {
				t.Errorf("%d probes", p.probes)
			}
			p.run(time.Hour)
		}, "20ms 1456", 4},
		{"black hole", func(t *testing.T, p *path) {
			p.inUse = true
			p.run(10 * time.Second)
			p.carries = 1252
			p.run(10 * time.Second)
			if !p.search.Settled() {
				t.Error("not settled")
			}
		}, "20ms 1456, 10.64s 1232, 11.06s 1252", 0},
		{"black hole while not in use is found with the first use", func(t *testing.T, p *path) {
			p.run(10 * time.Second)
			p.carries = 1452
			p.run(time.Hour)
			p.inUse = true
			p.run(10 * time.Second)
		}, "20ms 1456, 1h0m11.6s 1232, 1h0m11.62s 1426, 1h0m11.82s 1448, 1h0m12.02s 1452", 0},
		{"more again", func(t *testing.T, p *path) {
			p.carries = 1392
			p.inUse = true
			p.run(time.Minute)
			p.carries = 1500
			p.run(15 * time.Minute)
		}, "20ms 1456, 5.62s 1232, 5.64s 1372, 6.04s 1392, 10m6.84s 1456", 0},
		{"an outage is not a small path", func(t *testing.T, p *path) {
			p.inUse = true
			p.run(10 * time.Second)
			p.carries = 0
			p.run(30 * time.Second)
			p.carries = 1500
			p.run(time.Minute)
		}, "20ms 1456", 0},
		{"an outage at the start ends the search for the time being", func(t *testing.T, p *path) {
			p.acks, p.carries = nil, 0
			p.run(time.Hour)
			if p.search.Settled() || p.search.Deadline() != 0 || p.probes != 2*wavesLost {
				t.Errorf("settled %v, deadline %v, %d probes", p.search.Settled(), p.search.Deadline(), p.probes)
			}
			p.carries = 1500
			p.search.Used(p.now)
			p.pump()
			p.run(time.Minute)
		}, "1h0m0.02s 1456", 2*wavesLost + 2},
		{"an outage at the start, then another session", func(t *testing.T, p *path) {
			p.acks, p.carries = nil, 0
			p.run(time.Hour)
			p.carries = 1500
			p.search.Begin(p.now)
			p.pump()
			p.run(time.Minute)
		}, "1h0m0.02s 1456", 2*wavesLost + 2},
		{"another session changes nothing", func(t *testing.T, p *path) {
			for range 10 {
				p.run(time.Minute)
				p.search.Begin(p.now)
				p.pump()
			}
		}, "20ms 1456", 2},
		{"less is of use while a confirmation is waited for", func(t *testing.T, p *path) {
			p.inUse = true
			p.run(10 * time.Second)
			p.carries = 1300
			p.run(250 * time.Millisecond) // one was lost
			p.search.SetMax(Base, p.now)
			p.pump()
			p.run(time.Minute)
			if !p.search.Settled() {
				t.Error("not settled")
			}
		}, "20ms 1456, 10.25s 1232", 0},
		{"moved to a path of the same size", func(t *testing.T, p *path) {
			p.carries = 1392
			p.inUse = true
			p.run(time.Minute)
			p.search.Moved(p.now)
			p.pump()
			p.run(10 * time.Second)
		}, "20ms 1456, 5.62s 1232, 5.64s 1372, 6.04s 1392, 1m0s 1232, 1m0.02s 1392", 0},
		{"moved to a smaller path", func(t *testing.T, p *path) {
			p.run(time.Minute)
			p.carries = 1300
			p.search.Moved(p.now)
			p.pump()
			p.run(10 * time.Second)
		}, "20ms 1456, 1m0s 1232, 1m0.42s 1292, 1m0.82s 1298", 0},
		{"acknowledgements of the path before", func(t *testing.T, p *path) {
			late := p.acks
			p.search.Moved(p.now)
			p.carries = 1232
			p.pump()
			for _, a := range late {
				p.search.Acked(a.id, p.now)
			}
			p.run(10 * time.Second)
			for id := range uint64(200) {
				p.search.Acked(id, p.now)
			}
		}, "", 2 + 22},
		{"the kernel refuses data", func(t *testing.T, p *path) {
			p.run(time.Second)
			p.carries = 1300
			p.search.TooBig(1456, p.now)
			p.pump()
			p.search.TooBig(1456, p.now) // the rest of a train
			p.search.TooBig(1232, p.now) // nothing smaller to send
			p.run(10 * time.Second)
			if !p.search.Settled() {
				t.Error("not settled")
			}
		}, "20ms 1456, 1s 1232, 1.22s 1292, 1.62s 1298", 0},
		{"the inner MTU shrinks and grows", func(t *testing.T, p *path) {
			p.run(time.Second)
			p.search.SetMax(1400, p.now)
			p.pump()
			if !p.search.Settled() {
				t.Error("not settled though less is of use")
			}
			p.run(time.Second)
			p.search.SetMax(1456, p.now)
			p.pump()
			if !p.search.Settled() {
				t.Error("not settled though that size works")
			}
			p.run(time.Second)
			p.search.SetMax(1470, p.now)
			p.pump()
			p.run(time.Second)
			p.search.SetMax(0, p.now)
			p.pump()
		}, "20ms 1456, 1s 1400, 2s 1456, 3.02s 1470, 4s 1232", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPath(1456, 1500)
			p.begin()
			tt.play(t, p)
			if got := strings.Join(p.moves, ", "); got != tt.moves {
				t.Errorf("size %s, want %s", got, tt.moves)
			}
			if tt.probes != 0 && p.probes != tt.probes {
				t.Errorf("%d probes, want %d", p.probes, tt.probes)
			}
		})
	}
}

// TestRefusedProbes is an interface with a small MTU: the kernel says at once what is too large, so no timer is waited for.
func TestRefusedProbes(t *testing.T) {
	for local := Base; local <= 1456; local++ {
		p := newPath(1456, 1500)
		p.local = local
		p.begin()
		took := p.settle(t, time.Minute)
		if size := p.search.Size(); size > local || size <= local-Granularity || took > 200*time.Millisecond || p.probes > 40 {
			t.Errorf("local %d: size %d after %v and %d probes", local, size, took, p.probes)
		}
	}
}

// TestRefusedConfirmation: the interface's MTU became smaller while the size was in use.
func TestRefusedConfirmation(t *testing.T) {
	p := newPath(1456, 1500)
	p.begin()
	p.inUse = true
	p.run(10 * time.Second)
	p.local = 1300
	p.run(6 * time.Second)
	if size := p.search.Size(); size > 1300 || size <= 1300-Granularity || !p.search.Settled() {
		t.Errorf("size %d, settled %v", size, p.search.Settled())
	}
}

// TestLateAnswers: a round-trip time longer than the timer costs repetitions, and never a wrong result.
func TestLateAnswers(t *testing.T) {
	for _, carries := range []int{1232, 1300, 1452, 1456} {
		p := newPath(1456, carries)
		p.delay = 1500 * time.Millisecond
		p.search.Begin(p.now)
		p.pump()
		p.settle(t, 3*time.Minute)
		if size := p.search.Size(); size > carries || size <= carries-Granularity {
			t.Errorf("carries %d: %d", carries, size)
		}
	}
}

// TestInFlightIsBounded counts the probes of each wave.
func TestInFlightIsBounded(t *testing.T) {
	for carries := Base; carries < 9000; carries += 37 {
		p := newPath(9000, carries)
		p.loss = 0.1
		p.inUse = true
		p.begin()
		p.run(20 * time.Second)
		count := map[string]int{}
		for _, s := range p.sent {
			at, _, _ := strings.Cut(s, " ")
			if count[at]++; count[at] > 2*waveMax { // a wave that ends when the next begins
				t.Fatalf("carries %d: more than %d at %s: %v", carries, waveMax, at, p.sent)
			}
		}
	}
}

func TestSilentBeforeBegin(t *testing.T) {
	s := New(1456)
	s.Used(1)
	s.Moved(2)
	s.TooBig(1400, 3)
	s.SetMax(1450, 4)
	s.Acked(0, 5)
	s.ProbeRefused(0, 6)
	if _, _, ok := s.Next(7); ok || s.Deadline() != 0 || s.Size() != Base || s.Settled() {
		t.Error("not silent")
	}
}

func TestNothingToFind(t *testing.T) {
	for _, max := range []int{-1, 0, 576, Base} {
		s := New(max)
		s.Begin(1)
		if _, _, ok := s.Next(1); ok || s.Deadline() != 0 || s.Size() != Base || !s.Settled() {
			t.Errorf("max %d: not settled at once", max)
		}
	}
}

// TestEveryPath: without loss a search ends within the granularity, exactly on the sizes of common paths.
func TestEveryPath(t *testing.T) {
	for carries := Base; carries <= 1600; carries++ {
		p := newPath(1500, carries)
		p.begin()
		took := p.settle(t, 3*time.Second)
		size, want := p.search.Size(), min(carries, 1500)
		if size > want || size <= want-Granularity || p.probes > 30 {
			t.Errorf("carries %d: %d after %v and %d probes", carries, size, took, p.probes)
		}
		if slices.Contains(common, want) && size != want {
			t.Errorf("a common %d became %d", want, size)
		}
	}
}

// TestLossyPath: whatever the loss of each way, the size is the right one nearly all the time, and never more.
func TestLossyPath(t *testing.T) {
	for _, loss := range []float64{0.01, 0.1, 0.3, 0.5} {
		for _, carries := range []int{1232, 1300, 1392, 1452, 1500} {
			p := newPath(1456, carries)
			p.loss = loss
			p.inUse = true
			p.begin()
			want := min(carries, 1456)
			right, all := 0, 0
			for range 4 * 3600 {
				p.run(time.Second)
				size := p.search.Size()
				if size > carries {
					t.Fatalf("loss %v carries %d: %d", loss, carries, size)
				}
				all++
				if size > want-Granularity {
					right++
				}
			}
			least := 0.9
			if loss > 0.3 {
				least = 0.6 // three answers of four are lost
			}
			if share := float64(right) / float64(all); share < least {
				t.Errorf("loss %v carries %d: right for %.2f of the time", loss, carries, share)
			}
		}
	}
}

// FuzzSearch changes everything at random moments. Then the path stays as it is, without loss, and in use: from the time it
// takes to notice, the size is never more than it carries, and once larger sizes have been tried again it is right.
func FuzzSearch(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 200, 1, 9, 4, 1, 2, 30, 1, 200, 3, 0, 7, 50})
	f.Add([]byte{5, 1, 2, 100, 8, 1, 6, 90, 9, 9, 1, 255, 10, 3, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		p := newPath(1456, 1500)
		p.begin()
		for range 60 {
			if len(script) < 2 {
				break
			}
			op, v := script[0]%12, int(script[1])
			script = script[2:]
			switch op {
			case 0:
				p.carries = Base + v*2
			case 1:
				p.run(time.Duration(v) * 10 * time.Millisecond)
			case 2:
				p.run(time.Duration(v) * 10 * time.Second)
			case 3:
				p.inUse = !p.inUse
			case 4:
				p.loss = float64(v) / 256
			case 5:
				p.search.Moved(p.now)
			case 6:
				p.search.SetMax(1100+v*4, p.now)
			case 7:
				p.search.TooBig(1100+v*2, p.now)
			case 8:
				p.delay = time.Duration(v) * 10 * time.Millisecond
			case 9:
				p.search.SetRTT(time.Duration(v) * 10 * time.Millisecond)
			case 10:
				p.local = Base + v*2
			case 11:
				p.search.Begin(p.now)
			}
			p.pump()
			if size := p.search.Size(); size < Base || size > p.search.max {
				t.Fatalf("size %d", size)
			}
			if len(p.sent) > 1000 {
				p.sent = nil
			}
		}
		p.loss, p.inUse, p.local, p.delay = 0, true, 0, 10*time.Millisecond
		p.search.SetRTT(2 * p.delay)
		p.run(confirmEvery + 3*timerMin + backoffMax + 5*time.Second) // a wave may be waited for that was sent into the loss
		want := min(p.carries, p.search.max)
		if size := p.search.Size(); size > want {
			t.Fatalf("size %d on a path of %d", size, p.carries)
		}
		p.run(raiseEvery + time.Minute)
		if size := p.search.Size(); size > want || size <= want-Granularity {
			t.Fatalf("size %d on a path of %d with max %d", size, p.carries, p.search.max)
		}
	})
}
