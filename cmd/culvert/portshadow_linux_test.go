package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"culvert/internal/lab"
)

// shadowPort is the server's, and that which the attacker sends from.
const shadowPort = 20000

// shadow has alice try to be in the place of the server's port for bob: it sends from that port, by the server's address translation, to where
// bob's datagrams come from. What bob sends to the port then could be taken for the answer. It returns how many of bob's datagrams alice has got.
func (j *membership) shadow() (got int64) {
	j.t.Helper()
	var bob netip.AddrPort
	for _, c := range j.clients().Clients {
		if c.Name == "bob" {
			bob = netip.MustParseAddrPort(c.Endpoint)
		}
	}
	var count atomic.Int64
	var c *net.UDPConn
	j.alice.host.Must(func() (err error) {
		if c, err = net.DialUDP("udp", &net.UDPAddr{Port: shadowPort}, net.UDPAddrFromAddrPort(bob)); err != nil {
			return err
		}
		go func() {
			for b := make([]byte, 2000); ; {
				if _, err := c.Read(b); errors.Is(err, net.ErrClosed) {
					return
				} else if err == nil {
					count.Add(1)
				}
			}
		}()
		return nil
	})
	defer c.Close()
	j.server.host.ForgetFlows()
	lab.Eventually(j.t, patience, "what alice sends passes", func() bool {
		for range 20 {
			if _, err := c.Write([]byte("for the port's sake")); err != nil {
				j.t.Log(err)
			}
		}
		return slices.ContainsFunc(j.server.host.Flows(), func(f lab.Flow) bool { return f.To == bob && f.From.Port() == shadowPort })
	})
	// What bob sends goes to the server's port, or to alice. The server must not speak first: its own datagrams would be given another port
	// then, which bob would follow.
	_ = j.bob.host.Ping(netip.MustParseAddr("10.20.0.1"))
	return count.Load()
}

// trackedPort are the connections that the kernel knows of the server's own port.
func (j *membership) trackedPort() (list []lab.Flow) {
	for _, f := range j.server.host.Flows() {
		for _, at := range []netip.AddrPort{f.From, f.To, f.BackFrom, f.BackTo} {
			if at == netip.MustParseAddrPort("192.0.2.1:20000") || at == netip.MustParseAddrPort("198.51.100.1:20000") {
				list = append(list, f)
				break
			}
		}
	}
	return list
}

// A client that is forwarded with the server's address cannot take the place of the server's port for another client. Without the two things
// that nat does against it, ports picked at random and the server's own kept out of connection tracking, it can: it gets what the other sends to
// the server.
func TestPortShadowing(t *testing.T) {
	t.Parallel()
	lab.NeedNAT(t)
	nft := lab.NeedProgram(t, "nft")
	j := newJoined(t)
	j.server.write(`    listen: 20000
    addresses: [10.20.0.1/24]
    server:
      endpoints: ["192.0.2.1:20000"]
      nat: true
      clients: {alice: {routes: [198.51.100.0/24]}}
`)
	j.server.must("up", j.server.file)
	for _, c := range []struct {
		of   *site
		name string
	}{{j.alice, "alice"}, {j.bob, "bob"}} {
		link, _, _ := strings.Cut(j.server.must("invite", c.name), "\n")
		if out, code := c.of.join(link, "--no-up"); code != 0 {
			t.Fatalf("%s: join: %d\n%s", c.name, code, out)
		}
		file := filepath.Join(c.of.dir, "vpn0.yaml")
		if c.of == j.bob { // at the address that what alice sends to it leaves with
			text := strings.Replace(read(t, file), "192.0.2.1:20000", "198.51.100.1:20000", 1)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c.of.must("up", file)
		c.of.reaches("10.20.0.1")
	}
	j.alice.eventually("the route", "198.51.100.0/24 dev vpn0", "ip", "route")
	for range 2 {
		if n := j.shadow(); n > 0 {
			t.Errorf("alice has got %d datagrams that bob sent to the server", n)
		}
	}
	j.bob.reaches("10.20.0.1")
	if flows := j.trackedPort(); len(flows) > 0 {
		t.Errorf("the server's own port is tracked: %+v", flows)
	}

	// The attack works where nothing is done against it.
	j.server.host.Shell(nft, "flush ruleset; add table ip plain; "+
		"add chain ip plain out { type nat hook postrouting priority srcnat; }; add rule ip plain out ip saddr 10.20.0.0/24 oifname != wg0 masquerade")
	lab.Eventually(t, patience, "without protection alice gets what bob sends to the server", func() bool { return j.shadow() > 0 })
}
