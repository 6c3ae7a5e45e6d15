package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/setup"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel"
	"culvert/tunnel/device"
)

// system is a kernel in memory. It notes what is done to it ("+x") and taken back ("-x"), and fails where it is told to.
type system struct {
	t       *testing.T
	mu      sync.Mutex
	log     []string
	failAt  string
	changes []tunnel.Change
	engine  *fakeEngine
	names   map[string]netip.Addr
	used    chan netip.AddrPort // endpoints set one by one
	mtu     int
	address config.MAC // of the tap opened last
	queues  int        // of the device opened last
	taps    int        // opened so far
}

func newSystem(t *testing.T) *system {
	return &system{t: t, used: make(chan netip.AddrPort, 8), names: map[string]netip.Addr{}, mtu: 1420}
}

var errInjected = errors.New("injected failure")

func (s *system) do(step string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step == s.failAt {
		return errInjected
	}
	s.log = append(s.log, "+"+step)
	return nil
}

func (s *system) undo(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, "-"+step)
}

// take returns the log so far and empties it.
func (s *system) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := strings.Join(s.log, " ")
	s.log = nil
	return out
}

func (s *system) kernel() kernel {
	return kernel{
		openTun: func(_, _ string, queues int) (device.Device, error) {
			s.queues = queues
			return fakeDevice{s: s}, s.do("tun")
		},
		openTap: func(_, _ string, address config.MAC, queues int) (device.Device, error) {
			s.address, s.queues, s.taps = address, queues, s.taps+1
			return fakeDevice{s: s}, s.do("tun")
		},
		newEngine: func(_ device.Device, n transport.Network, o tunnel.Options) (engine, error) {
			if err := s.do("engine"); err != nil {
				return nil, err
			}
			s.engine = &fakeEngine{s: s, network: n, options: o, done: make(chan struct{})}
			return s.engine, nil
		},
		network: fakeNetwork{s},
		serveWG: func(_, _ string, _ engine, _ func(string, ...any)) (*wgSocket, error) {
			return &wgSocket{close: func() error { s.undo("socket"); return nil }}, s.do("socket")
		},
		apply: func(_ context.Context, c setup.L3) (applied, error) {
			step := stepOf(c)
			if err := s.do(step); err != nil {
				return applied{}, err
			}
			if step == "up" {
				s.engine.network.Open(transport.Options{})
			}
			left := slices.Clone(c.Routes)
			return applied{
				remove: func() error {
					switch {
					case len(left) > 0:
						s.undo(stepOf(setup.L3{Routes: left}))
					case len(c.Routes) == 0:
						s.undo(step)
					}
					return nil
				},
				removeRoutes: func(routes []setup.Route) error {
					s.undo(stepOf(setup.L3{Routes: routes}))
					left = slices.DeleteFunc(left, func(r setup.Route) bool { return slices.Contains(routes, r) })
					return nil
				},
				followAddresses: func() error { return s.do("follow") },
			}, nil
		},
		autoMTU: func(_ context.Context, _ string, _ uint32, overhead int, _ []netip.Addr) (int, error) {
			return s.mtu + setup.WireGuardOverhead - overhead, nil
		},
		lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
			if a, ok := s.names[name]; ok {
				return []netip.Addr{a}, nil
			}
			return nil, errors.New("no such host")
		},
	}
}

// stepOf names what an application does: they come one kind at a time.
func stepOf(c setup.L3) string {
	switch {
	case c.MTU != 0:
		return fmt.Sprintf("mtu%d", c.MTU)
	case len(c.Addresses) > 0:
		return c.Addresses[0].String()
	case len(c.Routes) > 0:
		var list []string
		for _, r := range c.Routes {
			list = append(list, r.Prefix.String())
		}
		kind := "routes:"
		switch {
		case isPolicy(c.Routes[0]):
			kind = "policy:"
		case c.Routes[0].Metric == setup.StandInMetric:
			kind = "standin:"
		}
		return kind + strings.Join(list, ",")
	}
	return "up"
}

type fakeDevice struct {
	device.Device
	s *system
}

func (d fakeDevice) Close() error { d.s.undo("tun"); return nil }

type fakeNetwork struct{ s *system }

func (n fakeNetwork) Open(o transport.Options) (transport.Socket, error) {
	if err := n.s.do("port"); err != nil {
		return nil, err
	}
	return transporttest.New(1).Host(netip.MustParseAddr("127.0.0.1")).Open(o)
}

type fakeEngine struct {
	s       *system
	network transport.Network
	options tunnel.Options
	done    chan struct{}
	err     error
	peers   []tunnel.PeerStatus
	bridge  *tunnel.SwitchStatus
}

func (e *fakeEngine) Configure(c tunnel.Change) error {
	if len(c.Peers) == 1 && c.Peers[0].UpdateOnly {
		e.s.used <- c.Peers[0].Endpoint.Remote
		return nil
	}
	if c.Mark != nil && !c.ReplacePeers {
		return nil
	}
	if err := e.s.do("configure"); err != nil {
		return err
	}
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.s.changes = append(e.s.changes, c)
	return nil
}

func (e *fakeEngine) Status() tunnel.Status {
	return tunnel.Status{Name: "real", Peers: e.peers, Switch: e.bridge, PrivateKey: crypto.PrivateKey{1, 2, 3}}
}

func (e *fakeEngine) Close() error {
	e.s.undo("engine")
	e.s.undo("tun")
	e.s.undo("port")
	return nil
}

func (e *fakeEngine) Done() <-chan struct{}                       { return e.done }
func (e *fakeEngine) Push(crypto.PublicKey, string, []byte) error { return nil }

func (e *fakeEngine) Err() error                  { return e.err }
func (e *fakeEngine) Check(context.Context) error { return nil }
func (e *fakeEngine) Sessions() (live, peers int) { return 0, len(e.peers) }

// load writes a configuration file and loads it.
func load(t *testing.T, name, text string) *config.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	testPrivate = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
	testPeer    = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
	testPeer2   = "xgH7zx6EeUAFg4tAhVbbYHGbXyJRYFDKXNqm2Zlwp3U="
)

func (s *system) surroundings(remark func(string)) surroundings {
	if remark == nil {
		remark = func(string) {}
	}
	return surroundings{kernel: s.kernel(), log: slog.New(slog.DiscardHandler), out: io.Discard, remark: remark}
}

func fullFile(t *testing.T, hookLog string) *config.File {
	return load(t, "wg0.conf", `[Interface]
PrivateKey = `+testPrivate+`
Address = 10.20.0.1/24, fd20::1/64
DNS = 10.20.0.53
PreUp = echo preup %i >> `+hookLog+`
PostUp = echo postup >> `+hookLog+`
PreDown = echo predown >> `+hookLog+`
PostDown = echo postdown >> `+hookLog+`
[Peer]
PublicKey = `+testPeer+`
Endpoint = a.example:1
AllowedIPs = 10.30.0.0/16, 0.0.0.0/0
`)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func TestTunnelStartAndStop(t *testing.T) {
	s := newSystem(t)
	hookLog := filepath.Join(t.TempDir(), "hooks")
	file := fullFile(t, hookLog)
	s.names["a.example"] = netip.MustParseAddr("192.0.2.1")
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := <-s.used, netip.MustParseAddrPort("192.0.2.1:1"); got != want {
		t.Errorf("endpoint %v, want %v", got, want)
	}
	want := "+tun +engine +configure +socket +up +port +mtu1420 +10.20.0.1/24 +fd20::1/64 +routes:10.30.0.0/16 +policy:0.0.0.0/0"
	if got := s.take(); got != want {
		t.Errorf("start: %s\nwant   %s", got, want)
	}
	if got := read(t, hookLog); got != "preup wg0\npostup\n" {
		t.Errorf("hooks at start: %q", got)
	}
	if err := live.stop(); err != nil {
		t.Fatal(err)
	}
	want = "-policy:0.0.0.0/0 -routes:10.30.0.0/16 -fd20::1/64 -10.20.0.1/24 -mtu1420 -up -socket -engine -tun -port"
	if got := s.take(); got != want {
		t.Errorf("stop: %s\nwant  %s", got, want)
	}
	if got := read(t, hookLog); got != "preup wg0\npostup\npredown\npostdown\n" {
		t.Errorf("hooks: %q", got)
	}
}

// Whichever step fails, everything done before it is undone, and nothing else.
func TestTunnelStartFails(t *testing.T) {
	for _, step := range []string{
		"tun", "engine", "configure", "socket", "up", "port", "mtu1420", "10.20.0.1/24", "fd20::1/64", "routes:10.30.0.0/16",
		"policy:0.0.0.0/0", "hook",
	} {
		t.Run(strings.ReplaceAll(step, "/", "_"), func(t *testing.T) {
			s := newSystem(t)
			s.failAt = step
			hookLog := filepath.Join(t.TempDir(), "hooks")
			file := fullFile(t, hookLog)
			if step == "hook" {
				file.Tunnels[0].Hooks.PostUp[0].Command = "exit 3"
			}
			_, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
			if err == nil {
				t.Fatal("the start succeeded")
			}
			if step != "hook" && !errors.Is(err, errInjected) {
				t.Errorf("the error is %v", err)
			}
			if !strings.HasPrefix(err.Error(), "tunnel wg0: ") || strings.Count(err.Error(), "\n") > 1 {
				t.Errorf("the error is %v", err)
			}
			var open []string
			for _, e := range strings.Fields(s.take()) {
				if name := e[1:]; e[0] == '+' {
					open = append(open, name)
				} else if i := slices.Index(open, name); i >= 0 {
					open = slices.Delete(open, i, i+1)
				}
			}
			open = slices.DeleteFunc(open, func(s string) bool { return s == "configure" }) // goes with the engine
			if len(open) > 0 {
				t.Errorf("left behind: %v", open)
			}
			if got := read(t, hookLog); strings.Contains(got, "down") {
				t.Errorf("hooks for taking down ran: %q", got)
			}
		})
	}
}

func TestHookIsInterrupted(t *testing.T) {
	s := newSystem(t)
	file := load(t, "wg0.conf", "[Interface]\nPrivateKey = "+testPrivate+"\nPreUp = sleep 1000\n")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := startTunnel(ctx, s.surroundings(nil), file, file.Tunnels[0])
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
	if got := s.take(); got != "" {
		t.Errorf("done: %s", got)
	}
}

// An endpoint's name is asked for past a tunnel that takes everything, or lets nothing else out, with its mark; in other tunnels as ever.
func TestNameAskedPast(t *testing.T) {
	for keys, past := range map[string]bool{"full_tunnel: true": true, "kill_switch: true": true, "mtu: 1400": false} {
		s := newSystem(t)
		file := yaml(t, "    "+keys+"\n    addresses: [10.20.0.1/24]\n    peers: {a: {public_key: \""+testPeer+"\", endpoints: [\"a.example:1\"], allowed_ips: [0.0.0.0/0]}}\n")
		want := file.Tunnels[0].Mark
		if past != (want != 0) {
			t.Fatalf("%s: mark %#x", keys, want)
		}
		s.names["a.example"] = netip.MustParseAddr("192.0.2.1")
		around := s.surroundings(nil)
		servers := []netip.Addr{netip.MustParseAddr("192.0.2.53")}
		around.underlay = func() []netip.Addr { return servers }
		var asked atomic.Uint32
		around.kernel.lookupPast = func(_ context.Context, name string, mark uint32, of []netip.Addr) ([]netip.Addr, error) {
			if name != "a.example" || !slices.Equal(of, servers) {
				t.Errorf("%s: asked %v for %s", keys, of, name)
			}
			asked.Store(mark)
			return []netip.Addr{netip.MustParseAddr("192.0.2.2")}, nil
		}
		live, err := startTunnel(t.Context(), around, file, file.Tunnels[0])
		if err != nil {
			t.Fatal(err)
		}
		got := (<-s.used).Addr().String()
		if past && (got != "192.0.2.2" || asked.Load() != want) || !past && got != "192.0.2.1" {
			t.Errorf("%s: endpoint %s, asked with mark %#x", keys, got, asked.Load())
		}
		if marked := s.changes[0].Mark; marked == nil || *marked != want {
			t.Errorf("%s: the sockets have the mark %v, want %#x", keys, marked, want)
		}
		if steps := s.take(); strings.Contains(steps, "policy") == (keys == "full_tunnel: true") {
			t.Errorf("%s: %s", keys, steps)
		}
		if err := live.stop(); err != nil {
			t.Error(err)
		}
	}
}

// Without a server that could be asked there is a hint, and no question.
func TestNobodyToAskPast(t *testing.T) {
	_, err := lookupPast(t.Context(), "a.example", 1, nil)
	if err == nil || !strings.Contains(err.Error(), "no name server") {
		t.Errorf("%v", err)
	}
}

// yaml loads a file with the tunnel wg0 of the given body, on the wireguard wire unless it carries Ethernet frames.
func yaml(t *testing.T, body string) *config.File {
	t.Helper()
	return yamlFile(t, yamlText(body))
}

func yamlText(body string) string {
	wire := "wire: wireguard"
	if strings.Contains(body, "mode: tap") {
		wire = "# wire: culvert"
	}
	return "version: 1\ntunnels:\n  wg0:\n    " + wire + "\n    private_key_file: key\n" + body
}

func yamlFile(t *testing.T, text string) *config.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "key"), []byte(testPrivate+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const before = `    addresses: [10.20.0.1/24]
    peers:
      a: {public_key: "` + testPeer + `", allowed_ips: [10.30.0.0/16, 0.0.0.0/0], endpoints: ["192.0.2.1:1"]}
`

// A reload does what differs and no more; in particular the link never goes down.
func TestTunnelReload(t *testing.T) {
	for _, c := range []struct{ name, after, want string }{
		{"nothing", before, "+configure"},
		{"another route", strings.Replace(before, "10.30.0.0/16,", "10.30.0.0/16, 10.31.0.0/16,", 1), "+configure +routes:10.31.0.0/16"},
		{"a route less", strings.Replace(before, "10.30.0.0/16,", "", 1), "+configure -routes:10.30.0.0/16"},
		{"no default route", strings.Replace(before, ", 0.0.0.0/0", "", 1), "+configure -policy:0.0.0.0/0"},
		{"another address", strings.Replace(before, "[10.20", "[10.21.0.1/24, 10.20", 1),
			"+configure +10.21.0.1/24 +follow"},
		{"an address that covers a route", strings.Replace(before, "[10.20", "[10.30.0.1/15, 10.20", 1),
			"+configure +10.30.0.1/15 -routes:10.30.0.0/16 +follow"},
		{"one of two routes", strings.Replace(before, "10.30.0.0/16,", "10.31.0.0/16,", 1),
			"+configure +routes:10.31.0.0/16 -routes:10.30.0.0/16"},
		{"the only address", strings.Replace(before, "10.20.0.1/24", "", 1),
			"+configure +standin:10.20.0.0/24 -10.20.0.1/24 -routes:10.30.0.0/16 +routes:10.30.0.0/16 -policy:0.0.0.0/0 +policy:0.0.0.0/0 -standin:10.20.0.0/24"},
		{"changed address", strings.Replace(before, "10.20.0.1", "10.20.0.9", 1),
			"+configure +10.20.0.9/24 +standin:10.20.0.0/24 -10.20.0.1/24 +follow -standin:10.20.0.0/24"},
		{"mtu", "    mtu: 1300\n" + before, "+configure +mtu1300"},
		{"fwmark", "    fwmark: 77\n" + before, "+configure -policy:0.0.0.0/0 +policy:0.0.0.0/0"},
		{"no routes", "    table: off\n" + before, "+configure -routes:10.30.0.0/16 -policy:0.0.0.0/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSystem(t)
			file := yaml(t, before)
			live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
			if err != nil {
				t.Fatal(err)
			}
			defer live.stop()
			s.take()
			next := yaml(t, c.after)
			if _, err := live.reload(t.Context(), next, next.Tunnels[0]); err != nil {
				t.Fatal(err)
			}
			if got := s.take(); got != c.want {
				t.Errorf("done: %s\nwant  %s", got, c.want)
			}
		})
	}
}

// What the tunnel has learned by itself stays: where peers have roamed to, and the port the kernel picked.
func TestReloadKeepsWhatWasLearned(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, before)
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	defer live.stop()
	next := yaml(t, strings.Replace(before, "    peers:\n", "    peers:\n      b: {public_key: \""+testPeer2+"\", endpoints: [\"192.0.2.2:2\"]}\n", 1))
	if _, err := live.reload(t.Context(), next, next.Tunnels[0]); err != nil {
		t.Fatal(err)
	}
	if n := len(s.changes); n != 2 {
		t.Fatalf("%d changes", n)
	}
	c := s.changes[1]
	if c.ListenPort != nil || c.Mark != nil || !c.ReplacePeers || len(c.Peers) != 2 {
		t.Errorf("the change is %+v", c)
	}
	for _, p := range c.Peers {
		if isNew := p.PublicKey.Base64() == testPeer2; isNew != (p.Endpoint != nil) || !p.ReplaceAllowedIPs || p.PresharedKey == nil {
			t.Errorf("the change of %s is %+v", p.PublicKey, p)
		}
	}
}

// Where a reload fails half-way the state before is brought back.
func TestReloadGoesBack(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, before)
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	defer live.stop()
	s.take()
	s.failAt = "10.66.0.1/24"
	next := yaml(t, "    mtu: 1300\n"+strings.Replace(before, "[10.20", "[10.65.0.1/24, 10.66.0.1/24, 10.20", 1))
	if _, err := live.reload(t.Context(), next, next.Tunnels[0]); !errors.Is(err, errInjected) {
		t.Fatalf("the error is %v", err)
	}
	have := live.link.have
	if have.MTU != 1420 || len(have.Addresses) != 1 || have.Addresses[0] != netip.MustParsePrefix("10.20.0.1/24") || len(have.Routes) != 2 || live.conf.MTU != 0 {
		t.Errorf("in force: %+v", have)
	}
	if got := s.take(); !strings.Contains(got, "-10.65.0.1/24") {
		t.Errorf("done: %s", got)
	}
}

// Peers get the wires of the file, also by a reload, and the automatic MTU leaves room for them.
func TestWires(t *testing.T) {
	s := newSystem(t)
	second := "      b: {public_key: \"" + testPeer2 + "\", wire: %s}\n"
	file := yaml(t, before+fmt.Sprintf(second, "wireguard"))
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	defer live.stop()
	if want := "culvert"; !strings.HasPrefix(s.engine.options.Agent, want) || len(s.engine.options.Agent) > 64 {
		t.Errorf("the program calls itself %q, want at most 64 bytes that begin with %s", s.engine.options.Agent, want)
	}
	s.take()
	next := yaml(t, before+fmt.Sprintf(second, "culvert"))
	if _, err := live.reload(t.Context(), next, next.Tunnels[0]); err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), "+configure +mtu1416"; got != want {
		t.Errorf("done: %s, want %s", got, want)
	}
	for i, want := range [][]tunnel.Wire{{tunnel.WireGuard, tunnel.WireGuard}, {tunnel.WireGuard, tunnel.Culvert}} {
		var got []tunnel.Wire
		for _, p := range s.changes[i].Peers {
			got = append(got, *p.Wire)
		}
		if !slices.Equal(got, want) {
			t.Errorf("change %d sets the wires %v, want %v", i, got, want)
		}
	}
}

// A peer is shown with its name in the file.
func TestStatusShowsNames(t *testing.T) {
	s := newSystem(t)
	in := newInstance(t, s, yaml(t, before))
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	key, err := crypto.ParsePublicKey(testPeer)
	if err != nil {
		t.Fatal(err)
	}
	loss := 0.5
	s.engine.peers = []tunnel.PeerStatus{
		{PublicKey: key, Wire: "culvert", PostQuantum: true, Native: &tunnel.NativeStatus{PathMTU: 1449, RTT: 2 * time.Millisecond, Loss: &loss,
			Lanes: []tunnel.LaneStatus{{}, {Number: 1, Open: true, Endpoint: "e", SentBytes: 2, ReceivedBytes: 3, SentPackets: 4, ReceivedPackets: 5}}}},
		{PublicKey: crypto.PublicKey{7}, Wire: "wireguard"}, // added with wg
	}
	peers := in.status()[0].Peers
	if peers[0].Name != "a" || peers[1].Name != "" {
		t.Errorf("the names are %q and %q", peers[0].Name, peers[1].Name)
	}
	if n := peers[0].Native; n == nil || len(n.Lanes) != 2 ||
		n.Lanes[1] != (control.Lane{Number: 1, Open: true, Endpoint: "e", SentBytes: 2, ReceivedBytes: 3, SentPackets: 4, ReceivedPackets: 5}) {
		t.Errorf("the lanes are %+v", n)
	}
	if n := peers[0].Native; n == nil || n.PathMTU != 1449 || n.RTT != 0.002 || *n.Loss != loss || peers[1].Native != nil {
		t.Errorf("the native wire's parts are %+v and %+v", n, peers[1].Native)
	}
}

// A name's address is not forced on a peer that is in contact from elsewhere.
func TestLateAddressDoesNotDisturbContact(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, before)
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	defer live.stop()
	key := file.Tunnels[0].Peers[0].PublicKey
	to := netip.MustParseAddrPort("192.0.2.9:9")
	s.engine.peers = []tunnel.PeerStatus{{
		PublicKey: key, Session: true, Endpoint: transport.Endpoint{Remote: netip.MustParseAddrPort("198.51.100.1:1")},
	}}
	live.useEndpoint(key, to)
	select {
	case ap := <-s.used:
		t.Errorf("the endpoint was moved to %v", ap)
	default:
	}
	s.engine.peers[0].HandshakeAttempts = 3
	live.useEndpoint(key, to)
	if got := <-s.used; got != to {
		t.Errorf("endpoint %v, want %v", got, to)
	}
}

// An automatic MTU follows what is learned about the way.
func TestMTUFollowsEndpoint(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, before)
	live, err := startTunnel(t.Context(), s.surroundings(nil), file, file.Tunnels[0])
	if err != nil {
		t.Fatal(err)
	}
	defer live.stop()
	s.take()
	s.mtu = 1380
	live.useEndpoint(file.Tunnels[0].Peers[0].PublicKey, netip.MustParseAddrPort("192.0.2.9:9"))
	if got := s.take(); got != "+mtu1380" {
		t.Errorf("done: %s", got)
	}
}

// newInstance makes a daemon without control socket and signals.
func newInstance(t *testing.T, s *system, file *config.File) *instance {
	d := &daemon{p: &program{}, name: file.Instance, kind: "up", file: file.Path, log: slog.New(slog.DiscardHandler), out: io.Discard, notify: new(notifier)}
	in := &instance{d: d, kernel: s.kernel(), file: file}
	d.body = in
	t.Cleanup(func() { in.teardown() })
	return in
}

func TestStatusShowsNoKey(t *testing.T) {
	s := newSystem(t)
	in := newInstance(t, s, yaml(t, before))
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	st := in.status()
	if len(st) != 1 || st[0].Interface != "wg0" {
		t.Fatalf("status %+v", st)
	}
	if text := fmt.Sprintf("%+v", st); strings.Contains(text, "1 2 3") {
		t.Errorf("the status holds the private key: %s", text)
	}
}

// The end of one tunnel ends the daemon, with the reason.
func TestEndedTunnelEndsTheDaemon(t *testing.T) {
	s := newSystem(t)
	in := newInstance(t, s, yaml(t, before))
	ended := make(chan error, 1)
	if err := in.start(t.Context(), func(err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	s.engine.err = errors.New("the interface has vanished")
	close(s.engine.done)
	if err := <-ended; !strings.Contains(err.Error(), "tunnel wg0 has ended: the interface has vanished") {
		t.Errorf("the reason is %v", err)
	}
}

func TestInstanceReload(t *testing.T) {
	s := newSystem(t)
	file := yaml(t, before)
	in := newInstance(t, s, file)
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	s.take()
	text := read(t, file.Path)

	// Wrong: nothing happens, and the error is that of a configuration.
	if err := os.WriteFile(file.Path, []byte(text+"    frobnicate: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := in.reload(t.Context()); exitCode(err) != exitConfig {
		t.Errorf("reload of a wrong file: %v", err)
	}
	if got := s.take(); got != "" {
		t.Errorf("done: %s", got)
	}

	// A second tunnel, and then the first no more.
	second := strings.Replace(strings.Replace(text, "wg0:", "wg1:", 1), "version: 1\ntunnels:\n", "", 1)
	if err := os.WriteFile(file.Path, []byte(text+second), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := in.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := in.status(); len(st) != 2 || st[1].Interface != "wg1" {
		t.Errorf("status %+v", st)
	}
	if err := os.WriteFile(file.Path, []byte(strings.Replace(text, "wg0:", "wg1:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := in.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := in.status(); len(st) != 1 || st[0].Interface != "wg1" {
		t.Errorf("status %+v", st)
	}

	// A second tunnel that cannot be brought up takes the changes to the first with it.
	s.failAt = "10.99.0.1/24"
	s.take()
	wrong := strings.Replace(text, "wg0:", "wg1:", 1) + strings.Replace(strings.Replace(second, "wg1:", "wg2:", 1), "10.20.0.1/24", "10.99.0.1/24", 1)
	if err := os.WriteFile(file.Path, []byte(strings.Replace(wrong, "10.20.0.1/24", "10.20.0.7/24", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := in.reload(t.Context()); !errors.Is(err, errInjected) {
		t.Errorf("reload: %v", err)
	}
	live := in.live()
	if len(live) != 1 || live[0].link.have.Addresses[0] != netip.MustParsePrefix("10.20.0.1/24") {
		t.Errorf("in force: %+v", live[0].link.have)
	}
}

func TestUndo(t *testing.T) {
	var u undo
	var order []string
	for _, name := range []string{"one", "two", "three"} {
		u.add("undo "+name, func() error {
			order = append(order, name)
			if name == "two" {
				return errInjected
			}
			return nil
		})
	}
	err := u.run()
	if !errors.Is(err, errInjected) || err.Error() != "cannot undo two: injected failure" {
		t.Errorf("error %v", err)
	}
	if got := strings.Join(order, " "); got != "three two one" {
		t.Errorf("order %s", got)
	}
	if u.run() != nil || len(order) != 3 {
		t.Error("the second run did something")
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{nil, 0}, {errors.New("x"), 1}, {&usageError{"x", "culvert"}, 2}, {config.Errors{{Message: "x"}}, 78},
		{hint(config.Errors{{Message: "x"}}, "y"), 78}, {&shownError{78}, 78}, {fmt.Errorf("a: %w", &shownError{2}), 2},
		{errors.Join(errors.New("x"), nil), 1},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.code)
		}
	}
	if hint(nil, "x") != nil {
		t.Error("a hint made an error of nil")
	}
}
