package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/transport"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/message"
)

// maxKeepalive is the longest persistent keepalive interval.
const maxKeepalive = 65535 * time.Second

// ErrInvalidChange wraps what Configure refuses before it changes anything.
var ErrInvalidChange = errors.New("invalid configuration")

// Configure makes one change to the running tunnel. Sessions with peers that the change does not touch go on. Errors wrap
// ErrInvalidChange where nothing was changed; otherwise the kernel's error, such as EADDRINUSE for a port, with the key
// and the peers as they were and the old port still open.
func (t *Tunnel) Configure(change Change) error {
	if err := change.validate(); err != nil {
		return err
	}
	t.configuring.Lock()
	defer t.configuring.Unlock()
	if t.closed {
		return ErrClosed
	}
	if t.suspending.Load() {
		return ErrSuspended
	}
	if err := t.checkLayer(&change); err != nil {
		return err
	}
	if err := t.checkPostQuantum(&change); err != nil {
		return err
	}
	if err := t.changeSocket(&change); err != nil {
		return err
	}
	if change.PostQuantum != nil {
		t.postQuantum = *change.PostQuantum
	}
	if change.PrivateKey != nil {
		if err := t.changeKey(*change.PrivateKey); err != nil {
			return err
		}
	}
	t.changePeers(&change)
	return t.restored()
}

// validate checks what can be known to be wrong without looking at the tunnel.
func (c *Change) validate() error {
	if c.Switch != nil {
		if err := c.Switch.validate(); err != nil {
			return err
		}
	}
	for i := range c.Peers {
		p := &c.Peers[i]
		if p.Port != nil {
			if err := p.Port.validate(); err != nil {
				return fmt.Errorf("peer %s: %w", p.PublicKey, err)
			}
		}
		if p.Wire != nil && *p.Wire != WireGuard && *p.Wire != Culvert {
			return fmt.Errorf("%w: peer %s: unknown wire", ErrInvalidChange, p.PublicKey)
		}
		if p.Keepalive != nil && (*p.Keepalive < 0 || *p.Keepalive > maxKeepalive || *p.Keepalive%time.Second != 0) {
			return fmt.Errorf("%w: peer %s: keepalive %v is not whole seconds up to %v", ErrInvalidChange, p.PublicKey, *p.Keepalive, maxKeepalive)
		}
		if p.Endpoint != nil && (!p.Endpoint.Remote.Addr().IsValid() || p.Endpoint.Remote.Port() == 0) {
			return fmt.Errorf("%w: peer %s: endpoint %v has no address or no port", ErrInvalidChange, p.PublicKey, p.Endpoint)
		}
		for _, a := range p.AllowedIPs {
			if !a.Prefix.IsValid() {
				return fmt.Errorf("%w: peer %s: invalid allowed IP", ErrInvalidChange, p.PublicKey)
			}
		}
	}
	return nil
}

// checkLayer refuses what does not go with what the device carries.
func (t *Tunnel) checkLayer(change *Change) error {
	if t.bridge == nil {
		if change.Switch != nil {
			return fmt.Errorf("%w: settings of a switch for a tunnel that carries IP packets", ErrInvalidChange)
		}
		for i := range change.Peers {
			if change.Peers[i].Port != nil {
				return fmt.Errorf("%w: peer %s: settings of a switch's port for a tunnel that carries IP packets", ErrInvalidChange, change.Peers[i].PublicKey)
			}
		}
		return nil
	}
	if key, ok := t.onWireGuard(change); ok {
		return fmt.Errorf("%w: peer %s would be on WireGuard's wire, which carries no Ethernet frames", ErrInvalidChange, key)
	}
	pinned := make(map[ethernet.Address]crypto.PublicKey)
	if !change.ReplacePeers {
		for key, p := range t.peers {
			for _, a := range p.port.Load().change.Pinned {
				pinned[a] = key
			}
		}
	}
	for i := range change.Peers {
		p := &change.Peers[i]
		if p.Port == nil && !p.Remove {
			continue
		}
		maps.DeleteFunc(pinned, func(_ ethernet.Address, key crypto.PublicKey) bool { return key == p.PublicKey })
		if p.Port == nil {
			continue
		}
		for _, a := range p.Port.Pinned {
			if key, ok := pinned[a]; ok && key != p.PublicKey {
				return fmt.Errorf("%w: %v is pinned to peer %s and to peer %s", ErrInvalidChange, a, key, p.PublicKey)
			}
			pinned[a] = p.PublicKey
		}
	}
	return nil
}

// checkPostQuantum refuses a change after which a peer would have keys that are not hybrid, where those are required.
func (t *Tunnel) checkPostQuantum(change *Change) error {
	required := t.postQuantum
	if change.PostQuantum != nil {
		required = *change.PostQuantum
	}
	if required {
		if key, ok := t.onWireGuard(change); ok {
			return fmt.Errorf("%w: peer %s would be on WireGuard's wire, and the tunnel requires post-quantum keys", ErrInvalidChange, key)
		}
	}
	return nil
}

// onWireGuard returns a peer that would be on WireGuard's wire after the change; ok is false if none would.
func (t *Tunnel) onWireGuard(change *Change) (key crypto.PublicKey, ok bool) {
	wires := make(map[crypto.PublicKey]Wire)
	for key, p := range t.peers {
		if !change.ReplacePeers {
			wires[key] = p.wire()
		}
	}
	for i := range change.Peers {
		p := &change.Peers[i]
		old := t.peers[p.PublicKey]
		switch {
		case p.Remove:
			delete(wires, p.PublicKey)
		case p.Wire != nil:
			wires[p.PublicKey] = *p.Wire
		case old != nil:
			wires[p.PublicKey] = old.wire()
		case !p.UpdateOnly && wires[p.PublicKey] != Culvert:
			wires[p.PublicKey] = WireGuard
		}
	}
	for key, w := range wires {
		if w != Culvert {
			return key, true
		}
	}
	return key, false
}

// changeSocket applies the port and the mark.
func (t *Tunnel) changeSocket(change *Change) error {
	oldMark := t.mark
	defer func() {
		if t.mark != oldMark { // another mark may mean another route, and so another source address
			for _, p := range t.snapshotPeers() {
				p.forgetSource()
			}
		}
	}()
	if change.Mark != nil {
		t.mark = *change.Mark
	}
	if port := change.ListenPort; port != nil && (*port != t.wantPort || *port == 0 || t.linkUp && !t.isUp) {
		if t.linkUp && t.restoring == nil { // a successor listens once its peers are back
			if err := t.listen(*port); err != nil {
				t.mark = oldMark
				return err
			}
			return t.lanePorts.Load().each(t.marked) // the new socket has the mark
		}
		t.wantPort = *port
	}
	if b := t.bound.Load(); b != nil && t.mark != oldMark {
		err := t.marked(b.socket)
		if err == nil {
			err = t.lanePorts.Load().each(t.marked)
		}
		if err != nil {
			t.mark = oldMark
			return err
		}
	}
	return nil
}

// marked has a socket mark what it sends as configured.
func (t *Tunnel) marked(s transport.Socket) error { return s.SetMark(t.mark) }

// changeKey gives the tunnel another private key. All sessions were made under the old one and end; a peer with the new
// public key would be the tunnel itself, and is removed.
func (t *Tunnel) changeKey(private crypto.PrivateKey) error {
	old := t.identity.Load()
	if old == nil && private.IsZero() || old != nil && old.private.Equal(private) {
		return nil
	}
	var id *identity
	if !private.IsZero() {
		static, err := noise.NewIdentity(private)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidChange, err)
		}
		id = &identity{private: private, noise: static, checker: cookie.NewChecker(static.Public())}
		if self := t.lookupPeer(static.Public()); self != nil {
			edit := t.routes.edit(self.allowed.size())
			t.removePeer(self, edit)
			edit.publish()
			if t.bridge != nil {
				t.bridge.publishPorts()
			}
		}
	}
	t.identity.Store(id)
	for _, p := range t.snapshotPeers() {
		p.mu.Lock()
		p.retireKeys()
		if p.remote != nil {
			p.remote.Erase()
		}
		p.remote = id.remote(p.public)
		p.mu.Unlock()
	}
	if old != nil {
		old.private.Zero()
	}
	return nil
}

// remote prepares for handshakes with a peer; nil without a private key.
func (id *identity) remote(public crypto.PublicKey) *noise.Remote {
	if id == nil {
		return nil
	}
	return noise.NewRemote(id.noise, public)
}

// changePeers adds, changes and removes peers, in the order of the change.
func (t *Tunnel) changePeers(change *Change) {
	prefixes := 0
	for i := range change.Peers {
		prefixes += len(change.Peers[i].AllowedIPs)
	}
	if change.ReplacePeers {
		prefixes += t.routes.snapshot().Size()
	}
	edit := t.routes.edit(prefixes)
	if change.Switch != nil {
		t.bridge.setSwitch(*change.Switch)
	}
	if change.ReplacePeers {
		named := make(map[crypto.PublicKey]bool, len(change.Peers))
		for i := range change.Peers {
			named[change.Peers[i].PublicKey] = true
		}
		for _, p := range t.snapshotPeers() {
			if !named[p.public] {
				t.removePeer(p, edit)
			}
		}
	}
	found := t.found(change)
	seen := make(map[crypto.PublicKey]bool)
	for i := range change.Peers {
		p := &change.Peers[i]
		t.changePeer(p, edit, change.ReplacePeers && !seen[p.PublicKey], found)
		if change.ReplacePeers {
			seen[p.PublicKey] = true
		}
	}
	edit.publish()
	if t.bridge != nil {
		t.bridge.publishPorts()
	}
	t.followWires()
}

// followWires has the socket fragment nothing where all peers are on the native wire, which finds out what the path takes.
// WireGuard's wire relies on the network to fragment what is too large, and one socket can do either.
func (t *Tunnel) followWires() {
	whole := len(t.peers) > 0
	for _, p := range t.peers {
		whole = whole && p.wire() == Culvert
	}
	if whole == t.dontFragment {
		return
	}
	t.dontFragment = whole
	if b := t.bound.Load(); b != nil {
		err := b.socket.SetDontFragment(whole)
		err = errors.Join(err, t.lanePorts.Load().each(func(s transport.Socket) error { return s.SetDontFragment(whole) }))
		if err != nil {
			t.logf("%s: the path's MTU cannot be found out reliably: %v", t.name(), err)
		}
	}
	if whole { // sizes that worked because the network fragmented them do so no more
		for _, p := range t.peers {
			p.pathChanged()
		}
	}
}

// found is of how many peers the endpoint becomes known, which are called then.
func (t *Tunnel) found(change *Change) (n int) {
	for i := range change.Peers {
		if p := &change.Peers[i]; p.Endpoint != nil {
			if old := t.peers[p.PublicKey]; old == nil || old.endpoint.Load() == nil {
				n++
			}
		}
	}
	return n
}

// changePeer applies one entry. With fresh the peer is to have nothing but what the entry says, though a session with it
// goes on. It is one of so many whose endpoint becomes known.
func (t *Tunnel) changePeer(change *PeerChange, edit *routeEdit, fresh bool, of int) {
	p := t.lookupPeer(change.PublicKey)
	isNew := p == nil
	if change.Remove {
		if p != nil {
			t.removePeer(p, edit)
		}
		return
	}
	if p == nil {
		if change.UpdateOnly {
			return
		}
		if id := t.identity.Load(); id != nil && id.noise.Public() == change.PublicKey {
			// So that one list of peers can serve all hosts, this is no error, as it is none to the kernel's WireGuard.
			t.logf("%s: the tunnel's own public key is ignored as a peer", t.name())
			return
		}
		p = t.addPeer(change.PublicKey)
	}
	if fresh {
		edit.removeAll(p)
		if change.PresharedKey == nil { // set to the same it never was another: a handshake may be under way
			p.setPresharedKey(crypto.PresharedKey{})
		}
		if change.Keepalive == nil {
			p.timers.setInterval(0)
		}
	}
	if change.Wire != nil && *change.Wire != p.wire() {
		p.setWire(*change.Wire)
	}
	switch {
	case change.Port != nil:
		t.bridge.setPort(p, *change.Port)
	case fresh && t.bridge != nil:
		t.bridge.setPort(p, PortChange{})
	}
	if change.PresharedKey != nil {
		p.setPresharedKey(*change.PresharedKey)
	}
	p.setAccess(change)
	hadEndpoint := p.endpoint.Load() != nil
	if change.Endpoint != nil {
		ep := *change.Endpoint
		ep.Remote = netip.AddrPortFrom(ep.Remote.Addr().Unmap(), ep.Remote.Port())
		p.configureEndpoint(&ep)
	}
	switch {
	case change.Streams != nil:
		p.setStreams(*change.Streams)
	case fresh:
		p.setStreams(nil)
	}
	if isNew {
		t.restorePeer(p)
	}
	keepaliveDue := false
	if change.Keepalive != nil {
		keepaliveDue = p.timers.setInterval(*change.Keepalive)
	}
	if change.ReplaceAllowedIPs {
		edit.removeAll(p)
	}
	for _, a := range change.AllowedIPs {
		if a.Remove {
			edit.remove(a.Prefix, p)
		} else {
			edit.assign(a.Prefix, p)
		}
	}
	switch {
	case !t.isUp:
	case change.Endpoint != nil && !hadEndpoint:
		p.call(t.clock.now(), of)
	case keepaliveDue:
		p.wantKeepalive.Store(true)
		t.attention.add(p)
	}
}

func (p *peer) setPresharedKey(k crypto.PresharedKey) {
	p.mu.Lock()
	changed := !p.psk.Equal(k)
	p.psk = k
	p.mu.Unlock()
	if changed {
		p.tryAgain()
	}
}

// setWire changes the protocol spoken with the peer. What it has of the other one ends at once.
func (p *peer) setWire(w Wire) {
	p.tunnel.sayGoodbye([]*peer{p}, message.ReasonRemoved)
	p.mu.Lock()
	p.eraseKeys()
	if w == Culvert {
		n := newNative(p.tunnel)
		n.overStream(streamOf(p.endpoint.Load()) != 0)
		p.native.Store(n)
	} else {
		p.leaveStreams() // which that wire does not use
		p.native.Store(nil)
	}
	p.lastHandshake.Store(0) // of the other wire
	p.mu.Unlock()
	p.tryAgain()
}

// tryAgain has a handshake that went unanswered tried again at once: what stood in its way may have been changed.
func (p *peer) tryAgain() {
	if p.timers.retransmit.Load() != 0 {
		p.lastInitiation.Store(0)
		p.timers.attempts.Store(0)
		p.wantHandshake.Store(true)
	}
	p.tunnel.attention.add(p)
}

// addPeer makes a peer with nothing but its key.
func (t *Tunnel) addPeer(public crypto.PublicKey) *peer {
	p := &peer{
		tunnel:    t,
		public:    public,
		stamper:   cookie.NewStamper(public),
		remote:    t.identity.Load().remote(public),
		heapIndex: -1,
	}
	if t.bridge != nil {
		t.bridge.addPort(p)
	}
	t.peersMu.Lock()
	t.peers[public] = p
	t.peersMu.Unlock()
	return p
}

// removePeer takes a peer and its routes away and erases its keys.
func (t *Tunnel) removePeer(p *peer, edit *routeEdit) {
	t.peersMu.Lock()
	delete(t.peers, p.public)
	t.peersMu.Unlock()
	edit.removeAll(p)
	if t.bridge != nil {
		t.bridge.removePort(p)
	}
	t.sayGoodbye([]*peer{p}, message.ReasonRemoved)
	p.mu.Lock()
	p.removed = true
	p.mu.Unlock()
	p.timers.setInterval(0)
	p.stop(DropOutPeerRemoved)
	p.eraseSecrets()
	t.endpoints.leave(p)
	t.attention.add(p) // takes it off the agenda
}
