package device

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestSegmentsFor(t *testing.T) {
	hopByHop := []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}
	options := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	tcp4 := packet{payload: pattern(5000), flags: 0x18, seq: 0xfffffff0, id: 0xfffe, options: options}
	tcp6 := packet{v6: true, payload: pattern(5000), flags: 0x99, options: options}
	udp4 := packet{udp: true, payload: pattern(5000)}
	udp6 := packet{udp: true, v6: true, payload: pattern(5000)}
	extended := packet{v6: true, extension: 0, extensions: hopByHop, payload: pattern(5000), flags: 0x10}
	extendedUDP := packet{v6: true, udp: true, extension: 0, extensions: append([]byte{protoUDP}, hopByHop[1:]...), payload: pattern(5000)}
	flags := func(v byte) packet { p := tcp4; p.flags = v; return p }
	elide := Limits{Elide: true}
	for _, test := range []struct {
		name    string
		p       packet
		segment int // 0: a single packet
		l       Limits
		count   int
		elided  bool
	}{
		{"tcp4", tcp4, 1400, elide, 4, true},
		{"tcp6", tcp6, 1400, elide, 4, true},
		{"udp4", udp4, 1400, elide, 4, true},
		{"udp6", udp6, 1400, elide, 4, true},
		{"single tcp4", tcp4, 0, elide, 1, true},
		{"single tcp6", tcp6, 0, elide, 1, true},
		{"single udp4", udp4, 0, elide, 1, true},
		{"single udp6", udp6, 0, elide, 1, true},
		{"single syn", flags(0x02), 0, elide, 1, true},
		{"extension header", extended, 1400, elide, 4, false},
		{"extension header udp", extendedUDP, 1400, elide, 4, false},
		{"single with extension header", extended, 0, elide, 1, false},

		{"limit fits", tcp4, 1400, Limits{MaxPacket: 1452}, 4, false},
		{"limit just does not", tcp4, 1400, Limits{MaxPacket: 1451}, 4, false},
		{"limit", tcp4, 1400, Limits{MaxPacket: 800}, 7, false},
		{"limit and elide", tcp4, 1400, Limits{Elide: true, MaxPacket: 800}, 7, true},
		{"limit tcp6", tcp6, 1400, Limits{Elide: true, MaxPacket: 1232}, 5, true},
		{"limit with extension header", extended, 1400, Limits{Elide: true, MaxPacket: 1232}, 5, false},
		{"limit far above", tcp4, 1400, Limits{MaxPacket: 1 << 40}, 4, false},
		{"limit below zero", tcp4, 1400, Limits{MaxPacket: -1}, 4, false},
		{"limit too small for headers", tcp4, 1400, Limits{MaxPacket: 52}, 4, false},
		{"limit of 7 bytes", tcp4, 1400, Limits{MaxPacket: 59}, 4, false},
		{"limit of 8 bytes", tcp4, 1400, Limits{MaxPacket: 60}, 625, false},
		{"one segment", tcp4, 6000, Limits{MaxPacket: 4000}, 2, false},
		{"limit udp", udp4, 1400, Limits{Elide: true, MaxPacket: 1000}, 4, true},

		{"single limit", tcp4, 0, Limits{MaxPacket: 1280}, 5, false},
		{"single limit and elide", tcp4, 0, Limits{Elide: true, MaxPacket: 1280}, 5, true},
		{"single limit tcp6", tcp6, 0, Limits{Elide: true, MaxPacket: 1280}, 5, true},
		{"single limit fits", tcp4, 0, Limits{Elide: true, MaxPacket: 5052}, 1, true},
		{"single limit just does not", tcp4, 0, Limits{Elide: true, MaxPacket: 5051}, 2, true},
		{"single limit too small", tcp4, 0, Limits{Elide: true, MaxPacket: 59}, 1, true},
		{"single limit fin", flags(0xd9), 0, Limits{MaxPacket: 1280}, 5, false},
		{"single limit syn", flags(0x12), 0, Limits{MaxPacket: 1280}, 1, false},
		{"single limit rst", flags(0x14), 0, Limits{Elide: true, MaxPacket: 1280}, 1, true},
		{"single limit urg", flags(0x30), 0, Limits{MaxPacket: 1280}, 1, false},
		{"single limit extension header", extended, 0, Limits{Elide: true, MaxPacket: 1280}, 1, false},
		{"single limit udp", udp4, 0, Limits{Elide: true, MaxPacket: 1280}, 1, true},
	} {
		for _, link := range framings {
			t.Run(test.name+" "+link.name, func(t *testing.T) {
				l := link.limits(test.l)
				b, o := link.super(test.p, test.segment)
				if test.segment == 0 {
					o.GSO = GSONone
				}
				buf, lo, hi := placed(b)
				var s Segments
				if err := s.ResetFor(buf, lo, hi, o, l); err != nil {
					t.Fatal(err)
				}
				if s.Count() != test.count || s.Elided() != test.elided {
					t.Errorf("%d segments, elided %v", s.Count(), s.Elided())
				}
				if o.GSO != GSONone || s.Elided() || s.Count() > 1 {
					if !bytes.Equal(buf[lo:hi], b) {
						t.Error("changed before the first segment is asked for")
					}
				}
				largest := s.Largest()
				got := cut(&s, buf)
				want, elided := link.reference(b, o, l)
				if largest != len(got[0]) {
					t.Errorf("the largest has %d bytes, the first %d", largest, len(got[0]))
				}
				if err := samePackets(got, want); err != nil || elided != test.elided {
					t.Error(elided, err)
				}
				for _, p := range got {
					if _, _, ok := Elided(p[link.length():]); s.Elided() && !ok {
						t.Errorf("nobody will accept %x", p)
					}
				}
				// A limit does not outlive its packet.
				b, o = test.p.super(1400)
				copy(buf[lo:], b)
				if err := s.Reset(buf, lo, lo+len(b), o); err != nil || s.Elided() {
					t.Fatal(err, s.Elided())
				}
				if err := samePackets(cut(&s, buf), referenceSegments(b, o)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Only the very checksum that Elided finds is elided, and only where it is missing.
func TestSegmentsElideNothingElse(t *testing.T) {
	p := packet{payload: pattern(100), flags: 0x10}
	for _, change := range []func(o *Offload){
		func(o *Offload) { *o = Offload{} },
		func(o *Offload) { o.ChecksumStart += 2 },
		func(o *Offload) { o.ChecksumOffset = udpChecksum },
	} {
		for _, link := range framings {
			b, o := link.super(p, 0)
			o.GSO = GSONone
			change(&o)
			buf, lo, hi := placed(b)
			var s Segments
			if err := s.ResetFor(buf, lo, hi, o, Limits{Elide: true, MaxPacket: 80, Frame: link.frame}); err != nil {
				t.Fatal(err)
			}
			if s.Elided() || s.Count() != 1 {
				t.Errorf("%+v: elided %v, %d packets", o, s.Elided(), s.Count())
			}
			if err := samePackets(cut(&s, buf), referenceSegments(b, o)); err != nil {
				t.Error(err)
			}
		}
	}
}

// What is cut to a limit merges again, whatever its IPv4 identification was (zero, with DF, is what some senders use).
func TestResegmentedMerges(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, p := range []packet{{}, {v6: true}, {id: 0xffff}, {noDF: true}, {options: make([]byte, 12)}} {
		for _, single := range []bool{false, true} {
			for _, elide := range []bool{false, true} {
				for _, link := range framings {
					p.flags, p.payload = 0x10, pattern(1+8000+r.IntN(50000))
					b, o := link.super(p, 4000)
					if single {
						o.GSO = GSONone
					}
					buf, lo, hi := placed(b)
					var s Segments
					if err := s.ResetFor(buf, lo, hi, o, Limits{Elide: elide, MaxPacket: 1280, Frame: link.frame}); err != nil {
						t.Fatal(err)
					}
					pieces := cut(&s, buf)
					q := &collector{offloads: allOffloads, frame: link.frame}
					c := NewCoalescer(q)
					for _, piece := range pieces {
						if len(piece) > 1280 {
							t.Fatalf("a packet of %d bytes", len(piece))
						}
						feedAs(t, c, elide, piece)
					}
					flush(t, c)
					if fmt.Sprint(q.writes) != fmt.Sprint([]int{len(pieces)}) || q.err != nil {
						t.Errorf("%d pieces were written as %v: %v", len(pieces), q.writes, q.err)
					}
					o.GSO, o.SegmentSize = q.last.GSO, uint16(1280-o.HeaderLen)
					o.NeedsChecksum = true
					if q.last != o {
						t.Errorf("offload %+v, want %+v", q.last, o)
					}
				}
			}
		}
	}
}

func TestSegmentsForAllocates(t *testing.T) {
	b, o := packet{payload: pattern(60000), flags: 0x10}.super(1400)
	buf, lo, hi := placed(b)
	s := new(Segments)
	if n := testing.AllocsPerRun(100, func() {
		copy(buf[lo:], b)
		if s.ResetFor(buf, lo, hi, o, Limits{Elide: true, MaxPacket: 1000}) != nil {
			panic("refused")
		}
		for _, _, ok := s.Next(); ok; _, _, ok = s.Next() {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSegmentsFor is FuzzSegments with limits.
func FuzzSegmentsFor(f *testing.F) {
	for i, p := range []packet{
		{payload: pattern(300), flags: 0x99, options: make([]byte, 12), seq: 1 << 31},
		{v6: true, payload: pattern(300), flags: 0x10},
		{udp: true, payload: pattern(300), id: 0xffff},
		{v6: true, extension: 60, extensions: []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, payload: pattern(99)},
	} {
		b, o := p.super(100)
		f.Add(b, o.NeedsChecksum, byte(o.GSO), o.SegmentSize, o.ChecksumStart, o.ChecksumOffset, i%2 == 0, 100+10*i)
		f.Add(b, o.NeedsChecksum, byte(GSONone), o.SegmentSize, o.ChecksumStart, o.ChecksumOffset, true, 10*i*i)
	}
	f.Fuzz(func(t *testing.T, b []byte, needs bool, gso byte, segment, start, offset uint16, elide bool, limit int) {
		if len(b) > MaxPacket {
			return
		}
		o := Offload{NeedsChecksum: needs, GSO: GSO(gso), SegmentSize: segment, ChecksumStart: start, ChecksumOffset: offset}
		l := Limits{Elide: elide, MaxPacket: limit}
		buf, lo, hi := placed(b)
		var s Segments
		err := s.Reset(bytes.Clone(buf), lo, hi, o)
		forErr := s.ResetFor(buf, lo, hi, o, l)
		if err != nil || forErr != nil {
			if err != forErr || !bytes.Equal(buf[lo:hi], b) {
				t.Fatalf("%v, with limits %v", err, forErr)
			}
			return
		}
		// Once more with a right partial checksum, for the reference calculates all from scratch.
		at, place, ok := Elided(b)
		if o.GSO != GSONone || ok && needs && at == int(start) && place == int(offset) {
			proto := byte(protoTCP)
			if offset == udpChecksum {
				proto = protoUDP
			}
			fixPartial(b, int(start), proto)
		}
		copy(buf[lo:], b)
		if err := s.ResetFor(buf, lo, hi, o, l); err != nil {
			t.Fatal(err)
		}
		got := cut(&s, buf)
		want, elided := referenceFor(b, o, l)
		if len(got) != s.Count() || elided != s.Elided() {
			t.Fatalf("%d packets, %d announced, elided %v", len(got), s.Count(), s.Elided())
		}
		if err := samePackets(got, want); err != nil {
			t.Fatal(err)
		}
		for _, p := range got {
			if _, _, ok := Elided(p); elided && !ok {
				t.Fatalf("nobody will accept %x", p)
			}
		}
	})
}

func BenchmarkSegmentsElided(b *testing.B) { benchmarkSegmentsElided(b, framings[0]) }

func BenchmarkSegmentsElidedFrame(b *testing.B) { benchmarkSegmentsElided(b, framings[1]) }

func benchmarkSegmentsElided(b *testing.B, link framing) {
	super, o := link.super(packet{payload: pattern(1388 * 46), flags: 0x10, options: make([]byte, 12)}, 1388)
	buf, lo, hi := placed(super)
	s := new(Segments)
	b.SetBytes(int64(len(super)))
	for b.Loop() {
		copy(buf[lo:], super[:128])
		if err := s.ResetFor(buf, lo, hi, o, Limits{Elide: true, Frame: link.frame}); err != nil {
			b.Fatal(err)
		}
		for _, _, ok := s.Next(); ok; _, _, ok = s.Next() {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(float64(len(super))/1024), "ns/KiB")
}
