package tunnel

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/device"
)

// This file is how a tunnel stops without ending, so that another process, or the same, goes on with it:
//
//	runs       Suspend: what moves packets stops, then the control loop; the state is read
//	suspended  Resume: all runs again, as if nothing had been; or Close: sessions are erased here, and the far ends hear nothing of it
//
// Packets that arrive meanwhile wait in the device's queues and the sockets, which stay open and are the owner's to hand over. The successor
// is made by New with Options.Restore and runs from its first Configure on.

// pause is how the control loop is told to return.
type pause struct{ begun chan struct{} }

func newPause() *pause { return &pause{make(chan struct{})} }

// ErrSuspended is returned by what cannot be done while the tunnel is suspended, or is being suspended.
var ErrSuspended = errors.New("tunnel is suspended")

// Suspend stops the tunnel and returns its state, which holds the keys of its sessions: [State.Erase] it. Of peers that are reached over TCP the
// sessions are left out, since their connections end with the process. Errors: ErrClosed, ErrSuspended, errors.ErrUnsupported where the device
// or the network cannot be stopped; then the tunnel runs on.
func (t *Tunnel) Suspend() (*State, error) {
	t.configuring.Lock()
	defer t.configuring.Unlock()
	switch {
	case t.closed:
		return nil, ErrClosed
	case t.suspending.Load(), t.restoring != nil, t.restoredFrom != nil:
		return nil, ErrSuspended
	}
	t.suspending.Store(true)
	if err := t.interrupt(true); err != nil {
		t.suspending.Store(false)
		return nil, errors.Join(err, t.interrupt(false))
	}
	t.movers.Wait()
	// The control loop may be waiting for this lock, on a visit of its own.
	t.configuring.Unlock()
	close(t.pause.Load().begun)
	t.controlled.Wait()
	t.configuring.Lock()
	if t.closed {
		return nil, ErrClosed
	}
	t.suspended = true
	return t.export(), nil
}

// interrupt has everything that waits for packets return, or wait again.
func (t *Tunnel) interrupt(on bool) error {
	i, ok := t.device.(device.Interrupter)
	if !ok {
		return fmt.Errorf("the device cannot be interrupted: %w", errors.ErrUnsupported)
	}
	socket := func(s transport.Socket) error {
		i, ok := s.(transport.Interrupter)
		if !ok {
			return fmt.Errorf("the network cannot be interrupted: %w", errors.ErrUnsupported)
		}
		return i.Interrupt(on)
	}
	if b := t.bound.Load(); b != nil {
		if err := socket(b.socket); err != nil {
			return err
		}
	}
	return errors.Join(t.lanePorts.Load().each(socket), i.Interrupt(on))
}

// Ports returns the open sockets, for another process to go on with: the tunnel's port, nil where the interface is down, and those of its
// lanes.
func (t *Tunnel) Ports() (port transport.Socket, lanes []transport.Socket) {
	if b := t.bound.Load(); b != nil {
		port = b.socket
	}
	if l := t.lanePorts.Load(); l != nil {
		lanes = l.sockets
	}
	return port, lanes
}

// Resume has a suspended tunnel go on, because nobody else does, or has done. The state that Suspend returned must not be used any more.
func (t *Tunnel) Resume() error { return t.resume(false) }

// Restart is Resume where another may have gone on with the sessions, and does not any more: they end here, without a word, as its counters
// and theirs would be the same, and new ones are made at once.
func (t *Tunnel) Restart() error { return t.resume(true) }

func (t *Tunnel) resume(anew bool) error {
	t.configuring.Lock()
	defer t.configuring.Unlock()
	if t.closed {
		return ErrClosed
	}
	if !t.suspended {
		return nil
	}
	if err := t.interrupt(false); err != nil {
		return err
	}
	t.suspended = false
	t.suspending.Store(false)
	t.pause.Store(newPause())
	c := newControl(t)
	c.wasUp = t.linkUp
	if t.linkUp && !t.isUp { // it came up while the tunnel was being suspended
		c.retryPortAt = 1
	}
	peers := t.snapshotPeers()
	for _, p := range peers {
		p.heapIndex, p.heapAt = -1, 0
		p.visitAt.Store(0)
		if anew {
			p.endSessions()
		}
	}
	t.runControl(c)
	t.runOutbound()
	if b := t.bound.Load(); b != nil {
		for _, r := range b.socket.Receivers() {
			t.receive(r, r.Worker(), false)
		}
	}
	if ports := t.lanePorts.Load(); ports != nil {
		for worker, s := range ports.sockets {
			for _, r := range s.Receivers() {
				t.receive(r, worker, true)
			}
		}
	}
	for _, p := range peers {
		t.attention.add(p)
	}
	return nil
}

// endSessions ends the peer's sessions, and has one made in the place of one that was in use.
func (p *peer) endSessions() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current.Load() != nil {
		p.wantHandshake.Store(true)
	}
	p.eraseKeys()
}

// drain does what waits for the control loop before it returns: who sent it has been told by nobody that it was lost.
func (c *control) drain() {
	t := c.tunnel
	for {
		select {
		case m := <-t.handshakes:
			c.handshake(&m, t.clock.now())
		case m := <-t.controls:
			c.control(&m, t.clock.now())
		default:
			for _, p := range t.attention.take(nil) {
				c.visit(p, t.clock.now())
			}
			c.batch.flush()
			return
		}
	}
}

// export reads the state of the tunnel, which is suspended.
func (t *Tunnel) export() *State {
	s := &State{Version: StateVersion, Now: t.clock.now(), Wall: t.clock.wall().UnixNano()}
	if id := t.identity.Load(); id != nil {
		s.Public = id.noise.Public()
	}
	if ports := t.lanePorts.Load(); ports != nil {
		s.LanePorts = len(ports.sockets)
	}
	for _, p := range t.snapshotPeers() {
		s.Peers = append(s.Peers, p.export(s.Now))
	}
	return s
}

func (p *peer) export(now time.Duration) PeerState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PeerState{
		Public: p.public, Wire: p.wire(),
		SentBytes: p.sentBytes.Load(), SentPackets: p.sentPackets.Load(), ReceivedBytes: p.receivedBytes.Load(), ReceivedPackets: p.receivedPackets.Load(),
		LastHandshake: p.lastHandshake.Load(), HeardAt: p.heardAt.Load(), LastTimestamp: p.lastTimestamp, SentTimestamp: p.sentTimestamp,
		LastConsumed: p.lastConsumed,
		Keepalive:    p.timers.keepalive.Load(), NewHandshake: p.timers.newHandshake.Load(), Erase: p.timers.erase.Load(), Persistent: p.timers.persistent.Load(),
		Handshaking: p.timers.retransmit.Load() != 0 || p.wantHandshake.Load(),
	}
	if a := p.access.Load(); a != nil {
		s.Flows = a.Keep(now)
	}
	ep := p.endpoint.Load()
	if ep != nil && ep.Stream != 0 {
		return s
	}
	if ep != nil {
		s.Endpoint = &EndpointState{Remote: ep.Remote, Source: ep.Source, Interface: ep.Interface}
	}
	if n := p.native.Load(); n != nil {
		s.PathMTU = n.search.Size()
	}
	s.Keypairs = make([]KeypairState, 0, 3) // which does not grow: that would leave keys behind
	for place, kp := range map[Place]*keypair{PlaceCurrent: p.current.Load(), PlacePrevious: p.previous, PlaceNext: p.next} {
		if k, ok := kp.export(place); ok {
			s.Keypairs = append(s.Keypairs, k)
		} else {
			k.Erase()
		}
	}
	return s
}

func (k *keypair) export(place Place) (s KeypairState, ok bool) {
	if k == nil {
		return s, false
	}
	s = KeypairState{Place: place, Patience: k.patience, Crossed: k.crossed.Load(), Retired: k.retired.Load(), Received: k.received.Load()}
	if s.Session, ok = k.Session.Export(); !ok {
		return s, false
	}
	s.Lanes = make([]session.State, 0, len(k.lanes))
	for _, l := range k.lanes {
		of, ok := l.Session.Export()
		if !ok {
			return s, false
		}
		s.Lanes = append(s.Lanes, of)
	}
	return s, true
}

// restored ends the wait of a successor: it has been configured. Configuration is locked.
func (t *Tunnel) restored() error {
	s := t.restoring
	if s == nil {
		return nil
	}
	t.restoring, t.restoredFrom = nil, s
	t.waits.Store(false)
	s.Erase() // of peers that are no longer there
	if t.linkUp {
		if err := t.listen(t.wantPort); err != nil {
			return err
		}
	}
	return nil
}

// takeOver has a successor begin: its socket is open. Configuration is locked.
func (t *Tunnel) takeOver() {
	if t.restoredFrom == nil {
		return
	}
	if t.restoredFrom.LanePorts > 0 {
		if err := t.openPortsOfLanes(); err != nil {
			t.logf("%s: no ports for lanes: %v", t.name(), err)
		}
	}
	t.restoredFrom = nil
	for _, p := range t.renewed {
		p.wantHandshake.Store(true)
		t.attention.add(p)
	}
	t.renewed = nil
	t.runOutbound()
}

// restorePeer gives a peer that was just added what the tunnel before had of it, if that had one of its key and wire. Configuration is locked.
func (t *Tunnel) restorePeer(p *peer) {
	id := t.identity.Load()
	if t.restoring == nil || id == nil || id.noise.Public() != t.restoring.Public {
		return
	}
	s := t.restoring.peer(p.public)
	if s == nil || s.Wire != p.wire() {
		return
	}
	p.sentBytes.Store(s.SentBytes)
	p.sentPackets.Store(s.SentPackets)
	p.receivedBytes.Store(s.ReceivedBytes)
	p.receivedPackets.Store(s.ReceivedPackets)
	p.lastHandshake.Store(s.LastHandshake)
	now := t.restoring.Now
	p.heardAt.Store(min(s.HeardAt, int64(now)))
	if a := p.access.Load(); a != nil && s.Flows != nil {
		if err := a.Resume(s.Flows, MaxFlows-t.restoring.room, t.clock.now()); err != nil {
			t.logf("%s: peer %s: %v: they begin anew", t.name(), shortKey(p.public), err)
		}
		t.restoring.room += a.Room()
	}
	if s.Endpoint != nil { // where it has roamed to, whatever is configured
		if ep, ok := s.Endpoint.endpoint(); ok {
			p.configureEndpoint(&ep)
		}
	}
	p.mu.Lock()
	p.lastTimestamp, p.sentTimestamp, p.lastConsumed = s.LastTimestamp, s.SentTimestamp, min(s.LastConsumed, now)
	n := p.native.Load()
	if n != nil && s.PathMTU > 0 {
		n.search.Resume(s.PathMTU)
		n.learn()
	}
	for i := range s.Keypairs {
		if err := p.restore(&s.Keypairs[i], now); err != nil {
			t.logf("%s: peer %s: a session cannot be gone on with: %v", t.name(), shortKey(p.public), err)
		}
	}
	p.mu.Unlock()
	for _, d := range []struct {
		to interface{ Store(int64) }
		at int64
	}{{&p.timers.keepalive, s.Keepalive}, {&p.timers.newHandshake, s.NewHandshake}, {&p.timers.erase, s.Erase}, {&p.timers.persistent, s.Persistent}} {
		d.to.Store(d.at)
	}
	// The native wire's control messages are numbered by session, and begin anew in the next. So one is made at once, while data goes on.
	if s.Handshaking || n != nil && p.current.Load().maySend(now) {
		t.renewed = append(t.renewed, p)
	}
	p.wasReached = t.bridge != nil && p.reached(now) // which is no news
	t.attention.add(p)
}

// restore puts one keypair in its place, of a state that was read at a time. The peer's lock is held.
func (p *peer) restore(s *KeypairState, now time.Duration) error {
	defer s.Erase()
	if s.Session.Created < 0 || s.Session.Created > now || slices.ContainsFunc(s.Lanes, func(l session.State) bool { return l.Created < 0 || l.Created > now }) {
		return session.ErrState
	}
	t, n := p.tunnel, p.native.Load()
	workers := t.workerCount()
	if len(s.Lanes) > 0 && (n == nil || len(s.Lanes) >= noise.MaxLanes) {
		return session.ErrState
	}
	made, err := session.Import(&s.Session)
	if err != nil {
		return err
	}
	kp := &keypair{Session: made, peer: p, native: n, patience: s.Patience, first: workerOf(made.LocalIndex, workers)}
	kp.crossed.Store(s.Crossed)
	kp.received.Store(s.Received)
	kp.retired.Store(s.Retired)
	kp.unconfirmed.Store(s.Place == PlaceNext)
	for i := range s.Lanes {
		number := i + 1
		of, err := session.Import(&s.Lanes[i])
		if err != nil {
			kp.Erase()
			return err
		}
		if n.traffic == nil {
			n.traffic = new([noise.MaxLanes - 1]laneTraffic)
		}
		// Data goes on lane 0 until the next session, and is taken on all.
		l := &lane{Session: of, keypair: kp, number: number, traffic: &n.traffic[i]}
		if of.Initiator {
			l.via = via(1 + (kp.first+number)%workers)
		}
		kp.lanes = append(kp.lanes, l)
	}
	if !t.indices.take(made.LocalIndex, kp) {
		kp.Erase()
		return session.ErrState
	}
	if n != nil {
		kp.serial = n.known()
	}
	switch {
	case s.Place == PlaceCurrent && p.current.Load() == nil:
		p.current.Store(kp)
	case s.Place == PlacePrevious && p.previous == nil:
		p.previous = kp
	case s.Place == PlaceNext && p.next == nil:
		p.next = kp
	default:
		p.discard(kp)
		return session.ErrState
	}
	return nil
}
