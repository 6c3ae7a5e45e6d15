package uapi

import (
	"net/netip"
	"slices"
	"sync"

	"culvert/crypto"
	"culvert/tunnel"
)

// fakeEngine holds the state of a tunnel and changes it as the API's words say, in the plainest way.
type fakeEngine struct {
	mu        sync.Mutex
	status    tunnel.Status
	peers     map[crypto.PublicKey]*tunnel.PeerStatus
	configure func(tunnel.Change) error // answers instead, where it is set
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{peers: make(map[crypto.PublicKey]*tunnel.PeerStatus)}
}

func (f *fakeEngine) Configure(c tunnel.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.configure != nil {
		return f.configure(c)
	}
	if c.PrivateKey != nil {
		f.status.PrivateKey = *c.PrivateKey
	}
	if c.ListenPort != nil {
		f.status.ListenPort = *c.ListenPort
	}
	if c.Mark != nil {
		f.status.Mark = *c.Mark
	}
	if c.ReplacePeers {
		clear(f.peers)
	}
	// Whose an allowed IP is, kept here only: a scan over all peers for each would be quadratic.
	owners := make(map[netip.Prefix]*tunnel.PeerStatus)
	for _, p := range f.peers {
		for _, prefix := range p.AllowedIPs {
			owners[prefix] = p
		}
	}
	for _, change := range c.Peers {
		p := f.peers[change.PublicKey]
		if change.Remove || p == nil && change.UpdateOnly {
			if p != nil {
				for _, prefix := range p.AllowedIPs {
					delete(owners, prefix)
				}
				delete(f.peers, change.PublicKey)
			}
			continue
		}
		if p == nil {
			p = &tunnel.PeerStatus{PublicKey: change.PublicKey}
			f.peers[change.PublicKey] = p
		}
		if change.PresharedKey != nil {
			p.PresharedKey = *change.PresharedKey
		}
		if change.Endpoint != nil {
			p.Endpoint = *change.Endpoint
		}
		if change.Keepalive != nil {
			p.Keepalive = *change.Keepalive
		}
		drop := func(prefix netip.Prefix) {
			if owner := owners[prefix]; owner != nil {
				owner.AllowedIPs = slices.DeleteFunc(owner.AllowedIPs, func(other netip.Prefix) bool { return other == prefix })
				delete(owners, prefix)
			}
		}
		if change.ReplaceAllowedIPs {
			for _, prefix := range slices.Clone(p.AllowedIPs) {
				drop(prefix)
			}
		}
		for _, a := range change.AllowedIPs {
			if !a.Remove || owners[a.Prefix] == p {
				drop(a.Prefix)
			}
			if !a.Remove {
				p.AllowedIPs = append(p.AllowedIPs, a.Prefix)
				owners[a.Prefix] = p
			}
		}
	}
	return nil
}

func (f *fakeEngine) Status() tunnel.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	for _, p := range f.peers {
		c := *p
		c.AllowedIPs = slices.Clone(p.AllowedIPs)
		s.Peers = append(s.Peers, c)
	}
	slices.SortFunc(s.Peers, func(a, b tunnel.PeerStatus) int { return a.PublicKey.Compare(b.PublicKey) })
	return s
}

// peer returns the state of one peer.
func (f *fakeEngine) peer(k crypto.PublicKey) (tunnel.PeerStatus, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.peers[k]; p != nil {
		return *p, true
	}
	return tunnel.PeerStatus{}, false
}
