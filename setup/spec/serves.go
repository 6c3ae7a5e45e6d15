package spec

import "net/netip"

// Serves is what a machine does for the clients of one of its tunnels: it forwards their packets.
type Serves struct {
	Place
	Pool []netip.Prefix // where their addresses are from, masked
	// NAT has what they send beyond this machine leave with the machine's own address, from ports picked at random.
	NAT bool
	// Listen is the tunnel's UDP port; 0 where the kernel picks it. With NAT it is kept out of connection tracking: a client that has
	// the machine's address, and this port by luck, would be sent what is meant for the tunnel.
	Listen uint16
}

// Forwards reports whether packets of a family are forwarded, 4 or 6.
func (s *Serves) Forwards(family int) bool {
	for _, p := range s.Pool {
		if familyOf(p) == family {
			return true
		}
	}
	return false
}

// serves checks what is done for the clients of tunnels.
func (v *validator) serves() {
	for i := range v.spec.Links {
		s := v.spec.Links[i].Serves
		if s == nil {
			continue
		}
		if v.spec.Links[i].Type != TypeTunnel {
			v.add(s.Place, "", "only a tunnel has clients")
		}
		for _, p := range s.Pool {
			if !p.IsValid() || p != p.Masked() || p.Bits() == 0 {
				v.add(s.Place, "pool", "%s is no network of clients", p)
			}
		}
	}
}
