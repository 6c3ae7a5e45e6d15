package tunnel

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/device"
	"culvert/tunnel/ecn"
	"culvert/tunnel/ippacket"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
)

// renewNative is renew for paths made by newWirePath.
func (m *memoryPath) renewNative(t testing.TB) {
	a, b := m.out.tunnel, m.in.tunnel
	pa, pb := onlyPeer(a), b.lookupPeer(a.identity.Load().noise.Public())
	if kp := pa.current.Load(); kp != nil && a.clock.now()-kp.Created < session.RekeyAfterTime/2 && kp.Sent() < 1<<40 && pb.current.Load() != nil {
		return
	}
	keys := [2]noise.Keys{{Send: [32]byte{1}, Receive: [32]byte{2}}, {Send: [32]byte{2}, Receive: [32]byte{1}}}
	remote := uint32(0)
	for i, p := range []*peer{pb, pa} {
		index, err := p.tunnel.indices.reserve(p)
		if err != nil {
			t.Fatal(err)
		}
		s, err := session.New(&keys[i], crypto.AES256GCM, i == 1, index, remote, p.tunnel.clock.now())
		if err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		n := p.native.Load()
		kp := &keypair{Session: s, peer: p, native: n, serial: n.known()}
		p.tunnel.indices.establish(index, kp)
		p.discard(p.current.Swap(kp))
		p.mu.Unlock()
		remote = index
	}
}

// FuzzNativeContent gives the receiving worker and the control loop arbitrary plaintexts under a true session, several after
// each other, as they are or as the fragments of one. Only valid packets from the peer's allowed IPs may reach the device; what
// is answered can be opened by the peer, and is as the wire has it.
func FuzzNativeContent(f *testing.F) {
	m, _ := newWirePath(f, Culvert, crypto.AES256GCM, nil, device.Offload{})
	n := m.in.tunnel
	peer := onlyPeer(n)
	if err := n.Configure(Change{Peers: []PeerChange{
		{PublicKey: peer.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("10.1.0.0/16")}, {Prefix: netip.MustParsePrefix("fd00::/16")}}},
		{PublicKey: publicKeys(1)[0], AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("10.1.2.0/24")}, {Prefix: netip.MustParsePrefix("fd00:1::/32")}}},
	}}); err != nil {
		f.Fatal(err)
	}
	var s device.Segments
	var failure string
	delivered := 0
	m.sink(func(p []byte, o device.Offload) {
		delivered++
		from, _, size, ok := ippacket.Parse(p)
		if !ok || size != len(p) || !allowedByFuzz(from) {
			failure = "delivered what is no packet of the peer's"
			return
		}
		if o == noOffload {
			return
		}
		buf := append(make([]byte, device.Headroom), append(bytes.Clone(p), make([]byte, device.Tailroom)...)...)
		if err := s.Reset(buf, device.Headroom, device.Headroom+len(p), o); err != nil {
			failure = "delivered with an offload that no kernel takes: " + err.Error()
			return
		}
		for lo, hi, ok := s.Next(); ok; lo, hi, ok = s.Next() {
			if from, _, size, ok := ippacket.Parse(buf[lo:hi]); !ok || size != hi-lo || !allowedByFuzz(from) {
				failure = "delivered a super-packet with something else in it"
			}
		}
	})
	control := newControl(n)
	sender := &openingSender{session: func() *keypair { return onlyPeer(m.out.tunnel).current.Load() }}
	control.batch.bound, control.batch.sender = n.bound.Load(), sender

	src, dst := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.0.0.2")
	src6, dst6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00:9::2")
	v4, v6 := udpPacket(src, dst, []byte("payload")), udp6Packet(src6, dst6, []byte("payload"))
	const whole, cutUp = 0, 1
	add := func(how byte, tos byte, plaintexts ...[]byte) {
		var data []byte
		for _, p := range plaintexts {
			data = binary.BigEndian.AppendUint16(data, uint16(len(p)))
			data = append(data, p...)
		}
		f.Add(how, tos, data)
	}
	for _, how := range []byte{whole, cutUp} {
		add(how, 0, trailed(payload.IP, v4), trailed(payload.IP, v6))
		add(how, 3, trailed(payload.IP, withTrafficClass(v4, 2)), trailed(payload.IPElided, withTrafficClass(v6, 2)))
		add(how, 0, trailed(payload.IPElided, tcpPacket(src, dst, 900)), trailed(payload.IPElided, tcpPacket(src, dst, 900)))
		add(how, 0, trailed(payload.IP, udpPacket(netip.MustParseAddr("10.1.2.3"), dst, nil)))
		add(how, 0, trailed(payload.Ethernet, append(make([]byte, 14), v4...)))
		add(how, 0, fragmentOf(trailed(payload.IP, v4), 7, 0, true))
		add(how, 0, cut(trailed(payload.IP, v4), 8, 20)...)
		for _, msg := range []struct {
			number uint64
			m      message.Message
		}{
			{1, message.Hello{Agent: "x", MTU: 1420, Layer: 3}}, {0, message.Ack{Number: 1}}, {0, message.Echo{ID: 1, Sent: 5}},
			{0, message.Reply{ID: 1, Received: 5}}, {0, message.Probe{ID: 9}}, {0, message.Probed{ID: 2}},
			{1, message.Push{Subject: "s", Document: []byte("d")}}, {0, message.Goodbye{Reason: 1}},
		} {
			content, err := message.Encode(nil, msg.number, msg.m)
			if err != nil {
				f.Fatal(err)
			}
			add(how, 0, trailed(payload.Control, content), trailed(payload.IP, v4), trailed(payload.Control, content))
		}
	}
	f.Add(byte(whole), byte(0), []byte{0, 1, 0})
	f.Add(byte(whole), byte(0), []byte{0, 0, 0, 0})

	f.Fuzz(func(t *testing.T, how, tos byte, data []byte) {
		if len(data) > 1<<15 {
			return
		}
		m.renewNative(t)
		sender.t, sender.opened, failure, delivered = t, nil, "", 0
		kp, far := peer.current.Load(), onlyPeer(m.out.tunnel).current.Load()
		var trains []transport.Train
		give := func(plaintext []byte) {
			counter, _ := far.Reserve(1, len(plaintext)+noise.TagSize)
			msg := make([]byte, len(plaintext)+session.Overhead)
			far.Seal(msg, counter, plaintext, &m.out.nonce)
			train := trainOf(msg)
			train.TOS = tos & 3
			trains = append(trains, train)
		}
		count, valid := 0, 0
		for id := uint32(0); len(data) >= 2; id++ {
			size := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			plaintext := data[2 : 2+size]
			data = data[2+size:]
			count++
			if kind, content, ok := payload.Split(plaintext); ok && kind == payload.IP {
				packet := bytes.Clone(content)
				if from, _, n, ok := ippacket.Parse(packet); ok && n == len(packet) && allowedByFuzz(from) && ecn.Decapsulate(packet, tos&3) {
					valid++
				}
			}
			if how%2 == whole || size == 0 {
				give(plaintext)
				continue
			}
			for _, p := range cut(plaintext, id<<8|uint32(how), max(1, (size+9)/10)) {
				give(p)
			}
		}
		m.receive(trains)
		for len(n.controls) > 0 {
			msg := <-n.controls
			control.control(&msg, n.clock.now())
			control.batch.flush()
		}
		control.maintain(peer, n.clock.now())
		control.batch.flush()
		peer.native.Load().allowance.Store(0)
		if failure != "" {
			t.Fatal(failure)
		}
		if how%2 == whole && count == 1 && valid == 1 && delivered != 1 {
			t.Fatalf("a valid packet was not delivered; drops %v", n.drops.snapshot())
		}
		for _, plaintext := range sender.opened {
			kind, content, ok := payload.Split(plaintext)
			if len(plaintext) == 0 || ok && kind == payload.Fragment {
				continue
			}
			if !ok || kind != payload.Control {
				t.Fatalf("answered by %x", plaintext)
			}
			if _, _, err := message.Decode(content); err != nil {
				t.Fatalf("answered by a control message that is none: %v", err)
			}
		}
		if now := peer.current.Load(); now != kp && now != nil {
			t.Fatal("another session")
		}
		if packets, size := m.in.reassembler.Usage(); packets > 256 || size > 4<<20 {
			t.Fatalf("%d packets and %d bytes are kept", packets, size)
		}
	})
}
