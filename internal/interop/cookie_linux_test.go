package interop

import (
	"crypto/rand"
	"encoding/base64"
	"net/netip"
	"sync"
	"testing"

	"culvert/internal/lab"

	"golang.org/x/crypto/blake2s"
)

// Under a flood of handshakes that look right, the responder asks for a cookie, and the initiator gets through with it. The flood takes
// all the processor there is, so this test runs alone.
func TestCookieUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute of the whole processor")
	}
	for _, p := range pairs(t) {
		if inGuest() && p.responder.name == culvert.name {
			continue // an emulated processor makes no flood that culvert takes for load; namespaces have this
		}
		t.Run(p.initiator.name+"-to-"+p.responder.name, func(t *testing.T) {
			for _, outer := range []family{ipv4, ipv6} {
				if outer == ipv6 && (p.initiator.name != culvert.name || p.responder.name != culvert.name) {
					continue // how an implementation binds cookies to addresses is its own affair
				}
				t.Run(outer.String(), func(t *testing.T) { getsThroughFlood(t, p, outer) })
			}
		})
	}
}

func getsThroughFlood(t *testing.T, p pair, outer family) {
	t.Helper()
	hostA, hostB, stranger := lab.NewHost(t, "a"), lab.NewHost(t, "b"), lab.NewHost(t, "stranger")
	wire, attack := lab.Link(t, hostA, hostB), lab.Link(t, stranger, hostB)
	a, b := newSide(t, p.initiator, hostA, portA), newSide(t, p.responder, hostB, portB)
	stop := flood(t, stranger, netip.AddrPortFrom(outer.of(attack.B), portB), b.publicKey)
	join(a, b, netip.AddrPortFrom(outer.of(wire.B), portB))
	a.reaches(innerB.v4)
	stop()
	b.reaches(innerA.v6)
	if a.implementation.name == culvert.name && a.culvertStatus(t).Handshakes.CookiesReceived == 0 {
		t.Error("the initiator was asked for no cookie: the test proves nothing")
	}
	if b.implementation.name == culvert.name && b.culvertStatus(t).Handshakes.CookiesSent == 0 {
		t.Error("the responder asked for no cookie: the test proves nothing")
	}
}

// flood sends initiations with a right mac1 and nothing else right, as fast as it can, until stop is called.
func flood(t *testing.T, from *lab.Host, to netip.AddrPort, publicKey string) (stop func()) {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	// WireGuard's paper, section 5.4.4: mac1 = Mac(Hash(Label-Mac1 || public key), message up to it).
	macKey := blake2s.Sum256(append([]byte("mac1----"), key...))
	var messages [64][148]byte
	for i := range messages {
		message := messages[i][:]
		rand.Read(message[4:116])
		message[0] = 1
		mac, err := blake2s.New128(macKey[:])
		if err != nil {
			t.Fatal(err)
		}
		mac.Write(message[:116])
		mac.Sum(message[116:116])
	}
	conn := listenUDP(t, from, netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
	if to.Addr().Is4() {
		conn = listenUDP(t, from, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	}
	done := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				// A full queue is what this is about.
				_, _ = conn.WriteToUDPAddrPort(messages[i%len(messages)][:], to)
			}
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { close(done); sender.Wait() }) }
	t.Cleanup(stop)
	return stop
}
