package tunnel

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport/transporttest"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
)

// This file holds defects of the native wire that were found once.

// sealedBy is the plaintext as a message under kp.
func sealedBy(t *testing.T, kp *keypair, plaintext []byte) []byte {
	t.Helper()
	counter, ok := kp.Reserve(1, len(plaintext)+noise.TagSize)
	if !ok {
		t.Fatal("no counter left")
	}
	var nonce session.Nonce
	msg := make([]byte, len(plaintext)+session.Overhead)
	return msg[:kp.Seal(msg, counter, plaintext, &nonce)]
}

// controlPlaintext is a control message with its trailer.
func controlPlaintext(t *testing.T, number uint64, m message.Message) []byte {
	t.Helper()
	content, err := message.Encode(nil, number, m)
	if err != nil {
		t.Fatal(err)
	}
	return append(content, payload.Trailer(payload.Control, 0))
}

// settledNativePair has a session, a its initiator, and nothing more to say about the path.
func settledNativePair(t *testing.T, link transporttest.Link) (a, b *node, network *transporttest.Network) {
	network = transporttest.New(1)
	network.SetDefaultLink(link)
	a, b = newNativePair(t, network)
	a.send(b, "first")
	time.Sleep(20 * time.Second)
	b.expect("first")
	return a, b, network
}

// An open super-packet lies under the start of what follows it; that must not be put back before a control message is read.
func TestControlMessageBehindTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		packet, o := superPacket(2)
		m, capture := newWirePath(t, Culvert, crypto.AES256GCM, packet, o)
		m.send()
		kp := onlyPeer(m.out.tunnel).current.Load()
		train, now := &capture.trains[0], m.in.tunnel.clock.now()
		for d, next := train.Next(0); d != nil; d, next = train.Next(next) {
			m.in.datagram(d, train, now)
		}
		m.in.datagram(sealedBy(t, kp, controlPlaintext(t, 0, message.Echo{ID: 5, Sent: 9})), train, now)
		got := <-m.in.tunnel.controls
		if _, said, err := message.Decode(got.content); err != nil || said != (message.Echo{ID: 5, Sent: 9}) {
			t.Errorf("%v, %v came of an echo", said, err)
		}
	})
}

// A peer that seems to be now here, now there draws no more than it sends.
func TestRoamingIsNoAmplifier(t *testing.T) {
	for _, every := range []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			a, b, network := settledNativePair(t, transporttest.Link{})
			victim := netip.MustParseAddr("198.51.100.7")
			var told atomic.Int64
			network.Tap(func(p *transporttest.Packet) {
				if p.To.Addr() == victim {
					told.Add(int64(len(p.Data)))
				}
			})
			const messages = 60
			forged := 0
			for i := range messages {
				msg := sealedBy(t, a.tunnelPeer(b).current.Load(), nil)
				forged += len(msg)
				network.Inject(netip.AddrPortFrom(victim, uint16(1000+i%2)), b.addrPort(), msg)
				time.Sleep(every)
				synctest.Wait()
			}
			if got := int(told.Load()); got > 2*forged {
				t.Errorf("%d bytes from false addresses, one message in %v, drew %d", forged, every, got)
			}
		})
	}
}

func TestLayerOfThePeerIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		var lines atomic.Int64
		a := newNode(t, network, 1)
		addr := netip.MustParseAddr("192.0.2.2")
		b := newNodeOn(t, network.Host(addr), addr, 2, func(o *Options) {
			o.Logf = func(string, ...any) { lines.Add(1) }
		})
		a.addPeerNode(b, true, onNativeWire)
		b.addPeerNode(a, false, onNativeWire)
		synctest.Wait() // both are up
		a.send(b, "first")
		b.expect("first")
		time.Sleep(3 * time.Second)
		for i := range 100 { // a's hello was number 1
			hello := message.Hello{MTU: 1, Layer: uint8(2 + i%2)}
			network.Inject(a.addrPort(), b.addrPort(), sealedBy(t, a.tunnelPeer(b).current.Load(), controlPlaintext(t, uint64(2+i), hello)))
			time.Sleep(20 * time.Millisecond)
		}
		if got := lines.Load(); got != 1 {
			t.Errorf("%d lines were logged", got)
		}
	})
}

func TestPacketsThatMayBeFragmentedCostNoICMP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := settledNativePair(t, transporttest.Link{MTU: 1400})
		for range 300 {
			a.send(b, string(make([]byte, 1390)))
		}
		synctest.Wait()
		if !a.icmp.Allow(a.clock.now()) {
			t.Error("nothing was told to anybody, and now nobody else can be told anything")
		}
	})
}

// Probes are made to be lost.
func TestProbesAreNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{MTU: 1400, Delay: 5 * time.Millisecond})
		a, b := newNativePair(t, network)
		for range 20 {
			a.send(b, "one")
			time.Sleep(time.Second)
		}
		if s := a.Status().Peers[0].Native; s.Loss == nil || *s.Loss != 0 || s.RTT < 10*time.Millisecond {
			t.Errorf("on a lossless link: %+v", s)
		}
	})
}

// A peer's goodbye under the session before may be handled after the handshake it began when it came back.
func TestLateGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, network := settledNativePair(t, transporttest.Link{})
		p := a.tunnelPeer(b)
		old := p.current.Load()
		goodbye := sealedBy(t, old, controlPlaintext(t, 0, message.Goodbye{Reason: message.ReasonStopping}))
		var hold atomic.Bool // so that b's new session stays unconfirmed
		hold.Store(true)
		network.Tap(func(p *transporttest.Packet) {
			p.Drop = p.Drop || hold.Load() && p.From == a.addrPort() && p.Data[0] == noise.TypeData
		})
		p.wantHandshake.Store(true)
		a.attention.add(p)
		synctest.Wait()
		if p.current.Load() == old || b.tunnelPeer(a).next == nil {
			t.Fatal("there is no new session")
		}
		hold.Store(false)
		network.Inject(a.addrPort(), b.addrPort(), goodbye)
		synctest.Wait()
		if b.tunnelPeer(a).current.Load() != nil {
			t.Error("the old session is still there")
		}
		a.send(b, "at once")
		b.expect("at once")
	})
}

func TestOnlyDataIsData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, network := settledNativePair(t, transporttest.Link{})
		time.Sleep(20 * time.Second)
		p := b.tunnelPeer(a)
		network.Inject(a.addrPort(), b.addrPort(), sealedBy(t, a.tunnelPeer(b).current.Load(), []byte{1, 2, 9 << 4}))
		synctest.Wait()
		if b.dropped(DropInKind) != 1 || p.timers.keepalive.Load() != 0 {
			t.Errorf("content of an unknown kind owes an answer; drops %v", b.drops.snapshot())
		}
		if err := a.Push(b.public, "subject", make([]byte, 3000)); err != nil { // in fragments
			t.Fatal(err)
		}
		synctest.Wait()
		if p.native.Load().maintain.Load() != 0 {
			t.Error("a control message in fragments passes for data")
		}
	})
}

func TestPushAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := settledNativePair(t, transporttest.Link{})
		a.Close()
		if err := a.Push(b.public, "subject", nil); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

func TestPushMakesASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		var pushed []string
		a := newNode(t, network, 1)
		addr := netip.MustParseAddr("192.0.2.2")
		b := newNodeOn(t, network.Host(addr), addr, 2, func(o *Options) {
			o.Pushed = func(_ crypto.PublicKey, subject string, document []byte) {
				pushed = append(pushed, subject+" "+string(document))
			}
		})
		a.addPeerNode(b, true, onNativeWire)
		b.addPeerNode(a, false, onNativeWire)
		synctest.Wait()
		if err := a.Push(b.public, "subject", []byte("document")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(pushed) != 1 || pushed[0] != "subject document" {
			t.Errorf("%q came", pushed)
		}
	})
}

// Sizes that worked while the network fragmented them do so no more when it must not.
func TestLastWireGuardPeerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{MTU: 1400})
		a, b := newNativePair(t, network)
		stock := newNode(t, network, 3)
		a.addPeerNode(stock, true)
		a.send(b, "first")
		time.Sleep(20 * time.Second)
		b.expect("first")
		a.configure(Change{Peers: []PeerChange{{PublicKey: stock.public, Remove: true}}})
		synctest.Wait()
		large := string(make([]byte, 1300))
		a.send(b, large)
		b.expect(large)
	})
}

// That an endpoint becomes known, or that the socket stops fragmenting, is no move: nothing was known of the path before.
func TestFirstEndpointIsNoMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: 5 * time.Millisecond})
		a, b := newNativePair(t, network)
		a.send(b, "first")
		time.Sleep(100 * time.Millisecond)
		b.expect("first")
		for _, n := range []*node{a, b} {
			if s := n.Status().Peers[0].Native; !s.PathSettled || s.InnerMTU != testMTU {
				t.Errorf("after five round trips: %+v", s)
			}
		}
	})
}

func TestPostQuantumRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		required, native, stock := true, Culvert, WireGuard
		a.configure(Change{PostQuantum: &required})
		stranger := publicKeys(1)[0]
		for name, c := range map[string]Change{
			"a peer as wg adds it":       {Peers: []PeerChange{{PublicKey: stranger}}},
			"a peer on the other wire":   {Peers: []PeerChange{{PublicKey: stranger, Wire: &stock}}},
			"a peer that changes wires":  {Peers: []PeerChange{{PublicKey: b.public, Wire: &stock}}},
			"all peers replaced by that": {ReplacePeers: true, Peers: []PeerChange{{PublicKey: stranger}}},
		} {
			if err := a.Configure(c); !errors.Is(err, ErrInvalidChange) {
				t.Errorf("%s: %v", name, err)
			}
		}
		a.send(b, "still there")
		b.expect("still there")
		a.configure(Change{Peers: []PeerChange{{PublicKey: stranger, Wire: &native}, {PublicKey: stranger}, {PublicKey: publicKeys(2)[1], UpdateOnly: true}}})
		a.configure(Change{Peers: []PeerChange{{PublicKey: stranger, Remove: true}}})
		required = false
		a.configure(Change{PostQuantum: &required, Peers: []PeerChange{{PublicKey: stranger}}})
		required = true
		if err := a.Configure(Change{PostQuantum: &required}); !errors.Is(err, ErrInvalidChange) {
			t.Errorf("required while a peer is on the other wire: %v", err)
		}
	})
}

// What a peer is told, and a handshake that failed for a key or a wire that was wrong, follow a change at once.
func TestChangesTakeEffectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := settledNativePair(t, transporttest.Link{})
		stock, native := WireGuard, Culvert
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Wire: &stock}}})
		synctest.Wait()
		if b.tunnelPeer(a).current.Load() != nil {
			t.Error("the far end was not told")
		}
		a.send(b, "waits")
		time.Sleep(3 * time.Second)
		b.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Wire: &stock}}})
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Wire: &native}}})
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Wire: &stock}}})
		b.expect("waits")
		key := crypto.PresharedKey{1}
		b.configure(Change{Peers: []PeerChange{{PublicKey: a.public, PresharedKey: &key, Wire: &native}}})
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Wire: &native}}})
		a.send(b, "waits again")
		time.Sleep(10 * time.Second)
		b.expect()
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, PresharedKey: &key}}})
		b.expect("waits again")
	})
}

// A document that was not acknowledged when the far end said goodbye asks for the next session itself.
func TestPushOutlivesAGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		var pushed atomic.Int32
		a := newNode(t, network, 1)
		addr := netip.MustParseAddr("192.0.2.2")
		b := newNodeOn(t, network.Host(addr), addr, 2, func(o *Options) {
			o.Pushed = func(crypto.PublicKey, string, []byte) { pushed.Add(1) }
		})
		a.addPeerNode(b, true, onNativeWire)
		b.addPeerNode(a, false, onNativeWire)
		synctest.Wait()
		a.send(b, "first")
		time.Sleep(20 * time.Second)
		b.expect("first")
		var lose atomic.Bool
		lose.Store(true)
		network.Tap(func(p *transporttest.Packet) { p.Drop = p.Drop || lose.Load() && p.From == a.addrPort() })
		if err := a.Push(b.public, "subject", []byte("document")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		goodbye := sealedBy(t, b.tunnelPeer(a).current.Load(), controlPlaintext(t, 0, message.Goodbye{}))
		lose.Store(false)
		network.Inject(b.addrPort(), a.addrPort(), goodbye)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := pushed.Load(); got != 1 {
			t.Errorf("the document came %d times", got)
		}
	})
}
