package transporttest

import (
	"net/netip"
	"slices"
)

// Packet is a datagram as it is seen on the public wire, outside of NATs, or between hosts of one NAT.
type Packet struct {
	From, To netip.AddrPort
	TOS      uint8
	// DontFragment tells that its socket has DontFragment on.
	DontFragment bool
	Data         []byte
	// Drop, set by a tap, ends the datagram's way.
	Drop bool
}

type tap struct{ see func(*Packet) }

// Tap lets see look at every datagram that is sent, before the link's chances, in the order the taps were added. It may
// change the packet, drop it, and call Inject. The data is lent: to keep it, copy it. No two calls of taps run at the
// same time. The function returned takes the tap away.
func (n *Network) Tap(see func(*Packet)) (remove func()) {
	t := &tap{see}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taps = append(slices.Clone(n.taps), t) // senders may be walking the old one
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.taps = slices.DeleteFunc(slices.Clone(n.taps), func(o *tap) bool { return o == t })
	}
}

// runTaps shows d to the taps, without n.mu, which the caller holds, being held meanwhile. It reports whether d goes on.
func (n *Network) runTaps(d *datagram) bool {
	if len(n.taps) == 0 {
		return true
	}
	taps := n.taps
	n.mu.Unlock()
	p := Packet{From: d.from, To: d.to, TOS: d.tos, DontFragment: d.whole, Data: d.data}
	n.tapMu.Lock()
	for _, t := range taps {
		if !p.Drop {
			t.see(&p)
		}
	}
	n.tapMu.Unlock()
	n.mu.Lock()
	d.from, d.to, d.tos, d.whole = p.From, p.To, p.TOS, p.DontFragment
	d.data = append(d.data[:0], p.Data...)
	return !p.Drop
}
