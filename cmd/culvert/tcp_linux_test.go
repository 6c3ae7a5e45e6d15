package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/control"
	"culvert/internal/lab"
)

// wall drops all UDP that comes to the host, or lets it through again.
func (s *site) wall(on bool) {
	s.t.Helper()
	nft := lab.NeedProgram(s.t, "nft")
	if !on {
		s.host.Shell(nft, "delete", "table", "inet", "wall")
		return
	}
	s.host.Shell(nft, "add table inet wall; "+
		"add chain inet wall in { type filter hook input priority 0; }; add rule inet wall in meta l4proto udp iifname != wg0 counter drop; "+
		"add chain inet wall out { type filter hook output priority 0; }; add rule inet wall out meta l4proto udp oifname != wg0 counter drop")
}

// peer is the status of the site's only peer.
func (s *site) peer() control.Peer {
	s.t.Helper()
	t := s.tunnel()
	if len(t.Peers) != 1 {
		s.t.Fatalf("peers: %+v", t.Peers)
	}
	return t.Peers[0]
}

// movesTo waits until both sites send to each other over TCP, or over UDP, while a pings b.
func movesTo(t *testing.T, a, b *site, tcp bool) {
	t.Helper()
	what := "both send over UDP"
	if tcp {
		what = "both send over TCP"
	}
	start := time.Now()
	defer func() {
		if a.peer().TCP == tcp && b.peer().TCP == tcp {
			return
		}
		for _, s := range []*site{a, b} {
			t.Logf("%s: %+v\n%s\n%s", s.host.NetnsName(), s.peer(), s.must("status"), read(t, filepath.Join(s.run, "run/culvert/site.log")))
		}
	}()
	lab.Eventually(t, patience, what, func() bool {
		_ = a.host.Ping(netip.MustParseAddr("10.20.0.2"))
		return a.peer().TCP == tcp && b.peer().TCP == tcp
	})
	t.Logf("%s after %v", what, time.Since(start).Round(100*time.Millisecond))
}

// TCP carries a tunnel of packets, and one of frames, where UDP is blocked from the start; is left when UDP works; is taken up again
// in the middle of a session, and when the server was started anew.
func TestTCPFallback(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"tun", "tap"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			a, b := newSite(t, "a"), newSite(t, "b")
			wire := lab.Link(t, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
			allowedA, allowedB, mac := "", "", `    mac: "52:54:00:00:00:0`
			if mode == "tun" {
				allowedA, allowedB = `, allowed_ips: [10.20.0.1/32]`, `, allowed_ips: [10.20.0.2/32]`
			}
			body := func(n string) string {
				text := "    mode: " + mode + "\n    addresses: [10.20.0." + n + "/24]\n"
				if mode == "tap" {
					text += mac + n + "\"\n"
				}
				return text
			}
			a.write(body("1") + `    listen: 1000
    peers:
      b: {public_key: "` + b.pub + `", endpoints: ["192.0.2.2:2000"], tcp: 443` + allowedB + `}
`)
			b.write(body("2") + `    listen: 2000
    tcp: 443
    peers:
      a: {public_key: "` + a.pub + `"` + allowedA + `}
`)
			b.wall(true)
			b.must("up", b.file)
			a.must("up", a.file)
			movesTo(t, a, b, true)
			for _, size := range []int{8, 1000, 1372, 20000} {
				for _, c := range []struct {
					from *site
					to   string
				}{{a, "10.20.0.2"}, {b, "10.20.0.1"}} {
					lab.Eventually(t, patience, fmt.Sprintf("a ping of %d bytes to %s", size, c.to), func() bool { // which a busy machine may lose
						return c.from.host.PingSize(netip.MustParseAddr(c.to), size) == nil
					})
				}
			}
			p := a.peer()
			if p.Endpoint != "192.0.2.2:443" || p.Native == nil || !p.Native.PathSettled {
				t.Errorf("%+v, %+v", p, p.Native)
			}
			if text := a.must("status"); !strings.Contains(text, "endpoint: 192.0.2.2:443 over TCP, since UDP does not get through") {
				t.Errorf("status says\n%s", text)
			}
			if s := b.tunnel().Transport.Streams; s == nil || s.Accepted != 1 || s.Open != 1 || s.ReceivedDatagrams == 0 {
				t.Errorf("%+v", s)
			}
			// UDP works, and the address change has it tried at once.
			b.wall(false)
			a.host.AddAddr(wire.A.Device, "192.0.2.77/24")
			movesTo(t, a, b, false)
			lab.Eventually(t, patience, "a ping of 20000 bytes", func() bool { return a.host.PingSize(netip.MustParseAddr("10.20.0.2"), 20000) == nil })
			// Blocked in the middle of a session.
			b.wall(true)
			movesTo(t, a, b, true)
			// The server is started anew.
			b.must("down", "site")
			b.must("up", b.file)
			movesTo(t, a, b, true)
			a.reaches("10.20.0.2")
			log := read(t, filepath.Join(a.run, "run/culvert/site.log"))
			for _, want := range []string{"UDP does not get through; over TCP to 192.0.2.2:443 now", "UDP gets through again, to 192.0.2.2:2000"} {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %q:\n%s", want, log)
				}
			}
			// Turned off by a reload.
			text := read(t, b.file)
			if err := os.WriteFile(b.file, []byte(strings.Replace(text, "    tcp: 443\n", "", 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			b.must("reload", "site")
			lab.Eventually(t, patience, "the server has no stream", func() bool {
				s := b.tunnel().Transport.Streams
				return s != nil && s.Open == 0
			})
			a.must("down", "site")
			b.must("down", "site")
		})
	}
}

// With a default route through the tunnel TCP goes around it, as UDP does, by the mark.
func TestTCPFallbackOfADefaultRoute(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a"), newSite(t, "b")
	wire := lab.Link(t, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	b.host.AddAddr("lo", "198.51.100.2/32")
	a.host.AddRoute("0.0.0.0/0", "192.0.2.2", wire.A.Device)
	a.write(`    listen: 1000
    addresses: [10.20.0.1/24]
    peers:
      b: {public_key: "` + b.pub + `", endpoints: ["198.51.100.2:2000"], tcp: "198.51.100.2:443", allowed_ips: [0.0.0.0/0]}
`)
	b.write(`    listen: 2000
    addresses: [10.20.0.2/24]
    tcp: "198.51.100.2:443"
    peers:
      a: {public_key: "` + a.pub + `", allowed_ips: [10.20.0.1/32]}
`)
	b.wall(true)
	b.must("up", b.file)
	a.must("up", a.file)
	if mark := a.tunnel().FwMark; mark == 0 {
		t.Fatal("no mark")
	}
	movesTo(t, a, b, true)
	a.must("down", "site")
	b.must("down", "site")
}

// What those see who look at the port: TLS 1.3, and nothing else.
func TestTCPIsTLS13(t *testing.T) {
	t.Parallel()
	openssl := lab.NeedProgram(t, "openssl")
	a, b := newSite(t, "a"), newSite(t, "b")
	lab.Link(t, a.host, b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	b.write("    tcp: 443\n    peers:\n      a: {public_key: \"" + a.pub + "\", allowed_ips: [10.20.0.1/32]}\n")
	b.must("up", b.file)
	connect := func(args ...string) string {
		cmd := a.host.Command(t.Context(), openssl, append([]string{"s_client", "-connect", "192.0.2.2:443", "-servername", "vpn.example.net"}, args...)...)
		cmd.Stdin = strings.NewReader("")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := a.host.Start(cmd); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // with an error where the server accepts nothing of what was offered
		return out.String()
	}
	if out := connect("-alpn", "h2,http/1.1"); !strings.Contains(out, "TLSv1.3") || !strings.Contains(out, "ALPN protocol: h2") || strings.Contains(out, "culvert") {
		t.Errorf("openssl says\n%s", out)
	}
	if out := connect("-tls1_2"); !strings.Contains(out, "alert protocol version") {
		t.Errorf("openssl says of TLS 1.2\n%s", out)
	}
	// Another process has the port.
	b.must("down", "site")
	nc := b.host.Command(t.Context(), openssl, "s_server", "-accept", "443", "-nocert")
	if err := b.host.Start(nc); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = nc.Process.Kill()
		_ = nc.Wait()
	}()
	lab.Eventually(t, patience, "the port is taken", func() bool {
		return strings.Contains(b.host.Shell("ss", "-ltn"), ":443 ")
	})
	b.refused(1, "cannot listen on TCP port 443: listen tcp :443: bind: address already in use", "up", b.file)
}
