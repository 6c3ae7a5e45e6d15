package model

import (
	"net/netip"
	"slices"
	"time"

	"culvert/setup/spec"
)

// fields collects what is declared.
type fields Fields

func (f fields) text(name Field, s string) {
	if s != "" {
		f[name] = Value(s)
	}
}

func (f fields) yes(name Field, b *bool) {
	if b != nil {
		f[name] = Bool(*b)
	}
}

func (f fields) time(name Field, d *time.Duration) {
	if d != nil {
		f[name] = Duration(*d)
	}
}

func number[T uint8 | uint16 | uint32](f fields, name Field, v *T) {
	if v != nil {
		f[name] = Uint(*v)
	}
}

func (f fields) size(name Field, s *spec.Size) {
	if s != nil {
		f[name] = Bytes(*s)
	}
}

func (f fields) rate(name Field, r *spec.BitRate) {
	if r != nil {
		f[name] = Rate(*r)
	}
}

func addrs(list []netip.Addr) Value {
	words := make([]string, len(list))
	for i, a := range slices.SortedFunc(slices.Values(list), netip.Addr.Compare) {
		words[i] = a.String()
	}
	return List(words)
}

func common(mtu int, mac *spec.MAC, queue *uint32, up *bool, external bool) fields {
	f := fields{}
	if mtu != 0 {
		f["mtu"] = Int(mtu)
	}
	if mac != nil {
		f["mac"] = MAC(*mac)
	}
	number(f, "txqueuelen", queue)
	switch {
	case up != nil:
		f["up"] = Bool(*up)
	case !external:
		f["up"] = Bool(true)
	}
	return f
}
