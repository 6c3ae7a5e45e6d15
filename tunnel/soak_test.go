package tunnel

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/transport/transporttest"
	"culvert/tunnel/device/devicetest"
)

// soakRekeys is how many sessions TestSoak has the peers agree on; CULVERT_SOAK says another number. docs/operations.md has the result of
// 100,000.
const soakRekeys = 2000

// soakNode is a node that can be started again and again, with nothing of its former lives kept by the test.
type soakNode struct {
	*node
	completed uint64 // handshakes, of former lives
}

func (s *soakNode) start(t *testing.T, host *transporttest.Host, key crypto.PrivateKey, n byte) {
	dev := devicetest.New("wg"+strconv.Itoa(int(n)), testMTU, 1)
	tun, err := New(dev, host, Options{Greet: true})
	if err != nil {
		t.Fatal(err)
	}
	s.node = &node{Tunnel: tun, t: t, dev: dev, host: host, key: key, public: key.Public(), addr: netip.AddrFrom4([4]byte{192, 0, 2, n}),
		inner: netip.AddrFrom4([4]byte{10, 0, 0, n})}
	port := uint16(testPort)
	s.configure(Change{PrivateKey: &key, ListenPort: &port})
	synctest.Wait()
}

func (s *soakNode) end() {
	s.completed += s.statistics.completed.Load()
	s.Close()
}

// soakHeld is what all nodes together hold at a moment.
type soakHeld struct {
	heap                                   int64
	goroutines, indices, endpoints, agenda int
}

// Months of a server with a peer on either wire: a session after another, peers that roam, links that lose, interfaces that go down, a
// server that starts again. Nothing grows: no goroutines, no memory, no table.
func TestSoak(t *testing.T) {
	rekeys := uint64(soakRekeys)
	if text := os.Getenv("CULVERT_SOAK"); text != "" {
		var err error
		if rekeys, err = strconv.ParseUint(text, 10, 64); err != nil || rekeys < 100 {
			t.Fatalf("CULVERT_SOAK=%s: not a number of sessions from 100 on", text)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		network := transporttest.New(1)
		random := rand.New(rand.NewPCG(1, 2))
		hosts := make([]*transporttest.Host, 3)
		nodes := make([]*soakNode, 3)
		for i := range nodes {
			hosts[i] = network.Host(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}))
			key, err := crypto.GeneratePrivateKey()
			if err != nil {
				t.Fatal(err)
			}
			nodes[i] = new(soakNode)
			nodes[i].start(t, hosts[i], key, byte(i+1))
		}
		defer func() {
			for _, n := range nodes {
				n.end()
			}
		}()
		server, clients := nodes[0], nodes[1:]
		wires := []Wire{WireGuard, Culvert}
		know := func(n *soakNode, far *soakNode, wire Wire, endpoint bool) {
			n.addPeerNode(far.node, endpoint, func(c *PeerChange) { c.Wire = &wire })
		}
		for i, c := range clients {
			know(server, c, wires[i], false)
			know(c, server, wires[i], true)
		}
		lost, sent := 0, 0
		talk := func(n int) { // half a minute each
			for range n {
				for _, c := range clients {
					c.send(server.node, "there")
				}
				time.Sleep(time.Second)
				for _, c := range clients {
					server.send(c.node, "back")
				}
				time.Sleep(29 * time.Second)
				sent += 2 * len(clients)
				lost += 2*len(clients) - len(server.received())
				for _, c := range clients {
					lost -= len(c.received())
				}
			}
		}
		count := func() uint64 { return server.completed + server.statistics.completed.Load() }
		held := func() (h soakHeld) {
			talk(12) // what was under way has ended, what was old been erased
			synctest.Wait()
			h.heap, h.goroutines = int64(liveHeap()), runtime.NumGoroutine()
			for _, n := range nodes {
				h.indices += n.usedIndices()
				h.endpoints += n.endpointCount()
				h.agenda += len(n.agendaPeers())
			}
			return h
		}
		restarts, moves := 0, 0
		var all []soakHeld
		for part := uint64(1); part <= 10; part++ {
			for count() < rekeys*part/10 {
				talk(40)
				c := random.IntN(2)
				switch random.IntN(5) {
				case 0: // a client roams
					moves++
					clients[c].host.SetAddrs(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + 100*c + random.IntN(100))}))
				case 1: // a link loses
					network.SetLink(hosts[0], clients[c].host, transporttest.Link{Loss: 0.3, Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond})
					talk(20)
					network.SetLink(hosts[0], clients[c].host, transporttest.Link{})
				case 2: // an interface goes down and comes up
					clients[c].dev.SetUp(false)
					time.Sleep(time.Minute)
					clients[c].dev.SetUp(true)
				case 3: // the way is cut for longer than a session lives
					network.SetLink(hosts[0], clients[c].host, transporttest.Link{Loss: 1})
					talk(10)
					network.SetLink(hosts[0], clients[c].host, transporttest.Link{})
				case 4: // the server starts again
					restarts++
					server.end()
					server.start(t, hosts[0], server.key, 1)
					for i, c := range clients {
						know(server, c, wires[i], false)
					}
				}
				talk(4) // traffic is back, whatever it was
				before := lost
				if talk(2); lost > before {
					t.Fatalf("after %v %d packets were lost in a minute without a fault", time.Since(began), lost-before)
				}
			}
			all = append(all, held())
		}
		first, last := all[1], all[9]
		t.Logf("%d sessions in %.1f days, %d restarts, %d moves; %d of %d packets lost; held after a fifth %+v and in the end %+v",
			count(), time.Since(began).Hours()/24, restarts, moves, lost, sent, first, last)
		if last.goroutines > first.goroutines || last.indices > first.indices || last.endpoints > first.endpoints || last.agenda > first.agenda {
			t.Errorf("something has grown: %+v", all)
		}
		if last.heap > first.heap+256<<10 {
			t.Errorf("the live heap has grown from %d to %d bytes: %+v", first.heap, last.heap, all)
		}
	})
}
