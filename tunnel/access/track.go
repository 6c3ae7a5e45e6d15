package access

import "time"

// phase is how far a flow has come. What a flow is given when something of it passes, after conntrack's defaults in Linux
// (net.netfilter.nf_conntrack_*_timeout_*):
//
//	phase        reached by                                       lasts
//	opened       the packet that rules allowed                    UDP 30 s, echo 30 s, TCP 120 s, others 600 s
//	answered     a packet the other way                           UDP 180 s, echo 30 s, TCP 60 s, others 600 s
//	established  TCP: then one of the opener's again              5 days
//	closing      TCP: a FIN of either side                        120 s
//	closed       TCP: a RST of either side                        10 s
//	fragments    the first of a packet's fragments, allowed       2 s
//
// Sequence numbers are not followed: both ends of a tunnel are authenticated, and a peer that forges a RST ends a flow of its own.
type phase uint8

const (
	opened phase = iota
	answered
	established
	closing
	closed
	fragments
)

var tcpLasts = [...]uint32{opened: 120, answered: 60, established: 5 * 24 * 3600, closing: 120, closed: 10}

const (
	udpOpened, udpAnswered = 30, 180
	echoLasts              = 30
	otherLasts             = 600
	fragmentsLast          = 2
)

// lasts is how many seconds a flow of the protocol has in a phase.
func lasts(protocol uint8, p phase) uint32 {
	switch {
	case p == fragments:
		return fragmentsLast
	case protocol == TCP:
		return tcpLasts[p]
	case protocol == UDP || protocol == udpLite:
		if p == opened {
			return udpOpened
		}
		return udpAnswered
	case protocol == ICMP:
		return echoLasts
	}
	return otherLasts
}

// next is the phase after a packet that goes the opener's way, or the other.
func (p phase) next(protocol, flags uint8, openers bool) phase {
	if protocol != TCP {
		if !openers && p == opened {
			return answered
		}
		return p
	}
	switch {
	case flags&flagRST != 0:
		return closed
	case p >= closing:
		return p
	case flags&flagFIN != 0:
		return closing
	case p == opened && !openers && flags&flagACK != 0:
		return answered
	case p == answered && openers && flags&(flagSYN|flagACK) == flagACK:
		return established
	}
	return p
}

func seconds(now time.Duration) uint32 { return uint32(now / time.Second) }

// admit asks flows and rules.
func (s *State) admit(f *inForce, t *table, p *parsed, d Direction, at uint32) bool {
	switch p.form {
	case malformed:
		return false
	case later:
		w := p.key.words()
		place, status := t.lookup(w, hash(w), at)
		return place != nil && status.generation() == f.generation
	case alone:
		return f.decide(d, p.near, p.v6, p.proto, p.port) == Allow
	}
	w := p.key.words()
	h := hash(w)
	place, status := t.lookup(w, h, at)
	if place != nil && status.generation() != f.generation && !f.renew(place, &status, &p.key) {
		place = nil
	}
	if p.form == quotes {
		return place != nil || f.decide(d, p.near, p.v6, ICMP, 0) == Allow
	}
	if place != nil {
		anew := p.proto == TCP && p.form == begins && (d != status.opener() || status.phase() >= established)
		if !anew {
			place.pass(status, p, d == status.opener(), at)
			return s.admitted(f, t, p, d, at)
		}
	}
	switch {
	case p.form == belongs && f.spec.Default == Deny:
		return false
	case f.decide(d, p.near, p.v6, p.proto, p.port) == Deny:
		return false
	case p.form == belongs || p.answer: // allowed by itself, and what would answer it is too, or not at all
		return s.admitted(f, t, p, d, at)
	}
	if place != nil { // the connection before
		place.status.CompareAndSwap(uint64(status), 0)
	}
	if t.insert(w, h, d, at, at+lasts(p.proto, opened), f.generation, opened) && !s.full.Load() {
		s.crowded.Store(true)
	}
	return s.admitted(f, t, p, d, at)
}

// lookup finds a flow in the table or the one before.
func (t *table) lookup(w [5]uint64, h uint64, at uint32) (*place, status) {
	if p, s := t.find(w, h, at); p != nil {
		return p, s
	}
	if older := t.older.Load(); older != nil {
		return older.find(w, h, at)
	}
	return nil, 0
}

// admitted remembers a packet's fragments where it is the first of them. It is true.
func (s *State) admitted(f *inForce, t *table, p *parsed, d Direction, at uint32) bool {
	if p.pieces {
		k := p.fragmentKey(d)
		w := k.words()
		h := hash(w)
		if place, _ := t.find(w, h, at); place == nil {
			t.insert(w, h, d, at, at+fragmentsLast, f.generation, fragments)
		}
	}
	return true
}

// pass notes a packet of the flow. It writes at most once a second, and where the phase changes.
func (p *place) pass(was status, packet *parsed, openers bool, at uint32) {
	phase := was.phase().next(packet.proto, packet.flags, openers)
	ends := at + lasts(packet.proto, phase)
	if phase == was.phase() && ends == was.ends() {
		return
	}
	p.status.CompareAndSwap(uint64(was), uint64(was.with(ends, was.generation(), phase))) // another worker's packet is as good
}

// renew asks the policy in force about a flow that one before it allowed. It ends where it is allowed no more.
func (f *inForce) renew(p *place, was *status, k *key) bool {
	opener := was.opener()
	port := k.nearPort
	if opener == ToPeer {
		port = k.farPort
	}
	if k.proto == ICMP {
		port = 0
	}
	if f.decide(opener, k.near, k.kind&kindV6 != 0, k.proto, port) == Deny {
		p.status.CompareAndSwap(uint64(*was), 0)
		return false
	}
	now := was.with(was.ends(), f.generation, was.phase())
	p.status.CompareAndSwap(uint64(*was), uint64(now))
	*was = now
	return true
}

// decide asks the rules of a direction.
func (p *Policy) decide(d Direction, near [2]uint64, v6 bool, protocol uint8, port uint16) Action {
	r, apart := p.rules[d], p.spec.Apart
	if r == nil && apart == nil {
		return Allow
	}
	a := address(near, v6)
	switch {
	case apart.holds(a):
		return Deny
	case r == nil:
		return Allow
	}
	return r.decide(a, protocol, port)
}
