package tunnel

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/crypto/tai64n"
	"culvert/transport/transporttest"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
)

// nativeActor is an actor on the native wire.
type nativeActor struct {
	*actor
	offer noise.Parameters
}

// newNativeActor is newActor on the native wire, already a peer of its node. It offers no suite but the one all have.
func newNativeActor(n *node, network *transporttest.Network, number byte, more ...func(*PeerChange)) *nativeActor {
	n.t.Helper()
	a := newActor(n, network, number).join(append(more, onNativeWire)...)
	return &nativeActor{actor: a, offer: noise.Parameters{Suites: crypto.SuitesOf(crypto.ChaCha20Poly1305), Layer: noise.LayerIP}}
}

// nativeScene is a node and one native actor that is its peer.
func nativeScene(t testing.TB, more ...func(*PeerChange)) (*node, *nativeActor, *transporttest.Network) {
	network := transporttest.New(1)
	n := newNode(t, network, 1)
	a := newNativeActor(n, network, 1, more...)
	synctest.Wait()
	return n, a, network
}

// parts makes both parts of an initiation with the timestamp of at.
func (a *nativeActor) parts(at time.Time) (first, second []byte, pending *noise.HybridInitiator) {
	a.t.Helper()
	a.index++
	both, pending, err := a.remote.InitiateHybrid(nil, a.index, tai64n.From(at), a.offer, noise.Randomness{})
	if err != nil {
		a.t.Fatal(err)
	}
	first, second = bytes.Clone(both[:noise.HybridInitiationSize]), bytes.Clone(both[noise.HybridInitiationSize:])
	a.stamper.Stamp(first, a.now())
	a.stamper.StampKEM(second)
	return first, second, pending
}

// remac puts the right mac1 on a changed message, as anybody can who knows the node's public key.
func (a *nativeActor) remac(msg []byte) []byte {
	s := cookie.NewStamper(a.node.public)
	if kind, _ := noise.MessageType(msg); kind == noise.TypeKEM {
		s.StampKEM(msg)
	} else {
		s.Stamp(msg, 0)
	}
	return msg
}

// complete makes the actor's session of a response.
func (a *nativeActor) complete(pending *noise.HybridInitiator, response []byte) {
	a.t.Helper()
	keys, chosen, remote, err := pending.Consume(response, a.psk)
	if err != nil {
		a.t.Fatalf("the node's response: %v", err)
	}
	if suite, _ := chosen.Suites.Only(); suite != crypto.ChaCha20Poly1305 {
		a.t.Fatalf("the node chose %+v", chosen)
	}
	a.derive(&keys, true, pending.LocalIndex(), remote)
}

// establish has the actor initiate and complete a handshake, unconfirmed yet. What came besides is lost.
func (a *nativeActor) establish() {
	a.t.Helper()
	first, second, pending := a.parts(time.Now())
	a.inject(first)
	a.inject(second)
	var responses [][]byte
	for _, p := range a.got() {
		if p.Data[0] == noise.TypeHybridResponse {
			responses = append(responses, p.Data)
		}
	}
	if len(responses) != 1 {
		a.t.Fatalf("%d responses came (drops %v)", len(responses), a.node.drops.snapshot())
	}
	a.complete(pending, responses[0])
}

// connect has the actor establish a session that the node knows to be confirmed.
func (a *nativeActor) connect() {
	a.t.Helper()
	a.establish()
	a.inject(a.seal(nil))
	a.expectNoHandshake("a keepalive")
}

// reads verifies the node's initiation.
func (a *nativeActor) reads(first, second []byte) *noise.HybridResponder {
	a.t.Helper()
	if !a.checker.CheckMAC1(first) || !a.checker.CheckMAC1(second) {
		a.t.Fatal("the node's initiation has a wrong mac1")
	}
	r, err := a.id.ReadHybridInitiation(first)
	if err != nil {
		a.t.Fatal(err)
	}
	if r.Static() != a.node.public {
		a.t.Fatal("the initiation is not the node's")
	}
	if _, _, err := r.Verify(a.remote); err != nil {
		a.t.Fatal(err)
	}
	if err := r.ReadKEM(second); err != nil {
		a.t.Fatal(err)
	}
	return r
}

// answer answers the node's initiation and takes the session it makes into use.
func (a *nativeActor) answer(first, second []byte) []byte {
	a.t.Helper()
	r := a.reads(first, second)
	a.index++
	msg, keys, err := r.Respond(nil, a.index, a.psk, a.offer, noise.Randomness{})
	if err != nil {
		a.t.Fatal(err)
	}
	a.stamper.Stamp(msg, a.now())
	a.derive(&keys, false, a.index, r.RemoteIndex())
	return msg
}

// asked returns the two parts of the one initiation that came.
func (a *nativeActor) asked() (first, second []byte) {
	a.t.Helper()
	all := a.got()
	if len(all) != 2 || all[0].Data[0] != noise.TypeHybridInitiation || all[1].Data[0] != noise.TypeKEM {
		a.t.Fatalf("%d messages came instead of an initiation", len(all))
	}
	return all[0].Data, all[1].Data
}

// sealed makes a data message of a content.
func (a *nativeActor) sealed(kind payload.Kind, content []byte) []byte {
	a.t.Helper()
	return a.seal(append(bytes.Clone(content), payload.Trailer(kind, 0)))
}

// tells sends the node a control message.
func (a *nativeActor) tells(number uint64, m message.Message) {
	a.t.Helper()
	content, err := message.Encode(nil, number, m)
	if err != nil {
		a.t.Fatal(err)
	}
	a.inject(a.sealed(payload.Control, content))
}

// says sends the node a packet with a payload.
func (a *nativeActor) says(text string) {
	a.inject(a.sealed(payload.IP, udpPacket(a.inner, a.node.inner, []byte(text))))
}

// told is what came in data messages.
type told struct {
	kind    payload.Kind // 0: a keepalive
	content []byte
	number  uint64
	message message.Message // of a control message
}

// opened opens all data messages that came.
func (a *nativeActor) opened() (all []told) {
	a.t.Helper()
	for _, p := range a.got() {
		if p.Data[0] != noise.TypeData {
			continue
		}
		plaintext := a.open(p.Data)
		if len(plaintext) == 0 {
			all = append(all, told{})
			continue
		}
		kind, content, ok := payload.Split(plaintext)
		if !ok {
			a.t.Fatalf("the node sent %x", plaintext)
		}
		m := told{kind: kind, content: content}
		if kind == payload.Control {
			var err error
			if m.number, m.message, err = message.Decode(content); err != nil {
				a.t.Fatalf("the node sent a control message that is none: %v", err)
			}
		}
		all = append(all, m)
	}
	return all
}

// messages returns the control messages of one type that came; all others are lost.
func (a *nativeActor) messages(t message.Type) (all []told) {
	a.t.Helper()
	return slices.DeleteFunc(a.opened(), func(m told) bool { return m.message == nil || m.message.Type() != t })
}

// packets returns the payloads of all IP packets that came; all else is lost.
func (a *nativeActor) packets() (all []string) {
	a.t.Helper()
	for _, m := range a.opened() {
		if m.kind == payload.IP {
			all = append(all, string(m.content[28:]))
		}
	}
	return all
}

// expectNoHandshake fails if any message but data came.
func (a *nativeActor) expectNoHandshake(what string) {
	a.t.Helper()
	for _, kind := range a.gotKinds() {
		if kind != noise.TypeData {
			a.t.Fatalf("%s: answered by type %d", what, kind)
		}
	}
}

// balance counts the bytes that go to the actor.
func balance(network *transporttest.Network, a *nativeActor) (out func() int) {
	sent := 0
	network.Tap(func(p *transporttest.Packet) {
		if p.To == a.addr {
			sent += len(p.Data)
		}
	})
	return func() int {
		synctest.Wait()
		return sent
	}
}

// expectDrops fails unless messages were dropped for exactly these reasons, so many each, since it was last called.
func (a *node) expectDrops(t *testing.T, what string, want map[DropReason]int) {
	t.Helper()
	synctest.Wait()
	for r := range a.drops {
		if got := int(a.drops[r].Swap(0)); got != want[DropReason(r)] {
			t.Errorf("%s: %d dropped as %q, want %d", what, got, DropReason(r), want[DropReason(r)])
		}
	}
}

// slotsHeld returns how many peers' second parts are waited for.
func slotsHeld(n *node) (held int) {
	synctest.Wait()
	for _, p := range n.snapshotPeers() {
		p.mu.Lock()
		if p.slot.responder != nil || p.slot.until != 0 {
			held++
		}
		p.mu.Unlock()
	}
	return held
}

func TestNativeActorAsInitiator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		out := balance(network, a)
		first, second, pending := a.parts(time.Now())
		a.inject(first)
		a.expectSilence("the first part alone")
		if n.usedIndices() != 0 || n.Status().Handshakes.InitiationsReceived != 0 || slotsHeld(n) != 1 {
			t.Error("the first part alone counts")
		}
		if a.peer().endpoint.Load() != nil {
			t.Error("the first part alone moves the endpoint")
		}
		a.inject(second)
		a.complete(pending, a.one(noise.TypeHybridResponse))
		if got, in := out(), len(first)+len(second); got > in {
			t.Errorf("%d bytes out for %d in", got, in)
		}
		if slotsHeld(n) != 0 {
			t.Error("the slot is still taken")
		}
		a.says("hello")
		n.expect("hello")
		a.sendTo("and back")
		if got := fmt.Sprint(a.packets()); got != "[and back]" {
			t.Errorf("the node sent %s", got)
		}
		n.expectDrops(t, "all", nil)
	})
}

func TestNativeActorAsResponder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		a.join(a.at)
		a.sendTo("waits")
		a.inject(a.answer(a.asked()))
		if got := fmt.Sprint(a.packets()); got != "[waits]" {
			t.Errorf("the node sent %s", got)
		}
		if s := n.Status().Handshakes; s.Completed != 1 {
			t.Errorf("handshakes: %+v", s)
		}
	})
}

// What gets lost, comes late, twice or from elsewhere costs another try and nothing else.
func TestNativePartsOutOfOrder(t *testing.T) {
	type scene struct {
		n             *node
		a             *nativeActor
		first, second []byte
		pending       *noise.HybridInitiator
	}
	elsewhere := netip.MustParseAddrPort("198.51.100.77:1001")
	none, kem := map[DropReason]int{}, map[DropReason]int{DropInKEM: 1}
	for _, c := range []struct {
		name  string
		play  func(s *scene)
		drops map[DropReason]int
	}{
		{"second part lost", func(s *scene) { s.a.inject(s.first) }, none},
		{"first part lost", func(s *scene) { s.a.inject(s.second) }, kem},
		{"second part first", func(s *scene) { s.a.inject(s.second); s.a.inject(s.first) }, kem},
		{"second part from another port", func(s *scene) {
			s.a.inject(s.first)
			s.a.network.Inject(netip.AddrPortFrom(s.a.addr.Addr(), s.a.addr.Port()+1), s.n.addrPort(), s.second)
		}, kem},
		{"second part from another address", func(s *scene) {
			s.a.inject(s.first)
			s.a.network.Inject(elsewhere, s.n.addrPort(), s.second)
		}, kem},
		{"second part of another sender index", func(s *scene) {
			s.a.inject(s.first)
			_, other, _ := s.a.parts(time.Now().Add(time.Second))
			s.a.inject(other)
		}, kem},
		{"second part of another initiation", func(s *scene) {
			s.a.inject(s.first)
			s.a.index--
			_, other, _ := s.a.parts(time.Now().Add(time.Second))
			s.a.inject(other)
		}, map[DropReason]int{DropInHandshake: 1}},
		{"second part after its time", func(s *scene) {
			s.a.inject(s.first)
			synctest.Wait()
			time.Sleep(slotLifetime)
			s.a.inject(s.second)
		}, kem},
		{"second of two first parts takes the place", func(s *scene) {
			s.a.inject(s.first)
			synctest.Wait()
			time.Sleep(time.Second)
			next, _, _ := s.a.parts(time.Now())
			s.a.inject(next)
			s.a.inject(s.second)
		}, kem},
		{"the same first part again", func(s *scene) {
			s.a.inject(s.first)
			synctest.Wait()
			time.Sleep(time.Second)
			s.a.inject(s.first)
		}, map[DropReason]int{DropInOldInitiation: 1}},
		{"two first parts at once", func(s *scene) {
			s.a.inject(s.first)
			next, second, _ := s.a.parts(time.Now().Add(time.Second))
			s.a.inject(next)
			s.a.inject(second)
		}, map[DropReason]int{DropInOldInitiation: 1, DropInKEM: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, a, _ := nativeScene(t)
				s := &scene{n: n, a: a}
				s.first, s.second, s.pending = a.parts(time.Now())
				c.play(s)
				a.expectSilence(c.name)
				n.expectDrops(t, c.name, c.drops)
				if n.usedIndices() != 0 || n.Status().Handshakes.InitiationsReceived != 0 || a.peer().endpoint.Load() != nil {
					t.Error("it left a trace")
				}
				time.Sleep(slotLifetime)
				if slotsHeld(n) != 0 {
					t.Error("a slot is still taken")
				}
				a.establish()
				a.says("then")
				n.expect("then")
				n.expectDrops(t, "the next try", nil)
			})
		})
	}
}

// The genuine second part still works after whatever anybody makes of it.
func TestNativeSlotOutlivesFalseSecondParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		first, second, pending := a.parts(time.Now())
		a.inject(first)
		for range 100 {
			synctest.Wait() // lest the tunnel be under load
			a.inject(a.remac(flipped(second, 8*100)))
			a.inject(a.remac(append(bytes.Clone(second[:8]), make([]byte, noise.KEMSize-8)...)))
		}
		a.expectSilence("false second parts")
		n.expectDrops(t, "false second parts", map[DropReason]int{DropInHandshake: 200})
		a.inject(second)
		a.complete(pending, a.one(noise.TypeHybridResponse))
	})
}

func TestNativeReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		first, second, pending := a.parts(time.Now())
		a.inject(first)
		a.inject(second)
		a.complete(pending, a.one(noise.TypeHybridResponse))
		a.says("one")
		n.expect("one")
		kp := a.peer().current.Load()
		n.expectDrops(t, "a handshake", nil)

		time.Sleep(time.Second)
		a.inject(second)
		a.expectNoHandshake("the second part again")
		n.expectDrops(t, "the second part again", map[DropReason]int{DropInKEM: 1})
		a.inject(first)
		a.inject(second)
		a.expectNoHandshake("both parts again")
		n.expectDrops(t, "both parts again", map[DropReason]int{DropInOldInitiation: 1, DropInKEM: 1})
		a.index-- // the same sender index
		_, fresh, _ := a.parts(time.Now())
		a.inject(first)
		a.inject(fresh)
		a.expectNoHandshake("the first part again and a fresh second")
		n.expectDrops(t, "the first part again and a fresh second", map[DropReason]int{DropInOldInitiation: 1, DropInKEM: 1})

		if a.peer().current.Load() != kp || n.usedIndices() != 1 || slotsHeld(n) != 0 {
			t.Error("a replay left a trace")
		}
		a.says("two")
		n.expect("two")
	})
}

func TestNativeStrangersAndOtherKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		stranger := &nativeActor{actor: newActor(n, network, 2), offer: a.offer}
		first, second, _ := stranger.parts(time.Now())
		stranger.inject(first)
		stranger.inject(second)
		stranger.expectSilence("a stranger")
		n.expectDrops(t, "a stranger", map[DropReason]int{DropInUnknownPeer: 1, DropInKEM: 1})

		// The peer's key claimed by one who does not have it.
		first, second, _ = stranger.parts(time.Now())
		own, _, _ := a.parts(time.Now())
		copy(first[40:88], own[40:88])
		stranger.inject(stranger.remac(first))
		stranger.inject(second)
		stranger.expectSilence("a stolen static key")
		n.expectDrops(t, "a stolen static key", map[DropReason]int{DropInHandshake: 1, DropInKEM: 1})

		for _, point := range lowOrderPoints() {
			first, second, _ := a.parts(time.Now())
			copy(first[8:40], point[:])
			a.inject(a.remac(first))
			a.inject(second)
			a.expectSilence("a point of low order")
			n.expectDrops(t, "a point of low order", map[DropReason]int{DropInHandshake: 1, DropInKEM: 1})
		}

		// An offer that lacks the suite all have, by one who may offer nothing else.
		for _, parameters := range []noise.Parameters{{Suites: 0, Layer: 3}, {Suites: 2, Layer: 3}, {Suites: 0xfe, Layer: 3}} {
			if _, _, err := a.remote.InitiateHybrid(nil, 1, tai64n.From(time.Now()), parameters, noise.Randomness{}); err == nil {
				t.Error("an offer without ChaCha20-Poly1305 can be made")
			}
		}
		a.establish()
	})
}

// Only the far end's PSK tells whether a response is right: nothing goes out under a session that is not shared.
func TestNativeWrongPSK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		a.join(a.at)
		right := crypto.PresharedKey{1}
		a.join(func(c *PeerChange) { c.PresharedKey = &right })
		a.psk = crypto.PresharedKey{2}
		a.sendTo("waits")
		first, second := a.asked()
		a.inject(a.answer(first, second))
		a.expectSilence("a response with another PSK")
		n.expectDrops(t, "a response with another PSK", map[DropReason]int{DropInHandshake: 1})
		a.psk = right
		a.inject(a.answer(first, second)) // the handshake still waits
		if got := fmt.Sprint(a.packets()); got != "[waits]" {
			t.Errorf("the node sent %s", got)
		}

		first, second, pending := a.parts(time.Now())
		a.inject(first)
		a.inject(second)
		for _, p := range a.got() {
			if p.Data[0] != noise.TypeHybridResponse {
				continue
			}
			if _, _, _, err := pending.Consume(p.Data, crypto.PresharedKey{2}); err == nil {
				t.Error("the node's response is right with another PSK")
			}
			if _, _, _, err := pending.Consume(p.Data, right); err != nil {
				t.Error(err)
			}
		}
	})
}

// A peer is pinned to its wire, in either role.
func TestMessagesOfTheOtherWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, native, network := nativeScene(t)
		plain := newActor(n, network, 2).join()

		msg, _ := native.initiation(time.Now())
		native.inject(msg)
		native.expectSilence("a WireGuard initiation from a native peer")
		n.expectDrops(t, "a WireGuard initiation from a native peer", map[DropReason]int{DropInWire: 1})

		plainNative := &nativeActor{actor: plain, offer: native.offer}
		first, second, _ := plainNative.parts(time.Now())
		plain.inject(first)
		plain.inject(second)
		plain.expectSilence("a native initiation from a WireGuard peer")
		n.expectDrops(t, "a native initiation from a WireGuard peer", map[DropReason]int{DropInWire: 1, DropInKEM: 1})
		if slotsHeld(n) != 0 {
			t.Error("a slot is taken")
		}

		// Responses of the other wire, to the index of a handshake that waits.
		native.join(native.at)
		native.sendTo("waits")
		first, second = native.asked()
		response := make([]byte, noise.ResponseSize)
		response[0] = noise.TypeResponse
		copy(response[8:], first[4:8])
		native.inject(native.restamp(response))
		native.expectSilence("a WireGuard response to a native initiation")
		n.expectDrops(t, "a WireGuard response to a native initiation", map[DropReason]int{DropInWire: 1})
		native.inject(native.answer(first, second))
		if got := fmt.Sprint(native.packets()); got != "[waits]" {
			t.Errorf("the node sent %s", got)
		}

		plain.join(plain.at)
		plain.sendTo("waits")
		initiation := plain.one(noise.TypeInitiation)
		response = make([]byte, noise.HybridResponseSize)
		response[0] = noise.TypeHybridResponse
		copy(response[8:], initiation[4:8])
		plain.inject(plainNative.remac(response))
		plain.expectSilence("a native response to a WireGuard initiation")
		n.expectDrops(t, "a native response to a WireGuard initiation", map[DropReason]int{DropInWire: 1})
		plain.inject(plain.response(initiation))
		if got := fmt.Sprint(plain.payloads()); got != "[waits]" {
			t.Errorf("the node sent %s", got)
		}
	})
}

// A slot is there for five seconds, and its secrets go with it.
func TestNativeSlotExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		others := []*nativeActor{a}
		for i := range byte(20) {
			others = append(others, newNativeActor(n, network, 10+i))
		}
		for _, o := range others {
			first, _, _ := o.parts(time.Now())
			o.inject(first)
		}
		if got := slotsHeld(n); got != len(others) {
			t.Fatalf("%d slots for %d peers", got, len(others))
		}
		for range 25 { // more from each peer take no more
			time.Sleep(initiationInterval)
			for _, o := range others {
				first, _, _ := o.parts(time.Now())
				o.inject(first)
			}
		}
		if got := slotsHeld(n); got != len(others) {
			t.Fatalf("%d slots for %d peers", got, len(others))
		}
		responder := a.peer().slot.responder
		time.Sleep(slotLifetime - 1)
		if got := slotsHeld(n); got != len(others) {
			t.Errorf("%d slots left before their time is over", got)
		}
		time.Sleep(time.Nanosecond)
		if got := slotsHeld(n); got != 0 {
			t.Errorf("%d slots left", got)
		}
		_, second, _ := a.parts(time.Now())
		if err := responder.ReadKEM(second); err != noise.ErrState {
			t.Errorf("what was in a slot has not been erased: %v", err)
		}
		if n.usedIndices() != 0 || len(n.agendaPeers()) != 0 {
			t.Error("first parts left something")
		}
	})
}

func TestNativeSlotsGoWithKeysPeersAndTheInterface(t *testing.T) {
	for name, end := range map[string]func(n *node, a *nativeActor){
		"the private key": func(n *node, a *nativeActor) {
			key, _ := crypto.GeneratePrivateKey()
			n.configure(Change{PrivateKey: &key})
			n.configure(Change{PrivateKey: &n.key})
		},
		"the peer": func(n *node, a *nativeActor) {
			n.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Remove: true}}})
			a.join(onNativeWire)
		},
		"the wire": func(n *node, a *nativeActor) {
			plain := WireGuard
			n.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Wire: &plain}}})
			a.join(onNativeWire)
		},
		"the interface": func(n *node, a *nativeActor) {
			n.dev.SetUp(false)
			synctest.Wait()
			n.dev.SetUp(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, a, _ := nativeScene(t)
				first, second, _ := a.parts(time.Now())
				a.inject(first)
				synctest.Wait()
				responder := a.peer().slot.responder
				end(n, a)
				synctest.Wait()
				if err := responder.ReadKEM(second); err != noise.ErrState {
					t.Errorf("what was in the slot has not been erased: %v", err)
				}
				a.inject(second)
				a.expectSilence("a second part whose first is gone")
				n.expectDrops(t, name, map[DropReason]int{DropInKEM: 1})
				time.Sleep(time.Second)
				a.establish()
			})
		})
	}
}

func TestNativeRetryTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		network.SetDefaultLink(transporttest.Link{Loss: 1})
		l := watch(network, a)
		l.reset()
		a.send(b, "waits")
		time.Sleep(session.RekeyAttemptTime - 2)
		var want []time.Duration
		at, jitter := time.Duration(0), 100*time.Millisecond
		for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			want = append(want, at)
			at += wait + jitter
		}
		for ; at < session.RekeyAttemptTime; at += session.RekeyTimeout + jitter {
			want = append(want, at)
		}
		l.expectTimes(t, "a", noise.TypeHybridInitiation, want...)
		l.expectTimes(t, "a", noise.TypeKEM, want...)
		if a.dropped(DropOutHandshake) != 0 {
			t.Error("gave up too early")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if a.dropped(DropOutHandshake) != 1 {
			t.Error("did not give up after 90 s")
		}
		l.reset()
		time.Sleep(time.Hour)
		if got := l.all(); len(got) != 0 {
			t.Errorf("%d messages after giving up", len(got))
		}
		network.SetDefaultLink(transporttest.Link{})
		a.send(b, "back")
		b.expect("back")
	})
}

// Nobody is sent more than it has sent itself, whatever it plays, and nothing but a cookie before both parts are verified.
func TestNativeNeverAmplifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		out := balance(network, a)
		in := 0
		give := func(msg []byte) {
			in += len(msg)
			a.inject(msg)
			if got := out(); got > in {
				t.Fatalf("%d bytes out for %d in", got, in)
			}
		}
		for i := range 50 {
			time.Sleep(time.Second)
			first, second, _ := a.parts(time.Now())
			switch i % 5 {
			case 0:
				give(first)
			case 1:
				give(second)
			case 2:
				give(flipped(first, 8*(len(first)-1))) // mac2
				give(second)
			case 3:
				give(first)
				give(a.remac(flipped(second, 8*40)))
			case 4:
				give(first)
				give(second)
				give(second)
				give(first)
			}
			for _, p := range a.got() {
				kind := p.Data[0]
				if kind != noise.TypeCookieReply && kind != noise.TypeHybridResponse {
					t.Errorf("answered by type %d", kind)
				}
				if kind == noise.TypeHybridResponse && i%5 != 4 || kind == noise.TypeCookieReply && i%5 != 2 {
					t.Errorf("play %d answered by type %d", i%5, kind)
				}
			}
		}
		if n.dropped(DropInMAC2) != 10 {
			t.Errorf("drops: %v", n.drops.snapshot())
		}
	})
}

// Without load too a mac2 that is neither zero nor right is answered with a cookie, and the next try has it right.
func TestNativeStaleCookieHealsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		wrong, second, _ := a.parts(time.Now())
		wrong = flipped(wrong, 8*(len(wrong)-5))
		a.inject(wrong)
		reply := a.one(noise.TypeCookieReply)
		a.inject(second)
		a.expectSilence("the second part of a first that was refused")
		n.expectDrops(t, "a wrong mac2", map[DropReason]int{DropInMAC2: 1, DropInKEM: 1})
		if err := a.stamper.ConsumeReply(reply, a.now()); err != nil {
			t.Fatal(err)
		}
		first, second, pending := a.parts(time.Now().Add(time.Second))
		if bytes.Equal(first[len(first)-noise.MACSize:], make([]byte, noise.MACSize)) {
			t.Fatal("no mac2")
		}
		a.inject(first)
		a.inject(second)
		a.complete(pending, a.one(noise.TypeHybridResponse))
	})
}

// The node as initiator: a response with a wrong mac2 gets it a cookie request of its own, and the right one afterwards works.
func TestNativeResponseWithWrongMAC2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		a.join(a.at)
		a.sendTo("waits")
		first, second := a.asked()
		response := a.answer(first, second)
		a.inject(flipped(response, 8*(len(response)-1)))
		a.one(noise.TypeCookieReply)
		n.expectDrops(t, "a wrong mac2", map[DropReason]int{DropInMAC2: 1})
		if n.Status().Handshakes.Completed != 0 {
			t.Error("it completed the handshake")
		}
		a.inject(response)
		if got := fmt.Sprint(a.packets()); got != "[waits]" {
			t.Errorf("the node sent %s", got)
		}
	})
}

// A node restarts: its peer's cookie is from a secret that is gone. Whoever holds it heals by itself.
func TestNativeCookieOfALostSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		a.join(a.at)
		a.sendTo("waits")
		first, _ := a.asked()
		reply, err := a.checker.Reply(nil, first, n.addrPort(), a.now())
		if err != nil {
			t.Fatal(err)
		}
		a.inject(reply)
		a.expectSilence("a cookie reply")
		a.checker = cookie.NewChecker(a.public) // restarted
		time.Sleep(1100 * time.Millisecond)
		first, _ = a.asked()
		if a.checker.AcceptsMAC2(first, n.addrPort(), a.now()) {
			t.Fatal("the cookie is still good: the test tests nothing")
		}
		if reply, err = a.checker.Reply(nil, first, n.addrPort(), a.now()); err != nil {
			t.Fatal(err)
		}
		a.inject(reply)
		time.Sleep(2100 * time.Millisecond)
		first, second := a.asked()
		if !a.checker.AcceptsMAC2(first, n.addrPort(), a.now()) {
			t.Error("the new cookie was not used")
		}
		a.inject(a.answer(first, second))
		if got := fmt.Sprint(a.packets()); got != "[waits]" {
			t.Errorf("the node sent %s", got)
		}
	})
}

func TestNativeUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		n := newLoadable(t, network, 1)
		a := newNativeActor(n.node, network, 1)
		synctest.Wait()
		first, second, _ := a.parts(time.Now())
		n.underLoad(func() {
			a.inject(first)
			a.inject(second)
		})
		if err := a.stamper.ConsumeReply(a.one(noise.TypeCookieReply), a.now()); err != nil {
			t.Fatal(err)
		}
		if n.usedIndices() != 0 || slotsHeld(n.node) != 0 {
			t.Error("an initiation without a cookie was looked at")
		}
		first, second, pending := a.parts(time.Now().Add(time.Second))
		n.underLoad(func() {
			a.inject(first)
			a.inject(second)
		})
		a.complete(pending, a.one(noise.TypeHybridResponse))

		// From another port the cookie is worth nothing.
		a.move(netip.AddrPortFrom(a.addr.Addr(), a.addr.Port()+1))
		first, second, _ = a.parts(time.Now().Add(2 * time.Second))
		n.underLoad(func() {
			a.inject(first)
			a.inject(second)
		})
		a.one(noise.TypeCookieReply)

		// A response needs a cookie as well.
		a.join(a.at)
		time.Sleep(time.Minute)
		a.sendTo("waits")
		time.Sleep(session.RekeyTimeout)
		var asked [][]byte
		for _, p := range a.got() {
			if kind := p.Data[0]; kind == noise.TypeHybridInitiation || kind == noise.TypeKEM {
				asked = append(asked, p.Data)
			}
		}
		if len(asked) < 2 {
			t.Fatal("the node does not initiate")
		}
		asked = asked[len(asked)-2:]
		a.stamper = cookie.NewStamper(n.public)
		response := a.answer(asked[0], asked[1])
		n.underLoad(func() { a.inject(response) })
		if err := a.stamper.ConsumeReply(a.one(noise.TypeCookieReply), a.now()); err != nil {
			t.Fatal(err)
		}
		response = a.answer(asked[0], asked[1])
		n.underLoad(func() { a.inject(response) })
		if got := fmt.Sprint(a.packets()); got != "[waits]" {
			t.Errorf("after a response with a cookie: %s; drops %v", got, n.drops.snapshot())
		}
	})
}

// Every bit of the three messages, with mac1 made anew: no session, and the genuine one still makes one.
func TestEveryFlippedBitOfANativeHandshakeGivesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		first, second, pending := a.parts(time.Now())
		mac2 := 0
		for bit := range len(first) * 8 {
			msg := flipped(first, bit)
			if bit < (len(first)-2*noise.MACSize)*8 && bit >= 32 {
				a.remac(msg)
			}
			a.inject(msg)
			a.inject(second)
			for _, p := range a.got() {
				if mac2++; p.Data[0] != noise.TypeCookieReply || bit < (len(first)-noise.MACSize)*8 {
					t.Fatalf("initiation with bit %d flipped: answered by type %d", bit, p.Data[0])
				}
			}
		}
		if mac2 != 8*noise.MACSize {
			t.Errorf("%d cookies", mac2)
		}
		if slotsHeld(n) != 0 {
			t.Error("a false initiation holds a slot")
		}
		a.inject(first)
		for bit := range len(second) * 8 {
			synctest.Wait()
			msg := flipped(second, bit)
			if bit < (len(second)-noise.MACSize)*8 && bit >= 32 {
				a.remac(msg)
			}
			a.inject(msg)
		}
		a.expectSilence("flipped second parts")
		if n.usedIndices() != 0 || n.Status().Handshakes.InitiationsReceived != 0 {
			t.Error("a false initiation holds an index")
		}
		a.inject(second)
		a.complete(pending, a.one(noise.TypeHybridResponse))
		a.says("genuine")
		n.expect("genuine")
	})
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		a.join(a.at)
		a.sendTo("waits")
		first, second := a.asked()
		response := a.answer(first, second)
		for bit := range len(response) * 8 {
			msg := flipped(response, bit)
			if bit < (len(response)-2*noise.MACSize)*8 && bit >= 32 {
				a.remac(msg)
			}
			a.inject(msg)
			synctest.Wait() // lest the tunnel be under load
		}
		for _, kind := range a.gotKinds() {
			if kind != noise.TypeCookieReply {
				t.Fatalf("a flipped response was answered by type %d", kind)
			}
		}
		if s := n.Status().Handshakes; s.Completed != 0 || s.ResponsesReceived != 0 || s.CookiesSent != 8*noise.MACSize {
			t.Errorf("handshakes: %+v", s)
		}
		a.inject(response)
		if got := fmt.Sprint(a.packets()); got != "[waits]" {
			t.Errorf("after the genuine response: %s", got)
		}
	})
}
