package switching

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"culvert/tunnel/ethernet"
)

func newVLANs(tb testing.TB, pvid uint16, tagged ...uint16) VLANs {
	tb.Helper()
	v, err := NewVLANs(pvid, tagged)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// tag is a tag's protocol and control information.
type tag struct{ protocol, control uint16 }

const (
	c = ethernet.TypeVLAN
	s = ethernet.TypeProvider
)

func frameOf(tags ...tag) []byte {
	frame := make([]byte, 12, 64)
	ethernet.Address(0x525400000002).Put(frame)
	ethernet.Address(0x525400000001).Put(frame[6:])
	for _, t := range tags {
		frame = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(frame, t.protocol), t.control)
	}
	return append(binary.BigEndian.AppendUint16(frame, ethernet.TypeIPv4), "payload"...)
}

// ingress has a frame come in, and returns the VLAN and what it is at the device; nil if it is dropped.
func ingress(tb testing.TB, v VLANs, frame []byte) (uint16, []byte) {
	tb.Helper()
	h, ok := ethernet.Parse(frame)
	if !ok {
		tb.Fatalf("%x is no frame", frame)
	}
	vlan, a, ok := v.Ingress(h)
	if !ok {
		return 0, nil
	}
	buf := append(make([]byte, ethernet.TagSize), frame...)
	return vlan, buf[a.Apply(buf, ethernet.TagSize, vlan):]
}

// egress has a frame of the device's form go out; nil if it is dropped.
func egress(tb testing.TB, v VLANs, frame []byte) []byte {
	tb.Helper()
	h, ok := ethernet.Parse(frame)
	if !ok {
		tb.Fatalf("%x is no frame", frame)
	}
	a, ok := v.Egress(h.VLAN, h.Tags)
	if !ok {
		return nil
	}
	buf := append(make([]byte, ethernet.TagSize), frame...)
	return buf[a.Apply(buf, ethernet.TagSize, h.VLAN):]
}

func TestVLANs(t *testing.T) {
	untagged, priority := frameOf(), frameOf(tag{c, 0xe000})
	five, six, seven := frameOf(tag{c, 0xa005}), frameOf(tag{c, 6}), frameOf(tag{c, 7})
	service, servicePriority := frameOf(tag{s, 5}), frameOf(tag{s, 0xe000})
	stacked, stackedPriority := frameOf(tag{c, 5}, tag{c, 7}), frameOf(tag{c, 0}, tag{c, 7})
	all := [][]byte{untagged, priority, five, six, seven, service, servicePriority, stacked, stackedPriority, frameOf(tag{c, 4095})}
	access := frameOf(tag{c, 5})
	type crossing struct {
		frame []byte
		vlan  uint16
		is    []byte
	}
	for _, x := range []struct {
		name    string
		vlans   VLANs
		in, out []crossing // those of all that cross, and what they are then
	}{
		{"access port", newVLANs(t, 5),
			[]crossing{{untagged, 5, access}, {priority, 5, frameOf(tag{c, 0xe005})}},
			[]crossing{{five, 5, untagged}}},
		{"trunk", newVLANs(t, 0, 5, 6),
			[]crossing{{five, 5, five}, {six, 6, six}, {stacked, 5, stacked}},
			[]crossing{{five, 5, five}, {six, 6, six}, {stacked, 5, stacked}}},
		{"trunk with native VLAN", newVLANs(t, 5, 6),
			[]crossing{{untagged, 5, access}, {priority, 5, frameOf(tag{c, 0xe005})}, {six, 6, six}},
			[]crossing{{five, 5, untagged}, {six, 6, six}}},
		{"native VLAN listed too", newVLANs(t, 5, 5, 6),
			[]crossing{
				{untagged, 5, access}, {priority, 5, frameOf(tag{c, 0xe005})},
				{five, 5, five}, {six, 6, six}, {stacked, 5, stacked},
			},
			[]crossing{{five, 5, untagged}, {six, 6, six}}},
	} {
		for _, frame := range all {
			want := crossing{frame: frame}
			for _, y := range x.in {
				if bytes.Equal(y.frame, frame) {
					want = y
				}
			}
			if vlan, got := ingress(t, x.vlans, frame); vlan != want.vlan && got != nil || !bytes.Equal(got, want.is) {
				t.Errorf("%s: %x came in as %x in VLAN %d, want %x in %d", x.name, frame, got, vlan, want.is, want.vlan)
			}
			want = crossing{frame: frame}
			for _, y := range x.out {
				if bytes.Equal(y.frame, frame) {
					want = y
				}
			}
			if got := egress(t, x.vlans, frame); !bytes.Equal(got, want.is) {
				t.Errorf("%s: %x went out as %x, want %x", x.name, frame, got, want.is)
			}
		}
	}
	for _, frame := range all {
		h, _ := ethernet.Parse(frame)
		if vlan, got := ingress(t, None, frame); vlan != h.VLAN || !bytes.Equal(got, frame) {
			t.Errorf("transparent port: %x came in as %x in VLAN %d", frame, got, vlan)
		}
		if got := egress(t, None, frame); !bytes.Equal(got, frame) {
			t.Errorf("transparent port: %x went out as %x", frame, got)
		}
	}
}

func TestVLANsBetweenPeers(t *testing.T) {
	access5, access6, trunk := newVLANs(t, 5), newVLANs(t, 6), newVLANs(t, 0, 5)
	cross := func(from, to VLANs, frame []byte) []byte {
		_, inside := ingress(t, from, frame)
		if inside == nil {
			return nil
		}
		return egress(t, to, inside)
	}
	untagged, tagged := frameOf(), frameOf(tag{c, 5})
	for _, x := range []struct {
		from, to    VLANs
		frame, want []byte
	}{
		{access5, access5, untagged, untagged},
		{access5, access5, frameOf(tag{c, 0xe000}), untagged},
		{access5, access6, untagged, nil},
		{access5, trunk, untagged, tagged},
		{access5, trunk, frameOf(tag{c, 0xe000}), frameOf(tag{c, 0xe005})},
		{access5, None, untagged, tagged},
		{trunk, access5, tagged, untagged},
		{None, access5, tagged, untagged},
		{None, access5, untagged, nil},
		{None, None, tagged, tagged},
		// A second tag is no way into another VLAN.
		{trunk, newVLANs(t, 5, 7), frameOf(tag{c, 5}, tag{c, 7}), nil},
		{access5, None, frameOf(tag{c, 0}, tag{c, 7}), nil},
		{None, access5, frameOf(tag{s, 5}), nil},
	} {
		if got := cross(x.from, x.to, x.frame); !bytes.Equal(got, x.want) {
			t.Errorf("%x crossed as %x, want %x", x.frame, got, x.want)
		}
	}
}

func TestNewVLANs(t *testing.T) {
	for _, x := range []struct {
		pvid   uint16
		tagged []uint16
	}{{4095, nil}, {0x1005, nil}, {1, []uint16{0}}, {0, []uint16{5, 4095}}, {0, []uint16{0xffff}}} {
		if v, err := NewVLANs(x.pvid, x.tagged); !errors.Is(err, ErrVID) || v != None {
			t.Errorf("%d and %v: %v, %v", x.pvid, x.tagged, v, err)
		}
	}
	if v := newVLANs(t, 0); v != None {
		t.Errorf("nothing configured is %v", v)
	}
	v := newVLANs(t, 4094, 1, 63, 64, 4094)
	for vlan := range 1 << 13 {
		if got, want := v.lists(uint16(vlan)), slices.Contains([]int{1, 63, 64, 4094}, vlan); got != want {
			t.Errorf("lists %d: %t", vlan, got)
		}
	}
}

// FuzzVLANs has any frame cross any port: what comes in has a VLAN that the port admits, in the device's form, and goes out by
// the same port as what it was.
func FuzzVLANs(f *testing.F) {
	for _, frame := range [][]byte{
		frameOf(), frameOf(tag{c, 0xe000}), frameOf(tag{c, 0xa005}), frameOf(tag{c, 5}, tag{c, 7}), frameOf(tag{s, 5}),
		frameOf(tag{c, 0}, tag{s, 7}), frameOf(tag{s, 0}), frameOf(tag{c, 5}, tag{c, 7}, tag{c, 9}),
	} {
		f.Add(frame, uint16(5), uint16(6))
		f.Add(frame, uint16(5), uint16(5))
		f.Add(frame, uint16(0), uint16(5))
		f.Add(frame, uint16(0), uint16(0))
	}
	f.Fuzz(func(t *testing.T, frame []byte, pvid, listed uint16) {
		h, ok := ethernet.Parse(frame)
		if !ok {
			return
		}
		pvid %= ethernet.MaxVID + 1
		listed %= ethernet.MaxVID + 1
		v := VLANs{pvid: pvid}
		if listed != 0 {
			v = newVLANs(t, pvid, listed)
		}
		vlan, inside := ingress(t, v, frame)
		if inside == nil {
			if v == None {
				t.Fatalf("%x was dropped by a transparent port", frame)
			}
			return
		}
		is, ok := ethernet.Parse(inside)
		if !ok || is.VLAN != vlan || is.Src != h.Src || is.Dst != h.Dst || !bytes.Equal(inside[is.Payload:], frame[h.Payload:]) {
			t.Fatalf("%x came in as %x, in VLAN %d", frame, inside, vlan)
		}
		if v != None && (vlan == 0 || (vlan != pvid && vlan != listed) || (h.VLAN != 0 && h.VLAN != listed)) {
			t.Fatalf("%x came in to VLAN %d by a port of %d and %d", frame, vlan, pvid, listed)
		}
		out := egress(t, v, inside)
		switch {
		case v != None && vlan == pvid && is.Tags > 1:
			if out != nil {
				t.Fatalf("%x went out as %x", inside, out)
			}
		case v != None && vlan == pvid && h.Tags > 0: // had a tag of priority, or of the PVID
			if !bytes.Equal(out, ethernet.PopTag(bytes.Clone(frame))) {
				t.Fatalf("%x came back as %x", frame, out)
			}
		default:
			if !bytes.Equal(out, frame) {
				t.Fatalf("%x came back as %x", frame, out)
			}
		}
		if out == nil {
			return
		}
		if back, ok := ethernet.Parse(out); v != None && (!ok || (back.VLAN != 0 && (back.VLAN == pvid || back.VLAN != listed))) {
			t.Fatalf("%x went out by a port of %d and %d", out, pvid, listed)
		}
	})
}
