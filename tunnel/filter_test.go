package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/icmp"
	"culvert/tunnel/ippacket"
)

// udp6Packet is an IPv6 UDP packet with the right checksum.
func udp6Packet(src, dst netip.Addr, payload []byte) []byte {
	p := make([]byte, 48+len(payload))
	p[0], p[6], p[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(p[4:], uint16(8+len(payload)))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	binary.BigEndian.PutUint16(p[40:], 1000)
	binary.BigEndian.PutUint16(p[42:], 2000)
	binary.BigEndian.PutUint16(p[44:], uint16(8+len(payload)))
	copy(p[48:], payload)
	binary.BigEndian.PutUint16(p[46:], ^ippacket.Fold(ippacket.Sum(p[40:], ippacket.Sum(p[8:40], uint64(17+8+len(payload))))))
	return p
}

// packetBetween is a UDP packet of either family.
func packetBetween(src, dst netip.Addr, payload string) []byte {
	if src.Is4() {
		return udpPacket(src, dst, []byte(payload))
	}
	return udp6Packet(src, dst, []byte(payload))
}

// written returns all packets that have come out of the device, whole, once the bubble has settled.
func (a *node) written() [][]byte {
	synctest.Wait()
	var all [][]byte
	for i := range a.queues {
		for p, _, ok := a.dev.Queue(i).TryNext(nil); ok; p, _, ok = a.dev.Queue(i).TryNext(nil) {
			all = append(all, p)
		}
	}
	return all
}

// allow gives the actor allowed IPs besides those it has.
func (a *actor) allow(prefixes ...string) {
	a.t.Helper()
	c := PeerChange{PublicKey: a.public}
	for _, s := range prefixes {
		c.AllowedIPs = append(c.AllowedIPs, AllowedIPChange{Prefix: netip.MustParsePrefix(s)})
	}
	a.node.configure(Change{Peers: []PeerChange{c}})
}

// connect has the actor establish a session.
func (a *actor) connect() {
	a.t.Helper()
	a.handshake()
	a.inject(a.seal(nil))
	a.expectSilence("a keepalive")
}

func TestAllowedIPsBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		n := newNode(t, network, 1)
		actors := map[string]*actor{}
		synctest.Wait()
		for i, name := range []string{"wide", "narrow", "host", "default"} {
			actors[name] = newActor(n, network, byte(1+i)).join()
			actors[name].connect()
		}
		actors["wide"].allow("10.1.0.0/16", "fd00:1::/32")
		actors["narrow"].allow("10.1.2.0/24", "fd00:1:2::/48")
		actors["host"].allow("10.1.2.3/32", "fd00:1:2::3/128")
		actors["default"].allow("0.0.0.0/0", "::/0")
		check := func(addr, owner string) {
			t.Helper()
			at := netip.MustParseAddr(addr)
			self := n.inner
			if at.Is6() {
				self = netip.MustParseAddr("fd99::1")
			}
			n.dev.Queue(0).Push(packetBetween(self, at, "out"), noOffload)
			for name, a := range actors {
				if got := len(a.got()); got != 0 != (name == owner) {
					t.Errorf("a packet for %s: %d to the peer %q, the owner is %q", addr, got, name, owner)
				}
			}
			for name, a := range actors {
				before := n.dropped(DropInSource)
				a.inject(a.seal(packetBetween(at, self, name)))
				if got := len(n.written()); got != 0 != (name == owner) {
					t.Errorf("a packet from %s of the peer %q, the owner is %q: %d delivered", addr, name, owner, got)
				}
				if dropped := n.dropped(DropInSource) - before; dropped != 0 == (name == owner) {
					t.Errorf("a packet from %s of the peer %q: %d counted", addr, name, dropped)
				}
			}
		}
		check("10.1.0.1", "wide")
		check("10.1.2.1", "narrow")
		check("10.1.2.3", "host")
		check("10.1.3.3", "wide")
		check("192.0.2.200", "default")
		check("fd00:1:1::1", "wide")
		check("fd00:1:2::1", "narrow")
		check("fd00:1:2::3", "host")
		check("2001:db8:ffff::1", "default")
		check("::ffff:10.1.2.3", "default") // not the IPv4 address it looks like
		// Prefixes move from peer to peer while packets flow.
		actors["default"].allow("10.1.2.0/24")
		check("10.1.2.1", "default")
		check("10.1.2.3", "host")
		actors["wide"].allow("10.1.2.3/32", "0.0.0.0/0")
		check("10.1.2.3", "wide")
		check("10.1.2.1", "default")
		check("192.0.2.200", "wide")
		check("2001:db8:ffff::1", "default")
		n.configure(Change{Peers: []PeerChange{{PublicKey: actors["narrow"].public, ReplaceAllowedIPs: true}}})
		check("fd00:1:2::1", "wide")
		n.configure(Change{Peers: []PeerChange{{PublicKey: actors["wide"].public,
			AllowedIPs: []AllowedIPChange{
				{Prefix: netip.MustParsePrefix("10.1.2.3/32"), Remove: true},
				{Prefix: netip.MustParsePrefix("10.1.2.0/24"), Remove: true}, // another's, which stays
			}}}})
		check("10.1.2.3", "default")
		check("10.1.2.1", "default")
		check("10.1.3.1", "wide")
	})
}

func TestInnerPacketsAreValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.allow("fd00::1/128")
		a.connect()
		v4 := udpPacket(a.inner, n.inner, []byte("some payload"))
		v6 := udp6Packet(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), []byte("some payload"))
		set16 := func(p []byte, at, v int) []byte {
			p = bytes.Clone(p)
			binary.BigEndian.PutUint16(p[at:], uint16(v))
			return p
		}
		set8 := func(p []byte, v byte) []byte {
			p = bytes.Clone(p)
			p[0] = v
			return p
		}
		bad := map[string][]byte{
			"one byte":                          {0x45},
			"19 bytes":                          v4[:19],
			"IPv4 cut":                          v4[:len(v4)-1],
			"IPv4 longer than the message":      set16(v4, 2, len(v4)+1),
			"IPv4 of 65535 bytes":               set16(v4, 2, 65535),
			"IPv4 shorter than its header":      set16(v4, 2, 19),
			"IPv4 of length zero":               set16(v4, 2, 0),
			"IPv4 with a header of 4 words":     set8(v4, 0x44),
			"IPv4 with no header":               set8(v4, 0x40),
			"IPv4 with a header over its end":   set16(set8(v4, 0x4f), 2, 40),
			"IPv6 of 39 bytes":                  v6[:39],
			"IPv6 cut":                          v6[:len(v6)-1],
			"IPv6 longer than the message":      set16(v6, 4, len(v6)-40+1),
			"IPv6 of 65535 bytes":               set16(v6, 4, 65535),
			"zeros":                             make([]byte, 64),
			"ones":                              bytes.Repeat([]byte{0xff}, 64),
			"a large message that is no packet": make([]byte, 60000),
		}
		for version := range byte(16) {
			if version != 4 && version != 6 {
				bad[fmt.Sprint("version ", version)] = set8(v4, version<<4|5)
			}
		}
		for name, p := range bad {
			before := n.dropped(DropInMalformed)
			a.inject(a.seal(p))
			if got := n.written(); len(got) != 0 {
				t.Errorf("%s: %x delivered", name, got)
			}
			if n.dropped(DropInMalformed) != before+1 {
				t.Errorf("%s: not counted; drops %v", name, n.drops.snapshot())
			}
		}
		a.expectSilence("malformed packets")
		for name, p := range map[string][]byte{"IPv4": v4, "IPv6": v6} {
			for _, pad := range []int{0, 1, 4, 15, 16, 1000} {
				a.inject(a.seal(append(bytes.Clone(p), bytes.Repeat([]byte{0xaa}, pad)...)))
				if got := n.written(); len(got) != 1 || !bytes.Equal(got[0], p) {
					t.Errorf("%s with %d bytes of padding: %x delivered", name, pad, got)
				}
			}
		}
		// A length field may end before the payload does.
		short := set16(v4, 2, 28)
		a.inject(a.seal(short))
		if got := n.written(); len(got) != 1 || !bytes.Equal(got[0], short[:28]) {
			t.Errorf("a short packet: %x delivered", got)
		}
	})
}

func TestOutboundPacketsAreValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.connect()
		v4 := udpPacket(n.inner, a.inner, []byte("some payload"))
		bad := [][]byte{v4[:19], v4[:len(v4)-1], append([]byte{0x55}, v4[1:]...), append([]byte{0x44}, v4[1:]...), {0}}
		for _, p := range bad {
			n.dev.Queue(0).Push(p, noOffload)
		}
		a.expectSilence("malformed packets of the device")
		if got := n.dropped(DropOutMalformed); got != len(bad) {
			t.Errorf("%d of %d counted", got, len(bad))
		}
		n.dev.Queue(0).Push(v4, device.Offload{GSO: device.GSOTCPv4, NeedsChecksum: true, SegmentSize: 100})
		a.expectSilence("an offload that does not fit the packet")
		if got := n.dropped(DropOutMalformed); got != len(bad)+1 {
			t.Error("not counted")
		}
	})
}

func TestPaddingToSixteenButNotPastTheMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.connect()
		plaintext := func(size int) []byte {
			t.Helper()
			p := udpPacket(n.inner, a.inner, bytes.Repeat([]byte{0xee}, size-28))
			n.dev.Queue(0).Push(p, noOffload)
			got := a.open(a.one(noise.TypeData))
			if !bytes.HasPrefix(got, p) || len(bytes.Trim(got[size:], "\x00")) != 0 {
				t.Fatalf("a packet of %d bytes came as %x", size, got)
			}
			return got
		}
		for size := 28; size <= testMTU; size++ {
			want := min((size+15)/16*16, testMTU)
			if got := len(plaintext(size)); got != want {
				t.Errorf("a packet of %d bytes is padded to %d, want %d", size, got, want)
			}
		}
		for _, size := range []int{testMTU + 1, 1500, 9001} { // the device let it through: not ours to make larger still
			if got := len(plaintext(size)); got != size {
				t.Errorf("a packet of %d bytes, over the MTU, is padded to %d", size, got)
			}
		}
		if err := n.dev.SetMTU(1500); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for size, want := range map[int]int{1421: 1424, 1489: 1500, 1496: 1500, 1500: 1500} {
			if got := len(plaintext(size)); got != want {
				t.Errorf("with an MTU of 1500 a packet of %d bytes is padded to %d, want %d", size, got, want)
			}
		}
		// A keepalive has none.
		a.say("owed an answer")
		n.expect("owed an answer")
		time.Sleep(10 * time.Second)
		if got := a.one(noise.TypeData); len(got) != session.Overhead {
			t.Errorf("a keepalive of %d bytes", len(got))
		}
	})
}

func TestSuperPacketsArriveWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		for _, segments := range []int{46, 1, 2, 17} { // the first one waits for the handshake
			packet, o := superPacket(segments)
			for i := range packet[40:] {
				packet[40+i] = byte(i * 7)
			}
			a.dev.Queue(0).Push(packet, o)
			synctest.Wait()
			var payload []byte
			for _, p := range b.written() {
				payload = append(payload, p[40:]...)
			}
			if !bytes.Equal(payload, packet[40:]) {
				t.Errorf("%d segments: %d bytes of payload arrived of %d, or others", segments, len(payload), len(packet)-40)
			}
		}
		if len(a.Status().Drops)+len(b.Status().Drops) != 0 {
			t.Errorf("drops %v, %v", a.Status().Drops, b.Status().Drops)
		}
	})
}

// ownDatagrams are UDP packets as the node's host would route them into the tunnel: what the node sends to an actor.
func wrapped(from, to netip.AddrPort, payload []byte) []byte {
	p := packetBetween(from.Addr(), to.Addr(), string(payload))
	header := len(p) - len(payload) - 8
	binary.BigEndian.PutUint16(p[header:], from.Port())
	binary.BigEndian.PutUint16(p[header+2:], to.Port())
	return p
}

func TestOwnDatagramsAreNotSentThroughTheTunnel(t *testing.T) {
	for _, family := range []struct{ name, self, peer, route string }{
		{"IPv4", "192.0.2.1:51820", "198.51.100.1:1001", "0.0.0.0/0"},
		{"IPv6", "[2001:db8::1]:51820", "[2001:db8:100::1]:1001", "::/0"},
	} {
		t.Run(family.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, a, network := actorScene(t)
				self := netip.MustParseAddrPort(family.self)
				a.move(netip.MustParseAddrPort(family.peer))
				a.join(a.at)
				a.allow(family.route)
				loops := 0
				push := func(what string, p []byte, loop bool) {
					t.Helper()
					if loop {
						loops++
					}
					a.got()
					before := network.Counters().Sent
					n.dev.Queue(0).Push(p, noOffload)
					synctest.Wait()
					if sent := network.Counters().Sent != before; sent == loop {
						t.Errorf("%s: sent: %v", what, sent)
					}
					if got := n.dropped(DropOutRoutingLoop); got != loops {
						t.Errorf("%s: %d counted, want %d", what, got, loops)
						loops = got
					}
				}
				// Without a session: the initiation itself comes back.
				n.dev.Queue(0).Push(packetBetween(self.Addr(), a.addr.Addr(), "starts it"), noOffload)
				initiation := a.one(noise.TypeInitiation)
				push("the initiation", wrapped(self, a.addr, initiation), true)
				network.Inject(a.addr, self, a.response(initiation))
				data := a.one(noise.TypeData)
				push("data", wrapped(self, a.addr, data), true)
				time.Sleep(time.Second)
				initiation, pending := a.initiation(time.Now())
				network.Inject(a.addr, self, initiation)
				response := a.one(noise.TypeResponse)
				push("the response", wrapped(self, a.addr, response), true)
				a.consume(pending, response)
				network.Inject(a.addr, self, a.seal(nil))
				synctest.Wait()

				push("another packet", packetBetween(self.Addr(), a.addr.Addr(), "no datagram of ours"), false)
				push("data to another port", wrapped(self, netip.AddrPortFrom(a.addr.Addr(), 9), data), false)
				push("data from another port", wrapped(netip.AddrPortFrom(self.Addr(), 9), a.addr, data), false)
				push("data to another host", wrapped(self, netip.AddrPortFrom(a.addr.Addr().Next(), a.addr.Port()), data), false)
				push("something else to the endpoint", wrapped(self, a.addr, []byte("hello hello hello")), false)
				push("something short to the endpoint", wrapped(self, a.addr, []byte{4, 0, 0}), false)
				// A host behind this one may be the same server's client, from the same port.
				guest := netip.AddrPortFrom(self.Addr().Next(), self.Port())
				foreign := bytes.Clone(data)
				binary.LittleEndian.PutUint32(foreign[4:], 0xdeadbeef)
				push("another host's data", wrapped(guest, a.addr, foreign), false)
				foreign, _ = newActor(n, network, 77).initiation(time.Now())
				push("another host's initiation", wrapped(guest, a.addr, foreign), false)
			})
		})
	}
}

// The same with engines: each of a's datagrams comes back to its device, as a route into the tunnel has it.
func TestRoutingLoopIsContained(t *testing.T) {
	for _, withSession := range []bool{false, true} {
		t.Run(fmt.Sprint("with a session: ", withSession), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newPair(t, network)
				if withSession {
					a.send(b, "first")
					b.expect("first")
				}
				a.configure(Change{Peers: []PeerChange{{PublicKey: b.public,
					AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}}})
				looped := 0
				network.Tap(func(p *transporttest.Packet) {
					if p.From == a.addrPort() {
						looped++
						a.dev.Queue(0).Push(wrapped(p.From, p.To, p.Data), noOffload)
						p.Drop = true
					}
				})
				for range 100 {
					a.send(b, "round and round")
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if looped > 150 {
					t.Errorf("%d datagrams for 100 packets", looped)
				}
				if got := a.dropped(DropOutRoutingLoop); got != looped {
					t.Errorf("%d datagrams came back, %d were counted", looped, got)
				}
			})
		})
	}
}

func TestUnreachableDestinationsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t) // whose endpoint is not known
		a.allow("fd00::1/128")
		self6 := netip.MustParseAddr("fd99::1")
		for _, c := range []struct {
			name       string
			src, dst   netip.Addr
			why        DropReason
			kind, code byte
		}{
			{"IPv4, no route", n.inner, netip.MustParseAddr("10.77.0.1"), DropOutNoRoute, 3, 1},
			{"IPv4, no endpoint", n.inner, a.inner, DropOutNoEndpoint, 3, 1},
			{"IPv6, no route", self6, netip.MustParseAddr("fd77::1"), DropOutNoRoute, 1, 0},
			{"IPv6, no endpoint", self6, netip.MustParseAddr("fd00::1"), DropOutNoEndpoint, 1, 3},
		} {
			packet := packetBetween(c.src, c.dst, "nowhere to go")
			n.dev.Queue(0).Push(packet, noOffload)
			all := n.written()
			if len(all) != 1 {
				t.Fatalf("%s: %d answers", c.name, len(all))
			}
			answer := all[0]
			src, dst, size, ok := ippacket.Parse(answer)
			if !ok || size != len(answer) || src != c.dst || dst != c.src {
				t.Errorf("%s: answer from %v to %v", c.name, src, dst)
			}
			header := 20
			if c.src.Is6() {
				header = 40
			}
			if answer[header] != c.kind || answer[header+1] != c.code || !bytes.Equal(answer[header+8:], packet) {
				t.Errorf("%s: answer %x", c.name, answer)
			}
			if n.dropped(c.why) == 0 {
				t.Errorf("%s: not counted: %v", c.name, n.drops.snapshot())
			}
			// An error about an error is never sent.
			n.dev.Queue(0).Push(packetTo(answer, c.src, c.dst), noOffload)
			if more := n.written(); len(more) != 0 {
				t.Errorf("%s: an ICMP error was answered by %x", c.name, more)
			}
		}
		time.Sleep(time.Minute)
		for range 1000 {
			n.dev.Queue(0).Push(packetBetween(n.inner, netip.MustParseAddr("10.77.0.1"), "flood"), noOffload)
		}
		if got := len(n.written()); got != icmp.Burst {
			t.Errorf("a flood of 1000 was answered %d times, want %d", got, icmp.Burst)
		}
	})
}

// packetTo gives an ICMP packet other addresses.
func packetTo(p []byte, src, dst netip.Addr) []byte {
	p = bytes.Clone(p)
	at := 12
	if src.Is6() {
		at = 8
	}
	copy(p[at:], src.AsSlice())
	copy(p[at+len(src.AsSlice()):], dst.AsSlice())
	return p
}

// withTrafficClass changes the traffic class of a packet and, for IPv4, its checksum.
func withTrafficClass(p []byte, class byte) []byte {
	p = bytes.Clone(p)
	if p[0]>>4 == 6 {
		p[0], p[1] = 6<<4|class>>4, class<<4
		return p
	}
	p[1] = class
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^ippacket.Fold(ippacket.Sum(p[:20], 0)))
	return p
}

// RFC 6040: figure 3 (normal mode) on the way out, figure 4 on the way in.
func TestCongestionMarks(t *testing.T) {
	const notECT, ect1, ect0, ce = 0, 1, 2, 3
	arriving := map[byte]map[byte]int{ // by inner, then outer mark; -1 is a drop
		notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: -1},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
	}
	synctest.Test(t, func(t *testing.T) {
		n, a, network := actorScene(t)
		a.allow("fd00::1/128")
		a.connect()
		pairs := [][2]netip.Addr{{a.inner, n.inner}, {netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd99::1")}}
		const dscp = 0xb8
		for _, ends := range pairs {
			for inner := range byte(4) {
				n.dev.Queue(0).Push(withTrafficClass(packetBetween(ends[1], ends[0], "out"), dscp|inner), noOffload)
				all := a.got()
				if len(all) != 1 || all[0].TOS != inner {
					t.Errorf("inner mark %d: outer class %x of %d datagrams", inner, all[0].TOS, len(all))
				} else if got := ippacket.TrafficClass(a.open(all[0].Data)); got != dscp|inner {
					t.Errorf("inner class %x became %x", dscp|inner, got)
				}
				for outer := range byte(4) {
					packet := withTrafficClass(packetBetween(ends[0], ends[1], "in"), dscp|inner)
					dropped := n.dropped(DropInCongestion)
					network.InjectPacket(transporttest.Packet{From: a.addr, To: n.addrPort(), TOS: outer, Data: a.seal(packet)})
					got, want := n.written(), arriving[inner][outer]
					if want < 0 {
						if len(got) != 0 || n.dropped(DropInCongestion) != dropped+1 {
							t.Errorf("inner %d, outer %d: not dropped", inner, outer)
						}
						continue
					}
					if len(got) != 1 || !bytes.Equal(got[0], withTrafficClass(packet, dscp|byte(want))) {
						t.Errorf("inner %d, outer %d: %x delivered, want mark %d", inner, outer, got, want)
					}
				}
			}
		}
	})
}

func TestCongestionOnTheUnderlayReachesTheFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		a.send(b, "first")
		b.expect("first")
		network.SetDefaultLink(transporttest.Link{CE: 0.5})
		var marked, plain int
		for range 200 {
			a.dev.Queue(0).Push(withTrafficClass(udpPacket(a.inner, b.inner, []byte("x")), transport.ECNECT0), noOffload)
			a.dev.Queue(0).Push(udpPacket(a.inner, b.inner, []byte("x")), noOffload)
		}
		for _, p := range b.written() {
			if ippacket.Fold(ippacket.Sum(p[:20], 0)) != 0xffff {
				t.Fatalf("wrong header checksum: %x", p[:20])
			}
			switch p[1] {
			case transport.ECNCE:
				marked++
			case transport.ECNNotECT:
				plain++
			case transport.ECNECT0:
			default:
				t.Fatalf("class %x", p[1])
			}
		}
		if plain != 200 || marked < 50 || marked > 150 {
			t.Errorf("of 200 each, %d packets without ECN arrived and %d with were marked", plain, marked)
		}
	})
}

func TestPaddingNeverShrinksAndNeverPassesTheMTU(t *testing.T) {
	for _, mtu := range []int{0, 68, 576, 1280, 1419, 1420, 1500, 9000, 65535} {
		for n := 1; n <= device.MaxPacket; n += 7 {
			pad := padding(n, mtu)
			switch {
			case pad < 0 || pad >= paddingMultiple:
				t.Fatalf("padding(%d, %d) = %d", n, mtu, pad)
			case pad > 0 && n+pad > mtu:
				t.Fatalf("padding(%d, %d) = %d passes the MTU", n, mtu, pad)
			case (n+pad)%paddingMultiple != 0 && n+pad < mtu:
				t.Fatalf("padding(%d, %d) = %d is too little", n, mtu, pad)
			}
		}
	}
	if !slices.Equal([]int{padding(1, 1420), padding(16, 1420), padding(1419, 1420)}, []int{15, 0, 1}) {
		t.Error("padding")
	}
}
