package scenes

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"culvert/internal/lab"
)

// Addresses that are behind the far end of a tunnel, and can be reached past it as well.
const (
	behind4 = "203.0.113.80"
	behind6 = "2001:db8:77::80"
)

// gate is the far end of a tunnel that takes everything, behind the machine's port wan, which is its way to the world as well.
func (m *machine) gate(keyFile string) (g *machine, public string) {
	m.Helper()
	m.resolvConf("nameserver 10.98.0.2\noptions edns0\n")
	g = newMachine(m.T)
	m.cable(g.host, "wan", "wan", "10.98.0.1/24 2001:db8::1/64", "10.98.0.2/24 2001:db8::2/64")
	m.host.AddRoute("0.0.0.0/0", "10.98.0.2", "wan")
	m.host.AddRoute("::/0", "2001:db8::2", "wan")
	public = g.key("gate.key")
	g.declare("gate.yaml", fmt.Sprintf("version: 1\ntunnels:\n  gate:\n    listen: 51820\n    private_key_file: gate.key\n"+
		"    addresses: [10.8.0.1/24]\n    peers: {near: {public_key: %q, allowed_ips: [10.8.0.2/32]}}\n", m.key(keyFile)))
	g.must("up", g.file)
	g.host.AddAddr("lo", behind4+"/32")
	g.host.AddAddr("lo", behind6+"/128")
	webServer(m.T, g.host, ":80")
	nameServer(m.T, g.host, "10.98.0.2:53", map[string]string{"gate.example.net.": "10.98.0.2", "vpn.corp.example.": "10.98.0.2"})
	return g, public
}

// resolvConf gives the machine a resolv.conf of its own, which cannot be replaced but only written: as in a container.
func (m *machine) resolvConf(text string) {
	m.Helper()
	path := filepath.Join(m.dir, "resolv.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.Fatal(err)
	}
	m.shell("", "mount", "--bind", path, "/etc/resolv.conf")
}

// nameServer answers questions for IPv4 addresses.
func nameServer(t *testing.T, h *lab.Host, address string, names map[string]string) {
	t.Helper()
	var c net.PacketConn
	h.Must(func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	})
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil || len(q.Questions) != 1 {
				continue
			}
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
			if a, ok := names[q.Questions[0].Name.String()]; ok && q.Questions[0].Type == dnsmessage.TypeA {
				answer.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1},
					Body: &dnsmessage.AResource{A: mustAddr(a).As4()}}}
			}
			if out, err := answer.Pack(); err == nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
}

// fetch asks a web server from the machine, by a device where one is named, and returns the address it was seen with.
func (m *machine) fetch(device, address string) (body string, err error) {
	m.Helper()
	dialer := net.Dialer{Timeout: 2 * time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
		if device != "" {
			_ = c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
		}
		return err
	}}
	var c net.Conn
	if err := m.host.Do(func() (err error) {
		c, err = dialer.Dial("tcp", net.JoinHostPort(address, "80"))
		return err
	}); err != nil {
		return "", err
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
	r, err := client.Get("http://" + net.JoinHostPort(address, "80") + "/")
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	buf := make([]byte, 100)
	n, _ := r.Body.Read(buf)
	return string(buf[:n]), nil
}

// seenAs waits until a web server sees the machine with an address.
func (m *machine) seenAs(server, want string) {
	m.Helper()
	var last string
	var err error
	m.failing = func() string { return fmt.Sprintf("last seen as %q, %v\n", last, err) }
	m.await(fmt.Sprintf("%s sees %s", server, want), func() bool {
		last, err = m.fetch("", server)
		return err == nil && last == want
	})
}

// watch records what a host receives on a device. What it returns ends that, and counts the packets that a filter lets pass.
func watch(t *testing.T, h *lab.Host, device string) (count func(filter string) int) {
	t.Helper()
	lab.NeedProgram(t, "tcpdump")
	file := filepath.Join(t.TempDir(), "capture")
	cmd := h.Command(t.Context(), "tcpdump", "-Z", "root", "-n", "-U", "--immediate-mode", "-Q", "in", "-i", device, "-w", file)
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop := func() { once.Do(func() { _ = cmd.Process.Signal(syscall.SIGINT); _ = cmd.Wait() }) }
	t.Cleanup(stop)
	lab.Eventually(t, patience, "the capture runs", func() bool { info, err := os.Stat(file); return err == nil && info.Size() > 0 })
	return func(filter string) int {
		t.Helper()
		stop()
		out, err := h.Output(h.Command(context.Background(), "tcpdump", "-Z", "root", "-n", "-r", file, filter))
		if err != nil {
			t.Fatalf("tcpdump %s: %v %s", filter, err, out)
		}
		n := strings.Count(string(out), "\n")
		if n > 0 {
			t.Logf("%s: %d packets, the first being\n%s", filter, n, strings.Join(strings.SplitN(string(out), "\n", 6)[:min(5, n)], "\n"))
		}
		return n
	}
}

const (
	inTunnel = "udp dst port 51820"
	// outside is what neither is the tunnel's nor keeps the underlay's addresses: neighbour discovery and multicast listeners' reports,
	// which come behind a header of their own. Questions for the endpoint's name go to the underlay's server.
	outside = "(ip or ip6) and not (udp dst port 51820) and not (ip dst 10.98.0.2 and udp dst port 53) and not (icmp6 and ip6[40] >= 133) and not (ip6[6] = 0)"
)

func TestFullTunnel(t *testing.T) {
	(&scene{
		file: "full-tunnel.yaml",
		around: func(m *machine) func() {
			g, public := m.gate("full-tunnel.key")
			lan := m.outside("lan", "192.168.7.1/24", "192.168.7.2/24")
			webServer(m.T, lan, ":80")
			m.publicKey = public
			return func() {
				m.seenAs(behind4, "10.8.0.2")
				m.seenAs("192.168.7.2", "192.168.7.1")
				m.seenAs("10.8.0.1", "10.8.0.2")
				// Nor by IPv6, which the tunnel has not, nor by a route that is closer.
				if seen, err := m.fetch("", behind6); err == nil {
					m.Errorf("IPv6 leads past the tunnel: seen as %s", seen)
				}
				count := watch(m.T, g.host, "wan")
				m.shell("", "ip", "route", "add", behind4+"/32", "via", "10.98.0.2", "dev", "wan")
				m.shell("", "ip", "route", "add", "203.0.113.0/25", "via", "10.98.0.2", "dev", "wan", "metric", "5")
				m.seenAs(behind4, "10.8.0.2")
				m.shell("", "ip", "route", "del", behind4+"/32", "dev", "wan")
				m.shell("", "ip", "route", "del", "203.0.113.0/25", "dev", "wan")
				if n := count("host " + behind4); n != 0 {
					m.Errorf("%d packets went past the tunnel", n)
				}
				if count(inTunnel) == 0 {
					m.Error("no packet of the tunnel was seen")
				}
				// This machine itself is reached as ever.
				if m.shell("", "ping", "-c", "1", "10.98.0.1") == "" {
					m.Error("its own address does not answer")
				}
				if text, _ := os.ReadFile(filepath.Join(m.dir, "resolv.conf")); !strings.Contains(string(text), "nameserver 10.8.0.53\noptions edns0\n") &&
					strings.Contains(m.text, "10.8.0.53") {
					m.Errorf("resolv.conf says\n%s", text)
				}
			}
		},
		changes: []change{
			{[]string{"except: [192.168.0.0/16]", "except: [192.168.0.0/16, 172.16.0.0/12]"},
				[]string{"~ firewall culvert/full-tunnel except 192.168.0.0/16 -> [172.16.0.0/12 192.168.0.0/16]", "+ rule 6301 ipv4"}},
			{[]string{"10.8.0.53]", "10.8.0.54]"}, []string{"~ dns vpn0 servers 10.8.0.53 -> 10.8.0.54"}},
			{[]string{"    kill_switch: true\n", ""}, []string{"~ firewall culvert/full-tunnel", "kill_switch vpn0 -> none"}},
		},
	}).play(t)
}

// Nothing leaves past the tunnel while the kill switch is on, whatever becomes of culvert and of the network around; and it goes with down.
func TestKillSwitch(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	g, public := m.gate("full-tunnel.key")
	before := m.settledSnapshot()
	m.example("full-tunnel.yaml", exampleKey, public)
	m.apply()
	m.settled()
	m.seenAs(behind4, "10.8.0.2")

	count := watch(t, g.host, "wan")
	stop := m.chatter()
	m.shell("", "ip", "route", "add", behind4+"/32", "via", "10.98.0.2", "dev", "wan") // what a DHCP server may say (option 121)
	m.seenAs(behind4, "10.8.0.2")
	for pid, name := range m.processes() {
		if strings.HasPrefix(name, "culvert") {
			m.kill(pid)
		}
	}
	m.isUp = false
	time.Sleep(500 * time.Millisecond) // for what might get out
	for _, device := range []string{"", "wan"} {
		if seen, err := m.fetch(device, behind4); err == nil {
			t.Errorf("killed, by device %q: seen as %s", device, seen)
		}
	}
	if g.host.Ping(mustAddr("10.98.0.1")) == nil {
		t.Error("killed, it answers a ping from the underlay")
	}
	m.shell("", "ip", "addr", "del", "10.98.0.1/24", "dev", "wan")
	m.shell("", "ip", "addr", "add", "10.98.0.7/24", "dev", "wan")
	m.shell("", "ip", "route", "replace", "default", "via", "10.98.0.2", "dev", "wan")
	m.apply() // the endpoint's name is asked of the server that was in resolv.conf before
	m.settled()
	m.seenAs(behind4, "10.8.0.2")
	m.shell("", "ip", "route", "replace", behind4+"/32", "via", "10.98.0.2", "dev", "wan")
	m.seenAs(behind4, "10.8.0.2")
	stop()
	if n := count(outside); n != 0 {
		t.Errorf("%d packets went past the tunnel", n)
	}
	if count(inTunnel) == 0 || count("ip dst 10.98.0.2 and udp dst port 53") == 0 {
		t.Error("the tunnel's own packets were not seen")
	}
	if _, err := m.run("", "ping", "-I", "wan", "-c", "1", "-W", "1", "10.98.0.2"); err == nil {
		t.Error("the underlay is reached")
	}

	m.destroy()
	m.shell("", "ip", "addr", "del", "10.98.0.7/24", "dev", "wan")
	m.shell("", "ip", "addr", "add", "10.98.0.1/24", "dev", "wan")
	m.shell("", "ip", "route", "flush", "exact", behind4+"/32")
	m.shell("", "ip", "route", "replace", "default", "via", "10.98.0.2", "dev", "wan")
	m.same(before, "down")
	// The same chatter is seen now: the count above could have failed.
	count = watch(t, g.host, "wan")
	stop = m.chatter()
	time.Sleep(100 * time.Millisecond)
	stop()
	if count(outside) == 0 {
		t.Error("what is sent without a kill switch is not seen either")
	}

	// Killed, and never started again: destroy is enough.
	m.apply()
	for pid, name := range m.processes() {
		if strings.HasPrefix(name, "culvert") {
			m.kill(pid)
		}
	}
	m.isUp = false
	m.destroy()
	m.same(before, "killed and destroyed")
}

// chatter sends datagrams of all sorts until it is told to stop.
func (m *machine) chatter() (stop func()) {
	m.Helper()
	var conns []net.PacketConn
	m.host.Must(func() error {
		for _, device := range []string{"", "wan"} {
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
				if device != "" {
					_ = c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
				}
				return err
			}}
			for _, network := range []string{"udp4", "udp6"} {
				c, err := lc.ListenPacket(m.Context(), network, ":0")
				if err != nil {
					return err
				}
				conns = append(conns, c)
			}
		}
		return nil
	})
	done := make(chan struct{})
	var running sync.WaitGroup
	for _, c := range conns {
		running.Go(func() {
			defer c.Close()
			for tick := time.NewTicker(2 * time.Millisecond); ; {
				select {
				case <-done:
					tick.Stop()
					return
				case <-tick.C:
				}
				to := []string{behind4 + ":9", "10.98.0.2:9", "10.98.0.2:443", "10.98.0.99:9"}
				if strings.HasPrefix(c.LocalAddr().String(), "[") {
					to = []string{"[" + behind6 + "]:9", "[2001:db8::2]:9"}
				}
				for _, address := range to {
					a, _ := net.ResolveUDPAddr("udp", address)
					_, _ = c.WriteTo([]byte("leak"), a) // refused is as good as lost
				}
			}
		})
	}
	return func() { close(done); running.Wait() }
}

func TestSplitDNS(t *testing.T) {
	(&scene{
		file: "split-dns.yaml",
		around: func(m *machine) func() {
			_, public := m.gate("split-dns.key")
			m.publicKey = public
			return func() {
				text, err := os.ReadFile(filepath.Join(m.dir, "resolv.conf"))
				if strings.Contains(m.text, "resolver: off") {
					return
				}
				if err != nil || !strings.Contains(string(text), "nameserver 10.9.0.53\nsearch corp.example\noptions edns0\n") {
					m.Errorf("resolv.conf says\n%s", text)
				}
			}
		},
		changes: []change{
			{[]string{"corp.example, ", "corp.example, \"~lab.example\", "},
				[]string{"~ dns corp0 domains [corp.example ~9.10.in-addr.arpa] -> [corp.example ~9.10.in-addr.arpa ~lab.example]"}},
			{[]string{"\"]}\n", "\"], resolver: off}\n"}, []string{"- dns corp0"}},
			{[]string{", resolver: off}\n", ", resolver: file}\n"}, []string{"+ dns corp0 domains"}},
		},
	}).play(t)
}

// Wherever the daemon is killed on its way up, the next up completes it, and destroy takes all of it away; and a start that fails at its
// last step leaves nothing.
func TestClientInterrupted(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, public := m.gate("full-tunnel.key")
	before := m.settledSnapshot()
	m.example("full-tunnel.yaml", exampleKey, public)
	for round := range 12 {
		cmd := m.host.Command(t.Context(), culvertProgram(t), "up", "-f", m.file)
		if err := m.host.Start(cmd); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+round*25) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if round%2 == 0 {
			m.apply()
			m.settled()
			m.seenAs(behind4, "10.8.0.2")
		}
		m.destroy()
		m.same(before, fmt.Sprintf("round %d", round))
		if t.Failed() {
			return
		}
	}
	path := filepath.Join(m.dir, "resolv.conf")
	const theirs = "# Written by culvert for another (tunnel x).\nnameserver 10.9.9.9\n"
	write(t, path, theirs)
	before = m.settledSnapshot()
	stdout, stderr, code := m.culvert("up", m.file)
	if code != 1 || !strings.Contains(stderr, "only one tunnel can have it") {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}
	_, _, _ = m.culvert("destroy", m.file) // the log of a failed start stays until then
	m.same(before, "the last step failed")
}

// A program resolvconf is told, told again, and told to forget, also after the daemon was killed.
func TestResolvconf(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/run/resolvconf"); err == nil {
		lab.Skip(t, "this machine has a resolvconf of its own, whose folder culvert looks into")
	}
	m := newMachine(t)
	_, public := m.gate("split-dns.key")
	bin, told := filepath.Join(m.dir, "bin"), filepath.Join(m.dir, "told")
	for _, dir := range []string{bin, told} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(bin, "resolvconf"), fmt.Sprintf("#!/bin/sh\ncase $1 in\n-a) { echo \"$@\"; cat; } > %[1]s/$2 ;;\n-d) rm %[1]s/$2 ;;\nesac\n", told))
	if err := os.Chmod(filepath.Join(bin, "resolvconf"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.shell("", "mount", "--bind", bin, "/usr/local/sbin")
	before := m.settledSnapshot()
	says := func(want string) {
		t.Helper()
		if text, _ := os.ReadFile(filepath.Join(told, "corp0")); string(text) != want {
			t.Errorf("it was told\n%s, want\n%s", text, want)
		}
	}
	m.example("split-dns.yaml", exampleKey, public, "\"]}\n", "\"], resolver: resolvconf}\n")
	m.apply()
	m.settled()
	says("-a corp0 -m 0 -p\nnameserver 10.9.0.53\nsearch corp.example 9.10.in-addr.arpa\n")
	m.edit("domains: [corp.example, \"~9.10.in-addr.arpa\"]", "search: [corp.example]")
	m.apply()
	m.settled()
	says("-a corp0 -m 0 -x\nnameserver 10.9.0.53\nsearch corp.example\n")
	for pid, name := range m.processes() {
		if strings.HasPrefix(name, "culvert") {
			m.kill(pid)
		}
	}
	m.isUp = false
	m.apply()
	m.settled()
	m.destroyed(before)
	says("")
}
