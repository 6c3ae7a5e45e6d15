package ethernet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

const (
	testDst Address = 0x525400000002
	testSrc Address = 0x525400000001
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, frame string
		want        Header
		ok          bool
	}{
		{"untagged", "525400000002 525400000001 0800 45", Header{testDst, testSrc, TypeIPv4, 0, 0, 14}, true},
		{"no payload", "525400000002 525400000001 0806", Header{testDst, testSrc, TypeARP, 0, 0, 14}, true},
		{"length instead of a type", "0180c2000000 525400000001 0026 424203", Header{0x0180c2000000, testSrc, 0x26, 0, 0, 14}, true},
		{"tagged", "ffffffffffff 525400000001 8100 0005 86dd", Header{Broadcast, testSrc, TypeIPv6, 5, 1, 18}, true},
		{"with priority and drop eligibility", "525400000002 525400000001 8100 ffff 0800",
			Header{testDst, testSrc, TypeIPv4, 4095, 1, 18}, true},
		{"priority-tagged", "525400000002 525400000001 8100 a000 0800", Header{testDst, testSrc, TypeIPv4, 0, 1, 18}, true},
		{"service tag", "525400000002 525400000001 88a8 6005 0800", Header{testDst, testSrc, TypeIPv4, ServiceVLAN | 5, 1, 18}, true},
		{"service tag of priority", "525400000002 525400000001 88a8 6000 0800",
			Header{testDst, testSrc, TypeIPv4, ServiceVLAN, 1, 18}, true},
		{"service and customer tag", "525400000002 525400000001 88a8 0007 8100 0005 0800",
			Header{testDst, testSrc, TypeIPv4, ServiceVLAN | 7, 2, 22}, true},
		{"two customer tags", "525400000002 525400000001 8100 0007 8100 0005 0800", Header{testDst, testSrc, TypeIPv4, 7, 2, 22}, true},
		{"three tags", "525400000002 525400000001 8100 0007 8100 0005 8100 0001 0800",
			Header{testDst, testSrc, TypeVLAN, 7, 2, 22}, true},
		{"nothing", "", Header{}, false},
		{"runt", "525400000002 525400000001 08", Header{}, false},
		{"tag cut off", "525400000002 525400000001 8100 0005 08", Header{}, false},
		{"second tag cut off", "525400000002 525400000001 8100 0005 88a8 0005", Header{}, false},
		{"from a group", "525400000002 010000000001 0800", Header{}, false},
		{"from everybody", "525400000002 ffffffffffff 0800", Header{}, false},
		{"from nobody", "525400000002 000000000000 0800", Header{}, false},
	} {
		frame := unhex(t, c.frame)
		if h, ok := Parse(frame[:len(frame):len(frame)]); h != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %t; want %+v, %t", c.name, h, ok, c.want, c.ok)
		}
	}
}

func TestTags(t *testing.T) {
	buf := append(make([]byte, 8), unhex(t, "525400000002 525400000001 0800 4500")...)
	untagged := bytes.Clone(buf[8:])
	lo := PushTag(buf, 8, 5, 3)
	if want := unhex(t, "525400000002 525400000001 8100 6005 0800 4500"); lo != 4 || !bytes.Equal(buf[lo:], want) {
		t.Fatalf("a tag pushed: %x from %d, want %x", buf[lo:], lo, want)
	}
	lo = PushTag(buf, lo, 0xf123, 0xff)
	if want := unhex(t, "525400000002 525400000001 8100 e123 8100 6005 0800 4500"); lo != 0 || !bytes.Equal(buf[lo:], want) {
		t.Fatalf("two tags pushed: %x from %d, want %x", buf[lo:], lo, want)
	}
	SetVID(buf[lo:], 0xf456)
	if want := unhex(t, "525400000002 525400000001 8100 e456 8100 6005 0800 4500"); !bytes.Equal(buf[lo:], want) {
		t.Fatalf("VID changed: %x, want %x", buf[lo:], want)
	}
	frame := PopTag(PopTag(buf[lo:]))
	if !bytes.Equal(frame, untagged) || &frame[0] != &buf[8] {
		t.Fatalf("tags popped: %x, want %x in its old place", frame, untagged)
	}
	for _, s := range []string{
		"", "525400000002 525400000001", "525400000002 525400000001 0800 4500 0000", "525400000002 525400000001 8100 0005 08",
	} {
		frame := unhex(t, s)
		SetVID(frame, 7)
		if got := PopTag(frame); !bytes.Equal(got, unhex(t, s)) {
			t.Errorf("%s has no whole tag, but came out as %x", s, got)
		}
	}
	service := unhex(t, "525400000002 525400000001 88a8 7005 0800")
	SetVID(service, 9)
	if want := unhex(t, "525400000002 525400000001 88a8 7009 0800"); !bytes.Equal(service, want) {
		t.Errorf("VID of a service tag changed: %x, want %x", service, want)
	}
}

func TestHeadersAllocateNothing(t *testing.T) {
	buf := append(make([]byte, 8), unhex(t, "525400000002 525400000001 8100 0005 0800 4500")...)
	if n := testing.AllocsPerRun(100, func() {
		lo := PushTag(buf, 8, 5, 0)
		SetVID(buf[lo:], 6)
		if h, ok := Parse(buf[lo:]); !ok || h.Tags != 2 || len(PopTag(buf[lo:])) != 20 {
			t.Fatal("the header changed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFrame reads any bytes as a frame, and changes its tags there and back.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		"", "525400000002 525400000001 0800 45", "ffffffffffff 525400000001 8100 0005 86dd",
		"525400000002 525400000001 88a8 0007 8100 0005 0800", "525400000002 525400000001 8100 0005 88a8 0005",
	} {
		f.Add(unhex(f, s), uint16(5))
	}
	f.Fuzz(func(t *testing.T, frame []byte, vid uint16) {
		h, ok := Parse(frame)
		if ok {
			if h.Payload != HeaderSize+h.Tags*TagSize || h.Payload > len(frame) || h.Tags > 2 || h.Src.Group() || h.Src == 0 ||
				h.Dst != AddressAt(frame) || h.Src != AddressAt(frame[6:]) || h.Type != binary.BigEndian.Uint16(frame[h.Payload-2:]) ||
				(h.Tags == 0 && h.VLAN != 0) {
				t.Fatalf("%x read as %+v", frame, h)
			}
		} else if h != (Header{}) {
			t.Fatalf("%x refused with %+v", frame, h)
		}
		if len(frame) < HeaderSize {
			PopTag(frame)
			SetVID(frame, vid)
			return
		}
		buf := append(make([]byte, TagSize), frame...)
		lo := PushTag(buf, TagSize, vid, 2)
		if pushed, pushedOK := Parse(buf[lo:]); ok && (!pushedOK || pushed.Dst != h.Dst || pushed.Src != h.Src ||
			pushed.VLAN != vid&0xfff || pushed.Tags != min(h.Tags+1, 2) || (h.Tags < 2 && pushed.Type != h.Type)) {
			t.Fatalf("%x tagged is %x, read as %+v, %t", frame, buf, pushed, pushedOK)
		}
		SetVID(buf[lo:], vid+1)
		if got := binary.BigEndian.Uint16(buf[lo+14:]); got != 2<<13|(vid+1)&0xfff {
			t.Fatalf("the tag is %x", got)
		}
		if back := PopTag(buf[lo:]); !bytes.Equal(back, frame) {
			t.Fatalf("%x came back as %x", frame, back)
		}
		// What is not tagged, PopTag leaves; what is, it shortens.
		if popped := PopTag(bytes.Clone(frame)); ok && len(popped) != len(frame)-TagSize*min(h.Tags, 1) {
			t.Fatalf("%x popped is %x", frame, popped)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, s := range map[string]string{
		"untagged": "525400000002 525400000001 0800 45000000", "tagged": "525400000002 525400000001 8100 0005 0800 45000000",
	} {
		frame := unhex(b, s)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if h, ok := Parse(frame); !ok || h.Type != TypeIPv4 {
					b.Fatal("refused")
				}
			}
		})
	}
}
