package message

import (
	"bytes"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// FuzzDecode checks that whatever is accepted is in range, and comes out the same when encoded and decoded again.
func FuzzDecode(f *testing.F) {
	for _, tt := range examples {
		f.Add(unhex(f, tt.encoded))
	}
	probe, _ := EncodeProbe(nil, 3, 100)
	f.Add(probe)
	f.Add(unhex(f, "83 02 00 a6 01 01 09 a1 61 61 f5 20 f6 0a 61 61 0b 41 00 1903e8 f4"))
	f.Add(unhex(f, "83 1bffffffffffffffff 05 a1 01 81 01"))
	f.Fuzz(func(t *testing.T, content []byte) {
		before := bytes.Clone(content)
		number, m, err := Decode(content)
		if !bytes.Equal(content, before) {
			t.Fatal("changed its input")
		}
		if err != nil {
			if number != 0 || m != nil {
				t.Fatalf("%v with %d %#v", err, number, m)
			}
			return
		}
		if u, ok := m.(Unknown); ok {
			if u.Code >= TypeHello && u.Code <= TypeMoved {
				t.Fatalf("known type %d came out unknown", u.Code)
			}
			return
		}
		once, err := Encode(nil, number, m)
		if err != nil {
			t.Fatalf("%#v was decoded and cannot be encoded: %v", m, err)
		}
		if len(once) > MaxSize {
			t.Fatalf("%d bytes", len(once))
		}
		if m.Type() != TypeProbe && len(once) > len(content) {
			t.Fatalf("the shortest form %x is longer than %x", once, content)
		}
		number2, m2, err := Decode(once)
		if err != nil || number2 != number || !reflect.DeepEqual(m2, m) {
			t.Fatalf("%d %#v became %d %#v, %v", number, m, number2, m2, err)
		}
		if twice, err := Encode(nil, number2, m2); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x became %x, %v", once, twice, err)
		}
	})
}

// allocated returns the bytes that decoding content takes, the least of a few runs.
func allocated(content []byte) (least uint64) {
	least = 1 << 62
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 10 {
			Decode(content)
		}
		runtime.ReadMemStats(&after)
		least = min(least, (after.TotalAlloc-before.TotalAlloc)/10)
	}
	return least
}

// TestMemoryIsBoundedByInput gives the decoder what declares much, and what is many small things.
func TestMemoryIsBoundedByInput(t *testing.T) {
	// Sixteen keys with nests of sixteen in sixteen, all within the bounds.
	inner := "90" + strings.Repeat("a0", 16)
	nest := "90" + strings.Repeat(inner, 16)
	var wide strings.Builder
	wide.WriteString("83 0a 00 b0")
	for key := range 16 {
		fmt.Fprintf(&wide, "%02x %s", key, nest)
	}
	for name, encoded := range map[string]string{
		"nothing":     "",
		"huge array":  "9b7fffffffffffffff",
		"array 2^32":  "9affffffff",
		"huge map":    "83 02 00 bb7fffffffffffffff 01 01",
		"huge text":   "83 07 01 a2 01 7b7fffffffffffffff 61",
		"huge bytes":  "83 07 01 a2 01 61 61 02 5b7fffffffffffffff 00",
		"64 KiB text": "83 07 01 a2 01 61 61 02 59ffff 00",
		"deep arrays": strings.Repeat("81", MaxSize),
		"deep maps":   "83 0a 00 " + strings.Repeat("a101", MaxSize/2-3),
		"wide arrays": strings.Repeat("90", MaxSize),
		"tags":        strings.Repeat("c1", MaxSize),
		"nests":       wide.String(),
		"many zeros":  strings.Repeat("00", MaxProbe),
		"long probe":  "83 05 00 a1 01 01" + strings.Repeat("00", MaxProbe-6),
		"document":    "83 07 01 a2 01 61 61 02 593c00" + strings.Repeat("61", MaxDocument),
		"16 keys":     "83 02 00 b0 0101 0201 0301 0401 0501 0601 0701 0801 0901 0a01 0b01 0c01 0d01 0e01 0f01 1001",
	} {
		content := unhex(t, encoded)
		// Envelope, body, field and result are each a copy at most; the map of 16 keys and the library's own structures are
		// the constant.
		if got, bound := allocated(content), uint64(4*len(content)+4096); got > bound {
			t.Errorf("%s: %d bytes allocated for %d, bound %d", name, got, len(content), bound)
		}
		if n := testing.AllocsPerRun(20, func() { Decode(content) }); n > 100 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
