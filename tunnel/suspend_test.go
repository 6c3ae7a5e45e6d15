package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/access"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// heirloom is the device of a tunnel that another goes on with: it is up already.
type heirloom struct {
	*devicetest.Device
	events chan device.Event
	t      *testing.T
}

// SetCarrier fails the test where the carrier goes: what the kernel has for the interface then is lost.
func (d *heirloom) SetCarrier(on bool) error {
	if !on {
		d.t.Error("the carrier goes off")
	}
	return d.Device.SetCarrier(on)
}

func (d *heirloom) Events() <-chan device.Event { return d.events }
func (d *heirloom) Close() error                { close(d.events); return d.Device.Close() }

// inheritance is a network that has ports open already.
type inheritance struct {
	transport.Network
	port  transport.Socket
	lanes []transport.Socket
}

func (n *inheritance) Open(o transport.Options) (s transport.Socket, err error) {
	switch {
	case !o.Unwatched && n.port != nil:
		s, n.port = n.port, nil
	case o.Unwatched && len(n.lanes) > 0:
		s, n.lanes = n.lanes[0], n.lanes[1:]
	default:
		return n.Network.Open(o)
	}
	return s, s.(transport.Interrupter).Interrupt(false)
}

// encoded is a state on its way.
func encoded(t *testing.T, s *State) *State {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.Erase()
	out, err := DecodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// handOver has another tunnel go on for a, after a while, and then a's owner knows it by a.
func (a *node) handOver(while time.Duration, peers ...*node) {
	a.t.Helper()
	a.handOverWith(while, func(*State) {}, peers...)
}

func (a *node) handOverWith(while time.Duration, change func(*State), peers ...*node) {
	t := a.t.(*testing.T)
	t.Helper()
	state, err := a.Suspend()
	if err != nil {
		t.Fatal(err)
	}
	state = encoded(t, state)
	change(state)
	time.Sleep(while)
	network := &inheritance{Network: a.host, port: a.bound.Load().socket}
	if ports := a.lanePorts.Load(); ports != nil {
		network.lanes = ports.sockets
	}
	dev := &heirloom{a.dev, make(chan device.Event, 1), t}
	dev.events <- device.EventUp
	var c Change
	port := uint16(testPort)
	c.PrivateKey, c.ListenPort, c.ReplacePeers = &a.key, &port, true
	for _, b := range peers {
		w := a.tunnelPeer(b).wire()
		p := PeerChange{PublicKey: b.public, Wire: &w}
		if may := a.tunnelPeer(b).access.Load(); may != nil {
			p.Access = may.Policy()
		}
		if b.inner.IsValid() {
			p.AllowedIPs = []AllowedIPChange{{Prefix: netip.PrefixFrom(b.inner, 32)}}
		}
		c.Peers = append(c.Peers, p)
	}
	tun, err := New(dev, network, Options{Logf: t.Logf, Restore: state})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tun.Close() })
	a.Tunnel = tun
	if err := a.dev.Interrupt(false); err != nil {
		t.Fatal(err)
	}
	a.configure(c)
}

// count sends numbered packets both ways, one a millisecond, until it is ended, and then fails unless all have arrived once.
func count(t *testing.T, a, b *node) (end func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	n := 0
	go func() {
		defer close(ended)
		for ; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			for q := range len(a.dev.Queues()) {
				a.dev.Queue(q).Push(udpPacket(a.inner, b.inner, fmt.Append(nil, q, "-", n)), noOffload)
			}
			for q := range len(b.dev.Queues()) {
				b.dev.Queue(q).Push(udpPacket(b.inner, a.inner, fmt.Append(nil, q, "-", n)), noOffload)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return func() {
		t.Helper()
		close(done)
		<-ended
		time.Sleep(time.Second)
		for _, x := range []struct{ to, from *node }{{a, b}, {b, a}} {
			seen := make(map[string]int)
			for _, text := range x.to.received() {
				seen[text]++
			}
			want := n * len(x.from.dev.Queues())
			for text, times := range seen {
				if times != 1 {
					t.Errorf("%q arrived %d times", text, times)
				}
			}
			if len(seen) != want {
				t.Errorf("%d of %d packets arrived at %v; drops %v and %v", len(seen), want, x.to.inner, x.to.Status().Drops, x.from.Status().Drops)
			}
		}
	}
}

// noncesOf fails the test when two data messages of one session have the same counter, in what is sent from now on.
func noncesOf(t *testing.T, network *transporttest.Network) {
	type nonce struct {
		index   uint32
		counter uint64
	}
	seen := make(map[nonce][]byte)
	t.Cleanup(network.Tap(func(p *transporttest.Packet) {
		data := p.Data
		if kind, ok := noise.MessageType(data); !ok || kind != noise.TypeData || len(data) < noise.DataHeaderSize {
			return
		}
		n := nonce{noise.ReceiverIndex(data), binary.LittleEndian.Uint64(data[8:])}
		if old := seen[n]; old != nil && !bytes.Equal(old, data) {
			t.Errorf("counter %d of session %x was used twice", n.counter, n.index)
		}
		seen[n] = bytes.Clone(data)
	}))
}

// Sessions go on in the successor, on both wires and with lanes, at either end, and nothing is lost.
func TestHandOver(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		for _, queues := range []int{1, 2} {
			t.Run(fmt.Sprint(wire, queues), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network := transporttest.New(1)
					a, b := newQueues(t, network, 1, queues), newQueues(t, network, 2, queues)
					on := func(c *PeerChange) { c.Wire = &wire }
					a.addPeerNode(b, true, on)
					b.addPeerNode(a, false, on)
					synctest.Wait()
					a.send(b, "one")
					b.expect("one")
					time.Sleep(5 * time.Second)
					noncesOf(t, network)
					completed := b.Status().Handshakes.Completed
					end := count(t, a, b)
					for range 3 {
						time.Sleep(500 * time.Millisecond)
						a.handOver(30*time.Millisecond, b)
						time.Sleep(500 * time.Millisecond)
						b.handOver(30*time.Millisecond, a)
					}
					time.Sleep(5 * time.Second)
					end()
					if wire == WireGuard && b.Status().Handshakes.Completed != 0 {
						t.Errorf("%d handshakes before, more afterwards", completed)
					}
					if queues > 1 && wire == Culvert {
						time.Sleep(3 * time.Second)
						keepsUsing(t, a, b, 4)
						a.expectLanes(b, queues, queues)
					}
					if s := a.Status().Peers[0]; s.ReceivedPackets < 3000 || s.LastHandshake.IsZero() {
						t.Errorf("the peer's counters began anew: %+v", s)
					}
				})
			})
		}
	}
}

// Answers that only a flow lets through go on, and what no flow lets through stays out.
func TestHandOverKeepsFlows(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(wire.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := newPairOn(t, wire, transporttest.New(1))
				client.send(server, "before")
				server.expectPayloads("before")
				server.restrict(client, toServer(server))
				client.sendPorts(server, 1000, 53, "query")
				server.expectPayloads("query")
				time.Sleep(time.Second)
				for range 2 {
					server.handOver(30*time.Millisecond, client)
					server.sendPorts(client, 53, 1000, "answer")
					client.expectPayloads("answer")
					server.sendPorts(client, 53, 1001, "another's")
					client.expectPayloads()
					server.expectPayloads("error")
				}
				time.Sleep(181 * time.Second) // longer than they last
				server.handOver(30*time.Millisecond, client)
				server.sendPorts(client, 53, 1000, "late answer")
				client.expectPayloads()
				server.expectPayloads("error")
			})
		})
	}
}

// All flows together have no more room in a successor than they may have.
func TestHandOverBoundsFlows(t *testing.T) {
	network := transporttest.New(1)
	s := &State{Version: StateVersion, Now: time.Minute}
	keys := publicKeys(20)
	may := policy(t, access.Spec{Rules: []access.Rule{{Action: access.Allow, Protocols: []uint8{access.UDP}}}})
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	s.Public = key.Public()
	c := Change{PrivateKey: &key}
	for _, k := range keys {
		s.Peers = append(s.Peers, PeerState{Public: k, Flows: &access.Kept{Room: access.MaxFlows}})
		c.Peers = append(c.Peers, PeerChange{PublicKey: k, Access: may})
	}
	tun, err := newTunnel(devicetest.New("wg0", testMTU, 1), network.Host(netip.MustParseAddr("192.0.2.1")), Options{Restore: s})
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	if err := tun.Configure(c); err != nil {
		t.Fatal(err)
	}
	room := 0
	for _, p := range tun.snapshotPeers() {
		room += p.access.Load().Room()
	}
	if want := MaxFlows + 4*access.MinFlows; room != want {
		t.Errorf("room for %d flows, want %d", room, want)
	}
}

// What was received before is not taken again, and an initiation neither.
func TestHandOverKeepsReplaysOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNode(t, network, 1), newNode(t, network, 2)
		var sent [][]byte
		remove := network.Tap(func(p *transporttest.Packet) {
			if p.To == a.addrPort() {
				sent = append(sent, bytes.Clone(p.Data))
			}
		})
		a.addPeerNode(b, true)
		b.addPeerNode(a, true)
		synctest.Wait()
		b.send(a, "once")
		a.expect("once")
		remove()
		a.handOver(0, b)
		synctest.Wait()
		replayer, err := network.Host(netip.MustParseAddr("192.0.2.99")).Open(transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer replayer.Close()
		before := a.Status().Peers[0].Endpoint.Remote
		for _, data := range sent {
			replayer.NewSender().Send([]transport.Train{{Buf: data, N: len(data), Endpoint: transport.Endpoint{Remote: a.addrPort()}}})
		}
		time.Sleep(time.Second)
		a.expect()
		if a.dropped(DropInReplay) == 0 || a.Status().Peers[0].Endpoint.Remote != before {
			t.Errorf("drops %v, endpoint %v", a.Status().Drops, a.Status().Peers[0].Endpoint)
		}
	})
}

// The far end roams, rekeys or gives up while nobody is there.
func TestHandOverWhileTheFarEndMoves(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(fmt.Sprint(wire), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newNode(t, network, 1), newNode(t, network, 2)
				on := func(c *PeerChange) { c.Wire = &wire }
				a.addPeerNode(b, false, on) // only b knows where the other is
				b.addPeerNode(a, true, on)
				b.send(a, "one")
				a.expect("one")
				time.Sleep(5 * time.Second)
				state, err := a.Suspend()
				if err != nil {
					t.Fatal(err)
				}
				state.Erase()
				if err := a.Resume(); err != nil {
					t.Fatal(err)
				}
				a.send(b, "resumed")
				b.expect("resumed")
				// It is elsewhere, and says so while nobody listens.
				port := uint16(4444)
				a.handOverWith(0, func(*State) {
					b.configure(Change{ListenPort: &port})
					b.send(a, "from elsewhere")
					time.Sleep(100 * time.Millisecond)
				}, b)
				a.expect("from elsewhere")
				a.send(b, "follows")
				b.expect("follows")
				// It begins a new session while nobody listens.
				time.Sleep(119 * time.Second)
				b.send(a, "before")
				a.handOverWith(0, func(*State) {
					for range 5 {
						time.Sleep(time.Second)
						b.send(a, "rekeyed")
					}
				}, b)
				time.Sleep(10 * time.Second)
				got := a.received()
				if len(got) != 6 {
					t.Errorf("received %q", got)
				}
				a.send(b, "and back")
				b.expect("and back")
				// So long that nothing is left of the session.
				a.handOver(4*time.Minute, b)
				a.send(b, "anew")
				time.Sleep(10 * time.Second)
				b.expect("anew")
			})
		})
	}
}

func TestSuspendAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newLanedPair(t, transporttest.New(1), 2, 2)
		end := count(t, a, b)
		for range 5 {
			time.Sleep(100 * time.Millisecond)
			s, err := a.Suspend()
			if err != nil {
				t.Fatal(err)
			}
			s.Erase()
			if err := a.Configure(Change{}); !errors.Is(err, ErrSuspended) {
				t.Errorf("configured: %v", err)
			}
			if _, err := a.Suspend(); !errors.Is(err, ErrSuspended) {
				t.Errorf("suspended twice: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
			if err := a.Resume(); err != nil {
				t.Fatal(err)
			}
		}
		end()
		time.Sleep(3 * time.Minute) // it rekeys as ever
		keepsUsing(t, a, b, 5)
		s, err := a.Suspend()
		if err != nil {
			t.Fatal(err)
		}
		s.Erase()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Suspend(); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if b.tunnelPeer(a).current.Load() == nil {
			t.Error("the far end was told that the tunnel has ended, and another goes on with it")
		}
	})
}

// A state that is another tunnel's, or makes no sense, is as if there were none.
func TestRestoreRefuses(t *testing.T) {
	for name, change := range map[string]func(*State){
		"another key":          func(s *State) { s.Public[0] ^= 1 },
		"another wire":         func(s *State) { s.Peers[0].Wire = Culvert },
		"no such suite":        func(s *State) { s.Peers[0].Keypairs[0].Session.Suite = 77 },
		"no keys":              func(s *State) { s.Peers[0].Keypairs[0].Erase() },
		"no place":             func(s *State) { s.Peers[0].Keypairs[0].Place = 9 },
		"lanes on WireGuard":   func(s *State) { k := &s.Peers[0].Keypairs[0]; k.Lanes = append(k.Lanes, k.Session) },
		"a counter at its end": func(s *State) { s.Peers[0].Keypairs[0].Session.Next = 1<<64 - 1 },
		"a window beyond":      func(s *State) { s.Peers[0].Keypairs[0].Session.Window.Words = []uint64{1 << 60} },
		"too long a window":    func(s *State) { s.Peers[0].Keypairs[0].Session.Window.Words = make([]uint64, 1000) },
		"from the future":      func(s *State) { s.Peers[0].Keypairs[0].Session.Created = s.Now + 1 },
		"before all time":      func(s *State) { s.Peers[0].Keypairs[0].Session.Created = -1 },
		"nothing":              func(s *State) { s.Peers = nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newPair(t, transporttest.New(1))
				a.send(b, "one")
				b.expect("one")
				b.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Endpoint: &transport.Endpoint{Remote: a.addrPort()}}}})
				a.handOverWith(0, change, b)
				if kp := a.tunnelPeer(b).current.Load(); kp != nil {
					t.Error("there is a session")
				}
				// And it works.
				a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Endpoint: &transport.Endpoint{Remote: b.addrPort()}}}})
				time.Sleep(6 * time.Second)
				a.send(b, "two")
				time.Sleep(10 * time.Second)
				b.expect("two")
			})
		})
	}
}

func TestStateVersion(t *testing.T) {
	b, err := (&State{Version: StateVersion + 1}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeState(b); !errors.Is(err, ErrState) {
		t.Errorf("%v", err)
	}
}

// FuzzState: whatever is decoded is encoded as it was, and a tunnel can be made of it.
func FuzzState(f *testing.F) {
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		f.Fatal(err)
	}
	peer := publicKeys(1)[0]
	s := &State{Version: StateVersion, Now: time.Minute, Public: key.Public(), Peers: []PeerState{{Public: peer,
		Endpoint: &EndpointState{Remote: netip.MustParseAddrPort("192.0.2.1:1")}, Keypairs: []KeypairState{{Place: PlaceCurrent}}}}}
	k := &s.Peers[0].Keypairs[0].Session
	k.Send[0], k.Receive[0], k.Suite = 1, 2, crypto.ChaCha20Poly1305
	k.Window.Max, k.Window.Words = 3, []uint64{7}
	s.Peers[0].Flows = &access.Kept{Room: access.MinFlows, Flows: make([]byte, 46)}
	may := access.NewState(policy(f, toServer(&node{inner: netip.MustParseAddr("10.0.0.1")})), time.Now())
	may.Check(access.FromPeer, udpBetween(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), 1000, 53, ""), time.Second)
	for range 2 {
		b, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		s.Peers[0].Wire, s.Peers[0].Flows = Culvert, may.Keep(time.Second)
		s.Peers[0].Keypairs[0].Lanes = append(s.Peers[0].Keypairs[0].Lanes, *k)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeState(again); err != nil {
			t.Fatalf("its own encoding is refused: %v", err)
		}
		s.Public = key.Public()
		dev := devicetest.New("wg0", testMTU, 1)
		tun, err := newTunnel(dev, transporttest.New(1).Host(netip.MustParseAddr("192.0.2.1")), Options{Restore: s})
		if err != nil {
			t.Fatal(err)
		}
		c := Change{PrivateKey: &key}
		for i := range min(len(s.Peers), 4) {
			w := s.Peers[i].Wire
			if w == WireGuard || w == Culvert {
				c.Peers = append(c.Peers, PeerChange{PublicKey: s.Peers[i].Public, Wire: &w, Access: may.Policy()})
			}
		}
		if err := tun.Configure(c); err != nil {
			t.Fatal(err)
		}
		dev.Close()
		tun.Close()
	})
}

// Frames cross as packets do, and addresses are learned again.
func TestHandOverOfFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		mesh := newTapMesh(t, network, 2)
		a, b := mesh[0], mesh[1]
		time.Sleep(5 * time.Second)
		frame := func(n uint32) []byte {
			f := binary.BigEndian.AppendUint32(append(make([]byte, 0, 60), 0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5), n)
			return f[:60]
		}
		sent := uint32(0)
		for range 3 {
			for range 50 {
				a.dev.Queue(0).Push(frame(sent), noOffload)
				sent++
				time.Sleep(time.Millisecond)
			}
			a.handOver(20*time.Millisecond, b)
			for range 50 {
				a.dev.Queue(0).Push(frame(sent), noOffload)
				sent++
				time.Sleep(time.Millisecond)
			}
			b.handOver(20*time.Millisecond, a)
		}
		time.Sleep(time.Second)
		seen := make(map[uint32]int)
		for _, f := range b.frames() {
			if len(f) == 60 && f[12] == 0x88 && f[13] == 0xb5 {
				seen[binary.BigEndian.Uint32(f[14:])]++
			}
		}
		for n := range sent {
			if seen[n] != 1 {
				t.Errorf("frame %d arrived %d times", n, seen[n])
			}
		}
	})
}
