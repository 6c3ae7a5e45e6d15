package tunnel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
)

// loadable is a node whose control loop can be held still, so that its queue of handshake messages fills.
type loadable struct {
	*node
	network *transporttest.Network
	gate    atomic.Pointer[chan struct{}]
	held    byte
}

func newLoadable(t testing.TB, network *transporttest.Network, number byte) *loadable {
	l := &loadable{network: network}
	addr := netip.AddrFrom4([4]byte{192, 0, 2, number})
	host := network.Host(addr, netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", number)))
	l.node = newNodeOn(t, host, addr, number, func(o *Options) {
		o.Debugf = func(string, ...any) { // called by the control loop
			if g := l.gate.Load(); g != nil {
				<-*g
			}
		}
	})
	return l
}

// hold stops the control loop until release is called: at the remark it makes about an initiation to a peer made for this.
func (l *loadable) hold() (release func()) {
	l.t.Helper()
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		l.t.Fatal(err)
	}
	l.held++
	inner := netip.AddrFrom4([4]byte{10, 9, 9, l.held})
	peer := key.Public()
	l.configure(Change{Peers: []PeerChange{{
		PublicKey:  peer,
		Endpoint:   &transport.Endpoint{Remote: netip.MustParseAddrPort("203.0.113.9:9")},
		AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(inner, 32)}},
	}}})
	synctest.Wait()
	gate := make(chan struct{})
	l.gate.Store(&gate)
	l.dev.Queue(0).Push(udpPacket(l.inner, inner, nil), noOffload)
	synctest.Wait()
	return func() {
		l.gate.Store(nil)
		close(gate)
		synctest.Wait()
		l.configure(Change{Peers: []PeerChange{{PublicKey: peer, Remove: true}}})
	}
}

var flooder = netip.MustParseAddrPort("198.51.100.250:250")

// flood injects initiations of nobody with the right mac1, enough for the tunnel to be under load.
func (l *loadable) flood() {
	msg := make([]byte, noise.InitiationSize)
	a := &actor{node: l.node}
	for range underLoadFrom + 20 {
		for i := range msg {
			msg[i] = byte(rand.Uint32())
		}
		copy(msg, []byte{noise.TypeInitiation, 0, 0, 0})
		l.network.Inject(flooder, l.addrPort(), a.restamp(msg))
	}
	synctest.Wait()
}

// underLoad has the tunnel be under load while it handles what send injects.
func (l *loadable) underLoad(send func()) {
	l.t.Helper()
	release := l.hold()
	l.flood()
	send()
	synctest.Wait()
	release()
	if !l.Status().UnderLoad {
		l.t.Fatal("the tunnel is not under load")
	}
}

func loadScene(t *testing.T) (*loadable, *actor) {
	network := transporttest.New(1)
	n := newLoadable(t, network, 1)
	a := newActor(n.node, network, 1).join()
	synctest.Wait()
	return n, a
}

func TestUnderLoadInitiationsNeedACookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		var answers []transporttest.Packet
		n.network.Tap(func(p *transporttest.Packet) {
			if p.To == flooder {
				answers = append(answers, transporttest.Packet{Data: bytes.Clone(p.Data), TOS: p.TOS})
			}
		})
		first, _ := a.initiation(time.Now())
		n.underLoad(func() { a.inject(first) })
		reply := a.one(noise.TypeCookieReply)
		if len(reply) != noise.CookieReplySize || noise.ReceiverIndex(reply) != noise.SenderIndex(first) {
			t.Errorf("cookie reply: %x", reply)
		}
		if len(answers) != underLoadFrom+20 {
			t.Errorf("%d answers to a flood of %d", len(answers), underLoadFrom+20)
		}
		for _, p := range answers {
			if p.Data[0] != noise.TypeCookieReply || len(p.Data) > noise.InitiationSize || p.TOS != transport.TOSHandshake {
				t.Fatalf("answer of %d bytes, type %d, TOS %x", len(p.Data), p.Data[0], p.TOS)
			}
		}
		if n.usedIndices() != 0 || n.Status().Handshakes.InitiationsReceived != 0 {
			t.Error("an initiation without a cookie was looked at")
		}
		if err := a.stamper.ConsumeReply(reply, a.now()); err != nil {
			t.Fatal(err)
		}
		second, pending := a.initiation(time.Now())
		n.underLoad(func() { a.inject(second) })
		a.consume(pending, a.one(noise.TypeResponse))
		a.say("through")
		n.expect("through")
	})
}

func TestUnderLoadResponsesNeedACookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		a.join(a.at)
		a.sendTo("waits")
		initiation := a.one(noise.TypeInitiation)
		n.underLoad(func() { a.inject(a.response(initiation)) })
		reply := a.one(noise.TypeCookieReply)
		if len(reply) >= noise.ResponseSize {
			t.Errorf("a cookie reply of %d bytes", len(reply))
		}
		if n.Status().Handshakes.Completed != 0 {
			t.Fatal("a response without a cookie completed the handshake")
		}
		if err := a.stamper.ConsumeReply(reply, a.now()); err != nil {
			t.Fatal(err)
		}
		n.underLoad(func() { a.inject(a.response(initiation)) })
		if got := fmt.Sprint(a.payloads()); got != "[waits]" {
			t.Errorf("after a response with a cookie: %q", got)
		}
	})
}

func TestEveryFlippedBitUnderLoadGivesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		first, _ := a.initiation(time.Now())
		n.underLoad(func() { a.inject(first) })
		if err := a.stamper.ConsumeReply(a.one(noise.TypeCookieReply), a.now()); err != nil {
			t.Fatal(err)
		}
		msg, pending := a.initiation(time.Now())
		for from := 0; from < len(msg); from += 64 {
			n.underLoad(func() {
				for at := from; at < min(from+64, len(msg)); at++ {
					for bit := range 8 {
						a.inject(flipped(msg, at*8+bit))
					}
				}
			})
			for _, kind := range a.gotKinds() { // mac2 was wrong
				if kind != noise.TypeCookieReply {
					t.Fatalf("bytes from %d: answered by type %d", from, kind)
				}
			}
		}
		if got := n.Status().Handshakes.InitiationsReceived; got != 0 {
			t.Fatalf("%d flipped initiations taken", got)
		}
		n.underLoad(func() { a.inject(msg) })
		a.consume(pending, a.one(noise.TypeResponse))
	})
}

func TestCookieIsBoundToAddressAndPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		first, _ := a.initiation(time.Now())
		n.underLoad(func() { a.inject(first) })
		if err := a.stamper.ConsumeReply(a.one(noise.TypeCookieReply), a.now()); err != nil {
			t.Fatal(err)
		}
		home := a.addr
		for _, elsewhere := range []netip.AddrPort{
			netip.AddrPortFrom(home.Addr(), home.Port()+1),
			netip.AddrPortFrom(home.Addr().Next(), home.Port()),
			netip.MustParseAddrPort("[2001:db8:1::1]:1000"),
		} {
			msg, _ := a.initiation(time.Now())
			a.move(elsewhere)
			n.underLoad(func() {
				if elsewhere.Addr().Is6() {
					a.network.Inject(elsewhere, netip.MustParseAddrPort("[2001:db8::1]:51820"), msg)
				} else {
					a.inject(msg)
				}
			})
			a.one(noise.TypeCookieReply)
		}
		a.move(home)
		msg, pending := a.initiation(time.Now())
		n.underLoad(func() { a.inject(msg) })
		a.consume(pending, a.one(noise.TypeResponse))
	})
}

func TestCookieSecretRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		first, _ := a.initiation(time.Now())
		n.underLoad(func() { a.inject(first) })
		if err := a.stamper.ConsumeReply(a.one(noise.TypeCookieReply), a.now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(session.CookieLifetime - 1)
		msg, _ := a.initiation(time.Now())
		n.underLoad(func() { a.inject(msg) })
		a.one(noise.TypeResponse)
		a.epoch = time.Now() // so that the actor goes on using its cookie
		msg, _ = a.initiation(time.Now())
		time.Sleep(time.Nanosecond)
		n.underLoad(func() { a.inject(msg) })
		a.one(noise.TypeCookieReply)
	})
}

func TestUnderLoadEachSourceHasItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		first, _ := a.initiation(time.Now())
		n.underLoad(func() { a.inject(first) })
		if err := a.stamper.ConsumeReply(a.one(noise.TypeCookieReply), a.now()); err != nil {
			t.Fatal(err)
		}
		burst := func(count int) (passed int) {
			before := n.dropped(DropInRateLimit)
			n.underLoad(func() {
				for range count {
					msg, _ := a.initiation(time.Now())
					a.inject(msg)
				}
			})
			for _, kind := range a.gotKinds() {
				if kind != noise.TypeResponse {
					t.Fatalf("answered by type %d", kind)
				}
			}
			return count - (n.dropped(DropInRateLimit) - before)
		}
		if got := burst(30); got != handshakeBurst {
			t.Errorf("%d of a burst passed", got)
		}
		time.Sleep(handshakeCost)
		if got := burst(3); got != 1 {
			t.Errorf("%d passed after %v", got, handshakeCost)
		}
		time.Sleep(time.Minute)
		if got := burst(30); got != handshakeBurst {
			t.Errorf("%d of a burst passed after a minute", got)
		}
	})
}

func TestLoadIsOverAfterASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		n.underLoad(func() {})
		time.Sleep(underLoadFor - 1)
		if !n.Status().UnderLoad {
			t.Error("over too early")
		}
		msg, _ := a.initiation(time.Now())
		a.inject(msg)
		a.one(noise.TypeCookieReply)
		time.Sleep(time.Nanosecond)
		if n.Status().UnderLoad {
			t.Error("still under load")
		}
		msg, pending := a.initiation(time.Now())
		a.inject(msg)
		a.consume(pending, a.one(noise.TypeResponse))
	})
}

func TestHandshakeQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := loadScene(t)
		release := n.hold()
		for range 10 {
			n.flood()
		}
		if got := len(n.handshakes); got != crowdedFrom { // the rest is for those who hold a cookie
			t.Errorf("%d messages wait", got)
		}
		if got, want := n.dropped(DropInQueueFull), 10*(underLoadFrom+20)-crowdedFrom; got != want {
			t.Errorf("%d dropped, want %d", got, want)
		}
		release()
	})
}

func TestTrafficGoesOnUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		a.handshake()
		a.inject(a.seal(nil))
		a.expectSilence("a keepalive")
		release := n.hold() // not even the control loop is needed
		for i := range 20 {
			n.flood()
			in, out := fmt.Sprint("in ", i), fmt.Sprint("out ", i)
			a.say(in)
			n.expect(in)
			a.sendTo(out)
			if got := a.payloads(); !slices.Equal(got, []string{out}) {
				t.Fatalf("sent %q, want %q", got, out)
			}
		}
		release()
	})
}

func TestCookieReplyMovesNoEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		a.join(a.at)
		a.sendTo("waits")
		initiation := a.one(noise.TypeInitiation)
		reply, err := a.checker.Reply(nil, initiation, n.addrPort(), a.now())
		if err != nil {
			t.Fatal(err)
		}
		before := *a.peer().endpoint.Load()
		n.network.Inject(netip.MustParseAddrPort("203.0.113.77:7"), n.addrPort(), reply)
		a.expectSilence("a cookie reply")
		if n.Status().Handshakes.CookiesReceived != 1 {
			t.Fatal("the cookie reply was not taken")
		}
		if after := *a.peer().endpoint.Load(); after != before {
			t.Errorf("the endpoint moved from %v to %v", before, after)
		}
		// The next initiation carries mac2, for which the peer looks under load.
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		next := a.one(noise.TypeInitiation)
		if !a.checker.CheckMAC2(next, n.addrPort(), a.now()) {
			t.Error("the next initiation does not use the cookie")
		}
	})
}

func TestEngineGetsThroughToAPeerUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		b := newLoadable(t, network, 2)
		a := newNode(t, network, 1)
		a.addPeerNode(b.node, true)
		b.addPeerNode(a, false)
		synctest.Wait()
		b.underLoad(func() { a.send(b.node, "waits") })
		b.expect()
		if a.Status().Handshakes.CookiesReceived != 1 || b.Status().Handshakes.InitiationsReceived != 0 {
			t.Fatalf("a: %+v, b: %+v", a.Status().Handshakes, b.Status().Handshakes)
		}
		b.underLoad(func() { time.Sleep(session.RekeyTimeout + 100*time.Millisecond) })
		b.expect("waits")
		if got := a.Status().Handshakes.InitiationsSent; got != 2 {
			t.Errorf("%d initiations were needed", got)
		}
	})
}

func TestRateLimiterBurstAndRate(t *testing.T) {
	var l rateLimiter
	source := netip.MustParseAddr("192.0.2.1")
	allowed, now := 0, time.Second
	for range 10 {
		if l.allow(source, now) {
			allowed++
		}
	}
	if allowed != 5 {
		t.Errorf("a burst of %d", allowed)
	}
	for range 10_000 { // for ten seconds
		now += time.Millisecond
		if l.allow(source, now) {
			allowed++
		}
	}
	if allowed != 5+10*20 {
		t.Errorf("%d handshakes in ten seconds", allowed)
	}
	now += time.Hour
	for range handshakeBurst {
		if !l.allow(source, now) {
			t.Error("refused after an hour's rest")
		}
	}
}

func TestRateLimiterSources(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true},
		{"2001:db8:0:1::1", "2001:db8::1", false},
		{"fe80::1%1", "fe80::2%2", true},
		{"::1", "0.0.0.0", false},
	} {
		var l rateLimiter
		now := time.Second
		for l.allow(netip.MustParseAddr(c.a), now) {
		}
		if got := !l.allow(netip.MustParseAddr(c.b), now); got != c.same {
			t.Errorf("%s and %s share a bucket: %v", c.a, c.b, got)
		}
	}
}

func TestRateLimiterMemoryIsBounded(t *testing.T) {
	var l rateLimiter
	now := time.Second
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	allowed := 0
	for i := range 10 * maxLimited {
		if l.allow(address(i), now) {
			allowed++
		}
	}
	if allowed != maxLimited || len(l.fullAt) > maxLimited {
		t.Errorf("%d sources allowed, %d remembered", allowed, len(l.fullAt))
	}
	if !l.allow(address(0), now) {
		t.Error("a known source is refused for want of memory")
	}
	now += time.Second
	if !l.allow(address(10*maxLimited), now) {
		t.Error("a new source is refused although the others have rested")
	}
	if len(l.fullAt) != 1 {
		t.Errorf("%d sources remembered after a second", len(l.fullAt))
	}
}
