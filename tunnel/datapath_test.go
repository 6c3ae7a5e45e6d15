package tunnel

import (
	"fmt"
	"net/netip"
	"testing"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// memoryPath is one engine's datapath without its goroutines: an outbound worker whose datagrams land in a buffer, and an
// inbound worker of a second engine that takes them from there.
type memoryPath struct {
	out    *outbound
	in     *inbound
	packet []byte
	o      device.Offload
}

// captureSender keeps the trains it is given.
type captureSender struct{ trains []transport.Train }

func (s *captureSender) Send(trains []transport.Train) int {
	s.trains = append(s.trains[:0], trains...)
	return 0
}

// newStillNode is a node none of whose goroutines run, with an open socket. The test takes their place.
func newStillNode(t testing.TB, network *transporttest.Network, n byte) *node {
	return newStillQueues(t, network, n, 1)
}

// newStillQueues is newStillNode with several queues.
func newStillQueues(t testing.TB, network *transporttest.Network, n byte, queues int) *node {
	addr := netip.AddrFrom4([4]byte{192, 0, 2, n})
	host := network.Host(addr)
	dev := devicetest.New(fmt.Sprintf("wg%d", n), testMTU, queues)
	tun, err := newTunnel(dev, host, Options{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := host.Open(transport.Options{Port: testPort})
	if err != nil {
		t.Fatal(err)
	}
	tun.bound.Store(&boundSocket{socket: s, closed: make(chan struct{})})
	a := &node{Tunnel: tun, t: t, dev: dev, host: host, key: key, public: key.Public(), addr: addr,
		inner: netip.AddrFrom4([4]byte{10, 0, 0, n})}
	a.configure(Change{PrivateKey: &key})
	a.port.Store(testPort)
	return a
}

// newMemoryPath joins two engines by keys of a session made without a handshake.
func newMemoryPath(t testing.TB, packet []byte, o device.Offload) (*memoryPath, *captureSender) {
	network := transporttest.New(1)
	a, b := newStillNode(t, network, 1), newStillNode(t, network, 2)
	a.addPeerNode(b, true)
	b.addPeerNode(a, true)
	ka := noise.Keys{Send: [32]byte{1}, Receive: [32]byte{2}}
	kb := noise.Keys{Send: [32]byte{2}, Receive: [32]byte{1}}
	join := func(n *node, p *peer, k *noise.Keys, remote uint32) *keypair {
		index, err := n.indices.reserve(p)
		if err != nil {
			t.Fatal(err)
		}
		s, err := session.New(k, crypto.ChaCha20Poly1305, true, index, remote, n.clock.now())
		if err != nil {
			t.Fatal(err)
		}
		kp := &keypair{Session: s, peer: p}
		n.indices.establish(index, kp)
		p.current.Store(kp)
		return kp
	}
	kpB := join(b, b.tunnelPeer(a), &kb, 0)
	join(a, a.tunnelPeer(b), &ka, kpB.LocalIndex)

	capture := &captureSender{}
	out := newOutbound(a.Tunnel, 0)
	out.batch.bound, out.batch.sender = a.bound.Load(), capture
	in := &inbound{tunnel: b.Tunnel, coalescer: device.NewCoalescer(b.queues[0])}
	return &memoryPath{out: out, in: in, packet: packet, o: o}, capture
}

// sink has the delivered packets given to f.
func (m *memoryPath) sink(f func(packet []byte, o device.Offload)) {
	m.in.tunnel.device.(*devicetest.Device).Queue(0).SetSink(f)
}

// send takes the packet through the outbound path.
func (m *memoryPath) send() {
	n := copy(m.out.buf[device.Headroom:], m.packet)
	m.out.packet(device.Headroom, device.Headroom+n, m.o, m.out.tunnel.clock.now())
	m.out.batch.flush()
}

// receive takes datagrams through the inbound path.
func (m *memoryPath) receive(trains []transport.Train) {
	now := m.in.tunnel.clock.now()
	for i := range trains {
		train := &trains[i]
		for d, next := train.Next(0); d != nil; d, next = train.Next(next) {
			m.in.datagram(d, train, now)
		}
		m.in.noteArrivals(now)
	}
	m.in.delivered(m.in.coalescer.Flush())
}

// superPacket is a TCP super-packet of segments full segments between the inner addresses of nodes 1 and 2.
func superPacket(segments int) ([]byte, device.Offload) {
	const mss = testMTU - 40
	return tcpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), segments*mss),
		device.Offload{NeedsChecksum: true, GSO: device.GSOTCPv4, HeaderLen: 40, SegmentSize: mss, ChecksumStart: 20, ChecksumOffset: 16}
}

func TestDatapathAllocatesNothing(t *testing.T) {
	for _, c := range []struct {
		name     string
		segments int
	}{{"one segment", 1}, {"super-packet", 46}} {
		t.Run(c.name, func(t *testing.T) {
			packet, o := superPacket(c.segments)
			m, capture := newMemoryPath(t, packet, o)
			delivered := 0
			m.sink(func(p []byte, _ device.Offload) { delivered += len(p) })
			m.send()
			if n := testing.AllocsPerRun(100, m.send); n != 0 {
				t.Errorf("outbound allocates %v times a packet", n)
			}
			// Each message is accepted once, so the inbound path takes its messages from the outbound one.
			runs := 0
			n := testing.AllocsPerRun(100, func() {
				m.send()
				m.receive(capture.trains)
				runs++
			})
			if n != 0 {
				t.Errorf("outbound and inbound together allocate %v times a packet", n)
			}
			if delivered != runs*len(packet) {
				t.Errorf("%d bytes delivered of %d packets of %d; drops %v", delivered, runs, len(packet), m.in.tunnel.drops.snapshot())
			}
		})
	}
}

func BenchmarkDatapath(b *testing.B) {
	packet, o := superPacket(46)
	b.Run("outbound", func(b *testing.B) {
		m, _ := newMemoryPath(b, packet, o)
		b.SetBytes(int64(len(packet)))
		for b.Loop() {
			m.send()
		}
	})
	b.Run("both ways", func(b *testing.B) {
		m, capture := newMemoryPath(b, packet, o)
		m.sink(func([]byte, device.Offload) {})
		b.SetBytes(int64(len(packet)))
		for b.Loop() {
			m.send()
			m.receive(capture.trains)
		}
	})
}
