package payload

import (
	"bytes"
	"testing"
)

func TestKinds(t *testing.T) {
	for kind := range Kind(16) {
		_, _, ok := Split([]byte{1, Trailer(kind, 0)})
		if want := kind >= 1 && kind <= 7; ok != want {
			t.Errorf("%v: accepted %v", kind, ok)
		}
	}
	seen := map[string]bool{}
	for kind := range Kind(20) {
		seen[kind.String()] = true
	}
	if len(seen) != 20 || seen[""] || !seen["fragment"] || !seen["unknown kind 8"] {
		t.Errorf("names: %v", seen)
	}
}

func TestSplit(t *testing.T) {
	for _, test := range []struct {
		plaintext string
		kind      Kind
		content   string
	}{
		{"", 0, ""},
		{"\x10", 0, ""},     // no content
		{"\x00\x11", 0, ""}, // nothing but padding
		{"x\x11", 0, ""},    // likewise
		{"x\x12", 0, ""},    // padding reaches in front of the plaintext
		{"x\x1f", 0, ""},    //
		{"x\x00", 0, ""},    // no such kind
		{"x\x80", 0, ""},    //
		{"x\xf0", 0, ""},    //
		{"x\x10", IP, "x"},  //
		{"xy\x61", Control, "x"},
		{"xy\x71", Path, "x"},
		{"xyz\x00\x00\x52", Fragment, "xyz"},
		{"abcdefghijklmnop\x4f", EthernetElided, "a"},
		{"abcdefghijklmno\x4f", 0, ""},
	} {
		kind, content, ok := Split([]byte(test.plaintext))
		if kind != test.kind || string(content) != test.content || ok != (test.kind != 0) {
			t.Errorf("%q: %v, %q, %v", test.plaintext, kind, content, ok)
		}
	}
}

func TestPadding(t *testing.T) {
	for _, test := range []struct{ n, limit, want int }{
		{1, 100, 14}, {14, 100, 1}, {15, 100, 0}, {16, 100, 15}, {31, 100, 0},
		{1, 16, 14}, {1, 15, 13}, {1, 2, 0}, {1, 1, 0}, {1, 0, 0}, {1, -100, 0},
		{1280, 1300, 15}, {1280, 1290, 9}, {1280, 1281, 0}, {1280, 1200, 0},
	} {
		if got := Padding(test.n, test.limit); got != test.want {
			t.Errorf("Padding(%d, %d) = %d, want %d", test.n, test.limit, got, test.want)
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	b := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		p := Padding(50, 90)
		b[50+p] = Trailer(Ethernet, p)
		if _, _, ok := Split(b[:50+p+1]); !ok {
			panic("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSplit: whatever is accepted is what Trailer makes of the parts, and the other way round.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("content\x00\x00\x12"), 20)
	f.Add([]byte("\x10"), 0)
	f.Add([]byte("x\x60"), 2)
	f.Add(bytes.Repeat([]byte{0x4f}, 17), 16)
	f.Fuzz(func(t *testing.T, plaintext []byte, limit int) {
		if kind, content, ok := Split(plaintext); ok {
			padding := len(plaintext) - len(content) - TrailerSize
			if len(content) == 0 || padding > MaxPadding || plaintext[len(plaintext)-1] != Trailer(kind, padding) ||
				!bytes.HasPrefix(plaintext, content) || cap(content) != len(content) {
				t.Fatalf("%x: %v, %x", plaintext, kind, content)
			}
		} else if len(content) > 0 || kind != 0 {
			t.Fatal("results of a refused plaintext")
		}
		n := len(plaintext)
		if n == 0 || limit > 1<<20 || limit < -1<<20 {
			return
		}
		p := Padding(n, limit)
		whole := n + p + TrailerSize
		switch {
		case p < 0 || p > MaxPadding, p > 0 && whole > limit:
			t.Fatalf("Padding(%d, %d) = %d", n, limit, p)
		case whole%16 != 0 && whole < limit:
			t.Fatalf("Padding(%d, %d) = %d although more would fit", n, limit, p)
		}
		for kind := IP; kind <= Control; kind++ {
			b := append(append(bytes.Clone(plaintext), make([]byte, p)...), Trailer(kind, p))
			if k, content, ok := Split(b); !ok || k != kind || !bytes.Equal(content, plaintext) {
				t.Fatalf("%v comes back as %v", kind, k)
			}
		}
	})
}
