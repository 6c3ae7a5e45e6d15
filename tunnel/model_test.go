package tunnel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/exchange"
	"culvert/tunnel/message"
)

// world is three engines in a mesh to which things happen at random, and what must hold whatever happens.
type world struct {
	t       *testing.T
	r       *rand.Rand
	wire    Wire
	network *transporttest.Network
	nodes   []*node
	down    map[*node]bool

	count     int             // of packets sent and addresses given out
	sent      map[string]bool // payloads, by "from>to#number"
	delivered map[string]bool
	history   []string

	mu       sync.Mutex
	recorded []transporttest.Packet // datagrams to replay
}

func newWorld(t *testing.T, wire Wire, seed uint64, queues int) *world {
	w := &world{t: t, wire: wire, r: rand.New(rand.NewPCG(seed, 0)), network: transporttest.New(seed), down: map[*node]bool{},
		sent: map[string]bool{}, delivered: map[string]bool{}}
	for i := range byte(3) {
		w.nodes = append(w.nodes, newQueues(t, w.network, 1+i, queues))
	}
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a != b {
				a.addPeerNode(b, true, func(c *PeerChange) { c.Wire = &wire })
			}
		}
	}
	w.network.Tap(func(p *transporttest.Packet) {
		q := *p
		q.Data = bytes.Clone(p.Data)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.recorded) < 1000 {
			w.recorded = append(w.recorded, q)
		} else {
			w.recorded[len(p.Data)*7%1000] = q
		}
	})
	synctest.Wait()
	return w
}

// two returns two different nodes.
func (w *world) two() (a, b *node) {
	i := w.r.IntN(3)
	return w.nodes[i], w.nodes[(i+1+w.r.IntN(2))%3]
}

func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf(format, args...))
}

func (w *world) name(n *node) string { return n.inner.String() }

func (w *world) send(a, b *node) string {
	w.count++
	payload := fmt.Sprintf("%s>%s#%d", w.name(a), w.name(b), w.count)
	if w.r.IntN(3) == 0 {
		payload += strings.Repeat(" ", w.r.IntN(testMTU-28-len(payload)))
	}
	w.sent[payload] = true
	a.send(b, payload)
	return payload
}

// peerChange is what a is to know of b.
func (w *world) peerChange(b *node) PeerChange {
	c := PeerChange{
		PublicKey:         b.public,
		Wire:              &w.wire,
		ReplaceAllowedIPs: true,
		AllowedIPs:        []AllowedIPChange{{Prefix: netip.PrefixFrom(b.inner, 32)}},
	}
	if port := b.Status().ListenPort; port != 0 { // else b picks one when it comes up
		c.Endpoint = &transport.Endpoint{Remote: netip.AddrPortFrom(b.addr, port)}
	}
	return c
}

func (w *world) change(a *node, c Change) {
	w.t.Helper()
	if err := a.Configure(c); err != nil {
		w.t.Fatalf("%v\n%s", err, strings.Join(w.history, "\n"))
	}
}

// step does one thing at random.
func (w *world) step() {
	a, b := w.two()
	switch w.r.IntN(22) {
	default:
		w.note("%s sends to %s", w.name(a), w.name(b))
		for range 1 + w.r.IntN(5) {
			w.send(a, b)
		}
	case 0, 1, 2:
		d := time.Duration(w.r.IntN(3000)) * time.Millisecond
		w.note("%v pass", d)
		time.Sleep(d)
	case 3:
		d := time.Duration(w.r.IntN(200)) * time.Second
		w.note("%v pass", d)
		time.Sleep(d)
	case 4:
		l := transporttest.Link{Loss: float64(w.r.IntN(3)) / 2, Duplicate: float64(w.r.IntN(3)) / 2, Reorder: float64(w.r.IntN(3)) / 4,
			Delay: time.Duration(w.r.IntN(200)) * time.Millisecond, Unreachable: w.r.IntN(10) == 0, MTU: []int{0, 1280, 1400, 1500}[w.r.IntN(4)]}
		w.note("link %s-%s %+v", w.name(a), w.name(b), l)
		w.network.SetLink(a.host, b.host, l)
	case 5:
		w.count++
		a.addr = netip.AddrFrom4([4]byte{198, 51, byte(w.count >> 8), byte(w.count)})
		w.note("%s roams to %v", w.name(a), a.addr)
		a.host.SetAddrs(a.addr)
	case 6:
		w.note("%s removes and adds %s", w.name(a), w.name(b))
		w.change(a, Change{Peers: []PeerChange{{PublicKey: b.public, Remove: true}}})
		if w.r.IntN(2) == 0 {
			synctest.Wait()
		}
		w.change(a, Change{Peers: []PeerChange{w.peerChange(b)}})
	case 7:
		w.note("%s changes its key", w.name(a))
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			w.t.Fatal(err)
		}
		old := a.public
		a.key, a.public = key, key.Public()
		w.change(a, Change{PrivateKey: &key})
		for _, n := range w.nodes {
			if n != a {
				w.change(n, Change{Peers: []PeerChange{{PublicKey: old, Remove: true}, w.peerChange(a)}})
			}
		}
	case 8:
		psk := crypto.PresharedKey{byte(w.r.IntN(3))}
		w.note("%s and %s share %v", w.name(a), w.name(b), psk[0])
		w.change(a, Change{Peers: []PeerChange{{PublicKey: b.public, PresharedKey: &psk}}})
		w.change(b, Change{Peers: []PeerChange{{PublicKey: a.public, PresharedKey: &psk}}})
	case 9:
		port := uint16(w.r.IntN(2) * (2000 + w.r.IntN(1000)))
		w.note("%s listens on %d", w.name(a), port)
		w.change(a, Change{ListenPort: &port})
	case 10:
		every := time.Duration(w.r.IntN(3)) * 10 * time.Second
		w.note("%s keeps %s alive every %v", w.name(a), w.name(b), every)
		w.change(a, Change{Peers: []PeerChange{{PublicKey: b.public, Keepalive: &every}}})
	case 11:
		w.down[a] = !w.down[a]
		w.note("%s down: %v", w.name(a), w.down[a])
		a.dev.SetUp(!w.down[a])
		synctest.Wait()
	case 12:
		w.note("%s pretends to %s to be the third", w.name(a), w.name(b))
		third := w.nodes[0]
		for _, n := range w.nodes {
			if n != a && n != b {
				third = n
			}
		}
		a.dev.Queue(0).Push(udpPacket(third.inner, b.inner, []byte("spoofed")), noOffload)
	case 13:
		w.note("replays to %s", w.name(a))
		for range 20 {
			p, ok := w.record()
			if !ok {
				return
			}
			if w.r.IntN(2) == 0 {
				p.From = netip.MustParseAddrPort("203.0.113.99:99")
			}
			if w.r.IntN(4) == 0 && len(p.Data) > 0 {
				p.Data = flipped(p.Data, w.r.IntN(len(p.Data)*8))
			}
			w.network.Inject(p.From, netip.AddrPortFrom(a.addr, a.Status().ListenPort), p.Data)
		}
	case 14:
		w.note("%s replaces its peers by the same", w.name(a))
		c := Change{ReplacePeers: true}
		for _, n := range w.nodes {
			if n != a {
				p := w.peerChange(n)
				psk := crypto.PresharedKey{}
				for _, s := range a.Status().Peers {
					if s.PublicKey == n.public {
						psk = s.PresharedKey
					}
				}
				p.PresharedKey = &psk
				c.Peers = append(c.Peers, p)
			}
		}
		w.change(a, c)
	case 15:
		if w.wire == Culvert {
			w.note("%s pushes to %s", w.name(a), w.name(b))
			document := make([]byte, w.r.IntN(message.MaxDocument))
			if err := a.Push(b.public, "subject", document); err != nil && err != exchange.ErrFull {
				w.t.Fatal(err)
			}
		}
	case 16:
		mtu := []int{0, 1280, 1400, 1500}[w.r.IntN(4)]
		w.note("the interface of %s takes %d bytes", w.name(a), mtu)
		a.host.SetMTU(mtu)
	}
}

// record returns some datagram seen before.
func (w *world) record() (transporttest.Packet, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.recorded) == 0 {
		return transporttest.Packet{}, false
	}
	return w.recorded[w.r.IntN(len(w.recorded))], true
}

// check looks at what has come out and at every node's state.
func (w *world) check() {
	w.t.Helper()
	fail := func(format string, args ...any) {
		w.t.Helper()
		w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.history, "\n"))
	}
	for _, n := range w.nodes {
		for _, packet := range n.written() {
			if packet[9] != 17 {
				continue // an ICMP error
			}
			payload := string(packet[28:])
			from, _, _ := strings.Cut(payload, ">")
			switch {
			case !w.sent[payload]:
				fail("%s received %q, which nobody sent", w.name(n), payload)
			case w.delivered[payload]:
				fail("%s received %q twice", w.name(n), payload)
			case from != netip.AddrFrom4([4]byte(packet[12:16])).String():
				fail("%q came from %v", payload, packet[12:16])
			case !strings.HasPrefix(payload, from+">"+w.name(n)+"#"):
				fail("%s received %q", w.name(n), payload)
			}
			w.delivered[payload] = true
		}
		indices, staged, endpoints := 0, 0, 0
		for _, p := range n.snapshotPeers() {
			func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				for _, kp := range []*keypair{p.current.Load(), p.next, p.previous} {
					if kp == nil {
						continue
					}
					indices++
					if e := n.indices.lookup(kp.LocalIndex); e == nil || e.keypair != kp || e.peer != p {
						fail("%s: a keypair's index leads elsewhere", w.name(n))
					}
					for i, l := range kp.lanes {
						if e, at := n.indices.lookupLane(l.LocalIndex); e == nil || e.keypair != kp || at != i+1 || l.number != at || l.keypair != kp {
							fail("%s: a lane's index leads elsewhere", w.name(n))
						}
					}
				}
				for _, kp := range []*keypair{p.current.Load(), p.previous} {
					if kp != nil && kp.unconfirmed.Load() {
						fail("%s: a keypair in use would have each datagram take the lock to confirm it", w.name(n))
					}
				}
				if p.pending != nil {
					indices++
					if e := n.indices.lookup(p.pending.LocalIndex()); e == nil || e.keypair != nil || e.peer != p {
						fail("%s: a pending handshake's index leads elsewhere", w.name(n))
					}
				}
				if until, visit := p.slot.until, p.visitAt.Load(); until != 0 && (visit == 0 || visit > int64(until)) {
					fail("%s: a slot ends at %v, visited at %v", w.name(n), until, time.Duration(visit))
				}
				staged += p.staged.bytes
				if p.waiting.Load() != (len(p.staged.packets) > 0) {
					fail("%s: %d packets wait, the flag says %v", w.name(n), len(p.staged.packets), p.waiting.Load())
				}
				if next, visit := p.timers.next(), p.visitAt.Load(); next != 0 && (visit == 0 || visit > int64(next)) {
					fail("%s: due at %v, visited at %v", w.name(n), next, time.Duration(visit))
				}
				if len(p.staged.packets) > 0 && p.timers.retransmit.Load() == 0 {
					fail("%s: packets wait for a handshake that nobody will repeat", w.name(n))
				}
			}()
			if ep := p.endpoint.Load(); ep != nil {
				endpoints++
				if !n.endpoints.any(ep.Remote, func(q *peer) bool { return q == p }) {
					fail("%s: an endpoint is not in the set", w.name(n))
				}
			}
		}
		if got := n.usedIndices(); got != indices {
			fail("%s: %d indices in use for %d keypairs and handshakes", w.name(n), got, indices)
		}
		if got := n.stagedBytes.Load(); got != int64(staged) {
			fail("%s: %d bytes said to be staged, %d are", w.name(n), got, staged)
		}
		n.endpoints.mu.RLock()
		for _, at := range n.endpoints.peers {
			endpoints -= len(at)
		}
		n.endpoints.mu.RUnlock()
		if endpoints != 0 {
			fail("%s: %d endpoints too few in the set", w.name(n), endpoints)
		}
	}
}

// heal ends all trouble; after that everybody must find everybody.
func (w *world) heal() {
	w.note("healed")
	w.network.SetDefaultLink(transporttest.Link{})
	off := time.Duration(0)
	for _, a := range w.nodes {
		a.host.SetMTU(0)
		a.dev.SetUp(true)
		for _, b := range w.nodes {
			if a != b {
				w.network.SetLinkOneWay(a.host, b.host, transporttest.Link{})
			}
		}
	}
	synctest.Wait()
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a != b {
				c := w.peerChange(b)
				c.PresharedKey, c.Keepalive = new(crypto.PresharedKey), &off
				w.change(a, Change{Peers: []PeerChange{c}})
			}
		}
	}
	for range 40 { // within which a session that only one end has is given up
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				if a != b {
					w.send(a, b)
				}
			}
		}
		time.Sleep(time.Second)
	}
	w.check()
	var last []string
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a != b {
				last = append(last, w.send(a, b))
			}
		}
	}
	w.check()
	for _, p := range last {
		if !w.delivered[p] {
			w.t.Errorf("%q did not arrive\n%s", p, strings.Join(w.history, "\n"))
		}
	}
	time.Sleep(session.EraseAfter + session.RekeyAttemptTime)
	w.check()
	for _, n := range w.nodes {
		for _, p := range n.snapshotPeers() {
			if p.slot.until != 0 {
				w.t.Errorf("%s: a slot is left", w.name(n))
			}
		}
		if n.usedIndices() != 0 || n.stagedBytes.Load() != 0 || len(n.agendaPeers()) != 0 {
			w.t.Errorf("%s: %d indices, %d bytes and %d deadlines are left\n%s", w.name(n), n.usedIndices(), n.stagedBytes.Load(), len(n.agendaPeers()), strings.Join(w.history, "\n"))
		}
	}
}

// agendaPeers returns the peers that have a deadline.
func (a *node) agendaPeers() (all []*peer) {
	for _, p := range a.snapshotPeers() {
		if p.timers.next() != 0 {
			all = append(all, p)
		}
	}
	return all
}

func TestWhateverHappens(t *testing.T) {
	for _, scene := range []struct {
		wire   Wire
		queues int
	}{{WireGuard, 1}, {Culvert, 1}, {WireGuard, 3}, {Culvert, 3}} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(scene.wire, ", queues ", scene.queues, ", seed ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, scene.wire, seed, scene.queues)
					for range 150 {
						w.step()
						if w.r.IntN(3) == 0 {
							w.check()
						}
					}
					w.heal()
					if len(w.delivered) < len(w.sent)/5 {
						t.Errorf("%d of %d packets arrived: the test tests nothing", len(w.delivered), len(w.sent))
					}
				})
			})
		}
	}
}
