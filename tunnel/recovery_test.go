package tunnel

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/transport/transporttest"
)

// A node that was killed and starts again calls its peers: their traffic is back at once, not after the 15 s that it takes them to miss it.
func TestGreetingAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		a.send(b, "first")
		b.expect("first")
		b.host.SetAddrs() // killed: it says no goodbye
		b.Close()
		b.host.SetAddrs(b.addr)
		again := newNodeOn(t, b.host, b.addr, 2, func(o *Options) { o.Greet = true })
		again.key, again.public = b.key, b.public
		again.dev.SetUp(false)
		synctest.Wait()
		again.configure(Change{PrivateKey: &b.key})
		again.addPeerNode(a, true, onNativeWire)
		time.Sleep(time.Second)
		a.send(b, "lost")
		again.expect()
		again.dev.SetUp(true)
		time.Sleep(200 * time.Millisecond)
		a.send(b, "back")
		again.expect("back")
	})
}

// A peer whose endpoint becomes known later, as by its name, is called then; one on WireGuard's wire is not called at all.
func TestGreetingOnceTheEndpointIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		greets := func(o *Options) { o.Greet = true }
		addr := netip.AddrFrom4([4]byte{192, 0, 2, 1})
		a, b, c := newNodeOn(t, network.Host(addr), addr, 1, greets), newNode(t, network, 2), newNode(t, network, 3)
		l := watch(network, a)
		b.addPeerNode(a, false, onNativeWire)
		c.addPeerNode(a, false)
		a.addPeerNode(b, false, onNativeWire)
		a.addPeerNode(c, true)
		time.Sleep(time.Second)
		if all := l.all(); len(all) != 0 {
			t.Fatalf("it said %+v", all)
		}
		a.addPeerNode(b, true, onNativeWire)
		time.Sleep(time.Second)
		if n := len(l.times("a", noise.TypeHybridInitiation)); n != 1 || b.Status().Peers[0].LastHandshake.IsZero() {
			t.Errorf("%d initiations", n)
		}
	})
}

// An end that loses its address and gets another says so at once under its session, on either wire: the far end's traffic follows it
// without waiting for any of its own.
func TestAddressChangeIsAnnounced(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(wire.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newPairOn(t, wire, network)
				a.send(b, "first")
				b.expect("first")
				b.send(a, "answer")
				a.expect("answer")
				time.Sleep(time.Second)
				for _, to := range []string{"192.0.2.77", "192.0.2.78"} {
					b.host.SetAddrs()
					synctest.Wait()
					time.Sleep(3 * time.Second) // a lease takes a while
					b.host.SetAddrs(netip.MustParseAddr(to))
					time.Sleep(time.Second)
					a.send(b, to)
					b.expect(to)
					time.Sleep(time.Minute)
				}
			})
		})
	}
}
