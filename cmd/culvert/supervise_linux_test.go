package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// TestSupervisorIsStartedAndEnds: the program supervises itself, with a log beside the daemons', and leaves nothing.
func TestSupervisorIsStartedAndEnds(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "dnsmasq")
	h := lab.NewHost(t, "server")
	h.Shell("ip", "link", "add", "veth-b", "type", "veth", "peer", "name", "far")
	h.Shell("ip", "addr", "add", "10.7.0.2/24", "dev", "veth-b")
	h.Shell("ip", "link", "set", "veth-b", "up")
	culvert, err := exec.LookPath("culvert")
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(t.TempDir(), "run")
	p := &program{name: "culvert", runDir: run, stderr: os.Stderr}
	k := p.services(culvert, "office")
	id := model.ProcessID("dnsmasq:veth-b")
	step := &plan.Step{Op: plan.Create, ID: id, Fields: model.Fields{"program": "dnsmasq", "netns": model.Value(h.Namespace.Name()),
		"args": `["--keep-in-foreground","--conf-file=/dev/null","--port=0","--interface=veth-b","--dhcp-range=10.7.0.9,10.7.0.20","--dhcp-leasefile=@leases"]`}}
	t.Cleanup(func() {
		if _, err := k.Do(t.Context(), &plan.Step{Op: plan.Delete, ID: id}); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	if _, err := k.Do(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(run, "office~services.log")
	lab.Eventually(t, 5*time.Second, "what dnsmasq says is in the log", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "IP range 10.7.0.9")
	})
	for _, path := range []string{log, run} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	list, err := k.Status(t.Context())
	if err != nil || len(list) != 1 || list[0].PID == 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	if _, err := k.Do(t.Context(), &plan.Step{Op: plan.Delete, ID: id}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(list[0].PID, 0); err == nil {
		t.Error("dnsmasq runs on")
	}
	if left, err := os.ReadDir(run); err != nil || len(left) != 0 {
		t.Errorf("left in the run directory: %v, %v", left, err)
	}
}

// TestSuperviseByHand is of no use, and says so.
func TestSuperviseByHand(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("culvert", "supervise", t.TempDir(), "office")
	cmd.Env = append(os.Environ(), "CULVERT_RUN_DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is started by culvert itself") {
		t.Errorf("%v: %s", err, out)
	}
}
