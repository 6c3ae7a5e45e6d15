package setup_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"culvert/internal/lab"
	"culvert/setup"
)

// TestVMPortsOnDebianKernel repeats the tests of VM ports on Debian 12's kernel.
func TestVMPortsOnDebianKernel(t *testing.T) {
	t.Parallel()
	const tests = "^Test(VMPortCarriesEveryFrame|VMPortCarriesSuperFrames|VMPortsSideBySide|KilledVMPortIsReaped|VMPortFollows)$"
	out := runInGuest(t, tests, []string{"tun", "veth", "bridge", "macvlan", "macvtap", "sch_ingress", "cls_u32", "act_mirred"}, []string{"ip", "tc"})
	if ran, want := strings.Count(out, "\n--- PASS: "), strings.Count(tests, "|")+1; ran != want {
		t.Errorf("%d tests ran, want %d:\n%s", ran, want, out)
	}
}

// TestKernelWithoutVMPorts runs the test after it in guests that lack what the options stand for.
func TestKernelWithoutVMPorts(t *testing.T) {
	t.Parallel()
	for options, modules := range map[string][]string{
		"CONFIG_MACVTAP CONFIG_NET_SCH_INGRESS":                   {"tun", "veth"},
		"CONFIG_MACVTAP CONFIG_NET_CLS_U32+CONFIG_NET_ACT_MIRRED": {"tun", "veth", "sch_ingress"},
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			out := runInGuest(t, "^TestVMPortWithout$", modules, []string{"ip", "tc"}, lacking+"='"+options+"'")
			if !strings.Contains(out, "--- PASS: TestVMPortWithout") {
				t.Errorf("the test did not run:\n%s", out)
			}
		})
	}
}

// lacking names what the guest's kernel lacks for a macvtap and for a tap.
const lacking = "CULVERT_SETUP_LACKING"

func TestVMPortWithout(t *testing.T) {
	macvtap, tap, ok := strings.Cut(os.Getenv(lacking), " ")
	if !ok || os.Getenv(inGuest) == "" {
		t.Skip("runs in the guests of TestKernelWithoutVMPorts")
	}
	h := lab.NewHost(t, "a")
	newTunnel(t, h, "office")
	before := devices(h)
	for kind, options := range map[setup.VMPortKind]string{setup.VMPortMacvtap: macvtap, setup.VMPortTap: tap} {
		a, err := setup.AttachVM(setup.VMPort{Link: "office", Namespace: h.NetnsPath(), Kind: kind})
		if err == nil {
			t.Errorf("%v works without %s", kind, options)
			a.Remove()
		}
		opErr, ok := errors.AsType[*setup.OpError](err)
		for option := range strings.SplitSeq(options, "+") {
			if !ok || !strings.Contains(opErr.Hint, option) {
				t.Errorf("%v: %v, want %s named", kind, err, option)
			}
		}
		t.Log(err)
		if after := devices(h); after != before {
			t.Errorf("%v: before:\n%s\nafter:\n%s", kind, before, after)
		}
	}
}
