package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// wireGuardGo runs the stock userspace WireGuard on a site's host, as an app would that was given a wg-quick file.
func (s *site) wireGuardGo(device, conf string) {
	s.t.Helper()
	cmd := s.host.Command(s.t.Context(), lab.BuildWireGuardGo(s.t), "-f", device)
	cmd.Env = append(os.Environ(), "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1")
	if err := s.host.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	request := "set=1\n"
	var addresses, routes []string
	for line := range strings.Lines(conf) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		key := func() string {
			raw, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				s.t.Fatal(err)
			}
			return hex.EncodeToString(raw)
		}
		switch {
		case !ok:
		case name == "PrivateKey":
			request += "private_key=" + key() + "\n"
		case name == "PublicKey":
			request += "public_key=" + key() + "\n"
		case name == "Endpoint":
			request += "endpoint=" + value + "\n"
		case name == "Address":
			addresses = strings.Split(value, ", ")
		case name == "AllowedIPs":
			routes = strings.Split(value, ", ")
			for _, a := range routes {
				request += "allowed_ip=" + a + "\n"
			}
		}
	}
	lab.Eventually(s.t, patience, "wireguard-go answers on its socket", func() bool {
		c, err := net.Dial("unix", filepath.Join(s.run, "run/wireguard", device+".sock"))
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte(request + "\n")); err != nil {
			return false
		}
		answer := make([]byte, 100)
		n, err := c.Read(answer)
		return err == nil && strings.HasPrefix(string(answer[:n]), "errno=0\n")
	})
	for _, a := range addresses {
		s.host.AddAddr(device, a)
	}
	s.host.Up(device)
	for _, r := range routes {
		s.host.Shell("ip", "route", "replace", r, "dev", device)
	}
}

// spoofs pings from an address that is not the site's, for which nothing may come back; the server's drop counter of that must grow.
func (j *membership) spoofs(s *site, device, address, to string) {
	j.t.Helper()
	const reason = "in: source not in allowed IPs"
	before := j.server.status()[0].Tunnels[0].Drops[reason]
	s.host.AddAddr(device, address+"/32")
	defer s.host.DelAddr(device, address+"/32")
	cmd := s.host.Command(j.t.Context(), "ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", address, to)
	if out, err := s.host.Output(cmd); err == nil {
		j.t.Errorf("%s is answered as %s:\n%s", s.host.Name, address, out)
	}
	if after := j.server.status()[0].Tunnels[0].Drops[reason]; after < before+2 {
		j.t.Errorf("%s as %s: %d packets were dropped for that, before %d", s.host.Name, address, after, before)
	}
}

func (s *site) cut(what, to string) {
	s.t.Helper()
	if s.host.Ping(netip.MustParseAddr(to)) == nil {
		s.t.Errorf("%s: %s is reached", what, to)
	}
}

// One server, clients of every kind: three of culvert, the stock wireguard-go, and one of a tunnel of Ethernet frames. What each may do is
// held by the server, by client and by group; they reach each other, and the world behind it by its address.
func TestServerOfAllKinds(t *testing.T) {
	t.Parallel()
	lab.NeedNAT(t)
	lab.NeedProgram(t, "nft")
	j := newJoined(t)
	world, carol, phone, tom := lab.NewHost(t, "world"), newSite(t, "carol"), newSite(t, "phone"), newSite(t, "tom")
	lab.Link(t, j.server.host, world, lab.Addresses("203.0.113.1/24", "203.0.113.80/24")) // which knows no way back to clients
	for i, s := range []*site{carol, phone, tom} {
		lab.Link(t, j.server.host, s.host, lab.Addresses(fmt.Sprintf("198.18.%d.1/24", i), fmt.Sprintf("198.18.%d.2/24", i)))
		s.host.AddRoute("192.0.2.0/24", fmt.Sprintf("198.18.%d.1", i), "")
		s.env = []string{stateDirEnv + "=" + s.state()}
	}
	before := j.server.surroundings()
	configure := func(more string) {
		j.server.write(`    listen: 20000
    addresses: [10.20.0.1/24, "fd20::1/64", 10.30.0.1/32, 10.31.0.1/32]
    server:
      endpoints: ["192.0.2.1:20000"]
      nat: true
      push: {routes: [10.30.0.0/16, 10.31.0.0/16, 203.0.113.0/24]}
      groups:
        guests: {access: {default: deny, rules: [{allow: {to: 10.30.0.1, protocol: icmp}}]}}
` + more)
	}
	configure("      clients: {alice: {routes: [10.30.0.0/16, 10.31.0.0/16, 203.0.113.0/24, 198.51.100.0/24]}}\n")
	j.server.must("up", j.server.file)
	invite := func(args ...string) string {
		link, _, _ := strings.Cut(j.server.must(append([]string{"invite"}, args...)...), "\n")
		return link
	}
	for s, link := range map[*site]string{j.alice: invite("alice"), j.bob: invite("bob"), carol: invite("carol", "--group", "guests")} {
		if out, code := s.join(link); code != 0 {
			t.Fatalf("%s: join: %d\n%s", s.host.Name, code, out)
		}
	}
	addressOf := func(name string) string {
		for _, c := range j.clients().Clients {
			if c.Name == name {
				return c.Addresses[0].String()
			}
		}
		t.Fatalf("there is no client %s", name)
		return ""
	}
	conf := j.server.must("client", "add", "phone", "--wireguard")
	phone.wireGuardGo("wgc0", conf[strings.Index(conf, "[Interface]"):])

	// All reach the server, each other, and the world by the server's address.
	for _, s := range []*site{j.alice, j.bob, phone} {
		s.reaches("10.20.0.1")
		s.reaches("203.0.113.80")
	}
	j.alice.reaches(addressOf("bob"))
	phone.reaches(addressOf("alice"))
	j.bob.reaches(addressOf("phone"))

	// The port that a client sends from is not the one it leaves from: here the server's own.
	seen := make(chan netip.AddrPort, 1)
	world.Must(func() error {
		c, err := net.ListenPacket("udp", "203.0.113.80:9")
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			for b := make([]byte, 100); ; {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				seen <- from.(*net.UDPAddr).AddrPort()
			}
		}()
		return nil
	})
	ports := map[uint16]bool{}
	for range 8 {
		j.alice.host.Must(func() error {
			c, err := net.DialUDP("udp", &net.UDPAddr{Port: 20000}, &net.UDPAddr{IP: net.IPv4(203, 0, 113, 80), Port: 9})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("from the server's port"))
			return err
		})
		select {
		case from := <-seen:
			if from.Addr() != netip.MustParseAddr("203.0.113.1") || from.Port() == 20000 {
				t.Errorf("seen as %v", from)
			}
			ports[from.Port()] = true
		case <-time.After(patience):
			t.Fatal("the world was not reached")
		}
		j.server.host.ForgetFlows()
	}
	if len(ports) < 2 {
		t.Errorf("ports are not picked at random: %v", ports)
	}

	// A guest may do what its group may, and no more.
	carol.reaches("10.30.0.1")
	for _, to := range []string{"10.31.0.1", "10.20.0.1", "203.0.113.80", addressOf("alice")} {
		carol.cut("a guest", to)
	}
	// What is said for a client goes before its group, at once.
	configure(`      clients: {carol: {access: {rules: [{deny: {to: 10.31.0.1}}]}}}` + "\n")
	if out := j.server.must("reload", "site"); !strings.Contains(out, "peer carol: what it may do has changed") || strings.Contains(out, "alice") {
		t.Errorf("reload said %q", out)
	}
	carol.reaches("203.0.113.80")
	carol.cut("denied", "10.31.0.1")
	configure(`      clients: {carol: {access: {expires: ` + time.Now().Add(2*time.Second).UTC().Format(time.RFC3339) + `}}}` + "\n")
	j.server.must("reload", "site")
	lab.Eventually(t, patience, "an expired client is out", func() bool { return carol.host.Ping(netip.MustParseAddr("10.20.0.1")) != nil })
	configure("")
	j.server.must("reload", "site")
	carol.reaches("10.30.0.1")

	// Who is kept from others reaches none and is reached by none, and the world as before.
	configure("      clients: {bob: {client_to_client: false}}\n")
	if out := j.server.must("reload", "site"); !strings.Contains(out, "peer bob: what it may do has changed") || strings.Contains(out, "alice") {
		t.Errorf("reload said %q", out)
	}
	j.bob.reaches("203.0.113.80")
	j.bob.reaches("10.20.0.1")
	j.bob.cut("kept apart", addressOf("alice"))
	phone.cut("kept apart", addressOf("bob"))
	configure("")
	j.server.must("reload", "site")
	j.bob.reaches(addressOf("alice"))

	// Nobody is anybody else.
	j.spoofs(j.alice, "vpn0", addressOf("bob"), "10.20.0.1")
	j.spoofs(j.bob, "vpn0", "10.20.0.1", "10.30.0.1")
	j.spoofs(phone, "wgc0", addressOf("alice"), "10.20.0.1")
	j.spoofs(phone, "wgc0", "198.51.100.99", "203.0.113.80")

	// A tunnel of frames beside it, with clients of its own.
	lan := filepath.Join(j.server.dir, "lan.yaml")
	if err := os.WriteFile(lan, []byte(`version: 1
tunnels:
  lan0:
    mode: tap
    listen: 20001
    private_key_file: key
    addresses: [10.40.0.1/24, "fd40::1/64"]
    server: {endpoints: ["192.0.2.1:20001"], push: {mtu: 1400}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	j.server.must("up", lan)
	link := invite("tom", "--tunnel", "lan/lan0")
	if out, code := tom.join(link); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	if text := read(t, filepath.Join(tom.dir, "vpn0.yaml")); !strings.Contains(text, "mode: tap") {
		t.Errorf("the client's file says\n%s", text)
	}
	tom.eventually("addresses", "10.40.0.2/24", "ip", "-br", "address", "show", "vpn0")
	tom.eventually("the MTU", "mtu 1400", "ip", "link", "show", "vpn0")
	tom.reaches("10.40.0.1")
	tom.reaches("fd40::1")
	if text := tom.must("status"); !strings.Contains(text, "mac") && !strings.Contains(text, "switch") {
		t.Errorf("status:\n%s", text)
	}
	j.server.refused(1, "wireguard wire has none", "client", "add", "app", "--wireguard", "--tunnel", "lan/lan0")

	// All of them have what they had after a restart of the server, and who is revoked is out at once.
	for _, name := range []string{"site", "lan"} {
		j.server.must("down", name)
	}
	j.server.same(before)
	j.server.must("up", j.server.file)
	j.server.must("up", lan)
	for _, s := range []*site{j.alice, j.bob, phone} {
		s.reaches("203.0.113.80")
	}
	carol.reaches("10.30.0.1")
	tom.reaches("10.40.0.1")
	for s, name := range map[*site]string{phone: "phone", carol: "carol", tom: "tom"} {
		in, to := "site/wg0", "10.30.0.1"
		if s == tom {
			in, to = "lan/lan0", "10.40.0.1"
		}
		j.server.must("client", "revoke", name, "--tunnel", in)
		s.cut("revoked", to)
	}
	j.alice.reaches("10.30.0.1")
}
