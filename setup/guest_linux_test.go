package setup_test

import (
	"os"
	"strings"
	"testing"

	"culvert/internal/lab"
	"culvert/setup"
)

// inGuest says that this process runs inside a guest of the tests below.
const inGuest = "CULVERT_SETUP_GUEST"

// runInGuest runs tests of this binary in a guest with Debian's kernel and those modules, and with variables NAME=VALUE.
func runInGuest(t *testing.T, tests string, modules, programs []string, variables ...string) string {
	t.Helper()
	if os.Getenv(inGuest) != "" {
		t.Skip("this is the guest")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := lab.NewGuest(t, lab.GuestOptions{
		Modules:  modules,
		Programs: programs,
		Files:    map[string]string{"/opt/setup.test": self},
		Script: "export " + inGuest + "=1 CULVERT_NO_SKIP=1 HOME=/tmp " + strings.Join(variables, " ") + "\n" +
			"exec /opt/setup.test -test.v -test.run '" + tests + "'\n",
	})
	out, code := g.Run(t.Context())
	if code != 0 || strings.Contains(out, "no tests to run") {
		t.Fatalf("the tests in the guest ended with %d:\n%s", code, out)
	}
	return out
}

// TestOnDebianKernel repeats the tests of tunnel interfaces on Debian 12's kernel, years older than some hosts'.
func TestOnDebianKernel(t *testing.T) {
	t.Parallel()
	const tests = "^Test(ApplyAndRemove|WhatWasThereStays|DefaultRoutePolicy|WhereDatagramsGo|ForgedPacketsAreDropped|" +
		"FailureRollsBack|RemoveSurvivesWhatIsGone|SideBySide|RemainsOfAKilledProcessAreReaped|AutoMTU)$"
	out := runInGuest(t, tests, []string{"tun", "veth", "nf_tables", "nft_ct", "nft_chain_nat", "nft_masq", "nft_fib_ipv4",
		"nft_fib_ipv6"}, []string{"ip", "nft"})
	if ran, want := strings.Count(out, "\n--- PASS: "), strings.Count(tests, "|")+1; ran != want {
		t.Errorf("%d tests ran, want %d:\n%s", ran, want, out)
	}
}

// TestKernelWithoutNFTables runs the test after it in a guest that has no nftables.
func TestKernelWithoutNFTables(t *testing.T) {
	t.Parallel()
	out := runInGuest(t, "^TestPolicyWithoutNFTables$", []string{"tun", "veth"}, []string{"ip"})
	if !strings.Contains(out, "--- PASS: TestPolicyWithoutNFTables") {
		t.Errorf("the test did not run:\n%s", out)
	}
}

func TestPolicyWithoutNFTables(t *testing.T) {
	if os.Getenv(inGuest) == "" {
		t.Skip("runs in the guest of TestKernelWithoutNFTables")
	}
	h := lab.NewHost(t, "tun")
	addTun(t, h, "wg0")
	a, err := setup.Apply(t.Context(), setup.L3{Link: "wg0", Namespace: h.NetnsPath(),
		Addresses: prefixes("10.20.0.1/24", "fd20::1/64"), Routes: routes("0.0.0.0/0", "::/0")})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0].Error(), "CONFIG_NF_TABLES") {
		t.Errorf("warnings %v, want one that names what the kernel lacks", a.Warnings)
	}
	for _, family := range []string{"-4", "-6"} {
		wantLines(t, "rules", h.Shell("ip", family, "rule"), "suppress_prefixlength 0", "not from all fwmark 0xca6c")
	}
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	for _, family := range []string{"-4", "-6"} {
		if rules := h.Shell("ip", family, "rule"); strings.Contains(rules, "51820") {
			t.Errorf("rules are left:\n%s", rules)
		}
	}
}
