package pathmtu

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"culvert/tunnel/ippacket"
)

// segment returns a TCP segment with the flags and options (padded with end-of-list to words) in an IP packet of the version,
// random otherwise, its checksum right.
func segment(random *rand.Rand, version int, flags byte, options []byte, payload int) []byte {
	options = append(bytes.Clone(options), make([]byte, -len(options)&3)...)
	header := 20
	if version == 6 {
		header = 40
	}
	p := make([]byte, header+20+len(options)+payload)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	if version == 4 {
		p[0] = 0x45
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		p[6], p[7], p[9] = 0x40, 0, 6
	} else {
		p[0] = 0x60
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		p[6] = 6
	}
	tcp := p[header:]
	tcp[12], tcp[13] = byte(5+len(options)/4)<<4, flags
	copy(tcp[20:], options)
	binary.BigEndian.PutUint16(tcp[16:], 0)
	binary.BigEndian.PutUint16(tcp[16:], ^ippacket.Fold(fullSum(p)))
	return p
}

// fullSum returns the sum over TCP segment and pseudo-header, all ones once folded if the checksum is right.
func fullSum(p []byte) uint64 {
	addresses, header := p[12:20], int(p[0]&0x0f)*4
	if p[0]>>4 == 6 {
		addresses, header = p[8:40], 40
	}
	_, _, length, _ := ippacket.Parse(p)
	tcp := p[header:length]
	return ippacket.Sum(tcp, ippacket.Sum(addresses, 6+uint64(len(tcp))))
}

func options(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	syn    = 0x02
	synAck = 0x12
	synECN = 0xc2
)

func TestClampMSS(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name           string
		version        int
		flags          byte
		options, after string // "" where left alone
		mtu            int
	}{
		{"v4", 4, syn, "020405b4", "02040514", 1340},
		{"v6", 6, syn, "020405a0", "02040500", 1340},
		{"SYN-ACK", 4, synAck, "020405b4", "02040514", 1340},
		{"SYN with ECN", 4, synECN, "020405b4", "02040514", 1340},
		{"as Linux sends it", 4, syn, "020405b40402080a010203040000000001030307", "020405140402080a010203040000000001030307", 1340},
		{"at an odd place", 4, syn, "01020405b4", "0102040514", 1340},
		{"at an odd place, v6", 6, syn, "030307020405b4", "03030702040500", 1340},
		{"fits exactly", 4, syn, "02040514", "", 1340},
		{"smaller", 4, syn, "02040218", "", 1340},
		{"one more", 4, syn, "02040515", "02040514", 1340},
		{"largest", 6, syn, "0204ffff", "02040500", 1340},
		{"twice", 4, syn, "020405b401020405b5", "020405140102040514", 1340},
		{"no option", 4, syn, "", "", 1340},
		{"behind the end of options", 4, syn, "00020405b4", "", 1340},
		{"no SYN", 4, 0x10, "020405b4", "", 1340},
		{"RST", 4, 0x04, "020405b4", "", 1340},
		{"wrong length", 4, syn, "020305b4", "", 1340},
		{"longer than the options", 4, syn, "0101010102 04", "", 1340},
		{"length 0 before it", 4, syn, "0800020405b4", "", 1340},
		{"length 1 before it", 4, syn, "0801020405b4", "", 1340},
		{"length beyond the end before it", 4, syn, "08ff020405b4", "", 1340},
		{"kind alone at the end", 4, syn, "01010102", "", 1340},
		{"no room at all", 4, syn, "020405b4", "", 40},
		{"room for one", 4, syn, "020405b4", "02040001", 41},
		{"mtu negative", 6, syn, "020405b4", "", -1},
		{"mtu huge", 4, syn, "0204ffff", "", 1 << 20},
	} {
		opts := options(t, string(bytes.ReplaceAll([]byte(tt.options), []byte(" "), nil)))
		for _, partial := range []bool{false, true} {
			p := segment(random, tt.version, tt.flags, opts, 9)
			p = append(p, 1, 2, 3) // padding
			before := bytes.Clone(p)
			if got := ClampMSS(p, tt.mtu, partial); got != (tt.after != "") {
				t.Fatalf("%s: %v", tt.name, got)
			}
			if tt.after == "" {
				if !bytes.Equal(p, before) {
					t.Fatalf("%s: changed", tt.name)
				}
				continue
			}
			at := len(p) - 3 - 9 - (len(opts)+3)&^3
			if want := options(t, tt.after); !bytes.Equal(p[at:at+len(want)], want) {
				t.Fatalf("%s: options %x, want %x", tt.name, p[at:at+len(want)], want)
			}
			sum := at - 20 + 16
			if partial && !bytes.Equal(p[sum:sum+2], before[sum:sum+2]) {
				t.Fatalf("%s: partial checksum changed", tt.name)
			}
			if !partial && ippacket.Fold(fullSum(p)) != 0xffff {
				t.Fatalf("%s: checksum wrong", tt.name)
			}
			copy(p[sum:sum+2], before[sum:])
			copy(p[at:], opts)
			if !bytes.Equal(p, before) {
				t.Fatalf("%s: more than MSS and checksum changed", tt.name)
			}
		}
	}
}

func TestClampMSSLeavesOthers(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	opts := options(t, "020405b4")
	for name, change := range map[string]func(p []byte){
		"more fragments":       func(p []byte) { p[6] = 0x20 },
		"later fragment":       func(p []byte) { p[7] = 1 },
		"UDP":                  func(p []byte) { p[9] = 17 },
		"header too long":      func(p []byte) { p[20+12] = 0xf0 },
		"header too short":     func(p []byte) { p[20+12] = 0x40 },
		"length in the middle": func(p []byte) { binary.BigEndian.PutUint16(p[2:], 43) },
		"version 5":            func(p []byte) { p[0] = 0x55 },
	} {
		p := segment(random, 4, syn, opts, 0)
		change(p)
		before := bytes.Clone(p)
		if ClampMSS(p, 1340, false) || !bytes.Equal(p, before) {
			t.Errorf("%s: changed", name)
		}
	}
	p := segment(random, 6, syn, opts, 0)
	p[6] = 0 // hop-by-hop options
	if ClampMSS(p, 1340, false) {
		t.Error("extension header: changed")
	}
}

func TestClampMSSBehindIPv4Options(t *testing.T) {
	p := segment(rand.New(rand.NewPCG(5, 6)), 4, syn, options(t, "01020405b4"), 0)
	p = append(append(append([]byte{}, p[:20]...), 1, 1, 1, 1), p[20:]...)
	p[0] = 0x46
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	if !ClampMSS(p, 1340, false) || ippacket.Fold(fullSum(p)) != 0xffff || binary.BigEndian.Uint16(p[24+20+3:]) != 1300 {
		t.Errorf("%x", p)
	}
}

// TestBadChecksumStaysBad: the update keeps the difference between the checksum and the right one.
func TestBadChecksumStaysBad(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for wrong := 1; wrong < 0xffff; wrong += 3 {
		p := segment(random, 4, syn, options(t, "01020405b4"), 5)
		sum := uint32(binary.BigEndian.Uint16(p[36:])) + uint32(wrong)
		binary.BigEndian.PutUint16(p[36:], uint16(sum>>16+sum&0xffff))
		if !ClampMSS(p, 1000, false) {
			t.Fatal("left alone")
		}
		if ippacket.Fold(fullSum(p)) == 0xffff {
			t.Fatalf("a checksum off by %#x became right", wrong)
		}
	}
}

func FuzzClampMSS(f *testing.F) {
	random := rand.New(rand.NewPCG(9, 10))
	f.Add(segment(random, 4, syn, options(f, "020405b4"), 0), 1340, false)
	f.Add(segment(random, 6, synAck, options(f, "01020405b4010303070800"), 3), 1280, false)
	f.Add(segment(random, 4, syn, options(f, "0402020405b4080a000000000000000001"), 0), 600, true)
	f.Add([]byte{}, 0, false)
	f.Fuzz(func(t *testing.T, p []byte, mtu int, partial bool) {
		before := bytes.Clone(p)
		_, _, _, ok := ippacket.Parse(p)
		right := ok && int(p[0]&0x0f)*4 <= len(p) && ippacket.Fold(fullSum(p)) == 0xffff
		changed := ClampMSS(p, mtu, partial)
		if changed == bytes.Equal(p, before) {
			t.Fatalf("changed %v", changed)
		}
		if !changed {
			return
		}
		if !partial && (ippacket.Fold(fullSum(p)) == 0xffff) != right {
			t.Fatalf("the checksum was right: %v, and is no more what it was", right)
		}
		if ClampMSS(p, mtu, partial) {
			t.Fatal("not idempotent")
		}
	})
}

func TestClampMSSAllocatesNothing(t *testing.T) {
	p := segment(rand.New(rand.NewPCG(11, 12)), 4, syn, options(t, "020405b40402080a010203040000000001030307"), 0)
	mtu := 1500
	if n := testing.AllocsPerRun(100, func() {
		mtu--
		if !ClampMSS(p, mtu, false) {
			t.Fatal("left alone")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkClampMSS(b *testing.B) {
	random := rand.New(rand.NewPCG(13, 14))
	for name, p := range map[string][]byte{
		"data": segment(random, 4, 0x10, nil, 1400),
		"syn":  segment(random, 4, syn, options(b, "020405b40402080a010203040000000001030307"), 0),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				ClampMSS(p, 9000, false)
			}
		})
	}
}
