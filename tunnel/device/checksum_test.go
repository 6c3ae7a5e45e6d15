package device

import (
	"math/rand/v2"
	"testing"
)

// naiveChecksum is RFC 1071, section 4.1, over big-endian words.
func naiveChecksum(parts ...[]byte) uint16 {
	var sum uint64
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			v := uint64(b[i]) << 8
			if i+1 < len(b) {
				v |= uint64(b[i+1])
			}
			sum += v
		}
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func TestChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for length := range 600 {
		for range 8 {
			b := make([]byte, length)
			for i := range b {
				b[i] = byte(r.Uint32()) | byte(-(r.Uint32() & 1)) // many ff, for carries
			}
			start := uint64(r.Uint32()) << (r.Uint32() % 33)
			var stored [2]byte
			putField(stored[:], 0, ^fold(checksum(0, b)))
			if got, want := uint16(stored[0])<<8|uint16(stored[1]), naiveChecksum(b); got != want {
				t.Fatalf("length %d: %04x, want %04x", length, got, want)
			}
			if got, want := fold(checksum(start, b)), fold(plus(start, checksum(0, b))); got != want {
				t.Fatalf("length %d, from %x: %04x, want %04x", length, start, got, want)
			}
		}
	}
}

func TestChecksumCarries(t *testing.T) {
	b := make([]byte, 4096)
	for i := range b {
		b[i] = 0xff
	}
	for length := 0; length <= len(b); length += 2 {
		for _, start := range []uint64{0, 1, 1<<64 - 1, 1<<64 - 2, 1 << 63} {
			want := fold(start)
			if length > 0 && want == 0 {
				want = 0xffff
			}
			if got := fold(checksum(start, b[:length])); got != want {
				t.Fatalf("%d bytes ff from %x: %04x, want %04x", length, start, got, want)
			}
		}
	}
}

func TestMinus(t *testing.T) {
	for _, v := range []uint16{0, 1, 0x1234, 0xff00, 0xffff} {
		if got := fold(word(0x4321) + word(v) + minus(v)); got != fold(word(0x4321)) {
			t.Errorf("adding and taking out %04x leaves %04x", v, got)
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"60", 60}, {"1400", 1400}, {"64KiB", 65536}} {
		b.Run(size.name, func(b *testing.B) {
			data := make([]byte, size.bytes)
			b.SetBytes(int64(size.bytes))
			var sum uint64
			for b.Loop() {
				sum = checksum(sum, data)
			}
		})
	}
}
