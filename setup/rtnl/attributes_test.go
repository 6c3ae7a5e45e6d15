package rtnl

import (
	"bytes"
	"testing"
)

func TestAttributes(t *testing.T) {
	var a Attributes
	a.Raw([]byte{1, 2, 3})
	a.Uint8(1, 7)
	a.Uint16(2, 0x1234)
	a.Uint32(3, 0x12345678)
	a.Uint64(4, 1<<40)
	a.String(5, "veth0")
	a.Nest(6, func(a *Attributes) {
		a.Put(1, []byte("inner"))
		a.Nest(2, func(*Attributes) {})
	})
	a.Enclose(7, func(a *Attributes) { a.Raw([]byte{9}) })
	if len(a.Bytes())%4 != 0 {
		t.Errorf("%d bytes are not padded", len(a.Bytes()))
	}
	m := Parse(a.Bytes()[4:])
	for kind, want := range map[uint16]uint64{1: 7, 2: 0x1234, 3: 0x12345678, 4: 1 << 40} {
		if got := Uint(m[kind]); got != want {
			t.Errorf("attribute %d is %#x, want %#x", kind, got, want)
		}
	}
	if got := Text(m[5]); got != "veth0" {
		t.Errorf("text %q", got)
	}
	inner := Parse(m[6])
	if !bytes.Equal(inner[1], []byte("inner")) || inner[2] == nil || len(inner[2]) != 0 {
		t.Errorf("inner %v", inner)
	}
	if !bytes.Equal(m[7], []byte{9, 0, 0, 0}) {
		t.Errorf("enclosed %v", m[7])
	}
	if Uint([]byte{1, 2, 3}) != 0 {
		t.Error("a number of three bytes")
	}
}

// FuzzAll gives the parser anything: it must end, stay inside, and yield what it is told.
func FuzzAll(f *testing.F) {
	var a Attributes
	a.Nest(3, func(a *Attributes) { a.String(1, "x") })
	f.Add(a.Bytes())
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{5, 0, 1, 0, 9})
	f.Add([]byte{0xff, 0xff, 1, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for kind, value := range All(b) {
			total += headerLength + len(value)
			if kind&(flagNested|flagByteOrder) != 0 {
				t.Errorf("flags are left in %#x", kind)
			}
		}
		if total > len(b) {
			t.Errorf("%d bytes of %d", total, len(b))
		}
	})
}
