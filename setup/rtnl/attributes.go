package rtnl

import (
	"encoding/binary"
	"iter"
	"strings"
)

// The flags in an attribute's type (linux/netlink.h).
const (
	flagNested    = 1 << 15
	flagByteOrder = 1 << 14
	typeMask      = ^uint16(flagNested | flagByteOrder)
)

// headerLength is that of an attribute's length and type.
const headerLength = 4

// Attributes builds a sequence of attributes, each padded to four bytes. Numbers are in the host's order unless said otherwise.
type Attributes struct{ b []byte }

// Bytes returns what was built.
func (a *Attributes) Bytes() []byte { return a.b }

// Raw appends what is no attribute, as the fixed head of a message, padded to four bytes.
func (a *Attributes) Raw(b []byte) {
	a.b = append(a.b, b...)
	a.pad()
}

// Put adds an attribute of any content.
func (a *Attributes) Put(kind uint16, value []byte) {
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(headerLength+len(value)))
	a.b = binary.NativeEndian.AppendUint16(a.b, kind)
	a.Raw(value)
}

func (a *Attributes) pad() {
	for len(a.b)%4 != 0 {
		a.b = append(a.b, 0)
	}
}

func (a *Attributes) Uint8(kind uint16, v uint8) { a.Put(kind, []byte{v}) }
func (a *Attributes) Uint16(kind uint16, v uint16) {
	a.Put(kind, binary.NativeEndian.AppendUint16(nil, v))
}
func (a *Attributes) Uint32(kind uint16, v uint32) {
	a.Put(kind, binary.NativeEndian.AppendUint32(nil, v))
}
func (a *Attributes) Uint64(kind uint16, v uint64) {
	a.Put(kind, binary.NativeEndian.AppendUint64(nil, v))
}

// String adds a text with a zero byte behind it.
func (a *Attributes) String(kind uint16, s string) { a.Put(kind, append([]byte(s), 0)) }

// Nest adds an attribute that holds what fill adds.
func (a *Attributes) Nest(kind uint16, fill func(*Attributes)) { a.enclose(kind|flagNested, fill) }

// Enclose is like Nest without the flag that says so, for an attribute which holds the fixed head of a message first.
func (a *Attributes) Enclose(kind uint16, fill func(*Attributes)) { a.enclose(kind, fill) }

func (a *Attributes) enclose(kind uint16, fill func(*Attributes)) {
	start := len(a.b)
	a.b = binary.NativeEndian.AppendUint16(a.b, 0)
	a.b = binary.NativeEndian.AppendUint16(a.b, kind)
	fill(a)
	binary.NativeEndian.PutUint16(a.b[start:], uint16(len(a.b)-start))
}

// All yields the attributes in b by their type, without its flags, up to the first one that is cut off.
func All(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= headerLength {
			length := int(binary.NativeEndian.Uint16(b))
			if length < headerLength || length > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&typeMask, b[headerLength:length]) {
				return
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}

// Parse returns the attributes in b by their type; of those that come twice the last.
func Parse(b []byte) map[uint16][]byte {
	m := make(map[uint16][]byte)
	for kind, value := range All(b) {
		m[kind] = value
	}
	return m
}

// Text is a string up to its zero byte.
func Text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// Uint is the number in an attribute of 1, 2, 4 or 8 bytes; 0 for any other.
func Uint(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	case 8:
		return binary.NativeEndian.Uint64(b)
	}
	return 0
}
