package tunnel

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/transport/transporttest"
	"culvert/tunnel/access"
	"culvert/tunnel/device"
	"culvert/tunnel/ethernet"
)

func policy(t testing.TB, s access.Spec) *access.Policy {
	t.Helper()
	p, err := access.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// restrict puts a policy on n's peer.
func (a *node) restrict(peer *node, s access.Spec) {
	a.t.Helper()
	a.configure(Change{Peers: []PeerChange{{PublicKey: peer.public, UpdateOnly: true, Access: policy(a.t, s)}}})
}

// udpBetween is a packet between the nodes with ports of its own.
func udpBetween(a, b netip.Addr, sport, dport uint16, payload string) []byte {
	p := udpPacket(a, b, []byte(payload))
	binary.BigEndian.PutUint16(p[20:], sport)
	binary.BigEndian.PutUint16(p[22:], dport)
	return p
}

// sendPorts pushes one from a to b.
func (a *node) sendPorts(b *node, sport, dport uint16, payload string) {
	a.dev.Queue(0).Push(udpBetween(a.inner, b.inner, sport, dport, payload), noOffload)
}

// payloads are what came out of the device of UDP; ICMP errors count as "error".
func (a *node) payloads() (all []string) {
	for _, p := range a.written() {
		if p[9] == 1 {
			all = append(all, "error")
			continue
		}
		all = append(all, string(p[28:]))
	}
	return all
}

func (a *node) expectPayloads(want ...string) {
	a.t.Helper()
	if got := a.payloads(); !slices.Equal(got, want) {
		a.t.Fatalf("received %q, want %q", got, want)
	}
}

// toServer allows the peer to reach UDP ports 53 of node n.
func toServer(n *node) access.Spec {
	return access.Spec{Rules: []access.Rule{{Action: access.Allow, Addresses: []netip.Prefix{netip.PrefixFrom(n.inner, 32)},
		Protocols: []uint8{access.UDP}, Ports: []access.Ports{{First: 53, Last: 53}}}}}
}

func TestAccessRules(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		synctest.Test(t, func(t *testing.T) {
			client, server := newPairOn(t, wire, transporttest.New(1)) // who is first knows the other's endpoint
			client.send(server, "before")
			server.expectPayloads("before")
			server.restrict(client, toServer(server))
			server.send(client, "unasked") // to port 2000
			client.expectPayloads()
			server.expectPayloads("error")
			client.send(server, "wrong port")
			server.expectPayloads()
			client.sendPorts(server, 1000, 53, "query")
			server.expectPayloads("query")
			server.sendPorts(client, 53, 1000, "answer")
			client.expectPayloads("answer")
			server.sendPorts(client, 53, 1001, "another's")
			client.expectPayloads()
			server.expectPayloads("error")
			s := server.Status()
			if got := s.Peers[0].Access; got == nil || got.Flows != 1 || got.FromCounts.Denied != 1 || got.ToCounts.Denied != 2 || got.Rules != 1 {
				t.Errorf("%+v", got)
			}
			if s.Drops["in: denied by rule"] != 1 || s.Drops["out: denied by rule"] != 2 {
				t.Errorf("%v", s.Drops)
			}
			handshakes := s.Handshakes.Completed
			// Another policy that allows the same flow keeps it, and the session.
			spec := toServer(server)
			spec.Rules[0].Ports[0].Last = 54
			server.restrict(client, spec)
			server.sendPorts(client, 53, 1000, "answer")
			client.expectPayloads("answer")
			spec.Rules[0].Ports[0].First = 54
			server.restrict(client, spec)
			server.sendPorts(client, 53, 1000, "answer")
			client.expectPayloads()
			server.expectPayloads("error")
			// Whoever knows of no policies lifts none: as `wg syncconf` does it.
			server.configure(Change{ReplacePeers: true, Peers: []PeerChange{{PublicKey: client.public, ReplaceAllowedIPs: true,
				AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(client.inner, 32)}}, Wire: &wire}}})
			client.send(server, "wrong port")
			server.expectPayloads()
			server.configure(Change{Peers: []PeerChange{{PublicKey: client.public, Access: access.Unrestricted}}})
			client.send(server, "any port")
			server.expectPayloads("any port")
			server.send(client, "unasked")
			client.expectPayloads("unasked")
			if s := server.Status(); s.Peers[0].Access != nil || s.Handshakes.Completed != handshakes {
				t.Errorf("%+v, %d handshakes, before %d", s.Peers[0].Access, s.Handshakes.Completed, handshakes)
			}
		})
	}
}

func TestAccessExpires(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			client, server := newPairOn(t, wire, network)
			server.restrict(client, access.Spec{Default: access.Allow, Expires: time.Now().Add(time.Hour + 500*time.Millisecond)})
			client.send(server, "one")
			server.expect("one")
			server.send(client, "two")
			client.expect("two")
			time.Sleep(time.Hour)
			client.send(server, "three")
			server.expect("three")
			l := watch(network, server)
			time.Sleep(time.Second)
			synctest.Wait()
			if p := server.tunnelPeer(client); p.current.Load() != nil || server.Status().Peers[0].Access.Closed != access.Expired {
				t.Fatal("the session goes on after its time")
			}
			sent := func() (n int) {
				for _, e := range l.all() {
					if e.from == "a" {
						n++
					}
				}
				return n
			}
			said := sent()
			server.send(client, "four")
			client.send(server, "five")
			time.Sleep(5 * time.Minute)
			server.expectPayloads("error") // to its own side: prohibited
			client.expect()
			if got := sent(); got != said {
				t.Errorf("%d messages were sent to a peer whose time is over", got-said)
			}
			if n := server.dropped(DropInShut); n < 10 {
				t.Errorf("%d initiations were dropped", n)
			}
			server.restrict(client, access.Spec{Default: access.Allow, Expires: time.Now().Add(time.Hour)})
			client.send(server, "six")
			time.Sleep(20 * time.Second)
			if got := server.received(); !slices.Contains(got, "six") {
				t.Errorf("received %q after it was let in again", got)
			}
		})
	}
}

func TestAccessSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		server, client := newNode(t, network, 1), newNode(t, network, 2)
		every := 25 * time.Second
		server.addPeerNode(client, true, onNativeWire, func(c *PeerChange) { c.Keepalive = &every })
		client.addPeerNode(server, true, onNativeWire)
		all := [7]bool{true, true, true, true, true, true, true}
		// The bubble's clock starts at midnight UTC.
		server.restrict(client, access.Spec{Default: access.Allow, Schedule: []access.Window{{Days: all, From: 8 * time.Hour, To: 18 * time.Hour}}})
		up := func() bool {
			synctest.Wait()
			return server.tunnelPeer(client).current.Load() != nil
		}
		start := time.Now()
		for range 48 * 6 {
			at := time.Since(start) % (24 * time.Hour)
			open := at >= 8*time.Hour && at < 18*time.Hour
			time.Sleep(5 * time.Second) // a handshake is at most about a second away
			if up() != open {
				t.Fatalf("at %v there is a session: %v", at, !open)
			}
			time.Sleep(10*time.Minute - 6*time.Second)
			if up() != open {
				t.Fatalf("a second before the next ten minutes after %v there is a session: %v", at, !open)
			}
			time.Sleep(time.Second)
		}
		if server.Status().Handshakes.Completed == 0 {
			t.Error("no handshake at all")
		}
	})
}

func TestAccessHeldQuotaRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := newNativePair(t, transporttest.New(1))
		held, free := true, false
		server.configure(Change{Peers: []PeerChange{{PublicKey: client.public, Held: &held}}})
		client.send(server, "one")
		server.send(client, "two")
		time.Sleep(10 * time.Second)
		client.expect()
		server.expectPayloads("error")
		if s := server.Status(); s.Peers[0].LastHandshake.IsZero() || s.Peers[0].Native.RTT == 0 && s.Peers[0].Native.Agent == "" && !s.Peers[0].Native.PathSettled || !s.Peers[0].Access.Held {
			t.Errorf("a peer that is held has no session: %+v", s.Peers[0])
		}
		server.configure(Change{Peers: []PeerChange{{PublicKey: client.public, Held: &free}}})
		client.send(server, "three")
		server.expect("three")
		if server.Status().Peers[0].Access != nil {
			t.Error("a peer that was released is restricted still")
		}
		server.restrict(client, access.Spec{Default: access.Allow, Quota: access.Quota{Bytes: 100, Every: access.Day}})
		client.send(server, "0123456789012345678901234567890123456789") // 68 bytes
		client.send(server, "01234567890123456789")                     // beyond it, as it was not reached before
		client.send(server, "x")
		server.expect("0123456789012345678901234567890123456789", "01234567890123456789")
		server.send(client, "x")
		client.expect()
		if got := server.Status().Peers[0].Access; got.Used.Bytes != 116 || got.FromCounts.OverQuota != 1 || got.ToCounts.OverQuota != 1 {
			t.Errorf("%+v", got)
		}
		time.Sleep(24 * time.Hour)
		client.send(server, "another day")
		time.Sleep(time.Minute)
		if got := server.received(); !slices.Contains(got, "another day") {
			t.Errorf("received %q", got)
		}
		server.configure(Change{Peers: []PeerChange{{PublicKey: client.public, Usage: &access.Usage{Bytes: 1 << 40, Since: server.Status().Peers[0].Access.Used.Since}}}})
		client.send(server, "restored")
		server.expect()
		server.restrict(client, access.Spec{Default: access.Allow, FromPeer: 8000}) // a burst of 256 KiB
		big := string(make([]byte, 1000))
		for range 300 {
			client.send(server, big)
		}
		if n := len(server.received()); n != (256<<10)/1028 {
			t.Errorf("%d packets of a burst", n)
		}
		if n := server.dropped(DropInRate); n != 300-(256<<10)/1028 {
			t.Errorf("%d dropped", n)
		}
	})
}

// TestAccessOfFrames: a hub holds each of its spokes to its rules, also where it sends from one to another.
func TestAccessOfFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, spokes := newHub(t, transporttest.New(1), 3)
		a, b := spokes[0], spokes[1]
		addrA, addrB := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		hub.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Access: policy(t, access.Spec{Rules: []access.Rule{
			{Action: access.Allow, Addresses: []netip.Prefix{netip.PrefixFrom(addrB, 32)}, Protocols: []uint8{access.UDP}, Ports: []access.Ports{{First: 53, Last: 53}}},
		}})}}})
		macA, macB := station(1), station(2)
		ip := func(to, from ethernet.Address, src, dst netip.Addr, sport, dport uint16, text string) []byte {
			return ipFrame(to, from, udpBetween(src, dst, sport, dport, text))
		}
		arp := func(to, from ethernet.Address) []byte {
			f := frame(to, from, string(make([]byte, 28)))
			binary.BigEndian.PutUint16(f[12:], ethernet.TypeARP)
			return f
		}
		count := func(n *node) int { return len(n.frames()) }
		b.sendFrame(arp(ethernet.Broadcast, macB))
		if count(a) != 1 {
			t.Fatal("no ARP to a")
		}
		count(b)
		a.sendFrame(arp(macB, macA))
		if count(b) != 1 {
			t.Fatal("no ARP from a")
		}
		b.sendFrame(ip(macA, macB, addrB, addrA, 53, 1000, "unasked"))
		a.sendFrame(ip(macB, macA, addrA, addrB, 1000, 54, "wrong port"))
		a.sendFrame(frame(macB, macA, "another protocol"))
		if n := count(a) + count(b); n != 0 {
			t.Fatalf("%d frames that no rule allows", n)
		}
		a.sendFrame(ip(macB, macA, addrA, addrB, 1000, 53, "query"))
		if count(b) != 1 {
			t.Fatal("no query")
		}
		b.sendFrame(ip(macA, macB, addrB, addrA, 53, 1000, "answer"))
		if count(a) != 1 {
			t.Fatal("no answer")
		}
		if hub.dropped(DropInDenied) != 2 || hub.dropped(DropOutDenied) != 1 {
			t.Errorf("%v", hub.Status().Drops)
		}
	})
}

// TestFloodOfFlows: a peer that fills its table has it grow to its share, and no other peer's flows go.
func TestFloodOfFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		server, good, bad := newNode(t, network, 1), newNode(t, network, 2), newNode(t, network, 3)
		for _, c := range []*node{good, bad} {
			server.addPeerNode(c, true)
			c.addPeerNode(server, true)
			server.restrict(c, toServer(server))
		}
		// Peers without traffic share what there is.
		for range 1000 {
			key, err := crypto.GeneratePrivateKey()
			if err != nil {
				t.Fatal(err)
			}
			server.configure(Change{Peers: []PeerChange{{PublicKey: key.Public(), Access: policy(t, toServer(server))}}})
		}
		good.sendPorts(server, 1000, 53, "query")
		server.expectPayloads("query")
		for i := range 20000 {
			bad.sendPorts(server, uint16(i), 53, "flood")
			if i%100 == 99 {
				server.payloads()
			}
		}
		room := map[*node]int{good: server.tunnelPeer(good).access.Load().Room(), bad: server.tunnelPeer(bad).access.Load().Room()}
		if room[good] != access.MinFlows || room[bad] != 1024 { // a share of 2^20 for 1002 peers is 1046
			t.Errorf("tables of %d and %d", room[good], room[bad])
		}
		server.sendPorts(good, 53, 1000, "answer")
		good.expectPayloads("answer")
	})
}

// TestRestrictedDatapathAllocatesNothing is TestDatapathAllocatesNothing with everything a policy can ask.
func TestRestrictedDatapathAllocatesNothing(t *testing.T) {
	for _, segments := range []int{1, 46} {
		packet, o := superPacket(segments)
		m, capture := newMemoryPath(t, packet, o)
		m.restrict(t)
		m.sink(func([]byte, device.Offload) {})
		if n := testing.AllocsPerRun(100, func() {
			m.send()
			m.receive(capture.trains)
		}); n != 0 {
			t.Errorf("%d segments: %v allocations", segments, n)
		}
		for _, end := range []*Tunnel{m.out.tunnel, m.in.tunnel} {
			if s := end.Status(); len(s.Drops) != 0 {
				t.Errorf("%v", s.Drops)
			}
		}
	}
}

// restrict puts policies on both ends that let everything of the path's packet through.
func (m *memoryPath) restrict(t testing.TB) {
	for _, end := range []*Tunnel{m.out.tunnel, m.in.tunnel} {
		for _, p := range end.snapshotPeers() {
			var rules []access.Rule
			for i := range 100 {
				rules = append(rules, access.Rule{Action: access.Allow, Direction: access.Direction(i % 2), Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
			}
			s := access.Spec{Default: access.Allow, Rules: append(rules, access.Rule{}, access.Rule{Direction: access.ToPeer}),
				FromPeer: 1e12, ToPeer: 1e12, Quota: access.Quota{Bytes: 1 << 60}}
			if err := end.Configure(Change{Peers: []PeerChange{{PublicKey: p.public, Access: policy(t, s)}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// BenchmarkRestricted is the datapath of one packet both ways, by what is asked of the peers.
func BenchmarkRestricted(b *testing.B) {
	small := udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), make([]byte, 1372))
	packet, o := superPacket(46)
	for _, c := range []struct {
		name   string
		packet []byte
		o      device.Offload
	}{{"1400 bytes", small, noOffload}, {"super-packet", packet, o}} {
		for _, restricted := range []bool{false, true} {
			name := c.name + "/free"
			if restricted {
				name = c.name + "/restricted"
			}
			b.Run(name, func(b *testing.B) {
				m, capture := newMemoryPath(b, c.packet, c.o)
				if restricted {
					m.restrict(b)
				}
				m.sink(func([]byte, device.Offload) {})
				b.SetBytes(int64(len(c.packet)))
				b.ReportAllocs()
				for b.Loop() {
					m.send()
					m.receive(capture.trains)
				}
				runtime.KeepAlive(capture)
			})
		}
	}
}
