package interop

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// TestBondOverTwoTunnels runs TestBondInGuest in a QEMU guest, whose kernel has bonding.
func TestBondOverTwoTunnels(t *testing.T) {
	t.Parallel()
	if inGuest() {
		t.Skip("this is the guest")
	}
	g := lab.NewGuest(t, lab.GuestOptions{
		Modules:  []string{"bonding", "veth", "tun"},
		Programs: []string{"ip", "ping", "wg"},
		Files: map[string]string{
			"/opt/interop.test": buildTests(t),
			"/opt/culvert":      program(t, "culvert", "culvert/cmd/culvert"),
		},
		Memory: 1024,
		Limit:  8 * time.Minute,
		Script: `mkdir -p /run/wireguard /run/culvert
export CULVERT_INTEROP_GUEST=1 CULVERT_INTEROP_PROGRAMS=/opt CULVERT_NO_SKIP=1
/opt/interop.test -test.v -test.timeout 7m -test.run '^TestBondInGuest$'
`,
	})
	out, code := g.Run(t.Context())
	if code != 0 || !strings.Contains(out, "--- PASS: TestBondInGuest") {
		t.Errorf("the test in the guest ended with %d:\n%s\nconsole:\n%s", code, out, lastLines(g.Console(), 40))
		return
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "_test.go:") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// Two tunnels over paths of their own are the ports of a bond. When the better path is cut, its interfaces lose their carriers at
// both ends and the bond goes on with the other; when it is back, it is used again.
func TestBondInGuest(t *testing.T) {
	if !inGuest() {
		t.Skip("runs in the guest of TestBondOverTwoTunnels")
	}
	a, b := newSite(t, "a"), newSite(t, "b")
	names := [2]string{"path0", "path1"}
	var wires [2]lab.Wire
	for i, name := range names {
		wires[i] = lab.Link(t, a.host, b.host)
		atA, atB := a.tap(name, etherPort+uint16(i)), b.tap(name, etherPort+uint16(i))
		connect(atA, atB, wires[i])
		up(atA, atB)
	}
	addresses := [2]netip.Prefix{netip.MustParsePrefix("10.51.0.1/24"), netip.MustParsePrefix("10.51.0.2/24")}
	for i, s := range []*site{a, b} {
		s.host.Shell("ip", "link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "100")
		for _, name := range names {
			s.host.Down(name)
			s.host.Shell("ip", "link", "set", name, "master", "bond0")
		}
		s.host.Shell("ip", "link", "set", "bond0", "type", "bond", "primary", names[0])
		s.host.AddAddr("bond0", addresses[i].String())
		s.host.Up("bond0")
	}
	uses := func(path string) func() bool {
		return func() bool { return a.activePort() == path && b.activePort() == path }
	}
	lab.Eventually(t, patience, "the bonds use the better path", uses(names[0]))
	pings := (&station{host: a.host}).stream(t, addresses[1].Addr())
	reaches := func(when string) time.Duration {
		t.Helper()
		begun := time.Now()
		lab.Eventually(t, patience, "answered "+when, func() bool { return pings.answered(begun) })
		return time.Since(begun).Round(time.Millisecond)
	}
	reaches("before")

	b.host.Down(wires[0].B.Device)
	outage := reaches("with the better path cut")
	if !uses(names[1])() {
		t.Errorf("with the better path cut the bonds use %s and %s", a.activePort(), b.activePort())
	}
	t.Logf("the bonds failed over in %v", outage)
	if outage > 15*time.Second {
		t.Errorf("it took %v to fail over, with a keepalive of 1 s", outage)
	}
	b.host.Up(wires[0].B.Device)
	lab.Eventually(t, patience, "the bonds use the better path again", uses(names[0]))
	reaches("with the better path back")
}

// activePort is the port that bond0 uses.
func (s *site) activePort() string {
	s.t.Helper()
	var links []struct {
		LinkInfo struct {
			Data struct {
				Active string `json:"active_slave"`
			} `json:"info_data"`
		}
	}
	if err := json.Unmarshal([]byte(s.host.Shell("ip", "-d", "-j", "link", "show", "dev", "bond0")), &links); err != nil {
		s.t.Fatal(err)
	}
	if len(links) != 1 {
		s.t.Fatalf("ip link show dev bond0 shows %d links", len(links))
	}
	return links[0].LinkInfo.Data.Active
}
