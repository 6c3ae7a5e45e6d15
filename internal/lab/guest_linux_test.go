package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGuestReturnsOutputAndExitCode(t *testing.T) {
	t.Parallel()
	hostFile := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(hostFile, []byte("#!/bin/sh\necho hello from the host\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	g := NewGuest(t, GuestOptions{
		Files:  map[string]string{"/opt/hello": hostFile},
		Script: "/opt/hello\necho complaint >&2\nprintf 'guest exit 3\\nno newline'\nexit 7\n",
	})
	out, code := g.Run(t.Context())
	if code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if want := "hello from the host\ncomplaint\nguest exit 3\nno newline"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
}

func TestGuestHasKernelWireGuardAndNetem(t *testing.T) {
	t.Parallel()
	g := NewGuest(t, GuestOptions{
		Modules:  []string{"wireguard", "veth", "sch_netem", "tun"},
		Programs: []string{"ip", "tc", "wg"},
		Script: `set -e
ip link add wg0 type wireguard
umask 077
wg genkey > /tmp/key
wg set wg0 private-key /tmp/key listen-port 51820
wg show wg0 listen-port
ip link add veth0 type veth peer name veth1
tc qdisc add dev veth0 root netem loss 50%
tc qdisc show dev veth0
ls -l /dev/net/tun
`})
	out, code := g.Run(t.Context())
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	for _, want := range []string{"51820", "netem", "loss 50%", "/dev/net/tun"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

// The kernel finds modules by itself: the script loads nothing and names no module.
func TestGuestKernelLoadsModulesItself(t *testing.T) {
	t.Parallel()
	g := NewGuest(t, GuestOptions{
		Modules:  []string{"ifb"},
		Programs: []string{"ip"},
		Script:   "rmmod ifb && ip link add test0 type ifb && ip -brief link show test0\n",
	})
	out, code := g.Run(t.Context())
	if code != 0 || !strings.Contains(out, "test0") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestGuestTellsACrashFromAnExit(t *testing.T) {
	t.Parallel()
	g := NewGuest(t, GuestOptions{Script: "echo before\necho c > /proc/sysrq-trigger\nsleep 60\n"})
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, code, err := g.Wait()
	if !errors.Is(err, ErrGuestCrashed) {
		t.Fatalf("exit code %d, error %v; want a crash", code, err)
	}
	if !strings.Contains(out, "before") || !strings.Contains(g.Console(), "sysrq") {
		t.Errorf("output %q, console:\n%s", out, g.Console())
	}
}

func TestGuestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	g := NewGuest(t, GuestOptions{Script: "echo up\nsleep 1000\n"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Await("up\n"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, _, err := g.Wait(); !errors.Is(err, ErrGuestCrashed) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want one that says canceled", err)
	}
}

func TestGuestsTalkOverACable(t *testing.T) {
	t.Parallel()
	a, b, err := GuestCable()
	if err != nil {
		t.Fatal(err)
	}
	script := func(self, other string) string {
		return `set -e
ip addr add ` + self + `/24 dev eth0
ip link set eth0 up
echo up
read line
[ "$line" = go ]
ping -c 1 -W 20 ` + other + `
echo reached
read line
`
	}
	first := NewGuest(t, GuestOptions{NICs: []GuestNIC{{Cable: a}}, Script: script("10.0.0.1", "10.0.0.2")})
	second := NewGuest(t, GuestOptions{
		NICs:   []GuestNIC{{Cable: b, MAC: "52:54:00:00:00:02"}},
		Script: script("10.0.0.2", "10.0.0.1"),
	})
	guests := []*Guest{first, second}
	for _, g := range guests {
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ await, send string }{{"up\n", "go"}, {"reached\n", "end"}} {
		for _, g := range guests {
			if err := g.Await(step.await); err != nil {
				t.Fatal(err)
			}
		}
		for _, g := range guests {
			if err := g.Send(step.send); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, g := range guests {
		if out, code, err := g.Wait(); code != 0 || err != nil {
			t.Errorf("exit code %d, %v:\n%s", code, err, out)
		}
	}
}

func TestGuestLimit(t *testing.T) {
	t.Parallel()
	g := NewGuest(t, GuestOptions{Limit: 100 * time.Millisecond, Script: "true"})
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Wait(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline's", err)
	}
}

// A guest on a tap inside a namespace is one more machine of a test network.
func TestGuestJoinsHostOverTap(t *testing.T) {
	t.Parallel()
	NeedTun(t)
	host := NewHost(t, "host")
	host.Shell("ip", "tuntap", "add", "mode", "tap", "name", "tap0")
	host.AddAddr("tap0", "10.0.0.1/24")
	host.Up("tap0")
	g := NewGuest(t, GuestOptions{
		NICs:  []GuestNIC{{Tap: "tap0"}},
		Start: host.Start,
		Script: `set -e
ip addr add 10.0.0.2/24 dev eth0
ip link set eth0 up
ping -c 1 -W 20 10.0.0.1
echo reached
read line
`})
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Await("reached\n"); err != nil {
		t.Fatal(err)
	}
	if err := host.Ping(netip.MustParseAddr("10.0.0.2")); err != nil {
		t.Error(err)
	}
	if err := g.Send("end"); err != nil {
		t.Fatal(err)
	}
	if out, code, err := g.Wait(); code != 0 || err != nil {
		t.Errorf("exit code %d, %v:\n%s", code, err, out)
	}
}
