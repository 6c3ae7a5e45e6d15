package device

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// framing is what the tests put packets behind: nothing, or an Ethernet header.
type framing struct {
	name  string
	frame bool
	tags  []uint16
}

var framings = []framing{
	{name: "packet"},
	{name: "untagged", frame: true},
	{name: "tagged", frame: true, tags: []uint16{0x8100}},
	{name: "provider", frame: true, tags: []uint16{0x88a8}},
	{name: "two tags", frame: true, tags: []uint16{0x88a8, 0x8100}},
}

// length is that of the link header.
func (l framing) length() int {
	if !l.frame {
		return 0
	}
	return 14 + 4*len(l.tags)
}

// wrap puts an IP packet, or what is none, behind the header. What gets too long is cut off.
func (l framing) wrap(b []byte) []byte {
	if !l.frame {
		return b
	}
	version := byte(0)
	if len(b) > 0 {
		version = b[0] >> 4
	}
	f := append(ethernet(l.tags, version), b...)
	if version != 4 && version != 6 {
		binary.BigEndian.PutUint16(f[l.length()-2:], 0x0806)
	}
	return f[:min(len(f), MaxPacket)]
}

func (l framing) wrapAll(packets [][]byte) (out [][]byte) {
	for _, b := range packets {
		out = append(out, l.wrap(b))
	}
	return out
}

// super is p's super-packet behind the header. Payload that gets too long is cut off.
func (l framing) super(p packet, segment int) ([]byte, Offload) {
	p.payload = p.payload[:min(len(p.payload), MaxPacket-l.length()-40)]
	b, o := p.super(segment)
	return l.wrap(b), l.offload(o)
}

// offload is o for the frame, given that for the packet.
func (l framing) offload(o Offload) Offload {
	if o != (Offload{}) {
		o.ChecksumStart += uint16(l.length())
		o.HeaderLen += uint16(l.length())
	}
	return o
}

// limits are l for the frame, given those for the packet.
func (l framing) limits(limits Limits) Limits {
	limits.Frame = l.frame
	if limits.MaxPacket > 0 {
		limits.MaxPacket += l.length()
	}
	return limits
}

// linkBytes is where in a frame the packet starts.
func linkBytes(frame []byte) int {
	n := 14
	for ; n < 22 && n+4 <= len(frame) && slices.Contains([]uint16{0x8100, 0x88a8}, binary.BigEndian.Uint16(frame[n-2:])); n += 4 {
	}
	return n
}

// referenceFrames is referenceFor for frames.
func referenceFrames(b []byte, o Offload, l Limits) (packets [][]byte, elided bool) {
	n := linkBytes(b)
	ipType := []uint16{4: 0x0800, 6: 0x86dd}
	isIP := len(b) > n && b[n]>>4 <= 6 && ipType[b[n]>>4] == binary.BigEndian.Uint16(b[n-2:]) && int(o.ChecksumStart) >= n
	if !isIP {
		return referenceSegments(b, o), false
	}
	inner := o
	inner.ChecksumStart -= uint16(n)
	if l.MaxPacket > 0 {
		l.MaxPacket = max(1, l.MaxPacket-n) // 1: too small to cut to
	}
	packets, elided = referenceFor(b[n:], inner, l)
	for i, p := range packets {
		packets[i] = append(bytes.Clone(b[:n]), p...)
	}
	return packets, elided
}

// reference is referenceFor, or referenceFrames.
func (l framing) reference(b []byte, o Offload, limits Limits) (packets [][]byte, elided bool) {
	if l.frame {
		return referenceFrames(b, o, limits)
	}
	return referenceFor(b, o, limits)
}

// A frame of no IP, or of more tags than are looked behind, gets its checksum where the offload says; one with anything
// behind its packet is handed out whole, whatever the limits.
func TestSegmentsFrameWhole(t *testing.T) {
	tcp := packet{payload: pattern(3000), flags: 0x10}
	partial, _ := tcp.super(0)
	other := append([]byte("targetsource\x88\x47"), partial...)
	threeTags := append(ethernet([]uint16{0x88a8, 0x8100, 0x8100}, 4), partial...)
	padded := append(append(ethernet(nil, 4), partial...), 0, 0, 1)
	fragment := append(ethernet(nil, 4), partial...)
	fragment[20] |= 0x20
	mistaken := append(ethernet(nil, 6), partial...)
	arp := append([]byte("targetsource\x08\x06"), pattern(46)...)
	for _, test := range []struct {
		name  string
		frame []byte
		start int // 0: finished
		want  error
	}{
		{"no IP", other, 14 + 20, nil},
		{"no IP, right behind the header", other, 14, nil},
		{"no IP, in the header", other, 13, ErrOffload},
		{"no IP, behind", other, len(other) - 17, ErrOffload},
		{"three tags", threeTags, 26 + 20, nil},
		{"padded", padded, 14 + 20, nil},
		{"padded, in the IP header", padded, 14 + 19, ErrOffload},
		{"IPv4 as IPv6", mistaken, 14 + 40, ErrMalformed},
		{"fragment", fragment, 14 + 20, nil},
		{"arp", arp, 0, nil},
		{"shortest", arp[:14], 0, nil},
		{"runt", arp[:13], 0, ErrMalformed},
		{"empty, with a checksum", ethernet(nil, 4), 14, ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Offload{NeedsChecksum: true, ChecksumStart: uint16(test.start), ChecksumOffset: tcpChecksum}
			if test.start == 0 {
				o = Offload{}
			}
			buf, lo, hi := placed(test.frame)
			var s Segments
			if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: true, Elide: true, MaxPacket: 1500}); err != test.want {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if test.want != nil {
				if !bytes.Equal(buf[lo:hi], test.frame) || s.Count() != 0 {
					t.Error("the refused frame was changed")
				}
				return
			}
			if s.Elided() || s.Largest() != len(test.frame) {
				t.Errorf("elided %v, largest %d", s.Elided(), s.Largest())
			}
			if err := samePackets(cut(&s, buf), referenceSegments(test.frame, o)); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a super-frame says of itself has to be so.
func TestSegmentsFrameRefuses(t *testing.T) {
	for name, change := range map[string]func(frame []byte, o *Offload) []byte{
		"EtherType of IPv6":  func(f []byte, _ *Offload) []byte { copy(f[12:], "\x86\xdd"); return f },
		"EtherType of ARP":   func(f []byte, _ *Offload) []byte { copy(f[12:], "\x08\x06"); return f },
		"EtherType of a tag": func(f []byte, _ *Offload) []byte { copy(f[12:], "\x81\x00"); return f },
		"an old tag": func(f []byte, o *Offload) []byte {
			o.ChecksumStart += 4
			return slices.Insert(f, 12, 0x91, 0, 0, 1)
		},
		"three tags": func(f []byte, o *Offload) []byte {
			o.ChecksumStart += 12
			return slices.Insert(f, 12, 0x81, 0, 0, 1, 0x81, 0, 0, 1, 0x81, 0, 0, 1)
		},
		"start of the packet":      func(f []byte, o *Offload) []byte { o.ChecksumStart -= 14; return f },
		"start before one tag":     func(f []byte, o *Offload) []byte { return slices.Insert(f, 12, 0x81, 0, 0, 1) },
		"something behind":         func(f []byte, _ *Offload) []byte { return append(f, 0) },
		"nothing behind":           func(f []byte, _ *Offload) []byte { return f[:14] },
		"nothing behind the tag":   func(f []byte, _ *Offload) []byte { copy(f[12:], "\x81\x00\x00\x01\x08\x00"); return f[:18] },
		"half a tag":               func(f []byte, _ *Offload) []byte { copy(f[12:], "\x81\x00\x00\x01\x08\x00"); return f[:16] },
		"runt":                     func(f []byte, _ *Offload) []byte { return f[:13] },
		"an IP packet, no frame":   func(f []byte, o *Offload) []byte { o.ChecksumStart -= 14; return f[14:] },
		"segments of an odd offer": func(f []byte, o *Offload) []byte { o.GSO = GSOTCPv6; return f },
	} {
		b, o := framings[1].super(packet{payload: pattern(3000), flags: 0x10}, 1000)
		b = change(b, &o)
		buf, lo, hi := placed(b)
		var s Segments
		if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: true}); err != ErrMalformed && err != ErrOffload {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, ok := s.Next(); ok || !bytes.Equal(buf[lo:hi], b) {
			t.Errorf("%s: segments after an error, or the frame changed", name)
		}
	}
}

// Frames that differ in anything in front of the IP packet are not of one super-frame, and frames that cannot be are written
// as they came.
func TestCoalesceFrames(t *testing.T) {
	tcp4, tcp6 := packet{flags: 0x10}, packet{v6: true, flags: 0x10}
	tagged := framings[2]
	// second is a train of two of which the second frame is changed by f.
	second := func(l framing, f func(frame []byte) []byte) [][]byte {
		frames := l.wrapAll(tcp4.train(2, 100))
		frames[1] = f(frames[1])
		return frames
	}
	set := func(at int, v byte) func([]byte) []byte {
		return func(f []byte) []byte { f[at] ^= v; return f }
	}
	all := func(frames [][]byte, f func([]byte) []byte) [][]byte {
		for i := range frames {
			frames[i] = f(frames[i])
		}
		return frames
	}
	pad := func(f []byte) []byte { return append(f, 0, 0) }
	three := framing{frame: true, tags: []uint16{0x88a8, 0x8100, 0x8100}}
	for _, test := range []struct {
		name   string
		frames [][]byte
		writes []int
	}{
		{"target", second(framings[1], set(0, 1)), []int{1, 1}},
		{"source", second(framings[1], set(11, 1)), []int{1, 1}},
		{"vlan", second(tagged, set(15, 1)), []int{1, 1}},
		{"priority", second(tagged, set(14, 0x20)), []int{1, 1}},
		{"drop eligible", second(tagged, set(14, 0x10)), []int{1, 1}},
		{"inner vlan", second(framings[4], set(19, 1)), []int{1, 1}},
		{"kind of tag", second(tagged, func(f []byte) []byte { copy(f[12:], "\x88\xa8"); return f }), []int{1, 1}},
		{"one tag more", second(tagged, func(f []byte) []byte { return slices.Insert(f, 12, 0x81, 0, 0, 1) }), []int{1, 1}},
		{"one tag less", second(tagged, func(f []byte) []byte { return slices.Delete(f, 12, 16) }), []int{1, 1}},
		{"padded", second(framings[1], pad), []int{1, 1}},
		{"padded both", all(framings[1].wrapAll(tcp4.train(2, 2)), pad), []int{1, 1}},
		{"EtherType of ARP", second(framings[1], func(f []byte) []byte { f[13] = 6; return f }), []int{1, 1}},
		{"IPv4 as IPv6", all(framings[1].wrapAll(tcp4.train(2, 9)), func(f []byte) []byte { copy(f[12:], "\x86\xdd"); return f }), []int{1, 1}},
		{"IPv6 as IPv4", all(framings[1].wrapAll(tcp6.train(2, 9)), func(f []byte) []byte { copy(f[12:], "\x08\x00"); return f }), []int{1, 1}},
		{"three tags", three.wrapAll(tcp4.train(3, 9)), []int{1, 1, 1}},
		{"old tags", all(tagged.wrapAll(tcp4.train(2, 9)), func(f []byte) []byte { f[12] = 0x91; return f }), []int{1, 1}},
		{"arp between", append(append(tagged.wrapAll(tcp4.train(2, 9)), append([]byte("targetsource\x08\x06"), make([]byte, 46)...)),
			tagged.wrapAll(tcp6.train(2, 9))...), []int{2, 1, 2}},
		{"short ones", [][]byte{{1}, make([]byte, 13), []byte("targetsource\x08\x00"), []byte("targetsource\x81\x00\x00\x01\x86\xdd")}, []int{1, 1, 1, 1}},
	} {
		for _, elided := range []bool{false, true} {
			t.Run(test.name, func(t *testing.T) {
				q := &collector{offloads: allOffloads, frame: true}
				c := NewCoalescer(q)
				feedAs(t, c, elided, test.frames...)
				flush(t, c)
				if q.err != nil {
					t.Error(q.err)
				}
				if err := samePackets(q.packets, test.frames); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(q.writes, test.writes) {
					t.Errorf("writes of %v frames, want %v", q.writes, test.writes)
				}
			})
		}
	}
}

// A Coalescer that is given both frames and packets keeps them apart.
func TestCoalesceFramesAndPackets(t *testing.T) {
	packets := packet{flags: 0x10}.train(4, 100)
	var written [][]byte
	c := NewCoalescer(writeFunc(func(b []byte, o Offload) {
		if o.GSO != GSONone {
			t.Errorf("merged: %+v", o)
		}
		written = append(written, bytes.Clone(b))
	}))
	var want [][]byte
	for i, p := range packets {
		commit := c.Commit
		if i%2 == 1 {
			p, commit = framings[1].wrap(p), c.CommitFrame
		}
		put(c, p)
		if lost, err := commit(len(p)); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
		want = append(want, p)
	}
	flush(t, c)
	if err := samePackets(written, want); err != nil {
		t.Error(err)
	}
}

// writeFunc is a queue that takes all offloads and calls itself.
type writeFunc func(b []byte, o Offload)

func (f writeFunc) Offloads() Offloads { return allOffloads }

func (f writeFunc) Read([]byte, bool) (int, int, Offload, error) {
	return 0, 0, Offload{}, ErrWouldBlock
}

func (f writeFunc) Write(buf []byte, lo, hi int, o Offload) error {
	f(buf[lo:hi], o)
	return nil
}

// FuzzSegmentsFrame is FuzzSegmentsFor for frames.
func FuzzSegmentsFrame(f *testing.F) {
	for i, p := range []packet{
		{payload: pattern(300), flags: 0x99, options: make([]byte, 12), seq: 1 << 31},
		{v6: true, payload: pattern(300), flags: 0x10},
		{udp: true, payload: pattern(300), id: 0xffff},
		{v6: true, extension: 60, extensions: []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, payload: pattern(99)},
	} {
		b, o := framings[1+i].super(p, 100)
		f.Add(b, o.NeedsChecksum, byte(o.GSO), o.SegmentSize, o.ChecksumStart, o.ChecksumOffset, i%2 == 0, 120+10*i)
		f.Add(b, o.NeedsChecksum, byte(GSONone), o.SegmentSize, o.ChecksumStart, o.ChecksumOffset, true, 120)
		f.Add(append(b, 0), o.NeedsChecksum, byte(GSONone), o.SegmentSize, o.ChecksumStart, o.ChecksumOffset, true, 120)
	}
	f.Add([]byte("targetsource\x08\x06 what else there is"), true, byte(GSONone), uint16(0), uint16(14), uint16(1), false, 0)
	f.Fuzz(func(t *testing.T, b []byte, needs bool, gso byte, segment, start, offset uint16, elide bool, limit int) {
		if len(b) > MaxPacket {
			return
		}
		o := Offload{NeedsChecksum: needs, GSO: GSO(gso), SegmentSize: segment, ChecksumStart: start, ChecksumOffset: offset}
		l := Limits{Elide: elide, MaxPacket: limit, Frame: true}
		buf, lo, hi := placed(b)
		for i := hi; i < len(buf); i++ {
			buf[i] = 0xee
		}
		var s Segments
		err := s.ResetFor(bytes.Clone(buf), lo, hi, o, Limits{Frame: true})
		limited := s.ResetFor(buf, lo, hi, o, l)
		if err != nil || limited != nil {
			if err != limited || !bytes.Equal(buf[lo:hi], b) {
				t.Fatalf("%v, with limits %v", err, limited)
			}
			return
		}
		// Once more with a right partial checksum, for the reference calculates all from scratch.
		at, place, ok := ElidedFrame(b)
		if o.GSO != GSONone || ok && needs && at == int(start) && place == int(offset) {
			proto := byte(protoTCP)
			if offset == udpChecksum {
				proto = protoUDP
			}
			n := linkBytes(b)
			fixPartial(b[n:], int(start)-n, proto)
		}
		copy(buf[lo:], b)
		if err := s.ResetFor(buf, lo, hi, o, l); err != nil {
			t.Fatal(err)
		}
		largest := s.Largest()
		got := cut(&s, buf)
		want, elided := referenceFrames(b, o, l)
		if len(got) != s.Count() || elided != s.Elided() || largest != len(got[0]) {
			t.Fatalf("%d frames, %d announced, elided %v, largest %d", len(got), s.Count(), s.Elided(), largest)
		}
		if err := samePackets(got, want); err != nil {
			t.Fatal(err)
		}
		for i := range buf[hi:] {
			if buf[hi+i] != 0xee {
				t.Fatal("wrote behind the frame")
			}
		}
		for _, p := range got {
			if _, _, ok := ElidedFrame(p); elided && !ok {
				t.Fatalf("nobody will accept %x", p)
			}
		}
	})
}

// FuzzCoalesceFrame is FuzzCoalesce for frames; kinds has two bits for each, what they have in front of the packet.
func FuzzCoalesceFrame(f *testing.F) {
	f.Add([]byte("\x00\x20\x00\x00\x00\x20\x00\x00\x00\x20\x00\x00"), uint64(0x5), uint64(0))
	f.Add([]byte("\x01\x20\x00\x00\x01\x20\x00\x00\x05\x20\x00\x00\x01\x07\x00\x00"), uint64(0x5), uint64(0x55))
	f.Add([]byte("\x02\x20\x00\x00\x02\x20\x20\x04\x02\x20\x30\x80\x02\x20\x00\x00"), uint64(0x5), uint64(0xaf))
	f.Add([]byte("\x03\x02\x00\x00\x03\x02\x00\x00\x13\x20\x00\x00\x23\x02\x00\x00\x33\x02\x00\x00"), uint64(0), uint64(0xffff))
	f.Add([]byte("\x00\x20\x0b\x01\x00\x20\x0d\x06\x00\x20\x00\x00"), uint64(0x5), uint64(0x4))
	f.Add([]byte("\x40\x18\x45\x00\x00\x18 arbitrary bytes of a packet"), uint64(0x5), uint64(0))
	f.Fuzz(func(t *testing.T, in []byte, elided, kinds uint64) {
		fuzzCoalesce(t, in, elided, func(i int) framing { return framings[1+kinds>>(2*i%64)&3] })
	})
}
