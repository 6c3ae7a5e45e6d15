package model

import (
	"strconv"
	"strings"
	"time"

	"culvert/setup/spec"
)

// Value is a field's canonical text: two values are equal exactly where their texts are. Its form is that of the field's [Form]; the
// constructors make it, the methods read it back.
type Value string

func Bool(b bool) Value {
	if b {
		return "yes"
	}
	return "no"
}
func Uint[T ~uint8 | ~uint16 | ~uint32 | ~uint64](v T) Value {
	return Value(strconv.FormatUint(uint64(v), 10))
}
func Int[T ~int | ~int32 | ~int64](v T) Value { return Value(strconv.FormatInt(int64(v), 10)) }
func Duration(d time.Duration) Value          { return Value(d.String()) }
func Text(s string) Value                     { return Value(s) }
func Link(r Ref) Value                        { return Value(r) }
func MAC(m spec.MAC) Value                    { return Value(m.String()) }
func Rate(r spec.BitRate) Value               { return Value(r.String()) }
func Bytes(s spec.Size) Value                 { return Value(s.String()) }

// List joins words, which contain no spaces, in the order given: sort them first where the kernel keeps none.
func List(words []string) Value { return Value(strings.Join(words, " ")) }

func (v Value) Bool() bool { return v == "yes" }

// Uint returns a number that [Uint] wrote, 0 for anything else.
func (v Value) Uint() uint64 {
	n, _ := strconv.ParseUint(string(v), 10, 64)
	return n
}

// Int returns a number that [Int] wrote, 0 for anything else.
func (v Value) Int() int64 {
	n, _ := strconv.ParseInt(string(v), 10, 64)
	return n
}

func (v Value) Duration() time.Duration {
	d, _ := time.ParseDuration(string(v))
	return d
}

func (v Value) Rate() spec.BitRate {
	r, _ := spec.ParseBitRate(string(v))
	return r
}

func (v Value) Bytes() spec.Size {
	s, _ := spec.ParseSize(string(v))
	return s
}

// List returns the words; none for the empty text.
func (v Value) List() []string { return strings.Fields(string(v)) }
func (v Value) Link() Ref      { return Ref(v) }
func (v Value) String() string { return string(v) }

func (v Value) MAC() spec.MAC {
	m, _ := spec.ParseMAC(string(v))
	return m
}
