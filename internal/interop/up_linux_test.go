package interop

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// upSide is an end that `culvert up` runs from a file, in culvert's format or in wg-quick's. Addresses and routes are culvert's to
// make.
type upSide struct {
	*side
	file      string
	addresses []string
	extra     string // more lines of the interface, in the file's format
}

func newUp(t *testing.T, host *lab.Host, port uint16, addresses inner, file string) *upSide {
	t.Helper()
	return &upSide{
		side:      prepareSide(t, culvert, host, port),
		file:      filepath.Join(t.TempDir(), file),
		addresses: []string{addresses.v4.String() + "/24", addresses.v6.String() + "/64"},
	}
}

// name is the instance's name: the file's, without its ending.
func (u *upSide) name() string {
	return strings.TrimSuffix(filepath.Base(u.file), filepath.Ext(u.file))
}

// write writes the configuration, and key files beside it.
func (u *upSide) write() {
	u.t.Helper()
	text := u.yaml()
	if filepath.Ext(u.file) == ".conf" {
		text = strings.Replace(u.config(), "[Interface]\n", "[Interface]\nAddress = "+strings.Join(u.addresses, ", ")+"\n"+u.extra, 1)
		text = strings.Replace(text, "FwMark = 0\n", "", 1)
	}
	u.writeFile(u.file, text)
}

func (u *upSide) writeFile(name, text string) {
	u.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

func (u *upSide) yaml() string {
	u.t.Helper()
	folder := filepath.Dir(u.file)
	u.writeFile(filepath.Join(folder, "private.key"), u.privateKey+"\n")
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\ntunnels:\n  %s:\n    listen: %d\n    private_key_file: private.key\n", u.device, u.port)
	fmt.Fprintf(&b, "    wire: wireguard\n    addresses: [\"%s\"]\n%s", strings.Join(u.addresses, `", "`), u.extra)
	if len(u.peers) != 0 {
		b.WriteString("    peers:\n")
	}
	for i, p := range u.peers {
		fmt.Fprintf(&b, "      peer%d:\n        public_key: %q\n        allowed_ips: [\"%s\"]\n", i, p.publicKey,
			strings.Join(p.allowed, `", "`))
		if p.endpoint.IsValid() {
			fmt.Fprintf(&b, "        endpoints: [%q]\n", p.endpoint)
		}
		if p.wire != "" {
			fmt.Fprintf(&b, "        wire: %s\n", p.wire)
		}
		if p.keepalive != 0 {
			fmt.Fprintf(&b, "        keepalive: %ds\n", p.keepalive)
		}
		if p.presharedKey != "" {
			u.writeFile(filepath.Join(folder, fmt.Sprintf("peer%d.psk", i)), p.presharedKey+"\n")
			fmt.Fprintf(&b, "        preshared_key_file: peer%d.psk\n", i)
		}
	}
	return b.String()
}

// run runs a culvert command on the host.
func (u *upSide) run(args ...string) (string, int) {
	u.t.Helper()
	return output(u.t, u.host, u.command(args...))
}

func (u *upSide) command(args ...string) *exec.Cmd {
	return u.host.Command(u.t.Context(), program(u.t, "culvert", "culvert/cmd/culvert"), args...)
}

func (u *upSide) mustRun(args ...string) string {
	u.t.Helper()
	out, code := u.run(args...)
	if code != 0 {
		u.t.Fatalf("culvert %s ended with %d:\n%s%s", strings.Join(args, " "), code, out, u.log())
	}
	return out
}

// log is the daemon's, for a failing test to show.
func (u *upSide) log() string {
	text, err := os.ReadFile(filepath.Join(u.folder(), "culvert", u.name()+".log"))
	if err != nil {
		return "" // it goes with the daemon
	}
	return "its log:\n" + lastLines(string(text), 30)
}

func (u *upSide) folder() string { return filepath.Join(u.side.run, "run") }

// up writes the file and starts.
func (u *upSide) up() {
	u.t.Helper()
	u.write()
	u.mustRun("up", u.file)
	u.t.Cleanup(func() {
		if log := u.log(); u.t.Failed() && log != "" {
			u.t.Logf("%s: %s", u.host.Name, log)
		}
	})
}

// down stops and looks that everything is as it was before.
func (u *upSide) down(before string) {
	u.t.Helper()
	u.mustRun("down", u.name())
	u.restored(before)
}

func (u *upSide) restored(before string) {
	u.t.Helper()
	if u.host.HasLink(u.device) {
		u.t.Error("the device is still there")
	}
	if left := daemonsIn(u.t, u.host); len(left) != 0 {
		u.t.Errorf("the processes %v are still there", left)
	}
	if exists(u.t, u.socket()) {
		u.t.Error("the socket for wg is still there")
	}
	if after := surroundings(u.t, u.host); after != before {
		u.t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// forFiles runs a test with both formats.
func forFiles(t *testing.T, test func(t *testing.T, file string)) {
	t.Helper()
	for _, file := range []string{"office.yaml", "wg0.conf"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			test(t, file)
		})
	}
}

// A tunnel from a file talks to wireguard-go, whichever begins, and takes everything away with it.
func TestUp(t *testing.T) {
	t.Parallel()
	forFiles(t, func(t *testing.T, file string) {
		forFamilies(t, func(t *testing.T, outer family) {
			hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			wire := lab.Link(t, hostA, hostB)
			a := newUp(t, hostA, portA, innerA, file)
			before := surroundings(t, hostA)
			b := newSide(t, wireguardGo, hostB, portB)
			innerB.addTo(b)
			hostB.AddAddr("lo", "10.77.0.1/32")
			psk := newPresharedKey()
			a.peers = []*peer{{
				publicKey:    b.publicKey,
				presharedKey: psk,
				endpoint:     netip.AddrPortFrom(outer.of(wire.B), portB),
				allowed:      append(innerB.allowed(), "10.77.0.0/16"),
			}}
			b.peers = []*peer{{publicKey: a.publicKey, presharedKey: psk, allowed: innerA.allowed()}}
			b.apply()
			a.up()
			a.reaches(innerB.v4)
			a.reaches(innerB.v6)
			a.reaches(netip.MustParseAddr("10.77.0.1")) // by a route made of the allowed IPs
			b.pings(innerA.v4)
			transfer(t, hostA, hostB, innerB.v4, 1<<20)
			if shown := a.mustRun("status", a.name()); !strings.Contains(shown, b.publicKey) || strings.Contains(shown, a.privateKey) ||
				strings.Contains(shown, psk) {
				t.Errorf("culvert status shows:\n%s", shown)
			}
			a.down(before)

			// The other way round: it is culvert that knows no endpoint.
			a.peers[0].endpoint = netip.AddrPort{}
			b.peers[0].endpoint = netip.AddrPortFrom(outer.of(wire.A), portA)
			b.apply()
			a.up()
			b.reaches(innerA.v6)
			a.pings(innerB.v4)
			a.down(before)
		})
	})
}

// Allowed IPs of everything become default routes, past which the tunnel's own datagrams find their way.
func TestUpDefaultRoute(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "nft")
	forFiles(t, func(t *testing.T, file string) {
		forFamilies(t, func(t *testing.T, outer family) {
			hostA, hostB := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			wire := lab.Link(t, hostA, hostB)
			hostA.AddRoute("default4", wire.B.V4.Addr().String(), "")
			hostA.AddRoute("default6", wire.B.V6.Addr().String(), "")
			endpoint, whole := netip.MustParseAddr("192.0.2.1"), "/32"
			if outer == ipv6 {
				endpoint, whole = netip.MustParseAddr("2001:db8:1::1"), "/128"
			}
			hostB.AddAddr("lo", endpoint.String()+whole)
			far := inner{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:77::1")}
			hostB.AddAddr("lo", far.v4.String()+"/32")
			hostB.AddAddr("lo", far.v6.String()+"/128")

			a, b := newUp(t, hostA, portA, innerA, file), newSide(t, culvert, hostB, portB)
			before := surroundings(t, hostA)
			innerB.addTo(b)
			b.addPeer(a.side, netip.AddrPort{}, innerA.allowed()...)
			a.peers = []*peer{{
				publicKey: b.publicKey,
				endpoint:  netip.AddrPortFrom(endpoint, portB),
				allowed:   []string{"0.0.0.0/0", "::/0"},
			}}
			a.up()
			a.reaches(far.v4)
			a.reaches(far.v6)
			if received, _ := b.deviceCounters(); received < 2 {
				t.Errorf("only %d packets came through the tunnel; the pings went along the wire", received)
			}
			// The wire's own subnet is still reached directly.
			a.pings(wire.B.V4.Addr())
			a.pings(wire.B.V6.Addr())
			a.down(before)
		})
	})
}

// A changed file is taken over while the sessions of unchanged peers go on.
func TestReload(t *testing.T) {
	t.Parallel()
	forFiles(t, func(t *testing.T, file string) {
		hostA, hostB, hostC := lab.NewHost(t, "a"), lab.NewHost(t, "b"), lab.NewHost(t, "c")
		wireB, wireC := lab.Link(t, hostA, hostB), lab.Link(t, hostA, hostC)
		a := newUp(t, hostA, portA, innerA, file)
		before := surroundings(t, hostA)
		b, c := newSide(t, culvert, hostB, portB), newSide(t, culvert, hostC, portB)
		innerB.addTo(b)
		innerC := inner{netip.MustParseAddr("10.9.0.3"), netip.MustParseAddr("fd09::3")}
		innerC.addTo(c)
		hostC.AddAddr("lo", "10.78.0.1/32")
		b.addPeer(a.side, netip.AddrPort{}, innerA.allowed()...)
		c.addPeer(a.side, netip.AddrPort{}, innerA.allowed()...)
		a.peers = []*peer{{publicKey: b.publicKey, endpoint: netip.AddrPortFrom(wireB.B.V4.Addr(), portB), allowed: innerB.allowed()}}
		a.up()
		a.reaches(innerB.v4)
		session := a.of(b)

		a.peers = append(a.peers, &peer{
			publicKey: c.publicKey,
			endpoint:  netip.AddrPortFrom(wireC.B.V6.Addr(), portB),
			allowed:   append(innerC.allowed(), "10.78.0.0/16"),
		})
		a.write()
		a.mustRun("reload", a.name())
		a.reaches(netip.MustParseAddr("10.78.0.1"))
		a.pings(innerB.v4)
		if after := a.of(b); after.handshake != session.handshake || after.received <= session.received {
			t.Errorf("the session with b was %+v before the reload, %+v after", session, after)
		}

		// A file with a mistake changes nothing.
		good := a.peers
		a.peers = append([]*peer{{publicKey: "nonsense", allowed: []string{"10.0.0.0/8"}}}, good...)
		a.write()
		if out, code := a.run("reload", a.name()); code != 78 {
			t.Errorf("reload of a wrong file ended with %d:\n%s", code, out)
		}
		a.pings(innerB.v4)
		a.pings(innerC.v6)

		// A peer that is gone from the file goes, with its routes.
		a.peers = good[1:]
		a.write()
		a.mustRun("reload", a.name())
		if _, ok := a.state().peers[b.publicKey]; ok {
			t.Error("a peer that is no longer in the file is still there")
		}
		a.pings(innerC.v4)
		a.down(before)
	})
}

// What is wrong is refused before anything is touched.
func TestUpRefusesWrongFiles(t *testing.T) {
	t.Parallel()
	u := newUp(t, lab.NewHost(t, "a"), portA, innerA, "office.yaml")
	before := surroundings(t, u.host)
	for name, damage := range map[string]func(){
		"unknown key":      func() { u.extra = "    colour: red\n" },
		"wrong address":    func() { u.addresses = []string{"10.9.0.1/33"} },
		"wrong public key": func() { u.peers = []*peer{{publicKey: "abc", allowed: []string{"10.0.0.0/8"}}} },
	} {
		u.extra, u.addresses, u.peers = "", []string{"10.9.0.1/24"}, nil
		damage()
		u.write()
		out, code := u.run("up", u.file)
		if code != 78 || !strings.Contains(out, "office.yaml:") {
			t.Errorf("%s: culvert up ended with %d:\n%s", name, code, out)
		}
		u.restored(before)
	}
	// Readable to others.
	u.extra, u.addresses, u.peers = "", []string{"10.9.0.1/24"}, nil
	u.write()
	if err := os.Chmod(filepath.Join(filepath.Dir(u.file), "private.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, code := u.run("up", u.file); code != 78 || !strings.Contains(out, "private.key") {
		t.Errorf("with a key file that others may read culvert up ended with %d:\n%s", code, out)
	}
	u.restored(before)
}

func TestUpTwice(t *testing.T) {
	t.Parallel()
	u := newUp(t, lab.NewHost(t, "a"), portA, innerA, "office.yaml")
	before := surroundings(t, u.host)
	u.up()
	if out, code := u.run("up", u.file); code != 1 || !strings.Contains(out, "office") {
		t.Errorf("a second culvert up ended with %d:\n%s", code, out)
	}
	if got := u.state().publicKey; got != u.publicKey {
		t.Errorf("the device has the public key %s, want %s", got, u.publicKey)
	}
	u.down(before)
	if out, code := u.run("down", u.name()); code == 0 {
		t.Errorf("culvert down of what does not run ended with 0:\n%s", out)
	}
}

// However the daemon ends, what comes after it finds its place: nothing is left, or what is left is taken over.
func TestUpEnds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		end  func(t *testing.T, u *upSide, number int)
		left bool // it could not clean up
	}{
		{name: "SIGTERM", end: func(t *testing.T, _ *upSide, number int) { signalProcess(t, number, syscall.SIGTERM) }},
		{name: "SIGINT", end: func(t *testing.T, _ *upSide, number int) { signalProcess(t, number, syscall.SIGINT) }},
		{name: "device deleted", end: func(_ *testing.T, u *upSide, _ int) { u.host.DeleteLink(u.device) }},
		{name: "SIGKILL", left: true, end: func(t *testing.T, _ *upSide, number int) { signalProcess(t, number, syscall.SIGKILL) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			host, other := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			wire := lab.Link(t, host, other)
			host.AddRoute("default4", wire.B.V4.Addr().String(), "")
			u := newUp(t, host, portA, innerA, "office.yaml")
			_, public := newKey(t)
			u.peers = []*peer{{
				publicKey: public,
				endpoint:  netip.AddrPortFrom(wire.B.V4.Addr(), portB),
				allowed:   []string{"0.0.0.0/0", "10.99.0.0/16"},
			}}
			before := surroundings(t, host)
			u.up()
			daemons := daemonsIn(t, host)
			if len(daemons) != 1 {
				t.Fatalf("the processes %v are in the namespace, want one daemon", daemons)
			}
			number, err := strconv.Atoi(daemons[0])
			if err != nil {
				t.Fatal(err)
			}
			test.end(t, u, number)
			lab.Eventually(t, patience, "the daemon ends", func() bool { return zombie(daemons[0]) })
			if !test.left {
				u.restored(before)
				return
			}
			lab.Eventually(t, patience, "the device goes", func() bool { return !host.HasLink(u.device) })
			u.mustRun("up", u.file)
			u.down(before)
		})
	}
}
