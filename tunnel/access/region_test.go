package access

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

func prefixesOf(t *testing.T, texts ...string) (list []netip.Prefix) {
	t.Helper()
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// wordsOf is an address as packets have it here.
func wordsOf(a netip.Addr) [2]uint64 {
	if a.Is4() {
		b := a.As4()
		return [2]uint64{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// Whom a peer is kept from it reaches not, though rules allow it, and with no rules at all; the longest network decides.
func TestRegion(t *testing.T) {
	region, err := NewRegion(prefixesOf(t, "10.20.0.0/16", "10.20.7.7/32", "fd20::/64", "10.9.0.1/32"), prefixesOf(t, "10.20.7.0/24", "10.9.0.1/32"))
	if err != nil {
		t.Fatal(err)
	}
	everything := []Rule{{Action: Allow, Direction: FromPeer}, {Action: Allow, Direction: ToPeer}}
	for _, rules := range [][]Rule{nil, everything} {
		p, err := Compile(Spec{Default: Allow, Apart: region, Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		if !p.filters() {
			t.Fatal("it filters nothing")
		}
		for to, want := range map[string]Action{"10.20.1.1": Deny, "10.20.7.1": Allow, "10.20.7.7": Deny, "10.9.0.1": Allow, "10.21.0.1": Allow, "fd20::5": Deny, "fd21::5": Allow} {
			a := netip.MustParseAddr(to)
			for _, d := range []Direction{FromPeer, ToPeer} {
				if got := p.decide(d, wordsOf(a), a.Is6(), UDP, 53); got != want {
					t.Errorf("%d rules, direction %d, %s: %v, want %v", len(rules), d, to, got, want)
				}
			}
		}
	}
	if _, err := NewRegion([]netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no network: %v", err)
	}
	same, _ := NewRegion(prefixesOf(t, "10.20.0.0/16", "10.20.7.7/32", "fd20::/64", "10.9.0.1/32"), prefixesOf(t, "10.20.7.0/24", "10.9.0.1/32"))
	other, _ := NewRegion(prefixesOf(t, "10.20.0.0/16", "10.20.7.7/32", "fd20::/64"), prefixesOf(t, "10.9.0.1/32", "10.20.7.0/24", "10.9.0.1/32"))
	a, _ := Compile(Spec{Default: Allow, Apart: region})
	for r, want := range map[*Region]bool{same: true, other: false, nil: false} {
		b, _ := Compile(Spec{Default: Allow, Apart: r})
		if a.Equal(b) != want || b.Equal(a) != want {
			t.Errorf("equal to %v: %v", r, !want)
		}
	}
}
