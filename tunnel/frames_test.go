package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/ippacket"
	"culvert/tunnel/loopguard"
)

// tapMTU is Ethernet's.
const tapMTU = 1500

// tapKeepalive is what every peer of a tap node is asked at.
const tapKeepalive = 10 * time.Second

// newTapNode is newNode for a tunnel that carries Ethernet frames.
func newTapNode(t testing.TB, network *transporttest.Network, n byte) *node {
	t.Helper()
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrFrom4([4]byte{192, 0, 2, n})
	dev := devicetest.NewEthernet(fmt.Sprintf("tap%d", n), tapMTU, 1)
	host := network.Host(addr)
	tun, err := New(dev, host, Options{Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	tun.jitter = func() time.Duration { return 100 * time.Millisecond }
	t.Cleanup(func() { tun.Close() })
	a := &node{Tunnel: tun, t: t, dev: dev, host: host, key: key, public: key.Public(), addr: addr}
	port := uint16(testPort)
	a.configure(Change{PrivateKey: &key, ListenPort: &port})
	synctest.Wait()
	return a
}

// joinTap makes a and b each other's peers.
func joinTap(a, b *node, more ...func(*PeerChange)) {
	keepalive := tapKeepalive
	common := func(c *PeerChange) {
		onNativeWire(c)
		c.AllowedIPs, c.Keepalive = nil, &keepalive
		for _, m := range more {
			m(c)
		}
	}
	a.addPeerNode(b, true, common)
	b.addPeerNode(a, true, common)
}

// newTapMesh makes n nodes, each every other's peer, in contact.
func newTapMesh(t testing.TB, network *transporttest.Network, n int, more ...func(*PeerChange)) []*node {
	var all []*node
	for i := range n {
		all = append(all, newTapNode(t, network, byte(i+1)))
	}
	for i := range all {
		for j := range i {
			joinTap(all[j], all[i], more...)
		}
	}
	time.Sleep(time.Second)
	synctest.Wait()
	for _, a := range all {
		a.settled()
	}
	return all
}

// settled forgets what came out of the device and was dropped so far: both ends' handshakes cross, and one may begin before
// the other end knows of it.
func (a *node) settled() {
	a.frames()
	a.forgetDrops()
}

// station is the MAC address number n.
func station(n int) ethernet.Address { return 0x02_00_00_00_00_00 + ethernet.Address(n) }

// frame makes a frame of a type nobody else uses.
func frame(to, from ethernet.Address, text string) []byte {
	b := make([]byte, 14, 60)
	to.Put(b)
	from.Put(b[6:])
	binary.BigEndian.PutUint16(b[12:], 0x88b6) // IEEE 802 local experimental 2
	return append(b, text...)
}

// tagged makes frame with a VLAN tag.
func tagged(vlan uint16, f []byte) []byte {
	return slices.Concat(f[:12], []byte{0x81, 0, byte(vlan >> 8), byte(vlan)}, f[12:])
}

// ipFrame puts an IPv4 packet into a frame.
func ipFrame(to, from ethernet.Address, packet []byte) []byte {
	f := frame(to, from, string(packet))
	binary.BigEndian.PutUint16(f[12:], ethernet.TypeIPv4)
	return f
}

// sendFrame pushes a frame into a's device.
func (a *node) sendFrame(f []byte) { a.dev.Queue(0).Push(f, noOffload) }

// frames returns what has come out of the device, without loop probes, once the bubble has settled.
func (a *node) frames() (all [][]byte) {
	synctest.Wait()
	for {
		f, o, ok := a.dev.Queue(0).TryNext(nil)
		if !ok {
			return all
		}
		if loopguard.IsProbe(f) {
			continue
		}
		if o.NeedsChecksum {
			var s device.Segments
			buf := append(append(make([]byte, device.Headroom), f...), make([]byte, device.Tailroom)...)
			if err := s.ResetFor(buf, device.Headroom, device.Headroom+len(f), o, device.Limits{Frame: true}); err != nil {
				a.t.Errorf("a frame whose offload does not fit it: %v", err)
			}
			for lo, hi, ok := s.Next(); ok; lo, hi, ok = s.Next() {
				all = append(all, bytes.Clone(buf[lo:hi]))
			}
			continue
		}
		all = append(all, f)
	}
}

// expectFrames fails unless exactly these frames have come out.
func (a *node) expectFrames(want ...[]byte) {
	a.t.Helper()
	got := a.frames()
	if !slices.EqualFunc(got, want, bytes.Equal) {
		a.t.Fatalf("%v: received %q, want %q", a.addr, got, want)
	}
}

// expectDrops fails unless a dropped so many for this reason and nothing else, and starts counting anew.
func (a *node) expectDropped(why DropReason, n int) {
	a.t.Helper()
	synctest.Wait()
	for r := range dropReasons {
		want := 0
		if r == why {
			want = n
		}
		if got := int(a.drops[r].Swap(0)); got != want {
			a.t.Errorf("%v: %d dropped for %q, want %d", a.addr, got, r, want)
		}
	}
}

func (a *node) addresses() map[ethernet.Address]string {
	all := make(map[ethernet.Address]string)
	for _, e := range a.Status().Switch.Addresses {
		where := "local"
		if !e.Local {
			where = e.Peer.Base64()
		}
		all[e.Address] = where
	}
	return all
}

func TestWireCarriesEveryFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTapMesh(t, transporttest.New(1), 2)
		a, b := all[0], all[1]
		if s := a.Status(); s.Switch == nil || !s.Switch.Wire || !s.Switch.Carrier || len(s.Drops) != 0 {
			t.Fatalf("status: %+v %+v", s, s.Switch)
		}
		frames := [][]byte{
			frame(station(2), station(1), ""),
			frame(ethernet.Broadcast, station(1), "to all"),
			frame(0x333300000001, station(1), "multicast"),
			frame(0x0180c2000000, station(1), "spanning tree"),
			tagged(7, frame(station(2), station(1), "VLAN 7")),
			tagged(7, tagged(8, frame(station(2), station(1), "VLAN 8 in 7"))),
			frame(station(2), station(1), string(bytes.Repeat([]byte("x"), tapMTU))),
			tagged(9, frame(station(2), station(1), string(bytes.Repeat([]byte("y"), tapMTU)))),
			ipFrame(station(2), station(1), udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), []byte("datagram"))),
			ipFrame(station(2), station(1), append(udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), nil), make([]byte, 18)...)),
			ipFrame(station(2), station(1), []byte("no IP at all")),
		}
		for _, f := range frames {
			a.sendFrame(f)
			b.expectFrames(f)
			b.sendFrame(f)
			a.expectFrames(f)
		}
		for _, n := range all {
			n.expectDropped(0, 0)
		}
	})
}

func TestFrameSizesOverNarrowPaths(t *testing.T) {
	for _, mtu := range []int{1280, 1400, 1500, 9000} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				network.SetDefaultLink(transporttest.Link{Delay: time.Millisecond, MTU: mtu})
				all := newTapMesh(t, network, 2)
				a, b := all[0], all[1]
				for pass := range 2 {
					for size := 0; size <= tapMTU; size += 37 {
						f := frame(station(2), station(1), string(bytes.Repeat([]byte{byte(size)}, size)))
						a.sendFrame(f)
						time.Sleep(10 * time.Millisecond)
						b.expectFrames(f)
					}
					if pass == 0 {
						time.Sleep(30 * time.Second) // the path's MTU is found out meanwhile
					}
				}
				for _, n := range all {
					n.expectDropped(0, 0)
				}
			})
		})
	}
}

func TestSuperFrames(t *testing.T) {
	for _, mtu := range []int{1280, 1500, 9000} {
		for _, vlan := range []uint16{0, 5} {
			t.Run(fmt.Sprintf("%d vlan %d", mtu, vlan), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network := transporttest.New(1)
					network.SetDefaultLink(transporttest.Link{Delay: time.Millisecond, MTU: mtu})
					all := newTapMesh(t, network, 2)
					a, b := all[0], all[1]
					packet := tcpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 30000)
					for i := range packet[40:] {
						packet[40+i] = byte(i * 7)
					}
					f, link := ipFrame(station(2), station(1), packet), 14
					if vlan != 0 {
						f, link = tagged(vlan, f), 18
					}
					o := device.Offload{NeedsChecksum: true, GSO: device.GSOTCPv4, HeaderLen: uint16(link + 40), SegmentSize: 1460,
						ChecksumStart: uint16(link + 20), ChecksumOffset: 16}
					a.dev.Queue(0).Push(f, o)
					time.Sleep(20 * time.Millisecond)
					var payload []byte
					for _, g := range b.frames() {
						if !bytes.Equal(g[:link], f[:link]) || len(g) > link+tapMTU {
							t.Fatalf("a frame of %d bytes that starts %x", len(g), g[:link])
						}
						if seq := binary.BigEndian.Uint32(g[link+24:]); int(seq) != len(payload) {
							t.Fatalf("sequence number %d after %d bytes", seq, len(payload))
						}
						if !tcpChecksumRight(g[link:]) {
							t.Fatal("a wrong checksum")
						}
						payload = append(payload, g[link+40:]...)
					}
					if !bytes.Equal(payload, packet[40:]) {
						t.Fatalf("%d bytes of %d have arrived, or others", len(payload), len(packet)-40)
					}
					for _, n := range all {
						n.expectDropped(0, 0)
					}
				})
			})
		}
	}
}

// tcpChecksumRight verifies the checksum of an IPv4 TCP packet.
func tcpChecksumRight(p []byte) bool {
	var sum uint32
	add := func(b []byte) {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
		if len(b)%2 == 1 {
			sum += uint32(b[len(b)-1]) << 8
		}
	}
	add(p[12:20])
	sum += 6 + uint32(len(p)-20)
	add(p[20:])
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}

func TestMeshLearnsAndKeepsTheHorizon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTapMesh(t, transporttest.New(1), 3)
		a, b, c := all[0], all[1], all[2]
		hello := frame(ethernet.Broadcast, station(1), "who is there")
		a.sendFrame(hello)
		b.expectFrames(hello)
		c.expectFrames(hello)
		a.expectFrames() // and nobody sends it on, or it would be here and twice there
		answer := frame(station(1), station(3), "I am")
		c.sendFrame(answer)
		a.expectFrames(answer)
		b.expectFrames()
		known := frame(station(3), station(1), "to you alone")
		a.sendFrame(known)
		c.expectFrames(known)
		b.expectFrames()
		unknown := frame(station(9), station(1), "to whom it may concern")
		a.sendFrame(unknown)
		b.expectFrames(unknown)
		c.expectFrames(unknown)
		if got := a.addresses(); len(got) != 2 || got[station(1)] != "local" || got[station(3)] != c.public.Base64() {
			t.Errorf("addresses: %v", got)
		}
		for _, n := range all {
			n.expectDropped(0, 0)
		}
		local := frame(station(1), station(4), "to a neighbour")
		a.sendFrame(local)
		b.expectFrames()
		a.expectDropped(DropOutSameSide, 1)
	})
}

// A host that moves to another site is found there as soon as it says anything, also without its peers being asked.
func TestMovedStation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTapMesh(t, transporttest.New(1), 3)
		a, b, c := all[0], all[1], all[2]
		b.sendFrame(frame(ethernet.Broadcast, station(7), "here"))
		a.frames()
		c.frames()
		gratuitous := frame(ethernet.Broadcast, station(7), "now here")
		c.sendFrame(gratuitous)
		a.expectFrames(gratuitous)
		b.expectFrames(gratuitous)
		to := frame(station(7), station(1), "found you")
		a.sendFrame(to)
		c.expectFrames(to)
		b.expectFrames()
		back := frame(station(7), station(2), "from where it was")
		b.sendFrame(back)
		c.expectFrames(back)
		if s := a.Status().Switch; s.Moves != 1 {
			t.Errorf("%d moves", s.Moves)
		}
	})
}

// A frame that waited for a session is sent if that comes soon. Later it would tell a peer that comes back where its sender was.
func TestFramesThatWaitedLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		all := newTapMesh(t, network, 3)
		a, b, c := all[0], all[1], all[2]
		joined := func(n *node, loss float64) { network.SetLink(n.host, c.host, transporttest.Link{Loss: loss}) }
		joined(a, 1)
		joined(b, 1)
		time.Sleep(200 * time.Second)            // sessions have ended
		a.tunnelPeer(c).timers.attempts.Store(0) // as at the beginning of a round, when frames wait
		a.sendFrame(frame(ethernet.Broadcast, station(7), "at a"))
		time.Sleep(30 * time.Second)
		b.tunnelPeer(c).timers.attempts.Store(0)
		moved := frame(ethernet.Broadcast, station(7), "at b")
		b.sendFrame(moved)
		time.Sleep(100 * time.Millisecond)
		c.frames()
		joined(b, 0)
		time.Sleep(maxStagedFrame)
		c.expectFrames(moved)
		joined(a, 0)
		time.Sleep(20 * time.Second)
		c.expectFrames()
		if got := c.addresses()[station(7)]; got != b.public.Base64() {
			t.Errorf("the station that moved from a to b is at %s", got)
		}
		b.frames()
		to := frame(station(7), station(9), "found you")
		c.sendFrame(to)
		b.expectFrames(to)
	})
}

func asSpoke(c *PeerChange) { c.Port = &PortChange{Spoke: true} }

// newHub makes a hub and spokes that know only the hub.
func newHub(t testing.TB, network *transporttest.Network, spokes int) (hub *node, all []*node) {
	hub = newTapNode(t, network, 100)
	for i := range spokes {
		s := newTapNode(t, network, byte(i+1))
		joinTap(hub, s)
		hub.configure(Change{Peers: []PeerChange{{PublicKey: s.public, UpdateOnly: true, Port: &PortChange{Spoke: true}}}})
		all = append(all, s)
	}
	time.Sleep(time.Second)
	hub.settled()
	for _, s := range all {
		s.settled()
	}
	return hub, all
}

func TestHubSendsOnBetweenSpokes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, spokes := newHub(t, transporttest.New(1), 3)
		a, b, c := spokes[0], spokes[1], spokes[2]
		f := frame(ethernet.Broadcast, station(1), "hello")
		a.sendFrame(f)
		for _, n := range []*node{hub, b, c} {
			n.expectFrames(f)
		}
		a.expectFrames()
		answer := frame(station(1), station(2), "hello to you")
		b.sendFrame(answer)
		a.expectFrames(answer)
		hub.expectFrames()
		c.expectFrames()
		large := frame(station(1), station(2), string(bytes.Repeat([]byte("z"), tapMTU)))
		b.sendFrame(large)
		a.expectFrames(large)
		hub.expectFrames()
		packet := tcpPacket(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), 9000)
		b.dev.Queue(0).Push(ipFrame(station(1), station(2), packet), device.Offload{NeedsChecksum: true, GSO: device.GSOTCPv4,
			HeaderLen: 54, SegmentSize: 1460, ChecksumStart: 34, ChecksumOffset: 16})
		total := 0
		for _, g := range a.frames() {
			if !tcpChecksumRight(g[14:]) {
				t.Error("a wrong checksum of a frame that the hub sent on")
			}
			total += len(g) - 54
		}
		if total != 9000 {
			t.Errorf("%d of 9000 bytes", total)
		}
		for _, n := range append(spokes, hub) {
			n.expectDropped(0, 0)
		}
	})
}

// lan is a dumb bridge between devices of nodes and listening stations: what comes from one goes to all others.
type lan struct {
	mu    sync.Mutex
	nodes []*node
	heard [][]byte // frames that were not sent by a station of the LAN's own, without probes
}

// attach puts nodes onto a LAN. What they write to their devices goes to the other nodes there.
func newLAN(nodes ...*node) *lan {
	l := &lan{}
	for _, n := range nodes {
		l.attach(n)
	}
	return l
}

func (l *lan) attach(n *node) {
	l.mu.Lock()
	l.nodes = append(l.nodes, n)
	l.mu.Unlock()
	go func() {
		for {
			f, _, ok := n.dev.Queue(0).Next(nil)
			if !ok {
				return
			}
			l.send(f, n)
		}
	}()
}

func (l *lan) detach(n *node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = slices.DeleteFunc(l.nodes, func(m *node) bool { return m == n })
}

// send has a frame appear on the LAN; from is the node it came through, or nil.
func (l *lan) send(f []byte, from *node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from != nil && !slices.Contains(l.nodes, from) {
		return // detached
	}
	if from != nil && !loopguard.IsProbe(f) && len(l.heard) < 1<<20 {
		l.heard = append(l.heard, f)
	}
	for _, n := range l.nodes {
		if n != from {
			n.sendFrame(f)
		}
	}
}

func (l *lan) take() [][]byte {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.heard
	l.heard = nil
	return h
}

// Two sites that are bridged by the tunnel and by another way as well: one end blocks, whatever is sent arrives once, and
// when the other way is cut the tunnel takes over.
func TestLoopIsFoundAndBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: time.Millisecond})
		all := newTapMesh(t, network, 2)
		a, b := all[0], all[1]
		both := newLAN(a, b)
		both.send(frame(ethernet.Broadcast, station(1), "round and round"), nil)
		time.Sleep(3 * time.Second)
		if n := len(both.take()); n > 5000 {
			t.Errorf("%d frames came out of a loop in 3 s", n)
		}
		blocked := 0
		for _, n := range all {
			if n.Status().Switch.Blocked {
				blocked++
			}
		}
		if blocked != 1 {
			t.Fatalf("%d ends of two are blocked", blocked)
		}
		time.Sleep(time.Minute)
		both.take()
		both.send(frame(ethernet.Broadcast, station(1), "once"), nil)
		time.Sleep(time.Second)
		if got := both.take(); len(got) != 0 {
			t.Errorf("the loop sends %d frames back", len(got))
		}
		// The other way is cut: a and b are on LANs of their own now.
		both.detach(b)
		other := newLAN()
		other.mu.Lock()
		other.nodes = append(other.nodes, b)
		other.mu.Unlock()
		time.Sleep(10 * time.Second)
		for _, n := range all {
			if n.Status().Switch.Blocked {
				t.Error("still blocked after the loop is gone")
			}
		}
		both.send(frame(ethernet.Broadcast, station(1), "through the tunnel"), nil)
		time.Sleep(time.Second)
		if got := b.Status().Drops; got[DropInLoop.String()] == 0 && got[DropOutLoop.String()] == 0 && a.Status().Drops[DropOutLoop.String()] == 0 {
			t.Error("nothing was ever blocked")
		}
	})
}

func TestNoLoopIsSeenWhereThereIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: time.Millisecond})
		all := newTapMesh(t, network, 4)
		var lans []*lan
		for _, n := range all {
			lans = append(lans, newLAN(n))
		}
		time.Sleep(2 * time.Minute)
		for _, n := range all {
			if s := n.Status().Switch; s.Blocked || s.Loops != 0 {
				t.Errorf("%v: %+v", n.addr, s)
			}
		}
		f := frame(ethernet.Broadcast, station(1), "hello")
		lans[0].send(f, nil)
		time.Sleep(time.Second)
		for i, l := range lans {
			got := l.take()
			if i == 0 && len(got) != 0 || i > 0 && (len(got) != 1 || !bytes.Equal(got[0], f)) {
				t.Errorf("LAN %d heard %q", i, got)
			}
		}
	})
}

func TestCarrierFollowsThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a := newTapNode(t, network, 1)
		if a.dev.Carrier() {
			t.Error("carrier without a peer")
		}
		b := newTapNode(t, network, 2)
		joinTap(a, b)
		time.Sleep(2 * time.Second)
		if !a.dev.Carrier() || !b.dev.Carrier() {
			t.Fatal("no carrier though both are in contact")
		}
		time.Sleep(10 * time.Minute) // nobody sends anything
		if !a.dev.Carrier() || !b.dev.Carrier() {
			t.Fatal("the carrier was lost while idle")
		}
		if s := a.Status().Switch; !s.Carrier {
			t.Error("status knows nothing of the carrier")
		}
		// One way only: a hears b's answers.
		for range 60 {
			a.sendFrame(frame(station(2), station(1), "x"))
			time.Sleep(time.Second)
			if !a.dev.Carrier() || !b.dev.Carrier() {
				t.Fatal("the carrier was lost while data goes one way")
			}
		}
		network.SetLink(a.host, b.host, transporttest.Link{Loss: 1})
		time.Sleep(silentAfter*tapKeepalive + silentSlack + 2*bridgeEvery)
		if a.dev.Carrier() || b.dev.Carrier() {
			t.Error("carrier though nothing passes")
		}
		network.SetLink(a.host, b.host, transporttest.Link{})
		time.Sleep(20 * time.Second)
		if !a.dev.Carrier() || !b.dev.Carrier() {
			t.Error("no carrier though they can reach each other again")
		}
		b.Close()
		synctest.Wait()
		if a.dev.Carrier() {
			t.Error("carrier after goodbye")
		}
	})
}

func TestCarrierThatDoesNotFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTapNode(t, transporttest.New(1), 1)
		a.configure(Change{Switch: &SwitchChange{KeepCarrier: true}})
		synctest.Wait()
		if !a.dev.Carrier() {
			t.Error("no carrier")
		}
		a.configure(Change{Switch: &SwitchChange{}})
		synctest.Wait()
		if a.dev.Carrier() {
			t.Error("carrier")
		}
	})
}

func TestSwitchConfigurationIsValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		tap, tun := newTapNode(t, network, 1), newNode(t, network, 2)
		other := newTapNode(t, network, 3)
		third := newTapNode(t, network, 4)
		w, native := WireGuard, Culvert
		port := func(p PortChange) Change {
			return Change{Peers: []PeerChange{{PublicKey: other.public, Wire: &native, Port: &p}}}
		}
		for name, c := range map[string]Change{
			"WireGuard's wire":    {Peers: []PeerChange{{PublicKey: other.public, Wire: &w}}},
			"no wire":             {Peers: []PeerChange{{PublicKey: other.public}}},
			"pinned group":        port(PortChange{Pinned: []ethernet.Address{ethernet.Broadcast}}),
			"pinned zero":         port(PortChange{Pinned: []ethernet.Address{0}}),
			"VLAN 4095":           port(PortChange{PVID: 4095}),
			"VLAN 0":              port(PortChange{VLANs: []uint16{0}}),
			"too many addresses":  port(PortChange{MaxAddresses: maxAddresses + 1}),
			"a limit of -2":       port(PortChange{Broadcast: -2}),
			"ageing of a century": {Switch: &SwitchChange{Ageing: 1e6 * time.Hour}},
			"pinned twice": {Peers: []PeerChange{
				{PublicKey: other.public, Wire: &native, Port: &PortChange{Pinned: []ethernet.Address{station(1)}}},
				{PublicKey: third.public, Wire: &native, Port: &PortChange{Pinned: []ethernet.Address{station(1)}}},
			}},
		} {
			if err := tap.Configure(c); err == nil {
				t.Errorf("%s: taken", name)
			} else {
				t.Log(err)
			}
		}
		for _, c := range []Change{{Switch: &SwitchChange{}}, port(PortChange{})} {
			if err := tun.Configure(c); err == nil {
				t.Error("a tunnel of IP packets takes settings of a switch")
			}
		}
		if n := len(tap.Status().Peers); n != 0 {
			t.Errorf("%d peers came of refused changes", n)
		}
	})
}

// A tun and a tap do not exchange anything, and say so.
func TestModesThatDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		tap, tun := newTapNode(t, network, 1), newNode(t, network, 2)
		tap.addPeerNode(tun, true, onNativeWire, func(c *PeerChange) { c.AllowedIPs = nil })
		tun.addPeerNode(tap, true, onNativeWire, func(c *PeerChange) {
			c.AllowedIPs = []AllowedIPChange{{Prefix: netip.MustParsePrefix("10.0.0.1/32")}}
		})
		tap.sendFrame(frame(ethernet.Broadcast, station(1), "frame"))
		tun.dev.Queue(0).Push(udpPacket(tun.inner, netip.MustParseAddr("10.0.0.1"), []byte("packet")), noOffload)
		time.Sleep(time.Second)
		tap.expectFrames()
		tun.expect()
		if tap.dropped(DropInLayer) != 1 || tun.dropped(DropInLayer) == 0 {
			t.Errorf("dropped: %v, %v", tap.Status().Drops, tun.Status().Drops)
		}
	})
}

// Nobody sends from the interface's own address, nor takes it over.
func TestOwnAddressIsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTapMesh(t, transporttest.New(1), 3)
		a, b, c := all[0], all[1], all[2]
		var own [6]byte
		station(1).Put(own[:])
		a.dev.SetHardwareAddress(own)
		time.Sleep(2 * bridgeEvery)
		a.sendFrame(frame(ethernet.Broadcast, station(1), "mine"))
		b.frames()
		c.frames()
		b.sendFrame(frame(ethernet.Broadcast, station(1), "no, mine"))
		a.expectFrames()
		c.frames()
		a.expectDropped(DropInPinned, 1)
		to := frame(station(1), station(3), "to its owner")
		a.settled()
		c.sendFrame(to)
		c.settled()
		if got := a.addresses()[station(1)]; got != "local" {
			t.Errorf("the interface's own address is at %s", got)
		}
	})
}

// What is for the interface's own address is sent on to nobody and under no limit, though the interface sends nothing.
func TestFramesForTheOwnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		hub, a, b := newTapNode(t, network, 1), newTapNode(t, network, 2), newTapNode(t, network, 3)
		for _, spoke := range []*node{a, b} {
			joinTap(hub, spoke, func(c *PeerChange) { c.Port = &PortChange{Spoke: true, UnknownUnicast: 1} })
		}
		var own [6]byte
		station(1).Put(own[:])
		hub.dev.SetHardwareAddress(own)
		time.Sleep(2 * bridgeEvery)
		for _, n := range []*node{hub, a, b} {
			n.settled()
		}
		const count = 100
		for range count {
			a.sendFrame(frame(station(1), station(2), "listen"))
		}
		if got := len(hub.frames()); got != count {
			t.Errorf("%d frames of %d for the interface have come out of it; drops %v", got, count, hub.drops.snapshot())
		}
		if got := len(b.frames()); got != 0 || len(b.drops.snapshot()) != 0 {
			t.Errorf("%d of them have come to another peer; its drops %v", got, b.drops.snapshot())
		}
	})
}

// The more others a peer's frames go to, the fewer it may have sent to all of them, unless its limits are given.
func TestFloodBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const spokes = 100
		hub := newTapNode(t, transporttest.New(1), 200)
		var peers []PeerChange
		wire := Culvert
		for i := range spokes {
			key, err := crypto.GeneratePrivateKey()
			if err != nil {
				t.Fatal(err)
			}
			p := PortChange{Spoke: true}
			if i == 0 {
				p.Broadcast = 3000
			}
			peers = append(peers, PeerChange{PublicKey: key.Public(), Wire: &wire, Port: &p})
		}
		hub.configure(Change{Peers: peers})
		passed := func(i int) (n int) {
			port := hub.lookupPeer(peers[i].PublicKey).port.Load()
			for now := time.Hour; now < time.Hour+10*time.Second; now += 100 * time.Microsecond {
				if port.broadcast.Allow(now) {
					n++
				}
			}
			return n / 10
		}
		if n := passed(1); n < 450 || n > 550 { // of 50000 copies, 100 each
			t.Errorf("%d broadcasts a second of one spoke of %d", n, spokes)
		}
		if n := passed(0); n < 2900 || n > 3100 {
			t.Errorf("%d broadcasts a second where 3000 are allowed", n)
		}
		hub.configure(Change{ReplacePeers: true, Peers: peers[1:4]})
		if n := passed(1); n < 950 || n > 1050 {
			t.Errorf("%d broadcasts a second of one spoke of 3", n)
		}
	})
}

// Peers that all have each other as spokes would relay to one another for ever. Neither of two such peers relays for the other, and
// says so.
func TestMutualSpokesDoNotRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: time.Millisecond})
		all := newTapMesh(t, network, 3, asSpoke)
		time.Sleep(time.Second)
		for _, n := range all {
			n.settled()
		}
		f := frame(ethernet.Broadcast, station(1), "to all, once")
		all[0].sendFrame(f)
		time.Sleep(time.Second)
		all[0].expectFrames()
		all[1].expectFrames(f)
		all[2].expectFrames(f)
		back := frame(station(1), station(2), "and back")
		all[1].sendFrame(back)
		time.Sleep(time.Second)
		all[0].expectFrames(back)
		all[2].expectFrames()
		for _, n := range all {
			for _, p := range n.Status().Peers {
				if !p.Port.Spoke || !p.Port.Mutual {
					t.Errorf("port %+v", p.Port)
				}
			}
		}
		// Where one end stops, the other one relays.
		for _, n := range all[1:] {
			n.configure(Change{Peers: []PeerChange{{PublicKey: all[0].public, UpdateOnly: true, Port: &PortChange{}}}})
		}
		time.Sleep(time.Second)
		for _, p := range all[0].Status().Peers {
			if !p.Port.Spoke || p.Port.Mutual {
				t.Errorf("port %+v", p.Port)
			}
		}
	})
}

// An end with one peer relays nothing, also where it has that as a spoke, and so does not keep its hub from relaying.
func TestSpokeThatHasItsHubAsASpoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, spokes := newHub(t, transporttest.New(1), 2)
		for _, s := range spokes {
			s.configure(Change{Peers: []PeerChange{{PublicKey: hub.public, UpdateOnly: true, Port: &PortChange{Spoke: true}}}})
		}
		time.Sleep(time.Second)
		f := frame(ethernet.Broadcast, station(1), "hello")
		spokes[0].sendFrame(f)
		spokes[1].expectFrames(f)
	})
}

// An unsolicited neighbour advertisement finds a station that has moved, as a gratuitous ARP does.
func TestUnsolicitedAdvertisementMovesAStation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTapMesh(t, transporttest.New(1), 3)
		a, b, c := all[0], all[1], all[2]
		advertisement := func() []byte {
			f := frame(0x333300000001, station(7), "")
			binary.BigEndian.PutUint16(f[12:], ethernet.TypeIPv6)
			packet := make([]byte, 40+32)
			packet[0], packet[5], packet[6], packet[7] = 0x60, 32, 58, 255
			copy(packet[8:], netip.MustParseAddr("fe80::7").AsSlice())
			copy(packet[24:], netip.MustParseAddr("ff02::1").AsSlice())
			body := packet[40:]
			body[0], body[4] = 136, 0x20 // override
			copy(body[8:], netip.MustParseAddr("fe80::7").AsSlice())
			body[24], body[25] = 2, 1 // target link-layer address
			station(7).Put(body[26:])
			sum := ippacket.Sum(packet[8:40], 32+58)
			binary.BigEndian.PutUint16(body[2:], ^ippacket.Fold(ippacket.Sum(body, sum)))
			return append(f, packet...)
		}()
		b.sendFrame(advertisement)
		a.expectFrames(advertisement)
		c.frames()
		c.sendFrame(advertisement)
		a.expectFrames(advertisement)
		b.frames()
		to := frame(station(7), station(1), "found")
		a.sendFrame(to)
		c.expectFrames(to)
		b.expectFrames()
	})
}

// A peer that does not answer gets no copies of what goes to everybody, however much that is; the others do.
func TestFloodPassesOverSilentPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		all := newTapMesh(t, network, 3)
		a, b, c := all[0], all[1], all[2]
		network.SetLink(a.host, c.host, transporttest.Link{Loss: 1})
		time.Sleep(5 * time.Minute)
		a.settled()
		b.settled()
		const news = 200 // not beyond the burst that b takes of a
		for range news {
			a.sendFrame(frame(ethernet.Broadcast, station(1), "news"))
		}
		synctest.Wait()
		if got := len(b.frames()); got != news {
			t.Errorf("%d of %d arrived", got, news)
		}
		if n := a.tunnelPeer(c).staged.bytes; n != 0 {
			t.Errorf("%d bytes wait for a peer that does not answer", n)
		}
		if n := a.dropped(DropOutHandshake); n != news {
			t.Errorf("%d dropped", n)
		}
		network.SetLink(a.host, c.host, transporttest.Link{})
		time.Sleep(time.Minute)
		c.settled()
		f := frame(ethernet.Broadcast, station(1), "back again")
		a.sendFrame(f)
		c.expectFrames(f)
	})
}
