package main

import (
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// A client of a server's Ethernet that has to sign in: before it has, no frame passes to or from it, though it gives itself the address that it
// will have, not even ARP or what is no IP at all; afterwards it is one station among others, and revoked it is none any more.
func TestSignInOnATap(t *testing.T) {
	t.Parallel()
	j := newJoined(t)
	j.server.write(`    listen: 2000
    mode: tap
    addresses: [10.20.0.1/24]
    server:
      endpoints: ["192.0.2.1:2000"]
      groups:
        field: {sign_in: {totp: true, lasts: 1h}}
`)
	j.server.must("up", j.server.file)
	if out, code := j.bob.join(j.invite("bob")); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	j.bob.eventually("addresses", "10.20.0.2/24", "ip", "-br", "address", "show", "vpn0")
	link := j.invite("alice", "--group", "field")
	app := newAuthenticator(t, j.server.must("client", "totp", "alice"))
	if out, code := j.alice.join(link); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	lab.Eventually(t, patience, "the sign-in is asked for", func() bool {
		return strings.Contains(j.alice.must("status"), "waits for sign-in (culvert signin vpn0)")
	})
	if out := j.alice.host.Shell("ip", "-br", "address", "show", "vpn0"); strings.Contains(out, "10.20.0.3") {
		t.Errorf("addresses before the sign-in: %s", out)
	}

	// It helps itself. What bob and the server see of it is nothing: they learn no neighbour, and it learns none.
	j.alice.host.Shell("ip", "address", "add", "10.20.0.3/24", "dev", "vpn0")
	neighbours := func(s *site, device, address string) bool {
		return strings.Contains(s.host.Shell("ip", "neigh", "show", address, "dev", device), "lladdr")
	}
	if pings(t, j.alice, "10.20.0.1") || pings(t, j.alice, "10.20.0.2") || pings(t, j.bob, "10.20.0.3") || pings(t, j.server, "10.20.0.3") {
		t.Error("something passes before the sign-in")
	}
	if neighbours(j.alice, "vpn0", "10.20.0.1") || neighbours(j.alice, "vpn0", "10.20.0.2") || neighbours(j.bob, "vpn0", "10.20.0.3") || neighbours(j.server, "wg0", "10.20.0.3") {
		t.Error("ARP passes before the sign-in")
	}
	for _, p := range j.server.tunnel().Peers {
		if a := p.Access; p.Name == "alice" && (a == nil || !a.Held || a.FromPeer.ShutOut == 0 || a.ToPeer.ShutOut == 0) {
			t.Errorf("nothing of what was sent was dropped: the test tests nothing: %+v", a)
		}
	}
	j.bob.reaches("10.20.0.1") // the Ethernet itself is up
	j.alice.host.Shell("ip", "address", "del", "10.20.0.3/24", "dev", "vpn0")

	if out, code := j.alice.signin("000000"); code != 1 || !strings.Contains(out, "the code is wrong, or was used before") {
		t.Errorf("a wrong code: %d, %s", code, out)
	}
	if out, code := j.alice.signin(app.code(0)); code != 0 || !strings.Contains(out, "signed in until") {
		t.Fatalf("a right code: %d, %s", code, out)
	}
	j.alice.eventually("addresses", "10.20.0.3/24", "ip", "-br", "address", "show", "vpn0")
	j.alice.reaches("10.20.0.1")
	j.alice.reaches("10.20.0.2")
	if !neighbours(j.alice, "vpn0", "10.20.0.2") {
		t.Error("it reaches bob, and not by ARP: the test tests nothing")
	}

	j.server.must("client", "revoke", "alice")
	lab.Eventually(t, 10*time.Second, "nothing passes any more", func() bool { return !pings(t, j.alice, "10.20.0.2") })
	if pings(t, j.bob, "10.20.0.3") {
		t.Error("it is reached though it was revoked")
	}
}
