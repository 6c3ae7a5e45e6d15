package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// collector is a queue that cuts what it gets by the reference implementation.
type collector struct {
	offloads Offloads
	frame    bool // frames, otherwise packets
	packets  [][]byte
	writes   []int // packets in each
	last     Offload
	fail     error
	err      error
}

var allOffloads = Offloads{Checksum: true, TCP: true, UDP: true}

func (q *collector) Offloads() Offloads { return q.offloads }

func (q *collector) Read([]byte, bool) (int, int, Offload, error) {
	return 0, 0, Offload{}, ErrWouldBlock
}

func (q *collector) Write(buf []byte, lo, hi int, o Offload) error {
	if q.fail != nil {
		return q.fail
	}
	b := buf[lo:hi]
	if err := q.wellFormed(b, o); err != nil && q.err == nil {
		q.err = fmt.Errorf("%w: %+v %x", err, o, b)
	}
	packets := referenceSegments(b, o)
	if q.frame && o.GSO != GSONone {
		packets, _ = referenceFrames(b, o, Limits{})
	}
	q.packets = append(q.packets, packets...)
	q.writes = append(q.writes, len(packets))
	q.last = o
	for i := lo - Headroom; i < hi; i++ {
		buf[i] = 0xdd // all of it is the queue's to overwrite
	}
	return nil
}

// wellFormed checks what the kernel needs of a super-packet: Segments accepts it, its IPv4 header and pseudo-header
// checksums are right, and the hints too.
func (q *collector) wellFormed(b []byte, o Offload) error {
	if o == (Offload{}) {
		return nil
	}
	if o.GSO == GSONone {
		right := bytes.Clone(b)
		finish := FinishElided
		if q.frame {
			finish = FinishElidedFrame
		}
		if want, ok := finish(right); !ok || want != o || !bytes.Equal(right, b) {
			return errors.New("a single packet not made as FinishElided does")
		}
		return nil
	}
	if o.GSO == GSOUDP && !q.offloads.UDP || o.GSO != GSOUDP && !q.offloads.TCP {
		return errors.New("offload not asked for")
	}
	buf, lo, hi := placed(b)
	var s Segments
	if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: q.frame}); err != nil {
		return err
	}
	if s.headerLen != int(o.HeaderLen) || s.Count() < 2 {
		return errors.New("wrong hints")
	}
	proto := byte(protoTCP)
	if o.GSO == GSOUDP {
		proto = protoUDP
	}
	right, n := bytes.Clone(b), 0
	if q.frame {
		n = linkBytes(b)
	}
	fixPartial(right[n:], int(o.ChecksumStart)-n, proto)
	if !bytes.Equal(b, right) {
		return errors.New("wrong checksums")
	}
	return nil
}

// feed gives packets to a Coalescer in slots, as the engine does, each in a slot larger than need be and full of rubbish.
func feed(t testing.TB, c *Coalescer, packets ...[]byte) {
	t.Helper()
	feedAs(t, c, false, packets...)
}

// feedAs is feed for packets with or without their transport checksums.
func feedAs(t testing.TB, c *Coalescer, elided bool, packets ...[]byte) {
	t.Helper()
	q, _ := c.queue.(*collector)
	for _, p := range packets {
		put(c, p)
		if lost, err := commitTo(c, q != nil && q.frame, elided)(len(p)); lost != 0 || err != nil {
			t.Fatalf("lost %d: %v", lost, err)
		}
	}
}

// commitTo is the method for such packets.
func commitTo(c *Coalescer, frame, elided bool) func(n int) (lost int, err error) {
	switch {
	case frame && elided:
		return c.CommitFrameElided
	case frame:
		return c.CommitFrame
	case elided:
		return c.CommitElided
	}
	return c.Commit
}

func put(c *Coalescer, p []byte) {
	slot := c.Slot(min((len(p)+15)&^15, MaxPacket))
	for i := range slot {
		slot[i] = 0xa5
	}
	copy(slot, p)
}

func flush(t testing.TB, c *Coalescer) {
	t.Helper()
	if lost, err := c.Flush(); lost != 0 || err != nil {
		t.Fatalf("lost %d: %v", lost, err)
	}
}

// train is count packets of size bytes of payload following p.
func (p packet) train(count, size int) [][]byte {
	var out [][]byte
	data := pattern(count * size)
	for i := range count {
		next := p
		next.payload = data[i*size : (i+1)*size]
		next.seq += uint32(i * size)
		next.id += uint16(i)
		out = append(out, next.build())
	}
	return out
}

func TestCoalesce(t *testing.T) {
	tcp4 := packet{flags: 0x10, seq: 0xffffff00, ack: 5, window: 9, id: 0xfffe, ttl: 64, tos: 2}
	tcp6 := packet{v6: true, flags: 0x10, seq: 1, options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}}
	udp4 := packet{udp: true, id: 5}
	udp6 := packet{udp: true, v6: true}
	// second returns the same train, whose second packet differs as changed by f.
	second := func(p packet, f func(p *packet)) [][]byte {
		out := p.train(2, 100)
		p.seq, p.id, p.payload = p.seq+100, p.id+1, pattern(200)[100:]
		f(&p)
		out[1] = p.build()
		return out
	}
	spoil := func(packets [][]byte, i, at int) [][]byte {
		packets[i][at] ^= 1
		return packets
	}
	refix := func(packets [][]byte, i int, transport int, f func(b []byte)) [][]byte {
		f(packets[i])
		fixChecksums(packets[i], transport, protoTCP)
		return packets
	}
	join := func(lists ...[][]byte) (all [][]byte) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	reserved := func(b []byte) { b[6] |= 0x80 }
	// What follows a shorter packet is next in sequence, but no segment of the same super-packet.
	after := tcp4
	after.seq, after.id = tcp4.seq+150, tcp4.id+2
	resumed := after.train(2, 50)
	var udps [][]byte
	for i, size := range []int{100, 50, 50} {
		p := udp4
		p.id, p.payload = p.id+uint16(i), pattern(size)
		udps = append(udps, p.build())
	}
	for _, test := range []struct {
		name    string
		packets [][]byte
		writes  []int
	}{
		{"tcp4", tcp4.train(10, 1400), []int{10}},
		{"tcp6", tcp6.train(10, 1400), []int{10}},
		{"udp4", udp4.train(10, 1200), []int{10}},
		{"udp6", udp6.train(10, 1200), []int{10}},
		{"single", tcp4.train(1, 1400), []int{1}},
		{"full", tcp4.train(100, 1400), []int{46, 46, 8}},
		{"payload shorter than headers", tcp6.train(300, 3), []int{300}},
		{"payload of one byte", udp6.train(66, 1), []int{64, 2}},
		{"many datagrams", udp4.train(130, 100), []int{64, 64, 2}},
		{"push ends", join(second(tcp4, func(p *packet) { p.flags = 0x18 }), tcp4.train(1, 5)), []int{2, 1}},
		{"push first", second(packet{flags: 0x18}, func(*packet) {}), []int{1, 1}},
		{"shorter ends", join(second(tcp4, func(p *packet) { p.payload = p.payload[:99] }), tcp4.train(1, 100)), []int{2, 1}},
		{"udp shorter ends", join(second(udp4, func(p *packet) { p.payload = p.payload[:9] }), udp4.train(1, 9)), []int{2, 1}},
		{"goes on after a shorter one", join(second(tcp4, func(p *packet) { p.payload = p.payload[:50] }), resumed), []int{2, 2}},
		{"udp goes on after a shorter one", [][]byte{udps[0], udps[1], udps[2]}, []int{2, 1}},
		{"longer", second(tcp4, func(p *packet) { p.payload = pattern(101) }), []int{1, 1}},
		{"sequence gap", second(tcp4, func(p *packet) { p.seq++ }), []int{1, 1}},
		{"repeated", join(tcp4.train(1, 100), tcp4.train(1, 100)), []int{1, 1}},
		{"acknowledgement", second(tcp4, func(p *packet) { p.ack++ }), []int{1, 1}},
		{"window", second(tcp4, func(p *packet) { p.window++ }), []int{1, 1}},
		{"fin", second(tcp4, func(p *packet) { p.flags |= 1 }), []int{1, 1}},
		{"cwr", second(tcp4, func(p *packet) { p.flags |= 0x80 }), []int{1, 1}},
		{"ece on all", packet{flags: 0x50}.train(3, 100), []int{1, 1, 1}},
		{"no payload", packet{flags: 0x10}.train(2, 0), []int{1, 1}},
		{"options", second(tcp6, func(p *packet) { p.options = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 3} }), []int{1, 1}},
		{"fewer options", second(tcp6, func(p *packet) { p.options = p.options[:8] }), []int{1, 1}},
		{"flow", second(tcp4, func(p *packet) { p.flow++ }), []int{1, 1}},
		{"flow 6", second(tcp6, func(p *packet) { p.flow++ }), []int{1, 1}},
		{"udp flow", second(udp4, func(p *packet) { p.flow++ }), []int{1, 1}},
		{"version", second(tcp4, func(p *packet) { p.v6 = true }), []int{1, 1}},
		{"protocol", second(tcp4, func(p *packet) { p.udp = true }), []int{1, 1}},
		{"ttl", second(tcp4, func(p *packet) { p.ttl-- }), []int{1, 1}},
		{"hop limit", second(udp6, func(p *packet) { p.ttl-- }), []int{1, 1}},
		{"tos", second(tcp4, func(p *packet) { p.tos++ }), []int{1, 1}},
		{"traffic class", second(tcp6, func(p *packet) { p.tos++ }), []int{1, 1}},
		{"df", second(tcp4, func(p *packet) { p.noDF = true }), []int{1, 1}},
		{"id", second(tcp4, func(p *packet) { p.id-- }), []int{1, 1}},
		{"udp id", second(udp4, func(p *packet) { p.id-- }), []int{1, 1}},
		{"without df", packet{flags: 0x10, noDF: true}.train(3, 10), []int{3}},
		{"flow label", refix(tcp6.train(2, 10), 1, ipv6Header, func(b []byte) { b[3] = 7 }), []int{1, 1}},
		{"more fragments", refix(tcp4.train(2, 10), 0, ipv4Header, func(b []byte) { b[6] = 0x20 }), []int{1, 1}},
		{"last fragment", refix(tcp4.train(2, 10), 1, ipv4Header, func(b []byte) { b[7] = 1 }), []int{1, 1}},
		{"reserved flag", refix(refix(tcp4.train(2, 10), 0, ipv4Header, reserved), 1, ipv4Header, reserved), []int{1, 1}},
		{"urgent pointer", refix(tcp4.train(2, 10), 1, ipv4Header, func(b []byte) { b[39] = 1 }), []int{1, 1}},
		{"reserved bits", refix(tcp4.train(2, 10), 1, ipv4Header, func(b []byte) { b[32] |= 1 }), []int{1, 1}},
		{"data offset", refix(tcp4.train(2, 10), 1, ipv4Header, func(b []byte) { b[32] = 0x40 }), []int{1, 1}},
		{"header behind the end", refix(tcp4.train(2, 10), 1, ipv4Header, func(b []byte) { b[32] = 0xf0 }), []int{1, 1}},
		{"bad first checksum", spoil(tcp4.train(3, 100), 0, 50), []int{1, 2}},
		{"bad second checksum", spoil(tcp4.train(3, 100), 1, 50), []int{1, 1, 1}},
		{"bad third checksum", spoil(tcp6.train(3, 100), 2, 99), []int{2, 1}},
		{"bad udp checksum", spoil(udp6.train(3, 100), 1, 99), []int{1, 1, 1}},
		{"bad header checksum", spoil(tcp4.train(3, 100), 1, 10), []int{1, 1, 1}},
		{"bad first header checksum", spoil(tcp4.train(3, 100), 0, 10), []int{1, 2}},
		{"total length", spoil(tcp4.train(2, 100), 1, 3), []int{1, 1}},
		{"payload length", spoil(tcp6.train(2, 100), 1, 5), []int{1, 1}},
		{"udp length", spoil(udp6.train(2, 100), 1, 45), []int{1, 1}},
		{"other things", [][]byte{{0}, {0x45}, {0x60, 0}, bytes.Repeat([]byte{0x45}, 30), make([]byte, MaxPacket)}, []int{1, 1, 1, 1, 1}},
		{"other between", join(tcp4.train(3, 100), [][]byte{make([]byte, 20)}, udp6.train(3, 10), [][]byte{{1}}), []int{3, 1, 3, 1}},
		{"alternating", join(tcp4.train(3, 100), udp4.train(3, 1000), tcp6.train(3, 10), udp6.train(2, 7)), []int{3, 3, 3, 2}},
	} {
		for _, link := range framings {
			t.Run(test.name+" "+link.name, func(t *testing.T) {
				q := &collector{offloads: allOffloads, frame: link.frame}
				c := NewCoalescer(q)
				packets := link.wrapAll(test.packets)
				for range 3 { // once more after use
					q.packets, q.writes = nil, nil
					feed(t, c, packets...)
					flush(t, c)
					if q.err != nil {
						t.Error(q.err)
					}
					if err := samePackets(q.packets, packets); err != nil {
						t.Fatal(err)
					}
					if fmt.Sprint(q.writes) != fmt.Sprint(test.writes) {
						t.Errorf("writes of %v packets, want %v", q.writes, test.writes)
					}
				}
			})
		}
	}
}

// finished is the packet that one with an elided checksum stands for, in one spelling.
func finished(b []byte) []byte {
	start, offset, ok := Elided(b)
	if !ok {
		return b
	}
	proto := byte(protoTCP)
	if offset == udpChecksum {
		proto = protoUDP
	}
	b = bytes.Clone(b)
	header := bytes.Clone(b[:start])
	fixChecksums(b, start, proto)
	copy(b, header) // a wrong one stays wrong
	return oneSpelling(b)
}

// oneSpelling writes a TCP checksum of ffff as 0000, which is the same: which it is depends on who calculates it.
func oneSpelling(b []byte) []byte {
	start, offset, ok := Elided(b)
	if !ok || offset != tcpChecksum || binary.BigEndian.Uint16(b[start+offset:]) != 0xffff {
		return b
	}
	b = bytes.Clone(b)
	clear(b[start+offset:][:2])
	return b
}

// Zero can be written as 0000 and as ffff. A packet that comes with the spelling Segments would not write is left alone,
// and so is a UDP packet without a checksum.
func TestCoalesceChecksumSpellings(t *testing.T) {
	// zeroed returns a train of two, the first of which has a checksum of zero at the offset at, spelled as given; adjust
	// moves what was complemented into what the checksum covers.
	zeroed := func(p packet, at int, spelling uint16, adjust func(p *packet, sum uint16)) [][]byte {
		p.payload = make([]byte, 100)
		adjust(&p, binary.BigEndian.Uint16(p.build()[at:]))
		first := p.build()
		if sum := binary.BigEndian.Uint16(first[at:]); sum != 0 && sum != 0xffff {
			t.Fatalf("the test's packet has the checksum %04x", sum)
		}
		binary.BigEndian.PutUint16(first[at:], spelling)
		p.seq, p.id = p.seq+100, p.id+1
		return [][]byte{first, p.build()}
	}
	payload := func(p *packet, sum uint16) { binary.BigEndian.PutUint16(p.payload, sum) }
	id := func(p *packet, sum uint16) { p.id = sum }
	none := packet{udp: true}.train(2, 100)
	for _, b := range none {
		clear(b[ipv4Header+udpChecksum:][:2])
	}
	tcp, udp := packet{flags: 0x10}, packet{udp: true}
	for _, test := range []struct {
		name    string
		packets [][]byte
		writes  string
	}{
		{"no udp", none, "[1 1]"},
		{"tcp 0000", zeroed(tcp, ipv4Header+tcpChecksum, 0, payload), "[2]"},
		{"tcp ffff", zeroed(tcp, ipv4Header+tcpChecksum, 0xffff, payload), "[1 1]"},
		{"udp 0000", zeroed(udp, ipv4Header+udpChecksum, 0, payload), "[1 1]"},
		{"udp ffff", zeroed(udp, ipv4Header+udpChecksum, 0xffff, payload), "[2]"},
		{"header 0000", zeroed(tcp, 10, 0, id), "[2]"},
		{"header ffff", zeroed(tcp, 10, 0xffff, id), "[1 1]"},
	} {
		for _, link := range framings {
			t.Run(test.name+" "+link.name, func(t *testing.T) {
				q := &collector{offloads: allOffloads, frame: link.frame}
				c := NewCoalescer(q)
				packets := link.wrapAll(test.packets)
				feed(t, c, packets...)
				flush(t, c)
				if err := samePackets(q.packets, packets); err != nil || fmt.Sprint(q.writes) != test.writes {
					t.Errorf("writes of %v, want %v; %v", q.writes, test.writes, err)
				}
			})
		}
	}
}

func TestCoalesceElided(t *testing.T) {
	tcp4 := packet{flags: 0x10, seq: 0xffffff00, ack: 5, window: 9, id: 0xfffe, ttl: 64, tos: 2}
	tcp6 := packet{v6: true, flags: 0x10, seq: 1, options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}}
	udp4 := packet{udp: true, id: 5}
	spoil := func(packets [][]byte, i, at int) [][]byte {
		packets[i][at] ^= 1
		return packets
	}
	const all = "eeeeeeeeee"
	for _, test := range []struct {
		name    string
		packets [][]byte
		elided  string // e: the packet's transport checksum is
		writes  []int
	}{
		{"tcp4", tcp4.train(10, 1400), all, []int{10}},
		{"tcp6", tcp6.train(10, 1400), all, []int{10}},
		{"udp4", udp4.train(10, 1200), all, []int{10}},
		{"udp6", packet{udp: true, v6: true}.train(10, 1200), all, []int{10}},
		{"single", tcp4.train(1, 100), all, []int{1}},
		{"single udp6", packet{udp: true, v6: true}.train(1, 99), all, []int{1}},
		{"no payload", tcp4.train(2, 0), all, []int{1, 1}},
		{"syn", packet{flags: 0x02}.train(1, 0), all, []int{1}},
		{"push", packet{flags: 0x18}.train(2, 10), all, []int{1, 1}},
		{"options", [][]byte{withOptions(tcp4.build(), 2)}, all, []int{1}},
		{"mixed", tcp4.train(6, 100), ".ee..e", []int{6}},
		{"mixed udp", udp4.train(4, 100), "e..e", []int{4}},
		{"header checksum", spoil(tcp4.train(3, 100), 1, 10), all, []int{1, 1, 1}},
		{"first header checksum", spoil(tcp4.train(3, 100), 0, 10), all, []int{1, 2}},
		// What is not elided is verified still, before and behind.
		{"bad one behind", spoil(tcp4.train(3, 100), 1, 60), "e.e", []int{1, 1, 1}},
		{"bad one in front", spoil(tcp4.train(3, 100), 0, 60), ".ee", []int{1, 2}},
		{"bad udp behind", spoil(udp4.train(3, 100), 2, 60), "ee.", []int{2, 1}},
		// What nobody may elide is left as it is.
		{"extension header", packet{v6: true, extension: 0, extensions: []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}}.train(2, 10), all, []int{1, 1}},
		{"longer than its length", spoil(tcp6.train(2, 10), 0, 5), all, []int{1, 1}},
		{"other things", [][]byte{{0}, {0x45}, {0x60, 0}, bytes.Repeat([]byte{0x45}, 30), make([]byte, MaxPacket)}, all, []int{1, 1, 1, 1, 1}},
	} {
		for _, field := range []byte{0, 0xff} { // what stands in an elided field is of no account
			for _, link := range framings {
				t.Run(fmt.Sprintf("%s %02x %s", test.name, field, link.name), func(t *testing.T) {
					q := &collector{offloads: allOffloads, frame: link.frame}
					c := NewCoalescer(q)
					var want [][]byte
					for i, p := range test.packets {
						p = bytes.Clone(p)
						elided := test.elided[i] == 'e'
						if start, offset, ok := Elided(p); ok && elided {
							p[start+offset], p[start+offset+1] = field, field
							want = append(want, link.wrap(finished(p)))
						} else {
							want = append(want, link.wrap(p))
						}
						feedAs(t, c, elided, link.wrap(p))
					}
					flush(t, c)
					n := link.length()
					for i, p := range q.packets {
						q.packets[i] = append(bytes.Clone(p[:n]), oneSpelling(p[n:])...)
					}
					if err := samePackets(q.packets, want); err != nil || q.err != nil {
						t.Fatal(err, q.err)
					}
					if fmt.Sprint(q.writes) != fmt.Sprint(test.writes) {
						t.Errorf("writes of %v packets, want %v", q.writes, test.writes)
					}
				})
			}
		}
	}
}

// An elided packet that stays alone is the receiving kernel's to finish, also where super-packets are not wanted.
func TestCoalesceElidedAlone(t *testing.T) {
	want := packet{flags: 0x10}.train(1, 100)[0]
	for _, offloads := range []Offloads{allOffloads, {}} {
		for _, link := range framings {
			q := &collector{offloads: offloads, frame: link.frame}
			c := NewCoalescer(q)
			feedAs(t, c, true, link.wrap(elide(t, want)))
			flush(t, c)
			start := uint16(link.length() + 20)
			if q.last != (Offload{NeedsChecksum: true, ChecksumStart: start, ChecksumOffset: 16}) || q.err != nil {
				t.Errorf("offload %+v: %v", q.last, q.err)
			}
			if err := samePackets(q.packets, [][]byte{link.wrap(want)}); err != nil {
				t.Error(err)
			}
		}
	}
}

// Whole packets are written as they are, in their turn, even if they look like a part of a flow.
func TestCoalesceWhole(t *testing.T) {
	packets := packet{flags: 0x10}.train(6, 7)
	down := errors.New("down")
	q := &collector{offloads: allOffloads}
	c := NewCoalescer(q)
	feed(t, c, packets[:2]...)
	for _, p := range packets[2:4] {
		put(c, p)
		if lost, err := c.CommitWhole(len(p), Offload{}); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
	}
	put(c, packets[0])
	if lost, err := c.CommitWhole(0, Offload{}); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	feed(t, c, packets[4:]...)
	elided := elide(t, packets[0])
	o, _ := FinishElided(elided)
	put(c, elided)
	if lost, err := c.CommitWhole(len(elided), o); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	flush(t, c)
	if err := samePackets(q.packets, append(packets, packets[0])); err != nil || fmt.Sprint(q.writes) != "[2 1 1 2 1]" {
		t.Error(q.writes, err)
	}
	feed(t, c, packets[:2]...)
	put(c, packets[2])
	q.fail = down
	if lost, err := c.CommitWhole(len(packets[2]), Offload{}); lost != 3 || err != down {
		t.Errorf("lost %d: %v", lost, err)
	}
}

func TestCoalesceOffloads(t *testing.T) {
	for _, test := range []struct {
		offloads Offloads
		writes   string
	}{
		{Offloads{}, "[1 1 1 1]"},
		{Offloads{TCP: true, UDP: true}, "[1 1 1 1]"},
		{Offloads{Checksum: true, TCP: true}, "[2 1 1]"},
		{Offloads{Checksum: true, UDP: true}, "[1 1 2]"},
	} {
		q := &collector{offloads: test.offloads}
		c := NewCoalescer(q)
		feed(t, c, packet{flags: 0x10}.train(2, 100)...)
		feed(t, c, packet{udp: true}.train(2, 100)...)
		flush(t, c)
		if fmt.Sprint(q.writes) != test.writes {
			t.Errorf("%+v: writes of %v, want %v", test.offloads, q.writes, test.writes)
		}
	}
	c := NewCoalescer(struct{ Queue }{&collector{}}) // no Offloader
	if c.tcp || c.udp {
		t.Error("merges for a queue that takes nothing")
	}
}

func TestCoalesceDiscard(t *testing.T) {
	packets := packet{flags: 0x10}.train(20, 7)
	q := &collector{offloads: allOffloads}
	c := NewCoalescer(q)
	for i, p := range packets {
		put(c, make([]byte, i*5)) // a decryption that failed
		if i%2 == 0 {
			c.Discard()
		}
		if i%3 == 0 {
			put(c, p)
			if lost, err := c.Commit(0); lost != 0 || err != nil {
				t.Fatal(lost, err)
			}
		}
		feed(t, c, p)
	}
	put(c, make([]byte, 100))
	flush(t, c)
	c.Discard()
	flush(t, c)
	if err := samePackets(q.packets, packets); err != nil {
		t.Error(err)
	}
	if len(q.writes) != 1 {
		t.Errorf("writes of %v packets", q.writes)
	}
}

func TestCoalesceLost(t *testing.T) {
	down := errors.New("down")
	q := &collector{offloads: allOffloads, fail: down}
	c := NewCoalescer(q)
	packets := packet{flags: 0x10}.train(5, 100)
	feed(t, c, packets...)
	if lost, err := c.Flush(); lost != 5 || err != down {
		t.Errorf("flush lost %d: %v", lost, err)
	}
	feed(t, c, packets[:2]...)
	put(c, []byte{1})
	if lost, err := c.Commit(1); lost != 3 || err != down {
		t.Errorf("commit lost %d: %v", lost, err)
	}
	feed(t, c, packets[0])
	put(c, packets[2])
	if lost, err := c.Commit(len(packets[2])); lost != 1 || err != down {
		t.Errorf("commit lost %d: %v", lost, err)
	}
	q.fail = nil
	flush(t, c)
	if err := samePackets(q.packets, packets[2:3]); err != nil {
		t.Error(err)
	}
}

// Large packets and slots make the open super-packet move.
func TestCoalesceRoom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, frame := range []bool{false, true} {
		q := &collector{offloads: allOffloads, frame: frame}
		c := NewCoalescer(q)
		var want [][]byte
		for range 300 {
			p := packet{flags: 0x10, flow: byte(r.IntN(3)), v6: r.IntN(2) == 0, udp: r.IntN(4) == 0}
			link := framings[0]
			if frame {
				link = framings[1+r.IntN(4)]
			}
			for _, b := range p.train(1+r.IntN(5), 1+r.IntN([]int{100, 1400, 9000, 60000}[r.IntN(4)])) {
				b = link.wrap(b)
				slot := c.Slot(len(b) + r.IntN(MaxPacket-len(b)+1))
				for i := range slot {
					slot[i] = 0xa5
				}
				copy(slot, b)
				if lost, err := commitTo(c, frame, false)(len(b)); lost != 0 || err != nil {
					t.Fatal(lost, err)
				}
				want = append(want, b)
			}
		}
		flush(t, c)
		if err := samePackets(q.packets, want); err != nil {
			t.Error(err)
		}
		if q.err != nil {
			t.Error(q.err)
		}
	}
}

func TestCoalesceMisuse(t *testing.T) {
	for name, f := range map[string]func(c *Coalescer){
		"slot":            func(c *Coalescer) { c.Slot(MaxPacket + 1) },
		"negative slot":   func(c *Coalescer) { c.Slot(-1) },
		"commit too much": func(c *Coalescer) { c.Slot(10); c.Commit(11) },
		"commit twice":    func(c *Coalescer) { c.Slot(10); c.Commit(5); c.Commit(5) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(NewCoalescer(&collector{}))
		})
	}
}

// Cutting a super-packet and merging the pieces gives the super-packet again, and cutting that the same pieces.
func TestSegmentsCoalesceInverse(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		p := packet{
			v6: r.IntN(2) == 0, udp: r.IntN(2) == 0, tos: byte(r.Uint32()), ttl: byte(r.Uint32()), id: uint16(r.Uint32()),
			noDF: r.IntN(2) == 0, seq: r.Uint32(), ack: r.Uint32(), flags: flagACK | byte(r.IntN(2))*flagPSH,
			window: uint16(r.Uint32()), options: make([]byte, 4*r.IntN(11)),
		}
		size := 1 + r.IntN(1500)
		p.payload = make([]byte, 1+r.IntN(min(60000, size*maxUDPSegments)))
		for i := range p.payload {
			p.payload[i] = byte(r.Uint32())
		}
		link := framings[r.IntN(len(framings))]
		super, o := link.super(p, size)
		if (len(p.payload)+size-1)/size > maxSegments {
			continue
		}
		buf, lo, hi := placed(super)
		var s Segments
		if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); err != nil {
			t.Fatal(err)
		}
		pieces := cut(&s, buf)
		q := &collector{offloads: allOffloads, frame: link.frame}
		c := NewCoalescer(q)
		feed(t, c, pieces...)
		flush(t, c)
		if q.err != nil {
			t.Error(q.err)
		}
		if err := samePackets(q.packets, pieces); err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		if len(q.writes) != 1 {
			t.Errorf("%d pieces of %d bytes were written as %v", len(pieces), size, q.writes)
		}
		if o.SegmentSize = uint16(size); len(pieces) > 1 && q.last != o {
			t.Errorf("offload %+v, want %+v", q.last, o)
		}
	}
}

func TestCoalesceAllocate(t *testing.T) {
	for _, link := range framings {
		for _, elided := range []bool{false, true} {
			packets := link.wrapAll(packet{flags: 0x10}.train(50, 1400))
			c := NewCoalescer(discard{})
			commit := commitTo(c, link.frame, elided)
			if n := testing.AllocsPerRun(100, func() {
				for _, p := range packets {
					put(c, p)
					if _, err := commit(len(p)); err != nil {
						panic(err)
					}
				}
				if _, err := c.Flush(); err != nil {
					panic(err)
				}
			}); n != 0 {
				t.Errorf("%s: %v allocations", link.name, n)
			}
		}
	}
}

type discard struct{}

func (discard) Offloads() Offloads                           { return allOffloads }
func (discard) Read([]byte, bool) (int, int, Offload, error) { return 0, 0, Offload{}, ErrWouldBlock }
func (discard) Write(_ []byte, _, _ int, _ Offload) error    { return nil }

// FuzzCoalesce reads its input as a list of packets, which are near enough to each other to be merged, and discards. The
// packets whose bit in elided is set come as if their transport checksum were elided.
func FuzzCoalesce(f *testing.F) {
	f.Add([]byte("\x00\x20\x00\x00\x00\x20\x00\x00\x00\x20\x00\x00"), uint64(0x5))
	f.Add([]byte("\x01\x20\x00\x00\x01\x20\x00\x00\x05\x20\x00\x00\x01\x07\x00\x00"), uint64(0x5))
	f.Add([]byte("\x02\x20\x00\x00\x02\x20\x20\x04\x02\x20\x30\x80\x02\x20\x00\x00"), uint64(0x5))
	f.Add([]byte("\x03\x02\x00\x00\x03\x02\x00\x00\x13\x20\x00\x00\x23\x02\x00\x00\x33\x02\x00\x00"), uint64(0x5))
	f.Add([]byte("\x00\x20\x00\x00\x00\x20\x00\x00\x00\x20\x00\x00"), uint64(0))
	f.Add([]byte("\x40\x18\x45\x00\x00\x18 arbitrary bytes of a packet"), uint64(0x5))
	f.Fuzz(func(t *testing.T, in []byte, elided uint64) {
		fuzzCoalesce(t, in, elided, func(int) framing { return framings[0] })
	})
}

// fuzzCoalesce is what both fuzz targets do. linkOf says what the packet numbered i is behind: it is the same for all whether
// that is a frame.
func fuzzCoalesce(t *testing.T, in []byte, elided uint64, linkOf func(i int) framing) {
	frame := linkOf(0).frame
	q := &collector{offloads: allOffloads, frame: frame}
	c := NewCoalescer(q)
	var want [][]byte
	var seqs [4]uint32
	var ids [4]uint16
	lost := 0
	for len(in) >= 4 && len(want) < 200 {
		op, size, at, value := in[0], int(in[1]), int(in[2]), in[3]
		in = in[4:]
		var b []byte
		if op&0x40 != 0 { // the packet is in the input
			size = min(size, len(in))
			b, in = bytes.Clone(in[:size]), in[size:]
		} else {
			i := op & 3
			p := packet{v6: op&1 != 0, udp: op&2 != 0, flags: flagACK, seq: seqs[i], id: ids[i]}
			if op&4 != 0 {
				p.flags |= flagPSH
			}
			if op&8 != 0 {
				size *= 97
			}
			p.payload = make([]byte, size)
			for j := range p.payload {
				p.payload[j] = byte(len(want) + j)
			}
			seqs[i] += uint32(size)
			ids[i]++
			link := linkOf(len(want))
			b = link.wrap(p.build())
			if value != 0 {
				b[at%len(b)] ^= value
				header, proto := ipv4Header, byte(protoTCP)
				if p.v6 {
					header = ipv6Header
				}
				if p.udp {
					proto = protoUDP
				}
				ip := b[link.length():]
				if op&0x80 != 0 && ip[0]>>4 == 4 == !p.v6 && int(ip[0]&15) >= 5 && int(ip[0]&15)*4 <= len(ip) {
					fixChecksums(ip, header, proto)
				}
			}
		}
		put(c, b)
		if op&0x30 == 0x10 {
			c.Discard()
			continue
		}
		if op&0x30 == 0x20 {
			put(c, make([]byte, size)) // dropped by asking for the next
			put(c, b)
		}
		n, err := commitTo(c, frame, elided>>(len(want)%64)&1 != 0)(len(b))
		if err != nil {
			t.Fatal(err)
		}
		lost += n
		if len(b) > 0 {
			want = append(want, b)
		}
		if op&0x30 == 0x30 {
			flush(t, c)
		}
	}
	flush(t, c)
	if q.err != nil {
		t.Fatal(q.err)
	}
	for i := range min(len(want), len(q.packets)) {
		if elided>>(i%64)&1 != 0 {
			n := 0
			if frame {
				if _, _, ok := ElidedFrame(want[i]); !ok {
					continue
				}
				n = linkBytes(want[i])
			}
			want[i] = append(bytes.Clone(want[i][:n]), finished(want[i][n:])...)
			q.packets[i] = append(bytes.Clone(q.packets[i][:min(n, len(q.packets[i]))]), oneSpelling(q.packets[i][min(n, len(q.packets[i])):])...)
		}
	}
	if err := samePackets(q.packets, want); err != nil || lost != 0 {
		t.Fatalf("lost %d, writes of %v: %v", lost, q.writes, err)
	}
}

func BenchmarkCoalesce(b *testing.B) {
	for _, link := range []framing{framings[0], framings[1], framings[4]} {
		for _, udp := range []bool{false, true} {
			for _, elided := range []bool{false, true} {
				name := map[bool]string{false: "TCP", true: "UDP"}[udp] + map[bool]string{false: "", true: "Elided"}[elided]
				if link.frame {
					name += "/" + link.name
				}
				b.Run(name, func(b *testing.B) {
					packets := link.wrapAll(packet{udp: udp, flags: 0x10, options: make([]byte, 12)}.train(46, 1388))
					c := NewCoalescer(discard{})
					commit, total := commitTo(c, link.frame, elided), 0
					for _, p := range packets {
						total += len(p)
					}
					b.SetBytes(int64(total))
					for b.Loop() {
						for _, p := range packets {
							copy(c.Slot(len(p)), p) // stands for the decryption
							if _, err := commit(len(p)); err != nil {
								b.Fatal(err)
							}
						}
						if _, err := c.Flush(); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(float64(total)/1024), "ns/KiB")
				})
			}
		}
	}
}
