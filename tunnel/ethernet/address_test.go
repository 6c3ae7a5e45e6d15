package ethernet

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestAddress(t *testing.T) {
	const text = "52:54:00:12:34:5f"
	a, err := ParseAddress("52-54-00-12-34-5F")
	if err != nil || a != 0x52540012345f || a.String() != text {
		t.Fatalf("%v, %v; want %s", a, err, text)
	}
	var b [AddressSize]byte
	a.Put(b[:])
	if AddressAt(b[:]) != a || b != [AddressSize]byte{0x52, 0x54, 0, 0x12, 0x34, 0x5f} {
		t.Errorf("written as %x", b)
	}
	j, err := json.Marshal(a)
	var back Address
	if err != nil || string(j) != `"`+text+`"` || json.Unmarshal(j, &back) != nil || back != a {
		t.Errorf("JSON %s, %v, read back as %v", j, err, back)
	}
	for _, s := range []string{"", "52:54:00:12:34", "52:54:00:12:34:5g", "52:54-00:12:34:5f", "5:254:00:12:34:5f", "52.54.00.12.34.5f", "52:54:00:12:34:5f:"} {
		if _, err := ParseAddress(s); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestAddressKinds(t *testing.T) {
	for _, c := range []struct {
		address          Address
		group, linkLocal bool
	}{
		{0x525400123456, false, false},
		{Broadcast, true, false},
		{0x0180c2000000, true, true},
		{0x0180c200000f, true, true},
		{0x0180c2000010, true, false},
		{0x333300000001, true, false},
	} {
		if g, l := c.address.Group(), c.address.LinkLocal(); g != c.group || l != c.linkLocal {
			t.Errorf("%v: group %t, link-local %t", c.address, g, l)
		}
	}
}
