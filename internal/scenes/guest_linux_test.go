package scenes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

const (
	guestEnv    = "CULVERT_SCENES_GUEST"    // "1": this process runs inside a guest
	examplesEnv = "CULVERT_SCENES_EXAMPLES" // where examples/ is
	programEnv  = "CULVERT_SCENES_CULVERT"  // where culvert is
	aloneEnv    = "CULVERT_SCENES"          // anything: nothing else runs on the machine
)

func inGuest() bool { return os.Getenv(guestEnv) != "" }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// guestModules are what Debian's kernel needs for everything that a file can declare.
var guestModules = []string{"tun", "veth", "bridge", "macvlan", "macvtap", "ipvlan", "ipvtap", "ifb", "8021q", "bonding", "team",
	"team_mode_activebackup", "team_mode_loadbalance", "team_mode_roundrobin", "team_mode_broadcast", "team_mode_random",
	"sch_ingress", "sch_htb", "sch_tbf", "sch_sfq", "sch_cake", "cls_u32", "act_mirred",
	"nf_tables", "nft_chain_nat", "nft_masq", "nf_conntrack"}

// guestTests are those that run in guests, two guests at once: the longest first.
var guestTests = [][]string{
	{"KilledBetweenSteps"},
	{"FailureOfEveryStep"},
	{"BondLACP", "BondActiveBackup", "BondModes", "TeamLACP", "TeamNSNA", "TeamRunners"},
	{"IPvlan", "IPvlanFlags", "IPvtap", "BridgeVLANs", "VLANDevices", "IFBFair", "LimitsHold", "FlowsShareFairly", "TunnelBond"},
}

// TestInGuest runs tests of this package in guests with Debian's kernel, which has what the host's may lack.
func TestInGuest(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts guests")
	}
	if inGuest() {
		t.Skip("this is the guest")
	}
	if os.Getenv(aloneEnv) == "" {
		t.Skipf("its guests want both processors for minutes: %s=1 runs it, as .ci/run does when nothing else runs", aloneEnv)
	}
	files := map[string]string{"/opt/scenes.test": buildTests(t), "/opt/culvert": culvertProgram(t)}
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	for _, path := range examples {
		files["/opt/examples/"+filepath.Base(path)] = path
	}
	processors := make(chan struct{}, 2) // an emulated machine takes one whole
	for _, tests := range guestTests {
		t.Run(tests[0], func(t *testing.T) {
			t.Parallel()
			processors <- struct{}{}
			defer func() { <-processors }()
			g := lab.NewGuest(t, lab.GuestOptions{
				Modules:  guestModules,
				Programs: []string{"ip", "tc", "nft", "ping", "dnsmasq", "teamd", "teamdctl"},
				Files:    files,
				Memory:   1024,
				Limit:    10 * time.Minute,
				Script: "export " + guestEnv + "=1 CULVERT_NO_SKIP=1 HOME=/tmp " + examplesEnv + "=/opt/examples " + programEnv + "=/opt/culvert\n" +
					"exec /opt/scenes.test -test.v -test.timeout 9m -test.parallel 12 -test.run '^Test(" + strings.Join(tests, "|") + ")$'\n",
			})
			out, code := g.Run(t.Context())
			if code != 0 {
				t.Errorf("the tests in the guest ended with %d:\n%s", code, out)
			}
			// A pattern that matches nothing proves nothing.
			for _, name := range tests {
				if !strings.Contains(out, "\n--- PASS: Test"+name+" ") {
					t.Errorf("in the guest's output there is no pass of Test%s", name)
				}
			}
			for line := range strings.Lines(out) {
				if strings.Contains(line, "_test.go:") && !t.Failed() {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

// buildTests builds this package's tests as a static program, whatever this one is: a race detector would crawl in an emulator.
func buildTests(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "scenes.test")
	command := exec.Command("go", "test", "-c", "-o", file, "culvert/internal/scenes")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return file
}
