package fragment

import (
	"bytes"
	"testing"

	"culvert/tunnel/payload"
)

func TestCount(t *testing.T) {
	for _, test := range []struct {
		n, limit, count, size int // count 0: refused
	}{
		{0, 1000, 0, 0},
		{-1, 1000, 0, 0},
		{1, Overhead, 0, 0},
		{1, -5, 0, 0},
		{1, Overhead + 1, 1, 1},
		{994, 1000, 1, 994},
		{995, 1000, 2, 498},
		{1421, 1200, 2, 711},
		{9001, 1200, 8, 1126},
		{128, Overhead + 1, 128, 1},
		{129, Overhead + 1, 0, 0},
		{MaxPlaintext, 1200, 55, 1192},
		{MaxPlaintext, 518, 128, 512},
		{MaxPlaintext, 517, 0, 0},
		{MaxPlaintext + 1, 9000, 0, 0},
	} {
		count, size, ok := Count(test.n, test.limit)
		if count != test.count || size != test.size || ok != (test.count > 0) {
			t.Errorf("Count(%d, %d) = %d, %d, %v", test.n, test.limit, count, size, ok)
		}
	}
}

// All pieces but the last are equal, the last is neither longer nor empty, there is no way with fewer, and with as many none
// with shorter pieces.
func TestCountIsEven(t *testing.T) {
	for n := 1; n < 3000; n++ {
		for limit := Overhead + 1; limit < 200; limit++ {
			count, size, ok := Count(n, limit)
			if fewest := (n + limit - Overhead - 1) / (limit - Overhead); ok != (fewest <= MaxCount) || ok && count != fewest {
				t.Fatalf("Count(%d, %d) = %d, %v; %d would do", n, limit, count, ok, fewest)
			}
			if !ok {
				continue
			}
			if last := n - (count-1)*size; last < 1 || last > size || size+Overhead > limit || count*(size-1) >= n {
				t.Fatalf("Count(%d, %d) = %d, %d: the last has %d bytes", n, limit, count, size, last)
			}
		}
	}
}

func TestTail(t *testing.T) {
	dst := bytes.Repeat([]byte{0xaa}, MaxTail+1)
	if n := PutTail(dst, 0x04030201, 5, true, 2); n != 8 || !bytes.Equal(dst[:9], []byte("\x01\x02\x03\x04\x85\x00\x00\x52\xaa")) {
		t.Errorf("%d bytes: %x", n, dst[:9])
	}
	if n := PutTail(dst, 0, 127, false, payload.MaxPadding); n != MaxTail || dst[4] != 127 || dst[MaxTail] != 0xaa {
		t.Errorf("%d bytes: %x", n, dst)
	}
	for _, content := range []string{"", "x", "1234\x80"} {
		if _, _, _, _, ok := ParseTail([]byte(content)); ok {
			t.Errorf("%q accepted", content)
		}
	}
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("piece"), uint32(1), uint8(0), true, uint8(3))
	f.Add([]byte("12345\x81"), uint32(1<<31), uint8(127), false, uint8(15))
	f.Add([]byte("12345\x00\x00\x52"), uint32(7), uint8(200), false, uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, id uint32, index uint8, last bool, padding uint8) {
		if kind, content, ok := payload.Split(b); ok && kind == payload.Fragment {
			if piece, id, index, last, ok := ParseTail(content); ok { // cut it out again
				padding := len(b) - len(content) - payload.TrailerSize
				again := append(bytes.Clone(piece), make([]byte, MaxTail)...)
				n := PutTail(again[len(piece):], id, index, last, padding)
				copy(b[len(content):], make([]byte, padding))
				if again = again[:len(piece)+n]; !bytes.Equal(again, b) {
					t.Fatalf("%x became %x", b, again)
				}
			} else if len(content) > TailSize {
				t.Fatal("refused")
			}
		}
		if len(b) == 0 {
			return
		}
		padding %= payload.MaxPadding + 1
		whole := append(bytes.Clone(b), make([]byte, MaxTail)...)
		whole = whole[:len(b)+PutTail(whole[len(b):], id, index, last, int(padding))]
		kind, content, ok := payload.Split(whole)
		if !ok || kind != payload.Fragment {
			t.Fatalf("%v, %v", kind, ok)
		}
		piece, gotID, gotIndex, gotLast, ok := ParseTail(content)
		if !ok || !bytes.Equal(piece, b) || gotID != id || gotIndex != index&127 || gotLast != last {
			t.Fatalf("%x %d %d %v %v", piece, gotID, gotIndex, gotLast, ok)
		}
	})
}
