package tunnel

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/device"
	"culvert/tunnel/ecn"
	"culvert/tunnel/ippacket"
)

// renew gives both ends of m another session before the one they have gets old: fuzzing takes real time.
func (m *memoryPath) renew(t testing.TB) {
	a, b := m.out.tunnel, m.in.tunnel
	pa, pb := onlyPeer(a), b.lookupPeer(a.identity.Load().noise.Public())
	if kp := pa.current.Load(); kp != nil && a.clock.now()-kp.Created < session.RekeyAfterTime/2 && kp.Sent() < 1<<40 {
		return
	}
	keys := [2]noise.Keys{{Send: [32]byte{1}, Receive: [32]byte{2}}, {Send: [32]byte{2}, Receive: [32]byte{1}}}
	remote := uint32(0)
	for i, p := range []*peer{pb, pa} {
		index, err := p.tunnel.indices.reserve(p)
		if err != nil {
			t.Fatal(err)
		}
		s, err := session.New(&keys[i], crypto.ChaCha20Poly1305, true, index, remote, p.tunnel.clock.now())
		if err != nil {
			t.Fatal(err)
		}
		kp := &keypair{Session: s, peer: p}
		p.tunnel.indices.establish(index, kp)
		p.mu.Lock()
		p.discard(p.current.Swap(kp))
		p.mu.Unlock()
		remote = index
	}
}

func onlyPeer(t *Tunnel) *peer { return t.snapshotPeers()[0] }

// FuzzDatagram gives the receiving worker arbitrary datagrams, and arbitrary plaintexts in true data messages. Only valid
// packets from the peer's allowed IPs may reach the device.
func FuzzDatagram(f *testing.F) {
	m, _ := newMemoryPath(f, nil, device.Offload{})
	n := m.in.tunnel
	peer := onlyPeer(n)
	other := publicKeys(1)[0]
	if err := n.Configure(Change{Peers: []PeerChange{
		{PublicKey: peer.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("10.1.0.0/16")}, {Prefix: netip.MustParsePrefix("fd00::/16")}}},
		{PublicKey: other, AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("10.1.2.0/24")}, {Prefix: netip.MustParsePrefix("fd00:1::/32")}}},
	}}); err != nil {
		f.Fatal(err)
	}
	var delivered [][]byte
	m.sink(func(p []byte, o device.Offload) {
		if o != noOffload {
			panic("a single packet came out with an offload")
		}
		delivered = append(delivered, bytes.Clone(p))
	})
	stamper := cookie.NewStamper(n.identity.Load().noise.Public())
	control := newControl(n)
	var nonce session.Nonce

	const raw, sealed, stamped, addressed = 0, 1, 2, 3
	src, dst := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.0.0.2")
	src6, dst6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00:9::2")
	v4, v6 := udpPacket(src, dst, []byte("payload")), udp6Packet(src6, dst6, []byte("payload"))
	f.Add(byte(sealed), byte(0), v4)
	f.Add(byte(sealed), byte(3), withTrafficClass(v4, 2))
	f.Add(byte(sealed), byte(3), v6)
	f.Add(byte(sealed), byte(0), append(bytes.Clone(v6), make([]byte, 9)...))
	f.Add(byte(sealed), byte(0), tcpPacket(src, dst, 1200))
	f.Add(byte(sealed), byte(0), udpPacket(netip.MustParseAddr("10.1.2.3"), dst, nil))
	f.Add(byte(sealed), byte(0), []byte{})
	f.Add(byte(raw), byte(0), append([]byte{noise.TypeInitiation}, make([]byte, noise.InitiationSize-1)...))
	f.Add(byte(raw), byte(0), append([]byte{noise.TypeData}, make([]byte, 31)...))
	f.Add(byte(stamped), byte(0), append([]byte{noise.TypeInitiation}, make([]byte, noise.InitiationSize-1)...))
	f.Add(byte(stamped), byte(0), append([]byte{noise.TypeResponse}, make([]byte, noise.ResponseSize-1)...))
	f.Add(byte(addressed), byte(0), append([]byte{noise.TypeCookieReply}, make([]byte, noise.CookieReplySize-1)...))
	f.Add(byte(addressed), byte(0), append([]byte{noise.TypeData}, make([]byte, 47)...))

	train := transport.Train{Buf: make([]byte, transport.ReceiveBufferSize),
		Endpoint: transport.Endpoint{Remote: netip.MustParseAddrPort("192.0.2.1:51820")}}
	f.Fuzz(func(t *testing.T, how, tos byte, data []byte) {
		if len(data) > device.MaxPacket-session.Overhead-28 {
			return
		}
		m.renew(t)
		delivered = delivered[:0]
		kp, far := peer.current.Load(), onlyPeer(m.out.tunnel).current.Load()
		train.TOS, train.Segment = tos, 0
		var want []byte
		switch how % 4 {
		case sealed:
			counter, _ := far.Reserve(1, len(data)+noise.TagSize)
			train.N = far.Seal(train.Buf, counter, data, &nonce)
			packet := bytes.Clone(data)
			if from, _, size, ok := ippacket.Parse(packet); ok && allowedByFuzz(from) && ecn.Decapsulate(packet[:size], tos) {
				want = packet[:size]
			}
		case stamped:
			train.N = copy(train.Buf, data)
			if kind, ok := noise.MessageType(data); ok && (kind == noise.TypeInitiation || kind == noise.TypeResponse) {
				if kind == noise.TypeResponse {
					binary.LittleEndian.PutUint32(train.Buf[8:], kp.LocalIndex)
				}
				stamper.Stamp(train.Buf[:train.N], 0)
			}
		case addressed:
			train.N = copy(train.Buf, data)
			if train.N >= 8 {
				binary.LittleEndian.PutUint32(train.Buf[4:], kp.LocalIndex)
			}
		default:
			train.N = copy(train.Buf, data)
		}
		m.receive([]transport.Train{train})
		for len(n.handshakes) > 0 {
			msg := <-n.handshakes
			control.handshake(&msg, n.clock.now())
			control.batch.flush()
		}
		switch {
		case want == nil && len(delivered) != 0:
			t.Fatalf("%x delivered", delivered)
		case want != nil && (len(delivered) != 1 || !bytes.Equal(delivered[0], want)):
			t.Fatalf("%x delivered instead of %x", delivered, want)
		}
		if got := n.lookupPeer(peer.public).current.Load(); got != kp {
			t.Fatal("another session")
		}
	})
}

// allowedByFuzz is the allowed IPs of FuzzDatagram's peer, written another way.
func allowedByFuzz(a netip.Addr) bool {
	b := a.AsSlice()
	if len(b) == 4 {
		return b[0] == 10 && (b[1] == 0 && b[2] == 0 && b[3] == 1 || b[1] == 1 && b[2] != 2)
	}
	return b[0] == 0xfd && b[1] == 0 && (b[2] != 0 || b[3] != 1)
}

// openingSender is the far end of FuzzOutbound: it opens all that is sent.
type openingSender struct {
	t       testing.TB
	session func() *keypair
	nonce   session.Nonce
	opened  [][]byte
}

func (s *openingSender) Send(trains []transport.Train) int {
	for i := range trains {
		tr := &trains[i]
		if err := tr.Check(); err != nil {
			s.t.Errorf("a train the transport would refuse: %v", err)
		}
		for d, next := tr.Next(0); d != nil; d, next = tr.Next(next) {
			p, err := s.session().Open(make([]byte, 0, len(d)), d, &s.nonce)
			if err != nil {
				s.t.Errorf("a message the far end cannot open: %v", err)
			}
			s.opened = append(s.opened, p)
		}
	}
	return 0
}

// FuzzOutbound gives the sending worker arbitrary packets with arbitrary offloads. What it sends can be opened and is whole, and
// what surrounds the packet in the worker's buffer is as it was.
func FuzzOutbound(f *testing.F) {
	m, _ := newMemoryPath(f, nil, device.Offload{})
	n := m.out.tunnel
	peer := onlyPeer(n)
	if err := n.Configure(Change{Peers: []PeerChange{{PublicKey: peer.public,
		AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}}}}}); err != nil {
		f.Fatal(err)
	}
	far := m.in.tunnel.lookupPeer(n.identity.Load().noise.Public())
	sender := &openingSender{session: far.current.Load}
	m.out.batch.sender = sender

	src, dst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	v6 := udp6Packet(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), make([]byte, 3000))
	super, o := superPacket(3)
	f.Add(super, byte(o.GSO), o.NeedsChecksum, o.HeaderLen, o.SegmentSize, o.ChecksumStart, o.ChecksumOffset)
	f.Add(udpPacket(src, dst, []byte("x")), byte(0), false, uint16(0), uint16(0), uint16(0), uint16(0))
	f.Add(udpPacket(src, dst, []byte("x")), byte(0), true, uint16(0), uint16(0), uint16(20), uint16(6))
	f.Add(udpPacket(src, dst, make([]byte, 3000)), byte(device.GSOUDP), true, uint16(28), uint16(1000), uint16(20), uint16(6))
	f.Add(v6, byte(device.GSOUDP), true, uint16(48), uint16(7), uint16(40), uint16(6))
	f.Add([]byte{0x45}, byte(9), true, uint16(1), uint16(1), uint16(65535), uint16(65535))

	pattern := make([]byte, len(m.out.buf))
	for i := range pattern {
		pattern[i] = byte(i * 31)
	}
	f.Fuzz(func(t *testing.T, packet []byte, gso byte, needs bool, header, segment, start, offset uint16) {
		if len(packet) > device.MaxPacket || len(packet) == 0 {
			return
		}
		m.renew(t)
		sender.t, sender.opened = t, nil
		o := device.Offload{GSO: device.GSO(gso % 5), NeedsChecksum: needs, HeaderLen: header, SegmentSize: segment, ChecksumStart: start, ChecksumOffset: offset}
		buf := m.out.buf
		lo, hi := device.Headroom, device.Headroom+len(packet)
		copy(buf, pattern)
		copy(buf[lo:], packet)
		m.out.packet(lo, hi, o, n.clock.now())
		m.out.batch.flush()
		if !bytes.Equal(buf[:lo], pattern[:lo]) || !bytes.Equal(buf[hi:], pattern[hi:]) {
			t.Fatalf("the buffer has changed around the packet %d to %d", lo, hi)
		}
		_, _, _, ok := ippacket.Parse(packet)
		if !ok && len(sender.opened) != 0 {
			t.Fatalf("%d messages for what is no packet", len(sender.opened))
		}
		if o.GSO == device.GSONone {
			if len(sender.opened) > 1 {
				t.Fatalf("%d messages for one packet", len(sender.opened))
			}
			if ok && !needs && len(sender.opened) != 1 {
				t.Fatalf("not sent: %x", packet)
			}
		}
		for _, p := range sender.opened {
			if o == noOffload && !bytes.Equal(p, append(bytes.Clone(packet), make([]byte, len(p)-len(packet))...)) {
				t.Fatalf("%x arrived as %x", packet, p)
			}
			if o.GSO != device.GSONone {
				if _, _, size, ok := ippacket.Parse(p); !ok || len(bytes.Trim(p[size:], "\x00")) != 0 {
					t.Fatalf("a segment that is no packet: %x", p)
				}
			}
		}
	})
}
