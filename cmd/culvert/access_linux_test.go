package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// listenTCP answers whatever comes to a port of the site's host with the same.
func (s *site) listenTCP(address string) {
	s.t.Helper()
	var l net.Listener
	s.host.Must(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

func (s *site) listenUDP(address string) {
	s.t.Helper()
	var l net.PacketConn
	s.host.Must(func() (err error) {
		l, err = net.ListenPacket("udp", address)
		return err
	})
	s.t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			l.WriteTo(b[:n], from)
		}
	}()
}

// dial connects from the site's host. What is dropped in silence takes the whole timeout.
func (s *site) dial(network, address string) (c net.Conn, err error) {
	err = s.host.Do(func() error {
		c, err = net.DialTimeout(network, address, 3*time.Second)
		return err
	})
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// echoes sends size bytes through a connection and expects them back. Datagrams are sent until an answer comes.
func echoes(c net.Conn, size int, timeout time.Duration) error {
	out, in := bytes.Repeat([]byte("culvert "), size/8), make([]byte, size/8*8)
	c.SetDeadline(time.Now().Add(timeout))
	if _, datagrams := c.(*net.UDPConn); datagrams {
		for end := time.Now().Add(timeout); time.Now().Before(end); {
			if _, err := c.Write(out); err != nil {
				return err
			}
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			n, err := c.Read(in)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			if err == nil && !bytes.Equal(in[:n], out) {
				err = errors.New("something else came back")
			}
			return err
		}
		return os.ErrDeadlineExceeded
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(out)
		sent <- err
	}()
	_, err := io.ReadFull(c, in)
	if err == nil && !bytes.Equal(in, out) {
		err = errors.New("something else came back")
	}
	return errors.Join(err, <-sent)
}

// withState has the site's commands keep their state in a folder of the test.
func (s *site) withState(args ...string) string {
	s.t.Helper()
	cmd := s.command(args...)
	cmd.Env = append(cmd.Environ(), stateDirEnv+"="+filepath.Join(s.dir, "state"))
	out, code := s.finish(cmd)
	if code != 0 {
		s.t.Fatalf("culvert %v ended with %d:\n%s", args, code, out)
	}
	return out
}

// accessA is a's file, with what b may do.
func accessA(b *site, access string) string {
	body := bodyA(b, "")
	return strings.Replace(body, `"fd20::2/128"], `, `"fd20::2/128"], access: {`+access+`}, `, 1)
}

func TestAccessOverRealTraffic(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	const rules = `default: deny, rules: [
          {allow: {to: [10.20.0.1, "fd20::1"], protocol: tcp, ports: 8080}}, {allow: {to: 10.20.0.1, protocol: udp, ports: 5353-5354}},
          {allow: {to: [10.20.0.1, "fd20::1"], protocol: icmp}}]`
	a.write(accessA(b, rules))
	b.write(`    listen: 2000
    addresses: [10.20.0.2/24, "fd20::2/64"]
    peers:
      a: {public_key: "` + a.pub + `", allowed_ips: [10.20.0.1/32, "fd20::1/128"], endpoints: ["192.0.2.1:1000"]}
`)
	a.withState("up", a.file)
	b.must("up", b.file)
	for _, address := range []string{"10.20.0.1:8080", "[fd20::1]:8080", "10.20.0.1:8081"} {
		a.listenTCP(address)
	}
	a.listenUDP("10.20.0.1:5353")
	a.listenUDP("10.20.0.1:5355")
	b.listenTCP("10.20.0.2:9090")

	b.reaches("10.20.0.1")
	b.reaches("fd20::1")
	for _, to := range []string{"10.20.0.2", "fd20::2"} {
		if err := a.host.Ping(netip.MustParseAddr(to)); err == nil {
			t.Errorf("a reaches %s, which no rule allows", to)
		}
	}
	conn, err := b.dial("tcp", "10.20.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	if err := echoes(conn, 1<<20, patience); err != nil {
		t.Error(err)
	}
	six, err := b.dial("tcp", "[fd20::1]:8080")
	if err != nil {
		t.Fatal(err)
	}
	if err := echoes(six, 1<<20, patience); err != nil {
		t.Error(err)
	}
	if _, err := b.dial("tcp", "10.20.0.1:8081"); !timedOut(err) {
		t.Errorf("b connects to a port that is denied: %v", err)
	}
	if _, err := a.dial("tcp", "10.20.0.2:9090"); !errors.Is(err, syscall.EHOSTUNREACH) { // it is told: ICMP type 3 code 13
		t.Errorf("a connects to b: %v", err)
	}
	udp := func(address string) net.Conn {
		c, err := b.dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if err := echoes(udp("10.20.0.1:5353"), 100, patience); err != nil {
		t.Error(err)
	}
	if err := echoes(udp("10.20.0.1:5353"), 4000, patience); err != nil { // in IP fragments
		t.Errorf("large datagrams: %v", err)
	}
	if err := echoes(udp("10.20.0.1:5354"), 100, patience); !errors.Is(err, syscall.ECONNREFUSED) { // by ICMP that quotes it
		t.Errorf("a port that is allowed and closed: %v", err)
	}
	if err := echoes(udp("10.20.0.1:5355"), 100, 2*time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a port that is denied: %v", err)
	}
	access := a.tunnel().Peers[0].Access
	if access == nil || access.Default != "deny" || access.Rules != 3 || access.Flows == 0 || access.FromPeer.Denied == 0 || access.ToPeer.Denied == 0 {
		t.Errorf("status: %+v", access)
	}
	if out := a.must("status"); !strings.Contains(out, "access: default deny, 3 rules, ") || !strings.Contains(out, "refused from it: denied by rule ") {
		t.Errorf("status:\n%s", out)
	}

	// Other rules: the connection stays as long as they allow it, and so does the session.
	handshakes := a.tunnel().Handshakes.Completed
	a.write(accessA(b, strings.Replace(rules, "8080", "[8080, 8081]", 1)))
	if out := a.withState("reload", "site"); !strings.Contains(out, "wg0: peer b: what it may do has changed") {
		t.Errorf("reload said %q", out)
	}
	if out := a.withState("reload", "site"); strings.Contains(out, "peer b") {
		t.Errorf("reload of the same file said %q", out)
	}
	if err := echoes(conn, 1<<16, patience); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	if _, err := b.dial("tcp", "10.20.0.1:8081"); err != nil {
		t.Errorf("a port that is allowed now: %v", err)
	}
	a.write(accessA(b, strings.Replace(rules, "8080", "8081", 1)))
	a.withState("reload", "site")
	if err := echoes(conn, 64, 2*time.Second); err == nil {
		t.Error("a connection that is allowed no more goes on")
	}

	// A quota, kept over a restart.
	if got := a.tunnel().Handshakes.Completed; got != handshakes {
		t.Errorf("%d handshakes, before the reloads %d", got, handshakes)
	}
	quota := func(n int) { a.write(accessA(b, fmt.Sprintf("quota: {bytes: %d, every: month}", n))) }
	quota(1 << 40)
	a.withState("reload", "site")
	if conn, err = b.dial("tcp", "10.20.0.1:8080"); err != nil {
		t.Fatal(err)
	}
	if err := echoes(conn, 1<<20, patience); err != nil {
		t.Error(err)
	}
	conn.Close()
	a.withState("down", "site")
	file := filepath.Join(a.dir, "state/.usage/site.json")
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	a.withState("up", a.file)
	if q := a.tunnel().Peers[0].Access.Quota; q == nil || q.Used < 2<<20 || q.Used > 8<<20 || q.Since.IsZero() {
		t.Errorf("after a restart: %+v", q)
	}
	quota(1 << 20)
	a.withState("reload", "site")
	if err := b.host.Ping(netip.MustParseAddr("10.20.0.1")); err == nil {
		t.Error("a ping beyond the quota")
	}
	quota(1 << 40)
	a.withState("reload", "site")
	b.reaches("10.20.0.1")
	// Its time is over, and then not.
	a.write(accessA(b, "expires: 2020-01-01T00:00:00Z"))
	a.withState("reload", "site")
	if err := b.host.Ping(netip.MustParseAddr("10.20.0.1")); err == nil {
		t.Error("a ping after its time")
	}
	if access := a.tunnel().Peers[0].Access; access.Closed != "expired" {
		t.Errorf("status: %+v", access)
	}
	a.write(bodyA(b, ""))
	a.withState("reload", "site")
	b.reaches("10.20.0.1")
	a.withState("down", "site")
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without quotas something is kept: %v", err)
	}
}

// BenchmarkAccessLimit measures what one TCP connection makes of a limit, over two daemons on a wire: the share of the rate that
// arrives, headers not counted (a packet of 1416 bytes has 1364 of payload: 96.3 % is all of it), in the last four seconds of six. Run it
// with -benchtime 1x.
func BenchmarkAccessLimit(b *testing.B) {
	for _, congestion := range []string{"cubic", "bbr"} {
		for _, mbit := range []int{5, 50, 500} {
			for _, direction := range []string{"from_peer", "to_peer"} {
				b.Run(fmt.Sprintf("%s %d Mbit %s", congestion, mbit, direction), func(b *testing.B) {
					measureLimit(b, congestion, mbit, direction)
				})
			}
		}
	}
}
