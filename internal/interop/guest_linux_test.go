package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// guestTests are the tests that make sense against the kernel; they run inside the guest, where its WireGuard is.
const guestTests = "^Test(TunnelCarriesBothFamilies|PresharedKey|RestartedSide|NewPrivateKey|RemovedPeer|RekeyByTime|" +
	"RoamingAddress|RoamingResponder|RoamingNATPort|KeepaliveThroughNAT|EndpointSwitchesFamily|SourceAddressSticks|SourceAddressFollowsRoute|" +
	"LossyUnderlay|SpoofedSourceIsDropped|DestinationOutsideAllowedIPs|JunkIsIgnored|CookieUnderLoad)$"

// TestKernelWireGuard runs the tests of this package once more, in a QEMU guest whose kernel has WireGuard, with the kernel as one side of every
// pair.
func TestKernelWireGuard(t *testing.T) {
	t.Parallel()
	if inGuest() {
		t.Skip("this is the guest")
	}
	pairs := "culvert/kernel kernel/culvert"
	files := map[string]string{"/opt/interop.test": buildTests(t)}
	if chosen := os.Getenv("CULVERT_INTEROP_GUEST_PAIRS"); chosen != "" {
		pairs = chosen
	}
	for _, p := range []struct{ name, pkg string }{
		{"culvert", "culvert/cmd/culvert"},
		{"wireguard", "golang.zx2c4.com/wireguard"},
	} {
		if strings.Contains(pairs, p.name) {
			files[filepath.Join("/opt", p.name)] = program(t, p.name, p.pkg)
		}
	}
	arguments := "-test.v -test.timeout 20m -test.parallel 8 -test.run '" + guestTests + "'"
	if testing.Short() {
		arguments += " -test.short"
	}
	g := lab.NewGuest(t, lab.GuestOptions{
		Modules:  []string{"wireguard", "veth", "tun", "sch_netem", "nf_tables", "nft_chain_nat", "nft_masq", "nf_conntrack_netlink"},
		Programs: []string{"ip", "tc", "wg", "ping"},
		Files:    files,
		Memory:   1024,
		Limit:    20 * time.Minute,
		Script: `mkdir -p /run/wireguard /run/culvert
export CULVERT_INTEROP_GUEST=1 CULVERT_INTEROP_PROGRAMS=/opt CULVERT_NO_SKIP=1 CULVERT_INTEROP_PAIRS="` + pairs + `"
/opt/interop.test ` + arguments + "\n",
	})
	out, code := g.Run(t.Context())
	if code != 0 {
		t.Errorf("the tests in the guest ended with %d:\n%s", code, out)
	}
	// Each test must have run, and for each pair: a pattern that matches nothing proves nothing.
	for name := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(guestTests, "^Test("), ")$"), "|") {
		if testing.Short() && (name == "RekeyByTime" || name == "CookieUnderLoad") {
			continue
		}
		for pair := range strings.FieldsSeq(pairs) {
			if name == "CookieUnderLoad" && strings.HasSuffix(pair, "/"+culvert.name) {
				continue // see there
			}
			if want := "--- PASS: Test" + name + "/" + strings.Replace(pair, "/", "-to-", 1); !strings.Contains(out, want) {
				t.Errorf("in the guest's output there is no %q", want)
			}
		}
	}
	if t.Failed() {
		t.Logf("console:\n%s", lastLines(g.Console(), 40))
	}
}

// buildTests builds this package's tests as a static program, whatever this one is (a race detector would crawl in an emulator).
func buildTests(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "interop.test")
	command := exec.Command("go", "test", "-c", "-o", file, "culvert/internal/interop")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return file
}

// inGuest reports whether this process runs inside TestKernelWireGuard's guest.
func inGuest() bool { return os.Getenv("CULVERT_INTEROP_GUEST") != "" }

// A tunnel over a path that loses, delays, reorders and duplicates packets still carries every byte. It needs netem, which the guest has.
func TestLossyUnderlay(t *testing.T) {
	if !inGuest() {
		t.Skip("runs in the guest of TestKernelWireGuard")
	}
	forPairs(t, func(t *testing.T, p pair) {
		a, b, wire := newTunnel(t, p, ipv4)
		for _, end := range []lab.End{wire.A, wire.B} {
			end.Host.Shell("tc", "qdisc", "add", "dev", end.Device, "root", "netem", "delay", "20ms", "10ms", "loss", "2%",
				"duplicate", "5%", "reorder", "10%")
		}
		a.reaches(innerB.v4)
		transfer(t, a.host, b.host, innerB.v4, 256<<10)
	})
}
