package config

import (
	"net/netip"

	"culvert/crypto"
)

// relate checks what holds between the parts of f, whose values each have been checked before. Parts that could not be
// read are missing or zero and are passed over.
func (r *report) relate(f *File) {
	ports, tcpPorts := map[uint16]*Tunnel{}, map[uint16]*Tunnel{}
	addresses := map[netip.Addr]*Tunnel{}
	for i := range f.Tunnels {
		t := &f.Tunnels[i]
		if t.Listen != 0 {
			if other, ok := ports[t.Listen]; ok {
				r.fail(t.ListenPos, "each tunnel needs a port of its own; leave one out to let the kernel pick it",
					"tunnel %s listens on port %d already (line %d)", hideKeys(other.Name), t.Listen, other.ListenPos.Line)
			} else {
				ports[t.Listen] = t
			}
		}
		if at := t.TCP.Listen; at.Port() != 0 {
			other, ok := tcpPorts[at.Port()]
			if ok && (other.TCP.Listen.Addr().IsUnspecified() || at.Addr().IsUnspecified() || other.TCP.Listen == at) {
				r.fail(t.TCP.Pos, "each tunnel needs a TCP port of its own",
					"tunnel %s listens on TCP port %d already (line %d)", hideKeys(other.Name), at.Port(), other.TCP.Pos.Line)
			} else if !ok {
				tcpPorts[at.Port()] = t
			}
		}
		for _, a := range t.Addresses {
			other, taken := addresses[a.Addr()]
			if !taken {
				addresses[a.Addr()] = t
				continue
			}
			// Unnumbered links share a single address or a link-local one between interfaces on purpose.
			if other != t && !a.IsSingleIP() && !a.Addr().IsLinkLocalUnicast() {
				r.warn(a.Pos, "", "tunnel %s has the address %s too", hideKeys(other.Name), a.Addr())
			}
		}
		r.relateTunnel(f, t)
	}
}

func (r *report) relateTunnel(f *File, t *Tunnel) {
	own := map[netip.Addr]Position{}
	six := false
	for _, a := range t.Addresses {
		six = six || a.Addr().Is6()
		if first, ok := own[a.Addr()]; ok {
			r.fail(a.Pos, "remove one of the two", "the address %s is given twice (first in line %d)", a.Addr(), first.Line)
		} else {
			own[a.Addr()] = a.Pos
		}
	}
	type grant struct {
		peer int
		pos  Position
	}
	granted := map[netip.Prefix]grant{}
	keys := map[crypto.PublicKey]*Peer{}
	self := t.PrivateKey.Public()
	total := 0
	for i := range t.Peers {
		p := &t.Peers[i]
		if !p.PublicKey.IsZero() {
			first, twice := keys[p.PublicKey]
			switch {
			case twice:
				r.fail(p.PublicKeyPos, "merge the two peers, or give each its own key",
					"peer %s has this public key already (line %d)", hideKeys(first.Name), first.PublicKeyPos.Line)
			case !t.PrivateKey.IsZero() && p.PublicKey == self:
				r.fail(p.PublicKeyPos, "put the far end's public key here",
					"this is the public key of the tunnel itself, which cannot be its own peer")
			case p.PublicKey.IsLowOrder():
				r.fail(p.PublicKeyPos, "ask the far end for its public key again",
					"this public key is of low order: no session with it could be secret")
			}
			if !twice {
				keys[p.PublicKey] = p
			}
		}
		if len(p.AllowedIPs) == 0 && t.Mode != ModeTap && !p.Pull {
			r.warn(p.Pos, "", "peer %s has no allowed IPs, so no packet can be sent to it or taken from it", hideKeys(p.Name))
		}
		kept := p.AllowedIPs[:0]
		for _, a := range p.AllowedIPs {
			if total++; total == MaxAllowedIPs+1 {
				r.fail(a.Pos, "", "the tunnel has more than %d allowed IPs", MaxAllowedIPs)
			}
			six = six || a.Addr().Is6()
			first, ok := granted[a.Prefix]
			switch {
			case !ok:
				granted[a.Prefix] = grant{i, a.Pos}
				kept = append(kept, a)
				if _, mine := own[a.Addr()]; mine && a.IsSingleIP() {
					r.warn(a.Pos, "write the peer's address in the tunnel", "%s is this tunnel's own address", a.Addr())
				}
			case first.peer != i:
				r.fail(a.Pos, "a network can belong to one peer only; remove one of the two",
					"%s is allowed to peer %s already (line %d)", a.Prefix, hideKeys(t.Peers[first.peer].Name), first.pos.Line)
			case f.Format == FormatWGQuick: // wg takes it without a word
				r.warn(a.Pos, "", "%s is given twice (first in line %d)", a.Prefix, first.pos.Line)
			default:
				r.fail(a.Pos, "remove one of the two", "%s is given twice (first in line %d)", a.Prefix, first.pos.Line)
			}
		}
		p.AllowedIPs = kept
		if p.Access != nil {
			r.relateAccess(p.Access)
		}
		ends := map[string]Position{}
		for _, e := range p.Endpoints {
			if first, ok := ends[e.String()]; ok {
				r.fail(e.Pos, "remove one of the two", "the endpoint %s is given twice (first in line %d)", quote(e.String()), first.Line)
			}
			ends[e.String()] = e.Pos
		}
	}
	r.relateTCP(t)
	r.relateClient(t)
	if t.Mode == ModeTap {
		r.relateTap(t)
	} else {
		r.relateWires(t)
	}
	r.relateServer(t)
	if six && t.MTU != 0 && t.MTU < 1280 {
		r.fail(t.MTUPos, "write at least 1280, or auto, or take the IPv6 networks out",
			"IPv6 needs an MTU of at least 1280 (RFC 8200 section 5), and this tunnel carries IPv6")
	}
}

// relateWires reports where a post-quantum key exchange is required on the wire that has none.
func (r *report) relateWires(t *Tunnel) {
	both := t.PostQuantum && t.Wire == WireWireGuard && len(t.Peers) == 0
	for i := range t.Peers {
		p := &t.Peers[i]
		switch {
		case !p.PostQuantum || p.Wire != WireWireGuard:
		case p.PostQuantumPos != Position{}:
			r.fail(p.PostQuantumPos, `write "wire: culvert" for the peer if it runs culvert, or take post_quantum out`,
				"peer %s speaks the wireguard wire, which has no post-quantum key exchange", hideKeys(p.Name))
		case p.WirePos != Position{}:
			r.fail(p.WirePos, `write culvert if the peer runs it, or put post_quantum at the peers that do instead of the tunnel`,
				"the wireguard wire has no post-quantum key exchange, which the tunnel requires of all peers (line %d)", t.PostQuantumPos.Line)
		default:
			both = true
		}
	}
	if both {
		r.fail(t.PostQuantumPos, `write "wire: culvert" if the peers run culvert, or take post_quantum out`,
			"the tunnel's wire is wireguard (line %d), which has no post-quantum key exchange", t.WirePos.Line)
	}
}
