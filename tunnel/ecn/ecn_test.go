package ecn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"culvert/tunnel/ippacket"
)

// header4 returns an IPv4 header with traffic class tos, random otherwise, and a valid checksum.
func header4(random *rand.Rand, tos byte) []byte {
	p := make([]byte, 20)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	p[0], p[1] = 0x45, tos
	binary.BigEndian.PutUint16(p[2:], 20)
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], ^ippacket.Fold(ippacket.Sum(p, 0)))
	return p
}

func header6(random *rand.Rand, class byte) []byte {
	p := make([]byte, 40)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	p[0] = 6<<4 | class>>4
	p[1] = class<<4 | p[1]&0x0f
	return p
}

// TestDecapsulate goes over the whole table of RFC 6040 figure 4, spelled out here in its words rather than taken from the
// implementation.
func TestDecapsulate(t *testing.T) {
	names := map[string]byte{"Not-ECT": 0, "ECT(0)": 2, "ECT(1)": 1, "CE": 3}
	table := []struct{ inner, outer, want string }{
		{"Not-ECT", "Not-ECT", "Not-ECT"}, {"Not-ECT", "ECT(0)", "Not-ECT"}, {"Not-ECT", "ECT(1)", "Not-ECT"}, {"Not-ECT", "CE", "drop"},
		{"ECT(0)", "Not-ECT", "ECT(0)"}, {"ECT(0)", "ECT(0)", "ECT(0)"}, {"ECT(0)", "ECT(1)", "ECT(1)"}, {"ECT(0)", "CE", "CE"},
		{"ECT(1)", "Not-ECT", "ECT(1)"}, {"ECT(1)", "ECT(0)", "ECT(1)"}, {"ECT(1)", "ECT(1)", "ECT(1)"}, {"ECT(1)", "CE", "CE"},
		{"CE", "Not-ECT", "CE"}, {"CE", "ECT(0)", "CE"}, {"CE", "ECT(1)", "CE"}, {"CE", "CE", "CE"},
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, tt := range table {
		for dscp := range 64 {
			inner, outer := byte(dscp)<<2|names[tt.inner], byte(63-dscp)<<2|names[tt.outer]
			for version, packet := range map[int][]byte{4: header4(random, inner), 6: header6(random, inner)} {
				name := fmt.Sprintf("v%d inner %s outer %s dscp %d", version, tt.inner, tt.outer, dscp)
				before := bytes.Clone(packet)
				ok := Decapsulate(packet, outer)
				if ok != (tt.want != "drop") {
					t.Fatalf("%s: ok %v", name, ok)
				}
				if !ok {
					if !bytes.Equal(packet, before) {
						t.Fatalf("%s: changed a packet to drop", name)
					}
					continue
				}
				want := inner&^mask | names[tt.want]
				if got := ippacket.TrafficClass(packet); got != want {
					t.Fatalf("%s: traffic class %#x, want %#x", name, got, want)
				}
				if version == 4 {
					if ippacket.Fold(ippacket.Sum(packet, 0)) != 0xffff {
						t.Fatalf("%s: bad checksum after the update", name)
					}
					packet[1], before[1] = 0, 0
					copy(packet[10:12], before[10:12])
				} else {
					packet[0], before[0] = packet[0]&0xf0, before[0]&0xf0
					packet[1], before[1] = packet[1]&0x0f, before[1]&0x0f
				}
				if !bytes.Equal(packet, before) {
					t.Fatalf("%s: other fields changed", name)
				}
			}
		}
	}
}

func TestBadChecksumStaysBad(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for wrong := 1; wrong < 0xffff; wrong++ {
		packet := header4(random, ECT0)
		good := binary.BigEndian.Uint16(packet[10:])
		// In one's complement 0xffff is the same as adding nothing, which is why wrong stops short of it.
		sum := uint32(good) + uint32(wrong)
		binary.BigEndian.PutUint16(packet[10:], uint16(sum>>16+sum&0xffff))
		if !Decapsulate(packet, CE) {
			t.Fatal("dropped")
		}
		if ippacket.Fold(ippacket.Sum(packet, 0)) == 0xffff {
			t.Fatalf("a checksum off by %#x became valid", wrong)
		}
	}
}

func TestOuter(t *testing.T) {
	for inner := range 256 {
		if got, want := Outer(byte(inner)), byte(inner%4); got != want {
			t.Errorf("Outer(%#x) = %#x, want %#x", inner, got, want)
		}
	}
}

func TestDecapsulateRefusesWhatIsNotIP(t *testing.T) {
	for _, packet := range [][]byte{nil, {0x45}, make([]byte, 19), make([]byte, 40), bytes.Repeat([]byte{0x55}, 40)} {
		before := bytes.Clone(packet)
		if Decapsulate(packet, CE) || !bytes.Equal(packet, before) {
			t.Errorf("accepted or changed %x", before)
		}
	}
}

func FuzzDecapsulate(f *testing.F) {
	random := rand.New(rand.NewPCG(5, 6))
	f.Add(header4(random, ECT0), byte(CE))
	f.Add(header6(random, ECT1), byte(ECT0))
	f.Add([]byte{}, byte(0))
	f.Fuzz(func(t *testing.T, packet []byte, outer byte) {
		before := bytes.Clone(packet)
		valid := len(packet) >= 20 && packet[0] == 0x45 && ippacket.Fold(ippacket.Sum(packet[:20], 0)) == 0xffff
		if !Decapsulate(packet, outer) {
			if !bytes.Equal(packet, before) {
				t.Fatal("changed a packet to drop")
			}
			return
		}
		if (ippacket.TrafficClass(packet)^ippacket.TrafficClass(before))&^mask != 0 {
			t.Fatal("DSCP changed")
		}
		if valid && ippacket.Fold(ippacket.Sum(packet[:20], 0)) != 0xffff {
			t.Fatal("a valid checksum became invalid")
		}
		// Once merged, the same outer field changes nothing further.
		once := bytes.Clone(packet)
		if !Decapsulate(packet, outer) || !bytes.Equal(packet, once) {
			t.Fatal("not idempotent")
		}
	})
}

func TestAllocatesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	v4, v6 := header4(random, ECT0), header6(random, ECT0)
	if n := testing.AllocsPerRun(100, func() {
		v4[1], v6[1] = ECT0, ECT0<<4
		Decapsulate(v4, CE)
		Decapsulate(v6, CE)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecapsulate(b *testing.B) {
	packet := header4(rand.New(rand.NewPCG(9, 10)), ECT0)
	for b.Loop() {
		packet[1] = ECT0
		if !Decapsulate(packet, CE) {
			b.Fatal("dropped")
		}
	}
}
