package vmlink

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"culvert/crypto"
	"culvert/internal/lab"
)

const port = 51820

// site is a host with a daemon whose tunnel office leads to another site.
type site struct {
	t    *testing.T
	host *lab.Host
	run  string // root folder of the host's processes
	file string // configuration
	key  crypto.PrivateKey
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	lab.NeedTun(t)
	h := lab.NewHost(t, name)
	s := &site{t: t, host: h, run: h.PrivateRun(), file: filepath.Join(t.TempDir(), "office.yaml")}
	var err error
	if s.key, err = crypto.GeneratePrivateKey(); err != nil {
		t.Fatal(err)
	}
	return s
}

// culvert is the program.
func culvert(t *testing.T) string {
	t.Helper()
	return lab.Build(t, "culvert/cmd/culvert")
}

// newSites makes two sites joined by a wire of that MTU, and brings up their tunnels.
func newSites(t *testing.T, mtu int, outer func(lab.End) netip.Addr) (a, b *site) {
	t.Helper()
	a, b = newSite(t, "a"), newSite(t, "b")
	wire := lab.Link(t, a.host, b.host, lab.MTU(mtu), lab.NoOffloads())
	a.up(b, outer(wire.B))
	b.up(a, outer(wire.A))
	return a, b
}

// up starts the daemon.
func (s *site) up(far *site, endpoint netip.Addr) {
	s.t.Helper()
	folder := filepath.Dir(s.file)
	s.write(filepath.Join(folder, "office.key"), s.key.Base64()+"\n")
	s.write(s.file, fmt.Sprintf(`version: 1
tunnels:
  office:
    mode: tap
    listen: %d
    private_key_file: office.key
    mtu: 1500
    peers:
      far: {public_key: %q, endpoints: ["%v"]}
`, port, far.key.Public().Base64(), netip.AddrPortFrom(endpoint, port)))
	s.must("up", s.file)
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("%s: the daemon's log:\n%s", s.host.Name, s.log())
		}
	})
}

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) log() string {
	text, err := os.ReadFile(filepath.Join(s.run, "run/culvert/office.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// must runs a command of culvert on the host.
func (s *site) must(args ...string) string {
	s.t.Helper()
	out, err := s.host.Output(s.host.Command(s.t.Context(), culvert(s.t), args...))
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.log())
	}
	return string(out)
}

// restart ends the daemon and starts it again.
func (s *site) restart() {
	s.t.Helper()
	s.must("down", "office")
	s.must("up", s.file)
}

// devices is what the host has of devices and of ingress rules.
func (s *site) devices() string {
	return s.host.Shell("sh", "-c", "ls /sys/class/net; tc qdisc show dev office; tc filter show dev office ingress")
}

// documented returns the commands of docs/vm.md behind the mark "<!-- test: NAME -->".
func documented(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/vm.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "<!-- test: "+name+" -->\n```sh\n")
	commands, _, closed := strings.Cut(rest, "\n```\n")
	if !found || !closed {
		t.Fatalf("docs/vm.md has no commands marked %q", name)
	}
	return commands
}

// way is how a host gives its guest the tunnel.
type way struct {
	name    string
	backend string // of QEMU's -netdev
	vm      []string
}

var (
	bridge  = way{name: "bridge", backend: "tap,ifname=vm1,script=no,downscript=no"}
	macvtap = way{name: "macvtap", backend: "tap,fd={fd}", vm: []string{"vm", "office"}}
	second  = way{name: "tap", backend: "tap,ifname={name},script=no,downscript=no", vm: []string{"vm", "office", "--tap", "vm1"}}
)

// startGuest boots a guest on the site's end of the tunnel, as docs/vm.md says.
func (s *site) startGuest(w way, mac string) *lab.Guest {
	s.t.Helper()
	commands := documented(s.t, w.name)
	nic := lab.GuestNIC{Backend: w.backend, MAC: mac}
	options := lab.GuestOptions{
		Modules:  []string{"8021q"},
		Programs: []string{"ip", "ping", "dnsmasq"},
		NICs:     []lab.GuestNIC{nic},
		Memory:   256,
		Script:   "set -e\nip link set eth0 up\nset +e\n" + lab.GuestShell,
		Start:    s.host.Start,
	}
	// QEMU's arguments are those of the page, and so is what runs it.
	kind, rest, _ := strings.Cut(w.backend, ",")
	want := []string{"-netdev " + kind + ",id=net0," + rest, "-device virtio-net-pci,netdev=net0,mac=" + mac}
	if w.vm == nil {
		s.host.Shell("sh", "-e", "-c", commands)
		commands = documented(s.t, w.name+" guest")
		want[1] = "-device virtio-net-pci,netdev=net0,mac=" // of the user's choice
	} else {
		want = append(want, "culvert "+strings.Join(w.vm, " ")+" -- qemu-system-x86_64 ")
		options.Start = func(cmd *exec.Cmd) error {
			cmd.Args = append(append([]string{"culvert"}, w.vm...), append([]string{"--", cmd.Path}, cmd.Args[1:]...)...)
			cmd.Path = culvert(s.t)
			return s.host.Start(cmd)
		}
	}
	for _, part := range want {
		if !strings.Contains(commands, part) {
			s.t.Errorf("docs/vm.md lacks %q in\n%s", part, commands)
		}
	}
	g := lab.NewGuest(s.t, options)
	if err := g.Start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return g
}
