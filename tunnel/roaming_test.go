package tunnel

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/transport"
	"culvert/transport/transporttest"
)

// expectEndpoint fails unless the node sends to its peer at want.
func (a *actor) expectEndpoint(want netip.AddrPort) {
	a.t.Helper()
	synctest.Wait()
	ep := a.peer().endpoint.Load()
	if ep == nil || ep.Remote != want {
		a.t.Fatalf("endpoint %v, want %v", ep, want)
	}
}

var elsewhere = netip.MustParseAddrPort("203.0.113.5:555")

func TestAuthenticatedMessagesMoveTheEndpoint(t *testing.T) {
	places := []netip.AddrPort{
		netip.MustParseAddrPort("203.0.113.1:1"),
		netip.MustParseAddrPort("203.0.113.1:2"), // another port is enough
		netip.MustParseAddrPort("203.0.113.2:2"),
	}
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := actorScene(t)
		a.join(a.at)
		a.expectEndpoint(a.addr)
		// A response.
		a.sendTo("waits")
		initiation := a.one(noise.TypeInitiation)
		a.move(places[0])
		a.inject(a.response(initiation))
		if got := fmt.Sprint(a.payloads()); got != "[waits]" {
			t.Fatalf("%q came to the new place", got)
		}
		a.expectEndpoint(places[0])
		// Data, and keepalives as well.
		a.move(places[1])
		a.say("from elsewhere")
		a.node.expect("from elsewhere")
		a.expectEndpoint(places[1])
		a.move(places[0])
		a.inject(a.seal(nil))
		a.expectEndpoint(places[0])
		// An initiation.
		a.move(places[2])
		a.handshake()
		a.expectEndpoint(places[2])
	})
}

func TestNothingElseMovesTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := actorScene(t)
		forger := newActor(n, network, 2)
		initiation, pending := a.initiation(time.Now())
		a.inject(initiation)
		a.consume(pending, a.one(noise.TypeResponse))
		data := a.seal(a.packet("once"))
		a.inject(data)
		n.expect("once")
		// The node has a handshake of its own under way.
		time.Sleep(5 * time.Second)
		p := a.peer()
		p.wantHandshake.Store(true)
		n.attention.add(p)
		second := a.one(noise.TypeInitiation)
		session := a.session
		a.psk[0] = 1
		badResponse := a.response(second)
		a.psk[0] = 0
		a.session = session

		inject := func(what string, msg []byte) {
			network.Inject(elsewhere, n.addrPort(), msg)
			synctest.Wait()
			if ep := p.endpoint.Load(); ep.Remote != a.addr {
				t.Fatalf("%s moved the endpoint to %v", what, ep)
			}
		}
		inject("replayed data", data)
		inject("false data", flipped(a.seal(nil), 20*8))
		inject("a replayed initiation", initiation)
		inject("a false initiation", a.restamp(flipped(initiation, 100*8)))
		hurried, _ := a.initiation(time.Now())
		a.inject(hurried)
		a.one(noise.TypeResponse)
		hurried, _ = a.initiation(time.Now().Add(time.Second))
		inject("a hurried initiation", hurried)
		inject("a response under another preshared key", badResponse)
		stranger, _ := forger.initiation(time.Now())
		inject("a stranger's initiation", stranger)
		inject("junk", []byte("junk"))
		reply, err := a.checker.Reply(nil, second, n.addrPort(), a.now())
		if err != nil {
			t.Fatal(err)
		}
		inject("a cookie reply", reply)
	})
}

// What is refused after it was authenticated has moved the endpoint all the same: it was the peer who sent it.
func TestPacketFromAWrongSourceStillMovesTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.handshake()
		a.move(elsewhere)
		a.inject(a.seal(udpPacket(netip.MustParseAddr("10.66.66.66"), n.inner, []byte("spoofed"))))
		n.expect()
		a.expectEndpoint(elsewhere)
	})
}

func TestTrafficFollowsARoamingPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		a.send(b, "first")
		b.expect("first")
		handshakes := b.Status().Handshakes.Completed
		for i := range byte(5) {
			a.host.SetAddrs(netip.AddrFrom4([4]byte{198, 51, 100, 10 + i}))
			a.send(b, fmt.Sprint("from place ", i))
			b.expect(fmt.Sprint("from place ", i))
			b.send(a, fmt.Sprint("to place ", i))
			a.expect(fmt.Sprint("to place ", i))
		}
		if got := b.Status().Handshakes.Completed; got != handshakes {
			t.Errorf("%d handshakes for roaming", got-handshakes)
		}
	})
}

func TestBothEndsRoam(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		a.send(b, "first")
		b.expect("first")
		// One after the other, with word of it in between: nobody can find the other when both move at once.
		for i := range byte(4) {
			a.host.SetAddrs(netip.AddrFrom4([4]byte{198, 51, 100, 10 + i}))
			a.send(b, "a has moved")
			b.expect("a has moved")
			b.host.SetAddrs(netip.AddrFrom4([4]byte{198, 51, 100, 110 + i}))
			b.send(a, "b has moved")
			a.expect("b has moved")
		}
	})
}

func TestNATRebinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		nat := network.NAT(30*time.Second, netip.MustParseAddr("203.0.113.1"))
		inside := netip.MustParseAddr("192.168.1.2")
		a := newNodeOn(t, nat.Host(inside), inside, 1)
		b := newNode(t, network, 2)
		a.addPeerNode(b, true)
		b.addPeerNode(a, false)
		synctest.Wait()
		a.send(b, "through the NAT")
		b.expect("through the NAT")
		port := b.tunnelPeer(a).endpoint.Load().Remote
		if port.Addr() != netip.MustParseAddr("203.0.113.1") {
			t.Fatalf("endpoint %v", port)
		}
		nat.Rebind()
		b.send(a, "lost")
		a.expect()
		a.send(b, "from a new port")
		b.expect("from a new port")
		if moved := b.tunnelPeer(a).endpoint.Load().Remote; moved == port {
			t.Error("the endpoint is still the old port")
		}
		b.send(a, "found")
		a.expect("found")
		// Without a keepalive the mapping dies; with one it lives and the server can always reach the client.
		time.Sleep(time.Minute)
		b.send(a, "lost again")
		a.expect()
		every := 20 * time.Second
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Keepalive: &every}}})
		for range 10 {
			time.Sleep(55 * time.Second)
			a.received() // what was sent while there was no way in may come late
			b.send(a, "kept open")
			a.expect("kept open")
		}
	})
}

func TestEndpointSwitchesFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		v4 := netip.AddrPortFrom(b.addr, testPort)
		v6 := netip.MustParseAddrPort("[2001:db8::2]:51820")
		for i, to := range []netip.AddrPort{v4, v6, v4, v6, v6, v4} {
			a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Endpoint: &transport.Endpoint{Remote: to}}}})
			ping, pong := fmt.Sprint("ping ", i), fmt.Sprint("pong ", i)
			a.send(b, ping)
			b.expect(ping)
			b.send(a, pong)
			a.expect(pong)
			ep := b.tunnelPeer(a).endpoint.Load()
			if ep.Remote.Addr().Is4() != to.Addr().Is4() || ep.Source != to.Addr() {
				t.Fatalf("b answers to %v from %v, was asked at %v", ep, ep.Source, to)
			}
		}
		if a.Status().Handshakes.Completed != 1 {
			t.Errorf("%d handshakes", a.Status().Handshakes.Completed)
		}
	})
}

func TestAnswersLeaveFromTheAddressAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		second, second6 := netip.MustParseAddr("192.0.2.22"), netip.MustParseAddr("2001:db8::22")
		first6 := netip.MustParseAddr("2001:db8::2")
		b.host.SetAddrs(b.addr, first6, second, second6)
		last := make(chan netip.AddrPort, 1000)
		network.Tap(func(p *transporttest.Packet) {
			if p.From.Addr() != a.addr && p.From.Addr() != netip.MustParseAddr("2001:db8::1") {
				last <- p.From
			}
		})
		for i, to := range []netip.Addr{second, second6, b.addr, first6, second} {
			ap := netip.AddrPortFrom(to, testPort)
			a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Endpoint: &transport.Endpoint{Remote: ap}}}})
			a.send(b, fmt.Sprint("ping ", i))
			b.expect(fmt.Sprint("ping ", i))
			b.send(a, fmt.Sprint("pong ", i))
			a.expect(fmt.Sprint("pong ", i))
			for len(last) > 0 {
				if from := <-last; from != ap {
					t.Errorf("asked at %v, answered from %v", ap, from)
				}
			}
			if got := b.Status().Peers[0].Source; got != to.String() {
				t.Errorf("status shows the source %q, want %v", got, to)
			}
		}
	})
}

// multihomedPair is a pair whose b has a second address and has been called there by a.
func multihomedPair(t *testing.T) (a, b *node, second netip.Addr) {
	a, b = newPair(t, transporttest.New(1))
	second = netip.MustParseAddr("192.0.2.22")
	b.host.SetAddrs(b.addr, second)
	a.configure(Change{Peers: []PeerChange{{PublicKey: b.public,
		Endpoint: &transport.Endpoint{Remote: netip.AddrPortFrom(second, testPort)}}}})
	a.send(b, "asks")
	b.expect("asks")
	return a, b, second
}

func TestStickySourceIsForgottenWhenItsRouteIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, second := multihomedPair(t)
		p := b.tunnelPeer(a)
		b.host.ChangeRoutes() // that leave this one valid
		synctest.Wait()
		if got := p.endpoint.Load().Source; got != second {
			t.Fatalf("source %v", got)
		}
		b.host.SetAddrs(b.addr)
		time.Sleep(time.Second) // routes are looked at once a second at most
		synctest.Wait()
		ep := p.endpoint.Load()
		if ep.Source.IsValid() || ep.Interface != 0 || ep.Remote != a.addrPort() {
			t.Errorf("endpoint %v with source %v of interface %d", ep, ep.Source, ep.Interface)
		}
		b.send(a, "from the address left")
		a.expect("from the address left")
		if got := a.tunnelPeer(b).endpoint.Load().Remote; got != b.addrPort() {
			t.Errorf("a found b at %v", got)
		}
	})
}

func TestStickySourceIsForgottenWhenAHandshakeIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := actorScene(t)
		a.handshake()
		a.say("hello")
		a.node.expect("hello")
		if !a.peer().endpoint.Load().Source.IsValid() {
			t.Fatal("no sticky source")
		}
		a.sendTo("never answered")
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if ep := a.peer().endpoint.Load(); ep.Source.IsValid() || ep.Remote != a.addr {
			t.Errorf("endpoint %v, source %v", ep, ep.Source)
		}
	})
}

func TestReplayedDataFromElsewhereIsNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		var seen [][]byte
		remove := network.Tap(func(p *transporttest.Packet) {
			if p.Data[0] == noise.TypeData && p.From == a.addrPort() {
				seen = append(seen, bytes.Clone(p.Data))
			}
		})
		a.send(b, "once")
		b.expect("once")
		remove()
		for _, m := range seen {
			network.Inject(elsewhere, b.addrPort(), m)
		}
		b.expect()
		if got := b.dropped(DropInReplay); got != len(seen) {
			t.Errorf("%d of %d counted as replayed", got, len(seen))
		}
		b.send(a, "still found")
		a.expect("still found")
	})
}

func TestSourceThatRoutesMadeWrongIsNotTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, second := multihomedPair(t)
		p := b.tunnelPeer(a)
		wrong := *p.endpoint.Load()
		if wrong.Source != second {
			t.Fatalf("source %v", wrong.Source)
		}
		b.host.SetAddrs(b.addr)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		p.heard(&wrong) // what was under way to the address
		if ep := p.endpoint.Load(); ep.Source.IsValid() || ep.Remote != wrong.Remote {
			t.Errorf("endpoint %+v", *ep)
		}
		elsewhere := wrong
		elsewhere.Remote = netip.AddrPortFrom(wrong.Remote.Addr(), 7)
		p.heard(&elsewhere) // says nothing of routes to another remote address
		if ep := p.endpoint.Load(); *ep != elsewhere {
			t.Errorf("endpoint %+v", *ep)
		}
		p.heard(&wrong)
		if ep := p.endpoint.Load(); *ep != wrong.WithoutSource() {
			t.Errorf("endpoint %+v", *ep)
		}
		b.host.SetAddrs(b.addr, second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		p.heard(&wrong) // is right again
		if ep := p.endpoint.Load(); *ep != wrong {
			t.Errorf("endpoint %+v", *ep)
		}
	})
}
