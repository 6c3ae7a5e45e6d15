package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"culvert/setup/apply"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// lacking is a machine that has no bridges and no dnsmasq.
type lacking struct{ err error }

func (l lacking) Try(_ context.Context, steps []plan.Step) (list []apply.Missing, err error) {
	for _, s := range steps {
		switch {
		case s.Type == "bridge" && s.ID.Kind() == model.KindLink && s.Op == plan.Create:
			list = append(list, apply.Missing{Step: s, What: "bridge devices", Err: kerneltest.ErrUnsupported, Config: "CONFIG_BRIDGE", Module: "bridge stp"})
		case s.ID.Kind() == model.KindProcess:
			list = append(list, apply.Missing{Step: s, What: "the program dnsmasq"})
		}
	}
	return list, l.err
}

// A plan says what the machine lacks for it, and ends as it does without.
func TestPlanTellsWhatIsMissing(t *testing.T) {
	file := yamlFile(t, "version: 1\nlinks:\n  br0: {type: bridge}\n  t1:\n    type: tap\nservices:\n  - {dnsmasq: {interface: t1, range: \"10.0.0.2,10.0.0.9\"}}\n")
	var out, complaints bytes.Buffer
	tried := lacking{}
	p := &program{name: "culvert", stdout: &out, stderr: &complaints, runDir: t.TempDir(), stateDir: t.TempDir()}
	p.machineOf = func(string) machine { return machine{Kernel: kerneltest.New(), preflight: tried} }
	do := func(args ...string) (string, int) {
		out.Reset()
		code := p.run(append([]string{"culvert", "plan", file.Path}, args...))
		if complaints.Len() > 0 {
			t.Errorf("complaints: %s", &complaints)
		}
		return out.String(), code
	}
	text, code := do()
	for _, want := range []string{
		"! link br0 needs bridge devices, which the kernel lacks: operation not supported; try modprobe -a bridge stp; the kernel needs CONFIG_BRIDGE (" + file.Path + ":3:3)\n",
		"! process dnsmasq:t1 needs the program dnsmasq (" + file.Path + ":7:",
		"3 to create; 2 missing, without which apply refuses it\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if code != 0 {
		t.Errorf("it ended with %d", code)
	}
	if _, code := do("--exit-code"); code != exitChanges {
		t.Errorf("--exit-code: %d", code)
	}
	var made plan.Plan
	text, _ = do("--json")
	if err := json.Unmarshal([]byte(text), &made); err != nil || len(made.Missing) != 2 || made.Missing[0].Config != "CONFIG_BRIDGE" ||
		!slices.Equal(made.Missing[0].Modules, []string{"bridge", "stp"}) || made.Missing[0].Origin.Line != 3 || made.Missing[1].What != "the program dnsmasq" {
		t.Errorf("%v: %+v", err, made.Missing)
	}
	tried.err = errors.New("no right")
	if text, code := do(); code != 0 || !strings.Contains(text, "# whether the machine has all that is needed was not tried: no right\n") {
		t.Errorf("where it cannot be tried it ends with %d: %s", code, text)
	}
}
