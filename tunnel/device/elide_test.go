package device

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// elide clears the transport checksum of a packet for which Elided holds.
func elide(t testing.TB, b []byte) []byte {
	t.Helper()
	start, offset, ok := Elided(b)
	if !ok {
		t.Fatalf("not to be elided: %x", b)
	}
	b = bytes.Clone(b)
	clear(b[start+offset:][:2])
	return b
}

// withOptions puts n words of options behind an IPv4 packet's header, without care for checksums.
func withOptions(b []byte, n int) []byte {
	out := append(bytes.Clone(b[:ipv4Header]), bytes.Repeat([]byte{1}, n*4)...)
	out = append(out, b[ipv4Header:]...)
	out[0] += byte(n)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	return out
}

func TestElided(t *testing.T) {
	tcp4, tcp6 := packet{payload: pattern(10), options: make([]byte, 12)}, packet{v6: true, payload: pattern(9)}
	udp4, udp6 := packet{udp: true, payload: pattern(10)}, packet{udp: true, v6: true}
	extended := packet{v6: true, extension: 0, extensions: []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, payload: pattern(30)}
	set := func(p packet, at int, v byte) []byte {
		b := p.build()
		b[at] = v
		return b
	}
	longer := func(p packet) []byte { return append(p.build(), 0) }
	shorter := func(p packet) []byte { b := p.build(); return b[:len(b)-1] }
	for _, test := range []struct {
		name          string
		b             []byte
		start, offset int // start 0: refused
	}{
		{"tcp4", tcp4.build(), 20, 16},
		{"tcp6", tcp6.build(), 40, 16},
		{"udp4", udp4.build(), 20, 6},
		{"udp6", udp6.build(), 40, 6},
		{"options", withOptions(tcp4.build(), 1), 24, 16},
		{"most options", withOptions(udp4.build(), 10), 60, 6},
		{"without df", packet{noDF: true}.build(), 20, 16},
		{"reserved flag", set(tcp4, 6, 0x80), 20, 16},
		{"empty", nil, 0, 0},
		{"more fragments", set(tcp4, 6, 0x20), 0, 0},
		{"later fragment", set(tcp4, 7, 1), 0, 0},
		{"version", set(tcp4, 0, 0x55), 0, 0},
		{"header length", set(tcp4, 0, 0x44), 0, 0},
		{"options beyond", set(udp4, 0, 0x4f), 0, 0},
		{"icmp", set(tcp4, 9, 1), 0, 0},
		{"sctp", set(tcp6, 6, 132), 0, 0},
		{"extension header", extended.build(), 0, 0},
		{"tcp4 longer", longer(tcp4), 0, 0},
		{"tcp6 longer", longer(tcp6), 0, 0},
		{"tcp4 shorter", shorter(tcp4), 0, 0},
		{"tcp6 shorter", shorter(tcp6), 0, 0},
		{"udp longer", set(udp4, 25, 19), 0, 0},
		{"udp shorter", set(udp4, 25, 17), 0, 0},
		{"data offset too small", set(tcp4, 32, 0x40), 0, 0},
		{"data offset beyond", set(tcp4, 32, 0xb0), 0, 0},
		{"data offset to the end", set(packet{payload: pattern(8)}, 32, 0x70), 20, 16},
	} {
		t.Run(test.name, func(t *testing.T) {
			start, offset, ok := Elided(test.b)
			if start != test.start || offset != test.offset || ok != (test.start > 0) {
				t.Errorf("%d, %d, %v, want %d, %d", start, offset, ok, test.start, test.offset)
			}
			before := bytes.Clone(test.b)
			o, ok := FinishElided(test.b)
			if ok != (test.start > 0) || !ok && (o != Offload{} || !bytes.Equal(test.b, before)) {
				t.Errorf("finished: %v", ok)
			}
			// Around it an Ethernet header, and tags.
			for _, header := range frameHeaders {
				if len(test.b) == 0 {
					continue
				}
				frame := append(ethernet(header.tags, before[0]>>4), before...)
				start, offset, ok := ElidedFrame(frame)
				if want := header.ok && test.start > 0; ok != want || ok && (start != test.start+len(frame)-len(before) || offset != test.offset) {
					t.Errorf("%s: %d, %d, %v", header.name, start, offset, ok)
				}
			}
		})
	}
	// Truncated anywhere, with the length put right.
	for _, p := range []packet{tcp4, tcp6, udp4, udp6} {
		whole := p.build()
		for n := range len(whole) {
			b := bytes.Clone(whole[:n])
			if p.v6 && n >= ipv6Header {
				binary.BigEndian.PutUint16(b[4:], uint16(n-ipv6Header))
			} else if n >= ipv4Header {
				binary.BigEndian.PutUint16(b[2:], uint16(n))
			}
			header := ipv4Header
			if p.v6 {
				header = ipv6Header
			}
			if _, _, ok := Elided(b); ok && (p.udp || n < header+tcpHeader+len(p.options)) {
				t.Errorf("%d of %d bytes accepted", n, len(whole))
			}
		}
	}
}

var frameHeaders = []struct {
	name string
	tags []uint16
	ok   bool
}{
	{"untagged", nil, true},
	{"tagged", []uint16{0x8100}, true},
	{"provider", []uint16{0x88a8}, true},
	{"provider and customer", []uint16{0x88a8, 0x8100}, true},
	{"two customers", []uint16{0x8100, 0x8100}, true},
	{"three", []uint16{0x88a8, 0x8100, 0x8100}, false},
	{"old provider", []uint16{0x9100}, false},
}

// ethernet is a header with tags in front of a packet of the given IP version.
func ethernet(tags []uint16, version byte) []byte {
	b := []byte("\x45target\x45sour")[:12]
	for _, tag := range tags {
		b = binary.BigEndian.AppendUint16(b, tag)
		b = append(b, 0x20, 7)
	}
	if version == 6 {
		return append(b, 0x86, 0xdd)
	}
	return append(b, 8, 0)
}

// What FinishElided hands over is what a kernel hands over that leaves the checksum to others: completed, it is the
// checksum calculated from scratch.
func TestFinishElided(t *testing.T) {
	for _, p := range []packet{
		{payload: pattern(101), flags: 0x10},
		{payload: pattern(100), flags: 0x12, options: make([]byte, 40)},
		{v6: true, payload: pattern(1), flags: 0x18},
		{udp: true, payload: pattern(99)},
		{udp: true, v6: true},
		{udp: true}, // shorter than an IPv6 header
	} {
		for _, n := range []int{0, 3} {
			want := p.build()
			if n > 0 && !p.v6 {
				want = withOptions(want, n)
				proto := byte(protoTCP)
				if p.udp {
					proto = protoUDP
				}
				fixChecksums(want, ipv4Header+4*n, proto)
			}
			for _, field := range []byte{0, 0xff, 0x5a} { // it is of no account what was there
				b := slices.Clip(elide(t, want))
				start, offset, _ := Elided(b)
				b[start+offset], b[start+offset+1] = field, field
				o, ok := FinishElided(b)
				if !ok || o != (Offload{NeedsChecksum: true, ChecksumStart: uint16(start), ChecksumOffset: uint16(offset)}) {
					t.Fatalf("%+v, %v", o, ok)
				}
				if err := samePackets(referenceSegments(b, o), [][]byte{want}); err != nil {
					t.Error(err)
				}
				for _, header := range frameHeaders {
					frame := append(ethernet(header.tags, b[0]>>4), elide(t, want)...)
					at := len(frame) - len(b)
					f, ok := FinishElidedFrame(frame)
					if ok != header.ok {
						t.Fatalf("%s: %v", header.name, ok)
					}
					if ok && (!bytes.Equal(frame[at:], b) || int(f.ChecksumStart) != start+at || !f.NeedsChecksum || int(f.ChecksumOffset) != offset) {
						t.Errorf("%s: %+v", header.name, f)
					}
				}
			}
		}
	}
}

func TestElidedFrameRefuses(t *testing.T) {
	tcp4, tcp6 := packet{payload: pattern(10)}.build(), packet{v6: true, payload: pattern(9)}.build()
	for name, frame := range map[string][]byte{
		"empty":             nil,
		"no EtherType":      ethernet(nil, 4)[:13],
		"no packet":         ethernet(nil, 4),
		"no packet, tagged": ethernet([]uint16{0x8100}, 6),
		"half a tag":        ethernet([]uint16{0x8100}, 6)[:16],
		"IPv4 as IPv6":      append(ethernet(nil, 6), tcp4...),
		"IPv6 as IPv4":      append(ethernet(nil, 4), tcp6...),
		"ARP":               append([]byte("targetsource\x08\x06"), tcp4...),
		"length":            append([]byte("targetsource\x00\x2e"), tcp4...),
		"padded":            append(append(ethernet(nil, 4), tcp4...), 0, 0, 0, 0),
		"too long":          append(ethernet(nil, 4), packet{payload: pattern(MaxPacket - 40)}.build()...),
	} {
		before := bytes.Clone(frame)
		if start, offset, ok := ElidedFrame(frame); ok || start != 0 || offset != 0 {
			t.Errorf("%s: %d, %d, %v", name, start, offset, ok)
		}
		if o, ok := FinishElidedFrame(frame); ok || o != (Offload{}) || !bytes.Equal(frame, before) {
			t.Errorf("%s: %+v, %v", name, o, ok)
		}
	}
	for n, want := range map[int]bool{0: false, 13: false, 14: true, 1514: true, MaxPacket: true, MaxPacket + 1: false} {
		if IsFrame(make([]byte, n)) != want {
			t.Errorf("frame of %d bytes: %v", n, !want)
		}
	}
}

func TestElidedAllocatesNothing(t *testing.T) {
	b := packet{udp: true, payload: pattern(100)}.build()
	frame := append(ethernet(nil, 4), b...)
	if n := testing.AllocsPerRun(100, func() {
		_, ok := FinishElided(b)
		if _, ok2 := FinishElidedFrame(frame); !ok || !ok2 {
			panic("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzElided: what is accepted is finished to a packet that Segments completes, as a packet and in a frame, and comes out
// the same whatever was in the field.
func FuzzElided(f *testing.F) {
	f.Add(packet{payload: pattern(20), flags: 0x10}.build(), uint8(0))
	f.Add(packet{udp: true, payload: pattern(9)}.build(), uint8(1))
	f.Add(packet{v6: true, payload: pattern(20), flags: 0x10}.build(), uint8(3))
	f.Add(withOptions(packet{udp: true, payload: pattern(9)}.build(), 2), uint8(5))
	f.Add(packet{v6: true, extension: 0, extensions: []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}}.build(), uint8(6))
	f.Fuzz(func(t *testing.T, b []byte, tags uint8) {
		if len(b) == 0 || len(b) > MaxPacket-EthernetHeader-maxVLANs*vlanTag {
			return
		}
		ElidedFrame(b)
		FinishElidedFrame(bytes.Clone(b))
		start, offset, ok := Elided(b)
		header := frameHeaders[int(tags)%len(frameHeaders)]
		frame := append(ethernet(header.tags, b[0]>>4), b...)
		at := len(frame) - len(b)
		fo, fok := FinishElidedFrame(frame)
		if fok != (ok && header.ok) {
			t.Fatalf("packet %v, frame %v", ok, fok)
		}
		if !ok {
			return
		}
		if start+offset+2 > len(b) || b[0]>>4 == 4 && start != int(b[0]&15)*4 {
			t.Fatalf("%d, %d of %d bytes", start, offset, len(b))
		}
		var done [2][]byte
		for i := range done {
			c := bytes.Clone(b)
			c[start+offset], c[start+offset+1] = byte(i), 0x77
			o, ok := FinishElided(c)
			if !ok || fok && (!bytes.Equal(frame[at:], c) || int(fo.ChecksumStart) != at+start) {
				t.Fatalf("%v, %+v", ok, fo)
			}
			buf, lo, hi := placed(c)
			var s Segments
			if err := s.Reset(buf, lo, hi, o); err != nil {
				t.Fatal(err)
			}
			done[i] = buf[lo:hi]
		}
		want := bytes.Clone(b)
		proto := byte(protoTCP)
		if offset == udpChecksum {
			proto = protoUDP
		}
		fixChecksums(want, start, proto)
		copy(want[:start], b) // but for the IP header, which stays as it was
		if sum := want[start+offset:]; sum[0] == 0 && sum[1] == 0 {
			sum[0], sum[1] = 0xff, 0xff
		}
		for _, got := range done {
			if err := samePackets([][]byte{got}, [][]byte{want}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
