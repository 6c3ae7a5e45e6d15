package tunnel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
)

// actorScene is a node and one actor that is its peer.
func actorScene(t *testing.T) (*node, *actor, *transporttest.Network) {
	network := transporttest.New(1)
	n := newNode(t, network, 1)
	a := newActor(n, network, 1).join()
	synctest.Wait()
	return n, a, network
}

func TestResponderSendsNoDataBeforeTheSessionIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.handshake()
		a.sendTo("too early")
		a.expectSilence("a packet under an unconfirmed session")
		if n.Status().Handshakes.Completed != 0 {
			t.Error("an unconfirmed handshake counts as completed")
		}
		a.inject(a.seal(nil))
		if got := fmt.Sprint(a.payloads()); got != "[too early]" {
			t.Errorf("after the confirmation the node sent %q", got)
		}
		if n.Status().Handshakes.Completed != 1 {
			t.Error("the confirmed handshake does not count")
		}
	})
}

func TestResponderGoesOnWithTheOldSessionUntilTheNewOneIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := actorScene(t)
		a.handshake()
		a.inject(a.seal(nil))
		a.expectSilence("a keepalive")
		a.sendTo("first")
		if got := fmt.Sprint(a.payloads()); got != "[first]" {
			t.Fatal(got)
		}
		old := a.session
		time.Sleep(time.Second)
		a.handshake()
		next := a.session
		a.session = old
		a.sendTo("still the old one")
		if got := fmt.Sprint(a.payloads()); got != "[still the old one]" {
			t.Fatal(got)
		}
		a.session = next
		a.inject(a.seal(nil))
		a.expectSilence("a keepalive")
		a.sendTo("the new one")
		if got := fmt.Sprint(a.payloads()); got != "[the new one]" {
			t.Fatal(got)
		}
		// What was under way under the old session still comes in, and changes nothing.
		a.session = old
		a.say("late")
		a.node.expect("late")
		a.session = next
		a.sendTo("still the new one")
		if got := fmt.Sprint(a.payloads()); got != "[still the new one]" {
			t.Fatal(got)
		}
	})
}

// The confirmation may get lost, and the initiator may have nothing more to say.
func TestPacketBehindALostConfirmationIsSentInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := actorScene(t)
		a.handshake()
		a.sendTo("patient")
		a.expectSilence("a packet under an unconfirmed session")
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		a.inject(a.response(a.one(noise.TypeInitiation)))
		if got := fmt.Sprint(a.payloads()); got != "[patient]" {
			t.Errorf("received %q", got)
		}
	})
}

func TestSilence(t *testing.T) {
	type message struct {
		name string
		why  DropReason
		data []byte
	}
	synctest.Test(t, func(t *testing.T) {
		n, a, network := actorScene(t)
		a.handshake() // so that some index is in use
		response, data := make([]byte, noise.ResponseSize), a.seal(nil)
		genuine, _ := a.initiation(time.Now().Add(time.Second))
		reply, err := a.checker.Reply(nil, genuine, a.addr, a.now())
		if err != nil {
			t.Fatal(err)
		}
		used := a.session.RemoteIndex
		copy(response, []byte{noise.TypeResponse})
		binary.LittleEndian.PutUint32(response[8:], used)
		a.restamp(response)

		var all []message
		add := func(why DropReason, data []byte, format string, args ...any) {
			all = append(all, message{fmt.Sprintf(format, args...), why, data})
		}
		messages := map[string][]byte{"initiation": genuine, "response": response, "cookie reply": reply, "data": data}
		for name, m := range messages {
			for at := 1; at < 4; at++ {
				for bit := range 8 {
					add(DropInMessage, flipped(m, at*8+bit), "%s with reserved bit %d of byte %d", name, bit, at)
				}
			}
			for _, size := range []int{0, 1, 3, 4, 15, 16, 31} {
				if size == 0 {
					continue // an empty datagram does not reach the engine
				}
				add(DropInMessage, m[:size], "%s of %d bytes", name, size)
			}
			if name != "data" {
				add(DropInMessage, m[:len(m)-1], "%s one byte short", name)
				add(DropInMessage, append(bytes.Clone(m), 0), "%s one byte long", name)
			}
		}
		for kind := range 256 {
			if kind < noise.TypeInitiation || kind > noise.TypeData {
				m := bytes.Clone(genuine)
				m[0] = byte(kind)
				add(DropInMessage, m, "type %d", kind)
			}
		}
		mac1 := len(genuine) - 2*noise.MACSize
		add(DropInMAC1, flipped(genuine, mac1*8), "initiation with a wrong mac1")
		add(DropInMAC1, flipped(response, (len(response)-2*noise.MACSize)*8), "response with a wrong mac1")
		for name, at := range map[string]int{"static key": 8 + 32, "static key's tag": 8 + 64, "timestamp": 8 + 80, "timestamp's tag": 8 + 92} {
			add(DropInHandshake, a.restamp(flipped(genuine, at*8)), "initiation with another %s", name)
		}
		stranger := newActor(n, network, 2)
		unknown, _ := stranger.initiation(time.Now())
		add(DropInUnknownPeer, unknown, "initiation of an unknown peer")
		for _, point := range lowOrderPoints() {
			m := bytes.Clone(genuine)
			copy(m[8:], point[:])
			add(DropInHandshake, a.restamp(m), "initiation with the ephemeral key %x", point[:4])
		}
		for bit := 32; bit < 64; bit++ {
			add(DropInIndex, flipped(data, bit), "data for an unknown index (bit %d)", bit)
			add(DropInIndex, flipped(reply, bit), "cookie reply for an unknown index (bit %d)", bit)
			add(DropInIndex, a.restamp(flipped(response, bit+32)), "response for an unknown index (bit %d)", bit)
		}
		add(DropInIndex, response, "response for the index of a session")
		usable := bytes.Clone(reply)
		binary.LittleEndian.PutUint32(usable[4:], used)
		add(DropInCookie, usable, "cookie reply nobody asked for")
		for _, at := range []int{16, 31} {
			add(DropInDecrypt, flipped(data, at*8), "data with a wrong tag")
		}
		add(DropInDecrypt, flipped(data, 8*8), "data with another counter")
		last := bytes.Clone(data)
		binary.LittleEndian.PutUint64(last[8:], session.RejectAfterMessages)
		add(DropInExpired, last, "data with a counter no session reaches")

		a.expectSilence("nothing yet")
		goroutines, indices := bubbleGoroutines(), n.usedIndices()
		sent := network.Counters().Sent
		for i, m := range all {
			before := n.dropped(m.why)
			a.inject(m.data)
			stranger.expectSilence(m.name)
			a.expectSilence(m.name)
			if n.dropped(m.why) != before+1 {
				t.Errorf("%s: not counted as %q; drops %v", m.name, m.why, n.drops.snapshot())
			}
			if got := network.Counters().Sent; got != sent+uint64(i)+1 { // what is injected counts too
				t.Fatalf("%s: something was sent", m.name)
			}
		}
		if got := bubbleGoroutines(); got > goroutines {
			t.Errorf("%d goroutines became %d", goroutines, got)
		}
		if got := n.usedIndices(); got != indices {
			t.Errorf("%d indices in use became %d", indices, got)
		}
		if s := n.Status(); s.Handshakes.Completed != 0 || s.Handshakes.InitiationsReceived != 1 || s.Handshakes.CookiesReceived != 0 {
			t.Errorf("handshakes: %+v", s.Handshakes)
		}
		// The genuine ones still work.
		a.inject(data)
		a.expectSilence("a keepalive")
		if n.Status().Handshakes.Completed != 1 {
			t.Error("the genuine message does not confirm the session")
		}
		time.Sleep(time.Second)
		a.inject(genuine)
		a.one(noise.TypeResponse)
	})
}

// usedIndices returns how many session indices are in use.
func (a *node) usedIndices() int {
	a.indices.mu.Lock()
	defer a.indices.mu.Unlock()
	return a.indices.used
}

// lowOrderPoints are public keys with which every shared secret is zero (https://cr.yp.to/ecdh.html#validate).
func lowOrderPoints() []crypto.PublicKey {
	var points []crypto.PublicKey
	for _, s := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			panic(err)
		}
		points = append(points, crypto.PublicKey(b))
	}
	return points
}

// Of an initiation, mac1 covers all bits but those of mac1 itself, which must match, and of mac2, which is looked at under
// load alone (load_test.go).
func TestEveryFlippedBitOfAnInitiationIsMetWithSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		msg, pending := a.initiation(time.Now())
		for bit := range (noise.InitiationSize - noise.MACSize) * 8 {
			a.inject(flipped(msg, bit))
			a.expectSilence(fmt.Sprintf("bit %d", bit))
		}
		// With mac1 made anew, as anybody can, Noise refuses each bit it covers: all but those of the sender index.
		for bit := 8 * 8; bit < (noise.InitiationSize-2*noise.MACSize)*8; bit++ {
			a.inject(a.restamp(flipped(msg, bit)))
			a.expectSilence(fmt.Sprintf("bit %d, with a new mac1", bit))
		}
		if n.usedIndices() != 0 {
			t.Error("a false initiation holds an index")
		}
		a.inject(msg)
		a.consume(pending, a.one(noise.TypeResponse))
		// The response to another sender index finds nobody.
		for bit := 4 * 8; bit < 8*8; bit++ {
			time.Sleep(time.Second)
			msg, pending := a.initiation(time.Now())
			a.inject(a.restamp(flipped(msg, bit)))
			if _, _, err := pending.Consume(a.one(noise.TypeResponse), a.psk); err == nil {
				t.Fatalf("sender index with bit %d flipped: a session", bit)
			}
		}
		if n.Status().Handshakes.Completed != 0 {
			t.Error("a handshake completed")
		}
		time.Sleep(time.Second)
		a.handshake()
		a.say("genuine")
		n.expect("genuine")
	})
}

func TestEveryFlippedBitOfAResponseIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.join(a.at)
		a.sendTo("waits")
		msg := a.response(a.one(noise.TypeInitiation))
		for bit := range (noise.ResponseSize - noise.MACSize) * 8 {
			a.inject(flipped(msg, bit))
			a.expectSilence(fmt.Sprintf("bit %d", bit))
		}
		// With mac1 made anew. The sender index alone is not covered by Noise; a session with a wrong one could carry
		// nothing.
		for bit := 8 * 8; bit < (noise.ResponseSize-2*noise.MACSize)*8; bit++ {
			a.inject(a.restamp(flipped(msg, bit)))
			a.expectSilence(fmt.Sprintf("bit %d, with a new mac1", bit))
		}
		if s := n.Status().Handshakes; s.Completed != 0 || s.ResponsesReceived != 0 {
			t.Errorf("handshakes: %+v", s)
		}
		a.inject(msg)
		if got := fmt.Sprint(a.payloads()); got != "[waits]" {
			t.Errorf("after the genuine response: %q", got)
		}
	})
}

func TestEveryFlippedBitOfACookieReplyIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.join(a.at)
		a.sendTo("waits")
		initiation := a.one(noise.TypeInitiation)
		reply, err := a.checker.Reply(nil, initiation, n.addrPort(), a.now())
		if err != nil {
			t.Fatal(err)
		}
		for bit := range len(reply) * 8 {
			a.inject(flipped(reply, bit))
		}
		a.expectSilence("flipped cookie replies")
		if got := n.Status().Handshakes.CookiesReceived; got != 0 {
			t.Fatalf("%d flipped cookie replies taken", got)
		}
		a.inject(reply)
		a.expectSilence("a cookie reply")
		a.inject(reply)
		a.expectSilence("a replayed cookie reply")
		if got := n.Status().Handshakes.CookiesReceived; got != 1 {
			t.Fatalf("%d cookie replies taken instead of the genuine one", got)
		}
		// The handshake goes on: the response still works.
		a.inject(a.response(initiation))
		if got := fmt.Sprint(a.payloads()); got != "[waits]" {
			t.Error(got)
		}
	})
}

func TestEveryFlippedBitOfTheFirstDataMessageConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.handshake()
		a.sendTo("waits")
		msg := a.seal(a.packet("hello"))
		for bit := range len(msg) * 8 {
			a.inject(flipped(msg, bit))
		}
		a.expectSilence("flipped data")
		n.expect()
		if n.Status().Handshakes.Completed != 0 {
			t.Fatal("a flipped message confirmed the session")
		}
		a.inject(msg)
		n.expect("hello")
		if got := fmt.Sprint(a.payloads()); got != "[waits]" {
			t.Error(got)
		}
	})
}

// The same between two engines, with some bits of each message of the handshake.
func TestHandshakeDamagedOnTheWireIsRepeated(t *testing.T) {
	sizes := map[uint8]int{
		noise.TypeInitiation: noise.InitiationSize - noise.MACSize, // mac2 does not count without load
		noise.TypeResponse:   noise.ResponseSize - noise.MACSize,
		noise.TypeData:       session.Overhead + 48, // the padded packet that waited for the session
	}
	for kind, size := range sizes {
		t.Run(fmt.Sprint("type ", kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newPair(t, network)
				for at := 0; at < size; at += 5 {
					damaged, before := false, b.Status().Handshakes.Completed
					remove := network.Tap(func(p *transporttest.Packet) {
						if p.Data[0] == kind && !damaged {
							damaged = true
							p.Data[at] ^= 1 << (at % 8)
						}
					})
					a.send(b, "payload")
					b.expect()
					if got := b.Status().Handshakes.Completed; got != before {
						t.Fatalf("byte %d of type %d changed: b completed a handshake", at, kind)
					}
					remove()
					if !damaged {
						t.Fatalf("no message of type %d was sent", kind)
					}
					time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
					if kind == noise.TypeData {
						a.send(b, "payload") // the damaged one is lost, the session is not
					}
					b.expect("payload")
					if got := b.Status().Handshakes.Completed; got != before+1 {
						t.Fatalf("byte %d of type %d: %d handshakes completed", at, kind, got-before)
					}
					// Afresh.
					a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Remove: true}}})
					b.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Remove: true}}})
					a.addPeerNode(b, true)
					b.addPeerNode(a, false)
				}
			})
		})
	}
}

func TestReplayedInitiationIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		at := time.Now()
		msg, _ := a.initiation(at)
		a.inject(msg)
		a.one(noise.TypeResponse)
		time.Sleep(time.Minute)
		a.inject(msg)
		a.expectSilence("the same initiation")
		for _, older := range []time.Duration{0, -time.Second, -time.Hour} {
			m, _ := a.initiation(at.Add(older))
			a.inject(m)
			a.expectSilence(fmt.Sprintf("an initiation with a timestamp %v later", older))
		}
		if got := n.dropped(DropInOldInitiation); got != 4 {
			t.Errorf("%d counted as old", got)
		}
		m, _ := a.initiation(at.Add(20 * time.Millisecond))
		a.inject(m)
		a.one(noise.TypeResponse)
	})
}

func TestInitiationsWithinTwentyMillisecondsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		other := newActor(n, a.network, 2).join()
		synctest.Wait()
		now := time.Now()
		send := func(a *actor, i int) {
			m, _ := a.initiation(now.Add(time.Duration(i) * time.Second))
			a.inject(m)
		}
		send(a, 0)
		a.one(noise.TypeResponse)
		for i := range 10 {
			send(a, 1+i)
		}
		a.expectSilence("a burst of initiations")
		send(other, 0) // of which another peer knows nothing
		other.one(noise.TypeResponse)
		time.Sleep(initiationInterval - 1)
		send(a, 100)
		a.expectSilence("an initiation a nanosecond too early")
		time.Sleep(time.Nanosecond)
		send(a, 101)
		a.one(noise.TypeResponse)
		if got := n.dropped(DropInOldInitiation); got != 11 {
			t.Errorf("%d refused", got)
		}
		if got := n.usedIndices(); got != 2 {
			t.Errorf("%d indices in use by two peers without a confirmed session", got)
		}
	})
}

func TestForgedResponseDoesNotClearThePendingHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := actorScene(t)
		a.join(a.at)
		a.sendTo("waits")
		initiation := a.one(noise.TypeInitiation)
		index := noise.SenderIndex(initiation)

		// Somebody who saw the initiation and knows the node's public key, but not the peer's private key.
		forger := newActor(n, network, 2)
		forge := func(ephemeral []byte) {
			m := make([]byte, noise.ResponseSize)
			m[0] = noise.TypeResponse
			binary.LittleEndian.PutUint32(m[4:], 7)
			binary.LittleEndian.PutUint32(m[8:], index)
			copy(m[12:], ephemeral)
			forger.inject(forger.restamp(m))
			forger.expectSilence("a forged response")
			a.expectSilence("a forged response")
		}
		forge(forger.public[:])
		for _, p := range lowOrderPoints() {
			forge(p[:])
		}
		// The right peer, with another preshared key.
		a.psk = crypto.PresharedKey{1}
		a.inject(a.response(initiation))
		a.expectSilence("a response with another preshared key")
		if got := n.Status().Handshakes.Completed; got != 0 {
			t.Fatalf("%d handshakes completed", got)
		}
		a.psk = crypto.PresharedKey{}
		a.inject(a.response(initiation))
		if got := fmt.Sprint(a.payloads()); got != "[waits]" {
			t.Errorf("after the genuine response: %q", got)
		}
	})
}

func TestBothEndsStartAtOnce(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond, 300 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newPair(t, network)
				b.addPeerNode(a, true)
				network.SetDefaultLink(transporttest.Link{Delay: delay})
				l := watch(network, a)
				l.reset()
				a.send(b, "from a")
				b.send(a, "from b")
				time.Sleep(3*delay + time.Millisecond) // initiation, response, data
				a.expect("from b")
				b.expect("from a")
				for i := range 20 {
					ping, pong := fmt.Sprint("ping ", i), fmt.Sprint("pong ", i)
					a.send(b, ping)
					b.send(a, pong)
					time.Sleep(delay + time.Millisecond)
					b.expect(ping)
					a.expect(pong)
				}
				time.Sleep(30 * time.Second)
				if n := len(l.times("a", noise.TypeInitiation)) + len(l.times("b", noise.TypeInitiation)); n > 2 {
					t.Errorf("%d initiations", n)
				}
				if len(a.Status().Drops) != 0 || len(b.Status().Drops) != 0 {
					t.Errorf("drops: %v, %v", a.Status().Drops, b.Status().Drops)
				}
			})
		})
	}
}

func TestPresharedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		right, wrong := crypto.PresharedKey{1}, crypto.PresharedKey{2}
		set := func(n, of *node, k crypto.PresharedKey) {
			n.configure(Change{Peers: []PeerChange{{PublicKey: of.public, PresharedKey: &k}}})
		}
		set(a, b, right)
		set(b, a, wrong)
		a.send(b, "waits")
		b.expect()
		time.Sleep(20 * time.Second)
		b.expect()
		if a.Status().Handshakes.Completed+b.Status().Handshakes.Completed != 0 || a.dropped(DropInHandshake) == 0 {
			t.Fatalf("a session in spite of different preshared keys: %+v", a.Status().Handshakes)
		}
		set(b, a, right)
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		b.expect("waits")
		// Another key does not end the session, but is needed for the next one.
		set(a, b, wrong)
		a.send(b, "same session")
		b.expect("same session")
		time.Sleep(session.RejectAfterTime)
		a.send(b, "no session")
		time.Sleep(20 * time.Second)
		b.expect()
		set(a, b, crypto.PresharedKey{})
		set(b, a, crypto.PresharedKey{})
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		b.expect("no session")
	})
}

func TestPeersWithUselessKeysGetNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		keepalive := 5 * time.Second
		for i, point := range lowOrderPoints() {
			a.configure(Change{Peers: []PeerChange{{
				PublicKey:  point,
				Endpoint:   &transport.Endpoint{Remote: netip.MustParseAddrPort("203.0.113.1:1")},
				Keepalive:  &keepalive,
				AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), 32)}},
			}}})
		}
		sent := false
		network.Tap(func(p *transporttest.Packet) {
			if p.To.Addr() == netip.MustParseAddr("203.0.113.1") {
				sent = true
			}
		})
		for range 300 {
			for i := range lowOrderPoints() {
				a.dev.Queue(0).Push(udpPacket(a.inner, netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), []byte("x")), noOffload)
			}
			time.Sleep(time.Second)
		}
		a.send(b, "the others are well")
		b.expect("the others are well")
		a.configure(Change{ReplacePeers: true})
		synctest.Wait()
		if sent {
			t.Error("something was sent")
		}
		if a.usedIndices() != 0 || a.stagedBytes.Load() != 0 {
			t.Errorf("%d indices in use, %d bytes wait", a.usedIndices(), a.stagedBytes.Load())
		}
	})
}

func TestOwnKeyAsPeerIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		a.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Endpoint: &transport.Endpoint{Remote: a.addrPort()},
			AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("10.0.0.2/32")}}}}})
		if len(a.Status().Peers) != 1 {
			t.Fatal("the tunnel is its own peer")
		}
		a.send(b, "the route is still the other's")
		b.expect("the route is still the other's")
		// A key that is a peer's takes the peer away.
		a.configure(Change{PrivateKey: &b.key})
		if s := a.Status(); s.PublicKey != b.public || len(s.Peers) != 0 {
			t.Errorf("status: %+v", s)
		}
		if a.routes.snapshot().Size() != 0 {
			t.Error("its routes are still there")
		}
	})
}

func TestTrafficClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.join(a.at)
		packet := udpPacket(n.inner, a.inner, []byte("x"))
		packet[1] = 0xb8 // DSCP EF: the flow's own business
		n.dev.Queue(0).Push(packet, noOffload)
		all := a.got()
		if len(all) != 1 || all[0].TOS != 0x88 {
			t.Fatalf("initiation: %+v", all)
		}
		a.inject(a.response(all[0].Data))
		all = a.got()
		if len(all) != 1 || all[0].TOS != 0 {
			t.Fatalf("data: %+v", all)
		}
		m, _ := a.initiation(time.Now())
		a.inject(m)
		all = a.got()
		if len(all) != 1 || all[0].Data[0] != noise.TypeResponse || all[0].TOS != 0x88 {
			t.Fatalf("response: %+v", all)
		}
	})
}

func TestPrivateKeyChangesWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		a.send(b, "before")
		b.expect("before")
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		a.configure(Change{PrivateKey: &key})
		// What was under way towards a is still taken, but a sends no more under the old key.
		b.send(a, "under way")
		a.expect("under way")
		a.send(b, "after")
		b.expect() // b does not know the new key yet
		if b.dropped(DropInUnknownPeer) != 1 {
			t.Errorf("drops: %v", b.Status().Drops)
		}
		b.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Remove: true}}})
		a.key, a.public = key, key.Public()
		b.addPeerNode(a, false)
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		b.expect("after")
		b.send(a, "answer")
		a.expect("answer")
	})
}

func TestIndicesAreRandomAndNotReusedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := actorScene(t)
		seen := make(map[uint32]bool)
		var ones, zeros uint32
		const count = 64
		rising := 0
		last := uint32(0)
		for range count {
			time.Sleep(time.Second)
			a.handshake()
			i := a.session.RemoteIndex
			seen[i] = true
			ones, zeros = ones|i, zeros|^i
			if i > last {
				rising++
			}
			last = i
		}
		if len(seen) != count || ones != 1<<32-1 || zeros != 1<<32-1 || rising < count/4 || rising > 3*count/4 {
			t.Errorf("%d different indices of %d, bits set ever %x, clear ever %x, %d rises", len(seen), count, ones, zeros, rising)
		}
	})
}

func TestTunnelWithoutAPrivateKeyIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.join(a.at)
		none := crypto.PrivateKey{}
		n.configure(Change{PrivateKey: &none})
		m, _ := a.initiation(time.Now())
		a.inject(m)
		a.expectSilence("an initiation")
		a.sendTo("goes nowhere")
		a.expectSilence("a packet from the device")
		if n.dropped(DropOutNoKey) != 1 || n.dropped(DropInMAC1) != 1 || n.stagedBytes.Load() != 0 {
			t.Errorf("drops: %v", n.Status().Drops)
		}
		time.Sleep(time.Hour)
		a.expectSilence("an hour")
		n.configure(Change{PrivateKey: &n.key})
		m, pending := a.initiation(time.Now())
		a.inject(m)
		a.consume(pending, a.one(noise.TypeResponse))
		a.say("back")
		n.expect("back")
	})
}
