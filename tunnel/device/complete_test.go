package device

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestCompleteChecksum(t *testing.T) {
	for name, p := range map[string]packet{
		"tcp4": {payload: pattern(11), options: make([]byte, 12)}, "tcp6": {v6: true, payload: pattern(1200)},
		"udp4": {udp: true, payload: pattern(1)}, "udp6": {udp: true, v6: true, payload: pattern(300)}, "empty": {udp: true},
	} {
		want := p.build()
		for _, garbage := range []uint16{0, 1, 0xffff, 0x1234} {
			got := bytes.Clone(want)
			start, offset, ok := Elided(got)
			if !ok {
				t.Fatalf("%s is not to be elided", name)
			}
			binary.BigEndian.PutUint16(got[start+offset:], garbage)
			if !CompleteChecksum(got, false) || !bytes.Equal(got, want) {
				t.Errorf("%s with %#04x in the field:\n%x, want\n%x", name, garbage, got, want)
			}
			for _, tags := range []string{"", "\x81\x00\x00\x07", "\x88\xa8\x00\x03\x81\x00\x00\x07"} {
				ether := "\x08\x00"
				if p.v6 {
					ether = "\x86\xdd"
				}
				head := append(make([]byte, 12), tags+ether...)
				got := append(bytes.Clone(head), want...)
				binary.BigEndian.PutUint16(got[len(head)+start+offset:], garbage)
				if !CompleteChecksum(got, true) || !bytes.Equal(got[len(head):], want) {
					t.Errorf("%s in a frame with tags %x:\n%x, want\n%x", name, tags, got[len(head):], want)
				}
			}
		}
	}
}

// To UDP a checksum of zero says that there is none.
func TestCompleteChecksumIsNeverZeroForUDP(t *testing.T) {
	p := packet{udp: true, payload: make([]byte, 2)}
	b := p.build()
	binary.BigEndian.PutUint16(b[ipv4Header+udpHeader:], binary.BigEndian.Uint16(b[ipv4Header+udpChecksum:]))
	if !CompleteChecksum(b, false) {
		t.Fatal("refused")
	}
	if got := binary.BigEndian.Uint16(b[ipv4Header+udpChecksum:]); got != 0xffff {
		t.Errorf("checksum %#04x, want 0xffff", got)
	}
}

// What has no checksum to complete stays as it is: it is shown as it came.
func TestCompleteChecksumRefuses(t *testing.T) {
	short := packet{payload: pattern(30)}.build()
	fragment := packet{udp: true, payload: pattern(8)}.build()
	fragment[6] = 0x20
	for name, b := range map[string][]byte{"nothing": nil, "cut": short[:40], "fragment": fragment, "version 0": make([]byte, 60)} {
		for _, frame := range []bool{false, true} {
			before := bytes.Clone(b)
			if CompleteChecksum(b, frame) || !bytes.Equal(b, before) {
				t.Errorf("%s, frame %v: taken or changed", name, frame)
			}
		}
	}
}
