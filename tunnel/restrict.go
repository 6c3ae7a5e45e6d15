package tunnel

import (
	"time"

	"culvert/tunnel/access"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/icmp"
	"culvert/tunnel/ippacket"
	"culvert/tunnel/message"
)

// This file is where peers are held to what they may do (package access). The datapath asks once for each packet of a peer that has a state
// of access; the control loop looks at the time of day, and makes room for flows.

// MaxFlows bounds the flows of all peers of a tunnel together, but for the access.MinFlows that each has in any case: 64 MiB.
const MaxFlows = 1 << 20

// outVerdicts and inVerdicts are the reasons for which a packet did not pass.
var (
	outVerdicts = [...]DropReason{access.Denied: DropOutDenied, access.OverRate: DropOutRate, access.OverQuota: DropOutQuota, access.Shut: DropOutShut}
	inVerdicts  = [...]DropReason{access.Denied: DropInDenied, access.OverRate: DropInRate, access.OverQuota: DropInQuota, access.Shut: DropInShut}
)

// ask is what access says of a packet or frame.
func (t *Tunnel) ask(p *peer, a *access.State, d access.Direction, packet []byte, now time.Duration) (v access.Verdict) {
	if t.bridge == nil {
		v = a.Check(d, packet, now)
	} else {
		h, ok := ethernet.Parse(packet)
		if !ok {
			return access.Denied
		}
		v = a.CheckFrame(d, packet, &h, now)
	}
	if a.Attention() {
		t.attention.add(p)
	}
	return v
}

// mayPass reports whether a packet or frame may be sent to p; where rules forbid it its sender is told.
func (w *outbound) mayPass(p *peer, a *access.State, packet []byte, now time.Duration) bool {
	v := w.tunnel.ask(p, a, access.ToPeer, packet, now)
	if v == access.Pass {
		return true
	}
	w.tunnel.drops.add(outVerdicts[v], 1)
	if w.tunnel.bridge == nil && (v == access.Denied || v == access.Shut) {
		if _, dst, _, ok := ippacket.Parse(packet); ok {
			w.unreachable(packet, icmp.Prohibited, dst, now)
		}
	}
	return false
}

// mayPass reports whether the packet or frame in the slot may be taken from p; where it may not it is dropped.
func (w *inbound) mayPass(p *peer, a *access.State, packet []byte, now time.Duration) bool {
	v := w.tunnel.ask(p, a, access.FromPeer, packet, now)
	if v != access.Pass {
		w.refuse(inVerdicts[v])
	}
	return v == access.Pass
}

// shutOut reports whether p may have no session at the time of day.
func (p *peer) shutOut(wall time.Time) bool {
	a := p.access.Load()
	return a != nil && a.Policy().At(wall) != access.Open
}

// setAccess applies a change's part of access. Configuration is locked.
func (p *peer) setAccess(change *PeerChange) {
	if change.Access == nil && change.Usage == nil && change.Held == nil {
		return
	}
	t, wall := p.tunnel, p.tunnel.clock.wall()
	wasOut := p.shutOut(wall)
	a := p.access.Load()
	if a == nil {
		a = access.NewState(access.Unrestricted, wall)
	}
	if change.Access != nil {
		a.SetPolicy(change.Access, wall)
	}
	if change.Usage != nil {
		a.Restore(*change.Usage, wall)
	}
	if change.Held != nil {
		a.Hold(*change.Held)
	}
	if a.Idle() {
		a = nil
	}
	p.access.Store(a)
	p.attend(wall)
	if wasOut && !p.shutOut(wall) && p.timers.interval.Load() != 0 {
		p.wantKeepalive.Store(true)
	}
	t.attention.add(p)
}

// attend ends p's sessions where its time is over or not now.
func (p *peer) attend(wall time.Time) {
	if !p.shutOut(wall) {
		return
	}
	p.tunnel.sayGoodbye([]*peer{p}, message.ReasonRemoved)
	p.stop(DropOutShut)
}

// lookAccess settles what depends on the time of day, makes room for flows, and returns when to come again, or 0.
func (p *peer) lookAccess(now time.Duration) time.Duration {
	a := p.access.Load()
	if a == nil {
		return 0
	}
	t := p.tunnel
	wall := t.clock.wall()
	c := a.Look(wall)
	if c.Closed != access.Open && c.Closed != c.Was {
		t.configuring.Lock()
		p.attend(wall)
		t.configuring.Unlock()
	}
	switch {
	case c.Closed != access.Open && c.Closed != c.Was:
		t.logf("%s: peer %s: shut out: %v", t.name(), shortKey(p.public), c.Closed)
	case c.Closed != c.Was:
		t.logf("%s: peer %s: let in again", t.name(), shortKey(p.public))
		if p.timers.interval.Load() != 0 {
			p.wantKeepalive.Store(true)
		}
	case c.Exceeded:
		t.logf("%s: peer %s: its quota is used up", t.name(), shortKey(p.public))
	}
	if a.Crowded() {
		p.makeRoom(a, now)
	}
	if next := a.Policy().Next(wall); next > 0 {
		return now + next
	}
	return 0
}

// makeRoom lets the table of p's flows grow, within its share of what the tunnel's peers may have together.
func (p *peer) makeRoom(a *access.State, now time.Duration) {
	restricted, room := 0, 0
	for _, q := range p.tunnel.snapshotPeers() {
		if b := q.access.Load(); b != nil {
			restricted++
			room += b.Room()
		}
	}
	share := MaxFlows / max(restricted, MaxFlows/access.MaxFlows)
	a.Grow(min(share, MaxFlows-room+a.Room()), now)
}
