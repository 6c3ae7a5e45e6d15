package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
)

// cut takes all segments as the engine does: pads behind each, restores, and then has no more use for its bytes.
func cut(s *Segments, buf []byte) [][]byte {
	var out [][]byte
	for lo, hi, ok := s.Next(); ok; lo, hi, ok = s.Next() {
		var behind [Tailroom]byte
		n := copy(behind[:], buf[hi:])
		clear(buf[hi : hi+n])
		out = append(out, bytes.Clone(buf[lo:hi]))
		copy(buf[hi:], behind[:n])
		for i := lo; i < hi; i++ {
			buf[i] = 0xcc
		}
	}
	return out
}

func TestSegments(t *testing.T) {
	hopByHop := []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}
	routing := append([]byte{60, 0, 0, 0, 0, 0, 0, 0}, []byte{protoUDP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}...)
	options := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	for _, test := range []struct {
		name    string
		p       packet
		segment int
		count   int
	}{
		{"tcp4", packet{payload: pattern(5000), flags: 0x18, seq: 0xfffffff0, id: 0xfffe, options: options}, 1400, 4},
		{"tcp6", packet{v6: true, payload: pattern(5000), flags: 0x19, seq: 7, options: options}, 1400, 4},
		{"exact", packet{payload: pattern(2800), flags: 0x10}, 1400, 2},
		{"one", packet{payload: pattern(100), flags: 0x19}, 1400, 1},
		{"congestion window reduced", packet{payload: pattern(4000), flags: 0x90}, 1000, 4},
		{"fin and push", packet{payload: pattern(4000), flags: 0x19}, 1000, 4},
		{"segments shorter than headers", packet{payload: pattern(101), flags: 0x10, options: make([]byte, 40)}, 9, 12},
		{"odd", packet{v6: true, payload: pattern(3001), flags: 0x10}, 777, 4},
		{"extension", packet{v6: true, extension: 0, extensions: hopByHop, payload: pattern(3000), flags: 0x10}, 900, 4},
		{"udp4", packet{udp: true, payload: pattern(5000), id: 3}, 1200, 5},
		{"udp6", packet{udp: true, v6: true, payload: pattern(5000)}, 1200, 5},
		{"udp6 extensions", packet{udp: true, v6: true, extension: 43, extensions: routing, payload: pattern(5000)}, 1200, 5},
		{"no payload", packet{flags: 0x10}, 1200, 1},
		{"largest", packet{payload: pattern(MaxPacket - 40), flags: 0x10}, 1448, 46},
		{"most", packet{payload: pattern(MaxPacket - 40), flags: 0x10}, 8, 8187},
	} {
		for _, link := range framings {
			t.Run(test.name+" "+link.name, func(t *testing.T) {
				b, o := link.super(test.p, test.segment)
				buf, lo, hi := placed(b)
				var s Segments
				if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); err != nil {
					t.Fatal(err)
				}
				count := test.count
				if payload := len(b) - int(o.HeaderLen); payload < len(test.p.payload) { // there was no room for all
					count = (payload + test.segment - 1) / test.segment
				}
				if s.Count() != count {
					t.Errorf("%d segments, want %d", s.Count(), count)
				}
				want, _ := link.reference(b, o, Limits{})
				if err := samePackets(cut(&s, buf), want); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestSegmentsFinished(t *testing.T) {
	b := []byte("whatever, nobody looks")
	buf, lo, hi := placed(b)
	var s Segments
	if err := s.Reset(buf, lo, hi, Offload{}); err != nil {
		t.Fatal(err)
	}
	if err := samePackets(cut(&s, buf), [][]byte{b}); err != nil {
		t.Error(err)
	}
}

func TestSegmentsChecksum(t *testing.T) {
	for _, p := range []packet{
		{payload: pattern(100), flags: 0x10},
		{v6: true, payload: pattern(101), flags: 0x18},
		{udp: true, payload: pattern(99)},
		{udp: true, v6: true, payload: nil},
	} {
		for _, link := range framings {
			b, o := link.super(p, 0)
			o.GSO = GSONone
			buf, lo, hi := placed(b)
			var s Segments
			if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); err != nil {
				t.Fatal(err)
			}
			if err := samePackets(cut(&s, buf), [][]byte{link.wrap(p.build())}); err != nil {
				t.Error(err)
			}
		}
	}
}

// A UDP checksum that comes out as zero is sent as ffff (RFC 768).
func TestSegmentsUDPZeroChecksum(t *testing.T) {
	p := packet{udp: true, payload: make([]byte, 8)}
	b := p.build()
	copy(p.payload, b[ipv4Header+udpChecksum:][:2]) // moves what was complemented into the sum
	if sum := p.build()[ipv4Header+udpChecksum:][:2]; !bytes.Equal(sum, []byte{0xff, 0xff}) {
		t.Fatalf("the test's packet has the checksum %x", sum)
	}
	for _, gso := range []GSO{GSONone, GSOUDP} {
		for _, link := range framings {
			b, o := link.super(p, 1000)
			o.GSO = gso
			buf, lo, hi := placed(b)
			var s Segments
			if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); err != nil {
				t.Fatal(err)
			}
			if err := samePackets(cut(&s, buf), [][]byte{link.wrap(p.build())}); err != nil {
				t.Error(err)
			}
		}
	}
}

// A wrong checksum of a super-packet must stay wrong.
func TestSegmentsKeepWrongChecksums(t *testing.T) {
	for _, at := range []int{10, ipv4Header + tcpChecksum} {
		for _, link := range framings {
			n := link.length()
			b, o := link.super(packet{payload: pattern(3000), flags: 0x10}, 1000)
			b[n+at] ^= 0x40
			buf, lo, hi := placed(b)
			var s Segments
			if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); err != nil {
				t.Fatal(err)
			}
			for i, got := range cut(&s, buf) {
				right := bytes.Clone(got[n:])
				fixChecksums(right, ipv4Header, protoTCP)
				if bytes.Equal(got[n+at:][:2], right[at:at+2]) {
					t.Errorf("%s, segment %d: the checksum at %d has become right", link.name, i, at)
				}
			}
		}
	}
}

func TestSegmentsRefuses(t *testing.T) {
	tcp4 := packet{payload: pattern(3000), flags: 0x10}
	tcp6 := packet{v6: true, payload: pattern(3000), flags: 0x10}
	udp4 := packet{udp: true, payload: pattern(3000)}
	fragmented := packet{v6: true, extension: 44, extensions: make([]byte, 8), payload: pattern(3000), flags: 0x10}
	endless := packet{v6: true, extension: 0, extensions: []byte{0, 255, 0, 0, 0, 0, 0, 0}, payload: pattern(3000)}
	long := packet{v6: true, extension: 60, extensions: make([]byte, 8*101), payload: pattern(3000), flags: 0x10}
	long.extensions[0], long.extensions[1] = protoTCP, 100
	set := func(at int, v byte) func([]byte, *Offload) { return func(b []byte, _ *Offload) { b[at] = v } }
	for _, test := range []struct {
		name   string
		p      packet
		change func(b []byte, o *Offload)
		want   error
	}{
		{"version", tcp4, set(0, 0x55), ErrMalformed},
		{"header length", tcp4, set(0, 0x44), ErrMalformed},
		{"total length", tcp4, set(3, 1), ErrMalformed},
		{"fragment", tcp4, set(6, 0x20), ErrMalformed},
		{"fragment offset", tcp4, set(7, 1), ErrMalformed},
		{"protocol", tcp4, set(9, protoUDP), ErrOffload},
		{"options move the transport", tcp4, set(0, 0x46), ErrMalformed},
		{"data offset", tcp4, set(ipv4Header+tcpOffset, 0x40), ErrMalformed},
		{"payload length", tcp6, set(5, 1), ErrMalformed},
		{"next header", tcp6, set(6, 59), ErrOffload},
		{"fragment header", fragmented, nil, ErrOffload},
		{"endless extensions", endless, nil, ErrMalformed},
		{"long extension", long, nil, ErrMalformed},
		{"v6 as v4", tcp6, func(_ []byte, o *Offload) { o.GSO = GSOTCPv4 }, ErrOffload},
		{"v4 as v6", tcp4, func(_ []byte, o *Offload) { o.GSO = GSOTCPv6 }, ErrOffload},
		{"tcp as udp", tcp4, func(_ []byte, o *Offload) { o.GSO = GSOUDP }, ErrOffload},
		{"udp length", udp4, set(ipv4Header+udpLength, 1), ErrMalformed},
		{"segment size", tcp4, func(_ []byte, o *Offload) { o.SegmentSize = 0 }, ErrOffload},
		{"no checksum", tcp4, func(_ []byte, o *Offload) { o.NeedsChecksum = false }, ErrOffload},
		{"checksum start", tcp4, func(_ []byte, o *Offload) { o.ChecksumStart++ }, ErrOffload},
		{"checksum offset", tcp4, func(_ []byte, o *Offload) { o.ChecksumOffset = 6 }, ErrOffload},
		{"gso", tcp4, func(_ []byte, o *Offload) { o.GSO = gsoUnknown }, ErrOffload},
		{"start in IP header", tcp4, func(_ []byte, o *Offload) { o.GSO, o.ChecksumStart = GSONone, 12 }, ErrOffload},
		{"start in IPv6 header", tcp6, func(_ []byte, o *Offload) { o.GSO, o.ChecksumStart = GSONone, 20 }, ErrOffload},
		{"start behind", tcp4, func(_ []byte, o *Offload) { o.GSO, o.ChecksumStart = GSONone, 0xffff }, ErrOffload},
		{"offset behind", tcp4, func(_ []byte, o *Offload) { o.GSO, o.ChecksumOffset = GSONone, 0xffff }, ErrOffload},
		{"checksum of no IP", tcp4, func(b []byte, o *Offload) { o.GSO, b[0] = GSONone, 0 }, ErrMalformed},
	} {
		for _, link := range framings {
			t.Run(test.name+" "+link.name, func(t *testing.T) {
				b, o := test.p.super(1000)
				b = link.wrap(b)
				if test.change != nil {
					test.change(b[link.length():], &o)
				}
				o = link.offload(o)
				buf, lo, hi := placed(b)
				var s Segments
				if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); !errors.Is(err, test.want) {
					t.Errorf("error %v, want %v", err, test.want)
				}
				if _, _, ok := s.Next(); ok {
					t.Error("segments after an error")
				}
				if !bytes.Equal(buf[lo:hi], b) {
					t.Error("the refused packet was changed")
				}
			})
		}
	}
	t.Run("too many", func(t *testing.T) {
		for _, link := range framings {
			b, o := link.super(packet{payload: pattern(MaxPacket - 40), flags: 0x10}, 7)
			buf, lo, hi := placed(b)
			if err := new(Segments).ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); err != ErrSegments {
				t.Errorf("error %v, want ErrSegments", err)
			}
		}
	})
	t.Run("short", func(t *testing.T) {
		for _, p := range []packet{tcp4, tcp6, udp4} {
			for _, link := range framings {
				b, o := link.super(p, 1000)
				for n := range 100 {
					buf, lo, _ := placed(b)
					ip := buf[lo+link.length():]
					if p.v6 && n >= ipv6Header {
						binary.BigEndian.PutUint16(ip[4:], uint16(n-ipv6Header))
					} else {
						binary.BigEndian.PutUint16(ip[2:], uint16(n))
					}
					var s Segments
					n := n + link.length()
					if err := s.ResetFor(buf, lo, lo+n, o, Limits{Frame: link.frame}); err == nil && n < int(o.HeaderLen) {
						t.Errorf("%d bytes accepted", n)
					}
				}
			}
		}
	})
	t.Run("bounds", func(t *testing.T) {
		buf := make([]byte, 100)
		for _, at := range [][2]int{{-1, 4}, {4, 4}, {5, 4}, {0, 101}} {
			if err := new(Segments).Reset(buf, at[0], at[1], Offload{}); err != ErrMalformed {
				t.Errorf("packet at %v: error %v", at, err)
			}
		}
	})
}

func TestSegmentsAllocate(t *testing.T) {
	for _, link := range framings {
		b, o := link.super(packet{payload: pattern(60000), flags: 0x10}, 1400)
		buf, lo, hi := placed(b)
		s := new(Segments)
		if n := testing.AllocsPerRun(100, func() {
			copy(buf[lo:], b)
			if s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}) != nil {
				panic("refused")
			}
			for _, _, ok := s.Next(); ok; _, _, ok = s.Next() {
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", link.name, n)
		}
	}
}

func FuzzSegments(f *testing.F) {
	for _, p := range []packet{
		{payload: pattern(300), flags: 0x99, options: make([]byte, 12), seq: 1 << 31},
		{v6: true, payload: pattern(300), flags: 0x10},
		{udp: true, payload: pattern(300), id: 0xffff},
		{udp: true, v6: true, payload: pattern(300)},
		{v6: true, extension: 60, extensions: []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, payload: pattern(99)},
	} {
		b, o := p.super(100)
		f.Add(b, o.NeedsChecksum, byte(o.GSO), o.SegmentSize, o.ChecksumStart, o.ChecksumOffset, true)
		f.Add(b, o.NeedsChecksum, byte(GSONone), o.SegmentSize, o.ChecksumStart, o.ChecksumOffset, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, needs bool, gso byte, segment, start, offset uint16, fix bool) {
		if len(b) > MaxPacket {
			return
		}
		o := Offload{NeedsChecksum: needs, GSO: GSO(gso), SegmentSize: segment, ChecksumStart: start, ChecksumOffset: offset}
		buf, lo, hi := placed(b)
		for i := hi; i < len(buf); i++ {
			buf[i] = 0xee
		}
		var s Segments
		err := s.Reset(buf, lo, hi, o)
		if err == nil && fix && o.GSO != GSONone { // once more, with right checksums
			proto := byte(protoTCP)
			if o.GSO == GSOUDP {
				proto = protoUDP
			}
			fixPartial(buf[lo:hi], int(start), proto)
			copy(b, buf[lo:hi])
			err = s.Reset(buf, lo, hi, o)
		}
		if err != nil {
			if !bytes.Equal(buf[lo:hi], b) {
				t.Fatal("the refused packet was changed")
			}
			return
		}
		got := cut(&s, buf)
		if len(got) != s.Count() {
			t.Fatalf("%d segments, %d announced", len(got), s.Count())
		}
		want := referenceSegments(b, o)
		for i := range buf[hi:] {
			if buf[hi+i] != 0xee {
				t.Fatal("wrote behind the packet")
			}
		}
		if o.GSO != GSONone && !fix { // what the checksums are depends on what was there
			if len(got) != len(want) {
				t.Fatalf("%d segments, want %d", len(got), len(want))
			}
			for i := range got {
				for _, p := range [][]byte{got[i], want[i]} {
					if p[0]>>4 == 4 {
						clear(p[10:12])
					}
					clear(p[start+offset:][:2])
				}
			}
		}
		if err := samePackets(got, want); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkSegments(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, link := range []framing{framings[0], framings[1], framings[4]} {
		for _, v6 := range []bool{false, true} {
			name := map[bool]string{false: "TCPv4", true: "TCPv6"}[v6]
			if link.frame {
				name += "/" + link.name
			}
			b.Run(name, func(b *testing.B) {
				payload := make([]byte, 1388*46)
				for i := range payload {
					payload[i] = byte(r.Uint32())
				}
				super, o := link.super(packet{v6: v6, payload: payload, flags: 0x10, options: make([]byte, 12)}, 1388)
				buf, lo, hi := placed(super)
				s := new(Segments)
				b.SetBytes(int64(len(super)))
				for b.Loop() {
					copy(buf[lo:], super[:128])
					if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); err != nil {
						b.Fatal(err)
					}
					for _, _, ok := s.Next(); ok; _, _, ok = s.Next() {
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(float64(len(super))/1024), "ns/KiB")
			})
		}
	}
}
