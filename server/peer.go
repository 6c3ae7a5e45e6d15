package server

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"culvert/crypto"
)

// Peer is somebody the tunnel is to speak with.
type Peer struct {
	Name         string
	Group        string // of a client: the one that counts; "" is none
	Key          crypto.PublicKey
	PresharedKey crypto.PresharedKey // zero for clients
	AllowedIPs   []netip.Prefix      // none for the end of an invitation
	WireGuard    bool
	Invitation   bool
}

// Peers are all of them, clients in order of names and then the ends of invitations.
func (sv *Server) Peers(now time.Time) (list []Peer) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(sv.state.clients)) {
		c := sv.state.clients[name]
		p := Peer{Name: name, Group: sv.config.group(name, c.Group), Key: c.Key, WireGuard: c.WireGuard}
		for _, a := range c.Addresses {
			p.AllowedIPs = append(p.AllowedIPs, single(a))
		}
		p.AllowedIPs = append(p.AllowedIPs, sv.config.Clients[name].Networks...)
		list = append(list, p)
	}
	invitations := slices.SortedFunc(maps.Values(sv.state.invitations), func(a, b *Invitation) int { return a.Key.Compare(b.Key) })
	for _, i := range invitations {
		if i.answered(now) {
			list = append(list, Peer{Name: i.Name, Key: i.Key, PresharedKey: i.psk, Invitation: true})
		}
	}
	return list
}
