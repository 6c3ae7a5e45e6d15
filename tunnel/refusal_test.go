package tunnel

import (
	"net/netip"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/transport"
)

// Strangers push out each other, and never what is remembered of peers.
func TestRefusalsAreBounded(t *testing.T) {
	tun := &Tunnel{clock: newClock()}
	from := &transport.Endpoint{Remote: netip.MustParseAddrPort("192.0.2.1:7")}
	tun.refuse(DropInHandshake, true, crypto.PublicKey{1}, from, 0)
	tun.refuse(DropInOldInitiation, false, crypto.PublicKey{2}, from, time.Hour)
	for i := range 10000 {
		tun.refuse(DropInUnknownPeer, false, crypto.PublicKey{3, byte(i), byte(i >> 8)}, from, 0)
	}
	tun.refuse(DropInHandshake, true, crypto.PublicKey{1}, from, 0)
	list := tun.refused.snapshot()
	if len(list) != 2+maxUnknown {
		t.Fatalf("%d are remembered", len(list))
	}
	first, last := list[0], list[len(list)-1]
	if first.Peer != (crypto.PublicKey{1}) || first.Count != 2 || !first.Answer || first.Reason != "in: handshake failed" || first.From != from.Remote || first.Last.IsZero() {
		t.Errorf("the most recent: %+v", first)
	}
	if last.Peer != (crypto.PublicKey{2}) || last.Behind != time.Hour {
		t.Errorf("the least recent: %+v", last)
	}
	for i := range 100 {
		tun.refuse(DropInWire, false, crypto.PublicKey{4, byte(i)}, from, 0)
	}
	if n := len(tun.refused.snapshot()); n != maxRefused {
		t.Errorf("%d are remembered, want %d", n, maxRefused)
	}
	if got := tun.drops.snapshot()["in: unknown peer"]; got != 10000 {
		t.Errorf("%d drops are counted", got)
	}
}
