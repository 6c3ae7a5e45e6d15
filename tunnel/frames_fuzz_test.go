package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
	"culvert/tunnel/ecn"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/fragment"
	"culvert/tunnel/ippacket"
	"culvert/tunnel/loopguard"
	"culvert/tunnel/payload"
)

// fuzzSwitch is a tap node none of whose goroutines run, with far ends that are nothing but sessions.
type fuzzSwitch struct {
	name    string
	n       *node
	in      *inbound
	out     *outbound
	control *control
	far     []*farEnd
	proxy   bool
	reaches bool // what the first far end sends goes to the others too

	t      testing.TB
	device []madeFrame // what has been written to the device
	nonce  session.Nonce
}

// farEnd is a peer's end of its session.
type farEnd struct {
	public      crypto.PublicKey
	session     *session.Session
	keypair     *keypair // of the reassembler, to tell sessions apart
	reassembler *fragment.Reassembler[*keypair]
	got         []madeFrame
	change      PortChange
}

// madeFrame is a frame that came out, with every offload done; elided where its checksum was for its receiver to make.
type madeFrame struct {
	frame  []byte
	elided bool
}

// fuzzSettings are what frames are fuzzed under. All limits are off, lest they be what stops everything.
func fuzzSettings(t testing.TB) (all []*fuzzSwitch) {
	spoke := PortChange{Spoke: true}
	pvid := PortChange{Spoke: true, PVID: 10, VLANs: []uint16{20, 30}}
	access := PortChange{Spoke: true, PVID: 20}
	for i, s := range []struct {
		name  string
		ports []PortChange
		proxy bool
	}{
		{"wire", []PortChange{{}}, false},
		{"mesh", []PortChange{{}, {}}, false},
		{"hub", []PortChange{spoke, spoke, spoke}, false},
		{"VLANs", []PortChange{pvid, access, {PVID: 10}}, false},
		{"proxy", []PortChange{spoke, spoke}, true},
	} {
		all = append(all, newFuzzSwitch(t, s.name, byte(i+1), s.ports, s.proxy))
	}
	return all
}

func newFuzzSwitch(t testing.TB, name string, number byte, ports []PortChange, proxy bool) *fuzzSwitch {
	network := transporttest.New(uint64(number))
	addr := netip.AddrFrom4([4]byte{192, 0, 2, number})
	host := network.Host(addr)
	dev := devicetest.NewEthernet("tap0", tapMTU, 1)
	tun, err := newTunnel(dev, host, Options{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	socket, err := host.Open(transport.Options{Port: testPort})
	if err != nil {
		t.Fatal(err)
	}
	tun.bound.Store(&boundSocket{socket: socket, closed: make(chan struct{})})
	n := &node{Tunnel: tun, t: t, dev: dev, host: host, key: key, public: key.Public(), addr: addr}
	n.configure(Change{PrivateKey: &key, Switch: &SwitchChange{Proxy: proxy}})
	s := &fuzzSwitch{name: name, n: n, proxy: proxy, t: t}
	wire := Culvert
	for i, public := range publicKeys(len(ports)) {
		c := ports[i]
		if len(ports) > 1 { // with limits it would be no wire
			c.Broadcast, c.Multicast, c.UnknownUnicast, c.MaxAddresses = -1, -1, -1, maxAddresses
		}
		ep := transport.Endpoint{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 1000)}
		n.configure(Change{Peers: []PeerChange{{PublicKey: public, Wire: &wire, Endpoint: &ep, Port: &c}}})
		s.far = append(s.far, &farEnd{public: public, reassembler: newReassembler(), change: c, keypair: new(keypair)})
	}
	if got := n.bridge.ports.Load().wire != nil; got != (name == "wire") {
		t.Fatalf("%s: wire %v", name, got)
	}
	s.reaches = ports[0].Spoke
	s.in = &inbound{tunnel: tun, coalescer: device.NewCoalescer(tun.queues[0]), reassembler: newReassembler()}
	s.in.frames.relay = newOutbound(tun, 0)
	s.in.frames.frame = make([]byte, room+device.MaxPacket)
	s.out = newOutbound(tun, 0)
	s.control = newControl(tun)
	for _, b := range []*sendBatch{s.in.frames.relay.batch, s.out.batch, s.control.batch} {
		b.bound, b.sender = tun.bound.Load(), s
	}
	dev.Queue(0).SetSink(func(f []byte, o device.Offload) { s.device = append(s.device, s.finish(f, o)...) })
	return s
}

// finish does a frame's offload, and fails where no kernel could.
func (s *fuzzSwitch) finish(f []byte, o device.Offload) (all []madeFrame) {
	if o == noOffload {
		return []madeFrame{{bytes.Clone(f), false}}
	}
	buf := slices.Concat(make([]byte, device.Headroom), f, make([]byte, device.Tailroom))
	var cut device.Segments
	if err := cut.ResetFor(buf, device.Headroom, device.Headroom+len(f), o, device.Limits{Frame: true}); err != nil {
		s.t.Errorf("%s: a frame whose offload does not fit it: %v", s.name, err)
		return nil
	}
	for lo, hi, ok := cut.Next(); ok; lo, hi, ok = cut.Next() {
		all = append(all, madeFrame{bytes.Clone(buf[lo:hi]), true})
	}
	return all
}

// Send opens what is sent to the far ends.
func (s *fuzzSwitch) Send(trains []transport.Train) int {
	for i := range trains {
		tr := &trains[i]
		if err := tr.Check(); err != nil {
			s.t.Errorf("a train the transport would refuse: %v", err)
		}
		for d, next := tr.Next(0); d != nil; d, next = tr.Next(next) {
			s.opened(d, tr)
		}
	}
	return 0
}

func (s *fuzzSwitch) opened(d []byte, tr *transport.Train) {
	if kind, ok := noise.MessageType(d); ok && kind != noise.TypeData {
		return // a handshake
	}
	i := slices.IndexFunc(s.far, func(f *farEnd) bool { return f.session.LocalIndex == noise.ReceiverIndex(d) })
	if i < 0 {
		s.t.Errorf("a message to nobody")
		return
	}
	f := s.far[i]
	if ep := s.n.lookupPeer(f.public).endpoint.Load(); ep == nil || ep.Remote != tr.Endpoint.Remote {
		s.t.Errorf("a message to another's address")
	}
	plaintext, err := f.session.Open(make([]byte, 0, len(d)), d, &s.nonce)
	if err != nil {
		s.t.Errorf("a message that the far end cannot open: %v", err)
		return
	}
	if len(plaintext) == 0 {
		return
	}
	kind, content, ok := payload.Split(plaintext)
	if ok && kind == payload.Fragment {
		piece, id, index, last, fits := fragment.ParseTail(content)
		if !fits {
			s.t.Error("a fragment that is none")
		}
		whole, lost := f.reassembler.Add(f.keypair, id, index, last, piece, false, s.n.clock.now())
		if lost != (fragment.Loss{}) {
			s.t.Errorf("fragments that contradict each other: %+v", lost)
		}
		if whole == nil {
			return
		}
		kind, content, ok = payload.Split(whole)
	}
	switch {
	case ok && kind == payload.Ethernet:
		f.got = append(f.got, madeFrame{bytes.Clone(content), false})
	case ok && kind == payload.EthernetElided:
		c := bytes.Clone(content)
		o, fits := device.FinishElidedFrame(c)
		if !fits {
			s.t.Errorf("an elided checksum of what has none: %x", content)
			return
		}
		f.got = append(f.got, s.finish(c, o)...)
	case ok && kind == payload.Control:
	default:
		s.t.Errorf("a message of %v", kind)
	}
}

// begin makes sessions anew before they get old, and forgets what was before.
func (s *fuzzSwitch) begin(t testing.TB) {
	s.t = t
	tun := s.n.Tunnel
	for i, f := range s.far {
		f.got = nil
		p := tun.lookupPeer(f.public)
		ep := transport.Endpoint{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 1000)}
		p.heard(&ep)
		p.native.Load().allowance.Store(0)
		if kp := p.current.Load(); kp != nil && tun.clock.now()-kp.Created < session.RekeyAfterTime/2 && kp.Sent() < 1<<36 {
			continue
		}
		index, err := tun.indices.reserve(p)
		if err != nil {
			t.Fatal(err)
		}
		keys := noise.Keys{Send: [32]byte{1}, Receive: [32]byte{2}}
		mine, err := session.New(&keys, crypto.ChaCha20Poly1305, true, index, uint32(i+1), tun.clock.now())
		if err != nil {
			t.Fatal(err)
		}
		keys = noise.Keys{Send: [32]byte{2}, Receive: [32]byte{1}}
		if f.session, err = session.New(&keys, crypto.ChaCha20Poly1305, false, uint32(i+1), index, tun.clock.now()); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		n := p.native.Load()
		kp := &keypair{Session: mine, peer: p, native: n, serial: n.known()}
		tun.indices.establish(index, kp)
		p.discard(p.current.Swap(kp))
		p.mu.Unlock()
	}
	tun.bridge.forgetLearned()
	s.in.frames.seen, s.out.frames.seen = seen{}, seen{}
	s.device = nil
}

// path sets what is known of the paths to the far ends: a plaintext of so many bytes.
func (s *fuzzSwitch) path(plaintext int) {
	for _, f := range s.far {
		s.n.lookupPeer(f.public).native.Load().found.Store(uint32(limitsOf(plaintext, true)))
	}
}

// send seals plaintexts by the first far end and has the receiving worker take them.
func (s *fuzzSwitch) send(plaintexts [][]byte, tos uint8) {
	f, now := s.far[0], s.n.clock.now()
	for _, plaintext := range plaintexts {
		counter, _ := f.session.Reserve(1, len(plaintext)+noise.TagSize)
		msg := make([]byte, len(plaintext)+session.Overhead)
		msg = msg[:f.session.Seal(msg, counter, plaintext, &s.nonce)]
		train := transport.Train{Buf: msg, N: len(msg), TOS: tos, Endpoint: *s.n.lookupPeer(f.public).endpoint.Load()}
		s.in.datagram(msg, &train, now)
		s.in.noteArrivals(now)
	}
	s.in.delivered(s.in.coalescer.Flush())
	s.in.frames.relay.batch.flush()
}

// loopProbes has the control loop take the loop probes, as far as there are any.
func (s *fuzzSwitch) loopProbes() {
	for len(s.n.bridge.probes) > 0 {
		m := <-s.n.bridge.probes
		s.control.loopProbe(&m, s.n.clock.now())
		s.control.batch.flush()
	}
}

// The specification, once more and simply.

// tagsOf returns a frame's VLAN tags as far as they are read, two at most; ok is false where it is no frame.
func tagsOf(f []byte) (tags [][]byte, ok bool) {
	at := 12
	for len(tags) < 2 && len(f) >= at+2 && (f[at] == 0x81 && f[at+1] == 0 || f[at] == 0x88 && f[at+1] == 0xa8) {
		if len(f) < at+4 {
			return nil, false
		}
		tags = append(tags, f[at:at+4])
		at += 4
	}
	return tags, len(f) >= at+2 && f[6]&1 == 0 && !bytes.Equal(f[6:12], make([]byte, 6))
}

func vidOf(tag []byte) uint16 { return binary.BigEndian.Uint16(tag[2:]) & 0xfff }

// admitted returns what a frame from a port is inside, nil: nothing.
func admitted(f []byte, c *PortChange) []byte {
	tags, ok := tagsOf(f)
	switch {
	case !ok:
		return nil
	case c.PVID == 0 && len(c.VLANs) == 0:
		return f
	case len(tags) == 0 && c.PVID != 0:
		return tagged(c.PVID, f)
	case len(tags) == 1 && tags[0][0] == 0x81 && vidOf(tags[0]) == 0 && c.PVID != 0:
		g := bytes.Clone(f)
		g[14], g[15] = g[14]|byte(c.PVID>>8), byte(c.PVID)
		return g
	case len(tags) > 0 && tags[0][0] == 0x81 && slices.Contains(c.VLANs, vidOf(tags[0])):
		return f
	}
	return nil
}

// emitted returns what leaves by a port of a frame inside, nil: nothing.
func emitted(f []byte, c *PortChange) []byte {
	tags, _ := tagsOf(f)
	switch {
	case f == nil || c.PVID == 0 && len(c.VLANs) == 0:
		return f
	case len(tags) == 0 || tags[0][0] != 0x81:
		return nil
	case vidOf(tags[0]) == c.PVID && len(tags) == 1:
		return slices.Concat(f[:12], f[16:])
	case slices.Contains(c.VLANs, vidOf(tags[0])) && vidOf(tags[0]) != c.PVID:
		return f
	}
	return nil
}

// packetOf returns the IP packet in a frame and whether its type says it is one.
func packetOf(f []byte) ([]byte, bool) {
	tags, ok := tagsOf(f)
	if !ok {
		return nil, false
	}
	at := 14 + 4*len(tags)
	kind := binary.BigEndian.Uint16(f[at-2:])
	return f[at:], kind == ethernet.TypeIPv4 || kind == ethernet.TypeIPv6
}

// marked is the frame after a way that met congestion, nil where it is dropped (RFC 6040).
func marked(f []byte, tos uint8) []byte {
	f = bytes.Clone(f)
	if packet, ok := packetOf(f); ok && tos&3 == ecn.CE {
		if _, _, _, ok := ippacket.Parse(packet); ok && !ecn.Decapsulate(packet, tos) {
			return nil
		}
	}
	return f
}

// sameFrame compares a frame that came out with one that went in. Where its checksum was elided that must be right now, and was
// without meaning before.
func sameFrame(out madeFrame, in []byte, elided bool) bool {
	if len(in) != len(out.frame) {
		return false
	}
	if !elided {
		return bytes.Equal(out.frame, in)
	}
	start, offset, ok := device.ElidedFrame(in)
	if !ok {
		return false
	}
	a, b := bytes.Clone(in), bytes.Clone(out.frame)
	clear(a[start+offset:][:2])
	clear(b[start+offset:][:2])
	return bytes.Equal(a, b) && checksumRight(out.frame)
}

// checksumRight verifies the transport checksum of a frame for which device.ElidedFrame holds.
func checksumRight(f []byte) bool {
	start, _, ok := device.ElidedFrame(f)
	packet, isIP := packetOf(f)
	if !ok || !isIP {
		return false
	}
	addresses, proto := packet[12:20], packet[9]
	if packet[0]>>4 == 6 {
		addresses, proto = packet[8:40], packet[6]
	}
	sum := ippacket.Sum(addresses, uint64(proto)+uint64(len(f)-start))
	return ippacket.Fold(ippacket.Sum(f[start:], sum)) == 0xffff
}

// expectation is a frame that may come out somewhere.
type expectation struct {
	frame  []byte
	elided bool
}

// check fails unless all that came out was expected, each thing once. A proxy may say more.
func (s *fuzzSwitch) check(where string, got []madeFrame, want []expectation) {
	s.t.Helper()
	for _, g := range got {
		if loopguard.IsProbe(g.frame) {
			if len(g.frame) > loopguard.MaxFrame {
				s.t.Fatalf("%s: %s: a loop probe of %d bytes", s.name, where, len(g.frame))
			}
			continue
		}
		packet, isIP := packetOf(g.frame)
		if packet == nil {
			s.t.Fatalf("%s: %s: what is no frame: %x", s.name, where, g.frame)
		}
		if len(packet) > tapMTU {
			s.t.Fatalf("%s: %s: a payload of %d bytes", s.name, where, len(packet))
		}
		i := slices.IndexFunc(want, func(e expectation) bool { return e.frame != nil && sameFrame(g, e.frame, e.elided) })
		if i < 0 {
			kind := binary.BigEndian.Uint16(g.frame[len(g.frame)-len(packet)-2:])
			if s.proxy && (kind == ethernet.TypeARP || isIP && len(packet) > 40 && packet[0]>>4 == 6 && packet[6] == 58) {
				continue // an answer of the proxy's
			}
			s.t.Fatalf("%s: %s: %x, which nobody sent", s.name, where, g.frame)
		}
		want = slices.Delete(slices.Clone(want), i, i+1)
	}
}

// asked reports whether a proxy might answer the frame instead of passing it on.
func asked(f []byte) bool {
	packet, isIP := packetOf(f)
	tags, _ := tagsOf(f)
	return isIP || packet != nil && binary.BigEndian.Uint16(f[12+4*len(tags):]) == ethernet.TypeARP
}

// seedFrames are what both targets begin with.
func seedFrames() (all [][]byte) {
	v4, v6 := udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), []byte("payload")),
		udp6Packet(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), []byte("payload"))
	six := ipFrame(station(1), station(10), v6)
	binary.BigEndian.PutUint16(six[12:], ethernet.TypeIPv6)
	arp := frame(ethernet.Broadcast, station(10), "\x00\x01\x08\x00\x06\x04\x00\x01"+ // who has 10.0.0.2, tell 10.0.0.1
		"\x02\x00\x00\x00\x00\x0a\x0a\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x02")
	binary.BigEndian.PutUint16(arp[12:], ethernet.TypeARP)
	service := tagged(20, frame(ethernet.Broadcast, station(10), "service"))
	binary.BigEndian.PutUint16(service[12:], ethernet.TypeProvider)
	return [][]byte{
		frame(ethernet.Broadcast, station(10), "hello"),
		frame(station(1), station(10), "unknown"),
		frame(0x0180c2000000, station(10), "spanning tree"),
		frame(0x333300000001, station(10), ""),
		arp, six,
		ipFrame(station(1), station(10), v4),
		ipFrame(ethernet.Broadcast, station(10), tcpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 900)),
		ipFrame(ethernet.Broadcast, station(10), withTrafficClass(v4, 2)),
		tagged(10, frame(ethernet.Broadcast, station(10), "PVID")),
		tagged(20, frame(ethernet.Broadcast, station(10), "listed")),
		tagged(0, ipFrame(ethernet.Broadcast, station(10), v4)),
		tagged(20, tagged(10, ipFrame(ethernet.Broadcast, station(10), v4))),
		tagged(20, tagged(10, tagged(30, frame(ethernet.Broadcast, station(10), "three")))),
		service,
		crossed(probeFrame(1<<63, 9, 5), 0),
		probeFrame(1<<63, 9),
		frame(ethernet.Broadcast, ethernet.Broadcast, "from a group"),
		sized(ethernet.Broadcast, station(10), 0, tapMTU),
		sized(ethernet.Broadcast, station(10), 2, tapMTU),
		sized(ethernet.Broadcast, station(10), 0, tapMTU+1),
		frame(ethernet.Broadcast, station(10), "")[:13],
	}
}

// FuzzFrameContent gives the receiving worker of switches of all kinds frames under a true session, several after each other, as
// they are or in fragments. What comes out of the device and goes to other peers is what came in, but for what VLANs,
// congestion and elided checksums ask for.
func FuzzFrameContent(f *testing.F) {
	settings := fuzzSettings(f)
	const elide, fragments = 1, 2
	add := func(how, tos byte, frames ...[]byte) {
		var data []byte
		for _, p := range frames {
			data = binary.BigEndian.AppendUint16(data, uint16(len(p)))
			data = append(data, p...)
		}
		for i := range settings {
			f.Add(byte(i), how, tos, data)
		}
	}
	seeds := seedFrames()
	for i, p := range seeds {
		add(byte(i)%2*fragments, byte(i)%4, p)
	}
	tcp := ipFrame(station(1), station(10), tcpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 100))
	next := bytes.Clone(tcp)
	binary.BigEndian.PutUint32(next[14+24:], 100)
	add(elide, 0, seeds[5], seeds[6], tcp)
	add(elide, 0, tcp, next)
	add(elide|fragments, 3, tagged(20, tcp))
	add(0, 0, seeds[:4]...)

	f.Fuzz(func(t *testing.T, setting, how, tos byte, data []byte) {
		if len(data) > 1<<15 {
			return
		}
		s := settings[int(setting)%len(settings)]
		s.begin(t)
		s.path([]int{pathmtuBase, device.MaxPacket - session.Overhead}[how>>2&1])
		kind, elided := payload.Ethernet, how&elide != 0
		if elided {
			kind = payload.EthernetElided
		}
		var plaintexts, frames [][]byte
		for id := uint32(0); len(data) >= 2; id++ {
			size := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			frame := data[2 : 2+size]
			data = data[2+size:]
			frames = append(frames, frame)
			plaintext := trailed(kind, frame)
			if how&fragments == 0 {
				plaintexts = append(plaintexts, plaintext)
			} else {
				plaintexts = append(plaintexts, cut(plaintext, id<<8|uint32(how), max(1, (size+9)/10))...)
			}
		}
		s.send(plaintexts, tos&3)
		s.loopProbes()
		var toDevice []expectation
		to := make([][]expectation, len(s.far))
		for _, frame := range frames {
			in := marked(frame, tos)
			if packet, _ := packetOf(in); in == nil || packet == nil || loopguard.IsProbe(in) || elided && !fitsElided(in) {
				continue
			}
			inside := admitted(in, &s.far[0].change)
			toDevice = append(toDevice, expectation{inside, elided})
			for i, far := range s.far {
				if i > 0 && (s.reaches || far.change.Spoke) {
					to[i] = append(to[i], expectation{emitted(inside, &far.change), elided})
				}
			}
		}
		s.check("the device", s.device, toDevice)
		for i, far := range s.far {
			s.check(fmt.Sprint("peer ", i), far.got, to[i])
		}
		if len(frames) != 1 || len(toDevice) != 1 || toDevice[0].frame == nil || s.proxy && asked(frames[0]) {
			return
		}
		// A single frame that is as it should be, and for all, has come to all.
		h, _ := ethernet.Parse(frames[0])
		if packet, _ := packetOf(frames[0]); len(packet) > tapMTU || h.Dst.LinkLocal() && s.name != "wire" || h.Dst == h.Src {
			return
		}
		if len(s.device) != 1 {
			t.Fatalf("%s: %d frames came out of the device for %x; drops %v", s.name, len(s.device), frames[0], s.n.drops.snapshot())
		}
		for i, far := range s.far {
			if want := min(1, len(to[i])); want == 1 && to[i][0].frame != nil && len(far.got) != 1 {
				t.Fatalf("%s: %d frames came to peer %d for %x; drops %v", s.name, len(far.got), i, frames[0], s.n.drops.snapshot())
			}
		}
		if packets, size := s.in.reassembler.Usage(); packets > 256 || size > 4<<20 {
			t.Fatalf("%d packets and %d bytes are kept", packets, size)
		}
	})
}

// pathmtuBase is a plaintext that every path takes.
const pathmtuBase = 1200

func fitsElided(f []byte) bool {
	_, _, ok := device.ElidedFrame(f)
	return ok
}

// FuzzFrameFromDevice gives the sending worker of switches of all kinds arbitrary frames with arbitrary offloads. What it sends
// can be opened, is what the offload makes of the frame, and no more than each peer's VLANs let through.
func FuzzFrameFromDevice(f *testing.F) {
	settings := fuzzSettings(f)
	super := ipFrame(station(20), station(1), tcpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 4000))
	for i := range settings {
		for _, p := range seedFrames() {
			f.Add(byte(i), byte(i), byte(0), uint16(0), uint16(0), uint16(0), uint16(0), p)
		}
		for how := range byte(4) {
			f.Add(byte(i), how, byte(device.GSOTCPv4), uint16(54), uint16(1000), uint16(34), uint16(16), super)
			f.Add(byte(i), how, byte(device.GSOTCPv4), uint16(58), uint16(1460), uint16(38), uint16(16), tagged(20, super))
			f.Add(byte(i), how, byte(device.GSOTCPv4), uint16(58), uint16(1460), uint16(38), uint16(16), tagged(10, super))
			f.Add(byte(i), how, byte(0), uint16(0), uint16(0), uint16(38), uint16(6), tagged(10, seedFrames()[6]))
			f.Add(byte(i), how, byte(0), uint16(0), uint16(0), uint16(2), uint16(4), tagged(10, seedFrames()[0]))
		}
	}
	f.Fuzz(func(t *testing.T, setting, how, gso byte, headers, segment, start, offset uint16, data []byte) {
		if len(data) == 0 || len(data) > device.MaxPacket {
			return
		}
		s := settings[int(setting)%len(settings)]
		s.begin(t)
		wide := how&1 != 0
		s.path(pathmtuBase)
		if wide {
			s.path(device.MaxPacket)
		}
		o := device.Offload{}
		if how&2 != 0 || gso != 0 {
			o = device.Offload{NeedsChecksum: how&2 != 0, GSO: device.GSO(gso), HeaderLen: headers, SegmentSize: segment,
				ChecksumStart: start, ChecksumOffset: offset}
		}
		w := s.out
		lo := device.Headroom
		hi := lo + copy(w.buf[lo:], data)
		w.packet(lo, hi, o, s.n.clock.now())
		w.batch.flush()
		s.loopProbes()
		if len(s.device) != 0 && !s.proxy {
			t.Fatalf("%s: %x came back", s.name, s.device[0].frame)
		}
		_, whole := tagsOf(data)
		for i, far := range s.far {
			var inside []byte
			if whole {
				inside = emitted(data, &far.change)
			}
			if inside == nil || loopguard.IsProbe(data) {
				if len(far.got) != 0 && !loopguard.IsProbe(far.got[0].frame) {
					t.Fatalf("%s: peer %d has got %x of %x", s.name, i, far.got[0].frame, data)
				}
				continue
			}
			h, _ := ethernet.Parse(data)
			mustCome := !(s.proxy && asked(data)) && h.Dst != h.Src && (!h.Dst.LinkLocal() || s.name == "wire")
			if o == noOffload {
				s.expectWhole(i, inside, mustCome)
				continue
			}
			if !wide {
				continue // cut to what the path takes: that all could be opened and put together is what is asked
			}
			at := o
			moved := uint16(len(data) - len(inside))
			if at.NeedsChecksum {
				at.ChecksumStart -= moved
				if at.HeaderLen != 0 {
					at.HeaderLen -= moved
				}
			}
			buf := slices.Concat(make([]byte, device.Headroom), inside, make([]byte, device.Tailroom))
			var cut device.Segments
			if cut.ResetFor(buf, device.Headroom, device.Headroom+len(inside), at, device.Limits{Frame: true}) != nil {
				if len(far.got) != 0 {
					t.Fatalf("%s: peer %d has got %x of what no kernel could cut", s.name, i, far.got[0].frame)
				}
				continue
			}
			n := 0
			for lo, hi, ok := cut.Next(); ok; lo, hi, ok = cut.Next() {
				if n < len(far.got) && !sameButChecksum(far.got[n], buf[lo:hi]) {
					t.Fatalf("%s: peer %d has got %x, want %x", s.name, i, far.got[n].frame, buf[lo:hi])
				}
				n++
			}
			if len(far.got) != 0 && len(far.got) != n || mustCome && n > 0 && len(far.got) == 0 {
				t.Fatalf("%s: peer %d has got %d frames of %d; drops %v", s.name, i, len(far.got), n, s.n.drops.snapshot())
			}
		}
	})
}

// expectWhole fails unless the far end has got exactly this frame, or nothing where it need not come.
func (s *fuzzSwitch) expectWhole(i int, want []byte, mustCome bool) {
	s.t.Helper()
	got := s.far[i].got
	if len(got) == 0 && !mustCome {
		return
	}
	if len(got) != 1 || !bytes.Equal(got[0].frame, want) {
		s.t.Fatalf("%s: peer %d has got %d frames instead of %x; drops %v", s.name, i, len(got), want, s.n.drops.snapshot())
	}
}

// sameButChecksum compares a frame with what the same offload makes. Where the checksum was elided, it is right, whatever it
// would have become otherwise.
func sameButChecksum(got madeFrame, want []byte) bool {
	if got.elided {
		return sameFrame(got, want, true)
	}
	return bytes.Equal(got.frame, want)
}
