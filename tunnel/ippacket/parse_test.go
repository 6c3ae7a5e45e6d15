package ippacket

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
)

// packet4 returns an IPv4 packet from 10.1.2.3 to 192.0.2.9 with a header of ihl words and the total length field total.
func packet4(size, ihl, total int) []byte {
	p := make([]byte, size)
	p[0] = 4<<4 | byte(ihl)
	p[1] = 0xb9
	binary.BigEndian.PutUint16(p[2:], uint16(total))
	copy(p[12:], []byte{10, 1, 2, 3})
	copy(p[16:], []byte{192, 0, 2, 9})
	return p
}

// packet6 returns an IPv6 packet from 2001:db8::1 to ::ffff:10.0.0.1 with the payload length field payload.
func packet6(size, payload int) []byte {
	p := make([]byte, size)
	p[0], p[1] = 0x6b, 0x90
	binary.BigEndian.PutUint16(p[4:], uint16(payload))
	src, dst := netip.MustParseAddr("2001:db8::1").As16(), netip.MustParseAddr("::ffff:10.0.0.1").As16()
	copy(p[8:], src[:])
	copy(p[24:], dst[:])
	return p
}

func TestParse(t *testing.T) {
	tests := []struct {
		name   string
		packet []byte
		length int // 0: refused
	}{
		{"empty", nil, 0},
		{"one byte", []byte{0x45}, 0},
		{"v4 header alone", packet4(20, 5, 20), 20},
		{"v4 short header", packet4(40, 5, 40)[:19], 0},
		{"v4 exact", packet4(1420, 5, 1420), 1420},
		{"v4 padded", packet4(64, 5, 49), 49},
		{"v4 longer than the slice", packet4(64, 5, 65), 0},
		{"v4 total below 20", packet4(64, 5, 19), 0},
		{"v4 total zero", packet4(64, 5, 0), 0},
		{"v4 ihl 4", packet4(64, 4, 64), 0},
		{"v4 ihl 0", packet4(64, 0, 64), 0},
		{"v4 options", packet4(64, 15, 60), 60},
		{"v4 options above total", packet4(64, 15, 59), 0},
		{"v4 largest", packet4(65535, 5, 65535), 65535},
		{"v6 header alone", packet6(40, 0), 40},
		{"v6 short header", packet6(40, 0)[:39], 0},
		{"v6 padded", packet6(112, 60), 100},
		{"v6 exact", packet6(1280, 1240), 1280},
		{"v6 longer than the slice", packet6(1280, 1241), 0},
		{"v6 largest", packet6(65575, 65535), 65575},
		{"version 0", make([]byte, 64), 0},
		{"version 5", append([]byte{0x55}, make([]byte, 63)...), 0},
		{"version 15", append([]byte{0xf5}, make([]byte, 63)...), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src, dst, length, ok := Parse(tt.packet)
			if ok != (tt.length != 0) || length != tt.length {
				t.Fatalf("length %d ok %v, want length %d", length, ok, tt.length)
			}
			var wantSrc, wantDst netip.Addr
			if ok && Version(tt.packet) == 4 {
				wantSrc, wantDst = netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("192.0.2.9")
			} else if ok {
				wantSrc, wantDst = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:10.0.0.1")
			}
			if src != wantSrc || dst != wantDst {
				t.Errorf("got %v -> %v, want %v -> %v", src, dst, wantSrc, wantDst)
			}
		})
	}
}

func TestMappedAddressStaysIPv6(t *testing.T) {
	_, dst, _, ok := Parse(packet6(40, 0))
	if !ok || dst.Is4() || !dst.Is4In6() || netip.MustParsePrefix("10.0.0.0/8").Contains(dst) {
		t.Errorf("%v passes for an IPv4 address", dst)
	}
}

func TestTrafficClass(t *testing.T) {
	for _, tt := range []struct {
		packet []byte
		want   byte
	}{{packet4(20, 5, 20), 0xb9}, {packet6(40, 0), 0xb9}, {nil, 0}, {[]byte{0x45}, 0}, {[]byte{0x55, 0xff}, 0}} {
		if got := TrafficClass(tt.packet); got != tt.want {
			t.Errorf("TrafficClass(%x) = %#x, want %#x", tt.packet, got, tt.want)
		}
	}
}

func TestChecksum(t *testing.T) {
	// RFC 1071 §3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
	example, _ := hex.DecodeString("0001f203f4f5f6f7")
	if got := Fold(Sum(example, 0)); got != 0xddf2 {
		t.Errorf("RFC 1071 example: %#x, want 0xddf2", got)
	}
	// An IPv4 header sums to all ones with its checksum in place.
	header, _ := hex.DecodeString("45000073000040004011b861c0a80001c0a800c7")
	if got := ^Fold(Sum(header, 0)); got != 0 {
		t.Errorf("a valid header leaves %#x", got)
	}
}

// slowSum is RFC 1071 word by word.
func slowSum(b []byte) uint16 {
	var sum uint64
	for i, c := range b {
		if i%2 == 0 {
			sum += uint64(c) << 8
		} else {
			sum += uint64(c)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint8(4))
	f.Add([]byte{1, 2, 3}, uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		want := slowSum(b)
		at := min(int(cut)&^1, len(b)&^1)
		// Sums of zero and 0xffff are the same number in one's complement.
		if got := Fold(Sum(b[at:], Sum(b[:at], 0))); got%0xffff != want%0xffff || (got == 0) != (want == 0) {
			t.Errorf("Sum(%x) cut at %d: %#x, want %#x", b, at, got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(packet4(64, 5, 49))
	f.Add(packet4(64, 15, 60))
	f.Add(packet6(112, 60))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packet []byte) {
		TrafficClass(packet)
		src, dst, length, ok := Parse(packet)
		if !ok {
			if src.IsValid() || dst.IsValid() || length != 0 {
				t.Fatal("refused packet with results")
			}
			return
		}
		if length < MinHeader4 || length > len(packet) || !src.IsValid() || !dst.IsValid() {
			t.Fatalf("length %d of %d, %v -> %v", length, len(packet), src, dst)
		}
		if v4 := packet[0]>>4 == 4; src.Is4() != v4 || dst.Is4() != v4 || src.Zone() != "" {
			t.Fatalf("family of %v -> %v", src, dst)
		}
		// What is parsed does not depend on the padding.
		src2, dst2, length2, ok2 := Parse(packet[:length])
		if src2 != src || dst2 != dst || length2 != length || !ok2 {
			t.Fatal("padding changed the result")
		}
	})
}

func TestParseAllocatesNothing(t *testing.T) {
	v4, v6 := packet4(64, 5, 49), packet6(112, 60)
	if n := testing.AllocsPerRun(100, func() {
		Parse(v4)
		Parse(v6)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, bb := range []struct {
		name   string
		packet []byte
	}{{"v4", packet4(1420, 5, 1420)}, {"v6", packet6(1420, 1380)}} {
		b.Run(bb.name, func(b *testing.B) {
			total := 0
			for b.Loop() {
				_, dst, length, ok := Parse(bb.packet)
				if !ok || !dst.IsValid() {
					b.Fatal("refused")
				}
				total += length
			}
		})
	}
}

func BenchmarkSum(b *testing.B) {
	packet := packet4(1420, 5, 1420)
	b.SetBytes(int64(len(packet)))
	var sum uint64
	for b.Loop() {
		sum += Sum(packet, 0)
	}
}
