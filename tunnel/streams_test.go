package tunnel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/transport/stream"
	"culvert/transport/transporttest"
	"culvert/tunnel/device/devicetest"
	"culvert/tunnel/fallback"
)

// walled is two tunnels on a network whose UDP can be blocked, and TCP.
type walled struct {
	t       *testing.T
	udp     *transporttest.Network
	tcp     *transporttest.TCP
	client  *node
	server  *node
	hosts   [3]*transporttest.Host
	streams [3]*stream.Network
	queues  int // of each end's device

	mu   sync.Mutex
	logs []string
}

// newWalled makes both; change may alter the options of each end's peer, before it is added.
func newWalled(t *testing.T, change func(client, server *PeerChange)) *walled {
	return newWalledQueues(t, 1, change)
}

// newWalledQueues is newWalled for devices of so many queues.
func newWalledQueues(t *testing.T, queues int, change func(client, server *PeerChange)) *walled {
	w := &walled{t: t, udp: transporttest.New(1), tcp: transporttest.NewTCP(), queues: queues}
	w.client, w.server = w.node(1), w.node(2)
	w.tcp.Name("vpn.example.net", w.server.addr)
	w.listen(1)
	targets := []transport.StreamTarget{{Host: "vpn.example.net", Port: 443}}
	ofClient := PeerChange{PublicKey: w.server.public, Streams: &targets, AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(w.server.inner, 32)}},
		Endpoint: &transport.Endpoint{Remote: w.server.addrPort()}}
	ofServer := PeerChange{PublicKey: w.client.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(w.client.inner, 32)}}}
	onNativeWire(&ofClient)
	onNativeWire(&ofServer)
	if change != nil {
		change(&ofClient, &ofServer)
	}
	w.client.configure(Change{Peers: []PeerChange{ofClient}})
	w.server.configure(Change{Peers: []PeerChange{ofServer}})
	synctest.Wait()
	return w
}

func (w *walled) node(n byte) *node {
	w.t.Helper()
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	addr := netip.AddrFrom4([4]byte{192, 0, 2, n})
	host := w.udp.Host(addr)
	tcp := w.tcp.Host(addr)
	network := stream.NewOn(host, func() (stream.Host, error) { return tcp, nil })
	dev := devicetest.New(fmt.Sprintf("wg%d", n), testMTU, w.queues)
	tun, err := New(dev, network, Options{Logf: func(format string, args ...any) {
		w.t.Logf(format, args...)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.logs = append(w.logs, fmt.Sprintf(format, args...))
	}, Debugf: func(format string, args ...any) {
		w.t.Logf("%v "+format, append([]any{time.Now().Format("04:05.000")}, args...)...)
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	tun.jitter = func() time.Duration { return 100 * time.Millisecond }
	w.t.Cleanup(func() { tun.Close() })
	a := &node{Tunnel: tun, t: w.t, dev: dev, host: host, key: key, public: key.Public(), addr: addr, inner: netip.AddrFrom4([4]byte{10, 0, 0, n})}
	w.hosts[n-1], w.streams[n-1] = host, network
	port := uint16(testPort)
	a.configure(Change{PrivateKey: &key, ListenPort: &port})
	synctest.Wait()
	return a
}

// listen has an end accept streams.
func (w *walled) listen(n int) {
	w.t.Helper()
	certificate, err := stream.SelfSigned(time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.streams[n].Configure(stream.Config{Listen: netip.MustParseAddrPort("[::]:443"), Certificate: certificate}); err != nil {
		w.t.Fatal(err)
	}
}

// block has UDP lost, each way or one.
func (w *walled) block(toServer, toClient bool) {
	lost := func(on bool) transporttest.Link {
		l := transporttest.Link{Delay: 10 * time.Millisecond}
		if on {
			l.Loss = 1
		}
		return l
	}
	w.udp.SetLinkOneWay(w.hosts[0], w.hosts[1], lost(toServer))
	w.udp.SetLinkOneWay(w.hosts[1], w.hosts[0], lost(toClient))
}

// over returns whether each end sends to the other over a stream.
func (w *walled) over() (client, server bool) {
	synctest.Wait()
	return streamOf(w.client.tunnelPeer(w.server).endpoint.Load()) != 0, streamOf(w.server.tunnelPeer(w.client).endpoint.Load()) != 0
}

func (w *walled) expectOver(client, server bool) {
	w.t.Helper()
	if c, s := w.over(); c != client || s != server {
		w.t.Fatalf("over a stream: client %v, server %v; want %v, %v", c, s, client, server)
	}
}

// exchange sends a packet each way and expects both within d.
func (w *walled) exchange(d time.Duration) {
	w.t.Helper()
	w.client.send(w.server, "to the server")
	time.Sleep(d)
	w.server.expect("to the server")
	w.server.send(w.client, "to the client")
	time.Sleep(100 * time.Millisecond)
	w.client.expect("to the client")
}

func TestFallsBackAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second) // at 0, 1.1 and 3.3 s, and then the stream
		w.expectOver(true, true)
		for size := 100; size < testMTU-28; size += 97 {
			text := strings.Repeat("x", size)
			w.client.send(w.server, text)
			w.server.expect(text)
			w.server.send(w.client, text)
			w.client.expect(text)
		}
		s := w.client.Status()
		if p := s.Peers[0]; !p.OverTCP || p.EndpointText != "192.0.2.2:443" || !p.Native.PathSettled || p.Native.InnerMTU != testMTU || p.Native.RTT == 0 {
			t.Errorf("peer %+v, native %+v", p, p.Native)
		}
		if s.Transport.Streams.Dialled != 1 || s.Transport.Streams.Open != 1 || len(s.Drops) != 0 {
			t.Errorf("%+v, drops %v", s.Transport.Streams, s.Drops)
		}
		// Nothing but probes, three every 30 s, goes by datagrams.
		before := w.udp.Counters().Sent
		time.Sleep(time.Minute + time.Second)
		if n := w.udp.Counters().Sent - before; n < 3 || n > 6 {
			t.Errorf("%d datagrams in a minute", n)
		}
		w.exchange(0)
		w.block(false, false)
		time.Sleep(30 * time.Second)
		w.expectOver(false, false)
		w.exchange(50 * time.Millisecond)
		if n := w.tcp.Open(); n != 2 {
			t.Errorf("%d ends of TCP connections just after", n)
		}
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if n := w.tcp.Open(); n != 0 {
			t.Errorf("%d ends of TCP connections that nobody uses", n)
		}
		if p := w.server.Status().Peers[0]; p.OverTCP || p.EndpointText != "192.0.2.1:51820" || p.Native.InnerMTU != testMTU {
			t.Errorf("peer %+v, native %+v", p, p.Native)
		}
		// Blocked again, in the middle of a session.
		w.block(true, true)
		w.client.send(w.server, "lost")
		time.Sleep(20 * time.Second) // 15 s of silence, and as at first
		w.exchange(0)
		w.expectOver(true, true)
		w.mu.Lock()
		defer w.mu.Unlock()
		want := []string{"UDP does not get through; over TCP to 192.0.2.2:443 now", "UDP gets through again, to 192.0.2.2:51820"}
		for i, line := range w.logs {
			if !strings.HasSuffix(line, want[i%2]) {
				t.Errorf("log line %d: %q", i, line)
			}
		}
		if len(w.logs) != 3 {
			t.Errorf("%d lines in the log", len(w.logs))
		}
	})
}

// Where UDP gets through one way only, the stream is used both ways, and stays in use.
func TestOneWayBlocked(t *testing.T) {
	for _, way := range []struct{ toServer, toClient bool }{{true, false}, {false, true}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWalled(t, nil)
			w.exchange(time.Second)
			w.expectOver(false, false)
			w.block(way.toServer, way.toClient)
			for range 15 { // the end that still hears the other finds out by its echoes
				w.client.send(w.server, "perhaps")
				w.server.send(w.client, "perhaps")
				time.Sleep(time.Second)
				w.client.received()
				w.server.received()
			}
			for range 100 {
				w.exchange(time.Second)
				w.expectOver(true, true)
			}
			if n := len(w.tcp.Dials()); n != 1 {
				t.Errorf("%+v: dialled %d times", way, n)
			}
		})
	}
}

// An idle tunnel stays reachable from the server's end, over the same stream.
func TestServerReachesAnIdleClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		for range 5 {
			time.Sleep(20 * time.Minute)
			w.server.send(w.client, "still there?")
			time.Sleep(time.Second)
			w.client.expect("still there?")
		}
		if n := len(w.tcp.Dials()); n != 1 {
			t.Errorf("dialled %d times", n)
		}
	})
}

func TestStreamIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		w.tcp.Cut()
		synctest.Wait()
		time.Sleep(time.Second)
		w.expectOver(true, true) // dialled at once
		w.exchange(time.Second)
		// While nobody listens the server cannot reach the client, and says so; then it is found again.
		w.tcp.Refuse(true)
		w.tcp.Cut()
		time.Sleep(time.Second)
		w.server.send(w.client, "lost")
		synctest.Wait()
		if n := w.server.dropped(DropOutStreamGone); n != 1 {
			t.Errorf("%d dropped as their stream has gone", n)
		}
		time.Sleep(10 * time.Minute)
		w.client.send(w.server, "waits") // given up meanwhile
		time.Sleep(5 * time.Second)
		w.tcp.Refuse(false)
		time.Sleep(65 * time.Second)
		w.server.expect("waits")
		w.client.received()
		w.exchange(0)
		w.expectOver(true, true)
		dials := len(w.tcp.Dials())
		if dials > 40 {
			t.Errorf("dialled %d times", dials)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		failures := slices.DeleteFunc(slices.Clone(w.logs), func(s string) bool { return !strings.Contains(s, "does not either") })
		if len(failures) != 1 || !strings.Contains(failures[0], "vpn.example.net:443") || !strings.Contains(failures[0], "connection refused") {
			t.Errorf("failures logged: %q", failures)
		}
	})
}

// The server is started again, with no session.
func TestServerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		w.server.dev.SetUp(false)
		synctest.Wait()
		time.Sleep(3 * time.Second)
		w.server.dev.SetUp(true)
		synctest.Wait()
		w.client.send(w.server, "again")
		time.Sleep(10 * time.Second)
		w.server.expect("again")
		w.client.received()
		w.exchange(0)
		w.expectOver(true, true)
	})
}

// Somebody else answers at the TCP port: the tunnel goes on trying both ways, and finds UDP when it works.
func TestStrangerAtThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		other := w.node(3)
		w.listen(2)
		w.tcp.Name("vpn.example.net", other.addr)
		w.block(true, true)
		w.client.send(w.server, "one")
		time.Sleep(80 * time.Second)
		if n := len(w.tcp.Dials()); n < 3 || n > 10 {
			t.Errorf("dialled %d times", n)
		}
		if n := other.Status().Drops["in: wrong mac1"]; n == 0 {
			t.Error("nothing came to the stranger")
		}
		w.block(false, false)
		time.Sleep(15 * time.Second)
		w.server.expect("one")
		w.exchange(50 * time.Millisecond)
		w.expectOver(false, false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := w.tcp.Open(); n != 0 {
			t.Errorf("%d ends of TCP connections left", n)
		}
	})
}

// Routes have changed: UDP is tried at once.
func TestRouteChangeProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		time.Sleep(2 * time.Second)
		w.block(false, false)
		w.hosts[0].ChangeRoutes()
		time.Sleep(100 * time.Millisecond)
		w.expectOver(false, false)
		w.exchange(50 * time.Millisecond)
	})
}

// Both ends dial and listen: one stream is used by both.
func TestBothDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, func(_, server *PeerChange) {
			targets := []transport.StreamTarget{{Host: "192.0.2.1", Port: 443}}
			server.Streams = &targets
			server.Endpoint = &transport.Endpoint{Remote: netip.MustParseAddrPort("192.0.2.1:51820")}
		})
		w.listen(0)
		w.block(true, true)
		w.client.send(w.server, "one")
		w.server.send(w.client, "two")
		time.Sleep(10 * time.Second)
		w.server.expect("one")
		w.client.expect("two")
		for range 50 {
			time.Sleep(5 * time.Second)
			w.exchange(time.Second)
			w.expectOver(true, true)
		}
		if n := w.tcp.Open(); n != 2 {
			t.Errorf("%d ends of TCP connections", n)
		}
		w.block(false, false)
		time.Sleep(35 * time.Second)
		w.expectOver(false, false)
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if n := w.tcp.Open(); n != 0 {
			t.Errorf("%d ends of TCP connections left", n)
		}
	})
}

// Settings are changed while the stream is in use.
func TestStreamsAreReconfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		change := func(c PeerChange) {
			c.PublicKey = w.server.public
			w.client.configure(Change{Peers: []PeerChange{c}})
			synctest.Wait()
		}
		// An endpoint is tried first, and taken if it works.
		change(PeerChange{Endpoint: &transport.Endpoint{Remote: netip.MustParseAddrPort("192.0.2.99:1")}})
		time.Sleep(5 * time.Second)
		w.expectOver(true, true)
		w.exchange(time.Second)
		w.block(false, false)
		time.Sleep(40 * time.Second)
		w.expectOver(true, true)
		change(PeerChange{Endpoint: &transport.Endpoint{Remote: w.server.addrPort()}})
		time.Sleep(3 * time.Second)
		w.expectOver(false, false)
		// No streams any more.
		w.block(true, true)
		w.client.send(w.server, "lost")
		time.Sleep(25 * time.Second)
		w.expectOver(true, true)
		w.server.received()
		none := []transport.StreamTarget{}
		change(PeerChange{Streams: &none})
		w.expectOver(false, true)
		time.Sleep(10 * time.Second) // for the one left before
		synctest.Wait()
		if n := w.tcp.Open(); n != 0 {
			t.Errorf("%d ends of TCP connections left", n)
		}
		dials := len(w.tcp.Dials())
		w.client.send(w.server, "lost")
		time.Sleep(time.Minute)
		if n := len(w.tcp.Dials()); n != dials {
			t.Error("dialled")
		}
		// On the other wire none is used.
		change(PeerChange{Streams: &[]transport.StreamTarget{{Host: "vpn.example.net", Port: 443}}})
		w.client.send(w.server, "lost")
		time.Sleep(10 * time.Second)
		w.expectOver(true, true)
		other, native := WireGuard, Culvert
		change(PeerChange{Wire: &other})
		if streamOf(w.client.tunnelPeer(w.server).endpoint.Load()) != 0 || w.tcp.Open() != 0 {
			t.Error("a stream is in use on WireGuard's wire")
		}
		change(PeerChange{Wire: &native, Streams: &none})
		// The peer goes away with a stream being dialled.
		targets := []transport.StreamTarget{{Host: "vpn.example.net", Port: 443}}
		change(PeerChange{Streams: &targets})
		w.client.send(w.server, "lost")
		time.Sleep(10 * time.Second)
		w.expectOver(true, true)
		change(PeerChange{Remove: true})
		time.Sleep(time.Second)
		synctest.Wait()
		if n := w.tcp.Open(); n != 0 {
			t.Errorf("%d ends of TCP connections left of a peer that was removed", n)
		}
	})
}

// Probes of another path move nobody, and their answers only whoever asked.
func TestPathProbesMoveNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		w.block(false, true) // probes arrive, their answers do not
		for range 10 {
			time.Sleep(10 * time.Second)
			w.expectOver(true, true)
		}
		if w.server.Status().Handshakes.CookiesSent != 0 {
			t.Error("a cookie")
		}
		p := w.client.tunnelPeer(w.server)
		p.mu.Lock()
		state := p.streams.dialler.machine.State()
		p.mu.Unlock()
		if state != fallback.Stream {
			t.Errorf("state %v", state)
		}
	})
}

// A stream that many datagrams are on their way over is left without going back and forth.
func TestLateDatagramsDoNotMoveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		moves := 0
		last := w.server.tunnelPeer(w.client).endpoint.Load()
		w.block(false, false)
		for range 40_000 { // 40 s
			w.client.send(w.server, "x")
			time.Sleep(time.Millisecond)
			if ep := w.server.tunnelPeer(w.client).endpoint.Load(); streamOf(ep) != streamOf(last) {
				moves++
				last = ep
			}
			if len(w.server.received()) > 1000 {
				t.Fatal("too many at once")
			}
		}
		if moves != 1 {
			t.Errorf("the server moved %d times", moves)
		}
	})
}

// Echoes are asked of a peer that data flows to or from: an idle one is left alone, whatever has become of UDP.
func TestIdleTunnelDoubtsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.exchange(time.Second)
		time.Sleep(30 * time.Second)
		w.block(true, false)
		before := w.udp.Counters().Sent
		time.Sleep(time.Hour)
		if n := w.udp.Counters().Sent - before; n != 0 || len(w.tcp.Dials()) != 0 {
			t.Errorf("%d datagrams, %v dialled", n, w.tcp.Dials())
		}
	})
}
