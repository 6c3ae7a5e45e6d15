package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/cmd/culvert/reloadplan"
	"culvert/config"
	"culvert/crypto"
	"culvert/setup"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// appliedNothing is part of a link's configuration of which nothing is kept.
func appliedNothing() applied {
	return applied{
		remove:          func() error { return nil },
		removeRoutes:    func([]setup.Route) error { return nil },
		followAddresses: func() error { return nil },
	}
}

// reloaded is an instance as the daemon runs it, with engines over a network in memory, and one peer of its tunnel wg0 that the file's
// changes never touch.
type reloaded struct {
	t      *testing.T
	in     *instance
	path   string
	failAt string // part of the name of what cannot be applied to a link
	mu     sync.Mutex
	devs   map[string]*devicetest.Device

	engine  *tunnel.Tunnel // the peer's
	dev     *devicetest.Device
	pub     crypto.PublicKey
	private crypto.PrivateKey
}

func newReloaded(t *testing.T, wire tunnel.Wire, text string) *reloaded {
	r := &reloaded{t: t, devs: make(map[string]*devicetest.Device), dev: devicetest.New("a", 1420, 1)}
	var err error
	if r.private, err = crypto.GeneratePrivateKey(); err != nil {
		t.Fatal(err)
	}
	r.pub = r.private.Public()
	network := transporttest.New(1)
	at := netip.MustParseAddrPort("192.0.2.1:51820")
	s := newSystem(t)
	k := s.kernel()
	k.openTun = func(_, name string, queues int) (device.Device, error) {
		d := devicetest.New(name, 1420, queues)
		d.SetUp(false)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.devs[name] = d
		return d, nil
	}
	k.newEngine = func(d device.Device, n transport.Network, o tunnel.Options) (engine, error) {
		return tunnel.New(d, n, o)
	}
	k.network = network.Host(at.Addr())
	k.apply = func(_ context.Context, c setup.L3) (applied, error) {
		step := stepOf(c)
		if r.failAt != "" && strings.Contains(step, r.failAt) {
			return applied{}, errInjected
		}
		r.mu.Lock()
		d := r.devs[c.Link]
		r.mu.Unlock()
		if step == "up" {
			d.SetUp(true)
		}
		if c.MTU != 0 {
			d.SetMTU(c.MTU)
		}
		return appliedNothing(), nil
	}
	dir := t.TempDir()
	r.path = filepath.Join(dir, "site.yaml")
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte(testPrivate+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	psk := crypto.PresharedKey{7}
	if err := os.WriteFile(filepath.Join(dir, "psk"), []byte(psk.Base64()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.write(text)
	file, err := config.Load(r.path)
	if err != nil {
		t.Fatal(err)
	}
	r.in = newInstance(t, s, file)
	r.in.kernel = k
	r.in.d.p.stateDir = filepath.Join(dir, "state")
	if err := r.in.start(t.Context(), func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	if r.engine, err = tunnel.New(r.dev, network.Host(netip.MustParseAddr("192.0.2.2")), tunnel.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.engine.Close() })
	r.dev.SetUp(true)
	port := uint16(51820)
	if err := r.engine.Configure(tunnel.Change{PrivateKey: &r.private, ListenPort: &port, Peers: []tunnel.PeerChange{{
		PublicKey: file.Tunnels[0].PrivateKey.Public(), Wire: &wire, PresharedKey: &psk, Endpoint: &transport.Endpoint{Remote: at},
		AllowedIPs: []tunnel.AllowedIPChange{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}},
	}}}); err != nil {
		t.Fatal(err)
	}
	return r
}

// write writes the file; KEY stands for the peer's public key.
func (r *reloaded) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(strings.ReplaceAll(text, "KEY", r.pub.Base64())), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// numbered is a packet with a number behind its header.
func numbered(from, to netip.Addr, n uint32) []byte {
	p := binary.BigEndian.AppendUint32(packet(from, to), n)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[10], p[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	return p
}

var (
	streamHere, streamThere = netip.MustParseAddr("10.20.0.1"), netip.MustParseAddr("10.20.0.2")
)

// stream sends numbered packets both ways, one each fifth of a millisecond, until it is ended.
func (r *reloaded) stream() (end func() (sent uint32)) {
	done := make(chan struct{})
	var sent uint32
	var sending sync.WaitGroup
	here := r.devs["wg0"]
	sending.Go(func() {
		for ; ; sent++ {
			select {
			case <-done:
				return
			default:
			}
			here.Queue(0).Push(numbered(streamHere, streamThere, sent), device.Offload{})
			r.dev.Queue(0).Push(numbered(streamThere, streamHere, sent), device.Offload{})
			time.Sleep(200 * time.Microsecond)
		}
	})
	return func() uint32 {
		close(done)
		sending.Wait()
		time.Sleep(time.Second)
		return sent
	}
}

// arrived fails unless packets of all numbers have come out of a device, each once.
func (r *reloaded) arrived(what string, dev *devicetest.Device, sent uint32) {
	r.t.Helper()
	seen := make(map[uint32]int)
	buf := make([]byte, device.MaxPacket)
	for {
		p, _, ok := dev.Queue(0).TryNext(buf)
		if !ok {
			break
		}
		if len(p) == 32 {
			seen[binary.BigEndian.Uint32(p[28:])]++
		}
	}
	lost := 0
	for n := range sent {
		if seen[n] != 1 {
			lost++
		}
	}
	if lost > 0 || len(seen) != int(sent) {
		r.t.Errorf("%s: %d of %d packets are missing or doubled", what, lost, sent)
	}
}

const (
	reloadHead = "version: 1\ntunnels:\n  wg0:\n    private_key_file: key\n    listen: 51820\n"
	reloadA    = "      a: {public_key: \"KEY\", WIREallowed_ips: [10.20.0.2/32], preshared_key_file: psk, keepalive: 25s,\n" +
		"          access: {default: deny, rules: [{allow: {}}]}}\n"
)

// What a reload does not touch loses no packet, whatever else changes.
func TestReloadLosesNothing(t *testing.T) {
	addresses := "    addresses: [10.20.0.1/24]\n    peers:\n"
	b := "      b: {public_key: \"" + testPeer2 + "\", allowed_ips: [%s], endpoints: [\"192.0.2.3:%d\"]%s}\n"
	plain := addresses + reloadA
	serve := "    server: {push: {routes: [%s]}, groups: {staff: {routes: [10.31.0.0/16]%s}}}\n"
	steps := []string{
		plain,
		plain + fmt.Sprintf(b, "10.30.0.0/16", 1, ""),
		plain + fmt.Sprintf(b, "10.30.0.0/16, 10.31.0.0/16", 1, ""),
		plain + fmt.Sprintf(b, "10.31.0.0/16, 10.20.0.0/28", 2, ", keepalive: 5s"),
		plain + fmt.Sprintf(b, "10.31.0.0/16", 2, ", access: {default: deny, limit: {to_peer: 1mbit}}"),
		plain + fmt.Sprintf(b, "10.31.0.0/16", 2, ", wire: OTHER"),
		plain + fmt.Sprintf(b, "0.0.0.0/0", 2, ", preshared_key_file: psk"),
		"    mtu: 1380\n" + plain,
		strings.Replace(plain, "[10.20.0.1/24]", "[10.20.0.1/24, 10.40.0.1/24, \"fd40::1/64\"]", 1),
		strings.Replace(plain, "10.20.0.1/24", "10.20.0.1/16", 1),
		plain + "  wg1:\n    private_key_file: key\n    listen: 51821\n    addresses: [10.50.0.1/24]\n",
		plain,
	}
	server := []string{
		fmt.Sprintf(serve, "10.30.0.0/16", "") + plain,
		fmt.Sprintf(serve, "10.30.0.0/16, 10.33.0.0/16", ", access: {default: deny}") + plain,
		fmt.Sprintf(serve, "10.30.0.0/16", ", mtu: 1300") + plain + fmt.Sprintf(b, "10.31.0.0/16", 1, ""),
	}
	for name, wire := range map[string]tunnel.Wire{"wireguard": tunnel.WireGuard, "culvert": tunnel.Culvert} {
		for what, steps := range map[string][]string{"peers": steps, "server": server} {
			t.Run(name+" "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					text := func(body string) string {
						other := map[string]string{"wireguard": "culvert", "culvert": "wireguard"}[name]
						return reloadHead + strings.NewReplacer("WIRE", "wire: "+name+", ", "OTHER", other).Replace(body)
					}
					r := newReloaded(t, wire, text(steps[0]))
					// A handshake, and what the native wire finds out in its first seconds.
					r.dev.Queue(0).Push(packet(streamThere, streamHere), device.Offload{})
					time.Sleep(5 * time.Second)
					handshakes := r.engine.Status().Handshakes
					end := r.stream()
					for round := range 3 {
						for i, body := range steps {
							r.write(text(body))
							if _, err := r.in.reload(t.Context()); err != nil {
								t.Fatalf("round %d, step %d: %v", round, i, err)
							}
							time.Sleep(time.Duration(7*i+1) * time.Millisecond)
						}
					}
					sent := end()
					if sent < 300 {
						t.Fatalf("only %d packets each way", sent)
					}
					r.arrived("to the peer", r.dev, sent)
					r.arrived("from the peer", r.devs["wg0"], sent)
					if now := r.engine.Status().Handshakes; now != handshakes {
						t.Errorf("handshakes with the peer: %+v before, %+v after", handshakes, now)
					}
					if d := r.engine.Status().Drops; len(d) > 0 {
						t.Errorf("the peer has dropped %v", d)
					}
				})
			})
		}
	}
}

// traffic are the counters of what has gone over the network, in a status.
var traffic = regexp.MustCompile(`"(received|sent)_(bytes|packets|datagrams|calls)": \d+`)

// state is all that can be seen of an instance, once it has settled, but for the counters of its traffic.
func (r *reloaded) state() string {
	r.t.Helper()
	time.Sleep(5 * time.Second)
	b, err := json.MarshalIndent(r.in.status(), "", " ")
	if err != nil {
		r.t.Fatal(err)
	}
	text := traffic.ReplaceAllString(string(b), "")
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, d := range r.devs {
		mtu, _ := d.MTU()
		text += fmt.Sprintf("\n%s %d", name, mtu)
	}
	for _, l := range r.in.live() {
		have := l.link.have
		have.SetMark = nil
		have.Routes = slices.Clone(have.Routes)
		slices.SortFunc(have.Routes, func(a, b setup.Route) int { return strings.Compare(a.String(), b.String()) })
		text += fmt.Sprintf("\n%+v", have)
	}
	return text
}

// differs lists the lines in which two texts differ.
func differs(a, b string) (lines []string) {
	for line := range strings.Lines(a) {
		if !strings.Contains(b, line) {
			lines = append(lines, "- "+line)
		}
	}
	for line := range strings.Lines(b) {
		if !strings.Contains(a, line) {
			lines = append(lines, "+ "+line)
		}
	}
	return lines
}

// A file that is wrong, or cannot be applied, changes nothing.
func TestBadReloadChangesNothing(t *testing.T) {
	head := reloadHead + "    mtu: 1400\n"
	addresses := "    addresses: [10.20.0.1/24]\n    peers:\n"
	a := strings.Replace(reloadA, "WIRE", "", 1)
	b := "      b: {public_key: \"" + testPeer2 + "\", allowed_ips: [10.30.0.0/16]}\n"
	good := head + addresses + a + b
	// What would be changed besides, if it were not for the mistake.
	other := strings.Replace(strings.Replace(good, "mtu: 1400", "mtu: 1300", 1), "10.30.0.0/16", "10.33.0.0/16, 10.34.0.0/16", 1)
	for _, c := range []struct {
		name, text, failAt string
		code               int
	}{
		{"empty", "", "", exitConfig},
		{"syntax", other + "  }", "", exitConfig},
		{"unknown key", other + "    frobnicate: 1\n", "", exitConfig},
		{"two peers of one key", other + strings.Replace(b, "      b:", "      c:", 1), "", exitConfig},
		{"an allowed IP twice", strings.Replace(other, "10.34.0.0/16", "10.20.0.2/32", 1), "", exitConfig},
		{"another instance", strings.Replace(other, "tunnels:", "instance: other\ntunnels:", 1), "", exitFailure},
		{"a key that is not there", strings.Replace(other, "private_key_file: key", "private_key_file: keys", 1), "", exitConfig},
		{"queues", other + "    queues: 2\n", "", exitFailure},
		{"whether it is a server", strings.Replace(other, "    mtu", "    server: {}\n    mtu", 1), "", exitFailure},
		{"no such interface", strings.Replace(other, "allowed_ips: [10.33", "endpoints: [\"[fe80::1%nowhere]:1\"], allowed_ips: [10.33", 1), "", exitFailure},
		{"MTU fails", other, "mtu1300", exitFailure},
		{"address fails", strings.Replace(other, "[10.20.0.1/24]", "[10.20.0.1/24, 10.66.0.1/24]", 1), "10.66.0.1/24", exitFailure},
		{"address goes, another fails", strings.Replace(other, "[10.20.0.1/24]", "[10.21.0.1/24, 10.66.0.1/24]", 1), "10.66.0.1/24", exitFailure},
		{"route fails", other, "10.34.0.0/16", exitFailure},
		{"a second tunnel fails", strings.Replace(other, "tunnels:\n", "tunnels:\n  wg1:\n    private_key_file: key\n    addresses: [10.67.0.1/24]\n", 1), "10.67.0.1/24", exitFailure},
		{"a second tunnel fails after the first", other + "  wg1:\n    private_key_file: key\n    addresses: [10.67.0.1/24]\n", "10.67.0.1/24", exitFailure},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReloaded(t, tunnel.Culvert, good)
				r.dev.Queue(0).Push(packet(streamThere, streamHere), device.Offload{})
				time.Sleep(5 * time.Second)
				before := r.state()
				r.failAt = c.failAt
				r.write(c.text)
				_, err := r.in.reload(t.Context())
				if exitCode(err) != c.code {
					t.Errorf("code %d, want %d: %v", exitCode(err), c.code, err)
				}
				r.mu.Lock()
				delete(r.devs, "wg1") // it was tried
				r.mu.Unlock()
				if after := r.state(); after != before {
					t.Errorf("changed by the wrong file:\n%v", differs(before, after))
				}
				r.failAt = ""
				r.write(good)
				if _, err := r.in.reload(t.Context()); err != nil {
					t.Error(err)
				}
				if after := r.state(); after != before {
					t.Errorf("changed once the file is right again:\n%v", differs(before, after))
				}
			})
		})
	}
}

// A dry run changes nothing, says what there is to do, and nothing once it is done.
func TestPreview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := reloadHead + "    addresses: [10.20.0.1/24]\n    peers:\n" + strings.Replace(reloadA, "WIRE", "", 1)
		r := newReloaded(t, tunnel.Culvert, good)
		show := func() (text, refused string) {
			t.Helper()
			made, err := r.in.preview(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range made.Changes {
				text += reloadplan.Line(&made.Changes[i]) + "\n"
			}
			return text + strings.Join(made.Network, "\n"), made.Refused
		}
		before := r.state()
		r.write(strings.Replace(good, "[10.20.0.1/24]", "[10.20.0.1/24, 10.21.0.1/24]", 1) + "      b: {public_key: \"" + testPeer2 + "\"}\n")
		want := "~ tunnel wg0: addresses [10.20.0.1/24] -> [10.20.0.1/24, 10.21.0.1/24]\n+ tunnel wg0, peer b\n"
		if got, refused := show(); got != want || refused != "" {
			t.Errorf("%s, refused: %q", got, refused)
		}
		if lines := differs(before, r.state()); lines != nil {
			t.Errorf("changed by looking: %v", lines)
		}
		if _, err := r.in.reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, refused := show(); got != "" || refused != "" {
			t.Errorf("afterwards: %s, %q", got, refused)
		}
		r.write(good + "    queues: 2\n")
		if _, refused := show(); !strings.Contains(refused, "cannot change its queues") {
			t.Errorf("refused: %q", refused)
		}
		r.write("wrong")
		if _, err := r.in.preview(t.Context()); exitCode(err) != exitConfig {
			t.Errorf("%v", err)
		}
	})
}
