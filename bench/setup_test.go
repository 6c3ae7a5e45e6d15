package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/spec"
)

// TestQuickSetup sets small networks up.
func TestQuickSetup(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	file := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	if err := run(t.Context(), []string{"-rounds", "2", "-parts", "setup", "-devices", "5,20", "-out", file}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	r, err := loadResults(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Trials)+len(r.Handshakes)+len(r.Floods)+len(r.Frames) != 0 {
		t.Error("more was measured than was asked for")
	}
	var sizes []int
	for _, s := range r.Setups {
		sizes = append(sizes, s.Devices)
		if s.Items <= s.Devices || s.Steps <= s.Devices || s.PeakMemory < 1<<20 || s.Disk == "" || s.LoadBefore == "" {
			t.Errorf("%d devices: %+v", s.Devices, s)
		}
		for _, phase := range setupPhases {
			if e := phase.of(&s); e == nil || e.Seconds <= 0 || e.CPU <= 0 {
				t.Errorf("%d devices: %s: %+v", s.Devices, phase.name, e)
			}
		}
		// Apply reads and plans twice, and acts.
		if s.Apply.CPU <= s.Again.CPU {
			t.Errorf("%d devices: apply %+v, plan again %+v", s.Devices, s.Apply, s.Again)
		}
	}
	if !slices.Equal(sizes, []int{5, 20, 20, 5}) {
		t.Errorf("sizes in order: %v", sizes)
	}
	var again strings.Builder
	if err := run(t.Context(), []string{"-compare", file}, &again, &stderr); err != nil {
		t.Fatal(err)
	}
	if again.String() != stdout.String() {
		t.Errorf("-compare prints\n%s\nthe run itself printed\n%s", again.String(), stdout.String())
	}
	for _, part := range []string{"5 devices", "20 devices", "20/5", "plan again, CPU", "us/device"} {
		if !strings.Contains(stdout.String(), part) {
			t.Errorf("the table has no %q:\n%s", part, stdout.String())
		}
	}
}

// What is already there is somebody else's, and a trial that meets it fails with what it had measured.
func TestSetupTrialFails(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	for _, test := range []struct {
		device, want string
		planned      bool
	}{
		{"br0", "after plan: the plan is: ", true},
		{"other", "", true},
	} {
		err := onStage(t.Context(), func(s *stage) error {
			host := lab.NewHost(s, "setup")
			host.Shell("ip", "link", "add", test.device, "type", "bridge")
			a, err := startAgent(s, host)
			if err != nil {
				return err
			}
			got, err := call[setupResult](a, "setup-run", setupRun{10, filepath.Join(t.TempDir(), "journal")}, 0)
			if err != nil {
				return err
			}
			if (got.Error == "") != (test.want == "") || !strings.HasPrefix(got.Error, test.want) || (got.Trial.Plan != nil) != test.planned ||
				(got.Trial.Destroy != nil) != (test.want == "") {
				t.Errorf("with %s: %q, %+v", test.device, got.Error, got.Trial)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// A device that is missing after the apply is found.
func TestSetupCountsDevices(t *testing.T) {
	lab.NeedTun(t)
	host := lab.NewHost(t, "setup")
	var trial SetupTrial
	err := host.Do(func() error {
		return trial.run(t.Context(), setupNetwork(5), setupRun{6, filepath.Join(t.TempDir(), "journal")})
	})
	if want := "after plan again: culvert has 5 devices, want 6"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if trial.Again == nil || trial.Destroy != nil {
		t.Errorf("measured %+v", trial)
	}
}

func TestSetupNetwork(t *testing.T) {
	sizes := []int{maxSetupDevices}
	for n := minSetupDevices; n < 1000; n += 1 + n/60 {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		s := setupNetwork(n)
		if errs := s.Validate(); len(errs) > 0 {
			t.Fatalf("%d devices: %v", n, errs)
		}
		count := map[spec.Type]int{}
		for _, l := range s.Links {
			count[l.Type]++
			if l.Veth != nil {
				count[l.Type]++
			}
		}
		if total := count[spec.TypeBridge] + count[spec.TypeTap] + count[spec.TypeVeth]; total != n || count[spec.TypeBridge] != (n+9)/10 ||
			n%10 == 0 && (count[spec.TypeTap] != 3*n/10 || count[spec.TypeVeth] != 6*n/10) {
			t.Fatalf("%d devices: %v", n, count)
		}
	}
	kinds := map[model.Kind]int{}
	for _, i := range model.Expand(setupNetwork(1000)) {
		kinds[i.ID.Kind()]++
	}
	want := map[model.Kind]int{model.KindLink: 1000, model.KindAttachment: 600, model.KindAddress: 400}
	if !maps.Equal(kinds, want) {
		t.Errorf("1000 devices are %v, want %v", kinds, want)
	}
}
