package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/fragment"
	"culvert/tunnel/icmp"
	"culvert/tunnel/ippacket"
	"culvert/tunnel/payload"
)

// newPairOn is newPair on a wire.
func newPairOn(t testing.TB, wire Wire, network *transporttest.Network) (a, b *node) {
	if wire == Culvert {
		return newNativePair(t, network)
	}
	return newPair(t, network)
}

// finished returns all packets that have come out of the device, with what their offloads left undone done: checksums, and
// super-packets cut, as the kernel would.
func (a *node) finished() (all [][]byte) {
	a.t.Helper()
	synctest.Wait()
	var s device.Segments
	for {
		p, o, ok := a.dev.Queue(0).TryNext(nil)
		if !ok {
			return all
		}
		buf := append(make([]byte, device.Headroom), append(p, make([]byte, device.Tailroom)...)...)
		if err := s.Reset(buf, device.Headroom, device.Headroom+len(p), o); err != nil {
			a.t.Fatalf("the device was given a packet that no kernel takes: %v (%+v)", err, o)
		}
		for lo, hi, ok := s.Next(); ok; lo, hi, ok = s.Next() {
			all = append(all, bytes.Clone(buf[lo:hi]))
		}
	}
}

// transportSum is what the transport checksum of a packet without extension headers and options adds up to: 0xffff if right.
func transportSum(p []byte) uint16 {
	if p[0]>>4 == 4 {
		return ippacket.Fold(ippacket.Sum(p[20:], ippacket.Sum(p[12:20], uint64(p[9])+uint64(len(p)-20))))
	}
	return ippacket.Fold(ippacket.Sum(p[40:], ippacket.Sum(p[8:40], uint64(p[6])+uint64(len(p)-40))))
}

// unfinished makes the checksum of a packet the pseudo-header's sum and returns the offload that says so.
func unfinished(p []byte) device.Offload {
	o, ok := device.FinishElided(p)
	if !ok {
		panic("no TCP or UDP packet")
	}
	return o
}

// tcp6Packet is tcpPacket over IPv6.
func tcp6Packet(src, dst netip.Addr, size int) []byte {
	p := make([]byte, 60+size)
	p[0], p[6], p[7] = 0x60, 6, 64
	binary.BigEndian.PutUint16(p[4:], uint16(20+size))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	binary.BigEndian.PutUint16(p[40:], 1000)
	binary.BigEndian.PutUint16(p[42:], 2000)
	p[52], p[53] = 5<<4, 0x10
	binary.BigEndian.PutUint16(p[54:], 65535)
	for i := range size {
		p[60+i] = byte(i * 7)
	}
	return p
}

var (
	inner6a = netip.MustParseAddr("fd00::1")
	inner6b = netip.MustParseAddr("fd00::2")
)

// withInner6 gives both ends IPv6 addresses inside.
func withInner6(a, b *node) {
	allow := func(n, of *node, prefix string) {
		n.configure(Change{Peers: []PeerChange{{PublicKey: of.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix(prefix)}}}}})
	}
	allow(a, b, "fd00::2/128")
	allow(b, a, "fd00::1/128")
	synctest.Wait()
}

// What leaves the native wire's device is, once the kernel has done its part, what leaves WireGuard's.
func TestNativeDeliversWhatWireGuardDelivers(t *testing.T) {
	type sent struct {
		name   string
		packet []byte
		o      device.Offload
	}
	a4, b4 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	var all []sent
	for _, size := range []int{0, 1, 100, 1380, 1392} {
		for name, p := range map[string][]byte{
			"udp4": udpPacket(a4, b4, make([]byte, size)), "udp6": udp6Packet(inner6a, inner6b, make([]byte, max(size-20, 0))),
			"tcp4": tcpPacket(a4, b4, max(size-12, 0)), "tcp6": tcp6Packet(inner6a, inner6b, max(size-32, 0)),
		} {
			name = fmt.Sprint(name, " of ", size)
			wrong := bytes.Clone(p)
			start, offset, _ := device.Elided(p)
			wrong[start+offset] ^= 0x5a
			all = append(all, sent{name + " finished", bytes.Clone(p), noOffload}, sent{name + " wrong", wrong, noOffload})
			o := unfinished(p)
			all = append(all, sent{name, p, o})
			ect := bytes.Clone(p)
			if p[0]>>4 == 4 {
				ect[1] = 2
				binary.BigEndian.PutUint16(ect[10:], 0)
				binary.BigEndian.PutUint16(ect[10:], ^ippacket.Fold(ippacket.Sum(ect[:20], 0)))
			} else {
				ect[1] = 2 << 4
			}
			all = append(all, sent{name + " ECT", ect, o})
		}
	}
	for _, segments := range []int{1, 2, 10, 44} {
		for name, s := range map[string]struct {
			packet []byte
			gso    device.GSO
			header int
		}{
			"tcp4": {tcpPacket(a4, b4, segments*1300-7), device.GSOTCPv4, 40},
			"tcp6": {tcp6Packet(inner6a, inner6b, segments*1300-7), device.GSOTCPv6, 60},
			"udp4": {udpPacket(a4, b4, make([]byte, segments*1300-7)), device.GSOUDP, 28},
			"udp6": {udp6Packet(inner6a, inner6b, make([]byte, segments*1300-7)), device.GSOUDP, 48},
		} {
			o := unfinished(s.packet)
			o.GSO, o.HeaderLen, o.SegmentSize = s.gso, uint16(s.header), 1300
			all = append(all, sent{fmt.Sprint(name, " of ", segments, " segments"), s.packet, o})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		type pair struct{ a, b *node }
		pairs := map[Wire]pair{}
		for _, wire := range []Wire{WireGuard, Culvert} {
			a, b := newPairOn(t, wire, transporttest.New(1))
			withInner6(a, b)
			a.send(b, "begin")
			b.expect("begin")
			b.send(a, "answer")
			a.expect("answer")
			pairs[wire] = pair{a, b}
		}
		time.Sleep(10 * time.Second) // the path is known
		for _, s := range all {
			for _, reversed := range []bool{false, true} {
				packet := bytes.Clone(s.packet)
				if reversed {
					at, n := 12, 4
					if packet[0]>>4 == 6 {
						at, n = 8, 16
					}
					source := bytes.Clone(packet[at : at+n])
					copy(packet[at:], packet[at+n:at+2*n])
					copy(packet[at+n:], source)
				}
				got := map[Wire][][]byte{}
				for wire, p := range pairs {
					from, to := p.a, p.b
					if reversed {
						from, to = to, from
					}
					from.dev.Queue(0).Push(packet, s.o)
					got[wire] = to.finished()
				}
				want := got[WireGuard]
				if len(want) == 0 || len(got[Culvert]) != len(want) {
					t.Fatalf("%s: %d packets on the native wire, %d on the other", s.name, len(got[Culvert]), len(want))
				}
				for i, p := range got[Culvert] {
					if !bytes.Equal(p, want[i]) {
						t.Errorf("%s: packet %d is\n%x\n%x on the other", s.name, i, p, want[i])
					}
					if sum := transportSum(p); s.o.NeedsChecksum && sum != 0xffff {
						t.Errorf("%s: packet %d has a wrong checksum", s.name, i)
					}
				}
				if s.o == noOffload && !bytes.Equal(got[Culvert][0], packet) {
					t.Errorf("%s: changed on the way", s.name)
				}
			}
		}
		for wire, p := range pairs {
			if s := p.b.Status(); len(s.Drops) != 0 || len(p.a.Status().Drops) != 0 {
				t.Errorf("%v: drops %v and %v", wire, p.a.Status().Drops, s.Drops)
			}
		}
	})
}

// A checksum is elided only where the kernel has not calculated it; then it is not on the wire.
func TestNativeElidesOnlyWhatIsUnfinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		a.connect()
		push := func(p []byte, o device.Offload) told {
			t.Helper()
			n.dev.Queue(0).Push(p, o)
			for _, m := range a.opened() {
				if m.kind == payload.IP || m.kind == payload.IPElided {
					return m
				}
			}
			t.Fatal("no packet came")
			return told{}
		}
		p := tcpPacket(n.inner, a.inner, 100)
		if m := push(p, noOffload); m.kind != payload.IP || !bytes.Equal(m.content, p) {
			t.Errorf("a finished packet: %v %x", m.kind, m.content)
		}
		o := unfinished(p)
		m := push(p, o)
		if m.kind != payload.IPElided || !bytes.Equal(m.content[36:38], []byte{0, 0}) {
			t.Errorf("an unfinished packet: %v %x", m.kind, m.content)
		}
		p[6], p[7] = 0x20, 0 // a fragment
		m = push(p, o)
		if m.kind != payload.IP || bytes.Equal(m.content[36:38], p[36:38]) {
			t.Errorf("an unfinished fragment: %v %x", m.kind, m.content)
		}
		// What the field holds on the wire is not looked at.
		q := tcpPacket(a.inner, n.inner, 100)
		unfinished(q)
		for _, field := range []uint16{0, 0xffff, 0x1234} {
			binary.BigEndian.PutUint16(q[36:], field)
			a.inject(a.sealed(payload.IPElided, q))
			got := n.finished()
			if len(got) != 1 || transportSum(got[0]) != 0xffff {
				t.Errorf("elided with %#x in the field: %x", field, got)
			}
		}
	})
}

// The congestion mark of the outer header is merged into the inner one, of whatever kind the content is, and of fragments if any
// of them bears it (RFC 3168 §5.3).
func TestNativeECN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		a.connect()
		inject := func(plaintext []byte, tos uint8) {
			network.InjectPacket(transporttest.Packet{From: a.addr, To: n.addrPort(), TOS: tos, Data: a.seal(plaintext)})
		}
		const ce, ect0 = 3, 2
		p := udpPacket(a.inner, n.inner, make([]byte, 100))
		binary.BigEndian.PutUint16(p, 0x4500|ect0)
		for _, kind := range []payload.Kind{payload.IP, payload.IPElided} {
			for _, c := range []struct{ outer, want uint8 }{{0, ect0}, {ect0, ect0}, {ce, ce}} {
				inject(trailed(kind, p), c.outer)
				if got := n.finished(); len(got) != 1 || got[0][1] != c.want {
					t.Errorf("%v under %d: %x", kind, c.outer, got)
				}
			}
		}
		parts := cut(trailed(payload.IP, p), 1, 50)
		for marked := range len(parts) + 1 {
			parts = cut(trailed(payload.IP, p), uint32(10+marked), 50)
			want := byte(ce)
			for i, part := range parts {
				tos := uint8(ect0)
				if i == marked {
					tos = ce
				}
				inject(part, tos)
			}
			if marked == len(parts) {
				want = ect0
			}
			if got := n.finished(); len(got) != 1 || got[0][1] != want {
				t.Errorf("fragment %d of %d marked: %x", marked, len(parts), got)
			}
		}
		n.expectDrops(t, "ECN", nil)
		p[1] = 0 // no ECN inside: the mark would be lost, so the packet is
		inject(trailed(payload.IP, p), ce)
		n.expectDrops(t, "a mark on a packet without ECN", map[DropReason]int{DropInCongestion: 1})
		for i, part := range cut(trailed(payload.IP, p), 30, 50) {
			inject(part, []uint8{0, ce, 0, 0}[i%4])
		}
		n.expectDrops(t, "a mark on a fragment of a packet without ECN", map[DropReason]int{DropInCongestion: 1})
		if got := n.written(); len(got) != 0 {
			t.Errorf("%x delivered", got)
		}
		// Outwards the inner field is copied, to each fragment too.
		var seen []uint8
		network.Tap(func(p *transporttest.Packet) {
			if p.To == a.addr && p.Data[0] == noise.TypeData {
				seen = append(seen, p.TOS)
			}
		})
		big := udpPacket(n.inner, a.inner, make([]byte, testMTU-28))
		big[1] = ect0
		n.dev.Queue(0).Push(big, noOffload)
		synctest.Wait()
		if len(seen) < 2 || strings.Trim(fmt.Sprint(seen), "[2 ]") != "" {
			t.Errorf("sent with %v", seen)
		}
	})
}

// synPacket opens a TCP connection and announces an MSS.
func synPacket(src, dst netip.Addr, mss uint16) []byte {
	p := tcpPacket(src, dst, 4)
	p[32], p[33] = 6<<4, 0x02
	copy(p[40:], []byte{2, 4, byte(mss >> 8), byte(mss)})
	p[36], p[37] = 0, 0
	binary.BigEndian.PutUint16(p[36:], ^transportSum(p))
	return p
}

func TestNativeMSSClamping(t *testing.T) {
	mss := func(p []byte) int { return int(binary.BigEndian.Uint16(p[42:])) }
	// The way from a to b takes 1280 bytes, the one back all.
	scene := func(t *testing.T) (a, b *node, exchange func(unfinished bool) (there, back int)) {
		network := transporttest.New(1)
		a, b = newNativePair(t, network)
		network.SetLinkOneWay(a.host, b.host, transporttest.Link{MTU: 1280})
		exchange = func(partial bool) (there, back int) {
			pass := func(from, to *node) int {
				t.Helper()
				p, o := synPacket(from.inner, to.inner, testMTU-40), noOffload
				if partial {
					o = unfinished(p)
				}
				from.dev.Queue(0).Push(p, o)
				got := to.finished()
				if len(got) != 1 || transportSum(got[0]) != 0xffff {
					t.Fatalf("a SYN arrived as %x", got)
				}
				return mss(got[0])
			}
			return pass(a, b), pass(b, a)
		}
		return a, b, exchange
	}
	for _, partial := range []bool{false, true} {
		t.Run(fmt.Sprint("unfinished ", partial), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, exchange := scene(t)
				if there, back := exchange(partial); there != testMTU-40 || back != testMTU-40 {
					t.Errorf("before anything is known: %d and %d", there, back)
				}
				time.Sleep(10 * time.Second)
				at, bt := a.Status().Peers[0].Native, b.Status().Peers[0].Native
				if !at.PathSettled || at.InnerMTU >= testMTU || !bt.PathSettled || bt.InnerMTU != testMTU {
					t.Fatalf("paths: %+v %+v", at, bt)
				}
				// What is announced in either SYN becomes what fits a's way: b's says what a may send.
				if there, back := exchange(partial); there != at.InnerMTU-40 || back != at.InnerMTU-40 {
					t.Errorf("once it is known: %d and %d, not %d", there, back, at.InnerMTU-40)
				}
			})
		})
	}
	t.Run("full path", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			a, b := newNativePair(t, network)
			a.send(b, "one")
			b.expect("one")
			time.Sleep(10 * time.Second)
			p := synPacket(a.inner, b.inner, 8960) // more than the interface takes is not this tunnel's to change
			a.dev.Queue(0).Push(p, noOffload)
			if got := b.finished(); len(got) != 1 || !bytes.Equal(got[0], p) {
				t.Errorf("%x arrived as %x", p, got)
			}
		})
	})
}

// The sender of packets larger than the path is told so, not more often than the limit, and its packets arrive all the same.
func TestNativeTooBig(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("IPv6 ", v6), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newNativePair(t, network)
				withInner6(a, b)
				network.SetDefaultLink(transporttest.Link{MTU: 1380})
				big := udpPacket(a.inner, b.inner, make([]byte, 1350))
				big[6] = 0x40
				if v6 {
					big = udp6Packet(inner6a, inner6b, make([]byte, 1350))
				}
				a.dev.Queue(0).Push(big, noOffload)
				if got := len(a.written()); got != 0 {
					t.Errorf("%d answers before the path is known", got)
				}
				time.Sleep(10 * time.Second)
				b.written()
				inner := a.Status().Peers[0].Native.InnerMTU
				const count = 500
				for range count {
					a.dev.Queue(0).Push(big, noOffload)
				}
				answers := a.written()
				if len(answers) != icmp.Burst {
					t.Errorf("%d answers to %d packets", len(answers), count)
				}
				if got := len(b.finished()); got != count {
					t.Errorf("%d of %d packets arrived; drops %v and %v", got, count, a.Status().Drops, b.Status().Drops)
				}
				for _, p := range answers {
					kind, mtu := p[20], int(binary.BigEndian.Uint16(p[26:]))
					if v6 {
						kind, mtu = p[40], int(binary.BigEndian.Uint32(p[44:]))
					}
					if want := map[bool]byte{false: 3, true: 2}[v6]; kind != want || mtu != inner {
						t.Fatalf("ICMP type %d says %d, the path takes %d: %x", kind, mtu, inner, p)
					}
				}
				time.Sleep(time.Second)
				a.dev.Queue(0).Push(big, noOffload)
				if got := len(a.written()); got != 1 {
					t.Errorf("%d answers a second later", got)
				}
				small := bytes.Clone(big)
				if !v6 { // one that may be fragmented is, and nobody need know
					small[6] = 0
					a.dev.Queue(0).Push(small, noOffload)
					if got := len(a.written()); got != 0 {
						t.Errorf("%d answers to a packet that may be fragmented", got)
					}
				}
			})
		})
	}
}

// In the steady state fragments cost no memory either, in order or not.
func TestNativeFragmentsAllocateNothing(t *testing.T) {
	packet := udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), make([]byte, 3000))
	for _, w := range wires[1:] {
		t.Run(w.name, func(t *testing.T) {
			m, capture := newWirePath(t, w.wire, w.suite, packet, noOffload)
			delivered, runs := 0, 0
			m.sink(func(p []byte, _ device.Offload) { delivered += len(p) })
			step := func() {
				m.send()
				if _, _, ok := fragment.Count(len(packet), testMTU); !ok || capture.trains[0].Datagrams() < 2 {
					t.Fatal("it is not cut: the test tests nothing")
				}
				m.receive(capture.trains)
				runs++
			}
			step()
			if n := testing.AllocsPerRun(100, step); n != 0 {
				t.Errorf("allocates %v times a packet", n)
			}
			reversed := make([]transport.Train, 0, 8)
			if n := testing.AllocsPerRun(100, func() {
				m.send()
				reversed = reversed[:0]
				for i := range capture.trains {
					train := &capture.trains[i]
					for d, next := train.Next(0); d != nil; d, next = train.Next(next) {
						one := *train
						one.Buf, one.N, one.Segment = d, len(d), 0
						reversed = append(reversed, one)
					}
				}
				for i := range len(reversed) / 2 {
					reversed[i], reversed[len(reversed)-1-i] = reversed[len(reversed)-1-i], reversed[i]
				}
				m.receive(reversed)
				runs++
			}); n != 0 {
				t.Errorf("out of order it allocates %v times a packet", n)
			}
			if delivered != runs*len(packet) {
				t.Errorf("%d bytes delivered of %d packets of %d; drops %v", delivered, runs, len(packet), m.in.tunnel.drops.snapshot())
			}
		})
	}
}

// On a path narrower than the interface UDP datagrams arrive as they were sent, in fragments, and TCP in smaller segments; also
// what is far larger than any path.
func TestNativeNarrowPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{MTU: 1280})
		a, b := newNativePair(t, network)
		withInner6(a, b)
		a.send(b, "begin")
		b.expect("begin")
		for _, settled := range []bool{false, true} {
			if settled {
				time.Sleep(10 * time.Second)
				if s := a.Status().Peers[0].Native; !s.PathSettled || s.InnerMTU > 1280 {
					t.Fatalf("native: %+v", s)
				}
			}
			for _, size := range []int{1300, 1391, 2000, 9000, 65000} {
				payload := make([]byte, size)
				for i := range payload {
					payload[i] = byte(i * 13)
				}
				for name, p := range map[string][]byte{
					"udp4": udpPacket(a.inner, b.inner, payload), "udp6": udp6Packet(inner6a, inner6b, payload),
					"tcp4 finished": tcpPacket(a.inner, b.inner, size),
				} {
					a.dev.Queue(0).Push(p, noOffload)
					if got := b.finished(); len(got) != 1 || !bytes.Equal(got[0], p) {
						t.Errorf("%s of %d: %d packets arrived", name, size, len(got))
					}
					a.written() // it may have been told
				}
				for name, p := range map[string][]byte{"tcp4": tcpPacket(a.inner, b.inner, 0), "tcp6": tcp6Packet(inner6a, inner6b, 0)} {
					header := len(p)
					p = append(p, payload...)
					if p[0]>>4 == 4 {
						binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
						binary.BigEndian.PutUint16(p[10:], 0)
						binary.BigEndian.PutUint16(p[10:], ^ippacket.Fold(ippacket.Sum(p[:20], 0)))
					} else {
						binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
					}
					for _, segment := range []uint16{0, 1360} {
						q := bytes.Clone(p)
						o := unfinished(q)
						if segment != 0 {
							o.SegmentSize, o.HeaderLen, o.GSO = segment, uint16(header), device.GSOTCPv4
							if p[0]>>4 == 6 {
								o.GSO = device.GSOTCPv6
							}
						}
						a.dev.Queue(0).Push(q, o)
						var stream []byte
						for _, s := range b.finished() {
							if transportSum(s) != 0xffff || segment != 0 && len(s) > int(segment)+header {
								t.Fatalf("%s of %d: a segment of %d with the sum %#x", name, size, len(s), transportSum(s))
							}
							if settled && len(s) > a.Status().Peers[0].Native.InnerMTU {
								t.Errorf("%s of %d: a segment of %d went in fragments", name, size, len(s))
							}
							stream = append(stream, s[header:]...)
						}
						if !bytes.Equal(stream, payload) {
							t.Errorf("%s of %d cut to %d: %d bytes arrived", name, size, segment, len(stream))
						}
					}
				}
				q := udpPacket(a.inner, b.inner, payload)
				o := unfinished(q)
				o.GSO, o.HeaderLen, o.SegmentSize = device.GSOUDP, 28, 1300
				a.dev.Queue(0).Push(q, o)
				var stream []byte
				for _, s := range b.finished() {
					if transportSum(s) != 0xffff || len(s) > 1328 {
						t.Fatalf("udp of %d: a datagram of %d with the sum %#x", size, len(s), transportSum(s))
					}
					stream = append(stream, s[28:]...)
				}
				if !bytes.Equal(stream, payload) {
					t.Errorf("udp of %d cut to 1300: %d bytes arrived", size, len(stream))
				}
			}
		}
		if s := b.Status(); len(s.Drops) != 0 {
			t.Errorf("drops: %v", s.Drops)
		}
	})
}
