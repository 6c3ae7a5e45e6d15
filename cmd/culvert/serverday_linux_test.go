package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/lab"
)

// Addresses on the internet of [day].
const (
	web4 = "203.0.113.80"
	web6 = "2001:db8:80::80"
)

// day is a server with the office's network inside, a client abroad, and one with a branch's network behind it. All their wires end at one
// router, which is the internet: it has a web server and a name server, and knows no way to the addresses within tunnels.
type day struct {
	*membership
	internet, inside, branch *lab.Host
	toServer                 string // the internet's device
	resolv                   string // alice's resolv.conf
}

func newDay(t *testing.T) *day {
	t.Helper()
	lab.NeedNAT(t)
	lab.NeedIPv6(t)
	for _, program := range []string{"nft", "dnsmasq", "getent"} {
		lab.NeedProgram(t, program)
	}
	d := &day{
		membership: &membership{t: t, server: newSite(t, "srv"), alice: newSite(t, "ali"), bob: newSite(t, "bob")},
		internet:   lab.NewHost(t, "net"), inside: lab.NewHost(t, "inside"), branch: lab.NewHost(t, "branch"),
	}
	d.internet.Forward()
	d.internet.AddAddr("lo", web4+"/32")
	d.internet.AddAddr("lo", web6+"/128")
	d.toServer = d.connect(d.server, "192.0.2", "2001:db8:2:", "1").A.Device
	d.connect(d.alice, "198.51.100", "2001:db8:51:", "2")
	d.connect(d.bob, "198.18.0", "2001:db8:18:", "2")
	lab.Link(t, d.server.host, d.inside, lab.Addresses("10.30.0.1/16", "10.30.0.53/16 10.30.0.80/16"))
	lab.Link(t, d.bob.host, d.branch, lab.Addresses("192.168.7.1/24", "192.168.7.2/24"))
	d.branch.AddRoute("default4", "192.168.7.1", "")
	d.bob.host.Forward()
	for _, h := range []*lab.Host{d.internet, d.inside, d.branch} {
		saysFrom(t, h)
	}
	nameServer(t, d.internet, web4, "out.example,"+web4)
	nameServer(t, d.inside, "10.30.0.53", "www.corp.example,10.30.0.80")
	d.resolv = d.alice.resolvConf("nameserver " + web4 + "\n")
	return d
}

// connect joins a site to the internet, with one address of each family.
func (d *day) connect(s *site, net4, net6, host string) lab.Wire {
	d.t.Helper()
	w := lab.Link(d.t, d.internet, s.host, lab.Addresses(net4+".254/24 "+net6+":254/64", net4+"."+host+"/24 "+net6+":"+host+"/64"))
	s.host.AddRoute("default4", net4+".254", "")
	s.host.AddRoute("default6", net6+":254", "")
	return w
}

func (d *day) configure(clients string) {
	d.server.write(`    listen: 2000
    addresses: [10.20.0.1/24, "fd20::1/64"]
    server:
      endpoints: ["192.0.2.1:2000"]
      nat: true
      push: {routes: [10.30.0.0/16], dns: {servers: [10.30.0.53], search: [corp.example]}}
      groups:
        roaming: {full_tunnel: true}
      clients:
        bob: {networks: [192.168.7.0/24]` + clients)
}

// saysFrom has a host's port 80 answer by HTTP with the address that it was asked from.
func saysFrom(t *testing.T, h *lab.Host) {
	t.Helper()
	var l net.Listener
	h.Must(func() (err error) {
		l, err = net.Listen("tcp", ":80")
		return err
	})
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = io.WriteString(w, from)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
}

// nameServer runs dnsmasq at an address of a host, with one name and no other server to ask.
func nameServer(t *testing.T, h *lab.Host, address, record string) {
	t.Helper()
	var said bytes.Buffer
	cmd := h.Command(t.Context(), "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts",
		"--log-facility=-", "--bind-interfaces", "--except-interface=lo", "--listen-address="+address, "--local=/example/", "--host-record="+record)
	cmd.Stderr = &said
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		if cmd.Wait(); t.Failed() {
			t.Logf("dnsmasq at %s:\n%s", address, &said)
		}
	})
}

// seenAs waits until a web server sees a site with an address.
func (s *site) seenAs(server, want string) {
	s.t.Helper()
	lab.Eventually(s.t, patience, fmt.Sprintf("%s sees %s as %s", server, s.host.Name, want), func() bool {
		var c net.Conn
		if s.host.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", net.JoinHostPort(server, "80"), 2*time.Second)
			return err
		}) != nil {
			return false
		}
		client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
		r, err := client.Get("http://" + net.JoinHostPort(server, "80") + "/")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		return err == nil && string(text) == want
	})
}

// lookUp asks what programs of the site ask, by its resolv.conf, for the address of a name; "" where it has none.
func (s *site) lookUp(name string) string {
	s.t.Helper()
	out, _ := s.host.Output(s.host.Command(s.t.Context(), "getent", "ahostsv4", name))
	address, _, _ := strings.Cut(string(out), " ")
	return address
}

// outside says that alice is in no tunnel: the internet sees its own addresses, and its name server knows nothing of the office's names.
func (d *day) outside(when string) {
	d.t.Helper()
	d.alice.seenAs(web4, "198.51.100.2")
	d.alice.seenAs(web6, "2001:db8:51::2")
	if a := d.alice.lookUp("out.example"); a != web4 {
		d.t.Errorf("%s: out.example is %q", when, a)
	}
	for _, name := range []string{"www.corp.example", "www"} {
		if a := d.alice.lookUp(name); a != "" {
			d.t.Errorf("%s: %s is %s", when, name, a)
		}
	}
}

// goodput sends from one host to another by TCP for a while, and returns what arrives of it in bits a second once the bucket of a limit is
// empty, which holds half a second's worth.
func goodput(from, to *lab.Host, address string) (float64, error) {
	const lead, long = 1500 * time.Millisecond, 3500 * time.Millisecond
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address, "0"))
		return err
	}); err != nil {
		return 0, err
	}
	defer l.Close()
	var out net.Conn
	if err := from.Do(func() (err error) {
		out, err = net.DialTimeout("tcp", l.Addr().String(), patience)
		return err
	}); err != nil {
		return 0, err
	}
	defer out.Close()
	go func() {
		for block := make([]byte, 1<<16); ; {
			if _, err := out.Write(block); err != nil {
				return
			}
		}
	}()
	in, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	got, block, start := 0, make([]byte, 1<<16), time.Now()
	if err := in.SetDeadline(start.Add(patience)); err != nil {
		return 0, err
	}
	for {
		n, err := in.Read(block)
		if err != nil {
			return 0, err
		}
		switch at := time.Since(start); {
		case at > lead+long:
			return float64(got) * 8 / (at - lead).Seconds(), nil
		case at > lead:
			got += n
		}
	}
}

// limited says that both clients' limits hold over TCP, and not by nothing getting through: alice's for what it sends, bob's for what is sent
// to it. A bucket may have tokens left for the first moment: then it is measured again. How close to the limit they come is in the log; a machine
// that is busy with other things comes to less, so that is judged nowhere (BenchmarkAccessLimit measures it).
func (d *day) limited(alice, bob float64) {
	d.t.Helper()
	const tries = 3
	held := [2]bool{}
	for range tries {
		var got [2]float64
		var errs [2]error
		address := d.address("bob")
		var both sync.WaitGroup
		both.Go(func() { got[0], errs[0] = goodput(d.alice.host, d.inside, "10.30.0.80") })
		both.Go(func() { got[1], errs[1] = goodput(d.server.host, d.bob.host, address) })
		both.Wait()
		d.t.Logf("of alice %.2f Mbit/s of %.0f, of bob %.2f of %.0f", got[0]/1e6, alice/1e6, got[1]/1e6, bob/1e6)
		for i, want := range []float64{alice, bob} {
			if errs[i] != nil {
				d.t.Fatal(errs[i])
			}
			held[i] = held[i] || got[i] > 0.1*want && got[i] < 1.1*want
		}
		if held[0] && held[1] {
			return
		}
	}
	d.t.Errorf("the limits do not hold in %d tries", tries)
}

func (j *membership) address(name string) string {
	j.t.Helper()
	for _, c := range j.clients().Clients {
		if c.Name == name {
			return c.Addresses[0].String()
		}
	}
	j.t.Fatalf("there is no client %s", name)
	return ""
}

// pulse sends datagrams from alice to the internet and back, one each 5 ms, until the test ends.
type pulse struct {
	sent atomic.Int64
	last atomic.Int64 // when the last one came to the internet, in Unix nanoseconds
}

func (d *day) pulse() *pulse {
	d.t.Helper()
	var s pulse
	var echo net.PacketConn
	var out net.Conn
	d.internet.Must(func() (err error) {
		echo, err = net.ListenPacket("udp", web4+":7")
		return err
	})
	d.alice.host.Must(func() (err error) {
		out, err = net.Dial("udp", web4+":7")
		return err
	})
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for b := make([]byte, 100); ; {
			n, from, err := echo.ReadFrom(b)
			if err != nil {
				return
			}
			s.last.Store(time.Now().UnixNano())
			_, _ = echo.WriteTo(b[:n], from)
		}
	})
	running.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
				if _, err := out.Write([]byte("there and back")); err == nil {
					s.sent.Add(1)
				}
			}
		}
	})
	d.t.Cleanup(func() { close(done); echo.Close(); out.Close(); running.Wait() })
	return &s
}

// A day of a server: a client abroad that sends all by it, both families, and is seen as the server; the office's names, that only a server
// inside knows; the network behind another client; limits; and a revocation, after which there is silence.
func TestServerDay(t *testing.T) {
	t.Parallel()
	d := newDay(t)
	d.configure("}\n")
	before := d.alice.surroundings()
	d.outside("before joining")
	d.server.must("up", d.server.file)
	for s, link := range map[*site]string{d.alice: d.invite("alice", "--group", "roaming"), d.bob: d.invite("bob")} {
		if out, code := s.join(link); code != 0 {
			t.Fatalf("%s: join: %d\n%s", s.host.Name, code, out)
		}
	}

	// All by the server, and as the server.
	d.alice.seenAs(web4, "192.0.2.1")
	d.alice.seenAs(web6, "2001:db8:2::1")
	// Only what is pushed.
	d.bob.seenAs("10.30.0.80", "10.30.0.1")
	d.bob.seenAs(web4, "198.18.0.2")

	// Names of the office, whole and short.
	for _, name := range []string{"www.corp.example", "www"} {
		lab.Eventually(t, patience, name+" is found", func() bool { return d.alice.lookUp(name) == "10.30.0.80" })
	}
	d.alice.seenAs("10.30.0.80", "10.30.0.1")

	// The network behind bob, both ways, with everybody's own addresses; it is bob's alone.
	alice := d.address("alice")
	d.alice.seenAs("192.168.7.2", alice)
	d.server.seenAs("192.168.7.2", "10.20.0.1")
	if err := d.branch.Ping(netip.MustParseAddr(alice)); err != nil {
		t.Errorf("from the branch: %v", err)
	}
	d.spoofs(d.alice, "vpn0", "192.168.7.9", "10.20.0.1")

	d.configure(", access: {limit: {to_peer: 30mbit}}}\n        alice: {access: {limit: {from_peer: 20mbit}}}\n")
	d.server.must("reload", "site")
	d.limited(20e6, 30e6)

	// Revoked while it sends: from then on nothing goes to it, whatever it sends, and nothing of it goes on.
	var endpoint netip.AddrPort
	for _, c := range d.clients().Clients {
		if c.Name == "alice" {
			endpoint = netip.MustParseAddrPort(c.Endpoint)
		}
	}
	if endpoint.Addr() != netip.MustParseAddr("198.51.100.2") {
		t.Fatalf("alice is at %v", endpoint)
	}
	wire := d.internet.Sniff(d.toServer)
	pulse := d.pulse()
	from := func(since time.Time) int { // the server, to alice: anything
		return wire.Count(t, func(p lab.Sniffed) bool { return !p.Sent && p.To.Addr() == endpoint.Addr() && p.At.After(since) })
	}
	to := func(since time.Time) int { // to the server's port, from alice
		return wire.Count(t, func(p lab.Sniffed) bool {
			return p.Sent && p.From.Addr() == endpoint.Addr() && p.To == netip.MustParseAddrPort("192.0.2.1:2000") && p.At.After(since)
		})
	}
	lab.Eventually(t, patience, "datagrams go both ways", func() bool { return from(time.Time{}) > 50 && to(time.Time{}) > 50 })
	// It goes on as one that does not hear what the server says to it, which is cut off behind the sniffer.
	d.internet.Shell("nft", "add table inet cut; add chain inet cut forward { type filter hook forward priority 0; }; "+
		"add rule inet cut forward ip saddr 192.0.2.1 ip daddr 198.51.100.2 drop")
	asked := time.Now()
	d.server.must("client", "revoke", "alice")
	revoked := time.Now()
	sent := pulse.sent.Load()
	lab.Eventually(t, patience, "alice sends on", func() bool { return pulse.sent.Load() > sent+200 && to(revoked) > 100 })
	stopped := time.Unix(0, pulse.last.Load())
	t.Logf("revoked in %v; the last datagram came %v after it was asked for", revoked.Sub(asked), stopped.Sub(asked))
	if stopped.After(revoked.Add(time.Second)) {
		t.Errorf("alice's traffic went on for %v", stopped.Sub(revoked))
	}
	// Its handshakes get no answer either.
	d.alice.must("down", "vpn0")
	d.internet.Shell("nft", "delete table inet cut")
	again := time.Now()
	d.alice.must("up", filepath.Join(d.alice.dir, "vpn0.yaml"))
	lab.Eventually(t, patience, "alice's handshakes", func() bool { return to(again) >= 2 })
	d.bob.reaches("10.20.0.1") // whose answer is later than one to alice would be
	if n := from(revoked); n > 0 {
		t.Errorf("%d packets have gone to alice since it was revoked", n)
	}
	d.alice.must("down", "vpn0")
	d.alice.same(before)
	if text, err := os.ReadFile(d.resolv); err != nil || string(text) != "nameserver "+web4+"\n" {
		t.Errorf("resolv.conf says %q, %v", text, err)
	}
	d.outside("after down")
}
