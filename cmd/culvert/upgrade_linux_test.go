package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"culvert/internal/lab"
)

// upgraded has another process go on, and returns it.
func (s *site) upgraded(args ...string) (pid int) {
	s.t.Helper()
	before := s.pid()
	out := s.must(append([]string{"upgrade"}, args...)...)
	pid = s.pid()
	if pid == before || !strings.Contains(out, fmt.Sprintf("as process %d", pid)) {
		s.t.Fatalf("process %d goes on for %d, and it says %q", pid, before, out)
	}
	s.ended(before)
	return pid
}

// Real devices: both ends pass from process to process, and no packet is lost; all that there was around the tunnels stays, and goes at the end.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	before := a.surroundings()
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	up := a.surroundings()
	end := numberedStream(t, a.host, b.host, "10.20.0.1", "10.20.0.2")
	descriptors := 0
	for range 3 {
		pid := a.upgraded("site")
		b.upgraded(b.file)
		if n := a.descriptors(pid); descriptors == 0 {
			descriptors = n
		} else if n > descriptors {
			t.Errorf("%d descriptors, %d after the first upgrade", n, descriptors)
		}
	}
	if lost, sent := end(); lost != 0 || sent < 100 {
		t.Errorf("%d of twice %d packets were lost", lost, sent)
	}
	a.same(up)
	peer := a.tunnel().Peers[0]
	if peer.SentPackets < 100 || peer.ReceivedPackets < 100 {
		t.Errorf("the counters began anew: %+v", peer)
	}
	a.must("reload", "site")
	a.must("down", "site")
	a.same(before)
}

// counter counts the bytes written to it.
type counter struct{ n *atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// A TCP stream across upgrades goes on: what is sent arrives, all of it, in order.
func TestUpgradeKeepsTCPStreams(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	var l net.Listener
	b.host.Must(func() (err error) {
		l, err = net.Listen("tcp", "10.20.0.2:7000")
		return err
	})
	defer l.Close()
	c, err := a.dial("tcp", "10.20.0.2:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	sent, got := sha256.New(), sha256.New()
	received := make(chan int64, 1)
	var arrived atomic.Int64
	go func() {
		n, _ := io.Copy(io.MultiWriter(got, &counter{&arrived}), far)
		received <- n
	}()
	more := func() {
		t.Helper()
		seen := arrived.Load()
		lab.Eventually(t, patience, "more has arrived", func() bool { return arrived.Load() > seen+1<<20 })
	}
	done, total := make(chan struct{}), make(chan int64, 1)
	go func() {
		rng, n := rand.NewChaCha8([32]byte{}), int64(0)
		buf := make([]byte, 64<<10)
		for {
			select {
			case <-done:
				total <- n
				return
			default:
			}
			rng.Read(buf)
			sent.Write(buf)
			m, err := c.Write(buf)
			if n += int64(m); err != nil {
				t.Errorf("the stream has ended: %v", err)
				<-done
				total <- n
				return
			}
		}
	}()
	for range 2 {
		more()
		a.upgraded("site")
		b.upgraded("site")
	}
	more()
	close(done)
	n := <-total
	c.Close()
	if m := <-received; m != n || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes were sent, %d have arrived, or others", n, m)
	}
	t.Logf("%d bytes", n)
}

// Taps, default routes with their policy, a TCP port, a monitor, and a network around them: all of it is there across an upgrade, and goes at
// the end.
func TestUpgradeOfAllAround(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "nft")
	a, b := newSites(t)
	a.write(strings.Replace(bodyA(b, ""), "10.20.0.2/32", "0.0.0.0/0", 1) + `    queues: 2
    tcp: {listen: 443}
  tap0:
    mode: tap
    private_key_file: key
    listen: 1001
    addresses: [10.50.0.1/24]
    peers:
      b: {public_key: "` + b.pub + `", endpoints: ["192.0.2.2:2001"]}
links:
  br0: {type: bridge, addresses: [10.60.0.1/24]}
monitor: {metrics: "127.0.0.1:9586", page: "unix:/run/culvert/page.sock"}
`)
	b.write(`    listen: 2000
    addresses: [10.20.0.2/24, "fd20::2/64", 10.30.0.1/32]
    peers:
      a: {public_key: "` + a.pub + `", allowed_ips: [10.20.0.1/32, "fd20::1/128", 10.21.0.1/32]}
  tap0:
    mode: tap
    private_key_file: key
    listen: 2001
    addresses: [10.50.0.2/24]
    peers:
      a: {public_key: "` + a.pub + `"}
`)
	before := a.surroundings()
	a.must("up", a.file)
	b.must("up", b.file)
	all := func() {
		t.Helper()
		for _, to := range []string{"10.20.0.2", "10.50.0.2", "10.30.0.1"} {
			a.reaches(to)
		}
		if out := a.must("plan", a.file); strings.TrimSpace(out) != "nothing to do" {
			t.Errorf("there is to do:\n%s", out)
		}
		for _, url := range []string{"http://127.0.0.1:9586/healthz", "http://127.0.0.1:9586/metrics"} {
			a.host.Shell("curl", "-fsS", "--max-time", "10", url)
		}
		a.host.Shell("curl", "-fsS", "--max-time", "10", "--unix-socket", filepath.Join(a.run, "run/culvert/page.sock"), "http://x/")
		if _, err := a.dial("tcp", "127.0.0.1:443"); err != nil {
			t.Error(err)
		}
		a.host.Shell("wg", "show", "wg0")
	}
	all()
	up := a.surroundings()
	end := numberedStream(t, a.host, b.host, "10.50.0.1", "10.50.0.2")
	for range 2 {
		a.upgraded("site")
		all()
		a.same(up)
		b.upgraded("site")
	}
	if lost, sent := end(); lost != 0 || sent < 100 {
		t.Errorf("%d of twice %d frames were lost\n%s\n%s", lost, sent, a.must("status", "--json"), b.must("status", "--json"))
	}
	if out := a.must("reload", "--dry-run", "site"); !strings.Contains(out, "nothing to do") {
		t.Errorf("a reload would do:\n%s", out)
	}
	// What the new process has not made it changes all the same.
	a.write(bodyA(b, "") + "    queues: 2\n")
	a.must("reload", "site")
	a.reaches("10.20.0.2")
	a.upgraded("site")
	a.reaches("10.20.0.2")
	a.must("down", "site")
	a.same(before)
}

// A server's clients keep their addresses and sessions, and it takes new ones; a client has still what it was told.
func TestUpgradeOfServerAndClient(t *testing.T) {
	t.Parallel()
	j := newJoined(t)
	j.server.must("up", j.server.file)
	if out, code := j.alice.join(j.invite("alice", "--group", "staff")); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	j.alice.reaches("10.31.0.1")
	link := j.invite("bob")
	up := j.alice.surroundings()
	end := numberedStream(t, j.alice.host, j.server.host, "10.20.0.2", "10.20.0.1")
	j.server.upgraded("site")
	j.alice.upgraded("vpn0")
	j.server.upgraded("site")
	j.alice.upgraded("vpn0")
	if lost, sent := end(); lost != 0 || sent < 100 {
		t.Errorf("%d of twice %d packets were lost", lost, sent)
	}
	j.alice.same(up)
	j.alice.reaches("10.31.0.1")
	if l := j.clients(); len(l.Clients) != 1 || len(l.Invitations) != 1 {
		t.Errorf("clients: %+v", l)
	}
	if out, code := j.bob.join(link); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	j.bob.reaches("10.20.0.1")
	j.server.upgraded("site")
	// Who was there all the time has not come again.
	if n := strings.Count(read(t, filepath.Join(j.server.state(), ".server/site.audit.jsonl")), `"event":"connected","tunnel":"wg0","client":"alice"`); n != 1 {
		t.Errorf("alice has connected %d times", n)
	}
	j.server.must("client", "revoke", "alice")
	j.bob.reaches("10.20.0.1")
}
