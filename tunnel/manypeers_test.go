package tunnel

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/crypto/tai64n"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device/devicetest"
)

// manyPeers is a change that adds peers from one number to another, each with one allowed IP and an endpoint.
func manyPeers(wire Wire, from, to int) Change {
	var c Change
	off := time.Duration(0)
	for i := from; i < to; i++ {
		public := crypto.PublicKey{byte(i), byte(i >> 8), byte(i >> 16), 31: 1}
		c.Peers = append(c.Peers, PeerChange{
			PublicKey:         public,
			Wire:              &wire,
			Keepalive:         &off,
			Endpoint:          &transport.Endpoint{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1000)},
			ReplaceAllowedIPs: true,
			AllowedIPs:        []AllowedIPChange{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}},
		})
	}
	return c
}

// perPeer measures what do makes of the heap grow by, for each of n.
func perPeer(n int, do func()) int {
	before := liveHeap()
	do()
	return int(liveHeap()-before) / n
}

// Ten thousand peers take the memory that docs/architecture.md says and no goroutine.
func TestManyPeersAreCheap(t *testing.T) {
	const peers = 10_000
	for wire, c := range map[Wire]struct{ idle, session int }{
		WireGuard: {1500, 3000},
		Culvert:   {2500, 5500},
	} {
		t.Run(wire.String(), func(t *testing.T) {
			host := transporttest.New(1).Host(netip.AddrFrom4([4]byte{192, 0, 2, 1}))
			tun, err := newTunnel(devicetest.New("wg1", testMTU, 1), host, Options{Suites: crypto.AllSuites})
			if err != nil {
				t.Fatal(err)
			}
			defer tun.device.Close()
			key := crypto.PrivateKey{8, 31: 64}
			if err := tun.Configure(Change{PrivateKey: &key}); err != nil {
				t.Fatal(err)
			}
			goroutines := runtime.NumGoroutine()
			idle := perPeer(peers, func() {
				if err := tun.Configure(manyPeers(wire, 0, peers)); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("a peer takes %d bytes", idle)
			if idle > c.idle {
				t.Errorf("a peer takes %d bytes, more than %d", idle, c.idle)
			}

			loop := newControl(tun)
			nonce, message, plain := new(session.Nonce), make([]byte, 64), make([]byte, 64)
			each := perPeer(peers, func() {
				for _, p := range tun.snapshotPeers() {
					keys := noise.Keys{Send: [32]byte{1}, Receive: [32]byte{2}}
					far, err := newSession(noise.Keys{Send: [32]byte{2}, Receive: [32]byte{1}})
					if err != nil {
						t.Fatal(err)
					}
					index, err := tun.indices.reserve(p)
					if err != nil {
						t.Fatal(err)
					}
					p.mu.Lock()
					if !loop.derive(p, &keys, derived{suite: crypto.AES256GCM, initiator: true, local: index}, time.Second) {
						t.Fatal("no session")
					}
					p.mu.Unlock()
					size := far.Seal(message, 0, nil, nonce)
					if _, err := p.current.Load().Open(plain, message[:size], nonce); err != nil {
						t.Fatal(err)
					}
				}
				loop.batch.flush()
			})
			t.Logf("a session takes %d bytes", each)
			if each > c.session {
				t.Errorf("a session takes %d bytes, more than %d", each, c.session)
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				t.Errorf("%d goroutines, %d without peers", n, goroutines)
			}

			gone := perPeer(peers, func() {
				if err := tun.Configure(Change{ReplacePeers: true}); err != nil {
					t.Fatal(err)
				}
				loop.spare = tun.attention.take(nil)
				for i, p := range loop.spare {
					loop.visit(p, time.Second)
					loop.spare[i] = nil
				}
			})
			if left := idle + each + gone; left > 400 {
				t.Errorf("a peer that was removed leaves %d bytes", left)
			}
			runtime.KeepAlive(tun)
			runtime.KeepAlive(loop)
		})
	}
}

// BenchmarkHandshakesOfManyPeers has the control loop answer each of a thousand peers in turn, among ten thousand.
func BenchmarkHandshakesOfManyPeers(b *testing.B) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		b.Run(wire.String(), func(b *testing.B) {
			host := transporttest.New(1).Host(netip.AddrFrom4([4]byte{192, 0, 2, 1}))
			tun, err := newTunnel(devicetest.New("wg1", testMTU, 1), host, Options{Suites: crypto.AllSuites})
			if err != nil {
				b.Fatal(err)
			}
			defer tun.device.Close()
			socket, err := host.Open(transport.Options{Port: testPort})
			if err != nil {
				b.Fatal(err)
			}
			tun.bound.Store(&boundSocket{socket: socket, closed: make(chan struct{})})
			defer tun.closeSocket()
			key := crypto.PrivateKey{8, 31: 64}
			change := manyPeers(wire, 0, 9000)
			change.PrivateKey = &key
			members := floodMembersOf()
			for i := range members {
				change.Peers = append(change.Peers, PeerChange{PublicKey: members[i].public, Wire: &wire})
			}
			if err := tun.Configure(change); err != nil {
				b.Fatal(err)
			}
			remotes := make([]*noise.Remote, len(members))
			for i := range members {
				id, err := noise.NewIdentity(members[i].key)
				if err != nil {
					b.Fatal(err)
				}
				remotes[i] = noise.NewRemote(id, key.Public())
			}
			stamper := cookie.NewStamper(key.Public())
			loop := newControl(tun)
			offer := noise.Parameters{Suites: crypto.AllSuites, Layer: noise.LayerIP}
			wall, now := time.Now(), time.Second
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				now += time.Second
				wall = wall.Add(time.Second)
				who := i % len(members)
				var parts [][]byte
				if wire == WireGuard {
					first, _, err := remotes[who].Initiate(nil, uint32(i), tai64n.From(wall), crypto.GeneratePrivateKey)
					if err != nil {
						b.Fatal(err)
					}
					parts = [][]byte{first}
				} else {
					both, _, err := remotes[who].InitiateHybrid(nil, uint32(i), tai64n.From(wall), offer, noise.Randomness{Ephemeral: crypto.GeneratePrivateKey})
					if err != nil {
						b.Fatal(err)
					}
					parts = [][]byte{both[:noise.HybridInitiationSize], both[noise.HybridInitiationSize:]}
					stamper.StampKEM(parts[1])
				}
				stamper.Stamp(parts[0], now)
				b.StartTimer()
				for _, part := range parts {
					m := handshakeMessage{endpoint: transport.Endpoint{Remote: members[who].address}, size: len(part)}
					copy(m.bytes[:], part)
					loop.handshake(&m, now)
				}
				loop.batch.flush()
			}
			if got := tun.Status().Handshakes.ResponsesSent; got == 0 {
				b.Fatal("nothing was answered")
			}
		})
	}
}

func newSession(k noise.Keys) (*session.Session, error) {
	return session.New(&k, crypto.AES256GCM, false, 1, 2, 0)
}
