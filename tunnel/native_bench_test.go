package tunnel

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/pathmtu"
)

// The datapath on each wire and suite, without the kernel: a super-packet of 64 KiB that stays one until it is sealed, and
// packets of 64 bytes that come singly.

// wires are what the datapath is measured with.
var wires = []struct {
	name  string
	wire  Wire
	suite crypto.Suite
}{
	{"wireguard", WireGuard, crypto.ChaCha20Poly1305},
	{"culvert ChaCha20-Poly1305", Culvert, crypto.ChaCha20Poly1305},
	{"culvert AES-256-GCM", Culvert, crypto.AES256GCM},
}

// newWirePath is newMemoryPath on a wire, with the path's MTU found as on a path of 1500.
func newWirePath(t testing.TB, wire Wire, suite crypto.Suite, packet []byte, o device.Offload) (*memoryPath, *captureSender) {
	network := transporttest.New(1)
	a, b := newStillNode(t, network, 1), newStillNode(t, network, 2)
	on := func(c *PeerChange) { c.Wire = &wire }
	a.addPeerNode(b, true, on)
	b.addPeerNode(a, true, on)
	join := func(n *node, p *peer, k noise.Keys, initiator bool, remote uint32) uint32 {
		index, err := n.indices.reserve(p)
		if err != nil {
			t.Fatal(err)
		}
		s, err := session.New(&k, suite, initiator, index, remote, n.clock.now())
		if err != nil {
			t.Fatal(err)
		}
		kp := &keypair{Session: s, peer: p, native: p.native.Load()}
		if kp.native != nil {
			kp.serial = kp.native.known()
			kp.native.found.Store(uint32(limitsOf(n.Tunnel.testDatagram()-session.Overhead, true)))
		}
		n.indices.establish(index, kp)
		p.current.Store(kp)
		return index
	}
	remote := join(b, b.tunnelPeer(a), noise.Keys{Send: [32]byte{2}, Receive: [32]byte{1}}, false, 0)
	join(a, a.tunnelPeer(b), noise.Keys{Send: [32]byte{1}, Receive: [32]byte{2}}, true, remote)

	capture := &captureSender{}
	out := newOutbound(a.Tunnel, 0)
	out.batch.bound, out.batch.sender = a.bound.Load(), capture
	in := &inbound{tunnel: b.Tunnel, coalescer: device.NewCoalescer(b.queues[0]), reassembler: newReassembler()}
	return &memoryPath{out: out, in: in, packet: packet, o: o}, capture
}

// testDatagram is the largest datagram that a packet of testMTU becomes.
func (t *Tunnel) testDatagram() int { return max(pathmtu.Base, t.largestDatagram()) }

// recordSender keeps a copy of every train.
type recordSender struct{ trains []transport.Train }

func (s *recordSender) Send(trains []transport.Train) int {
	for _, t := range trains {
		t.Buf = bytes.Clone(t.Buf)
		s.trains = append(s.trains, t)
	}
	return 0
}

// benchLoad is what is sent through the paths.
type benchLoad struct {
	name   string
	packet []byte
	o      device.Offload
	ahead  int // packets sealed before they are opened, about 1 MB
}

func benchLoads() []benchLoad {
	packet, o := superPacket(47)
	small := udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), make([]byte, 64-28))
	return []benchLoad{{"super-packet", packet, o, 16}, {"64 bytes", small, noOffload, 1 << 13}}
}

func BenchmarkNativeOutbound(b *testing.B) {
	for _, l := range benchLoads() {
		for _, w := range wires {
			b.Run(l.name+"/"+w.name, func(b *testing.B) {
				m, _ := newWirePath(b, w.wire, w.suite, l.packet, l.o)
				b.SetBytes(int64(len(l.packet)))
				b.ReportAllocs()
				for b.Loop() {
					m.send()
				}
			})
		}
	}
}

// BenchmarkNativeInbound opens each message once, as the engine would: they are sealed ahead, off the clock.
func BenchmarkNativeInbound(b *testing.B) {
	for _, l := range benchLoads() {
		for _, w := range wires {
			b.Run(l.name+"/"+w.name, func(b *testing.B) {
				m, _ := newWirePath(b, w.wire, w.suite, l.packet, l.o)
				record := &recordSender{}
				m.out.batch.sender = record
				delivered, opened := 0, 0
				m.sink(func(p []byte, _ device.Offload) { delivered += len(p) })
				sent := make([][]transport.Train, 0, l.ahead)
				b.SetBytes(int64(len(l.packet)))
				for b.Loop() {
					if len(sent) == 0 {
						b.StopTimer()
						for range l.ahead {
							record.trains = nil
							m.send()
							sent = append(sent, record.trains)
						}
						slices.Reverse(sent)
						b.StartTimer()
					}
					m.receive(sent[len(sent)-1])
					sent = sent[:len(sent)-1]
					opened++
				}
				if delivered != opened*len(l.packet) {
					b.Errorf("%d bytes delivered of %d packets of %d; drops %v", delivered, opened, len(l.packet), m.in.tunnel.drops.snapshot())
				}
			})
		}
	}
}

// TestNativeDatapathAllocatesNothing is TestDatapathAllocatesNothing for each wire and suite.
func TestNativeDatapathAllocatesNothing(t *testing.T) {
	for _, l := range benchLoads() {
		for _, w := range wires {
			t.Run(l.name+"/"+w.name, func(t *testing.T) {
				m, capture := newWirePath(t, w.wire, w.suite, l.packet, l.o)
				delivered, runs := 0, 0
				m.sink(func(p []byte, _ device.Offload) { delivered += len(p) })
				if n := testing.AllocsPerRun(100, func() {
					m.send()
					m.receive(capture.trains)
					runs++
				}); n != 0 {
					t.Errorf("allocates %v times a packet", n)
				}
				if delivered != runs*len(l.packet) {
					t.Errorf("%d bytes delivered of %d packets of %d; drops %v", delivered, runs, len(l.packet), m.in.tunnel.drops.snapshot())
				}
			})
		}
	}
}
