package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/loopguard"
	"culvert/tunnel/payload"
)

// A peer of a switch is authenticated, not trusted: whatever frames it sends, memory stays bounded, stations that are pinned stay
// where they are, and the others' frames go where they went before.

// tapScene is a tap node between a peer that keeps to the rules and one that the test plays and that keeps to none.
type tapScene struct {
	t       testing.TB
	n, good *node
	a       *nativeActor
	network *transporttest.Network
}

// newTapScene makes both peers of the node n; the actor's part of the configuration can be changed. Stations 1 to 9 are
// the node's own, 10 to 99 the good peer's, from 100 on the actor's.
func newTapScene(t testing.TB, more ...func(*PeerChange)) *tapScene {
	network := transporttest.New(1)
	s := &tapScene{t: t, network: network, n: newTapNode(t, network, 1), good: newTapNode(t, network, 2)}
	joinTap(s.n, s.good)
	s.a = newTapActor(s.n, network, 1, more...)
	s.a.connect()
	s.settle()
	return s
}

// newTapActor is newNativeActor for a tap node.
func newTapActor(n *node, network *transporttest.Network, number byte, more ...func(*PeerChange)) *nativeActor {
	n.t.Helper()
	a := newNativeActor(n, network, number, append(more, func(c *PeerChange) { c.AllowedIPs = nil })...)
	a.offer.Layer = noise.LayerEthernet
	synctest.Wait()
	return a
}

// settle lets a second pass and forgets what has come out and what was dropped until then.
func (s *tapScene) settle() {
	time.Sleep(time.Second)
	for _, n := range []*node{s.n, s.good} {
		n.frames()
		n.forgetDrops()
	}
	s.a.got()
}

func (a *node) forgetDrops() {
	synctest.Wait()
	for r := range a.drops {
		a.drops[r].Store(0)
	}
}

// withPort is for newTapScene.
func withPort(c PortChange) func(*PeerChange) { return func(p *PeerChange) { p.Port = &c } }

// sends has the actor send a frame.
func (a *nativeActor) sends(f []byte) { a.inject(a.sealed(payload.Ethernet, f)) }

// frames returns the frames that came to the actor, without loop probes; all else is lost.
func (a *nativeActor) frames() (all [][]byte) {
	a.t.Helper()
	for _, m := range a.opened() {
		if m.kind == payload.Ethernet && !loopguard.IsProbe(m.content) {
			all = append(all, m.content)
		}
	}
	return all
}

// expectAt fails unless exactly these frames have come to the node's device, the good peer's, and the actor.
func (s *tapScene) expectAt(what string, n, good, a [][]byte) {
	s.t.Helper()
	for _, c := range []struct {
		where     string
		got, want [][]byte
	}{{"the device", s.n.frames(), n}, {"the good peer", s.good.frames(), good}, {"the actor", s.a.frames(), a}} {
		if !slices.EqualFunc(c.got, c.want, bytes.Equal) {
			s.t.Errorf("%s: %s has got %d frames, %.300q, want %d, %.300q", what, c.where,
				len(c.got), c.got[:min(len(c.got), 3)], len(c.want), c.want)
		}
	}
}

// tick lets so much time pass that what workers remember of the last frame is stale: here the clock stands still otherwise.
func tick() {
	synctest.Wait()
	time.Sleep(time.Millisecond)
}

// known makes stations known: one of the node's own and one of the good peer's.
func (s *tapScene) known() (local, far ethernet.Address) {
	s.t.Helper()
	local, far = station(1), station(10)
	s.n.sendFrame(frame(ethernet.Broadcast, local, "hello"))
	s.good.sendFrame(frame(ethernet.Broadcast, far, "hello"))
	tick()
	s.n.frames()
	s.good.frames()
	s.a.got()
	s.n.expectDropped(0, 0)
	if got := s.n.addresses(); got[local] != "local" || got[far] != s.good.public.Base64() {
		s.t.Fatalf("addresses: %v", got)
	}
	return local, far
}

// trade fails unless a frame crosses each way between a station of the node's side and one of the good peer's, and comes to
// nobody else.
func (s *tapScene) trade(what string, local, far ethernet.Address) {
	s.t.Helper()
	tick()
	out, in := frame(far, local, "question"), frame(local, far, "answer")
	s.n.sendFrame(out)
	s.expectAt(what+", to the good peer", nil, [][]byte{out}, nil)
	s.good.sendFrame(in)
	s.expectAt(what+", from the good peer", [][]byte{in}, nil, nil)
}

// sized makes a frame with so many VLAN tags and so many bytes behind them.
func sized(to, from ethernet.Address, tags, size int) []byte {
	f := frame(to, from, string(bytes.Repeat([]byte("s"), size)))
	for i := range tags {
		f = tagged(uint16(i+1), f)
	}
	return f
}

// probeFrame makes a loop probe as its format has it (loopguard/probe.go); each hop is an id and whether it crossed.
func probeFrame(origin, nonce uint64, hops ...uint64) []byte {
	f := frame(loopguard.Destination, 0x0263_0000_0001, "cvlp\x01\x00")
	binary.BigEndian.PutUint16(f[12:], loopguard.EtherType)
	f = append(f, byte(len(hops)), 0)
	f = binary.BigEndian.AppendUint64(f, origin)
	f = binary.BigEndian.AppendUint64(f, nonce)
	for _, id := range hops {
		f = append(binary.BigEndian.AppendUint64(f, id), 0)
	}
	return append(f, make([]byte, max(0, 60-len(f)))...)
}

// probeHop is where a probe's first hop is.
const probeHop = 14 + 24

// crossed marks a probe's hops as nodes between an interface and peers.
func crossed(f []byte, hops ...int) []byte {
	f = bytes.Clone(f)
	for _, i := range hops {
		f[probeHop+9*i+8] = 1
	}
	return f
}

func TestFrameContentIsValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTapScene(t)
		local, far := s.known()
		from := station(100)
		type try struct {
			name string
			why  DropReason
			in   [][]byte
		}
		var all []try
		add := func(name string, why DropReason, plaintexts ...[]byte) { all = append(all, try{name, why, plaintexts}) }
		both := func(name string, why DropReason, f []byte) {
			add(name, why, trailed(payload.Ethernet, f))
			add(name+", in fragments", why, cut(trailed(payload.Ethernet, f), uint32(len(all)), max(1, (len(f)+8)/7))...)
		}

		whole := frame(local, from, "whole")
		add("nothing", DropInKind, []byte{payload.Trailer(payload.Ethernet, 0)})
		add("padding alone", DropInKind, append(make([]byte, 5), payload.Trailer(payload.Ethernet, 5)))
		for size := 1; size < 14; size++ {
			both(fmt.Sprint(size, " bytes"), DropInMalformed, whole[:size])
		}
		one, two := tagged(5, whole), tagged(6, tagged(5, whole))
		for size := 14; size < 18; size++ {
			both(fmt.Sprint("a tag cut off after ", size), DropInMalformed, one[:size])
		}
		for size := 18; size < 22; size++ {
			both(fmt.Sprint("a second tag cut off after ", size), DropInMalformed, two[:size])
		}
		for _, source := range []ethernet.Address{0, ethernet.Broadcast, 0x0100_5e00_0001, 0x3333_0000_0001, 0x0180_c200_0000} {
			both("from "+source.String(), DropInMalformed, frame(local, source, "source"))
			both("tagged, from "+source.String(), DropInMalformed, tagged(7, frame(local, source, "source")))
		}
		for tags := range 4 {
			inside := tapMTU - 4*max(0, tags-2) // a third tag is payload
			both(fmt.Sprint(tags, " tags and a byte too much"), DropInOversize, sized(local, from, tags, inside+1))
			for _, size := range []int{2 * tapMTU, 9000, 40000, device.MaxPacket} {
				f := sized(local, from, tags, size)[:size]
				add(fmt.Sprint(tags, " tags, ", size, " bytes"), DropInOversize, cut(trailed(payload.Ethernet, f), uint32(len(all)), 1100)...)
			}
			both(fmt.Sprint(tags, " tags and a byte too much for all"), DropInOversize, sized(ethernet.Broadcast, from, tags, inside+1))
		}

		v4, v6 := udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), []byte("some payload")),
			udp6Packet(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), []byte("some payload"))
		in6 := func(p []byte) []byte {
			f := ipFrame(local, from, p)
			binary.BigEndian.PutUint16(f[12:], ethernet.TypeIPv6)
			return f
		}
		set := func(f []byte, at int, b ...byte) []byte {
			f = bytes.Clone(f)
			copy(f[at:], b)
			return f
		}
		elided := func(name string, f []byte) {
			add("elided "+name, DropInMalformed, trailed(payload.EthernetElided, f))
			add("elided "+name+", tagged", DropInMalformed, trailed(payload.EthernetElided, tagged(5, f)))
			add("elided "+name+", in fragments", DropInMalformed, cut(trailed(payload.EthernetElided, f), uint32(len(all)), 20)...)
		}
		udp := ipFrame(local, from, v4)
		arp := set(frame(local, from, string(make([]byte, 46))), 12, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
		elided("ARP", arp)
		elided("of an unknown type", whole)
		elided("ICMP", set(udp, 14+9, 1))
		elided("SCTP", set(udp, 14+9, 132))
		elided("ICMPv6", set(in6(v6), 14+6, 58))
		elided("IPv6 with an extension header", set(in6(v6), 14+6, 0))
		elided("first fragment of IP", set(udp, 14+6, 0x20))
		elided("later fragment of IP", set(udp, 14+6, 0, 1))
		elided("last fragment of IP", set(udp, 14+6, 0, 100))
		elided("fragment of IPv6", set(in6(v6), 14+6, 44))
		elided("padded to 60 bytes", append(bytes.Clone(udp), make([]byte, 60-len(udp))...))
		elided("padded by a byte", append(bytes.Clone(udp), 0))
		elided("without its last byte", udp[:len(udp)-1])
		elided("IPv4 by the type of IPv6", in6(v4))
		elided("IPv6 by the type of IPv4", ipFrame(local, from, v6))
		elided("without a packet", udp[:14])
		elided("UDP of another length", set(udp, 14+24, 0, 9))
		elided("loop probe", crossed(probeFrame(1<<63, 9, 5), 0))
		add("elided with three tags", DropInMalformed, trailed(payload.EthernetElided, tagged(7, tagged(6, tagged(5, udp)))))

		for name, p := range map[string][]byte{"IPv4": v4, "IPv6": v6} {
			add(name, DropInLayer, trailed(payload.IP, p))
			add(name+", elided", DropInLayer, trailed(payload.IPElided, p))
			add(name+", in fragments", DropInLayer, cut(trailed(payload.IP, p), uint32(len(all)), 20)...)
		}

		valid := crossed(probeFrame(1<<63, 9, 5), 0)
		probe := func(name string, f []byte) {
			add("probe "+name, DropInProbe, trailed(payload.Ethernet, f))
			add("probe, tagged, "+name, DropInProbe, trailed(payload.Ethernet, tagged(5, f)))
		}
		probe("of another version", set(valid, 14+4, 2))
		probe("with unknown flags", set(valid, 14+5, 2))
		probe("with more hops than there are", set(valid, 14+6, 16))
		probe("with 17 hops", set(valid, 14+6, 17))
		probe("with something reserved", set(valid, 14+7, 1))
		probe("of nobody", set(valid, 14+8, 0, 0, 0, 0, 0, 0, 0, 0))
		probe("by way of nobody", set(valid, probeHop, 0, 0, 0, 0, 0, 0, 0, 0))
		probe("with unknown flags of a hop", set(valid, probeHop+8, 3))
		probe("that has crossed nobody", set(valid, probeHop+8, 0))
		probe("that has crossed two", crossed(probeFrame(1<<63, 9, 5, 6), 0, 1))
		probe("cut off", valid[:14+23])
		probe("cut off in its path", valid[:probeHop+8])
		probe("longer than any", append(bytes.Clone(valid), make([]byte, loopguard.MaxFrame)...))

		kp := s.a.peer().current.Load()
		before := s.n.addresses()
		for _, c := range all {
			for _, plaintext := range c.in {
				s.a.inject(s.a.seal(plaintext))
			}
			s.n.expectDrops(t, c.name, map[DropReason]int{c.why: 1})
			s.expectAt(c.name, nil, nil, nil)
			time.Sleep(controlInterval)
		}
		if s.a.peer().current.Load() != kp {
			t.Error("the session has changed")
		}
		if got := s.n.addresses(); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("learned from what was dropped: %v", got)
		}
		if s.n.bridge.blocked.Load() {
			t.Error("blocked")
		}
		s.trade("afterwards", local, far)

		// The largest that there may be, and what may be elided.
		for tags := range 4 {
			f := sized(local, from, tags, tapMTU-4*max(0, tags-2))
			for _, p := range cut(trailed(payload.Ethernet, f), uint32(1000+tags), 700) {
				s.a.inject(s.a.seal(p))
			}
			if got := s.n.frames(); len(got) != 1 || !bytes.Equal(got[0], f) {
				t.Errorf("%d tags, full: %d frames; drops %v", tags, len(got), s.n.drops.snapshot())
			}
		}
		for _, f := range [][]byte{udp, in6(v6), tagged(5, udp), tagged(6, tagged(5, udp))} {
			s.a.inject(s.a.sealed(payload.EthernetElided, f))
			if got := s.n.frames(); len(got) != 1 || len(got[0]) != len(f) {
				t.Errorf("elided: %q; drops %v", got, s.n.drops.snapshot())
			}
		}
	})
}

// With the largest MTU there is, a frame of the most bytes that the wire carries would be more yet by its VLAN's tag.
func TestLargestFrameGetsNoTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTapScene(t, withPort(PortChange{PVID: 7}))
		if err := s.n.dev.SetMTU(device.MaxPacket - device.EthernetHeader); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for size, fits := range map[int]bool{device.MaxPacket: false, device.MaxPacket - 3: false, device.MaxPacket - 4: true} {
			f := sized(ethernet.Broadcast, station(100), 0, size-14)
			for _, p := range cut(trailed(payload.Ethernet, f), uint32(size), 1100) {
				s.a.inject(s.a.seal(p))
			}
			if got := s.n.frames(); fits != (len(got) == 1) || fits && !bytes.Equal(got[0], tagged(7, f)) {
				t.Errorf("%d bytes: %d frames; drops %v", size, len(got), s.n.drops.snapshot())
			}
			if got := s.n.drops[DropInOversize].Swap(0); fits != (got == 0) {
				t.Errorf("%d bytes: %d dropped as oversized", size, got)
			}
		}
	})
}

// floodSize is how many frames a flood has.
func floodSize(n int) int {
	if testing.Short() {
		return n / 20
	}
	return n
}

// A million addresses, each new: those of a peer, not the whole table, and nothing of it is felt elsewhere.
func TestFloodOfAddresses(t *testing.T) {
	for _, limit := range []int{0, 16, maxAddresses} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTapScene(t, withPort(PortChange{MaxAddresses: limit, Broadcast: -1, Multicast: -1, UnknownUnicast: -1}))
				local, far := s.known()
				most := limit
				if limit == 0 {
					most = DefaultMaxAddresses
				}
				total := floodSize(1_000_000)
				if limit != 0 {
					total /= 5
				}
				port := s.a.peer().port.Load().number
				f := frame(local, 0, "x")
				plaintext := trailed(payload.Ethernet, f)
				const batch = 500 // what the host's queue has room for
				var before int
				delivered := 0
				s.n.dev.Queue(0).SetSink(func(f []byte, _ device.Offload) {
					if !loopguard.IsProbe(f) {
						delivered++
					}
				})
				for i := range total {
					if i == 2*batch { // what is made once has been made
						synctest.Wait()
						before = liveHeap()
					}
					// Spread over the address space, with the bits of a station's own address.
					from := station(100) ^ ethernet.Address(uint64(i+1)*0x9e37_79b9_7f4a_7c15>>24)&0x00ff_ffff_ffff
					from.Put(plaintext[6:])
					s.a.inject(s.a.seal(plaintext))
					if i%batch == batch-1 {
						tick()
						if got := s.n.bridge.table.Count(port); got > most {
							t.Fatalf("%d addresses of the peer, of %d", got, most)
						}
						if i%(100*batch) == batch-1 {
							s.a.got()
						}
					}
				}
				synctest.Wait()
				s.a.got()
				// The table is there from the start, so only what is around may grow.
				const bound = 256 << 10
				if grown := liveHeap() - before; grown > bound {
					t.Errorf("%d bytes more are live after %d addresses, bound %d", grown, total, bound)
				}
				s.n.dev.Queue(0).SetSink(nil)
				count := s.n.bridge.table.Count(port)
				dropped := s.n.dropped(DropInAddresses)
				if delivered+dropped != total {
					t.Errorf("%d delivered and %d dropped of %d", delivered, dropped, total)
				}
				switch {
				case limit == maxAddresses: // as many as there is room for
					if count > maxAddresses || count < min(total, maxAddresses)*4/5 {
						t.Errorf("%d addresses of %d are known", count, total)
					}
				case count != most || delivered != most && delivered > most+most/8: // one whose bucket is full passes unlearned
					t.Errorf("%d addresses are known, of %d; %d delivered", count, most, delivered)
				}
				got := s.n.addresses()
				if got[local] != "local" || got[far] != s.good.public.Base64() {
					t.Error("others' addresses have gone")
				}
				if moves := s.n.Status().Switch.Moves; moves != 0 {
					t.Errorf("%d moves", moves)
				}
				s.n.expectDropped(DropInAddresses, dropped)
				s.trade("afterwards", local, far)
				s.n.expectDropped(0, 0)
				if limit == maxAddresses {
					return
				}
				// A station of the good peer's that is new is learned all the same, and so is one of this end's.
				s.good.sendFrame(frame(ethernet.Broadcast, station(11), "new"))
				s.n.sendFrame(frame(ethernet.Broadcast, station(2), "new"))
				tick()
				s.n.frames()
				s.good.frames()
				s.a.got()
				s.trade("new stations", station(2), station(11))
			})
		})
	}
}

// Without pins the last to say so has an address: a virtual machine has to be reached when it has moved. Its owner has it back
// with the next frame, status counts it, and nothing is blocked.
func TestHijackedStations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTapScene(t)
		local, far := s.known()
		moves := func(want uint64) {
			t.Helper()
			tick()
			if got := s.n.Status().Switch; got.Moves != want || got.Blocked || got.Loops != 0 {
				t.Errorf("%d moves, want %d; %+v", got.Moves, want, got)
			}
		}
		lie, ask := frame(local, far, "I am 10"), frame(far, local, "to 10")
		s.a.sends(lie)
		s.expectAt("the lie", [][]byte{lie}, nil, nil)
		moves(1)
		s.n.sendFrame(ask)
		s.expectAt("while it is believed", nil, nil, [][]byte{ask})
		s.good.sendFrame(frame(local, far, "no, me"))
		s.expectAt("the owner's next", [][]byte{frame(local, far, "no, me")}, nil, nil)
		moves(2)
		s.trade("after that", local, far)

		// An address of this end's side. What is for it goes to the actor's side of the horizon until the owner speaks.
		s.a.sends(frame(far, local, "I am 1"))
		s.n.expectDropped(DropInHorizon, 1)
		moves(3)
		s.good.sendFrame(frame(local, far, "to 1"))
		s.expectAt("while it is believed", nil, nil, nil)
		s.n.expectDropped(DropInHorizon, 1)
		tick()
		s.n.sendFrame(ask)
		s.expectAt("the owner's next", nil, [][]byte{ask}, nil)
		moves(4)
		s.trade("after that", local, far)
		time.Sleep(time.Minute)
		moves(4)
		s.trade("a minute later", local, far)
		s.n.expectDropped(0, 0)
	})
}

// What is pinned, by the owner or by limiting the other, is not hijacked.
func TestPinnedStations(t *testing.T) {
	for name, pin := range map[string]func(s *tapScene, far ethernet.Address){
		"to its owner": func(s *tapScene, far ethernet.Address) {
			s.n.configure(Change{Peers: []PeerChange{{PublicKey: s.good.public, Port: &PortChange{Pinned: []ethernet.Address{far}}}}})
		},
		"the actor's own": func(s *tapScene, _ ethernet.Address) {
			c := PortChange{Pinned: []ethernet.Address{station(100)}}
			s.n.configure(Change{Peers: []PeerChange{{PublicKey: s.a.public, Port: &c}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTapScene(t)
				local, far := s.known()
				pin(s, far)
				s.n.sendFrame(frame(far, local, "1 is here")) // the change made this forgotten, or not
				s.good.sendFrame(frame(local, far, "10 is here"))
				tick()
				s.n.frames()
				s.good.frames()
				s.a.got()
				s.n.forgetDrops()
				const tries = 500
				for i := range tries {
					to := [...]ethernet.Address{local, ethernet.Broadcast, station(77)}[i%3]
					s.a.sends(tagged(uint16(i%4), frame(to, far, "I am 10"))) // in whatever VLAN
				}
				s.expectAt("lies", nil, nil, nil)
				s.n.expectDropped(DropInPinned, tries)
				s.trade("after lies", local, far)
				own := frame(local, station(100), "my own")
				s.a.sends(own)
				s.expectAt("its own", [][]byte{own}, nil, nil)
				if name == "the actor's own" {
					s.a.sends(frame(far, local, "I am 1"))
					s.a.sends(frame(far, station(101), "my other one"))
					s.expectAt("others", nil, nil, nil)
					s.n.expectDropped(DropInPinned, 2)
					if got := s.n.bridge.table.Count(s.a.peer().port.Load().number); got != 1 {
						t.Errorf("%d addresses of the actor", got)
					}
				} else {
					s.n.sendFrame(frame(station(100), far, "I am 10, on this side"))
					s.expectAt("from the device", nil, nil, nil)
					s.n.expectDropped(DropOutPinned, 1)
				}
				if got := s.n.Status().Switch.Moves; got != 0 {
					t.Errorf("%d moves", got)
				}
				s.trade("at last", local, far)
				s.n.expectDropped(0, 0)
			})
		})
	}
}

// Addresses that move to and fro as fast as can be take no room and little of the control loop's time.
func TestFloodOfMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTapScene(t)
		local, far := s.known()
		rounds := floodSize(4000)
		probes := 0
		s.n.dev.Queue(0).SetSink(func(f []byte, _ device.Offload) {
			if loopguard.IsProbe(f) {
				probes++
			}
		})
		s.good.dev.Queue(0).SetSink(func([]byte, device.Offload) {})
		lies := [][]byte{
			trailed(payload.Ethernet, frame(station(100), local, "I am 1")),
			trailed(payload.Ethernet, frame(station(100), far, "I am 10")),
		}
		truth, other := frame(far, local, "no"), frame(local, far, "no")
		var before int
		began := time.Now()
		for i := range rounds {
			if i == 100 {
				before = liveHeap()
			}
			for _, lie := range lies {
				s.a.inject(s.a.seal(lie))
			}
			tick()
			s.n.sendFrame(truth)
			s.good.sendFrame(other)
			tick()
			if i%100 == 0 {
				s.a.got()
			}
		}
		seconds := time.Since(began).Seconds()
		s.a.got()
		if grown := liveHeap() - before; grown > 128<<10 {
			t.Errorf("%d bytes more are live", grown)
		}
		if got := s.n.Status().Switch; got.Moves < uint64(3*rounds) || got.Blocked || got.Loops != 0 || len(got.Addresses) != 2 {
			t.Errorf("%d moves, %d addresses, blocked %v", got.Moves, len(got.Addresses), got.Blocked)
		}
		if limit := int(seconds*float64(time.Second/loopguard.Spacing)) + 2; probes > limit {
			t.Errorf("%d probes in %v s", probes, seconds)
		}
		s.n.dev.Queue(0).SetSink(nil)
		s.good.dev.Queue(0).SetSink(nil)
		s.n.forgetDrops()
		s.trade("at last", local, far)
	})
}

// The control loop is told of a suspicion no more often than it may send probes.
func TestSuspicionsAreSpaced(t *testing.T) {
	b := newBridge(device.LayerEthernet)
	woken := 0
	for now := time.Second; now < 2*time.Second; now += 10 * time.Microsecond {
		b.suspectLoop(now)
		select {
		case <-b.wake:
			woken++
			b.suspected.Store(false) // as the control loop does
		default:
		}
		if b.waryUntil.Load() < int64(now+waryFor-loopguard.Spacing) {
			t.Fatal("no longer wary though addresses go on moving")
		}
	}
	if want := int(time.Second / loopguard.Spacing); woken != want {
		t.Errorf("woken %d times in a second, want %d", woken, want)
	}
}

// A second of storm, which is let through as far as the limits say. Meanwhile all others' frames, and the actor's other ones,
// arrive.
func TestStorms(t *testing.T) {
	for name, c := range map[string]struct {
		to    ethernet.Address
		why   DropReason
		limit int
	}{
		"broadcast":       {ethernet.Broadcast, DropInBroadcast, DefaultBroadcast},
		"multicast":       {0x3333_0000_0001, DropInMulticast, DefaultMulticast},
		"unknown unicast": {station(99), DropInUnknown, DefaultUnknownUnicast},
		"known unicast":   {station(1), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTapScene(t)
				local, far := s.known()
				const each = 100 // a millisecond
				milliseconds := floodSize(1000)
				milliseconds = max(milliseconds, 100)
				storm := trailed(payload.Ethernet, frame(c.to, station(100), "storm"))
				others := make(map[string]int)
				stormed := 0
				send := func(what string, s func(f []byte), to, from ethernet.Address) {
					others[what]--
					s(frame(to, from, what))
				}
				for i := range milliseconds {
					for range each {
						s.a.inject(s.a.seal(storm))
					}
					send("from the good peer", s.good.sendFrame, local, far)
					if i%10 == 0 {
						send("from the good peer to all", s.good.sendFrame, ethernet.Broadcast, far)
						send("from the good peer to a group", s.good.sendFrame, 0x3333_0000_0002, far)
						send("from the good peer to one unknown", s.good.sendFrame, station(98), far)
						for what, to := range map[string]ethernet.Address{"broadcast": ethernet.Broadcast, "multicast": 0x3333_0000_0003,
							"unknown unicast": station(97)} {
							if what != name {
								send("the actor's "+what, s.a.sends, to, station(101))
							}
						}
						send("the actor's known unicast", s.a.sends, local, station(101))
					}
					for _, f := range s.n.frames() {
						if string(f[14:]) == "storm" {
							stormed++
						} else {
							others[string(f[14:])]++
						}
					}
					s.n.sendFrame(frame(far, local, "to the good peer"))
					if got := s.good.frames(); len(got) != 1 {
						t.Fatalf("%d frames to the good peer", len(got))
					}
					if i%100 == 0 {
						s.a.got()
					}
					time.Sleep(time.Millisecond)
				}
				for what, missing := range others {
					if missing != 0 {
						t.Errorf("%s: %d too many", what, missing)
					}
				}
				sent := each * milliseconds
				dropped := s.n.dropped(c.why)
				if c.limit == 0 {
					s.n.expectDropped(0, 0)
					if stormed != sent {
						t.Errorf("%d of %d frames to a known station", stormed, sent)
					}
					return
				}
				rate := c.limit * milliseconds / 1000
				burst := max(c.limit/4, 32)
				if stormed > rate+burst || stormed < rate {
					t.Errorf("%d frames in %d ms, at a rate of %d and a burst of %d", stormed, milliseconds, c.limit, burst)
				}
				if stormed+dropped != sent {
					t.Errorf("%d came and %d were dropped of %d", stormed, dropped, sent)
				}
				s.n.expectDropped(c.why, dropped)
				s.trade("afterwards", local, far)
			})
		})
	}
}

// A hub sends what one spoke says to all others: within the one spoke's limits, however many there are.
func TestStormInAHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		const spokes = 5
		hub, all := newHub(t, network, spokes)
		a := newTapActor(hub, network, 1, asSpoke)
		a.connect()
		for i, s := range all {
			s.sendFrame(frame(ethernet.Broadcast, station(10*(i+1)), "hello"))
		}
		tick()
		hub.frames()
		hub.forgetDrops()
		got := make([]int, spokes)
		other := 0
		for i, s := range all {
			s.frames()
			s.dev.Queue(0).SetSink(func(f []byte, _ device.Offload) {
				switch {
				case loopguard.IsProbe(f):
				case string(f[14:]) == "storm":
					got[i]++
				default:
					other++
				}
			})
		}
		storm := [][]byte{
			trailed(payload.Ethernet, frame(ethernet.Broadcast, station(100), "storm")),
			trailed(payload.Ethernet, frame(station(99), station(100), "storm")),
		}
		const milliseconds, each = 500, 100
		sent := 0
		for i := range milliseconds {
			for j := range each {
				a.inject(a.seal(storm[j%2]))
			}
			all[0].sendFrame(frame(station(20), station(10), "between spokes"))
			sent++
			tick()
			if i%100 == 0 {
				a.got()
			}
		}
		synctest.Wait()
		limit := (DefaultBroadcast+DefaultUnknownUnicast)*milliseconds/1000 + (DefaultBroadcast+DefaultUnknownUnicast)/4
		for i, n := range got {
			if n > limit || n < limit/2 || n != got[0] {
				t.Errorf("spoke %d has got %d frames; limit %d", i, n, limit)
			}
		}
		if n := len(hub.frames()); n != got[0] {
			t.Errorf("the hub's device has got %d frames, spokes %d", n, got[0])
		}
		if other != sent {
			t.Errorf("%d of %d frames between others", other, sent)
		}
		if n := hub.dropped(DropInBroadcast) + hub.dropped(DropInUnknown); n != milliseconds*each-got[0] {
			t.Errorf("%d dropped, %d came of %d", n, got[0], milliseconds*each)
		}
	})
}

// probes returns the loop probes that have come out of the device; all else is lost.
func (a *node) probes() (all [][]byte) {
	synctest.Wait()
	for {
		f, _, ok := a.dev.Queue(0).TryNext(nil)
		if !ok {
			return all
		}
		if loopguard.IsProbe(f) {
			all = append(all, f)
		}
	}
}

// originOf is who sent a probe, and nonceOf its nonce.
func originOf(f []byte) uint64 { return binary.BigEndian.Uint64(f[14+8:]) }
func nonceOf(f []byte) uint64  { return binary.BigEndian.Uint64(f[14+16:]) }

func TestFloodOfLoopProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTapScene(t)
		local, far := s.known()
		s.good.probes()
		own := s.n.probes()
		const forged, other = math.MaxUint64 - 1<<32, math.MaxUint64 // higher than any node's, so that all pass them on
		const seconds, each = 5, 2000
		passed, passedOther := 0, 0
		blocked := func(what string) {
			t.Helper()
			if got := s.n.Status().Switch; got.Blocked || got.Loops != 0 {
				t.Fatalf("%s: blocked", what)
			}
		}
		for i := range seconds * 1000 {
			for j := range each / 1000 {
				s.a.sends(crossed(probeFrame(forged+uint64(i*10+j), uint64(i*10+j), 77), 0))
			}
			if i%500 == 0 { // one of a node on the good peer's LAN
				s.good.sendFrame(probeFrame(other, uint64(i)))
			}
			for _, f := range s.n.probes() {
				switch origin := originOf(f); {
				case origin == other:
					passedOther++
				case origin >= forged:
					passed++
				default:
					own = append(own, f)
				}
			}
			time.Sleep(time.Millisecond)
			if i%100 == 0 {
				s.a.got()
			}
		}
		if most := seconds*int(time.Second/controlInterval) + controlBurst; passed > most || passed < most/2 {
			t.Errorf("%d forged probes were passed on, limit %d", passed, most)
		}
		if passedOther != seconds*2 {
			t.Errorf("%d of %d probes of others", passedOther, seconds*2)
		}
		if got := s.n.dropped(DropInProbe); got < seconds*each-seconds*100-2*controlBurst || got > seconds*each-passed {
			t.Errorf("%d dropped", got)
		}
		blocked("after a flood")
		s.n.forgetDrops()
		s.trade("after a flood", local, far)

		// The same one again and again.
		time.Sleep(time.Second)
		s.n.probes()
		again := crossed(probeFrame(forged+1, 12345678, 77), 0)
		for range 20 {
			s.a.sends(again)
		}
		count := 0
		for _, f := range s.n.probes() {
			if nonceOf(f) == 12345678 {
				count++
			}
		}
		if count != 1 {
			t.Errorf("a probe was passed on %d times", count)
		}
		blocked("after repetitions")

		// As if the node's own had come back, by somebody who has not seen it, or too late.
		if len(own) < 5 {
			t.Fatalf("the node has sent %d probes", len(own))
		}
		id := originOf(own[0])
		time.Sleep(time.Second)
		for i := range uint64(20) {
			s.a.sends(crossed(probeFrame(id, i, 77), 0))
		}
		time.Sleep(loopguard.Lifetime)
		for _, f := range own {
			s.a.sends(crossed(probeFrame(id, nonceOf(f), 77), 0))
			time.Sleep(controlInterval)
		}
		synctest.Wait()
		blocked("by false returns")
		s.n.forgetDrops()
		s.trade("after false returns", local, far)
	})
}

// Whoever brings a node's own probe back to it from the far side has shown that there is a loop, or could make one. The node
// takes itself out for as long as that goes on, and no longer.
func TestOwnLoopProbeReflected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTapScene(t)
		local, far := s.known()
		s.n.probes()
		time.Sleep(loopguard.Interval)
		own := s.n.probes()
		if len(own) == 0 {
			t.Fatal("no probe")
		}
		last := own[len(own)-1]
		back := crossed(probeFrame(originOf(last), nonceOf(last), 77), 0)
		s.a.sends(tagged(5, back))
		synctest.Wait()
		if s.n.Status().Switch.Blocked {
			t.Fatal("blocked by a probe that came back in another VLAN")
		}
		s.a.sends(back)
		synctest.Wait()
		if got := s.n.Status().Switch; !got.Blocked || got.Loops != 1 {
			t.Fatalf("not blocked: %+v", got)
		}
		s.good.sendFrame(frame(local, far, "while blocked"))
		s.expectAt("while blocked", nil, nil, nil)
		s.n.expectDropped(DropInLoop, 1)
		for range int((loopguard.Hold + 2*time.Second) / controlInterval) {
			s.a.sends(back)
			time.Sleep(controlInterval)
			s.a.got()
		}
		if got := s.n.Status().Switch; got.Blocked || got.Loops != 1 {
			t.Fatalf("one probe holds it up for more than %v: %+v", loopguard.Hold, got)
		}
		s.n.forgetDrops()
		s.good.sendFrame(frame(ethernet.Broadcast, far, "10 is here"))
		s.n.sendFrame(frame(far, local, "1 is here"))
		tick()
		s.n.frames()
		s.good.frames()
		s.a.got()
		s.trade("afterwards", local, far)
		s.n.expectDropped(0, 0)
	})
}

// vlanTag puts a VLAN tag of a kind in front.
func vlanTag(kind, control uint16, f []byte) []byte {
	f = tagged(control, f)
	binary.BigEndian.PutUint16(f[12:], kind)
	return f
}

// What a peer that is admitted to some VLANs makes of tags reaches nobody in others.
func TestVLANHopping(t *testing.T) {
	const c, s = ethernet.TypeVLAN, ethernet.TypeProvider
	plain := frame(ethernet.Broadcast, station(100), "VLAN")
	in := func(tags ...uint16) []byte { // kind and control of each tag, the outermost first
		f := plain
		for i := len(tags) - 2; i >= 0; i -= 2 {
			f = vlanTag(tags[i], tags[i+1], f)
		}
		return f
	}
	const priority = 5 << 13
	old := bytes.Clone(plain)
	binary.BigEndian.PutUint16(old[12:], 0x9100) // of no standard, and no tag here: an EtherType
	// The actor may send untagged, which is VLAN 10, and tagged 20 and 30. There is a port for untagged 10 and one for
	// untagged 20; the device, and a third port, have everything.
	type ways struct {
		f                         []byte
		trunk, access10, access20 []byte // nil: nothing
	}
	into := map[string]ways{
		"untagged":                            {plain, in(c, 10), plain, nil},
		"priority":                            {in(c, priority), in(c, priority|10), plain, nil},
		"tagged with the PVID":                {in(c, 10), nil, nil, nil},
		"tagged 20":                           {in(c, 20), in(c, 20), nil, plain},
		"tagged 20 with priority":             {in(c, priority|20), in(c, priority|20), nil, plain},
		"tagged 30":                           {in(c, 30), in(c, 30), nil, nil},
		"tagged 40":                           {in(c, 40), nil, nil, nil},
		"tagged 4095":                         {in(c, 4095), nil, nil, nil},
		"20 in the PVID":                      {in(c, 10, c, 20), nil, nil, nil},
		"the PVID in 20":                      {in(c, 20, c, 10), in(c, 20, c, 10), nil, nil},
		"20 in priority":                      {in(c, priority, c, 20), nil, nil, nil},
		"priority in priority":                {in(c, 0, c, 0), nil, nil, nil},
		"20 in 40":                            {in(c, 40, c, 20), nil, nil, nil},
		"40 in 20":                            {in(c, 20, c, 40), in(c, 20, c, 40), nil, nil},
		"three tags":                          {in(c, 20, c, 10, c, 40), in(c, 20, c, 10, c, 40), nil, nil},
		"three tags, the first of priority":   {in(c, 0, c, 20, c, 40), nil, nil, nil},
		"service 10":                          {in(s, 10), nil, nil, nil},
		"service 20":                          {in(s, 20), nil, nil, nil},
		"service priority":                    {in(s, priority), nil, nil, nil},
		"20 in service 20":                    {in(s, 20, c, 20), nil, nil, nil},
		"service 10 in 20":                    {in(c, 20, s, 10), in(c, 20, s, 10), nil, nil},
		"service 20 in priority":              {in(c, 0, s, 20), nil, nil, nil},
		"a type that others take for a tag's": {old, vlanTag(c, 10, old), old, nil},
	}
	out := map[string]struct {
		f, actor []byte // from the device; to the actor
	}{
		"untagged":             {plain, nil},
		"priority":             {in(c, priority), nil},
		"the PVID":             {in(c, 10), plain},
		"20":                   {in(c, 20), in(c, 20)},
		"30":                   {in(c, priority|30), in(c, priority|30)},
		"40":                   {in(c, 40), nil},
		"20 in the PVID":       {in(c, 10, c, 20), nil},
		"priority in the PVID": {in(c, 10, c, 0), nil},
		"service in the PVID":  {in(c, 10, s, 20), nil},
		"10 in 20":             {in(c, 20, c, 10), in(c, 20, c, 10)},
		"service 20":           {in(s, 20), nil},
		"service 10":           {in(s, 10), nil},
	}
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		hub := newTapNode(t, network, 100)
		ports := []PortChange{{Spoke: true}, {Spoke: true, PVID: 10}, {Spoke: true, PVID: 20}}
		var peers []*node
		for i, c := range ports {
			p := newTapNode(t, network, byte(i+1))
			joinTap(hub, p)
			hub.configure(Change{Peers: []PeerChange{{PublicKey: p.public, Port: &c}}})
			peers = append(peers, p)
		}
		a := newTapActor(hub, network, 1, withPort(PortChange{Spoke: true, PVID: 10, VLANs: []uint16{20, 30}}))
		a.connect()
		time.Sleep(time.Second)
		quiet := func() {
			for _, p := range append(peers, hub) {
				p.frames()
				p.forgetDrops()
			}
			a.got()
		}
		expect := func(what string, got [][]byte, want []byte) {
			t.Helper()
			if want == nil && len(got) != 0 || want != nil && (len(got) != 1 || !bytes.Equal(got[0], want)) {
				t.Errorf("%s: %x, want %x", what, got, want)
			}
		}
		for _, to := range []ethernet.Address{ethernet.Broadcast, station(55)} {
			for name, c := range into {
				quiet()
				aim := func(f []byte) []byte {
					if f == nil {
						return nil
					}
					f = bytes.Clone(f)
					to.Put(f)
					return f
				}
				a.sends(aim(c.f))
				tick()
				expect(name+": the device", hub.frames(), aim(c.trunk))
				expect(name+": a trunk", peers[0].frames(), aim(c.trunk))
				expect(name+": access to 10", peers[1].frames(), aim(c.access10))
				expect(name+": access to 20", peers[2].frames(), aim(c.access20))
				want := map[DropReason]int{}
				if c.trunk == nil {
					want[DropInVLAN] = 1
				} else {
					for _, f := range [][]byte{c.access10, c.access20} {
						if f == nil {
							want[DropOutVLAN]++
						}
					}
				}
				hub.expectDrops(t, name, want)
			}
		}
		for name, c := range out {
			quiet()
			hub.sendFrame(c.f)
			tick()
			expect(name+", from the device: the actor", a.frames(), c.actor)
		}

		// A station that is known in VLAN 20 is not known in VLAN 10.
		quiet()
		peers[2].sendFrame(frame(ethernet.Broadcast, station(60), "I am in 20"))
		tick()
		quiet()
		aimed := frame(station(60), station(100), "from 10")
		a.sends(aimed)
		tick()
		expect("to a station of another VLAN: access to 20", peers[2].frames(), nil)
		expect("to a station of another VLAN: access to 10", peers[1].frames(), aimed)
		a.sends(tagged(20, aimed))
		tick()
		expect("to a station of VLAN 20: access to 20", peers[2].frames(), aimed)
		expect("to a station of VLAN 20: access to 10", peers[1].frames(), nil)
		// Nor does whoever claims its address in one VLAN have it in another.
		a.sends(tagged(30, frame(ethernet.Broadcast, station(60), "I am 60")))
		tick()
		quiet()
		peers[0].sendFrame(tagged(20, frame(station(60), station(70), "to 60")))
		tick()
		expect("after a lie in another VLAN", peers[2].frames(), frame(station(60), station(70), "to 60"))
		expect("after a lie in another VLAN: the actor", a.frames(), nil)
	})
}

func TestLinkLocalFramesOfAPeer(t *testing.T) {
	for _, forward := range []bool{false, true} {
		t.Run(fmt.Sprint(forward), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTapScene(t)
				s.n.configure(Change{Switch: &SwitchChange{LinkLocal: forward}})
				s.settle()
				for i := range 0x11 {
					f := frame(0x0180_c200_0000+ethernet.Address(i), station(100), "link-local")
					for _, f := range [][]byte{f, tagged(5, f)} {
						s.a.sends(f)
						s.n.sendFrame(append(bytes.Clone(f), "from the device"...))
						if i == 0x10 || forward {
							s.expectAt("forwarded", [][]byte{f}, [][]byte{append(bytes.Clone(f), "from the device"...)},
								[][]byte{append(bytes.Clone(f), "from the device"...)})
							s.n.expectDropped(0, 0)
						} else {
							s.expectAt("kept", nil, nil, nil)
							s.n.expectDrops(t, "kept", map[DropReason]int{DropInLinkLocal: 1, DropOutLinkLocal: 1})
						}
						tick()
					}
				}
				if !forward {
					return
				}
				for range 10 * DefaultMulticast / 4 { // forwarded, it is multicast like any other
					s.a.sends(frame(0x0180_c200_0000, station(100), "storm"))
				}
				if got := len(s.n.frames()); got == 0 || got > DefaultMulticast/4+1 {
					t.Errorf("%d frames of a storm", got)
				}
			})
		})
	}
}

// What a peer that is removed has claimed is forgotten, and nothing else.
func TestAddressesGoWithTheirPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTapScene(t)
		local, far := s.known()
		port := s.a.peer().port.Load().number
		for i := range 2 * DefaultMaxAddresses {
			s.a.sends(frame(local, station(1000+i), "x"))
			if i%500 == 0 {
				tick()
			}
		}
		tick()
		if got := s.n.bridge.table.Count(port); got != DefaultMaxAddresses {
			t.Errorf("%d addresses", got)
		}
		s.n.configure(Change{Peers: []PeerChange{{PublicKey: s.a.public, Remove: true}}})
		if got := s.n.bridge.table.Count(port); got != 0 {
			t.Errorf("%d addresses of a peer that is gone", got)
		}
		if got := s.n.addresses(); len(got) != 2 || got[local] != "local" || got[far] != s.good.public.Base64() {
			t.Errorf("addresses: %v", got)
		}
	})
}

// A probe that comes behind a segment that waits to be merged with more shares memory with it until it is dropped.
func TestLoopProbeBehindSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTapScene(t)
		local, _ := s.known()
		s.n.probes()
		in := &inbound{tunnel: s.n.Tunnel, coalescer: device.NewCoalescer(s.n.queues[0])}
		segment := ipFrame(local, station(100), tcpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1000))
		now := s.n.clock.now()
		for _, f := range [][]byte{segment, crossed(probeFrame(math.MaxUint64, 4711, 77), 0)} {
			msg := s.a.sealed(payload.Ethernet, f)
			train := trainOf(msg)
			in.datagram(msg, &train, now)
		}
		in.noteArrivals(now)
		in.delivered(in.coalescer.Flush())
		synctest.Wait()
		var nonces []uint64
		var segments int
		for {
			f, _, ok := s.n.dev.Queue(0).TryNext(nil)
			if !ok {
				break
			}
			if bytes.Equal(f, segment) {
				segments++
			}
			if loopguard.IsProbe(f) {
				nonces = append(nonces, nonceOf(f))
			}
		}
		if !slices.Contains(nonces, 4711) || segments != 1 {
			t.Errorf("probes %d and %d segments have come out, want 4711 and 1; drops %v", nonces, segments, s.n.drops.snapshot())
		}
	})
}
