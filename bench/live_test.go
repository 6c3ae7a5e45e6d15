package main

import (
	"strings"
	"testing"
)

// A soak in which something grows is one that fails, and says what.
func TestSoakFindsGrowth(t *testing.T) {
	soak := func(grow func(i int, s *SoakSample)) *SoakTrial {
		t := &SoakTrial{}
		for i := range 30 {
			s := SoakSample{Second: float64(i), Goroutines: 20 + i%2, Descriptors: 30, Threads: 8, Resident: 30e6}
			grow(i, &s)
			t.Samples = append(t.Samples, s)
		}
		return t
	}
	for want, grow := range map[string]func(int, *SoakSample){
		"":            func(int, *SoakSample) {},
		"goroutines":  func(i int, s *SoakSample) { s.Goroutines += i / 5 },
		"descriptors": func(i int, s *SoakSample) { s.Descriptors += i / 5 },
		"threads":     func(i int, s *SoakSample) { s.Threads += i / 2 },
		"resident":    func(i int, s *SoakSample) { s.Resident += int64(i) * 5e5 },
	} {
		err := soak(grow).flat()
		if (want == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("where %q grows: %v", want, err)
		}
	}
	if err := (&SoakTrial{Samples: make([]SoakSample, 5)}).flat(); err == nil {
		t.Error("nothing is said of five samples")
	}
}

func TestRecoveryTable(t *testing.T) {
	r := &Results{Recoveries: []RecoveryTrial{
		{Round: 1, Wire: "culvert", Fault: faultLink, Times: []float64{3, 1, 2}},
		{Round: 2, Wire: "culvert", Fault: faultLink, Times: []float64{100}},
	}}
	var b strings.Builder
	writeRecoveryTable(&b, r)
	if want := "culvert  link loss  4  3    100  100\n"; !strings.Contains(b.String(), want) {
		t.Errorf("the table lacks %q:\n%s", want, b.String())
	}
}
