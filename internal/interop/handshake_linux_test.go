package interop

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"culvert/internal/lab"
)

// A tunnel of either family carries both, in either direction, in packets small and large.
func TestTunnelCarriesBothFamilies(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		forFamilies(t, func(t *testing.T, outer family) {
			a, b, wire := newTunnel(t, p, outer)
			if a.of(b).handshake != 0 || b.of(a).handshake != 0 {
				t.Error("a handshake before there was anything to send")
			}
			a.reaches(innerB.v4)
			a.reaches(innerB.v6)
			b.reaches(innerA.v4)
			b.reaches(innerA.v6)
			// The largest packet of the tunnel's MTU of 1420 bytes, and one the kernel fragments inside the tunnel.
			for _, size := range []int{1420 - 28, 5000} {
				a.pingsSize(innerB.v4, size)
				b.pingsSize(innerA.v4, size)
			}
			for _, size := range []int{1420 - 48, 5000} {
				a.pingsSize(innerB.v6, size)
				b.pingsSize(innerA.v6, size)
			}
			size := 4 << 20
			if inGuest() {
				size = 256 << 10 // an emulated processor ciphers slowly
			}
			transfer(t, a.host, b.host, innerB.v4, size)
			transfer(t, a.host, b.host, innerB.v6, size)

			for _, end := range []struct{ self, other *side }{{a, b}, {b, a}} {
				state := end.self.of(end.other)
				if state.handshake == 0 {
					t.Errorf("%s knows of no handshake", end.self.host.Name)
				}
				if least := int64(2 * size); state.received < least || state.sent < least {
					t.Errorf("%s counts %d bytes received and %d sent, less than the transfers' %d", end.self.host.Name,
						state.received, state.sent, least)
				}
			}
			if got, want := b.of(a).endpoint, netip.AddrPortFrom(outer.of(wire.A), portA); got != want {
				t.Errorf("the responder has the endpoint %v, want %v", got, want)
			}
		})
	})
}

func TestPresharedKey(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		a, b, _ := newTunnel(t, p, ipv4)
		right, wrong := newPresharedKey(), newPresharedKey()
		b.peers[0].presharedKey = right
		b.apply()
		for _, test := range []struct{ name, key string }{{"another", wrong}, {"none", ""}} {
			a.peers[0].presharedKey = test.key
			a.apply()
			sent, answered := a.of(b).sent, b.of(a).sent
			if err := a.host.Ping(innerB.v4); err == nil {
				t.Errorf("%s preshared key: the ping went through", test.name)
			}
			// Both messages of the handshake were sent, and it came to nothing.
			lab.Eventually(t, patience, "an initiation and a response", func() bool {
				return a.of(b).sent > sent && b.of(a).sent > answered
			})
			if at := a.of(b).handshake; at != 0 {
				t.Errorf("%s preshared key: the initiator has completed a handshake at %d", test.name, at)
			}
		}
		a.peers[0].presharedKey = right
		a.apply()
		a.reaches(innerB.v4)
		b.reaches(innerA.v4)
		if got := a.of(b).presharedKey; got != right {
			t.Error("wg shows another preshared key than the one set")
		}
	})
}

// Either side may vanish without a word and come back as if new; the other end notices and the tunnel works again.
func TestRestartedSide(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		t.Run("initiator", func(t *testing.T) {
			t.Parallel()
			a, b, _ := newTunnel(t, p, ipv4)
			a.reaches(innerB.v4)
			a.kill()
			a.start()
			innerA.addTo(a)
			a.reaches(innerB.v4)
			b.reaches(innerA.v4)
		})
		t.Run("responder", func(t *testing.T) {
			t.Parallel()
			a, b, _ := newTunnel(t, p, ipv4)
			a.reaches(innerB.v4)
			b.kill()
			b.start()
			innerB.addTo(b)
			// The responder has no endpoint and the initiator no reason to doubt its session: what it sends is lost until it
			// misses the answers.
			a.reaches(innerB.v4)
			b.reaches(innerA.v4)
		})
	})
}

// A new private key takes effect at once: sessions of the old one end, and one's peers see the new key only.
func TestNewPrivateKey(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		a, b, _ := newTunnel(t, p, ipv6)
		a.reaches(innerB.v6)
		a.privateKey, a.publicKey = newKey(t)
		a.apply()
		if err := a.host.Ping(innerB.v6); err == nil {
			t.Error("a ping went through between a new key and a peer that knows the old one")
		}
		b.peers[0].publicKey = a.publicKey
		b.apply()
		a.reaches(innerB.v6)
		b.reaches(innerA.v6)
	})
}

// Removing a peer ends its session; adding it again begins a new one.
func TestRemovedPeer(t *testing.T) {
	forPairs(t, func(t *testing.T, p pair) {
		a, b, _ := newTunnel(t, p, ipv4)
		a.reaches(innerB.v4)
		removed := b.peers
		b.peers = nil
		b.apply()
		if err := a.host.Ping(innerB.v4); err == nil {
			t.Error("a ping went through to an end that has no peer")
		}
		b.peers = removed
		b.apply()
		a.reaches(innerB.v4)
		b.reaches(innerA.v4)
	})
}

// Sessions are replaced as they age: a tunnel in use for longer than 120 s completes a second handshake and loses nothing.
func TestRekeyByTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 125 s")
	}
	forPairs(t, func(t *testing.T, p pair) {
		a, b, _ := newTunnel(t, p, ipv4)
		a.reaches(innerB.v4)
		first := a.of(b).handshake
		second := first
		// Once a second, so that there is something to send; 180 s is when the old session could no longer be used.
		for last := time.Now(); ; {
			time.Sleep(time.Second)
			a.pings(innerB.v4)
			b.pings(innerA.v4)
			now := time.Now()
			stoodStill := now.Sub(last) > 10*time.Second // a machine that does makes the ends miss answers, and begin anew
			last = now
			if second = a.of(b).handshake; stoodStill || second-first < 10 && p.initiator.hurried {
				first = second
			}
			if second != first || now.Unix() > first+180 {
				break
			}
		}
		if age := second - first; age < 119 {
			t.Errorf("the handshakes of the initiator lie %d s apart, want 120 s", age)
		}
		a.pings(innerB.v4)
		b.pings(innerA.v4)
		if at := b.of(a).handshake; at < second-2 || at > second+2 {
			t.Errorf("the responder's last handshake was at %d, the initiator's at %d", at, second)
		}
	})
}

// kill ends the device without a farewell.
func (s *side) kill() {
	s.t.Helper()
	if s.implementation.command == nil {
		s.host.DeleteLink(s.device)
		return
	}
	s.daemon.stop(s.t, os.Kill)
}
