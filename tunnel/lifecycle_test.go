package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device/devicetest"
)

// publicKeys makes keys of peers that nobody has.
func publicKeys(n int) []crypto.PublicKey {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]crypto.PublicKey, n)
	for i := range all {
		for at := range all[i] {
			all[i][at] = byte(r.Uint32())
		}
		all[i][31] &= 0x7f
	}
	return all
}

// bubbleGoroutines counts the goroutines of the test's bubble. The process has others, which come and go as they please: the
// runtime's that runs finalizers, those of the tests before.
func bubbleGoroutines() int {
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	n := 0
	for line := range bytes.Lines(all) {
		if bytes.HasPrefix(line, []byte("goroutine ")) && bytes.Contains(line, []byte("synctest bubble")) {
			n++
		}
	}
	return n
}

func TestGoroutinesDoNotGrowWithPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		a.send(b, "first")
		b.expect("first")
		before := bubbleGoroutines()
		keepalive := time.Second
		change := Change{}
		for i, key := range publicKeys(1000) {
			change.Peers = append(change.Peers, PeerChange{
				PublicKey:  key,
				Keepalive:  &keepalive,
				Endpoint:   &transport.Endpoint{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 1)},
				AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), 32)}},
			})
		}
		a.configure(change)
		for i := range 1000 {
			a.dev.Queue(0).Push(udpPacket(a.inner, netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), []byte("x")), noOffload)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := bubbleGoroutines(); got > before {
			t.Errorf("%d goroutines before, %d with a thousand peers", before, got)
		}
		if got := a.Status().Handshakes.InitiationsSent; got < 1000 {
			t.Errorf("%d initiations: the peers are not alive", got)
		}
		a.send(b, "still quick")
		b.expect("still quick")
	})
}

func TestCloseEndsEveryGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if any goroutine is left
		network := transporttest.New(1)
		before := bubbleGoroutines() // synctest's own are among them
		a, b := newPair(t, network)
		a.send(b, "first")
		b.expect("first")
		kp := a.tunnelPeer(b).current.Load()
		for _, n := range []*node{a, b} {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if got := bubbleGoroutines(); got > before {
			t.Errorf("%d goroutines before, %d after", before, got)
		}
		if _, ok := kp.Reserve(1, noise.TagSize); ok {
			t.Error("the session's keys are still there")
		}
		if a.usedIndices() != 0 || a.identity.Load() != nil {
			t.Error("keys are still there")
		}
		if err := a.Close(); err != nil {
			t.Error("closed again:", err)
		}
		if err := a.Configure(Change{}); !errors.Is(err, ErrClosed) {
			t.Errorf("configured after the end: %v", err)
		}
		if err := a.Err(); err != nil {
			t.Error(err)
		}
		select {
		case <-a.Done():
		default:
			t.Error("not done")
		}
		a.Status() // does not panic
		sent := network.Counters().Sent
		time.Sleep(time.Hour)
		if got := network.Counters().Sent; got != sent {
			t.Error("something was sent after the end")
		}
	})
}

func TestCloseWhilePacketsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		network.SetDefaultLink(transporttest.Link{Loss: 1})
		for range 5 {
			a.send(b, "waits")
		}
		synctest.Wait()
		a.Close()
		if a.stagedBytes.Load() != 0 || a.dropped(DropOutTunnelDown) != 5 || a.usedIndices() != 0 {
			t.Errorf("%d bytes staged, drops %v, %d indices", a.stagedBytes.Load(), a.drops.snapshot(), a.usedIndices())
		}
	})
}

func TestCloseBesideTrafficAndConfiguration(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(seed)
			a, b := newPair(t, network)
			b.addPeerNode(a, true)
			stop := make(chan struct{})
			var all sync.WaitGroup
			loop := func(f func()) {
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							f()
							runtime.Gosched()
						}
					}
				})
			}
			port, free := uint16(testPort), uint16(0)
			key := crypto.PublicKey{9, byte(seed)}
			loop(func() { a.send(b, "traffic") })
			loop(func() { b.send(a, "traffic") })
			loop(func() { a.Status(); b.Status() })
			loop(func() {
				a.Configure(Change{ListenPort: &free})
				a.Configure(Change{ListenPort: &port, Peers: []PeerChange{{PublicKey: key}}})
				a.Configure(Change{Peers: []PeerChange{{PublicKey: key, Remove: true}}})
			})
			loop(func() {
				b.Configure(Change{PrivateKey: &crypto.PrivateKey{1, 2, 3}})
				b.Configure(Change{PrivateKey: &b.key})
			})
			all.Go(func() {
				r := rand.New(rand.NewPCG(seed, 0))
				for range r.IntN(200) {
					runtime.Gosched()
				}
				var closing sync.WaitGroup
				for range 3 {
					closing.Go(func() { a.Close() })
					closing.Go(func() { b.Close() })
				}
				closing.Wait()
				close(stop)
			})
			all.Wait()
			if a.Err() != nil || b.Err() != nil {
				t.Errorf("ended for a reason: %v, %v", a.Err(), b.Err())
			}
		})
	}
}

func TestDeviceRemovedUnderTheTunnel(t *testing.T) {
	for range 20 { // the end is noticed at two places at once
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			a, b := newPair(t, network)
			a.send(b, "first")
			b.expect("first")
			a.dev.Remove()
			<-a.Done()
			err := a.Err()
			if err == nil || !strings.Contains(err.Error(), "interface") || !errors.Is(err, errDeviceGone) && !errors.Is(err, devicetest.ErrGone) {
				t.Errorf("error %v", err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			if a.usedIndices() != 0 {
				t.Error("sessions are still there")
			}
			b.send(a, "nobody there")
			synctest.Wait()
		})
	}
}

// brokenNetwork is a network whose sockets can be made to fail.
type brokenNetwork struct {
	transport.Network
	fail chan error
}

type brokenSocket struct {
	transport.Socket
	fail   chan error
	closed chan struct{}
}

func (n brokenNetwork) Open(o transport.Options) (transport.Socket, error) {
	s, err := n.Network.Open(o)
	if err != nil {
		return nil, err
	}
	return &brokenSocket{s, n.fail, make(chan struct{})}, nil
}

func (s *brokenSocket) Receivers() []transport.Receiver { return []transport.Receiver{s} }

func (s *brokenSocket) Worker() int { return 0 }

func (s *brokenSocket) Receive([]transport.Train) (int, error) {
	select {
	case err := <-s.fail:
		return 0, err
	case <-s.closed:
		return 0, net.ErrClosed
	}
}

func (s *brokenSocket) Close() error {
	close(s.closed)
	return s.Socket.Close()
}

func TestReceiveErrorEndsTheTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := brokenNetwork{transporttest.New(1).Host(netip.MustParseAddr("192.0.2.1")), make(chan error)}
		dev := devicetest.New("wg0", testMTU, 1)
		tun, err := New(dev, network, Options{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		broken := errors.New("the socket broke")
		network.fail <- broken
		<-tun.Done()
		if !errors.Is(tun.Err(), broken) {
			t.Errorf("error %v", tun.Err())
		}
		if err := tun.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestDeviceRefusalsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		a.send(b, "first")
		b.expect("first")
		b.dev.Queue(0).FailWrites(errors.New("no"))
		for range 10 {
			a.send(b, "refused")
			synctest.Wait()
		}
		b.expect()
		if got := b.dropped(DropInDevice); got != 10 {
			t.Errorf("%d refusals counted", got)
		}
		b.dev.Queue(0).FailWrites(nil)
		a.send(b, "accepted")
		b.expect("accepted")
	})
}

func TestSendErrorsAreCountedAndSurvived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		a.send(b, "first")
		b.expect("first")
		network.SetDefaultLink(transporttest.Link{Unreachable: true})
		for range 10 {
			a.send(b, "no way")
		}
		b.expect()
		if got := a.dropped(DropOutSendFailed); got != 10 {
			t.Errorf("%d failures counted", got)
		}
		network.SetDefaultLink(transporttest.Link{})
		a.send(b, "a way again")
		b.expect("a way again")
	})
}

// Junk of all kinds: answered by nothing, remembered by nothing.
func TestJunkIsUnansweredAndTakesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := actorScene(t)
		a.connect()
		a.say("before")
		n.expect("before")
		stranger := newActor(n, network, 2)
		r := rand.New(rand.NewPCG(1, 1))
		template, _ := stranger.initiation(time.Now())
		data := a.seal(a.packet("genuine"))
		junk := func(i int) []byte {
			switch i % 8 {
			case 0: // noise of any size
				m := make([]byte, 1+r.IntN(1500))
				for i := range m {
					m[i] = byte(r.Uint32())
				}
				return m
			case 1, 2, 3, 4: // noise in the form of a message
				m := make([]byte, []int{noise.InitiationSize, noise.ResponseSize, noise.CookieReplySize, 32 + r.IntN(1400)}[i%8-1])
				for i := range m {
					m[i] = byte(r.Uint32())
				}
				copy(m, []byte{byte(i % 8), 0, 0, 0})
				return m
			case 5: // right mac1, nothing else
				if i%40 != 5 { // fewer of these: each costs a shared secret
					return flipped(template, 140*8)
				}
				m := make([]byte, noise.InitiationSize)
				for i := range m {
					m[i] = byte(r.Uint32())
				}
				copy(m, []byte{noise.TypeInitiation, 0, 0, 0})
				return a.restamp(m)
			case 6: // a stranger's initiation
				return template
			}
			return flipped(data, 8*8+r.IntN((len(data)-8)*8)) // for the right session, but false
		}
		var batch [][]byte
		for i := range 500 { // made beforehand, so that making them does not count
			batch = append(batch, junk(i))
		}
		round := func(rounds int) {
			for i := range rounds {
				for j, m := range batch {
					network.Inject(netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, byte(i), byte(j >> 8), byte(j)}), uint16(1+i)), n.addrPort(), m)
				}
				synctest.Wait()
			}
		}
		heap := func() uint64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		sent := 0
		network.Tap(func(*transporttest.Packet) { sent++ })
		round(8)
		before, goroutines := heap(), bubbleGoroutines()
		round(40)
		after := heap()
		if sent != 0 {
			t.Errorf("%d answers", sent)
		}
		// The network in memory keeps up to a batch of buffers, according to how quick its receiver was. The datagrams
		// themselves are 20,000 of 270 bytes on average, and each could have left more behind than that.
		if after > before+2<<20 {
			t.Errorf("the heap grew from %d to %d bytes", before, after)
		}
		if got := bubbleGoroutines(); got > goroutines {
			t.Errorf("%d goroutines became %d", goroutines, got)
		}
		total := 0
		for reason := DropInMessage; reason < dropReasons; reason++ {
			total += n.dropped(reason)
		}
		if total != 48*len(batch) {
			t.Errorf("%d datagrams, %d counted: %v", 48*len(batch), total, n.drops.snapshot())
		}
		n.expect()
		a.say("after")
		n.expect("after")
		a.expectEndpoint(a.addr)
	})
}

func TestHandshakeFailingIsCalledOnRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		calls := make(chan crypto.PublicKey, 100)
		hold := make(chan struct{})
		addr := netip.MustParseAddr("192.0.2.1")
		a := newNodeOn(t, network.Host(addr), addr, 1, func(o *Options) {
			o.HandshakeFailing = func(k crypto.PublicKey) {
				calls <- k
				<-hold
			}
		})
		b := newNode(t, network, 2)
		a.addPeerNode(b, true)
		synctest.Wait()
		a.send(b, "unanswered")
		synctest.Wait()
		if len(calls) != 0 {
			t.Error("called at once")
		}
		time.Sleep(20 * time.Second)
		if got := len(calls); got != 1 {
			t.Errorf("called %d times while the first call had not returned", got)
		}
		close(hold)
		time.Sleep(5 * time.Second)
		if got := len(calls); got != 2 {
			t.Errorf("called %d times", got)
		}
		if k := <-calls; k != b.public {
			t.Error("called for another peer")
		}
		a.Close()
	})
}

func TestManyQueuesShareATunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		addr := netip.MustParseAddr("192.0.2.1")
		dev := devicetest.New("wg1", testMTU, 4)
		tun, err := New(dev, network.Host(addr), Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tun.Close() })
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		a := &node{Tunnel: tun, t: t, dev: dev, key: key, public: key.Public(), addr: addr, inner: netip.MustParseAddr("10.0.0.1")}
		port := uint16(testPort)
		a.configure(Change{PrivateKey: &key, ListenPort: &port})
		b := newNode(t, network, 2)
		a.addPeerNode(b, true)
		b.addPeerNode(a, false)
		synctest.Wait()
		want := make(map[string]bool)
		for i := range 100 {
			payload := fmt.Sprint("packet ", i)
			want[payload] = true
			dev.Queue(i%4).Push(udpPacket(a.inner, b.inner, []byte(payload)), noOffload)
		}
		got := b.received()
		for _, p := range got {
			delete(want, p)
		}
		if len(got) != 100 || len(want) != 0 {
			t.Errorf("%d packets arrived, %d are missing", len(got), len(want))
		}
	})
}
