package message

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// examples are messages and their only encoding, written out by hand after RFC 8949.
var examples = []struct {
	number  uint64
	message Message
	encoded string
}{
	{1, Hello{Agent: "culvert/1", MTU: 1420, Layer: LayerIP}, "83 01 01 a3 01 69 63756c766572742f31 02 19058c 03 03"},
	{300, Hello{Layer: LayerEthernet}, "83 01 19012c a3 01 60 02 00 03 02"},
	{1, Hello{Layer: LayerEthernet, Relays: true}, "83 01 01 a4 01 60 02 00 03 02 04 01"},
	{0, Ack{Number: 24}, "83 02 00 a1 01 1818"},
	{0, Echo{ID: 7, Sent: 70000}, "83 03 00 a2 01 07 02 1a00011170"},
	{0, Reply{ID: 7, Received: 69999}, "83 04 00 a2 01 07 02 1a0001116f"},
	{0, Probe{ID: 0}, "83 05 00 a1 01 00"},
	{0, Probed{ID: math.MaxUint64}, "83 06 00 a1 01 1bffffffffffffffff"},
	{2, Push{Subject: "routes", Document: []byte{0xde, 0xad}}, "83 07 02 a2 01 66 726f75746573 02 42 dead"},
	{math.MaxUint64, Push{Subject: "é", Document: []byte{}}, "83 07 1bffffffffffffffff a2 01 62 c3a9 02 40"},
	{0, Goodbye{Reason: ReasonStopping}, "83 08 00 a1 01 01"},
	{0, Moved{Hops: MaxHops}, "83 09 00 a1 01 10"},
}

func TestExamples(t *testing.T) {
	for _, tt := range examples {
		want := unhex(t, tt.encoded)
		got, err := Encode([]byte("before"), tt.number, tt.message)
		if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("%#v: %x, %v, want %x", tt.message, got, err, want)
		}
		number, m, err := Decode(want)
		if err != nil || number != tt.number || !reflect.DeepEqual(m, tt.message) {
			t.Errorf("%x: %d %#v, %v, want %d %#v", want, number, m, err, tt.number, tt.message)
		}
	}
}

func TestEveryTypeHasAnExample(t *testing.T) {
	seen := map[Type]bool{}
	for _, tt := range examples {
		seen[tt.message.Type()] = true
	}
	for c := TypeHello; c <= TypeMoved; c++ {
		if !seen[c] {
			t.Errorf("type %d has none", c)
		}
	}
}

func TestDecode(t *testing.T) {
	text := func(n int) string { return fmt.Sprintf("78%02x%s", n, strings.Repeat("61", n)) }
	for _, tt := range []struct {
		name, encoded string
		want          error
	}{
		{"empty", "", ErrMalformed},
		{"not an array", "a0", ErrMalformed},
		{"two elements", "82 02 00", ErrMalformed},
		{"four elements", "84 02 00 a1 01 01 00", ErrMalformed},
		{"body no map", "83 02 00 81 01", ErrMalformed},
		{"body null", "83 02 00 f6", ErrMalformed},
		{"type negative", "83 20 00 a0", ErrMalformed},
		{"type text", "83 61 61 00 a0", ErrMalformed},
		{"type null", "83 f6 00 a0", ErrMalformed},
		{"number null", "83 02 f6 a1 01 01", ErrMalformed},
		{"number float", "83 02 f90000 a1 01 01", ErrMalformed},
		{"truncated", "83 02 00 a1 01 19 01", ErrMalformed},
		{"indefinite array", "9f 02 00 a1 01 01 ff", ErrMalformed},
		{"indefinite map", "83 02 00 bf 01 01 ff", ErrMalformed},
		{"indefinite text", "83 07 01 a2 01 7f 61 61 ff 02 40", ErrMalformed},
		{"indefinite text of an unknown key", "83 02 00 a2 01 01 09 7f 61 61 ff", ErrMalformed},
		{"tag around all", "d9d9f7 83 02 00 a1 01 01", ErrMalformed},
		{"tag around a value", "83 02 00 a1 01 c2 41 01", ErrMalformed},
		{"tag of an unknown key", "83 02 00 a2 01 01 09 c1 00", ErrMalformed},
		{"float of an unknown key", "83 02 00 a2 01 01 09 f93c00", ErrMalformed},
		{"float deep in an unknown key", "83 02 00 a2 01 01 09 81 fb3ff0000000000000", ErrMalformed},
		{"undefined of an unknown key", "83 02 00 a2 01 01 09 f7", ErrMalformed},
		{"simple value of an unknown key", "83 02 00 a2 01 01 09 f820", ErrMalformed},
		{"bad UTF-8 of an unknown key", "83 02 00 a2 01 01 09 62 c328", ErrMalformed},
		{"key twice", "83 02 00 a2 01 01 01 02", ErrMalformed},
		{"key twice, the second in a longer form", "83 02 00 a2 01 01 1801 02", ErrMalformed},
		{"unknown key twice", "83 02 00 a3 01 01 09 01 09 02", ErrMalformed},
		{"text key", "83 02 00 a2 01 01 61 61 01", ErrMalformed},
		{"bytes key", "83 02 00 a2 01 01 41 61 01", ErrMalformed},
		{"key of 64 bits and a sign", "83 02 00 a2 01 01 3bffffffffffffffff 01", ErrMalformed},
		{"17 keys", "83 02 00 b1 0101 0201 0301 0401 0501 0601 0701 0801 0901 0a01 0b01 0c01 0d01 0e01 0f01 1001 1101", ErrMalformed},
		{"16 keys", "83 02 00 b0 0101 0201 0301 0401 0501 0601 0701 0801 0901 0a01 0b01 0c01 0d01 0e01 0f01 1001", nil},
		{"array of 17 in an unknown key", "83 02 00 a2 01 01 09 91" + strings.Repeat("00", 17), ErrMalformed},
		{"nested 4 deep", "83 02 00 a2 01 01 09 81 81 00", nil},
		{"nested 5 deep", "83 02 00 a2 01 01 09 81 81 81 00", ErrMalformed},
		{"huge array", "9bffffffffffffffff", ErrMalformed},
		{"huge map", "83 02 00 bb7fffffffffffffff", ErrMalformed},
		{"huge text", "83 07 01 a2 01 7b7fffffffffffffff", ErrMalformed},
		{"huge bytes", "83 07 01 a2 01 61 61 02 5bffffffffffffffff", ErrMalformed},

		{"unknown keys", "83 02 00 a6 01 01 09 a1 61 61 f5 20 f6 0a 61 61 0b 41 00 1903e8 f4", nil},
		{"longer forms than needed", "83 1802 190000 a1 1a00000001 1b0000000000000001", nil},
		{"keys in any order", "83 03 00 a2 02 01 01 02", nil},
		{"unknown type", "83 0a 00 a0", nil},
		{"unknown numbered type", "83 1bffffffffffffffff 05 a1 01 81 01", nil},
		{"unknown type with a float", "83 0a 00 a1 01 f93c00", ErrMalformed},
		{"trailing byte", "83 02 00 a1 01 01 00", ErrTrailing},
		{"probe and zeros", "83 05 00 a1 01 01 0000000000", nil},
		{"probe and others", "83 05 00 a1 01 01 0000000001", ErrTrailing},

		{"hello unnumbered", "83 01 00 a3 01 60 02 00 03 03", ErrNumber},
		{"ack numbered", "83 02 01 a1 01 01", ErrNumber},
		{"push unnumbered", "83 07 00 a2 01 61 61 02 40", ErrNumber},
		{"ack of 0", "83 02 00 a1 01 00", ErrField},
		{"ack without", "83 02 00 a0", ErrField},
		{"ack null", "83 02 00 a1 01 f6", ErrField},
		{"ack false", "83 02 00 a1 01 f4", ErrField},
		{"ack bytes", "83 02 00 a1 01 41 01", ErrField},
		{"ack negative", "83 02 00 a1 01 20", ErrField},
		{"echo without count", "83 03 00 a1 01 01", ErrField},
		{"agent of 64", "83 01 01 a3 01 " + text(64) + " 02 00 03 03", nil},
		{"agent of 65", "83 01 01 a3 01 " + text(65) + " 02 00 03 03", ErrField},
		{"agent with escape", "83 01 01 a3 01 62 1b5b 02 00 03 03", ErrField},
		{"agent with newline", "83 01 01 a3 01 61 0a 02 00 03 03", ErrField},
		{"agent with C1 control", "83 01 01 a3 01 62 c29b 02 00 03 03", ErrField},
		{"agent right to left", "83 01 01 a3 01 63 e280ae 02 00 03 03", ErrField},
		{"agent with bad UTF-8", "83 01 01 a3 01 62 c328 02 00 03 03", ErrMalformed},
		{"agent bytes", "83 01 01 a3 01 41 61 02 00 03 03", ErrField},
		{"MTU 65535", "83 01 01 a3 01 60 02 19ffff 03 03", nil},
		{"MTU 65536", "83 01 01 a3 01 60 02 1a00010000 03 03", ErrField},
		{"MTU of 64 bits", "83 01 01 a3 01 60 02 1bffffffffffffffff 03 03", ErrField},
		{"MTU negative", "83 01 01 a3 01 60 02 20 03 03", ErrField},
		{"layer 1", "83 01 01 a3 01 60 02 00 03 01", ErrField},
		{"layer 259", "83 01 01 a3 01 60 02 00 03 190103", ErrField},
		{"flags not known", "83 01 01 a4 01 60 02 00 03 02 04 1903e8", nil},
		{"flags negative", "83 01 01 a4 01 60 02 00 03 02 04 20", ErrField},
		{"flags text", "83 01 01 a4 01 60 02 00 03 02 04 61 61", ErrField},
		{"16 hops", "83 09 00 a1 01 10", nil},
		{"17 hops", "83 09 00 a1 01 11", ErrField},
		{"hops missing", "83 09 00 a0", ErrField},
		{"subject empty", "83 07 01 a2 01 60 02 40", ErrField},
		{"subject of 32", "83 07 01 a2 01 " + text(32) + " 02 40", nil},
		{"subject of 33", "83 07 01 a2 01 " + text(33) + " 02 40", ErrField},
		{"document an array", "83 07 01 a2 01 61 61 02 81 00", ErrField},
		{"document null", "83 07 01 a2 01 61 61 02 f6", ErrField},
		{"document text", "83 07 01 a2 01 61 61 02 61 61", ErrField},
		{"document of 15 KiB", "83 07 01 a2 01 61 61 02 593c00" + strings.Repeat("00", MaxDocument), nil},
		{"document of 15 KiB and 1", "83 07 01 a2 01 61 61 02 593c01" + strings.Repeat("00", MaxDocument+1), ErrField},
		{"message of 16 KiB", "83 0a 00 a1 01 593ff8" + strings.Repeat("00", MaxSize-8), nil},
		{"message of 16 KiB and 1", "83 0a 00 a1 01 593ff9" + strings.Repeat("00", MaxSize-7), ErrTooLarge},
		{"16 KiB and zeros behind", "83 02 00 a1 01 01" + strings.Repeat("00", MaxSize), ErrTooLarge},
		{"largest probe", "83 05 00 a1 01 01" + strings.Repeat("00", MaxProbe-6), nil},
		{"larger than any probe", "83 05 00 a1 01 01" + strings.Repeat("00", MaxProbe-5), ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			number, m, err := Decode(unhex(t, tt.encoded))
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if (err == nil) != (m != nil) || err != nil && number != 0 {
				t.Fatalf("%d %#v with %v", number, m, err)
			}
		})
	}
}

func TestUnknownTypeComesOutWithItsNumber(t *testing.T) {
	number, m, err := Decode(unhex(t, "83 1903e7 05 a1 01 81 01"))
	if err != nil || number != 5 || m != (Unknown{999}) || m.Type() != 999 {
		t.Errorf("%d %#v %v", number, m, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, tt := range []struct {
		number  uint64
		message Message
		want    error
	}{
		{0, nil, ErrType},
		{1, Unknown{10}, ErrType},
		{0, Hello{Layer: LayerIP}, ErrNumber},
		{0, Push{Subject: "a"}, ErrNumber},
		{1, Ack{1}, ErrNumber},
		{1, Goodbye{}, ErrNumber},
		{0, Ack{}, ErrField},
		{1, Hello{}, ErrField},
		{1, Hello{Layer: LayerIP, MTU: -1}, ErrField},
		{1, Hello{Layer: LayerIP, MTU: MaxMTU + 1}, ErrField},
		{1, Hello{Layer: LayerIP, Agent: strings.Repeat("a", MaxAgent+1)}, ErrField},
		{1, Hello{Layer: LayerIP, Agent: "\x1b[31m"}, ErrField},
		{1, Hello{Layer: LayerIP, Agent: "\xff"}, ErrField},
		{1, Push{}, ErrField},
		{1, Push{Subject: strings.Repeat("a", MaxSubject+1)}, ErrField},
		{1, Push{Subject: "a", Document: make([]byte, MaxDocument+1)}, ErrField},
	} {
		if out, err := Encode([]byte{1}, tt.number, tt.message); !errors.Is(err, tt.want) || !bytes.Equal(out, []byte{1}) {
			t.Errorf("%d %#v: %x, %v, want %v", tt.number, tt.message, out, err, tt.want)
		}
	}
}

func TestProbe(t *testing.T) {
	for _, id := range []uint64{0, 23, 24, 1 << 40, math.MaxUint64} {
		for _, size := range []int{MinProbe, MinProbe + 1, 1200, MaxSize, MaxSize + 1, MaxProbe} {
			dirty := bytes.Repeat([]byte{0xff}, 3+size)
			out, err := EncodeProbe(dirty[:3], id, size)
			if err != nil || len(out) != 3+size || !bytes.Equal(out[:3], dirty[:3]) {
				t.Fatalf("id %d size %d: %d bytes, %v", id, size, len(out), err)
			}
			if _, m, err := Decode(out[3:]); err != nil || m != (Probe{id}) {
				t.Errorf("id %d size %d: %#v, %v", id, size, m, err)
			}
		}
	}
	for _, size := range []int{-1, 0, MinProbe - 1, MaxProbe + 1} {
		if out, err := EncodeProbe([]byte{1}, 1, size); !errors.Is(err, ErrProbeSize) || len(out) != 1 {
			t.Errorf("size %d: %d bytes, %v", size, len(out), err)
		}
	}
}

func TestDecodedIsNotPartOfTheInput(t *testing.T) {
	in := unhex(t, "83 07 01 a2 01 61 61 02 43 010203")
	_, m, err := Decode(in)
	if err != nil {
		t.Fatal(err)
	}
	clear(in)
	if !reflect.DeepEqual(m, Push{Subject: "a", Document: []byte{1, 2, 3}}) {
		t.Errorf("%#v", m)
	}
}
