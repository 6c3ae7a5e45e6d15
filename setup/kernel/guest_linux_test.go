package kernel_test

import (
	"os"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// modules is what the tests need of Debian's kernel.
var modules = []string{"tun", "veth", "bridge", "macvlan", "macvtap", "ipvlan", "ipvtap", "ifb", "8021q", "bonding", "team", "sch_ingress", "sch_htb",
	"sch_tbf", "sch_sfq", "sch_cake", "cls_u32", "act_mirred", "nf_tables", "nft_chain_nat", "nft_masq", "nft_ct", "nft_fib_inet", "nf_conntrack"}

// runInGuest runs tests of this binary in a guest with Debian's kernel and those modules, and with variables NAME=VALUE.
func runInGuest(t *testing.T, tests string, modules []string, variables ...string) string {
	t.Helper()
	if isGuest() {
		t.Skip("this is the guest")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := lab.NewGuest(t, lab.GuestOptions{
		Modules:  modules,
		Programs: []string{"ip", "tc"},
		Files:    map[string]string{"/opt/kernel.test": self},
		Script: "export " + inGuest + "=1 CULVERT_NO_SKIP=1 HOME=/tmp " + strings.Join(variables, " ") + "\n" +
			"exec /opt/kernel.test -test.v -test.run '" + tests + "'\n",
	})
	out, code := g.Run(t.Context())
	if code != 0 || strings.Contains(out, "no tests to run") {
		t.Fatalf("the tests in the guest ended with %d:\n%s", code, out)
	}
	return out
}

// TestOnDebianKernel runs the tests of this package on Debian 12's kernel, which has what a host may lack.
func TestOnDebianKernel(t *testing.T) {
	t.Parallel()
	const tests = "^Test(RoundTrip|ReadLeavesOutTheKernelsOwn|ReferencesAcrossNamespaces|Netns|NothingKeepsANamespace|" +
		"OnlyWhatIsMeantIsDeleted|DetachedFromItsMasterOnly|ForeignIsUnmarked|Persist|BondDelaysFollowMiimon|BondPrimary|" +
		"TryFindsEverything|PlanConverges)$"
	out := runInGuest(t, tests, modules)
	for _, tr := range trips {
		if want := "--- PASS: TestRoundTrip/" + strings.ReplaceAll(tr.name, " ", "_") + " "; !strings.Contains(out, want) {
			t.Errorf("in the guest's output there is no %q", want)
		}
	}
}
